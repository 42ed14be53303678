//! How far each split has been read, as keyed state: the key is the split, so offsets are frozen, stored, merged and
//! dealt to workers as any other state is.
//!
//! Readers report at the end of an interval, in its last epoch; this operator owns the offsets, not the reader. Splits come here when
//! they are found, so that one of which nothing was read is known to the next attempt. One that was read to its end
//! stays, or it would be found again; it goes when the source's finder has released it: by then it knows the split by other means.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use highwater_state::{Image, KeyGroups, KeyedTable, Kind, StateError, StateTable};

use crate::batch::{Batch, Keyed};
use crate::connector::SplitOffset;
use crate::operator::{Operator, OperatorContext, Outputs};
use crate::{BoxError, Epoch};

/// The name of a source's only state.
pub(crate) const STATE: &str = "splits";

/// The input at which readers report.
const OFFSETS: usize = 0;

/// What a finder says of a split.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum News {
    /// It is there, and is read from this offset.
    Found(SplitOffset),
    /// It needn't be known any more once it has been read to its end.
    Released,
}

/// The offsets of the splits of one source, for the key groups of one worker.
pub(super) struct SplitTable {
    offsets: KeyedTable<String, SplitOffset>,
    /// Released, and not yet read to their end. No state: a finder releases them again.
    released: BTreeSet<String>,
}

impl SplitTable {
    pub(super) fn new(context: &OperatorContext) -> Self {
        let groups = context.groups.clone();
        let offsets = KeyedTable::new(STATE, Kind::Split, context.key_groups, groups);
        SplitTable { offsets, released: BTreeSet::new() }
    }

    fn moved(&mut self, split: String, offset: SplitOffset) {
        if offset.ended && self.released.remove(&split) {
            self.offsets.remove(&split);
        } else {
            self.offsets.set(split, offset);
        }
    }

    fn news(&mut self, split: String, news: News) {
        let known = self.offsets.get(&split);
        match (news, known) {
            // The news of an epoch may be behind the report of a reader that they have overtaken.
            (News::Found(_), Some(_)) | (News::Released, None) => {}
            (News::Found(offset), None) => self.offsets.set(split, offset),
            (News::Released, Some(offset)) if offset.ended => {
                self.offsets.remove(&split);
            }
            (News::Released, Some(_)) => {
                self.released.insert(split);
            }
        }
    }
}

impl Operator for SplitTable {
    fn receive(
        &mut self,
        port: usize,
        _: Epoch,
        batch: Batch,
        _: &mut Outputs,
    ) -> Result<(), BoxError> {
        if port == OFFSETS {
            let moved = batch.take::<Keyed<String, SplitOffset>>()?.rows;
            moved.into_iter().for_each(|(split, offset)| self.moved(split, offset));
        } else {
            let news = batch.take::<Keyed<String, News>>()?.rows;
            news.into_iter().for_each(|(split, news)| self.news(split, news));
        }
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.offsets]
    }
}

/// The offsets of all splits of a source in an image, sorted by split.
pub(crate) fn read_all(
    uid: &str,
    image: &Image,
    key_groups: KeyGroups,
) -> Result<Vec<(String, SplitOffset)>, StateError> {
    let mut table: KeyedTable<String, SplitOffset> =
        KeyedTable::new(STATE, Kind::Split, key_groups, 0..key_groups.count());
    table.restore(uid, image)?;
    let mut splits: Vec<_> = (0..table.group_count())
        .flat_map(|group| table.group_entries(group))
        .map(|(split, offset)| (split.clone(), offset.clone()))
        .collect();
    splits.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(splits)
}
