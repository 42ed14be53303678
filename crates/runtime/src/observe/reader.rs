//! What a source's reader says about itself, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::status::{ReaderStatus, SplitStatus};
use crate::attempt::lock;
use crate::connector::SplitOffset;

/// A handle with which a reader, or the thread that reads for it, says how far it is. All of it may be left out: nothing but
/// what people see depends on it. Clones say it of the same reader.
///
/// ```
/// use highwater_runtime::observe::ReaderProgress;
/// let progress = ReaderProgress::default();
/// progress.expect_bytes(4096); // what there is to read
/// progress.reading("a.csv");
/// progress.read_bytes(1024);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReaderProgress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes_expected: AtomicU64,
    bytes_read: AtomicU64,
    skipped: AtomicU64,
    rejected: AtomicU64,
    splits: Mutex<Splits>,
}

#[derive(Debug, Default)]
struct Splits {
    /// The one that is being read.
    reading: Option<String>,
    /// Those that have moved and aren't at their end.
    under_way: BTreeMap<String, SplitFacts>,
    /// Those that aren't read because others are far behind them.
    held: BTreeSet<String>,
    /// How many are at their end.
    ended: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SplitFacts {
    offset: SplitOffset,
    behind: Option<u64>,
}

impl ReaderProgress {
    /// There are so many more bytes to read than was known. A reader of input without end says nothing.
    pub fn expect_bytes(&self, bytes: u64) {
        self.0.bytes_expected.fetch_add(bytes, Relaxed);
    }

    /// So many more bytes were read.
    pub fn read_bytes(&self, bytes: u64) {
        self.0.bytes_read.fetch_add(bytes, Relaxed);
    }

    /// So many more records were bad and left out.
    pub fn skipped(&self, records: u64) {
        self.0.skipped.fetch_add(records, Relaxed);
    }

    /// So many more records were bad and went to the sink for such.
    pub fn rejected(&self, records: u64) {
        self.0.rejected.fetch_add(records, Relaxed);
    }

    /// How many bad records were left out, and how many went to the sink for such.
    pub fn malformed(&self) -> (u64, u64) {
        (self.0.skipped.load(Relaxed), self.0.rejected.load(Relaxed))
    }

    /// From now on `split` is being read. Cheap enough to be said for each batch.
    pub fn reading(&self, split: &str) {
        let mut splits = lock(&self.0.splits);
        if splits.reading.as_deref() != Some(split) {
            splits.reading = Some(split.to_owned());
        }
    }

    /// `split` has so much more now than was read of it, in the source's own unit: bytes of a file, records of a partition.
    pub fn behind(&self, split: &str, behind: u64) {
        let mut splits = lock(&self.0.splits);
        splits.under_way.entry(split.to_owned()).or_default().behind = Some(behind);
    }

    /// So far these splits have been read; said by the runtime whenever it asks the reader.
    pub(crate) fn moved<'o>(&self, offsets: impl Iterator<Item = (&'o String, &'o SplitOffset)>) {
        let mut splits = lock(&self.0.splits);
        for (split, offset) in offsets {
            if offset.ended {
                splits.under_way.remove(split);
                splits.ended += 1;
                if splits.reading.as_ref() == Some(split) {
                    splits.reading = None;
                }
            } else {
                splits.under_way.entry(split.clone()).or_default().offset = offset.clone();
            }
        }
    }

    /// These splits, and no others, aren't read because others are far behind them.
    pub(crate) fn hold(&self, held: &BTreeSet<String>) {
        lock(&self.0.splits).held.clone_from(held);
    }

    pub(super) fn status(&self) -> ReaderStatus {
        let splits = lock(&self.0.splits);
        let facts = |(split, facts): (&String, &SplitFacts)| SplitStatus {
            split: split.clone(),
            position: facts.offset.position,
            records: facts.offset.records,
            behind: facts.behind,
            is_held: splits.held.contains(split),
        };
        ReaderStatus {
            bytes_expected: self.0.bytes_expected.load(Relaxed),
            bytes_read: self.0.bytes_read.load(Relaxed),
            skipped: self.0.skipped.load(Relaxed),
            rejected: self.0.rejected.load(Relaxed),
            reading: splits.reading.clone(),
            splits: splits.under_way.iter().map(facts).collect(),
            splits_ended: splits.ended,
        }
    }
}
