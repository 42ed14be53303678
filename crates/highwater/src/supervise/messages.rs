//! What a supervisor and the process of an attempt say to each other: lines of JSON over a Unix socket.
//!
//! The socket's end says something, too: the supervisor is gone, and the attempt ends at once; or the process is gone.

use std::io::{self, BufRead, Write};

use highwater_runtime::careful::{Care, Span};
use highwater_runtime::connector::Away;
use highwater_runtime::{Error, Outcome};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Names the supervisor's socket to the process of an attempt.
pub(super) const SOCKET_VARIABLE: &str = "HIGHWATER_SUPERVISOR";

/// To the process of an attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Begin.
    Begin(Begin),
    /// Take a last checkpoint and end.
    Stop,
    /// Read without care from now on.
    Relax,
}

/// How an attempt begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// This process among those at these addresses; without addresses, as the command line says.
    pub(super) process: usize,
    pub(super) hosts: Option<Vec<String>>,
    /// How often the job was started again.
    pub(crate) restarts: u64,
    pub(crate) last_failure: Option<String>,
    /// An earlier attempt has begun to work: what was to be forgotten at the start is forgotten.
    pub(crate) begun: bool,
    pub(crate) care: Care,
}

/// From the process of an attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// It is there; others reach it at this address.
    Here { address: Option<String> },
    /// The workers begin.
    Begun,
    /// In a careful attempt: these records are on their way, and nothing else.
    Suspect(Span),
    /// A checkpoint was committed; so many records were read by then.
    Progress { records: u64 },
    /// It came to its regular end.
    Ended(Outcome),
    /// It has failed; nothing else follows.
    Failed { sort: Sort, why: String, records: u64 },
}

/// What a failure means for the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Sort {
    /// Another attempt may fare better.
    Again,
    /// So it may once a place outside of the job is there again, the checkpoints' storage or the destination of a sink.
    Away,
    /// The job's own function, a source or a sink failed: with an attempt that never began to work, somebody has to do something first.
    OfTheJob,
    /// The processes didn't find together: try again, and don't count it.
    NotTogether,
    /// Somebody has to do something first.
    Final,
}

impl Sort {
    /// Whether it makes sense to start again after this error.
    pub(super) fn of(error: &Error) -> Self {
        use highwater_log::LogError;
        match error {
            Error::Handshake(_) => Sort::NotTogether,
            Error::Plan(_) | Error::Setting(_) | Error::Fenced(_) | Error::State { .. } => {
                Sort::Final
            }

            Error::Refused { .. } => Sort::Final,
            Error::Log(LogError::Unavailable { .. } | LogError::Gone { .. }) => Sort::Away,
            Error::Operator { source, .. } if source.is::<Away>() => Sort::Away,
            Error::Operator { .. } | Error::Io { .. } => Sort::OfTheJob,
            Error::Log(_) => Sort::Final,
            _ => Sort::Again,
        }
    }
}

pub(super) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// The next message; none when the other side is gone.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl BufRead) -> Option<T> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}
