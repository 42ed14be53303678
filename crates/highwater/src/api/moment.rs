//! State of a key at a moment: windows by their begin, timers by their time.

use highwater_codec::hash_key;
use highwater_runtime::Data;
use highwater_state::Hashing;

/// Hashes entries by key and moment. The key's hash is mostly known, and needn't be computed again for each of its moments.
pub(super) struct ByMoment;

impl<K: Data> Hashing<(K, i64)> for ByMoment {
    #[inline]
    fn group(place: &(K, i64)) -> u64 {
        hash_key(&place.0)
            .expect("a key was hashed when it was grouped, and must be hashable ever after")
    }
    #[inline]
    fn lookup(place: &(K, i64)) -> u64 {
        lookup(Self::group(place), place.1)
    }
    #[inline]
    fn both(place: &(K, i64)) -> (u64, u64) {
        let hash = Self::group(place);
        (hash, lookup(hash, place.1))
    }
}

/// The hash that finds a moment of a key with this hash.
#[inline]
pub(super) fn lookup(hash: u64, moment: i64) -> u64 {
    hash ^ (moment as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32)
}
