//! Why a job doesn't start or an attempt ends, in words for people.

use crate::plan::PlanError;

/// An error of a user's closure or a connector.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a job doesn't start or an attempt ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job's graph is wrong; all that is wrong with it.
    #[error("the job can't run:\n{}", list(.0))]
    Plan(Vec<PlanError>),
    /// A setting doesn't make sense.
    #[error("{0}")]
    Setting(String),
    /// The commit log or its store.
    #[error(transparent)]
    Log(#[from] highwater_log::LogError),
    /// Recovery refuses to go on.
    #[error("{why}\n  {what_to_do}")]
    Refused {
        /// What is wrong.
        why: String,
        /// What can be done.
        what_to_do: String,
    },
    /// The job was to end, and its last checkpoint failed.
    #[error(
        "the last checkpoint failed: {0}\n  nothing is lost; start the job again once this is mended"
    )]
    LastCheckpoint(String),
    /// Another attempt took over; this one has stopped and changed nothing since.
    #[error("stopped: {0}")]
    Fenced(String),
    /// It isn't known whether the last checkpoint was committed; the next start finds out.
    #[error("{0}")]
    InDoubt(highwater_log::AppendError),
    /// State can't be written or read.
    #[error("operator `{uid}`: {source}")]
    State {
        /// The operator.
        uid: String,
        /// What is wrong.
        source: highwater_state::StateError,
    },
    /// A user's function, a source or a sink failed.
    #[error("{kind} `{uid}`: {source}")]
    Operator {
        /// What it is: `source`, `sink` or the operator's name.
        kind: &'static str,
        /// Its uid or name.
        uid: String,
        /// What it says.
        source: BoxError,
    },
    /// A worker panicked: a bug of the engine or of a user's function.
    #[error("worker {worker} panicked: {message}")]
    Panic {
        /// The worker.
        worker: usize,
        /// What the panic said.
        message: String,
    },
    /// The committer has died of a panic: a bug of the engine or of a sink.
    #[error(
        "the committer panicked; what it said is above. Nothing committed is lost: start the job again"
    )]
    Committer,
    /// The operating system refused something at the start.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process of the attempt is lost, or has failed.
    #[error("lost {process}: {why}")]
    Peer {
        /// Which one, with its address.
        process: String,
        /// What is known of it.
        why: String,
    },
    /// This process can't take part in the attempt of the others.
    #[error("{0}")]
    Handshake(String),
    /// A test's script asked for a crash here.
    #[error("crashed, as the script asked")]
    ScriptedCrash,
}

fn list(errors: &[PlanError]) -> String {
    let lines: Vec<String> = errors.iter().map(|error| format!("  - {error}")).collect();
    lines.join("\n")
}
