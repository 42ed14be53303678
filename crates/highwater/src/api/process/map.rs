//! A map for each key.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use highwater_codec::hash_key;
use highwater_runtime::Data;
use highwater_state::{ByFirst, Hashing, KeyGroups, KeyedTable, Kind, StateTable};

use super::broadcast::Keys;
use super::lifetime::{Instant, Lifetimes, Placed, Ttl};
use super::states::ProcessTable;
use super::{Context, Process};
use crate::api::Key;

/// The handle of a state with a map for each key; see [`States::map`](super::States::map).
///
/// Its methods act on the present key. Entries are stored one by one: a change costs the same however large the map is.
///
/// # Panics
///
/// Every method panics when it is given the context of another process function than the one that declared the handle.
pub struct Map<M, T> {
    index: usize,
    entry: PhantomData<fn() -> (M, T)>,
}

impl<M: Key, T: Data> Map<M, T> {
    pub(super) fn new(index: usize) -> Self {
        Map { index, entry: PhantomData }
    }

    /// A copy of the value at `at`, if there is one.
    pub fn get<P: Process>(&self, cx: &Context<P>, at: &M) -> Option<T> {
        self.get_ref(cx, at).cloned()
    }

    /// The value at `at`, if there is one.
    pub fn get_ref<'a, P: Process>(&self, cx: &'a Context<P>, at: &M) -> Option<&'a T> {
        let (map, hash, key) = cx.state::<MapTable<P::Key, M, T>>(self.index);
        let placed = map.places.find(hash, key, at)?;
        map.is_alive(hash, placed, cx.instant()).then(|| map.read(hash, placed, cx.instant()))
    }

    /// Whether there is a value at `at`.
    pub fn contains<P: Process>(&self, cx: &Context<P>, at: &M) -> bool {
        let (map, hash, key) = cx.state::<MapTable<P::Key, M, T>>(self.index);
        let found = map.places.find(hash, key, at);
        found.is_some_and(|placed| map.is_alive(hash, placed, cx.instant()))
    }

    /// Puts `value` at `at`; gives the value that was there.
    pub fn insert<P: Process>(&self, cx: &mut Context<P>, at: M, value: T) -> Option<T> {
        let instant = cx.instant();
        let (map, hash, key) = cx.state_mut::<MapTable<P::Key, M, T>>(self.index);
        let place = (key.clone(), at);
        let lookup = lookup(&place);
        map.places.insert(hash, lookup, &place);
        let mut value = Some(value);
        let init = || value.take().expect("taken once");
        let entry = map.entries.upsert_hashed(hash, lookup, place, init);
        let old = value.map(|value| std::mem::replace(entry.value, value));
        let Some(lifetimes) = &mut map.lifetimes else { return old };
        let placed = Placed { group: hash, lookup, place: entry.key.clone() };
        let was_alive = lifetimes.is_alive(hash, lookup, &placed.place, instant);
        lifetimes.write(placed, instant);
        old.filter(|_| was_alive)
    }

    /// Removes the value at `at`, and gives it.
    pub fn remove<P: Process>(&self, cx: &mut Context<P>, at: &M) -> Option<T> {
        let instant = cx.instant();
        let (map, hash, key) = cx.state_mut::<MapTable<P::Key, M, T>>(self.index);
        let placed = map.places.remove(hash, key, at)?;
        let is_alive = map.is_alive(hash, &placed, instant);
        map.remove(hash, &placed).filter(|_| is_alive)
    }

    /// All entries, in no particular order.
    pub fn iter<'a, P: Process>(
        &self,
        cx: &'a Context<P>,
    ) -> impl Iterator<Item = (&'a M, &'a T)> + use<'a, P, M, T> {
        let (map, hash, key) = cx.state::<MapTable<P::Key, M, T>>(self.index);
        let instant = cx.instant();
        let places = map.places.of(hash, key);
        let alive = places.filter(move |placed| map.is_alive(hash, placed, instant));
        alive.map(move |placed| (&placed.1.1, map.read(hash, placed, instant)))
    }

    /// How many entries there are.
    pub fn len<P: Process>(&self, cx: &Context<P>) -> usize {
        let (map, hash, key) = cx.state::<MapTable<P::Key, M, T>>(self.index);
        match map.lifetimes {
            None => map.places.len(hash, key),
            Some(_) => {
                let instant = cx.instant();
                let places = map.places.of(hash, key);
                places.filter(|placed| map.is_alive(hash, placed, instant)).count()
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty<P: Process>(&self, cx: &Context<P>) -> bool {
        self.len(cx) == 0
    }

    /// Removes all entries.
    pub fn clear<P: Process>(&self, cx: &mut Context<P>) {
        let (map, hash, key) = cx.state_mut::<MapTable<P::Key, M, T>>(self.index);
        for placed in map.places.forget(hash, key) {
            map.remove(hash, &placed);
        }
    }
}

impl<P: Process, M: Key, T: Data> Keys<P> for Map<M, T> {
    fn keys(&self, cx: &Context<P>) -> Vec<P::Key> {
        let (map, instant) = (cx.table::<MapTable<P::Key, M, T>>(self.index), cx.instant());
        let lives = |of: &&KeyPlaces<P::Key, M>| {
            of.places.iter().any(|placed| map.is_alive(of.hash, placed, instant))
        };
        map.places.0.iter().filter(lives).map(|of| of.key.clone()).collect()
    }
}

const LISTED: &str = "an entry that is listed exists";

#[inline]
fn lookup<K: Data, M: Data>(place: &(K, M)) -> u64 {
    <ByFirst as Hashing<(K, M)>>::lookup(place)
}

impl<M, T> fmt::Debug for Map<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({})", self.index)
    }
}

/// The state behind it.
pub(super) struct MapTable<K, M, T> {
    entries: KeyedTable<(K, M), T, ByFirst>,
    places: Places<K, M>,
    lifetimes: Option<Lifetimes<(K, M), ByFirst>>,
}

impl<K: Data + Eq, M: Key, T: Data> MapTable<K, M, T> {
    pub(super) fn new(
        name: &str,
        ttl: Option<Ttl>,
        key_groups: KeyGroups,
        groups: Range<u32>,
    ) -> Self {
        MapTable {
            entries: KeyedTable::new(name, Kind::MapEntry, key_groups, groups.clone()),
            places: Places(HashTable::new()),
            lifetimes: ttl.map(|ttl| Lifetimes::new(name, ttl, key_groups, groups)),
        }
    }

    /// Whether an entry that is there is to be seen.
    fn is_alive(&self, hash: u64, (lookup, place): &Place<K, M>, instant: Instant) -> bool {
        let alive = |lifetimes: &Lifetimes<_, _>| lifetimes.is_alive(hash, *lookup, place, instant);
        self.lifetimes.as_ref().is_none_or(alive)
    }

    /// The value of an entry that is alive.
    fn read(&self, hash: u64, (lookup, place): &Place<K, M>, instant: Instant) -> &T {
        if let Some(lifetimes) = &self.lifetimes {
            lifetimes.read(hash, *lookup, place, instant);
        }
        self.entries.get_hashed(hash, *lookup, place).expect(LISTED)
    }

    /// Removes an entry that isn't listed any more.
    fn remove(&mut self, hash: u64, (lookup, place): &Place<K, M>) -> Option<T> {
        if let Some(lifetimes) = &mut self.lifetimes {
            lifetimes.forget(hash, *lookup, place);
        }
        self.entries.remove_hashed(hash, *lookup, place)
    }
}

impl<K: Data + Eq, M: Key, T: Data> ProcessTable for MapTable<K, M, T> {
    fn state_tables(&mut self) -> Vec<&mut dyn StateTable> {
        let mut tables: Vec<&mut dyn StateTable> = vec![&mut self.entries];
        tables.extend(self.lifetimes.as_mut().map(Lifetimes::state_table));
        tables
    }

    fn restored(&mut self) {
        for group in 0..self.entries.group_count() {
            for (place, _) in self.entries.group_entries(group) {
                let hash = hash_key(&place.0).expect("a key that was stored can be hashed");
                self.places.insert(hash, lookup(place), place);
            }
        }
        let Some(lifetimes) = &mut self.lifetimes else { return };
        let groups = 0..self.entries.group_count();
        let entries = groups.flat_map(|group| self.entries.group_entries(group));
        lifetimes.restored(entries.map(|(place, _)| place));
    }

    fn clean(&mut self, instant: Instant) {
        if let Some(lifetimes) = &mut self.lifetimes {
            let places = &self.places;
            lifetimes.give_times(instant, |spot| {
                places.find(spot.group, &spot.place.0, &spot.place.1).is_some()
            });
            lifetimes.clean(instant, |gone| {
                let (key, at) = &gone.place;
                self.places.remove(gone.group, key, at);
                self.entries.remove_hashed(gone.group, gone.lookup, &gone.place);
            });
        }
    }
}

/// Which entries each key's map has; derived from the entries. It holds places as the table of entries is asked for
/// them, so that reading copies neither the key nor the map key.
struct Places<K, M>(HashTable<KeyPlaces<K, M>>);

struct KeyPlaces<K, M> {
    hash: u64,
    key: K,
    /// By the hash of the map key alone.
    places: HashTable<Place<K, M>>,
}

/// An entry's lookup hash, and where it is.
type Place<K, M> = (u64, (K, M));

#[inline]
fn part_hash<M: Data>(at: &M) -> u64 {
    hash_key(at).expect("a key of a map can be serialized")
}

impl<K: Data + Eq, M: Key> Places<K, M> {
    fn key_places(&self, hash: u64, key: &K) -> Option<&HashTable<Place<K, M>>> {
        self.0.find(hash, |map| map.key == *key).map(|map| &map.places)
    }

    fn find(&self, hash: u64, key: &K, at: &M) -> Option<&Place<K, M>> {
        self.key_places(hash, key)?.find(part_hash(at), |(_, place)| place.1 == *at)
    }

    fn of(&self, hash: u64, key: &K) -> impl Iterator<Item = &Place<K, M>> {
        self.key_places(hash, key).into_iter().flatten()
    }

    fn len(&self, hash: u64, key: &K) -> usize {
        self.key_places(hash, key).map_or(0, HashTable::len)
    }

    fn insert(&mut self, hash: u64, lookup: u64, place: &(K, M)) {
        let map = match self.0.entry(hash, |map| map.key == place.0, |map| map.hash) {
            Entry::Occupied(map) => map.into_mut(),
            Entry::Vacant(free) => {
                let places = HashTable::new();
                free.insert(KeyPlaces { hash, key: place.0.clone(), places }).into_mut()
            }
        };
        let hasher = |(_, place): &Place<K, M>| part_hash(&place.1);
        map.places
            .entry(part_hash(&place.1), |(_, other)| other.1 == place.1, hasher)
            .or_insert_with(|| (lookup, place.clone()));
    }

    fn remove(&mut self, hash: u64, key: &K, at: &M) -> Option<Place<K, M>> {
        let mut map = self.0.find_entry(hash, |map| map.key == *key).ok()?;
        let places = &mut map.get_mut().places;
        let place = places.find_entry(part_hash(at), |(_, place)| place.1 == *at).ok()?.remove().0;
        if places.is_empty() {
            map.remove();
        }
        Some(place)
    }

    fn forget(&mut self, hash: u64, key: &K) -> HashTable<Place<K, M>> {
        let found = self.0.find_entry(hash, |map| map.key == *key);
        found.map_or_else(|_| HashTable::new(), |map| map.remove().0.places)
    }
}
