//! What a source's host tells of its splits to whoever makes watermarks of their rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::Batch;
use crate::connector::SplitOffset;
use crate::watermark::{News, One, Told};

/// Knows the splits of one reader that haven't ended, and what is to be told of them.
pub(super) struct Announcer {
    /// The output of the stage at which it tells.
    pub(super) output: usize,
    one: One,
    uid: String,
    /// The name of each split, by its id: ids of two sources may be the same.
    names: BTreeMap<String, Arc<str>>,
    told: Vec<Told>,
}

impl Announcer {
    pub(super) fn new(uid: &str, output: usize, one: One) -> Self {
        let (uid, names, told) = (uid.to_owned(), BTreeMap::new(), Vec::new());
        Announcer { output, one, uid, names, told }
    }

    /// The reader has been given splits.
    pub(super) fn added<'s>(&mut self, splits: impl Iterator<Item = &'s String>) {
        splits.for_each(|split| {
            self.name(split);
        });
    }

    /// The name of a split; of one that is seen for the first time it is told that it begins.
    pub(super) fn name(&mut self, split: &str) -> Arc<str> {
        if let Some(name) = self.names.get(split) {
            return name.clone();
        }
        let name: Arc<str> = name(&self.uid, split).into();
        self.names.insert(split.to_owned(), name.clone());
        self.told.push(Told { split: name.to_string(), news: News::Begins });
        name
    }

    /// Splits were read or found.
    pub(super) fn moved(&mut self, splits: &[(String, SplitOffset)]) {
        for (split, offset) in splits {
            let name = self.name(split);
            if offset.ended {
                self.names.remove(split);
                self.told.push(Told { split: name.to_string(), news: News::Ends });
            }
        }
    }

    /// Nothing more is read on this worker.
    pub(super) fn source_ends(&mut self, worker: usize) {
        self.told.push(Told { split: self.uid.clone(), news: News::SourceEnds { worker } });
    }

    /// What is to be told now, if anything. While the reader is held up none of its splits is idle.
    pub(super) fn batch(&mut self, is_held_up: bool) -> Option<Batch> {
        if is_held_up {
            let waits = |name: &Arc<str>| Told { split: name.to_string(), news: News::Waits };
            self.told.extend(self.names.values().map(waits));
        }
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
