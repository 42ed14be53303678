//! What a source's host tells of its splits to whoever makes watermarks of their rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::alignment::Hold;
use crate::batch::Batch;
use crate::connector::SplitOffset;
use crate::watermark::{News, One, Told};

/// Knows the splits of one reader that haven't ended, and what is to be told of them.
pub(super) struct Announcer {
    /// The output of the stage at which it tells.
    pub(super) output: usize,
    one: One,
    uid: String,
    /// By id.
    splits: BTreeMap<String, Split>,
    told: Vec<Told>,
}

/// A split that hasn't ended.
struct Split {
    /// Its name: ids of two sources may be the same.
    name: Arc<str>,
    /// Rows of it were read in this attempt, and there may be more.
    is_read: bool,
    is_held: bool,
}

impl Announcer {
    pub(super) fn new(uid: &str, output: usize, one: One) -> Self {
        let (uid, splits, told) = (uid.to_owned(), BTreeMap::new(), Vec::new());
        Announcer { output, one, uid, splits, told }
    }

    /// The reader has been given splits.
    pub(super) fn added<'s>(&mut self, splits: impl Iterator<Item = &'s String>) {
        splits.for_each(|split| {
            self.split(split);
        });
    }

    /// Of a split that is seen for the first time it is told that it begins.
    fn split(&mut self, split: &str) -> &mut Split {
        if !self.splits.contains_key(split) {
            let name: Arc<str> = name(&self.uid, split).into();
            self.told.push(Told { split: name.to_string(), news: News::Begins });
            let new = Split { name, is_read: false, is_held: false };
            self.splits.insert(split.to_owned(), new);
        }
        self.splits.get_mut(split).expect("it is there by now")
    }

    /// Rows of a split were read; answers its name.
    pub(super) fn read(&mut self, split: &str) -> Arc<str> {
        let split = self.split(split);
        split.is_read = true;
        split.name.clone()
    }

    /// Splits were read or found.
    pub(super) fn moved(&mut self, splits: &[(String, SplitOffset)]) {
        for (split, offset) in splits {
            let name = self.split(split).name.clone();
            if offset.ended {
                self.splits.remove(split);
                self.told.push(Told { split: name.to_string(), news: News::Ends });
            }
        }
    }

    /// Splits of this reader, or of others, are held or aren't any more.
    pub(super) fn hold(&mut self, holds: &[Hold]) {
        for Hold { split, is_held } in holds {
            let id = split.strip_prefix(&self.uid).and_then(|rest| rest.strip_prefix('/'));
            if let Some(split) = id.and_then(|id| self.splits.get_mut(id)) {
                split.is_held = *is_held && split.is_read;
            }
        }
    }

    /// The ids of splits that are held.
    pub(super) fn held(&self) -> BTreeSet<String> {
        let held = self.splits.iter().filter(|(_, split)| split.is_held);
        held.map(|(id, _)| id.clone()).collect()
    }

    /// Whether all splits are held that are being read.
    pub(super) fn is_held(&self) -> bool {
        let mut read = self.splits.values().filter(|split| split.is_read).peekable();
        read.peek().is_some() && read.all(|split| split.is_held)
    }

    /// Nothing more comes in this attempt from splits for which `rests` answers so.
    pub(super) fn rest(&mut self, rests: impl Fn(&str) -> bool) {
        for (id, split) in self.splits.iter_mut().filter(|(_, split)| split.is_read) {
            if rests(id) {
                (split.is_read, split.is_held) = (false, false);
                self.told.push(Told { split: split.name.to_string(), news: News::Rests });
            }
        }
    }

    /// Nothing more is read on this worker.
    pub(super) fn source_ends(&mut self, worker: usize) {
        self.told.push(Told { split: self.uid.clone(), news: News::SourceEnds { worker } });
    }

    /// What is to be told now, if anything. While the reader is held up none of its splits is idle, and neither is one that is held.
    pub(super) fn batch(&mut self, is_held_up: bool) -> Option<Batch> {
        let waiting = self.splits.values().filter(|split| is_held_up || split.is_held);
        let waits = |split: &Split| Told { split: split.name.to_string(), news: News::Waits };
        self.told.extend(waiting.map(waits));
        let told = std::mem::take(&mut self.told);
        (!told.is_empty()).then(|| self.one.tell(told))
    }
}

/// Tells that splits of the source `uid` begin.
pub(super) fn begin<'s>(uid: &str, one: One, splits: impl Iterator<Item = &'s String>) -> Batch {
    let begins = |split: &String| Told { split: name(uid, split), news: News::Begins };
    one.tell(splits.map(begins).collect())
}

/// What a split is called where there may be several sources.
fn name(uid: &str, split: &str) -> String {
    format!("{uid}/{split}")
}
