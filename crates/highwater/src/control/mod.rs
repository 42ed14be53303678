//! How a running job is looked at and steered from another terminal: a local socket that its process opens.
//!
//! ```text
//!  highwater status ──{"version":1,"command":"status"}──▶ socket of the job's process ──▶ Control
//!                   ◀──{"version":1,"status":{...}}──────
//! ```
//!
//! Requests and replies are lines of JSON. The socket lies in a folder of this user alone, so whoever can connect may steer. Its name
//! holds a hash of where the job's checkpoints are and the number of the process (`place`): each process has its own, and
//! what a killed one leaves behind is recognised by nobody answering there.
//!
//! - `server` answers, in the job's process. - `client` asks.

mod client;
mod place;
pub(crate) mod server;

use highwater_runtime::observe::{CheckpointStatus, JobStatus, State};
use serde::{Deserialize, Serialize};

pub use client::{AskError, Client, Found, find, running};

/// The version of what is said over the socket.
pub const VERSION: u32 = 1;

/// What can be asked of a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// What it does. Answered by [`Answer::Status`].
    Status,
    /// Take a checkpoint now. Answered by [`Answer::Checkpoint`] once it is committed.
    Checkpoint,
    /// Take a last checkpoint and end. Answered by [`Answer::Stopping`] at once and by [`Answer::Ended`] at the end.
    Stop,
}

/// A request, as it travels.
#[derive(Debug, Serialize)]
struct Request {
    version: u32,
    command: Command,
}

/// A reply, as it travels.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    version: u32,
    #[serde(flatten)]
    answer: Answer,
}

/// What a running job answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// What it does.
    Status(Box<RunningJob>),
    /// This checkpoint was committed.
    Checkpoint(CheckpointStatus),
    /// It takes a last checkpoint.
    Stopping(Box<RunningJob>),
    /// It has ended.
    Ended(Ended),
    /// It can't do what was asked, and why.
    Error(String),
}

/// A job that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningJob {
    /// Its name.
    pub job: String,
    /// Where its checkpoints are; none if it keeps none.
    pub location: Option<String>,
    /// How the operating system knows the process that answers.
    pub pid: u32,
    /// What it does; none while it starts.
    pub status: Option<JobStatus>,
}

impl RunningJob {
    /// What it is about to do.
    pub fn state(&self) -> State {
        self.status.as_ref().map_or(State::Starting, |status| status.leader.state)
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// All sources were at their end.
    pub finished: bool,
    /// The last checkpoint that this attempt committed, by the number of its entry.
    pub checkpoint: Option<u64>,
    /// Records that this attempt read.
    pub records_in: u64,
    /// Why it failed, if it did.
    pub error: Option<String>,
}
