//! The entries of one key group, in a row, and an index of their hashes.
//!
//! A hash table that holds the entries themselves would need one place for each entry less. But in a table larger than the
//! caches what counts is how many loads wait for memory one after another, and here they needn't: the homes of many hashes are
//! read at once ([`Slots::home`]), then they tell which entries to read, and these are read at once, too. Besides, entries have
//! numbers, and whoever walks through all of them reads memory in its order.
//!
//! # Invariants
//!
//! 1. Entry `n` has exactly one word, `hash << 32 | n + 1`, and no free place (0) lies between the home of its hash and it.
//! 2. At least a quarter of the places are free, so that every search ends.

/// Places of the smallest index that isn't none.
const PLACES_MIN: usize = 8;

#[derive(Debug)]
pub(super) struct Slots<T> {
    entries: Vec<T>,
    /// A power of two of places, or none.
    index: Box<[u64]>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Slots { entries: Vec::new(), index: Box::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.entries.iter()
    }

    /// The entry of this number.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.entries.get(number as usize)
    }

    /// The entry of this number.
    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> &mut T {
        &mut self.entries[number as usize]
    }

    /// What stands where the search for a hash begins.
    #[inline]
    pub(super) fn home(&self, hash: u32) -> u64 {
        self.index.get(hash as usize & self.mask()).copied().unwrap_or(0)
    }

    /// The numbers of all entries with this hash.
    #[inline]
    pub(super) fn all(&self, hash: u32) -> impl Iterator<Item = u32> {
        let mask = self.mask();
        let mut place = hash as usize & mask;
        std::iter::from_fn(move || {
            loop {
                let word = self.index.get(place).copied().filter(|word| *word != 0)?;
                place = (place + 1) & mask;
                if hash_of(word) == hash {
                    return Some(number_of(word));
                }
            }
        })
    }

    /// The number of the entry with this hash of which `is_it` is true.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(&T) -> bool) -> Option<u32> {
        self.all(hash).find(|number| is_it(&self.entries[*number as usize]))
    }

    /// Makes room for so many entries in all.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.entries.reserve(entries.saturating_sub(self.entries.len()));
        self.resize(entries);
    }

    /// Appends an entry; answers its number. There is none like it.
    pub(super) fn push(&mut self, hash: u32, entry: T) -> u32 {
        self.resize(self.entries.len() + 1);
        let number = u32::try_from(self.entries.len()).expect("a key group has below 2^32 entries");
        assert!(number < u32::MAX, "1: a word has room for the number and one");
        self.entries.push(entry);
        insert(&mut self.index, word(hash, number));
        number
    }

    /// Removes an entry. The last one takes over its number; `rehash` gives that one's hash.
    pub(super) fn remove(&mut self, number: u32, hash: u32, rehash: impl Fn(&T) -> u32) -> T {
        self.free(self.place(word(hash, number)));
        let last = self.entries.len() as u32 - 1;
        if number != last {
            let hash = rehash(&self.entries[last as usize]);
            let place = self.place(word(hash, last));
            self.index[place] = word(hash, number);
        }
        self.entries.swap_remove(number as usize)
    }

    fn mask(&self) -> usize {
        self.index.len().wrapping_sub(1)
    }

    /// Where a word stands that is there.
    fn place(&self, word: u64) -> usize {
        let mask = self.mask();
        let mut place = hash_of(word) as usize & mask;
        while self.index[place] != word {
            assert!(self.index[place] != 0, "1: an entry has its word behind its home");
            place = (place + 1) & mask;
        }
        place
    }

    /// Frees a place, and closes the gap with words that stand further from their homes (1).
    fn free(&mut self, mut gap: usize) {
        let mask = self.mask();
        let mut place = gap;
        loop {
            place = (place + 1) & mask;
            let word = self.index[place];
            if word == 0 {
                break;
            }
            let home = hash_of(word) as usize & mask;
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(gap) & mask {
                self.index[gap] = word;
                gap = place;
            }
        }
        self.index[gap] = 0;
    }

    /// Makes the index large enough for so many entries (2).
    fn resize(&mut self, entries: usize) {
        if entries <= self.index.len() / 4 * 3 {
            return;
        }
        let places = (entries * 4).div_ceil(3).next_power_of_two().max(PLACES_MIN);
        let mut index = vec![0; places].into_boxed_slice();
        // Words bring their hashes with them: no entry is read.
        for &word in self.index.iter().filter(|word| **word != 0) {
            insert(&mut index, word);
        }
        self.index = index;
    }
}

fn insert(index: &mut [u64], word: u64) {
    let mask = index.len() - 1;
    let mut place = hash_of(word) as usize & mask;
    while index[place] != 0 {
        place = (place + 1) & mask;
    }
    index[place] = word;
}

fn word(hash: u32, number: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(number + 1)
}

fn hash_of(word: u64) -> u32 {
    (word >> 32) as u32
}

fn number_of(word: u64) -> u32 {
    word as u32 - 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Hashes are few and close to each other, so that words are far from their homes and wrap around.
        #[test]
        fn finds_what_a_map_finds(steps in proptest::collection::vec((any::<bool>(), 0..60_u8), 0..400)) {
            let hash = |key: u8| u32::from(key % 13).wrapping_sub(5);
            let mut slots = Slots::new();
            let mut model = BTreeMap::new();
            for (step, (adds, key)) in steps.into_iter().enumerate() {
                match (slots.find(hash(key), |entry: &(u8, usize)| entry.0 == key), adds) {
                    (None, true) => {
                        slots.push(hash(key), (key, step));
                        model.insert(key, step);
                    }
                    (None, false) => prop_assert!(!model.contains_key(&key)),
                    (Some(number), true) => {
                        prop_assert_eq!(slots.get(number).map(|entry| entry.1), model.get(&key).copied());
                    }
                    (Some(number), false) => {
                        let removed = slots.remove(number, hash(key), |entry| hash(entry.0));
                        prop_assert_eq!(Some(removed.1), model.remove(&key));
                    }
                }
            }
            let all: BTreeMap<u8, usize> = slots.iter().copied().collect();
            prop_assert_eq!(&all, &model);
            for (key, step) in model {
                let number = slots.find(hash(key), |entry| entry.0 == key);
                prop_assert_eq!(number.and_then(|number| slots.get(number)), Some(&(key, step)));
                prop_assert!(slots.all(hash(key)).any(|found| Some(found) == number));
            }
        }
    }
}
