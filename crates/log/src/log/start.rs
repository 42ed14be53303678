//! The start of an attempt: taking a number at the end of the log.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::Error;

use crate::decide::{self, Base};
use crate::entry::{AttemptEntry, Body};
use crate::error::LogError;
use crate::facts::{Facts, Found};
use crate::log::{AT_ONCE, Failed, Log, Own};
use crate::names;

/// How often an attempt chooses anew before it gives up. Each time another attempt has moved on, which
/// nobody does forever without committing, and commits are far apart compared to a look at the log.
const ROUNDS: u32 = 1000;

/// A listing may lag behind by so many entries, less than one: that many numbers are looked at by name beyond the last one known.
///
/// An entry that a listing hides would otherwise be taken for one that isn't there, its number for free (a checkpoint below it may
/// have been collected), and the log for shorter than it is.
const PROBES: u64 = 8;

/// A store that hasn't answered anything for so long at a start isn't tried again: perhaps there is none.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// What is in the object by which a start tries the store.
const PROBE_CONTENT: &str =
    "Every start of a job tries to create this, to see that the store refuses it.\n";

/// An attempt that holds its entry.
#[derive(Clone, Debug)]
pub struct Started {
    /// The attempt: the number of its entry.
    pub attempt: u64,
    /// The job's identity.
    pub job_id: String,
    /// The log up to and including the attempt's own entry.
    pub facts: Facts,
}

impl Started {
    /// What the attempt recovers to; see [`next_base`](crate::next_base).
    pub fn base(&self, broken: &BTreeMap<u64, String>, exactly_once: bool) -> Base {
        decide::next_base(&self.facts, self.attempt, broken, exactly_once)
    }
}

impl Log {
    /// Starts an attempt: appends its entry at the end of the log, which fences all earlier attempts.
    ///
    /// Until it holds its entry, a number that is taken means: look again, choose again, go on. `fresh`
    /// forbids recovery from anything before.
    ///
    /// # Errors
    ///
    /// If the store can't be reached, or the log shows that it isn't this job's or has lost its identity.
    ///
    /// # Panics
    ///
    /// If an attempt was started from here before: every attempt has a [`Log`] of its own.
    pub async fn start(&self, workers: u32, fresh: bool) -> Result<Started, LogError> {
        assert!(self.own() == Own::Nothing, "invariant 2: a log starts one attempt");
        self.check_store().await?;
        let mut facts = self.read().await?;
        for _ in 0..ROUNDS {
            let number = facts.tail().map_or(0, |tail| tail + 1);
            let job_id = decide::identity(&facts, fresh)?.unwrap_or_else(|| self.random_hex());
            let started_ms = self.env.wall_clock_ms();
            let body = AttemptEntry { job_id: job_id.clone(), started_ms, workers, fresh };
            let entry = self.entry(number, number, Body::Attempt(body));
            let name = names::entry(number);
            let bytes = self.encode(&name, &entry)?;
            match self.send(&entry, &bytes, self.retry).await? {
                Ok(_) => {}
                Err(Failed::Fenced { by }) => {
                    tracing::info!(number, by, "the number is taken; choosing again");
                    facts = self.look_again(&facts, number).await?;
                    continue;
                }
                Err(Failed::Unavailable { tries, why }) => {
                    let path = self.shown(&name);
                    return Err(LogError::Unavailable { doing: "write", path, tries, why });
                }
            }
            facts = self.look_again(&facts, number).await?;
            if !decide::after_start(number, &facts) {
                tracing::info!(number, "the log has moved on; choosing again");
                continue;
            }
            facts.entries.retain(|other, _| *other < number);
            facts.entries.insert(number, Found::Sound(Box::new(entry)));
            *self.lock() = Own::After { attempt: number, tail: number };
            return Ok(Started { attempt: number, job_id, facts });
        }
        let (path, why) = (self.shown(names::LOG), "other attempts keep moving on".to_owned());
        Err(LogError::Unavailable { doing: "append to", path, tries: ROUNDS, why })
    }

    /// Sees that the store refuses to create what is there already: not all that speak S3 do (invariant 2).
    async fn check_store(&self) -> Result<(), LogError> {
        if !self.store.is_remote() {
            return Ok(());
        }
        let path = self.path(names::PROBE)?;
        let shown = || self.shown(names::PROBE);
        let refused = |why: String| LogError::NotExclusive { path: shown(), why };
        let mut tries = self.tries("write", 0, self.retry);
        let mut there = false;
        let began = self.env.monotonic();
        loop {
            let why = match tries.answer(self.store.put_new(&path, PROBE_CONTENT.into())).await {
                Ok(()) if there => return Err(refused("it created it twice".to_owned())),
                // There now, by this very start or another one.
                Ok(()) => {
                    there = true;
                    continue;
                }
                Err(Error::AlreadyExists { .. }) => {
                    tries.done();
                    return Ok(());
                }
                Err(error @ (Error::NotImplemented { .. } | Error::NotSupported { .. })) => {
                    return Err(refused(error.to_string()));
                }
                // Nobody waits for a bucket to be made or a permission to be given.
                Err(
                    error @ (Error::NotFound { .. }
                    | Error::PermissionDenied { .. }
                    | Error::Unauthenticated { .. }),
                ) => return Err(LogError::Location { location: shown(), why: error.to_string() }),
                Err(error) => error.to_string(),
            };
            let late = self.env.monotonic() - began >= FIRST_ANSWER;
            if !tries.again(names::PROBE, &why).await || late {
                let tries = tries.made();
                return Err(LogError::Unavailable { doing: "write", path: shown(), tries, why });
            }
        }
    }

    /// Reads the log when entry `number` is known to be there, even if a listing doesn't show it yet, nor
    /// those around it.
    pub(super) async fn look_again(&self, known: &Facts, number: u64) -> Result<Facts, LogError> {
        let mut facts = self.read_again(known).await?;
        let mut next = Some(number);
        while let Some(at) = next {
            match facts.entries.get(&at) {
                Some(_) if at < number => break,
                Some(_) => {}
                None => {
                    let Some(found) = self.read_entry(at).await? else { break };
                    facts.entries.insert(at, found);
                }
            }
            next = at.checked_sub(1);
        }
        self.probe(&mut facts.entries).await?;
        self.settle(&facts).await?;
        Ok(facts)
    }

    /// Looks by name for entries that a listing doesn't show yet.
    async fn probe(&self, entries: &mut BTreeMap<u64, Found>) -> Result<(), LogError> {
        let mut from = 0;
        loop {
            let tail = entries.last_key_value().map_or(0, |(tail, _)| tail + 1);
            let (first, end) = (tail.max(from), tail.saturating_add(PROBES));
            from = end;
            let reads: Vec<_> = (first..end).map(|number| self.read_numbered(number)).collect();
            let mut reads = stream::iter(reads).buffer_unordered(AT_ONCE);
            let mut more = false;
            while let Some((number, found)) = reads.try_next().await? {
                more |= found.is_some();
                entries.extend(found.map(|found| (number, found)));
            }
            if !more {
                return Ok(());
            }
        }
    }
}
