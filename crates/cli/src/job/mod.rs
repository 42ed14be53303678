//! What the process of a running job is asked, at its local socket: what it does ([`status`]), to take a checkpoint, to stop.
//!
//! A job that doesn't run has nobody to ask; what it has committed is in its store ([`checkpoint`](crate::checkpoint)).

mod status;

use clap::Args;
use highwater::control::{self, Answer as Reply, AskError, Client, Command, Ended, RunningJob};
use serde::Serialize;

use crate::human::{count, duration, size};
use crate::{Answer, Error};

pub use status::Status;

/// A running job, and how to say what it answers.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// The job: its name, or where it keeps its checkpoints.
    #[arg(value_name = "JOB")]
    job: String,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Target {
    /// Whether the answer is for a program.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Has the job take a checkpoint, and waits until it is committed.
    pub fn checkpoint(&self) -> Result<Answer, Error> {
        let (job, mut client) = find(&self.job)?;
        let taken = match client.ask(Command::Checkpoint)? {
            Reply::Checkpoint(taken) => taken,
            other => return Err(unexpected(&other)),
        };
        let (took, bytes) = (duration(taken.duration_us), size(taken.bytes));
        let text = format!("{}: checkpoint {} in {took}, {bytes}\n", job.job, taken.checkpoint);
        Answer::new(&taken, text, true)
    }

    /// Has the job take a last checkpoint and end, and waits until it has.
    pub fn stop(&self) -> Result<Answer, Error> {
        #[derive(Serialize)]
        struct Stopped<'a> {
            job: &'a str,
            pid: u32,
            #[serde(flatten)]
            ended: &'a Ended,
        }
        let (job, mut client) = find(&self.job)?;
        match client.ask(Command::Stop)? {
            Reply::Stopping(_) => {}
            other => return Err(unexpected(&other)),
        }
        let ended = match client.next(None)? {
            Some(Reply::Ended(ended)) => ended,
            Some(other) => return Err(unexpected(&other)),
            None => {
                let why = "ended without saying how; the program that started it knows more";
                return Err(format!("process {} of {} {why}", job.pid, job.job).into());
            }
        };
        let (text, sound) = (how(&job.job, &ended), ended.error.is_none());
        let stopped = Stopped { job: &job.job, pid: job.pid, ended: &ended };
        Answer::new(&stopped, text, sound)
    }
}

fn how(job: &str, ended: &Ended) -> String {
    let Ended { finished, checkpoint, records_in, error } = ended;
    if let Some(error) = error {
        return format!("{job}: failed: {error}\n");
    }
    let how = if *finished { "finished" } else { "stopped" };
    let last = match checkpoint {
        Some(checkpoint) => format!("the last checkpoint is {checkpoint}"),
        None => "no checkpoint was taken".to_owned(),
    };
    format!("{job}: {how} after {}; {last}\n", count(*records_in, "record"))
}

/// The running job of that name, or with its checkpoints at that place.
fn find(name: &str) -> Result<(RunningJob, Client), Error> {
    control::find(name).map_err(|error| match error {
        AskError::NotRunning(_) => {
            let else_where =
                "by this user on this machine; `highwater status` lists those that are";
            format!(
                "no job of that name, or with its checkpoints there, is run {else_where}: `{name}`"
            )
            .into()
        }
        error => error.into(),
    })
}

fn unexpected(answer: &Reply) -> Error {
    format!("the job answered something else than it was asked: {answer:?}").into()
}
