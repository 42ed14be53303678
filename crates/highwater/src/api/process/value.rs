//! One value for each key.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use highwater_codec::hash_key;
use highwater_runtime::Data;
use highwater_state::{AHEAD, ByKey, KeyGroups, KeyedTable, Kind, Spot, StateTable};

use super::broadcast::Keys;
use super::lifetime::{Instant, Lifetimes, Placed, Ttl};
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
        let value = table.values.get_at(table.spots[cx.turn()], hash, hash, key)?;
        if let Some(lifetimes) = &table.lifetimes {
            if !lifetimes.is_alive(hash, hash, key, cx.instant()) {
                return None;
            }
            lifetimes.read(hash, hash, key, cx.instant());
        }
        Some(value)
    }

    /// Sets the value.
    pub fn set<P: Process>(&self, cx: &mut Context<P>, value: T) {
        let (turn, instant) = (cx.turn(), cx.instant());
        let (table, hash, key) = cx.state_mut::<ValueTable<P::Key, T>>(self.index);
        let mut value = Some(value);
        let init = || value.take().expect("taken once");
        let entry = table.values.upsert_at(table.spots[turn], hash, hash, key.clone(), init);
        if let Some(value) = value {
            *entry.value = value;
        }
        if let Some(lifetimes) = &mut table.lifetimes {
            lifetimes.write(Placed { group: hash, lookup: hash, place: key.clone() }, instant);
        }
    }

    /// Removes the value, and gives it.
    pub fn take<P: Process>(&self, cx: &mut Context<P>) -> Option<T> {
        let (turn, instant) = (cx.turn(), cx.instant());
        let (table, hash, key) = cx.state_mut::<ValueTable<P::Key, T>>(self.index);
        let value = table.values.remove_at(table.spots[turn], hash, hash, key)?;
        let Some(lifetimes) = &mut table.lifetimes else { return Some(value) };
        let is_alive = lifetimes.is_alive(hash, hash, key, instant);
        lifetimes.forget(hash, hash, key);
        is_alive.then_some(value)
    }

    /// Removes the value, if there is one.
    pub fn clear<P: Process>(&self, cx: &mut Context<P>) {
        self.take(cx);
    }
}

impl<P: Process, T: Data> Keys<P> for Value<T> {
    fn keys(&self, cx: &Context<P>) -> Vec<P::Key> {
        let (table, instant) = (cx.table::<ValueTable<P::Key, T>>(self.index), cx.instant());
        let groups = 0..table.values.group_count();
        let all = groups.flat_map(|group| table.values.group_entries(group)).map(|(key, _)| key);
        let lives = |key: &&P::Key| {
            table.lifetimes.as_ref().is_none_or(|lifetimes| {
                let hash = hash_key(*key).expect("a key that is stored can be hashed");
                lifetimes.is_alive(hash, hash, key, instant)
            })
        };
        all.filter(lives).cloned().collect()
    }
}

impl<T> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.index)
    }
}

/// The state behind it.
pub(super) struct ValueTable<K, T> {
    values: KeyedTable<K, T>,
    /// Where the values of keys were seen whose turn it is.
    spots: [Spot; AHEAD],
    lifetimes: Option<Lifetimes<K, ByKey>>,
}

impl<K: Data + Eq, T: Data> ValueTable<K, T> {
    pub(super) fn new(
        name: &str,
        ttl: Option<Ttl>,
        key_groups: KeyGroups,
        groups: Range<u32>,
    ) -> Self {
        ValueTable {
            values: KeyedTable::new(name, Kind::Value, key_groups, groups.clone()),
            spots: [Spot::default(); AHEAD],
            lifetimes: ttl.map(|ttl| Lifetimes::new(name, ttl, key_groups, groups)),
        }
    }
}

impl<K: Data + Eq, T: Data> ProcessTable for ValueTable<K, T> {
    fn state_tables(&mut self) -> Vec<&mut dyn StateTable> {
        let mut tables: Vec<&mut dyn StateTable> = vec![&mut self.values];
        tables.extend(self.lifetimes.as_mut().map(Lifetimes::state_table));
        tables
    }

    fn restored(&mut self) {
        let Some(lifetimes) = &mut self.lifetimes else { return };
        let groups = 0..self.values.group_count();
        let entries = groups.flat_map(|group| self.values.group_entries(group));
        lifetimes.restored(entries.map(|(key, _)| key));
    }

    fn look_ahead(&mut self, hashes: &[u64]) {
        self.spots = self.values.look_ahead(hashes.iter().map(|hash| (*hash, *hash)));
    }

    fn clean(&mut self, instant: Instant) {
        if let Some(lifetimes) = &mut self.lifetimes {
            let values = &self.values;
            lifetimes.give_times(instant, |spot| {
                values.get_hashed(spot.group, spot.lookup, &spot.place).is_some()
            });
            lifetimes.clean(instant, |gone| {
                self.values.remove_hashed(gone.group, gone.lookup, &gone.place);
            });
        }
    }
}
