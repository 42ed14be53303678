//! Which checkpoint an attempt recovers to.
//!
//! The rules, walking from one's own attempt entry towards older entries:
//!
//! 1. The newest checkpoint whose entry is readable, whose chain is whole and that no newer entry lists as
//!    garbage is the base. (Whoever listed it, even an attempt long fenced, may delete it at any time.)
//! 2. Behind a checkpoint that can't be used comes the one that it names as `previous`. What lies between
//!    the two was left by attempts that an earlier recovery went behind, and is never chosen: a later
//!    history stands on its absence.
//! 3. An attempt that started over ends the walk.
//! 4. For exactly-once sinks the walk doesn't go behind an entry that may have had output published: one
//!    with output staged by itself or assigned to a part; one that can't be read or has vanished counts as
//!    such. The job refuses and says what to do.
//! 5. Without exactly-once sinks, damaged checkpoint entries and vanished ones are passed over. (If the
//!    links to what is behind are lost with them, the next older checkpoint is taken: whatever it was, its
//!    chain is whole.) Nothing goes behind damage that may have been an attempt that started over, nor
//!    behind an entry of a later format.
//! 6. A number without entry that no link passes over was a checkpoint that vanished: checkpoints are
//!    collected only once newer ones exist, and attempt entries never.
//! 7. Starting from nothing is for a log that had no checkpoint since it last started over. Otherwise, if
//!    none is left, the job refuses.
//! 8. Attempts follow one another: a checkpoint belongs to the attempt of the one below it, or to one that
//!    started after that. A base that contradicts this is refused, for the log isn't what was written.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::{CheckpointEntry, Entry};
use crate::error::{Damage, Kind, Why};
use crate::facts::{Facts, Found};
use crate::names;

/// What an attempt recovers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing: the job starts from the beginning.
    Fresh,
    /// The checkpoint with this number. If its chain turns out to be broken, say so and ask again.
    Checkpoint(u64),
    /// Going on would lose or repeat results without saying so.
    Refuse {
        /// What was found, and where.
        why: String,
        /// How to go on.
        what_to_do: String,
    },
}

/// Chooses the base of the attempt whose entry is number `own`, from the log up to it.
///
/// `broken` holds checkpoints whose chains have been found not to be whole, and why. `exactly_once` says
/// whether any sink of the job is. If the attempt's own entry is among the facts and starts over, so be it.
pub fn next_base(
    facts: &Facts,
    own: u64,
    broken: &BTreeMap<u64, String>,
    exactly_once: bool,
) -> Base {
    if facts.sound(own).and_then(|entry| entry.started()).is_some_and(|started| started.fresh) {
        return Base::Fresh;
    }
    let listed = listed_as_garbage(facts, own);
    // The newest checkpoint that there was and that can't be used, in words.
    let mut lost: Option<String> = None;
    // Numbers from here on are dealt with.
    let mut end = own;
    while end > 0 {
        let below = facts.entries.range(..end).next_back();
        let number = below.map(|(number, _)| *number);
        if number != Some(end - 1) {
            let path = names::entry(end - 1);
            let why = format!("{path}, the entry of a checkpoint, is missing");
            if exactly_once {
                return refuse(&format!("{why}, and its output may have been published"), &path);
            }
            lost.get_or_insert(why);
        }
        let Some((&number, found)) = below else { break };
        end = number;
        match found {
            Found::Sound(entry) => match (entry.started(), entry.checkpoint()) {
                (Some(started), _) if started.fresh => break,
                (_, Some(checkpoint)) => {
                    let path = names::entry(number);
                    let why = if let Some(why) = broken.get(&number) {
                        format!("the checkpoint of {path} can't be used: {why}")
                    } else if let Some(by) = listed.get(&number) {
                        let by = names::entry(*by);
                        format!("the checkpoint of {path} is being deleted, as {by} says")
                    } else {
                        return out_of_order(facts, entry).unwrap_or(Base::Checkpoint(number));
                    };
                    if exactly_once && may_have_published(number, checkpoint) {
                        let why = format!("{why}, and its output may have been published");
                        return refuse(&why, "what is named");
                    }
                    lost.get_or_insert(why);
                    match checkpoint.previous {
                        Some(previous) if started_over_between(facts, previous, number) => break,
                        Some(previous) => end = end.min(previous.saturating_add(1)),
                        None => break,
                    }
                }
                _ => {}
            },
            Found::Damaged(damage) => {
                let kind = facts.kind(number);
                if let Some(refusal) = pass_damage(damage, kind, exactly_once) {
                    return refusal;
                }
                lost.get_or_insert(damage.to_string());
            }
        }
    }
    match lost {
        None => Base::Fresh,
        Some(why) => refuse(&format!("{why}, and no older checkpoint is left"), "what is named"),
    }
}

/// Whether going behind this checkpoint could repeat or contradict output that is visible already.
///
/// Output that its sink held back when an older checkpoint staged it is no reason: it is carried by that
/// older one as well.
pub fn may_have_published(number: u64, checkpoint: &CheckpointEntry) -> bool {
    checkpoint.staged.iter().any(|output| {
        let own = output.checkpoint == number && !output.items.is_empty();
        own || output.items.iter().any(|item| item.part.is_some())
    })
}

/// The refusal of a checkpoint whose attempt can't have written it after the checkpoint below it.
fn out_of_order(facts: &Facts, entry: &Entry) -> Option<Base> {
    let below = facts.entries.range(..entry.number).rev();
    let before =
        below.filter_map(|(number, _)| facts.sound(*number)).find(|e| e.checkpoint().is_some())?;
    // Attempt entries between the two may be of attempts that never ran: they show nothing.
    if entry.attempt == before.attempt || entry.attempt > before.number {
        return None;
    }
    let (path, what) = (names::entry(entry.number), entry.describe());
    let why = format!(
        "{path} is {what}, but {} before it is {}: attempts follow one another",
        names::entry(before.number),
        before.describe()
    );
    Some(refuse(&why, "both"))
}

/// Checkpoints that a newer entry below `own` lists as garbage, and which one does: they may be deleted at any time.
pub fn listed_as_garbage(facts: &Facts, own: u64) -> BTreeMap<u64, u64> {
    let mut listed = BTreeMap::new();
    for (by, checkpoint) in facts.checkpoints().filter(|(number, _)| *number < own) {
        let names: BTreeSet<u64> =
            checkpoint.garbage.iter().filter_map(|name| names::entry_number(name)).collect();
        listed.extend(names.into_iter().filter(|number| *number < by).map(|number| (number, by)));
    }
    listed
}

/// Whether an attempt between the two started over.
fn started_over_between(facts: &Facts, low: u64, high: u64) -> bool {
    let mut between = facts.all_sound().filter(|entry| low < entry.number && entry.number < high);
    between.any(|entry| entry.started().is_some_and(|started| started.fresh))
}

/// Whether the walk may not go behind a damaged entry.
fn pass_damage(damage: &Damage, kind: Option<Kind>, exactly_once: bool) -> Option<Base> {
    if matches!(damage.why, Why::Format { .. }) {
        let what_to_do =
            "run the job with the version of the program that wrote it, or a later one";
        return Some(Base::Refuse { why: damage.to_string(), what_to_do: what_to_do.to_owned() });
    }
    let why = match kind {
        Some(Kind::Checkpoint) if !exactly_once => return None,
        Some(Kind::Checkpoint) => "its output may have been published",
        Some(Kind::Attempt) => "it is the entry of an attempt, which may have started over",
        None if exactly_once => {
            "it may be a checkpoint with published output, or an attempt that started over"
        }
        None => "it may be the entry of an attempt that started over",
    };
    Some(refuse(&format!("{damage}, and {why}"), &damage.path))
}

fn refuse(why: &str, what: &str) -> Base {
    let what_to_do = format!(
        "restore {what} from a backup, start from a savepoint in another place, or start over with \
         --fresh, which forgets the job's state (and whose output repeats what was published)"
    );
    Base::Refuse { why: why.to_owned(), what_to_do }
}

#[cfg(test)]
#[path = "base_tests.rs"]
mod tests;
