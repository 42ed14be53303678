//! Jobs in processes of their own, and how they are asked.

pub mod shown;
pub mod steering;
pub mod stuck;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use highwater::control::{self, Client, RunningJob};
use highwater::observe::JobStatus;

use crate::program::{command, this_program};
use crate::support::wait_for;

/// What this program does if it is to be one of the jobs of these tests.
pub fn job() -> Option<highwater::Result<()>> {
    stuck::job().or_else(shown::job)
}

/// The job of `program.rs` in `folder`, with a checkpoint every 50 ms.
pub fn numbers(folder: &Path, limit: Option<u64>, rate: u64) -> Command {
    let mut command = command(this_program(), folder, limit, rate);
    // What is asked, paused and killed is the process itself.
    command.args(["--checkpoint-interval", "50ms", "--restart", "never"]);
    command
}

/// A process that doesn't outlive its test.
pub struct Job(pub Child);

impl Drop for Job {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub fn start(command: &mut Command) -> Job {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Job(command.spawn().unwrap())
}

/// Where `program.rs` has its checkpoints.
pub fn place(folder: &Path) -> String {
    folder.join(".highwater/numbers").display().to_string()
}

/// The job at `place`, once it runs and `condition` holds of what it does.
pub fn asked(
    place: &str,
    what: &str,
    mut condition: impl FnMut(&JobStatus) -> bool,
) -> (JobStatus, Client) {
    let mut found = None;
    wait_for(what, || {
        let Ok((RunningJob { status: Some(status), .. }, client)) = control::find(place) else {
            return false;
        };
        let holds = condition(&status);
        found = Some((status, client));
        holds
    });
    found.unwrap()
}
