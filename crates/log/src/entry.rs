//! The durable formats: entries of the log and manifests.
//!
//! Format version 1. A field added, removed or read differently makes a new version: fields unknown to
//! this build are refused, and so are missing ones (hence `deserialize_with` on options), because an entry
//! that is only half understood must not be acted upon. Tests
//! read a kept example of every version (`tests/fixtures/`).

use serde::{Deserialize, Serialize};

/// The newest format version of [`Entry`] and [`Manifest`] that this build reads, and the one it writes.
pub const FORMAT: u32 = 1;

/// One entry of the log, at `log/{number}.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The format version: [`FORMAT`].
    pub format: u32,
    /// The entry's place in the log, also in its file's name.
    pub number: u64,
    /// 128 random bits in hexadecimal, by which a writer knows its own entry again.
    pub nonce: String,
    /// The attempt that wrote it, by the number of its attempt entry. It never falls from one checkpoint to the next.
    pub attempt: u64,
    /// The job's name.
    pub job: String,
    /// What the entry says.
    pub body: Body,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// An attempt started.
    Attempt(AttemptEntry),
    /// A checkpoint committed.
    Checkpoint(Box<CheckpointEntry>),
}

/// An attempt started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptEntry {
    /// The job's random identity, minted by the first attempt entry of a log, the same in all later ones.
    pub job_id: String,
    /// When, in milliseconds since 1970 by the machine's clock; for people.
    pub started_ms: u64,
    /// How many workers the attempt has; for people.
    pub workers: u32,
    /// Start over: nothing below this entry may be recovered from.
    pub fresh: bool,
}

/// A checkpoint committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointEntry {
    /// The checkpoint that this one builds upon, by its entry's number. None if it began from nothing.
    #[serde(deserialize_with = "Option::deserialize")]
    pub previous: Option<u64>,
    /// The last checkpoint interval that it covers.
    pub interval: u64,
    /// The last epoch that it covers; for people, nothing depends on it: the next attempt begins its epochs anew.
    pub epoch: u64,
    /// The engine's clock at its end.
    pub clock_ms: u64,
    /// The trigger under way at its end.
    pub trigger: u64,
    /// How the job was laid out.
    pub configuration: Configuration,
    /// Every operator with its states.
    pub graph: Vec<OperatorEntry>,
    /// The manifest, which names every object that a recovery needs.
    pub manifest: ObjectRef,
    /// Output staged but not yet recorded as published, oldest first, carried forward from entry to entry.
    pub staged: Vec<StagedOutput>,
    /// Names of objects and entries that may be deleted once this entry exists.
    pub garbage: Vec<String>,
    /// The job had come to its end: all sources ended.
    pub finished: bool,
}

/// How a job was laid out at a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// The number of workers; for people, nothing depends on it: a restart may have another.
    pub workers: u32,
    /// The number of key groups.
    pub key_groups: u32,
    /// The version of the hash by which keys are put into key groups.
    pub hash_version: u32,
}

/// An operator of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorEntry {
    /// Its uid.
    pub uid: String,
    /// What sort of operator it is.
    pub kind: String,
    /// Its states.
    pub states: Vec<StateEntry>,
}

/// A state of an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateEntry {
    /// Its name.
    pub name: String,
    /// What sort of state it is.
    pub kind: String,
    /// The columns in which it was last written, opaque to the log; for people and tools, since the objects say it themselves.
    pub schema: serde_json::Value,
}

/// An object in the store, with what is needed to see that it is whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// Its name below the job's root.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// XXH3 (64 bits) of its content, 16 hexadecimal digits.
    pub checksum: String,
}

impl ObjectRef {
    /// The reference to an object with this name and content.
    pub fn new(name: &str, content: &[u8]) -> Self {
        ObjectRef::of_pieces(name, [content])
    }

    /// The reference to an object with this name, whose content comes in pieces.
    pub fn of_pieces<'a>(
        name: &str,
        pieces: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
    ) -> Self {
        let pieces = pieces.into_iter();
        ObjectRef {
            name: name.to_owned(),
            bytes: pieces.clone().map(|piece| piece.len() as u64).sum(),
            checksum: crate::record::checksum_of_pieces(pieces),
        }
    }
}

/// What one sink staged in one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedOutput {
    /// The sink's uid.
    pub sink: String,
    /// The checkpoint that staged it, by its entry's number.
    pub checkpoint: u64,
    /// The staged objects.
    pub items: Vec<StagedItem>,
}

/// One staged object of a sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedItem {
    /// Its name below the job's root.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// How many rows it holds; for people.
    pub rows: u64,
    /// XXH3 (64 bits) of its content, 16 hexadecimal digits.
    pub checksum: String,
    /// What it is published as. None: held back by its sink's roll policy, not to be published yet.
    #[serde(deserialize_with = "Option::deserialize")]
    pub part: Option<String>,
}

/// The whole chain of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format version: [`FORMAT`].
    pub format: u32,
    /// Every object that a recovery needs.
    pub objects: Vec<ObjectRef>,
}

impl Entry {
    /// The checkpoint, if the entry says that one committed.
    pub fn checkpoint(&self) -> Option<&CheckpointEntry> {
        match &self.body {
            Body::Checkpoint(checkpoint) => Some(checkpoint),
            Body::Attempt(_) => None,
        }
    }

    /// The attempt's start, if that is what the entry says.
    pub fn started(&self) -> Option<&AttemptEntry> {
        match &self.body {
            Body::Attempt(attempt) => Some(attempt),
            Body::Checkpoint(_) => None,
        }
    }

    /// What it is, in words, for messages.
    pub fn describe(&self) -> String {
        match &self.body {
            Body::Attempt(_) => format!("the start of attempt {}", self.number),
            Body::Checkpoint(_) => {
                format!("checkpoint {} of attempt {}", self.number, self.attempt)
            }
        }
    }

    /// What is impossible about the entry, whoever wrote it, if anything.
    pub(crate) fn absurdity(&self) -> Option<String> {
        let (number, attempt) = (self.number, self.attempt);
        match &self.body {
            Body::Attempt(_) if attempt != number => {
                Some(format!("the attempt entry {number} calls itself attempt {attempt}"))
            }
            Body::Checkpoint(_) if attempt >= number => {
                Some(format!("checkpoint {number} belongs to the later attempt {attempt}"))
            }
            Body::Checkpoint(checkpoint) => match checkpoint.previous {
                Some(previous) if previous >= number => {
                    Some(format!("checkpoint {number} builds upon the later one {previous}"))
                }
                _ => None,
            },
            Body::Attempt(_) => None,
        }
    }
}
