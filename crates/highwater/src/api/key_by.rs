//! Dealing rows to the workers that own their keys.

use std::marker::PhantomData;
use std::sync::Arc;

use highwater_codec::hash_key;
use highwater_runtime::{Batch, BoxError, Data, Epoch, Keyed, Operator, OperatorContext, Outputs};
use highwater_state::KeyGroups;

use super::ordered::Timed;
use super::stateless::emit;

/// Splits each row into key and value, and deals them out: one part of each batch for each worker.
pub(super) struct KeyBy<T, F> {
    split: F,
    dealer: Dealer,
    rows: PhantomData<fn(T)>,
}

impl<T, F> KeyBy<T, F> {
    pub(super) fn new(split: F, context: &OperatorContext) -> Self {
        KeyBy { split, dealer: Dealer::new(context), rows: PhantomData }
    }
}

impl<T, K, V, F> Operator for KeyBy<T, F>
where
    T: Data,
    K: Data,
    V: Data,
    F: FnMut(T) -> (K, V),
{
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let (rows, times) = batch.take_timed::<Vec<T>>()?;
        let rows = rows.into_iter().map(&mut self.split);
        let parts = self.dealer.deal(rows, times)?.into_iter();
        let mut parts = parts.map(|(rows, times)| Batch::new(rows).with_times(times));
        let batch = match (self.dealer.workers, parts.next()) {
            // One worker has nothing to deal out, and a plain batch is what its reader gets.
            (1, Some(part)) => part,
            (_, first) => Batch::split(first.into_iter().chain(parts).collect()),
        };
        emit(out, 0, batch);
        Ok(())
    }
}

/// Knows which worker a key belongs to.
pub(super) struct Dealer {
    key_groups: KeyGroups,
    owners: Arc<[u32]>,
    workers: usize,
}

impl Dealer {
    pub(super) fn new(context: &OperatorContext) -> Self {
        Dealer {
            key_groups: context.key_groups,
            owners: context.owners.clone(),
            workers: context.workers,
        }
    }

    /// One part for each worker, with its times if there are any. Every row is hashed once and moved once.
    ///
    /// # Errors
    ///
    /// If a key refuses to be serialized.
    pub(super) fn deal<K: Data, V: Data>(
        &self,
        rows: impl ExactSizeIterator<Item = (K, V)>,
        times: Vec<i64>,
    ) -> Result<Vec<Timed<K, V>>, BoxError> {
        if self.workers == 1 {
            let mut all = Keyed::with_capacity(rows.len());
            for (key, value) in rows {
                all.push(hash_key(&key)?, key, value);
            }
            return Ok(vec![(all, times)]);
        }
        // A fair share and a quarter: with thousands of rows spread by a hash, parts hardly ever grow.
        let share = rows.len() / self.workers;
        let capacity = share + share / 4 + 8;
        let capacity = capacity.min(rows.len());
        let part = |_| (Keyed::with_capacity(capacity), Vec::new());
        let mut parts: Vec<Timed<K, V>> = (0..self.workers).map(part).collect();
        let mut times = times.into_iter();
        for (key, value) in rows {
            let hash = hash_key(&key)?;
            let owner = self.owners[self.key_groups.of(hash) as usize];
            let (rows, part_times) = &mut parts[owner as usize];
            rows.push(hash, key, value);
            part_times.extend(times.next());
        }
        Ok(parts)
    }
}
