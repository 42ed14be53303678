//! Looking for entries ahead of their use.
//!
//! Most entries of a large table aren't in the caches. Whoever looks for one, changes it, and then looks for the next waits for memory each
//! time; searches that are made one behind the other wait together. So whoever has rows of many keys looks for some of them first, and
//! keeps the spots that were found:
//!
//! ```text
//! look_ahead(64 hashes) ──▶ 64 spots, whose entries are on their way into the caches
//! upsert_at(spot, ...)  ──▶ the entry there, if its key is this one; else the search is made again
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Hashing, KeyedTable, home};

/// So many entries are looked for at once: enough for their waits to overlap, and few enough to be in the nearest cache together.
pub const AHEAD: usize = 64;

/// Bytes of a line of the caches, of most processors.
const LINE: usize = 64;

/// Where an entry was seen, within its key group. It may be another's, or nobody's, by the time of its use: entries come, go and move.
#[derive(Clone, Copy, Debug)]
pub struct Spot(u32);

impl Spot {
    /// None was seen.
    pub(super) const UNKNOWN: Spot = Spot(u32::MAX);

    #[inline]
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl Default for Spot {
    fn default() -> Self {
        Spot::UNKNOWN
    }
}

impl<K, V, H> KeyedTable<K, V, H>
where
    K: Clone + Eq + Serialize + DeserializeOwned + 'static,
    V: Clone + Serialize + DeserializeOwned + 'static,
    H: Hashing<K>,
{
    /// Looks for the entries of at most [`AHEAD`] keys with these hashes (for their groups and for being found), and has those that seem to
    /// be there brought into the caches.
    #[inline]
    pub fn look_ahead(&self, hashes: impl Iterator<Item = (u64, u64)>) -> [Spot; AHEAD] {
        let mut spots = [Spot::UNKNOWN; AHEAD];
        for (spot, (group, lookup)) in spots.iter_mut().zip(hashes) {
            *spot = self.spot(group, lookup);
        }
        spots
    }

    /// Looks for the entry of one key, as [`look_ahead`](Self::look_ahead) does; whoever does so with some keys, and then uses what was seen, waits
    /// once.
    #[inline]
    pub fn spot(&self, group: u64, lookup: u64) -> Spot {
        let slots = &self.groups[self.group_index(group)].slots;
        // The first whose tag fits is nearly always the one. To compare its key would be to wait for it.
        let Some(at) = slots.find_bucket_index(home(lookup), |_| true) else {
            return Spot::UNKNOWN;
        };
        slots.get_bucket(at).into_iter().for_each(prefetch);
        Spot(at as u32)
    }

    /// The value at a spot, whosever it is: for what it has elsewhere in memory to be brought into the caches, too.
    #[inline]
    pub fn glance(&self, spot: Spot, group: u64) -> Option<&V> {
        let slots = &self.groups[self.group_index(group)].slots;
        slots.get_bucket(spot.index()).map(|slot| &slot.value)
    }
}

/// Has a value brought into the caches, without waiting for it. Nothing but time depends on it.
#[inline]
pub fn prefetch<T>(value: &T) {
    fetch_from(value, 0);
}

/// Does so with the place behind a value, where another may be put.
#[inline]
pub fn prefetch_behind<T>(value: &T) {
    fetch_from(value, size_of::<T>());
}

/// All lines of the caches in which there are bytes of a `T` that begins so far behind `value`.
#[inline]
fn fetch_from<T>(value: &T, offset: usize) {
    for byte in (0..size_of::<T>()).step_by(LINE) {
        fetch(value, offset + byte);
    }
    fetch(value, offset + size_of::<T>().saturating_sub(1));
}

#[inline]
fn fetch<T>(value: &T, offset: usize) {
    let address = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint. It never faults, whatever the address, and the program sees nothing of it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
