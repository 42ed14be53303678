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
}

#[derive(Debug)]
enum Change<S> {
    Keep,
    Set(S),
    Remove,
}

impl<S> StateHandle<'_, S> {
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

    /// Sets the key's state.
    pub fn set(&mut self, state: S) {
        self.change = Change::Set(state);
    }

    /// Removes the key's state; does nothing if there is none.
    pub fn remove(&mut self) {
        self.change = Change::Remove;
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
            let mut handle = StateHandle { old, change: Change::Keep };
            mapped.extend((self.f)(&key, value, &mut handle));
            match handle.change {
                Change::Keep => {}
                Change::Set(state) => {
                    // Taken if the key is new, and otherwise set below.
                    let mut state = Some(state);
                    let entry = self
                        .states
                        .upsert_hashed(hash, hash, key, || state.take().expect("taken once"));
                    if let Some(state) = state {
                        *entry.value = state;
                    }
                }
                Change::Remove => drop(self.states.remove_hashed(hash, hash, &key)),
            }
        }
        emit(out, 0, Batch::new(mapped));
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.states]
    }
}
