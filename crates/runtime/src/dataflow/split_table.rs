//! How far each split has been read, as keyed state: the key is the split, so offsets are frozen, stored, merged and
//! dealt to workers as any other state is.
//!
//! Readers report at the end of an interval, in its last epoch; this operator owns the offsets, not the reader.

use highwater_state::{Image, KeyGroups, KeyedTable, Kind, StateError, StateTable};

use crate::batch::{Batch, Keyed};
use crate::connector::SplitOffset;
use crate::operator::{Operator, OperatorContext, Outputs};
use crate::{BoxError, Epoch};

/// The name of a source's only state.
pub(crate) const STATE: &str = "splits";

/// The offsets of the splits of one source, for the key groups of one worker.
pub(super) struct SplitTable(KeyedTable<String, SplitOffset>);

impl SplitTable {
    pub(super) fn new(context: &OperatorContext) -> Self {
        let groups = context.groups.clone();
        SplitTable(KeyedTable::new(STATE, Kind::Split, context.key_groups, groups))
    }
}

impl Operator for SplitTable {
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        _: &mut Outputs,
    ) -> Result<(), BoxError> {
        for (split, offset) in batch.take::<Keyed<String, SplitOffset>>()?.rows {
            self.0.set(split, offset);
        }
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.0]
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
