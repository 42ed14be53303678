//! One value for each key.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use highwater_runtime::Data;
use highwater_state::{KeyGroups, KeyedTable, Kind, StateTable};

use super::states::ProcessTable;
use super::{Context, Process};

/// The handle of a state with one value for each key; see [`States::value`](super::States::value).
///
/// Its methods act on the present key.
///
/// # Panics
///
/// Every method panics when it is given the context of another process function than the one that declared the handle.
pub struct Value<T> {
    index: usize,
    value: PhantomData<fn() -> T>,
}

impl<T: Data> Value<T> {
    pub(super) fn new(index: usize) -> Self {
        Value { index, value: PhantomData }
    }

    /// A copy of the value, if there is one.
    pub fn get<P: Process>(&self, cx: &Context<P>) -> Option<T> {
        self.get_ref(cx).cloned()
    }

    /// The value, if there is one.
    pub fn get_ref<'a, P: Process>(&self, cx: &'a Context<P>) -> Option<&'a T> {
        let (table, hash, key) = cx.state::<ValueTable<P::Key, T>>(self.index);
        table.0.get_hashed(hash, hash, key)
    }

    /// Sets the value.
    pub fn set<P: Process>(&self, cx: &mut Context<P>, value: T) {
        let (table, hash, key) = cx.state_mut::<ValueTable<P::Key, T>>(self.index);
        let mut value = Some(value);
        let entry =
            table.0.upsert_hashed(hash, hash, key.clone(), || value.take().expect("taken once"));
        if let Some(value) = value {
            *entry.value = value;
        }
    }

    /// Removes the value, and gives it.
    pub fn take<P: Process>(&self, cx: &mut Context<P>) -> Option<T> {
        let (table, hash, key) = cx.state_mut::<ValueTable<P::Key, T>>(self.index);
        table.0.remove_hashed(hash, hash, key)
    }

    /// Removes the value, if there is one.
    pub fn clear<P: Process>(&self, cx: &mut Context<P>) {
        self.take(cx);
    }
}

impl<T> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.index)
    }
}

/// The state behind it.
pub(super) struct ValueTable<K, T>(KeyedTable<K, T>);

impl<K: Data + Eq, T: Data> ValueTable<K, T> {
    pub(super) fn new(name: &str, key_groups: KeyGroups, groups: Range<u32>) -> Self {
        ValueTable(KeyedTable::new(name, Kind::Value, key_groups, groups))
    }
}

impl<K: Data + Eq, T: Data> ProcessTable for ValueTable<K, T> {
    fn state_table(&mut self) -> &mut dyn StateTable {
        &mut self.0
    }
}
