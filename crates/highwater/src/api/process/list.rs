//! A list of values for each key.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use highwater_codec::hash_key;
use highwater_runtime::Data;
use highwater_state::{ByFirst, ByKey, Hashing, KeyGroups, KeyedTable, Kind, StateTable};

use super::broadcast::Keys;
use super::lifetime::{Instant, Lifetimes, Placed, Ttl};
use super::states::ProcessTable;
use super::{Context, Process};

/// The handle of a state with a list of values for each key; see [`States::list`](super::States::list).
///
/// Its methods act on the present key. Elements are stored one by one: to append one costs the same however long the list is.
///
/// # Panics
///
/// Every method panics when it is given the context of another process function than the one that declared the handle.
pub struct List<T> {
    index: usize,
    element: PhantomData<fn() -> T>,
}

impl<T: Data> List<T> {
    pub(super) fn new(index: usize) -> Self {
        List { index, element: PhantomData }
    }

    /// Appends an element.
    pub fn push<P: Process>(&self, cx: &mut Context<P>, element: T) {
        let instant = cx.instant();
        let (list, hash, key) = cx.state_mut::<ListTable<P::Key, T>>(self.index);
        if let Some(lifetimes) = &mut list.lifetimes {
            if !lifetimes.is_alive(hash, hash, key, instant) {
                list.lengths.drain(&mut list.elements, hash, key);
            }
            lifetimes.write(Placed { group: hash, lookup: hash, place: key.clone() }, instant);
        }
        let position = list.lengths.append(hash, key);
        let place = (key.clone(), position);
        let lookup = <ByFirst as Hashing<(P::Key, u64)>>::lookup(&place);
        list.elements.upsert_hashed(hash, lookup, place, || element);
    }

    /// A copy of all elements, in their order.
    pub fn get<P: Process>(&self, cx: &Context<P>) -> Vec<T> {
        self.iter(cx).cloned().collect()
    }

    /// The elements, in their order.
    pub fn iter<'a, P: Process>(
        &self,
        cx: &'a Context<P>,
    ) -> impl ExactSizeIterator<Item = &'a T> + use<'a, P, T> {
        let (list, hash, key) = cx.state::<ListTable<P::Key, T>>(self.index);
        let mut place = (key.clone(), 0);
        let length = self.len(cx);
        if let Some(lifetimes) = list.lifetimes.as_ref().filter(|_| length > 0) {
            lifetimes.read(hash, hash, key, cx.instant());
        }
        (0..length).map(move |position| {
            place.1 = position as u64;
            let lookup = <ByFirst as Hashing<(P::Key, u64)>>::lookup(&place);
            list.elements.get_hashed(hash, lookup, &place).expect(WHOLE)
        })
    }

    /// How many elements there are.
    pub fn len<P: Process>(&self, cx: &Context<P>) -> usize {
        let (list, hash, key) = cx.state::<ListTable<P::Key, T>>(self.index);
        let dead = |lifetimes: &Lifetimes<_, _>| !lifetimes.is_alive(hash, hash, key, cx.instant());
        match list.lifetimes.as_ref().is_some_and(dead) {
            true => 0,
            false => list.lengths.of(hash, key) as usize,
        }
    }

    /// Whether there are none.
    pub fn is_empty<P: Process>(&self, cx: &Context<P>) -> bool {
        self.len(cx) == 0
    }

    /// Removes all elements, and gives them.
    pub fn take<P: Process>(&self, cx: &mut Context<P>) -> Vec<T> {
        let instant = cx.instant();
        let (list, hash, key) = cx.state_mut::<ListTable<P::Key, T>>(self.index);
        let elements = list.lengths.drain(&mut list.elements, hash, key);
        let Some(lifetimes) = &mut list.lifetimes else { return elements };
        let is_alive = lifetimes.is_alive(hash, hash, key, instant);
        lifetimes.forget(hash, hash, key);
        if is_alive { elements } else { Vec::new() }
    }

    /// Removes all elements.
    pub fn clear<P: Process>(&self, cx: &mut Context<P>) {
        self.take(cx);
    }
}

impl<P: Process, T: Data> Keys<P> for List<T> {
    fn keys(&self, cx: &Context<P>) -> Vec<P::Key> {
        let (list, instant) = (cx.table::<ListTable<P::Key, T>>(self.index), cx.instant());
        let lives = |length: &&Length<P::Key>| {
            let Length { hash, key, .. } = length;
            let lifetimes = list.lifetimes.as_ref();
            lifetimes.is_none_or(|lifetimes| lifetimes.is_alive(*hash, *hash, key, instant))
        };
        list.lengths.0.iter().filter(lives).map(|length| length.key.clone()).collect()
    }
}

const WHOLE: &str = "a list has every position below its length";

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({})", self.index)
    }
}

/// The state behind it: positions from 0 on, without a gap.
pub(super) struct ListTable<K, T> {
    elements: KeyedTable<(K, u64), T, ByFirst>,
    lengths: Lengths<K>,
    /// Of whole lists.
    lifetimes: Option<Lifetimes<K, ByKey>>,
}

impl<K: Data + Eq, T: Data> ListTable<K, T> {
    pub(super) fn new(
        name: &str,
        ttl: Option<Ttl>,
        key_groups: KeyGroups,
        groups: Range<u32>,
    ) -> Self {
        ListTable {
            elements: KeyedTable::new(name, Kind::ListElement, key_groups, groups.clone()),
            lengths: Lengths(HashTable::new()),
            lifetimes: ttl.map(|ttl| Lifetimes::new(name, ttl, key_groups, groups)),
        }
    }
}

impl<K: Data + Eq, T: Data> ProcessTable for ListTable<K, T> {
    fn state_tables(&mut self) -> Vec<&mut dyn StateTable> {
        let mut tables: Vec<&mut dyn StateTable> = vec![&mut self.elements];
        tables.extend(self.lifetimes.as_mut().map(Lifetimes::state_table));
        tables
    }

    fn restored(&mut self) {
        for group in 0..self.elements.group_count() {
            for ((key, _), _) in self.elements.group_entries(group) {
                let hash = hash_key(key).expect("a key that was stored can be hashed");
                self.lengths.append(hash, key);
            }
        }
        if let Some(lifetimes) = &mut self.lifetimes {
            lifetimes.restored(self.lengths.0.iter().map(|list| &list.key));
        }
    }

    fn clean(&mut self, instant: Instant) {
        if let Some(lifetimes) = &mut self.lifetimes {
            let lengths = &self.lengths;
            lifetimes.give_times(instant, |spot| lengths.of(spot.group, &spot.place) > 0);
            lifetimes.clean(instant, |gone| {
                self.lengths.drain(&mut self.elements, gone.group, &gone.place);
            });
        }
    }
}

/// How long each key's list is; derived from the elements.
struct Lengths<K>(HashTable<Length<K>>);

struct Length<K> {
    hash: u64,
    key: K,
    elements: u64,
}

impl<K: Data + Eq> Lengths<K> {
    /// Takes a key's elements out, in their order.
    fn drain<T: Data>(
        &mut self,
        elements: &mut KeyedTable<(K, u64), T, ByFirst>,
        hash: u64,
        key: &K,
    ) -> Vec<T> {
        let mut place = (key.clone(), 0);
        let positions = 0..self.forget(hash, key);
        let taken = positions.map(|position| {
            place.1 = position;
            let lookup = <ByFirst as Hashing<(K, u64)>>::lookup(&place);
            elements.remove_hashed(hash, lookup, &place).expect(WHOLE)
        });
        taken.collect()
    }

    fn of(&self, hash: u64, key: &K) -> u64 {
        self.0.find(hash, |list| list.key == *key).map_or(0, |list| list.elements)
    }

    /// One more element; answers how many there were.
    fn append(&mut self, hash: u64, key: &K) -> u64 {
        match self.0.entry(hash, |list| list.key == *key, |list| list.hash) {
            Entry::Occupied(list) => {
                let elements = &mut list.into_mut().elements;
                *elements += 1;
                *elements - 1
            }
            Entry::Vacant(place) => {
                place.insert(Length { hash, key: key.clone(), elements: 1 });
                0
            }
        }
    }

    /// No more elements; answers how many there were.
    fn forget(&mut self, hash: u64, key: &K) -> u64 {
        let found = self.0.find_entry(hash, |list| list.key == *key);
        found.map_or(0, |list| list.remove().0.elements)
    }
}
