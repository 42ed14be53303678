//! The first of equal records.

use highwater_runtime::{Batch, BoxError, Data, Epoch, Keyed, Operator, OperatorContext, Outputs};
use highwater_state::{KeyedTable, Kind, StateTable};

use super::stateless::emit;

/// Remembers every record as a key of its state.
pub(super) struct Distinct<T> {
    seen: KeyedTable<T, ()>,
}

impl<T: Data + Eq> Distinct<T> {
    pub(super) fn new(context: &OperatorContext) -> Self {
        let groups = context.groups.clone();
        Distinct { seen: KeyedTable::new("seen", Kind::Value, context.key_groups, groups) }
    }
}

impl<T: Data + Eq> Operator for Distinct<T> {
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let Keyed { hashes, rows } = batch.take::<Keyed<T, ()>>()?;
        let mut first = Vec::new();
        for (hash, (row, ())) in hashes.into_iter().zip(rows) {
            // Looked for without a change: a record seen before must not be written to the next checkpoint again.
            if self.seen.get_hashed(hash, hash, &row).is_none() {
                self.seen.upsert_hashed(hash, hash, row.clone(), || ());
                first.push(row);
            }
        }
        emit(out, 0, Batch::new(first));
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.seen]
    }
}
