//! Every decision of the log's protocol, as pure functions from facts.
//!
//! Nothing here reads, writes, waits or draws a random number; [`crate::log`] brings the facts and acts on
//! the decisions. That is what makes it possible to test them by enumeration.
//!
//! - [`next_base`]: what to recover to. - [`collect`]: what may be deleted once a checkpoint commits.
//! - [`after_append`]: what an answer to an append means. - [`after_start`]: whether a number just taken is
//!   a place at the end of the log. - [`identity`]: which log this is. - [`to_publish`]: what may be made
//!   visible.
//!
//! Invariants kept here:
//!
//! - **3**: output becomes visible only if the entry that covers it exists: [`to_publish`] asks for a
//!   [`Committed`], which only an append that succeeded or an entry that was read can bring about.

mod base;
mod collect;

use crate::entry::{CheckpointEntry, StagedItem, StagedOutput};
use crate::error::{Damage, Kind, LogError, Why};
use crate::facts::{Facts, Found};
use crate::names;

pub use base::{Base, listed_as_garbage, may_have_published, next_base};
pub use collect::{Holding, collect};

/// Knowledge that a checkpoint's entry exists and is durable.
///
/// Only [`Log::append`](crate::Log::append) and [`Log::committed`](crate::Log::committed) give one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Committed(u64);

impl Committed {
    pub(crate) fn new(number: u64) -> Self {
        Committed(number)
    }

    /// The number of the checkpoint's entry.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// What a committed checkpoint's entry allows to be published, in the order in which it has to be.
///
/// Items without a part are held back by their sink.
///
/// # Panics
///
/// If `checkpoint` isn't the entry of `committed` as far as its staged output shows (invariant 3).
pub fn to_publish(
    committed: Committed,
    checkpoint: &CheckpointEntry,
) -> Vec<(&StagedOutput, &StagedItem)> {
    let mut items = Vec::new();
    for output in &checkpoint.staged {
        assert!(
            output.checkpoint <= committed.number(),
            "invariant 3: output of checkpoint {} is not covered by entry {}",
            output.checkpoint,
            committed.number()
        );
        items.extend(
            output.items.iter().filter(|item| item.part.is_some()).map(|item| (output, item)),
        );
    }
    items
}

/// What the store answered to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Written,
    /// Something has that number already: perhaps this very entry, if an earlier answer was lost.
    AlreadyExists,
    /// An error, which may have come before or after the effect.
    Unknown,
}

/// What reading back the number of an append brought.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadBack {
    /// Nothing is there.
    Nothing,
    /// Something is there.
    Something(Found),
    /// It could not be read.
    Unreachable,
}

/// What an append has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The entry exists.
    Done,
    /// Not known, or not yet: send the same bytes again. Never others, since the first may still arrive.
    RetrySameBytes,
    /// The number belongs to another attempt for good.
    Fenced,
}

/// What an append has come to, from its answer and from reading back (which a success doesn't need).
pub fn after_append(outcome: Outcome, read_back: &ReadBack, own_nonce: &str) -> Appended {
    match (outcome, read_back) {
        (Outcome::Written, _) => Appended::Done,
        (_, ReadBack::Something(Found::Sound(entry))) if entry.nonce == own_nonce => Appended::Done,
        // Damage takes a number as an entry does. It might be one's own, but there's no acting upon it.
        (_, ReadBack::Something(_)) => Appended::Fenced,
        (_, ReadBack::Nothing | ReadBack::Unreachable) => Appended::RetrySameBytes,
    }
}

/// Whether an attempt entry at `own` stands at the end of the log, given the log as read after it was
/// written.
///
/// Between reading the tail and writing, other attempts may have committed beyond that number and collected
/// the checkpoint that was there. Then the attempt entry fills a hole: it fences nobody, and its attempt
/// must choose again. Attempt entries above are no reason to: they have fenced this one already, and two
/// starters that both chose again would do so forever.
pub fn after_start(own: u64, facts: &Facts) -> bool {
    let mut above = facts.entries.range(own.saturating_add(1)..);
    own == u64::MAX || above.all(|(number, _)| facts.kind(*number) == Some(Kind::Attempt))
}

/// The identity of the log, or none if it is for this attempt to mint one.
///
/// # Errors
///
/// If there must be one and it can't be read, or if there are two.
pub fn identity(facts: &Facts, fresh: bool) -> Result<Option<String>, LogError> {
    let mut known: Option<(u64, &str)> = None;
    for entry in facts.all_sound().rev() {
        let Some(started) = entry.started() else { continue };
        if let Some((number, id)) = known
            && id != started.job_id
        {
            if fresh {
                break;
            }
            return Err(LogError::TwoIdentities {
                first: names::entry(entry.number),
                first_id: started.job_id.clone(),
                second: names::entry(number),
                second_id: id.to_owned(),
            });
        }
        known = known.or(Some((entry.number, &started.job_id)));
        // What is below doesn't concern this job any more.
        if started.fresh {
            break;
        }
    }
    if let Some((_, id)) = known {
        return Ok(Some(id.to_owned()));
    }
    if fresh || facts.entries.is_empty() {
        return Ok(None);
    }
    // There were attempts, and none can be read. A new identity would be a new job to every sink.
    let damaged = facts.entries.values().find_map(|found| match found {
        Found::Damaged(damage) => Some(damage.clone()),
        Found::Sound(_) => None,
    });
    Err(LogError::Damaged(damaged.unwrap_or_else(|| {
        let attempt = facts.all_sound().map(|entry| entry.attempt).max().unwrap_or_default();
        Damage { path: names::entry(attempt), why: Why::Missing, kind: Some(Kind::Attempt) }
    })))
}

#[cfg(test)]
pub(crate) mod samples {
    //! Entries for tests.

    use crate::entry::{
        AttemptEntry, Body, CheckpointEntry, Configuration, Entry, FORMAT, ObjectRef, StagedItem,
        StagedOutput,
    };
    use crate::error::{Damage, Kind, Why};
    use crate::facts::Found;
    use crate::names;

    pub fn attempt(number: u64, fresh: bool) -> Entry {
        let job_id = "feed".to_owned();
        let body = AttemptEntry { job_id, started_ms: 7, workers: 2, fresh };
        entry(number, number, Body::Attempt(body))
    }

    pub fn checkpoint(number: u64, attempt: u64, previous: Option<u64>) -> Entry {
        let body = CheckpointEntry {
            previous,
            interval: number,
            epoch: 10 * number,
            clock_ms: 1000 * number,
            trigger: number,
            configuration: Configuration { workers: 2, key_groups: 256, hash_version: 1 },
            graph: Vec::new(),
            manifest: ObjectRef::new(&names::manifest(attempt, number), b""),
            staged: Vec::new(),
            garbage: Vec::new(),
            finished: false,
        };
        entry(number, attempt, Body::Checkpoint(Box::new(body)))
    }

    pub fn staged(checkpoint: u64, name: &str, part: Option<&str>) -> StagedOutput {
        let (name, checksum) = (name.to_owned(), String::new());
        let part = part.map(str::to_owned);
        let items = vec![StagedItem { name, bytes: 0, rows: 1, checksum, part }];
        StagedOutput { sink: "out".to_owned(), checkpoint, items }
    }

    pub fn damaged(number: u64, why: Why, kind: Option<Kind>) -> Found {
        Found::Damaged(Damage { path: names::entry(number), why, kind })
    }

    fn entry(number: u64, attempt: u64, body: Body) -> Entry {
        let (nonce, job) = (format!("nonce{number}"), "job".to_owned());
        Entry { format: FORMAT, number, nonce, attempt, job, body }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{attempt, checkpoint, damaged, staged};
    use super::*;
    use crate::entry::{Body, Entry};

    fn facts(entries: Vec<Entry>) -> Facts {
        let sound = |entry: Entry| (entry.number, Found::Sound(Box::new(entry)));
        Facts { entries: entries.into_iter().map(sound).collect() }
    }

    #[test]
    fn every_answer_to_an_append() {
        let own = ReadBack::Something(Found::Sound(Box::new(attempt(3, false))));
        let other = ReadBack::Something(Found::Sound(Box::new(attempt(4, false))));
        let damage = ReadBack::Something(damaged(3, Why::Checksum, None));
        let (done, retry, fenced) = (Appended::Done, Appended::RetrySameBytes, Appended::Fenced);
        for outcome in [Outcome::Written, Outcome::AlreadyExists, Outcome::Unknown] {
            for (read_back, expected) in [
                (&own, done),
                (&other, fenced),
                (&damage, fenced),
                (&ReadBack::Nothing, retry),
                (&ReadBack::Unreachable, retry),
            ] {
                let expected = if outcome == Outcome::Written { done } else { expected };
                assert_eq!(after_append(outcome, read_back, "nonce3"), expected);
            }
        }
    }

    #[test]
    fn only_a_checkpoint_above_makes_a_start_choose_again() {
        let below = vec![attempt(0, false), checkpoint(1, 0, None), attempt(2, false)];
        assert!(after_start(2, &facts(below.clone())));
        let mut fenced = below.clone();
        fenced.push(attempt(3, false));
        assert!(after_start(2, &facts(fenced)));
        let mut hole = below.clone();
        hole.push(checkpoint(5, 0, Some(1)));
        assert!(!after_start(2, &facts(hole)));
        let mut unknown = facts(below);
        unknown.entries.insert(3, damaged(3, Why::Checksum, None));
        assert!(!after_start(2, &unknown));
        assert!(after_start(0, &Facts::default()));
        assert!(after_start(u64::MAX, &Facts::default()));
    }

    #[test]
    fn one_log_has_one_identity() {
        let with = |number, id: &str, fresh| {
            let mut entry = attempt(number, fresh);
            let Body::Attempt(started) = &mut entry.body else { unreachable!() };
            started.job_id = id.to_owned();
            entry
        };
        let id = |facts: &Facts, fresh| identity(facts, fresh);
        assert_eq!(id(&Facts::default(), false).unwrap(), None);
        let same = facts(vec![with(0, "a", false), with(1, "a", false)]);
        assert_eq!(id(&same, false).unwrap().as_deref(), Some("a"));
        let two = facts(vec![with(0, "a", false), with(1, "b", false)]);
        assert!(matches!(id(&two, false), Err(LogError::TwoIdentities { .. })));
        assert_eq!(id(&two, true).unwrap().as_deref(), Some("b"));
        let over = facts(vec![with(0, "a", false), with(1, "b", true)]);
        assert_eq!(id(&over, false).unwrap().as_deref(), Some("b"));

        let mut lost = Facts::default();
        lost.entries.insert(0, damaged(0, Why::Checksum, None));
        assert!(matches!(id(&lost, false), Err(LogError::Damaged(_))));
        assert_eq!(id(&lost, true).unwrap(), None);
        let gone = id(&facts(vec![checkpoint(3, 2, None)]), false).unwrap_err().to_string();
        assert!(gone.contains("00002.json is missing"), "{gone}");
    }

    #[test]
    fn only_committed_output_with_a_part_is_published() {
        let mut entry = checkpoint(5, 2, Some(4));
        let Body::Checkpoint(body) = &mut entry.body else { unreachable!() };
        body.staged =
            vec![staged(3, "x", Some("p1")), staged(4, "y", None), staged(5, "z", Some("p2"))];
        let items = to_publish(Committed::new(5), body);
        let names: Vec<&str> = items.iter().map(|(_, item)| item.name.as_str()).collect();
        assert_eq!(names, ["x", "z"]);
    }

    #[test]
    #[should_panic(expected = "invariant 3")]
    fn output_is_not_published_by_an_earlier_entry() {
        let mut entry = checkpoint(5, 2, Some(4));
        let Body::Checkpoint(body) = &mut entry.body else { unreachable!() };
        body.staged = vec![staged(5, "z", Some("p2"))];
        to_publish(Committed::new(4), body);
    }
}
