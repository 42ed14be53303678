//! Answers at the socket, in the job's process: a few tasks on the thread of the [front desk](crate::desk).

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_runtime::Control;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::watch;

use super::{Answer, Command, Ended, Reply, RunningJob, VERSION, place};

/// A request is no longer than this.
const REQUEST_MAX: u64 = 4096;

/// So long a connection may say nothing.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How often a requested checkpoint is looked after.
const POLL: Duration = Duration::from_millis(10);

/// What the job's process knows of itself, for all who ask.
#[derive(Debug)]
pub(crate) struct Asked {
    job: String,
    location: Option<String>,
    control: Mutex<Running>,
    ended: watch::Sender<Option<Ended>>,
}

#[derive(Debug, Default)]
struct Running {
    control: Option<Control>,
    /// Somebody asked for it before the job was running.
    stop: bool,
}

impl Asked {
    /// `location` is where the checkpoints are, as the user wrote it.
    pub(crate) fn new(job: &str, location: Option<&str>) -> Arc<Self> {
        let absolute = |location: &str| match std::fs::canonicalize(location) {
            Ok(path) => path.display().to_string(),
            Err(_) => location.to_owned(),
        };
        Arc::new(Asked {
            job: job.to_owned(),
            location: location.map(absolute),
            control: Mutex::default(),
            ended: watch::Sender::new(None),
        })
    }

    /// The job runs.
    pub(crate) fn started(&self, control: &Control) {
        let mut running = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        running.control = Some(control.clone());
        if running.stop {
            control.stop();
        }
    }

    /// The job has ended.
    pub(crate) fn ended(&self, how: Ended) {
        self.ended.send_replace(Some(how));
    }

    /// Completes when the job has ended.
    pub(crate) async fn end(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        let how = ended.wait_for(Option::is_some).await.ok().and_then(|how| how.clone());
        how.expect("the sender lives as long as this does")
    }

    /// What is steered, once the job runs.
    pub(crate) fn control(&self) -> Option<Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).control.clone()
    }

    fn running(&self) -> RunningJob {
        RunningJob {
            job: self.job.clone(),
            location: self.location.clone(),
            pid: std::process::id(),
            status: self.control().map(|control| control.status()),
        }
    }

    fn stop(&self) {
        let mut running = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        match &running.control {
            Some(control) => control.stop(),
            None => running.stop = true,
        }
    }

    /// Has a checkpoint taken, and waits for it.
    async fn checkpoint(&self) -> Result<Answer, String> {
        let Some(control) = self.control() else {
            return Err("the job is starting; ask again in a moment".to_owned());
        };
        let before = control.status().leader;
        if before.checkpoints.interval_ms.is_none() {
            return Err("the job keeps no checkpoints; it was started with --no-checkpoints".into());
        }
        control.request_checkpoint();
        loop {
            let now = control.status().leader.checkpoints;
            // The interval that was the present one when it was asked for is in it.
            let newest = now.last.first().filter(|last| last.interval >= before.epoch.interval());
            if let Some(newest) = newest {
                return Ok(Answer::Checkpoint(newest.clone()));
            }
            if now.failed > before.checkpoints.failed {
                let why = now.last_failure.unwrap_or_default();
                return Err(format!(
                    "the checkpoint failed: {why}; the next one covers what it would have"
                ));
            }
            if control.is_over() {
                return Err("the job ended before the checkpoint was committed".to_owned());
            }
            tokio::time::timeout(POLL, self.end()).await.ok();
        }
    }
}

/// The socket of a job, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    pub(crate) listener: UnixListener,
}

impl Socket {
    /// Opens the socket of a job, and removes what killed processes have left behind.
    ///
    /// # Errors
    ///
    /// If there is no place for it that is this user's alone.
    pub(crate) fn open(job: &str, location: Option<&str>) -> io::Result<Self> {
        Self::open_in(&place::folder(), job, location)
    }

    fn open_in(folder: &Path, job: &str, location: Option<&str>) -> io::Result<Self> {
        // Without checkpoints nobody else can be meant.
        let own = format!("process://{}/{job}", std::process::id());
        let hash = place::hash(location.unwrap_or(&own));
        place::prepare(folder)?;
        place::sweep(folder)?;
        let path = place::socket(folder, job, &hash);
        // In a container every process has had the same number.
        if UnixStream::connect(&path).is_err_and(|error| place::is_stale(&error)) {
            std::fs::remove_file(&path).ok();
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Socket { path, listener })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

/// Answers the requests of one connection, until it is closed or the job has ended.
pub(crate) async fn serve(stream: tokio::net::UnixStream, asked: Arc<Asked>) {
    if let Err(error) = answer_all(stream, &asked).await {
        tracing::debug!(%error, "somebody who asked has gone");
    }
}

async fn answer_all(stream: tokio::net::UnixStream, asked: &Asked) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut read).take(REQUEST_MAX);
        let request = limited.read_until(b'\n', &mut line);
        let length = tokio::select! {
            length = tokio::time::timeout(IDLE_MAX, request) => length.unwrap_or(Ok(0))?,
            _ = asked.end() => 0,
        };
        if length == 0 {
            return Ok(());
        }
        let command = understand(&line);
        let answer = match &command {
            Ok(Command::Status) => Answer::Status(Box::new(asked.running())),
            Ok(Command::Checkpoint) => asked.checkpoint().await.unwrap_or_else(Answer::Error),
            Ok(Command::Stop) => {
                asked.stop();
                Answer::Stopping(Box::new(asked.running()))
            }
            Err(why) => Answer::Error(why.clone()),
        };
        reply(&mut write, answer).await?;
        match command {
            Ok(Command::Stop) => reply(&mut write, Answer::Ended(asked.end().await)).await?,
            Ok(_) => {}
            // What else it says can't be told from the rest of this.
            Err(_) => return Ok(()),
        }
    }
}

async fn reply(write: &mut (impl AsyncWriteExt + Unpin), answer: Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Reply { version: VERSION, answer })?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// What a request asks for, or what is wrong with it.
fn understand(line: &[u8]) -> Result<Command, String> {
    const USE: &str = r#"a request is a line such as {"version":1,"command":"status"}"#;
    if line.len() as u64 == REQUEST_MAX {
        return Err(format!("the request is longer than {REQUEST_MAX} bytes; {USE}"));
    }
    let value: serde_json::Value =
        serde_json::from_slice(line).map_err(|error| format!("no JSON ({error}); {USE}"))?;
    match &value["version"] {
        version if *version == VERSION => {}
        serde_json::Value::Null => return Err(format!("the version is missing; {USE}")),
        version => {
            return Err(format!(
                "this job speaks version {VERSION} and not {version}; use the program `highwater` of its version"
            ));
        }
    }
    match value["command"].as_str() {
        Some(command) => serde_json::from_value(command.into()).map_err(|_| {
            format!("there is no command `{command}`; there are status, checkpoint and stop")
        }),
        None => Err(format!("the command is missing; {USE}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_requests_are_refused_with_a_reason() {
        assert_eq!(understand(br#"{"version":1,"command":"stop"}"#), Ok(Command::Stop));
        for (request, why) in [
            (&b"status\n"[..], "no JSON"),
            (br#"{"command":"status"}"#, "version is missing"),
            (br#"{"version":2,"command":"status"}"#, "speaks version 1 and not 2"),
            (br#"{"version":1}"#, "command is missing"),
            (br#"{"version":1,"command":"explode"}"#, "no command `explode`"),
            (br#"[1]"#, "version is missing"),
            (&[b'x'; REQUEST_MAX as usize], "longer than"),
        ] {
            let error = understand(request).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_a_killed_process_left_behind_is_removed_and_a_living_one_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("sockets");
        let location = parent.path().to_str().unwrap();
        place::prepare(&folder).unwrap();
        let hash = place::hash(location);
        // No process has so high a number.
        let dead = folder.join(format!("job-{hash}-2000000001.sock"));
        drop(UnixListener::bind(&dead).unwrap());
        let elsewhere = folder.join(format!("job-{hash}-2000000002.sock"));
        let _elsewhere = UnixListener::bind(&elsewhere).unwrap();
        let here = folder.join(format!("other-{hash}-{}.sock", std::process::id()));
        drop(UnixListener::bind(&here).unwrap());
        // A process with this number was killed before.
        drop(UnixListener::bind(place::socket(&folder, "job", &hash)).unwrap());
        let socket = Socket::open_in(&folder, "job", Some(location)).unwrap();
        assert!(UnixStream::connect(&socket.path).is_ok());
        assert!(!dead.exists() && elsewhere.exists() && here.exists());
        let path = socket.path.clone();
        assert!(path.exists());
        drop(socket);
        assert!(!path.exists());
    }
}
