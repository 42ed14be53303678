//! What processes say to each other, as JSON behind its length, and the decision whether a process may take part.

use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::Duration;

use highwater_env::Network;
use highwater_log::CheckpointEntry;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{SILENCE, within};
use crate::Error;
use crate::observe::ProcessStatus;

/// The version of everything in this file.
const PROTOCOL: u32 = 2;

/// A message is no longer than this; what says that it is comes from somebody else.
const LENGTH_MAX: usize = 256 << 20;

/// It is written and read in pieces, each of which shows that the other side is alive.
const PIECE: usize = 64 << 10;

/// The first thing that is said on a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Greeting {
    /// To process 0: the sender wants to take part. The connection then carries [`Signal`]s.
    Hello(Hello),
    /// From a member of the attempt to another. The connection then carries [`Signal`]s, or timely's messages.
    Join { incarnation: u64, process: usize, data: bool },
}

/// What a process is, as it says itself. All but `process` must be equal for all processes of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    protocol: u32,
    pub(crate) process: usize,
    pub(crate) job: String,
    pub(crate) processes: usize,
    pub(crate) workers: usize,
    /// Of the program's file.
    pub(crate) binary: String,
    /// Of the job's nodes, edges, uids and states.
    pub(crate) graph: String,
    pub(crate) checkpoints: bool,
    /// Its sources read what is there, and end.
    #[serde(default)]
    pub(crate) available_now: bool,
}

impl Hello {
    pub(crate) fn new(process: usize, processes: usize, workers: usize, job: &str) -> Self {
        Hello {
            protocol: PROTOCOL,
            process,
            job: job.to_owned(),
            processes,
            workers,
            binary: String::new(),
            graph: String::new(),
            checkpoints: true,
            available_now: false,
        }
    }

    /// The content of the program's file, as a number.
    ///
    /// # Errors
    ///
    /// If it can't be read.
    pub(crate) fn binary_of_this_process() -> Result<String, Error> {
        /// The program that runs stays the same.
        static BINARY: OnceLock<String> = OnceLock::new();
        if let Some(binary) = BINARY.get() {
            return Ok(binary.clone());
        }
        let unreadable =
            |source| Error::Io { what: "reading this program's file".to_owned(), source };
        let linux = std::path::Path::new("/proc/self/exe");
        // The file may have been replaced since; on Linux the one that runs is still to be had.
        let path = match linux.exists() {
            true => linux.to_owned(),
            false => std::env::current_exe().map_err(unreadable)?,
        };
        let mut file = std::fs::File::open(path).map_err(unreadable)?;
        let mut hash = xxhash_rust::xxh3::Xxh3Default::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece).map_err(unreadable)? {
                0 => return Ok(BINARY.get_or_init(|| format!("{:016x}", hash.digest())).clone()),
                read => hash.update(&piece[..read]),
            }
        }
    }

    /// Why `other` can't take part in an attempt of which `self` is process 0; none if it can.
    pub(crate) fn refusal(&self, other: &Hello) -> Option<String> {
        let differs = |what: &str, mine: &dyn std::fmt::Display, its: &dyn std::fmt::Display| {
            format!("{what}: {its} there, {mine} at process 0")
        };
        if other.protocol != self.protocol {
            Some(differs("another version of the handshake", &self.protocol, &other.protocol))
        } else if other.job != self.job {
            Some(differs("another job", &self.job, &other.job))
        } else if other.processes != self.processes {
            Some(differs("another number of processes", &self.processes, &other.processes))
        } else if other.workers != self.workers {
            let what = "another number of workers in a process";
            Some(differs(what, &self.workers, &other.workers))
        } else if other.process == 0 || other.process >= self.processes {
            Some(format!("there is no room for a process {} beside process 0", other.process))
        } else if other.checkpoints != self.checkpoints {
            Some("only one of them keeps checkpoints".to_owned())
        } else if other.available_now != self.available_now {
            Some(
                "only one of them reads what is there and ends (`--trigger available-now`)"
                    .to_owned(),
            )
        } else if other.binary != self.binary {
            Some("another program: all processes must run the same build".to_owned())
        } else if other.graph != self.graph {
            Some("another graph: the job function built other operators there (does it depend on the machine?)".to_owned())
        } else {
            None
        }
    }
}

/// How the attempt begins, as process 0 has decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) incarnation: u64,
    pub(crate) attempt: u64,
    pub(crate) job_id: String,
    pub(crate) base: Option<(u64, CheckpointEntry)>,
}

/// What a process has done in an attempt.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) records_in: u64,
    pub(crate) records_out: u64,
}

/// What is said on a control connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Signal {
    /// The sender is alive.
    Beat,
    /// From process 0, instead of a welcome: the sender can't take part.
    Refused { why: String },
    /// From process 0: its attempt is complete already, or somebody else is that process; the sender may knock again.
    NotNow { why: String },
    /// From process 0: the attempt begins.
    Welcome(Box<Welcome>),
    /// To process 0: somebody asked for the job to be stopped after a last checkpoint.
    Stop,
    /// To process 0: somebody asked for a checkpoint.
    CheckpointNow,
    /// To process 0: what the sender does, for people.
    Status(Box<ProcessStatus>),
    /// The attempt has failed at the sender.
    Failed { why: String },
    /// To process 0: the sender's part of the dataflow has come to its end.
    Ended(Totals),
    /// From process 0: the attempt has come to its regular end, and everything is published.
    Done { finished: bool },
}

/// Writes a message.
pub(super) async fn write(
    network: &dyn Network,
    to: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    let json = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(4 + json.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(json);
    for piece in bytes.chunks(PIECE) {
        within(network, SILENCE, to.write_all(piece)).await.ok_or(io::ErrorKind::TimedOut)??;
    }
    Ok(())
}

/// Reads a message. The sender may be silent for as long as `patience`.
pub(super) async fn read<T: DeserializeOwned>(
    network: &dyn Network,
    patience: Duration,
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let mut length = [0; 4];
    fill(network, patience, from, &mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LENGTH_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes is none of ours")));
    }
    // Grows with what arrives: a false length takes no memory.
    let mut json = Vec::new();
    while json.len() < length {
        let begin = json.len();
        json.resize(length.min(begin + PIECE), 0);
        fill(network, patience, from, &mut json[begin..]).await?;
    }
    serde_json::from_slice(&json).map_err(io::Error::other)
}

async fn fill(
    network: &dyn Network,
    patience: Duration,
    from: &mut (impl AsyncRead + Unpin),
    mut rest: &mut [u8],
) -> io::Result<()> {
    while !rest.is_empty() {
        let read = within(network, patience, from.read(rest)).await;
        match read.ok_or(io::ErrorKind::TimedOut)?? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => rest = &mut rest[read..],
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use highwater_env::{Env, RealEnv};
    use proptest::prelude::*;

    use super::*;

    fn hello(process: usize) -> Hello {
        let mut hello = Hello::new(process, 3, 2, "job");
        hello.binary = "b".to_owned();
        hello.graph = "g".to_owned();
        hello
    }

    #[test]
    fn only_the_same_job_in_the_same_layout_takes_part() {
        let zero = hello(0);
        assert_eq!(zero.refusal(&hello(1)), None);
        assert_eq!(zero.refusal(&hello(2)), None);
        let refused = |change: &dyn Fn(&mut Hello), word: &str| {
            let mut other = hello(1);
            change(&mut other);
            let why = zero.refusal(&other).expect("it differs");
            assert!(why.contains(word), "{why}");
        };
        refused(&|other| other.process = 0, "no room");
        refused(&|other| other.process = 3, "no room");
        refused(&|other| other.job = "other".to_owned(), "another job: other there, job at");
        refused(&|other| other.processes = 4, "processes: 4 there");
        refused(&|other| other.workers = 1, "workers in a process: 1 there");
        refused(&|other| other.binary = "c".to_owned(), "another program");
        refused(&|other| other.graph = "h".to_owned(), "another graph");
        refused(&|other| other.checkpoints = false, "checkpoints");
        refused(&|other| other.available_now = true, "available-now");
        refused(&|other| other.protocol = 1, "version");
    }

    /// Memory answers at once; the network only knows how to wait.
    fn network() -> Arc<dyn Network> {
        static ENV: OnceLock<RealEnv> = OnceLock::new();
        ENV.get_or_init(|| RealEnv::new().unwrap()).network().unwrap()
    }

    /// Reads a message from these bytes, and gives what is left.
    fn read_from<T: DeserializeOwned>(mut bytes: &[u8]) -> io::Result<(T, &[u8])> {
        let read = read(&*network(), SILENCE, &mut bytes).now_or_never().unwrap()?;
        Ok((read, bytes))
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let mut wire = Vec::new();
        let greeting = Greeting::Hello(hello(1));
        write(&*network(), &mut wire, &greeting).now_or_never().unwrap().unwrap();
        write(&*network(), &mut wire, &Signal::Stop).now_or_never().unwrap().unwrap();
        let (Greeting::Hello(arrived), rest) = read_from(&wire).unwrap() else { panic!() };
        assert_eq!(arrived, hello(1));
        let (stop, rest) = read_from(rest).unwrap();
        assert!(matches!(stop, Signal::Stop));
        assert!(read_from::<Signal>(rest).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn rubbish_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(read_from::<Greeting>(&bytes).is_err());
        }
    }
}
