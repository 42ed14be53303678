//! The first of equal records: of all, or of those within a while.

use std::marker::PhantomData;

use highwater_runtime::{Batch, BoxError, Data, Epoch, Keyed, Operator, OperatorContext, Outputs};
use highwater_state::{KeyedTable, Kind, StateTable};

use super::process::Ttl;
use super::stateless::emit;
use super::{Context, Key, Process, SideOutput, States, Value};

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

/// The side output of [`Within`] with what came too late.
pub(super) const LATE: &str = "late";

/// Passes the first record of each key on, and no further one for a while.
pub(super) struct Within<K, V> {
    seen: Value<()>,
    late: SideOutput<V>,
    key: PhantomData<fn(K)>,
}

impl<K: Key, V: Data> Within<K, V> {
    pub(super) fn declare_with(states: &mut States<Self>, ttl: Ttl) -> Self {
        Within { seen: states.ttl(ttl).value("seen"), late: states.side(LATE), key: PhantomData }
    }
}

impl<K: Key, V: Data> Process for Within<K, V> {
    type Key = K;
    type In = V;
    type Out = V;

    fn declare(states: &mut States<Self>) -> Self {
        Within::declare_with(states, Ttl::never())
    }

    fn record(&mut self, record: V, cx: &mut Context<Self>) -> Result<(), BoxError> {
        // What was seen at its time may be forgotten already.
        if cx.time().zip(cx.watermark()).is_some_and(|(time, watermark)| time < watermark) {
            self.late.emit(cx, record);
        } else if self.seen.get(cx).is_none() {
            self.seen.set(cx, ());
            cx.emit(record);
        }
        Ok(())
    }
}
