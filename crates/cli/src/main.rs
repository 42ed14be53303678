//! The program `highwater`: what people and scripts ask about jobs, from outside of the jobs' own programs.
//!
//! Every subcommand is a module of its own, and this file only sends the command line to it. A command finds something out and
//! gives it back as [`Answer`]: for people as text, with `--json` for programs.
//!
//! - [`checkpoint`] reads the store of a job, which may run or not. - [`job`] asks the process of one that runs.
//!
//! The exit status is 0 if all is well, 1 if what was asked for was found and is broken, and 2 if it couldn't be found out.

mod checkpoint;
mod human;
mod job;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

/// Looks at the jobs of Highwater from outside, and steers them.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what running jobs do: one in full, or all of this user on this machine in short.
    Status(job::Status),
    /// Has a running job take a last checkpoint and end, and waits until it has; started again, it goes on from there.
    Stop(job::Target),
    /// Looks at the checkpoints of a job, or has one taken.
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
}

/// Why something couldn't be found out, in words for people.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a command found out.
struct Answer {
    text: String,
    json: serde_json::Value,
    /// Nothing of it is broken.
    sound: bool,
}

impl Answer {
    /// What `found` says, `text` being the same for people.
    fn new(found: &impl Serialize, text: String, sound: bool) -> Result<Self, Error> {
        Ok(Answer { text, json: serde_json::to_value(found)?, sound })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error")),
        )
        .with_writer(std::io::stderr)
        .init();
    let (answer, json) = match arguments.command {
        Command::Status(status) => (status.run(), status.json()),
        Command::Stop(job) => (job.stop(), job.json()),
        Command::Checkpoint(command) => (command.run(), command.json()),
    };
    match answer {
        Ok(Answer { text, json: found, sound }) => {
            let said = if json { format!("{found:#}\n") } else { text };
            // Who reads through a pipe may have seen enough.
            std::io::stdout().write_all(said.as_bytes()).ok();
            if sound { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("highwater: {error}");
            ExitCode::from(2)
        }
    }
}
