//! What was found in a log: the input of every decision.

use std::collections::BTreeMap;

use crate::entry::{CheckpointEntry, Entry};
use crate::error::{Damage, Kind, Why};
use crate::{names, record};

/// A number of the log that is taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// By a whole entry.
    Sound(Box<Entry>),
    /// By something that can't be read.
    Damaged(Damage),
}

/// The entries of a log as they were at one time. Numbers that are missing between two others belonged to
/// checkpoints that have been collected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// What is at each number that is taken.
    pub entries: BTreeMap<u64, Found>,
}

impl Facts {
    /// The highest number that is taken.
    pub fn tail(&self) -> Option<u64> {
        self.entries.last_key_value().map(|(number, _)| *number)
    }

    /// The whole entry at `number`.
    pub fn sound(&self, number: u64) -> Option<&Entry> {
        match self.entries.get(&number)? {
            Found::Sound(entry) => Some(entry),
            Found::Damaged(_) => None,
        }
    }

    /// The checkpoint at `number`, if its entry is whole.
    pub fn checkpoint(&self, number: u64) -> Option<&CheckpointEntry> {
        self.sound(number)?.checkpoint()
    }

    /// All whole entries, lowest number first.
    pub fn all_sound(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.values().filter_map(|found| match found {
            Found::Sound(entry) => Some(&**entry),
            Found::Damaged(_) => None,
        })
    }

    /// All checkpoints whose entries are whole, lowest number first.
    pub fn checkpoints(&self) -> impl DoubleEndedIterator<Item = (u64, &CheckpointEntry)> {
        self.all_sound().filter_map(|entry| Some((entry.number, entry.checkpoint()?)))
    }

    /// Which sort of entry is, or was, at `number`, if anything shows it.
    pub fn kind(&self, number: u64) -> Option<Kind> {
        match self.entries.get(&number) {
            Some(Found::Sound(entry)) if entry.checkpoint().is_some() => {
                return Some(Kind::Checkpoint);
            }
            Some(Found::Sound(_)) => return Some(Kind::Attempt),
            Some(Found::Damaged(damage)) if damage.kind.is_some() => return damage.kind,
            _ => {}
        }
        // Its own words are lost; others may still speak of it.
        let attempt = number == 0 || self.all_sound().any(|entry| entry.attempt == number);
        let checkpoint = || self.checkpoints().any(|(_, other)| other.previous == Some(number));
        if attempt {
            Some(Kind::Attempt)
        } else if checkpoint() {
            Some(Kind::Checkpoint)
        } else {
            None
        }
    }
}

/// What `bytes`, found at `path` as entry `number`, are.
pub fn examine(bytes: &[u8], number: u64, path: &str) -> Found {
    let whole = record::decode::<Entry>(bytes, crate::entry::FORMAT).and_then(|entry| {
        if entry.number != number {
            let other = names::entry(entry.number);
            return Err(Why::Malformed(format!("its content is that of {other}")));
        }
        match entry.absurdity() {
            Some(why) => Err(Why::Malformed(why)),
            None => Ok(entry),
        }
    });
    match whole {
        Ok(entry) => Found::Sound(Box::new(entry)),
        Err(why) => Found::Damaged(Damage { path: path.to_owned(), why, kind: remains(bytes) }),
    }
}

/// Which sort of entry these remains of one show.
///
/// The text looked for is too long to come about by chance. A job's name can't contain it, because quotes
/// in a name are escaped, and nothing else stands before it, so that the first place is the right one.
fn remains(bytes: &[u8]) -> Option<Kind> {
    const BODY: &[u8] = b"\"body\":{\"";
    let start = bytes.windows(BODY.len()).position(|window| window == BODY)? + BODY.len();
    let body = &bytes[start..];
    if body.starts_with(b"attempt\":{") {
        Some(Kind::Attempt)
    } else if body.starts_with(b"checkpoint\":{") {
        Some(Kind::Checkpoint)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::samples::{attempt, checkpoint};

    fn bytes(entry: &Entry) -> Vec<u8> {
        record::encode(entry).unwrap()
    }

    #[test]
    fn whole_entries_are_sound_only_at_their_number() {
        let entry = checkpoint(3, 2, Some(1));
        assert_eq!(examine(&bytes(&entry), 3, "p"), Found::Sound(Box::new(entry.clone())));
        let Found::Damaged(damage) = examine(&bytes(&entry), 4, "p") else { panic!() };
        assert!(damage.to_string().contains("00003.json"), "{damage}");
    }

    #[test]
    fn absurd_entries_are_damage() {
        let later_previous = checkpoint(3, 2, Some(3));
        let later_attempt = checkpoint(3, 3, None);
        let mut other_attempt = attempt(3, false);
        other_attempt.attempt = 2;
        for entry in [later_previous, later_attempt, other_attempt] {
            let Found::Damaged(damage) = examine(&bytes(&entry), 3, "p") else { panic!() };
            assert!(matches!(damage.why, Why::Malformed(_)), "{damage}");
        }
    }

    #[test]
    fn remains_show_the_kind() {
        let mut entry = checkpoint(3, 2, Some(1));
        entry.job = "\"body\":{\"attempt\":{".to_owned();
        let whole = bytes(&entry);
        assert_eq!(remains(&whole), Some(Kind::Checkpoint));
        assert_eq!(remains(&bytes(&attempt(3, true))), Some(Kind::Attempt));
        for cut in [0, 10, whole.len() / 8] {
            assert_eq!(remains(&whole[..cut]), None);
        }
    }
}
