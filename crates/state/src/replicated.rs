//! State of which every worker has a copy, because all of them are told the same.
//!
//! One worker writes it into checkpoints; all of them read it back, however many they are then.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::chain::Place;
use crate::{Image, KeyGroups, KeyedTable, Kind, Slice, StateError, StateTable};

/// The copy of one worker.
///
/// ```
/// use highwater_state::{KeyGroups, Replicated, StateTable};
///
/// let mut rules: Replicated<String, u64> = Replicated::new("rules", KeyGroups::default(), true);
/// rules.begin(1, true);
/// rules.set("limit".to_owned(), 100);
/// assert_eq!(rules.get(&"limit".to_owned()), Some(&100));
/// ```
#[derive(Debug)]
pub struct Replicated<K, V> {
    table: KeyedTable<K, V>,
    writes: bool,
}

impl<K, V> Replicated<K, V>
where
    K: Clone + Eq + Serialize + DeserializeOwned + 'static,
    V: Clone + Serialize + DeserializeOwned + 'static,
{
    /// An empty copy; `writes` for the one that checkpoints keep.
    pub fn new(name: &str, key_groups: KeyGroups, writes: bool) -> Self {
        let all = 0..key_groups.count();
        Replicated { table: KeyedTable::new(name, Kind::Broadcast, key_groups, all), writes }
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.table.get(key)
    }

    /// Sets the value of `key`.
    pub fn set(&mut self, key: K, value: V) {
        self.table.set(key, value);
    }

    /// Removes `key`, and gives the value that it had.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.table.remove(key)
    }

    /// Every entry, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        (0..self.table.group_count()).flat_map(|group| self.table.group_entries(group))
    }

    /// How many entries there are, in any one copy.
    pub fn entries(&self) -> u64 {
        self.table.len()
    }
}

impl<K, V> StateTable for Replicated<K, V>
where
    K: Clone + Eq + Serialize + DeserializeOwned + 'static,
    V: Clone + Serialize + DeserializeOwned + 'static,
{
    fn name(&self) -> &str {
        self.table.name()
    }

    fn kind(&self) -> Kind {
        Kind::Broadcast
    }

    fn begin(&mut self, interval: u32, freezes: bool) {
        self.table.begin(interval, freezes && self.writes);
    }

    fn freeze(&mut self, next: u32, retire: Option<Place>) {
        if self.writes {
            self.table.freeze(next, retire);
        }
    }

    fn encode(&mut self, rows: usize) -> Result<Slice, StateError> {
        if self.writes { self.table.encode(rows) } else { Ok(Slice::Done(Vec::new())) }
    }

    fn places(&self) -> BTreeMap<Place, u64> {
        if self.writes { self.table.places() } else { BTreeMap::new() }
    }

    fn restore(&mut self, uid: &str, image: &Image) -> Result<u64, StateError> {
        let entries = self.table.restore(uid, image)?;
        Ok(if self.writes { entries } else { 0 })
    }

    /// Copies aren't counted twice.
    fn len(&self) -> u64 {
        if self.writes { self.table.len() } else { 0 }
    }
}
