//! Asks running jobs, from any process of the same user.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Command, Reply, Request, RunningJob, VERSION, place};

/// So long an answer may take that a job has ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a job can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No job runs there.
    #[error("no running job at `{0}`")]
    NotRunning(String),
    /// More than one job goes by this name.
    #[error("several running jobs are called `{name}`; name one by the place of its checkpoints: {}", places.join(", "))]
    Several {
        /// The name.
        name: String,
        /// Where their checkpoints are.
        places: Vec<String>,
    },
    /// The job's process is there and says nothing.
    #[error(
        "the process at {path} doesn't answer ({why}); it may be stopped, or out of processor time"
    )]
    Silent {
        /// Its socket.
        path: String,
        /// What happened instead.
        why: String,
    },
    /// It refused what was asked.
    #[error("{0}")]
    Refused(String),
    /// What it said makes no sense, such as that of another version.
    #[error("the process at {path} said something that this program doesn't understand: {why}")]
    Strange {
        /// Its socket.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The folder of sockets can't be read.
    #[error("can't look for running jobs: {0}")]
    Folder(#[from] io::Error),
}

/// A connection to a running job.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// A socket that somebody listens at, and what came back from there.
#[derive(Debug)]
pub struct Found {
    /// The socket.
    pub path: PathBuf,
    /// What runs there, with the connection on which it said so.
    pub job: Result<(RunningJob, Client), AskError>,
}

/// All jobs of this user that run on this machine. What killed ones have left behind is removed.
///
/// # Errors
///
/// If the folder of sockets can't be read.
pub fn running() -> Result<Vec<Found>, AskError> {
    look(&place::folder(), None)
}

/// The running job whose checkpoints are at `name`, or that is called so. If several processes claim the same checkpoints, the one
/// of the latest attempt.
///
/// # Errors
///
/// If there is none, or not just one, or it doesn't answer.
pub fn find(name: &str) -> Result<(RunningJob, Client), AskError> {
    let folder = place::folder();
    let at_place = answered(look(&folder, Some(&place::hash(name)))?)?;
    if let Some(newest) = newest(at_place) {
        return Ok(newest);
    }
    let mut called = answered(look(&folder, None)?)?;
    called.retain(|(job, _)| job.job == name);
    let mut places: Vec<String> = called.iter().map(|(job, _)| shown_place(job)).collect();
    places.sort();
    places.dedup();
    if places.len() > 1 {
        return Err(AskError::Several { name: name.to_owned(), places });
    }
    newest(called).ok_or_else(|| AskError::NotRunning(name.to_owned()))
}

fn shown_place(job: &RunningJob) -> String {
    job.location.clone().unwrap_or_else(|| format!("process {}", job.pid))
}

fn newest(jobs: Vec<(RunningJob, Client)>) -> Option<(RunningJob, Client)> {
    let attempt = |job: &RunningJob| job.status.as_ref().map_or(0, |status| status.leader.attempt);
    jobs.into_iter().max_by_key(|(job, _)| attempt(job))
}

/// Those that answered; the error of the first one if none did.
fn answered(found: Vec<Found>) -> Result<Vec<(RunningJob, Client)>, AskError> {
    let mut silent = None;
    let mut jobs = Vec::new();
    for Found { job, .. } in found {
        match job {
            Ok(job) => jobs.push(job),
            Err(error) => silent = silent.or(Some(error)),
        }
    }
    match silent {
        Some(error) if jobs.is_empty() => Err(error),
        _ => Ok(jobs),
    }
}

fn look(folder: &Path, hash: Option<&str>) -> Result<Vec<Found>, AskError> {
    match place::check(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        checked => checked?,
    }
    let mut found = Vec::new();
    for path in place::sockets(folder, hash)? {
        let mut client = match Client::connect(&path) {
            Ok(client) => client,
            Err(error) if place::is_stale(&error) => {
                // Left behind by a process that was killed; or of one that has made it and doesn't listen yet.
                if place::is_orphan(&path) {
                    std::fs::remove_file(&path).ok();
                }
                continue;
            }
            Err(error) => {
                let job = Err(silent(&path, &error));
                found.push(Found { path, job });
                continue;
            }
        };
        let job = client.status().map(|job| (job, client));
        found.push(Found { path, job });
    }
    Ok(found)
}

fn silent(path: &Path, why: &dyn std::fmt::Display) -> AskError {
    AskError::Silent { path: path.display().to_string(), why: why.to_string() }
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// If nobody listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// What the job does.
    ///
    /// # Errors
    ///
    /// If it doesn't answer, or something that makes no sense.
    pub fn status(&mut self) -> Result<RunningJob, AskError> {
        match self.ask(Command::Status)? {
            Answer::Status(job) => Ok(*job),
            other => Err(self.strange(format!("{other:?} in answer to `status`"))),
        }
    }

    /// Asks for something, and waits for the first answer: for that to `checkpoint` as long as it takes.
    ///
    /// # Errors
    ///
    /// If it doesn't answer, refuses, or says something that makes no sense.
    pub fn ask(&mut self, command: Command) -> Result<Answer, AskError> {
        let request = Request { version: VERSION, command };
        let line = serde_json::to_string(&request).expect("a request is plain data");
        let sent = writeln!(self.stream.get_mut(), "{line}");
        sent.map_err(|error| silent(&self.path, &error))?;
        let patience = (command != Command::Checkpoint).then_some(PATIENCE);
        self.next(patience)?.ok_or_else(|| silent(&self.path, &"it hung up"))
    }

    /// The next answer, for which is waited so long, or for ever; none if the job's process has gone.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Option<Answer>, AskError> {
        let mut line = String::new();
        let read = self
            .stream
            .get_ref()
            .set_read_timeout(patience)
            .and_then(|()| self.stream.read_line(&mut line));
        match read {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(silent(&self.path, &error)),
            Ok(_) => {}
        }
        // The version comes first: what another one says needn't have anything else that is known here.
        let value: serde_json::Value =
            serde_json::from_str(&line).map_err(|error| self.strange(error.to_string()))?;
        if value["version"] != VERSION {
            return Err(self.strange(format!("version {} and not {VERSION}", value["version"])));
        }
        let reply: Reply =
            serde_json::from_value(value).map_err(|error| self.strange(error.to_string()))?;
        match reply.answer {
            Answer::Error(why) => Err(AskError::Refused(why)),
            answer => Ok(Some(answer)),
        }
    }

    fn strange(&self, why: String) -> AskError {
        AskError::Strange { path: self.path.display().to_string(), why }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// As between the two calls by which a job makes its socket and listens at it.
    #[test]
    fn a_socket_of_a_process_that_lives_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("sockets");
        place::prepare(&folder).unwrap();
        let hash = place::hash("s3://a");
        let begins = place::socket(&folder, "job", &hash);
        drop(UnixListener::bind(&begins).unwrap());
        // No process has so high a number.
        let dead = folder.join(format!("job-{hash}-2000000001.sock"));
        drop(UnixListener::bind(&dead).unwrap());
        assert!(look(&folder, Some(&hash)).unwrap().is_empty());
        assert!(begins.exists() && !dead.exists());
    }
}
