//! The keyed state of one operator on one worker, in memory.
//!
//! A hash table for each key group, so that no growth ever moves more than one group's entries. Entries carry the
//! interval of their last change. Freezing is O(1): it raises the table's stamp, and a group whose
//! own stamp is behind sets its lists of changes aside when it is next touched, by a write or by the encoder.
//!
//! ```text
//!   write ──▶ group: entries, changes of this interval ──freeze──▶ changes of the frozen interval ──encode──▶ link
//!                         │ a write to an entry not yet encoded
//!                         └──▶ saves the old value for the encoder
//! ```
//!
//! # Invariants
//!
//! 1. The hash of every entry that changed in the present interval is in its group's `changed`, exactly once.
//! 2. While a group is frozen and not yet encoded, the value that each of its entries had at the freeze is in the
//!    entry (if its `changed` is at or below the frozen interval) or in `saved`, never in both.
//! 3. An interval is encoded before the next one is frozen.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;

use hashbrown::HashTable;
use highwater_codec::{Tier, hash_key};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::chain::{Link, Place};
use crate::section::{Section, SectionWriter};
use crate::{Image, KeyGroups, Kind, StateError};

mod ahead;
mod encode;
mod restore;
#[cfg(test)]
mod tests;

pub use ahead::{AHEAD, Spot, prefetch, prefetch_behind};

/// How the entries of a table are hashed: for their group and for being found.
pub trait Hashing<K>: 'static {
    /// The hash that places a key in a key group.
    fn group(key: &K) -> u64;
    /// The hash that finds it within the group.
    fn lookup(key: &K) -> u64;
    /// Both, group first.
    #[inline]
    fn both(key: &K) -> (u64, u64) {
        (Self::group(key), Self::lookup(key))
    }
}

/// Entries of one row a key: both hashes are the key's.
#[derive(Debug)]
pub struct ByKey;

impl<K: Serialize> Hashing<K> for ByKey {
    #[inline]
    fn group(key: &K) -> u64 {
        hash(key)
    }
    #[inline]
    fn lookup(key: &K) -> u64 {
        hash(key)
    }
    #[inline]
    fn both(key: &K) -> (u64, u64) {
        let hash = hash(key);
        (hash, hash)
    }
}

/// Entries of several rows a key (the elements of lists, the entries of maps): the first part is the job's key and
/// places the entry.
#[derive(Debug)]
pub struct ByFirst;

impl<K: Serialize, M: Serialize> Hashing<(K, M)> for ByFirst {
    #[inline]
    fn group(key: &(K, M)) -> u64 {
        hash(&key.0)
    }
    #[inline]
    fn lookup(key: &(K, M)) -> u64 {
        hash(key)
    }
}

#[inline]
fn hash<K: Serialize>(key: &K) -> u64 {
    hash_key(key).expect("a key was hashed when it was grouped, and must be hashable ever after")
}

/// What any keyed state can do for a checkpoint, whatever its types.
pub trait StateTable {
    /// The state's name within its operator.
    fn name(&self) -> &str;
    /// What its rows are.
    fn kind(&self) -> Kind;
    /// Changes from here on belong to `interval`.
    ///
    /// Nothing is noted for a freeze if there will be none.
    fn begin(&mut self, interval: u32, freezes: bool);
    /// Freezes the present interval in O(1); changes from here on belong to `next`. What is stored in `retire`
    /// is written again, because that object is mostly dead.
    fn freeze(&mut self, next: u32, retire: Option<Place>);
    /// Encodes some more of the frozen interval: at least `rows` rows, or all that is left.
    ///
    /// # Errors
    ///
    /// If a key or value can't be written.
    fn encode(&mut self, rows: usize) -> Result<Slice, StateError>;
    /// Where the chain of this table is stored, and about how many bytes of each object it needs.
    fn places(&self) -> BTreeMap<Place, u64>;
    /// Reads this table's key groups from an image; answers how many entries there are.
    ///
    /// # Errors
    ///
    /// If the image holds what this table's types can't read.
    fn restore(&mut self, uid: &str, image: &Image) -> Result<u64, StateError>;
    /// How many entries there are.
    fn len(&self) -> u64;
    /// Whether there is no entry.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What [`StateTable::encode`] did.
#[derive(Debug)]
pub enum Slice {
    /// There is more to encode.
    More,
    /// The frozen interval is encoded; these are its sections, none if nothing changed.
    Done(Vec<Section>),
}

/// What a visitor of all entries wants done with one; see [`KeyedTable::visit_group`].
#[derive(Debug)]
pub enum Verdict<V> {
    /// It stays as it is.
    Keep,
    /// It gets a new value.
    Set(V),
    /// It goes.
    Remove,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    /// The interval of its last change.
    changed: u32,
    /// See [`Upserted::mark`].
    mark: u32,
}

/// An entry that is about to be changed.
#[derive(Debug)]
pub struct Upserted<'a, K, V> {
    /// Its key.
    pub key: &'a K,
    /// Its value.
    pub value: &'a mut V,
    /// A number that the table's owner may leave with the entry; 0 at the entry's first change in each interval.
    pub mark: &'a mut u32,
}

#[derive(Debug)]
struct Group<K, V> {
    slots: HashTable<Slot<K, V>>,
    /// Behind the table's stamp: the lists of changes belong to the frozen interval.
    stamp: u32,
    /// Apart, so that what every search reads of all groups is in the nearest cache.
    changes: Box<Changes<K, V>>,
}

#[derive(Debug)]
struct Changes<K, V> {
    changed: Vec<u64>,
    deleted: Vec<K>,
    frozen: Option<FrozenGroup<K, V>>,
    chain: Vec<Link<K>>,
}

#[derive(Debug)]
struct FrozenGroup<K, V> {
    changed: Vec<u64>,
    deleted: Vec<K>,
    /// Entries as they were at the freeze, changed or removed since.
    saved: Vec<Slot<K, V>>,
}

#[derive(Debug)]
struct Frozen {
    interval: u32,
    /// Groups before this one are encoded.
    cursor: usize,
    retire: Option<Place>,
    writer: SectionWriter,
}

/// Keyed state of type `V` for keys of type `K`, for a contiguous range of key groups.
///
/// ```
/// use highwater_state::{ByKey, KeyGroups, KeyedTable, Kind, StateTable};
///
/// let groups = KeyGroups::default();
/// let mut table: KeyedTable<String, u64> =
///     KeyedTable::new("count", Kind::Value, groups, groups.range(0, 1));
/// table.begin(1, true);
/// *table.upsert("a".to_owned(), || 0) += 2;
/// assert_eq!(table.get(&"a".to_owned()), Some(&2));
/// ```
#[derive(Debug)]
pub struct KeyedTable<K, V, H = ByKey> {
    name: String,
    kind: Kind,
    key_groups: KeyGroups,
    range: Range<u32>,
    groups: Vec<Group<K, V>>,
    interval: u32,
    /// Changes are noted, because there will be freezes.
    freezes: bool,
    stamp: u32,
    frozen: Option<Frozen>,
    key_tier: Tier,
    value_tier: Tier,
    entries: u64,
    hashing: PhantomData<fn() -> H>,
}

/// Where the search for an entry begins in its group's table. That goes by the lowest bits and by the highest, and the highest of a key's
/// hash are the group's: the same for all of its entries.
#[inline]
fn home(lookup: u64) -> u64 {
    lookup.rotate_left(32)
}

/// The home of an entry that moves, because its table grows.
#[inline]
fn home_of<K, V, H: Hashing<K>>(slot: &Slot<K, V>) -> u64 {
    home(H::lookup(&slot.key))
}

impl<K: Eq, V> Group<K, V> {
    /// The index of the entry of `key`, if there is one.
    #[inline]
    fn find(&self, spot: Spot, lookup: u64, key: &K) -> Option<usize> {
        match self.slots.get_bucket(spot.index()) {
            // A key has one entry, so this is it, however it came to be here.
            Some(slot) if slot.key == *key => Some(spot.index()),
            _ => self.slots.find_bucket_index(home(lookup), |slot| slot.key == *key),
        }
    }

    /// Puts an entry there that is known to be absent, in a group that is settled. Nothing of it is read again: it may be on its way to memory
    /// that isn't in the caches.
    #[inline]
    fn insert<H: Hashing<K>>(
        &mut self,
        lookup: u64,
        slot: Slot<K, V>,
        notes: bool,
    ) -> &mut Slot<K, V> {
        if notes {
            self.changes.changed.push(lookup);
        }
        self.slots.insert_unique(home(lookup), slot, home_of::<K, V, H>).into_mut()
    }
}

impl<K, V> Group<K, V> {
    /// Sets aside what belongs to the frozen interval, if that wasn't done yet.
    #[inline]
    fn settle(&mut self, stamp: u32) {
        if self.stamp != stamp {
            self.set_aside(stamp);
        }
    }

    #[cold]
    fn set_aside(&mut self, stamp: u32) {
        let changes = &mut *self.changes;
        debug_assert!(changes.frozen.is_none(), "3: the interval before was encoded");
        self.stamp = stamp;
        changes.frozen = Some(FrozenGroup {
            changed: std::mem::take(&mut changes.changed),
            deleted: std::mem::take(&mut changes.deleted),
            saved: Vec::new(),
        });
    }
}

impl<K, V, H> KeyedTable<K, V, H>
where
    K: Clone + Eq + Serialize + DeserializeOwned + 'static,
    V: Clone + Serialize + DeserializeOwned + 'static,
    H: Hashing<K>,
{
    /// An empty table for the key groups of `range`.
    pub fn new(name: &str, kind: Kind, key_groups: KeyGroups, range: Range<u32>) -> Self {
        let groups = range.clone().map(|_| Group {
            slots: HashTable::new(),
            stamp: 0,
            changes: Box::new(Changes {
                changed: Vec::new(),
                deleted: Vec::new(),
                frozen: None,
                chain: Vec::new(),
            }),
        });
        KeyedTable {
            name: name.to_owned(),
            kind,
            key_groups,
            groups: groups.collect(),
            range,
            interval: 0,
            freezes: true,
            stamp: 0,
            frozen: None,
            key_tier: Tier::default(),
            value_tier: Tier::default(),
            entries: 0,
            hashing: PhantomData,
        }
    }

    #[inline]
    fn group_index(&self, group_hash: u64) -> usize {
        let group = self.key_groups.of(group_hash);
        debug_assert!(self.range.contains(&group), "key group {group} is not of {:?}", self.range);
        (group - self.range.start) as usize
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.get_hashed(H::group(key), H::lookup(key), key)
    }

    /// The value of `key`, whose hashes the caller knows.
    #[inline]
    pub fn get_hashed(&self, group: u64, lookup: u64, key: &K) -> Option<&V> {
        self.get_at(Spot::UNKNOWN, group, lookup, key)
    }

    /// As [`get_hashed`](Self::get_hashed), of an entry that was looked for before.
    #[inline]
    pub fn get_at(&self, spot: Spot, group: u64, lookup: u64, key: &K) -> Option<&V> {
        let group = &self.groups[self.group_index(group)];
        let at = group.find(spot, lookup, key)?;
        group.slots.get_bucket(at).map(|slot| &slot.value)
    }

    /// The value of `key` to be changed, made by `init` if there is none.
    pub fn upsert(&mut self, key: K, init: impl FnOnce() -> V) -> &mut V {
        let (group, lookup) = (H::group(&key), H::lookup(&key));
        self.upsert_hashed(group, lookup, key, init).value
    }

    /// As [`upsert`](Self::upsert), with hashes that the caller knows.
    #[inline]
    pub fn upsert_hashed(
        &mut self,
        group: u64,
        lookup: u64,
        key: K,
        init: impl FnOnce() -> V,
    ) -> Upserted<'_, K, V> {
        self.upsert_at(Spot::UNKNOWN, group, lookup, key, init)
    }

    /// As [`upsert_hashed`](Self::upsert_hashed), of an entry that was looked for before.
    #[inline]
    pub fn upsert_at(
        &mut self,
        spot: Spot,
        group: u64,
        lookup: u64,
        key: K,
        init: impl FnOnce() -> V,
    ) -> Upserted<'_, K, V> {
        let index = self.group_index(group);
        let (stamp, interval) = (self.stamp, self.interval);
        let group = &mut self.groups[index];
        group.settle(stamp);
        let Some(at) = group.find(spot, lookup, &key) else {
            self.entries += 1;
            let slot = Slot { key, value: init(), changed: interval, mark: 0 };
            let Slot { key, value, mark, .. } = group.insert::<H>(lookup, slot, self.freezes);
            return Upserted { key, value, mark };
        };
        let slot = group.slots.get_bucket_mut(at).expect("it was found there");
        if slot.changed != interval {
            if let Some(frozen) = &mut group.changes.frozen {
                frozen.saved.push(Slot {
                    key: slot.key.clone(),
                    value: slot.value.clone(),
                    ..*slot
                });
            }
            if self.freezes {
                group.changes.changed.push(lookup);
            }
            slot.changed = interval;
            slot.mark = 0;
        }
        Upserted { key: &slot.key, value: &mut slot.value, mark: &mut slot.mark }
    }

    /// Puts a value there, made by `init`, unless `key` has one, which stays as it is and unchanged. Answers whether it was put there.
    pub fn insert_hashed(
        &mut self,
        group: u64,
        lookup: u64,
        key: K,
        init: impl FnOnce() -> V,
    ) -> bool {
        let index = self.group_index(group);
        let group = &mut self.groups[index];
        group.settle(self.stamp);
        if group.find(Spot::UNKNOWN, lookup, &key).is_some() {
            return false;
        }
        self.entries += 1;
        let slot = Slot { key, value: init(), changed: self.interval, mark: 0 };
        group.insert::<H>(lookup, slot, self.freezes);
        true
    }

    /// Sets the value of `key`.
    pub fn set(&mut self, key: K, value: V) {
        let mut value = Some(value);
        let slot = self.upsert(key, || value.take().expect("taken once"));
        if let Some(value) = value {
            *slot = value;
        }
    }

    /// Removes `key`, and gives the value that it had.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.remove_hashed(H::group(key), H::lookup(key), key)
    }

    /// As [`remove`](Self::remove), with hashes that the caller knows.
    pub fn remove_hashed(&mut self, group: u64, lookup: u64, key: &K) -> Option<V> {
        self.remove_at(Spot::UNKNOWN, group, lookup, key)
    }

    /// As [`remove_hashed`](Self::remove_hashed), of an entry that was looked for before.
    pub fn remove_at(&mut self, spot: Spot, group: u64, lookup: u64, key: &K) -> Option<V> {
        let index = self.group_index(group);
        let stamp = self.stamp;
        let interval = self.interval;
        let group = &mut self.groups[index];
        group.settle(stamp);
        let at = group.find(spot, lookup, key)?;
        let (slot, _) = group.slots.get_bucket_entry(at).ok()?.remove();
        self.entries -= 1;
        if self.freezes {
            group.changes.deleted.push(slot.key.clone());
        }
        if slot.changed != interval
            && let Some(frozen) = &mut group.changes.frozen
        {
            let value = slot.value.clone();
            frozen.saved.push(slot);
            return Some(value);
        }
        Some(slot.value)
    }

    /// How many key groups this table has.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Every entry of the `index`-th key group of this table, in no order that means anything.
    pub fn group_entries(&self, index: usize) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.groups[index].slots.iter().map(|slot| (&slot.key, &slot.value))
    }

    /// Shows every entry of the `index`-th key group to `visitor`, and does what it says.
    ///
    /// # Errors
    ///
    /// The visitor's; the entries before it are done by then.
    pub fn visit_group<E>(
        &mut self,
        index: usize,
        mut visitor: impl FnMut(&K, &V) -> Result<Verdict<V>, E>,
    ) -> Result<(), E> {
        let verdicts = {
            let mut verdicts = Vec::new();
            for slot in self.groups[index].slots.iter() {
                match visitor(&slot.key, &slot.value)? {
                    Verdict::Keep => {}
                    Verdict::Set(value) => verdicts.push((slot.key.clone(), Some(value))),
                    Verdict::Remove => verdicts.push((slot.key.clone(), None)),
                }
            }
            verdicts
        };
        for (key, value) in verdicts {
            match value {
                Some(value) => self.set(key, value),
                None => drop(self.remove(&key)),
            }
        }
        Ok(())
    }
}

impl<K, V, H> StateTable for KeyedTable<K, V, H>
where
    K: Clone + Eq + Serialize + DeserializeOwned + 'static,
    V: Clone + Serialize + DeserializeOwned + 'static,
    H: Hashing<K>,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn begin(&mut self, interval: u32, freezes: bool) {
        assert!(self.frozen.is_none(), "3: nothing is frozen when an attempt begins");
        self.interval = interval;
        self.freezes = freezes;
    }

    fn freeze(&mut self, next: u32, retire: Option<Place>) {
        assert!(self.frozen.is_none(), "3: the interval before was encoded");
        assert!(self.freezes && next > self.interval, "intervals rise, and changes are noted");
        let writer = SectionWriter::new(&self.name, self.kind, self.interval);
        self.frozen = Some(Frozen { interval: self.interval, cursor: 0, retire, writer });
        self.interval = next;
        self.stamp += 1;
    }

    fn encode(&mut self, rows: usize) -> Result<Slice, StateError> {
        self.encode_slice(rows)
    }

    fn places(&self) -> BTreeMap<Place, u64> {
        let mut places = BTreeMap::new();
        for link in self.groups.iter().flat_map(|group| &group.changes.chain) {
            *places.entry(link.place).or_insert(0) += link.bytes;
        }
        places
    }

    fn restore(&mut self, uid: &str, image: &Image) -> Result<u64, StateError> {
        self.restore_image(uid, image)
    }

    fn len(&self) -> u64 {
        self.entries
    }
}
