//! `highwater checkpoint`: what the log of a job holds, and whether it is whole.
//!
//! All of it but `now` (which asks the job's process, see [`job`](crate::job)) only reads: the store is opened so that it refuses to be written to, no attempt is started, and a job that runs
//! meanwhile goes on. That it runs means that what was listed may be collected before it is read, which is no damage:
//! [`verify`] looks at the log again before it calls something broken.

mod list;
mod show;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, Subcommand};
use highwater_env::{RealEnv, block_on};
use highwater_log::decide::{identity, listed_as_garbage};
use highwater_log::{Facts, Log, Store};
use object_store::path::Path;

use crate::job::Target;
use crate::{Answer, Error};

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Stored(Stored),
    /// Has a running job take a checkpoint now, and waits until it is committed.
    Now(Target),
}

/// What can be asked of a store. Nothing is changed, and a job that runs isn't disturbed.
#[derive(Clone, Debug, Subcommand)]
pub enum Stored {
    /// Lists the checkpoints that are kept, oldest first.
    List(At),
    /// Shows what one checkpoint holds: graph, states, offsets of sources, objects, output not yet published.
    Show {
        #[command(flatten)]
        at: At,
        /// Which one, by its number; the newest if none is given.
        #[arg(value_name = "CHECKPOINT")]
        number: Option<u64>,
    },
    /// Reads everything that the log refers to, and names what is broken (with exit status 1).
    Verify(At),
}

/// Where to look, and how to say what is there.
#[derive(Args, Clone, Debug)]
pub struct At {
    /// Where the job keeps its checkpoints, as it is given to the job as --checkpoints.
    #[arg(value_name = "LOCATION")]
    location: String,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Whether the answer is for a program.
    pub fn json(&self) -> bool {
        match self {
            Command::Stored(stored) => stored.at().json,
            Command::Now(job) => job.json(),
        }
    }

    /// Finds out, or does, what is asked for.
    pub fn run(&self) -> Result<Answer, Error> {
        match self {
            Command::Stored(stored) => stored.run(),
            Command::Now(job) => job.checkpoint(),
        }
    }
}

impl Stored {
    fn at(&self) -> &At {
        match self {
            Stored::List(at) | Stored::Verify(at) | Stored::Show { at, .. } => at,
        }
    }

    fn run(&self) -> Result<Answer, Error> {
        let env = Arc::new(RealEnv::new()?);
        let store = Store::open_to_read(&self.at().location)?;
        let log = Log::to_read(store, Path::default(), env.clone());
        let (command, location) = (self.clone(), self.at().location.clone());
        block_on(&*env, async move {
            let look = Look::at(log, location).await?;
            match command {
                Stored::List(_) => list::list(&look).await,
                Stored::Show { number, .. } => show::show(&look, number).await,
                Stored::Verify(_) => verify::verify(look).await,
            }
        })
    }
}

/// The log of a job as it was at one time.
struct Look {
    location: String,
    log: Log,
    facts: Facts,
    job: String,
    /// None if the log has no single identity; `verify` says why.
    job_id: Option<String>,
    /// Checkpoints that a job may be deleting right now, and which entry says so.
    deleting: BTreeMap<u64, u64>,
}

impl Look {
    async fn at(log: Log, location: String) -> Result<Self, Error> {
        let facts = log.read().await?;
        if facts.entries.is_empty() {
            let why = "no job keeps its checkpoints there: no entry of a log is in it";
            return Err(format!("`{location}`: {why}").into());
        }
        let job = facts.all_sound().next_back().map(|entry| entry.job.clone()).unwrap_or_default();
        let job_id = identity(&facts, false).ok().flatten();
        let deleting = listed_as_garbage(&facts, u64::MAX);
        Ok(Look { location, log, facts, job, job_id, deleting })
    }

    /// The same log, as it is now.
    async fn again(self) -> Result<Self, Error> {
        Look::at(self.log, self.location).await
    }

    /// Whether the job still counts on this checkpoint.
    fn is_kept(&self, number: u64) -> bool {
        self.facts.entries.contains_key(&number) && !self.deleting.contains_key(&number)
    }

    /// A line about the job, for people.
    fn headline(&self) -> String {
        let starts: Vec<_> = self.facts.all_sound().filter_map(|entry| entry.started()).collect();
        let last = starts.last().map_or_else(String::new, |last| {
            let (time, workers) = (crate::human::time(last.started_ms), last.workers.into());
            format!("; the last one began {time} with {}", crate::human::count(workers, "worker"))
        });
        let attempts = crate::human::count(starts.len() as u64, "attempt");
        let id = self.job_id.as_deref().unwrap_or("unknown");
        format!("job {} (identity {id}), {attempts}{last}\n", self.job)
    }
}
