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
    /// `splits` are those with which the reader begins.
    pub(super) fn new(
        uid: &str,
        output: usize,
        one: One,
        splits: impl Iterator<Item = String>,
    ) -> Self {
        let (uid, names, told) = (uid.to_owned(), BTreeMap::new(), Vec::new());
        let mut announcer = Announcer { output, one, uid, names, told };
        for split in splits {
            announcer.name(&split);
        }
        announcer
    }

    /// The name of a split; of one that is seen for the first time it is told that it begins.
    pub(super) fn name(&mut self, split: &str) -> Arc<str> {
        if let Some(name) = self.names.get(split) {
            return name.clone();
        }
        let name: Arc<str> = format!("{}/{split}", self.uid).into();
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
