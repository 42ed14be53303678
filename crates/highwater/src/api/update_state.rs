//! A function of each key's state and all its new values, run over all keys at every trigger.
//!
//! Values of an epoch wait in memory, as they came, until the epoch is complete; it isn't known before whether the epoch belongs
//! to the trigger under way or to the next. Then they become state themselves (`values`), since an interval may end
//! within a trigger, and at the end of the trigger the function takes them.
//!
//! ```text
//! rows ─▶ waiting (epoch incomplete) ─epoch complete─▶ values (state) ─trigger ends─▶ function ⇄ state
//! ```

use std::sync::Arc;

use highwater_runtime::{
    Batch, BoxError, Data, Epoch, EpochEnd, Keyed, Operator, OperatorContext, Outputs, Work,
};
use highwater_state::{KeyedTable, Kind, StateTable, Verdict};

use super::changed::PerEpoch;
use super::state_spec::Beginning;
use super::stateless::emit;
use super::{BATCH_ROWS, SLICE_ROWS, Timestamp};

/// The operator.
pub(super) struct UpdateState<K, V, S, F> {
    f: Arc<F>,
    state: KeyedTable<K, S>,
    /// Of the trigger under way, from complete epochs.
    values: KeyedTable<K, Vec<V>>,
    waiting: PerEpoch<Keyed<K, V>>,
    stage: Stage<K, V>,
    /// The states to begin with, if there are any.
    beginning: Option<Beginning<K, S>>,
}

/// How far the completion of an epoch has got.
enum Stage<K, V> {
    /// None is being completed.
    Idle,
    /// Its values are becoming state; these batches are left.
    Taking(Vec<Keyed<K, V>>),
    /// The function runs; the key groups before this one are done.
    Updating(usize),
}

impl<K, V, S, F> UpdateState<K, V, S, F>
where
    K: Data + Eq,
    V: Data,
    S: Data + PartialEq,
    F: Fn(Timestamp, &K, Vec<V>, Option<S>) -> Option<S>,
{
    pub(super) fn new(
        context: &OperatorContext,
        f: Arc<F>,
        initial: Option<Arc<Vec<(K, S)>>>,
    ) -> Self {
        let (key_groups, groups) = (context.key_groups, &context.groups);
        UpdateState {
            f,
            state: KeyedTable::new("state", Kind::Value, key_groups, groups.clone()),
            values: KeyedTable::new("values", Kind::Value, key_groups, groups.clone()),
            waiting: PerEpoch::default(),
            stage: Stage::Idle,
            beginning: initial.map(|states| Beginning::new(context, states)),
        }
    }

    /// Makes the values of a batch state.
    fn take_in(&mut self, keyed: Keyed<K, V>) {
        for (hash, (key, value)) in keyed.hashes.into_iter().zip(keyed.rows) {
            self.values.upsert_hashed(hash, hash, key, Vec::new).value.push(value);
        }
    }

    /// Runs the function for all keys of the `index`-th key group, and appends a row for each that has state afterwards. Answers
    /// how often it ran.
    fn update_group(&mut self, index: usize, at: Timestamp, rows: &mut Vec<(K, S)>) -> usize {
        let (f, values) = (&*self.f, &mut self.values);
        let mut keys = 0;
        let visited = self.state.visit_group(index, |key, old| {
            keys += 1;
            let new_values = if values.is_empty() { None } else { values.remove(key) };
            let new = f(at, key, new_values.unwrap_or_default(), Some(old.clone()));
            let Some(new) = new else { return Ok::<_, std::convert::Infallible>(Verdict::Remove) };
            rows.push((key.clone(), new.clone()));
            // A state that stays as it is stays out of the checkpoint.
            Ok(if new == *old { Verdict::Keep } else { Verdict::Set(new) })
        });
        let Ok(()) = visited;
        // Only keys without state have values left.
        let new_keys: Vec<K> = values.group_entries(index).map(|(key, _)| key.clone()).collect();
        keys += new_keys.len();
        for key in new_keys {
            let new_values = values.remove(&key).unwrap_or_default();
            if let Some(new) = f(at, &key, new_values, None) {
                rows.push((key.clone(), new.clone()));
                self.state.set(key, new);
            }
        }
        keys
    }

    /// Runs the function for some key groups, and answers whether that was all.
    fn update_some(&mut self, first: usize, at: Timestamp, out: &mut Outputs) -> Stage<K, V> {
        let mut rows = Vec::new();
        let mut keys = 0;
        for index in first..self.state.group_count() {
            if keys >= SLICE_ROWS {
                emit_all(&mut rows, out);
                return Stage::Updating(index);
            }
            keys += self.update_group(index, at, &mut rows);
            if rows.len() >= BATCH_ROWS {
                emit_all(&mut rows, out);
            }
        }
        emit_all(&mut rows, out);
        Stage::Idle
    }
}

fn emit_all<T: Data>(rows: &mut Vec<T>, out: &mut Outputs) {
    while rows.len() > BATCH_ROWS {
        let rest = rows.split_off(BATCH_ROWS);
        emit(out, 0, Batch::new(std::mem::replace(rows, rest)));
    }
    emit(out, 0, Batch::new(std::mem::take(rows)));
}

impl<K, V, S, F> Operator for UpdateState<K, V, S, F>
where
    K: Data + Eq,
    V: Data,
    S: Data + PartialEq,
    F: Fn(Timestamp, &K, Vec<V>, Option<S>) -> Option<S>,
{
    fn receive(
        &mut self,
        _: usize,
        epoch: Epoch,
        batch: Batch,
        _: &mut Outputs,
    ) -> Result<(), BoxError> {
        let keyed = batch.take()?;
        self.waiting.of(epoch).push(keyed);
        Ok(())
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        if let Stage::Idle = self.stage {
            for (hash, key, state) in
                self.beginning.as_mut().map_or(Ok(Vec::new()), Beginning::take)?
            {
                self.state.upsert_hashed(hash, hash, key, || state);
            }
            self.stage = Stage::Taking(self.waiting.take(end.epoch));
        }
        if let Stage::Taking(left) = &mut self.stage {
            let mut left = std::mem::take(left);
            let mut taken = 0;
            // In the order in which they came: a key's values are in the order of its stream.
            let mut some = left.drain(..);
            for keyed in some.by_ref() {
                taken += keyed.rows.len();
                self.take_in(keyed);
                if taken >= SLICE_ROWS {
                    break;
                }
            }
            let left: Vec<_> = some.collect();
            if !left.is_empty() {
                self.stage = Stage::Taking(left);
                return Ok(Work::More);
            }
            self.stage = if end.trigger_ends { Stage::Updating(0) } else { Stage::Idle };
        }
        if let Stage::Updating(first) = self.stage {
            let at = Timestamp::from_ms(end.clock_ms.min(i64::MAX as u64) as i64);
            self.stage = self.update_some(first, at, out);
        }
        Ok(if let Stage::Idle = self.stage { Work::Done } else { Work::More })
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        let mut tables: Vec<&mut dyn StateTable> = vec![&mut self.state, &mut self.values];
        tables.extend(self.beginning.as_mut().map(Beginning::state_table));
        tables
    }

    fn restored(&mut self) {
        debug_assert!(self.waiting.is_empty(), "no epoch has begun");
    }
}
