//! Running aggregates: one value for each key, for ever, told whenever it has changed.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec;

use highwater_runtime::{
    Batch, BoxError, Data, Epoch, EpochEnd, Keyed, Operator, OperatorContext, Outputs, Work,
};
use highwater_state::{AHEAD, KeyedTable, Kind, Spot, StateTable, Upserted};

use super::changed::{PerEpoch, touch};
use super::stateless::emit;
use super::step::Step;
use super::{BATCH_ROWS, SLICE_ROWS, Stream};

/// What comes out of a running aggregate: a stream of keys with their present value, and what can be said about it.
///
/// It is a [`Stream`] for all that one does with streams, and becomes one by a [`uid`](Stream::uid) or by `into()`. At the end of every epoch it has a row for each key that had
/// records in the epoch, with the latest value; while epochs overlap, this may tell some records of the next
/// epoch already. Every key's last row is exact.
pub struct Running<K, O> {
    stream: Stream<(K, O)>,
    every_record: Arc<AtomicBool>,
}

impl<K, O> Running<K, O> {
    /// A running aggregate whose operator reads `every_record` when it is made.
    pub(super) fn new(stream: Stream<(K, O)>, every_record: Arc<AtomicBool>) -> Self {
        Running { stream, every_record }
    }

    /// Emits a row at once for every record, instead of one for each changed key and epoch. Comes before [`uid`](Stream::uid).
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(1, |job| {
    ///     let words = job.read("in", vec!["a".to_owned(), "a".to_owned()]);
    ///     words.key_by(|word| word.clone()).count().every_record().write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(String, u64)>("out"), [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn every_record(self) -> Self {
        self.every_record.store(true, Ordering::Relaxed);
        self
    }
}

impl<K, O> Deref for Running<K, O> {
    type Target = Stream<(K, O)>;

    fn deref(&self) -> &Stream<(K, O)> {
        &self.stream
    }
}

impl<K, O> From<Running<K, O>> for Stream<(K, O)> {
    fn from(running: Running<K, O>) -> Self {
        running.stream
    }
}

impl<K, O> fmt::Debug for Running<K, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

/// The operator: one lookup a record.
pub(super) struct RunningOperator<K, V, S: Step<V>> {
    step: Arc<S>,
    accumulators: KeyedTable<K, S::Acc>,
    /// The keys, with their hashes.
    changed: PerEpoch<(u64, K)>,
    /// What is left to emit of the epoch that is being completed.
    emitting: vec::IntoIter<(u64, K)>,
    every_record: bool,
}

impl<K: Data + Eq, V: Data, S: Step<V>> RunningOperator<K, V, S> {
    pub(super) fn new(context: &OperatorContext, step: Arc<S>, every_record: bool) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        RunningOperator {
            step,
            accumulators: KeyedTable::new("accumulator", Kind::Accumulator, key_groups, groups),
            changed: PerEpoch::default(),
            emitting: Vec::new().into_iter(),
            every_record,
        }
    }

    /// Adds every value to its key's accumulator, and shows each, with its hash, to `seen` afterwards.
    #[inline]
    fn add(&mut self, keyed: Keyed<K, V>, mut seen: impl FnMut(&S, u64, Upserted<'_, K, S::Acc>)) {
        let Keyed { hashes, rows } = keyed;
        let (accumulators, step) = (&mut self.accumulators, &*self.step);
        let mut spots = [Spot::default(); AHEAD];
        for (index, (key, value)) in rows.into_iter().enumerate() {
            if index % AHEAD == 0 {
                let soon = hashes[index..].iter().take(AHEAD);
                spots = accumulators.look_ahead(soon.map(|hash| (*hash, *hash)));
            }
            // Taken by whichever of the two needs it.
            let mut value = Some(value);
            let first = || step.first(value.take().expect("taken once"));
            let hash = hashes[index];
            let entry = accumulators.upsert_at(spots[index % AHEAD], hash, hash, key, first);
            if let Some(value) = value {
                step.add(entry.value, value);
            }
            seen(step, hash, entry);
        }
    }

    /// The next rows of those that are left to emit.
    fn rows(&mut self) -> Vec<(K, S::Out)> {
        let (accumulators, step) = (&self.accumulators, &*self.step);
        let length = self.emitting.len().min(BATCH_ROWS);
        let mut rows = Vec::with_capacity(length);
        while rows.len() < length {
            let soon = self.emitting.as_slice().iter().take(AHEAD);
            let spots = accumulators.look_ahead(soon.map(|(hash, _)| (*hash, *hash)));
            rows.extend(spots.iter().zip(&mut self.emitting).map(|(spot, (hash, key))| {
                let acc = accumulators.get_at(*spot, hash, hash, &key);
                let out = step.out(acc.expect("nothing is ever removed from the table"));
                (key, out)
            }));
        }
        rows
    }
}

impl<K: Data + Eq, V: Data, S: Step<V>> Operator for RunningOperator<K, V, S> {
    fn receive(
        &mut self,
        _: usize,
        epoch: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let keyed = batch.take::<Keyed<K, V>>()?;
        if self.every_record {
            let mut rows = Vec::with_capacity(keyed.rows.len());
            self.add(keyed, |step, _, entry| rows.push((entry.key.clone(), step.out(entry.value))));
            emit(out, 0, Batch::new(rows));
        } else {
            let mut list = std::mem::take(self.changed.of(epoch));
            self.add(keyed, |_, hash, entry| {
                if touch(entry.mark, epoch) {
                    list.push((hash, entry.key.clone()));
                }
            });
            *self.changed.of(epoch) = list;
        }
        Ok(())
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        if self.emitting.len() == 0 {
            self.emitting = self.changed.take(end.epoch).into_iter();
        }
        for _ in 0..SLICE_ROWS / BATCH_ROWS {
            emit(out, 0, Batch::new(self.rows()));
        }
        Ok(if self.emitting.len() == 0 { Work::Done } else { Work::More })
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.accumulators]
    }

    fn restored(&mut self) {
        debug_assert!(self.changed.is_empty(), "no epoch has begun");
    }
}
