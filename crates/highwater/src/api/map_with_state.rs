//! A function of each record and its key's state, whose answer is emitted at once.

use std::marker::PhantomData;
use std::sync::Arc;

use highwater_runtime::{Batch, BoxError, Data, Epoch, Keyed, Operator, OperatorContext, Outputs};
use highwater_state::{KeyedTable, Kind, StateTable};

use super::stateless::emit;

/// The state of one key, in the hands of the function of
/// [`map_with_state`](super::KeyedStream::map_with_state).
///
/// What the function does is applied when it returns, and is seen by it at once. After [`remove`](Self::remove) the key may
/// be given a state again.
#[derive(Debug)]
pub struct StateHandle<'a, S> {
    old: Option<&'a S>,
    change: Change<S>,
    is_timing_out: bool,
}

/// What is to become of a state.
#[derive(Debug)]
pub(super) enum Change<S> {
    Keep,
    Set(S),
    Remove,
}

impl<'a, S> StateHandle<'a, S> {
    pub(super) fn new(old: Option<&'a S>) -> Self {
        StateHandle { old, change: Change::Keep, is_timing_out: false }
    }

    /// Of a key whose state is about to be removed.
    pub(super) fn timing_out(old: &'a S) -> Self {
        StateHandle { is_timing_out: true, ..StateHandle::new(Some(old)) }
    }
    /// The key's state; none for a key that never had one or whose state was removed.
    pub fn get(&self) -> Option<&S> {
        match &self.change {
            Change::Keep => self.old,
            Change::Set(state) => Some(state),
            Change::Remove => None,
        }
    }

    /// Whether the key has state.
    pub fn exists(&self) -> bool {
        self.get().is_some()
    }

    /// Whether the key has been silent for too long: its state is seen for the last time.
    pub fn is_timing_out(&self) -> bool {
        self.is_timing_out
    }

    /// Sets the key's state.
    ///
    /// # Panics
    ///
    /// Panics if the key is [timing out](Self::is_timing_out).
    pub fn set(&mut self, state: S) {
        self.check();
        self.change = Change::Set(state);
    }

    /// Removes the key's state; does nothing if there is none.
    ///
    /// # Panics
    ///
    /// Panics if the key is [timing out](Self::is_timing_out).
    pub fn remove(&mut self) {
        self.check();
        self.change = Change::Remove;
    }

    fn check(&self) {
        assert!(!self.is_timing_out, "the state of a key that times out can't be changed any more");
    }

    /// What the function did.
    pub(super) fn into_change(self) -> Change<S> {
        self.change
    }
}

impl<S: Data> Change<S> {
    /// Does it to the state of a key. Answers whether the key has one afterwards.
    pub(super) fn apply<K: Data + Eq>(
        self,
        states: &mut KeyedTable<K, S>,
        hash: u64,
        key: &K,
    ) -> bool {
        match self {
            Change::Keep => states.get_hashed(hash, hash, key).is_some(),
            Change::Set(state) => {
                // Taken if the key is new, and otherwise set below.
                let mut state = Some(state);
                let init = || state.take().expect("taken once");
                let entry = states.upsert_hashed(hash, hash, key.clone(), init);
                if let Some(state) = state {
                    *entry.value = state;
                }
                true
            }
            Change::Remove => {
                states.remove_hashed(hash, hash, key);
                false
            }
        }
    }
}

/// The operator.
pub(super) struct MapWithState<K, V, S, U, F> {
    f: Arc<F>,
    states: KeyedTable<K, S>,
    rows: PhantomData<fn(V) -> U>,
}

impl<K: Data + Eq, V, S: Data, U, F> MapWithState<K, V, S, U, F> {
    pub(super) fn new(context: &OperatorContext, f: Arc<F>) -> Self {
        let groups = context.groups.clone();
        let states = KeyedTable::new("state", Kind::Value, context.key_groups, groups);
        MapWithState { f, states, rows: PhantomData }
    }
}

impl<K, V, S, U, F> Operator for MapWithState<K, V, S, U, F>
where
    K: Data + Eq,
    V: Data,
    S: Data,
    U: Data,
    F: Fn(&K, V, &mut StateHandle<'_, S>) -> Option<U>,
{
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let Keyed { hashes, rows } = batch.take::<Keyed<K, V>>()?;
        let mut mapped = Vec::with_capacity(rows.len());
        for (hash, (key, value)) in hashes.into_iter().zip(rows) {
            let old = self.states.get_hashed(hash, hash, &key);
            let mut handle = StateHandle::new(old);
            mapped.extend((self.f)(&key, value, &mut handle));
            match handle.into_change() {
                Change::Keep => {}
                change => drop(change.apply(&mut self.states, hash, &key)),
            }
        }
        emit(out, 0, Batch::new(mapped));
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.states]
    }
}
