//! The rows of one side of an interval join that may still be matched.
//!
//! ```text
//! time         0        10        20        30        40
//! buckets      |---------|---------|---------|---------|      a quarter of the interval long; each bucket of a key is an entry
//! a row of the other side at 14, from -5 to 15:
//!                     |==================|                    looks at the buckets that the interval touches, five or some more
//! ```
//!
//! A bucket is forgotten as a whole, when the watermark has passed everything that its last moment could match: so rows leave state without being written
//! again, and a checkpoint holds the buckets that have changed.

use std::ops::RangeInclusive;

use highwater_codec::hash_key;
use highwater_runtime::{Data, OperatorContext};
use highwater_state::{AHEAD, KeyedTable, Kind, Spot, StateTable, prefetch};
use serde::{Deserialize, Serialize};

use crate::api::due::Due;
use crate::api::few::Few;
use crate::api::moment::{ByMoment, lookup};

/// How long after a row of the left side the rows of the right side happen that it is joined with, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) lower: i64,
    pub(super) upper: i64,
}

impl Bounds {
    /// At the same time.
    pub(super) const POINT: Bounds = Bounds { lower: 0, upper: 0 };

    /// Bounds, or why there can't be any.
    pub(super) fn new(lower: i64, upper: i64) -> Result<Self, String> {
        // Far from where adding them to a time would say nothing.
        const FAR: i64 = i64::MAX / 8;
        if lower > upper {
            return Err(format!(
                "an interval from {lower} ms to {upper} ms ends before it begins: swap the bounds"
            ));
        }
        if lower < -FAR || upper > FAR {
            return Err("an interval without an end would keep every record for ever: bound it on both sides".to_owned());
        }
        Ok(Bounds { lower, upper })
    }

    /// As the right side sees it.
    pub(super) fn mirrored(self) -> Self {
        Bounds { lower: -self.upper, upper: -self.lower }
    }

    /// How long a bucket is.
    fn bucket_ms(self) -> i64 {
        ((self.upper - self.lower + 1) / 4).max(1)
    }

    /// The last moment at which something can come that matches a row at `time`, or another row at that time.
    fn last(self, time: i64) -> i64 {
        time.saturating_add(self.upper.max(0))
    }

    /// The first moment at which a row at `time` is of no use any more.
    fn over_at(self, time: i64) -> i64 {
        self.last(time).saturating_add(1)
    }

    fn bucket_over_at(self, bucket: i64) -> i64 {
        let next = bucket.saturating_add(1).saturating_mul(self.bucket_ms());
        self.over_at(next.saturating_sub(1))
    }
}

/// An interval touches no more buckets than that: five if a quarter of it is a whole number of milliseconds, and seven if it is seven
/// milliseconds long.
const TOUCHED: usize = 7;

/// Where buckets were seen: a row's own, and those of the other side that its interval touches.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    own: Spot,
    others: [Spot; TOUCHED],
}

/// A row that waits for others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "V: Data")]
pub(super) struct Waiting<V> {
    time: i64,
    pub(super) value: V,
    /// It was joined with another; noted only where rows that match none are told of.
    is_matched: bool,
}

/// A bucket of a key.
#[derive(Clone, Debug)]
pub(super) struct Listed<K> {
    hash: u64,
    key: K,
    bucket: i64,
}

/// The rows of one side.
pub(super) struct Rows<K, V> {
    /// How long after a row of this side the rows of the other side happen that it matches.
    bounds: Bounds,
    /// By bucket; the rows of each in the order of their times.
    buckets: KeyedTable<(K, i64), Few<Waiting<V>>, ByMoment>,
    /// Buckets, by the time from which on they are of no use.
    over: Due<Listed<K>>,
    /// The times of rows that are told of if they match none, by when that is known. None if they aren't.
    alone: Option<Due<(Listed<K>, i64)>>,
}

impl<K: Data + Eq, V: Data> Rows<K, V> {
    pub(super) fn new(
        name: &str,
        context: &OperatorContext,
        bounds: Bounds,
        tells_alone: bool,
    ) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        Rows {
            bounds,
            buckets: KeyedTable::new(name, Kind::MapEntry, key_groups, groups),
            over: Due::default(),
            alone: tells_alone.then(Due::default),
        }
    }

    fn bucket_of(&self, time: i64) -> i64 {
        time.div_euclid(self.bounds.bucket_ms())
    }

    /// The times of rows of the other side that one at this time matches.
    #[inline]
    fn around(&self, time: i64) -> RangeInclusive<i64> {
        time.saturating_add(self.bounds.lower)..=time.saturating_add(self.bounds.upper)
    }

    /// The buckets in which times are.
    #[inline]
    fn buckets_of(&self, times: &RangeInclusive<i64>) -> RangeInclusive<i64> {
        self.bucket_of(*times.start())..=self.bucket_of(*times.end())
    }

    /// Looks for the bucket of a row of this side, and for those of the other side that it touches.
    #[inline]
    pub(super) fn look_ahead<W: Data>(&self, other: &Rows<K, W>, hash: u64, time: i64) -> Seen {
        let mut others = [Spot::default(); TOUCHED];
        for (spot, bucket) in others.iter_mut().zip(other.buckets_of(&self.around(time))) {
            *spot = other.buckets.spot(hash, lookup(hash, bucket));
        }
        Seen { own: self.buckets.spot(hash, lookup(hash, self.bucket_of(time))), others }
    }

    /// Has what these buckets hold brought into the caches, too.
    #[inline]
    pub(super) fn prefetch<W: Data>(&self, other: &Rows<K, W>, hash: u64, seen: &Seen) {
        self.prefetch_ends(hash, &[seen.own]);
        other.prefetch_ends(hash, &seen.others);
    }

    /// The ends of what buckets hold, which is elsewhere in memory if it is more than a row.
    #[inline]
    fn prefetch_ends(&self, hash: u64, spots: &[Spot]) {
        let buckets = spots.iter().filter_map(|spot| self.buckets.glance(*spot, hash));
        buckets.flat_map(|rows| rows.first().into_iter().chain(rows.last())).for_each(prefetch);
    }

    /// Joins a row with those of the other side that are there, and keeps it for those that come. Each pair is shown to `found`, with its key and its time.
    /// Answers how many there are.
    pub(super) fn meet<W: Data>(
        &mut self,
        other: &mut Rows<K, W>,
        (hash, key): (u64, K),
        time: i64,
        value: V,
        seen: Seen,
        mut found: impl FnMut(&K, i64, &V, &W),
    ) -> usize {
        let (times, place) = (self.around(time), (hash, key));
        let (key, pairs) = other.matching(place, times, seen.others, |key, at, matched| {
            found(key, time.max(at), &value, matched);
        });
        self.put((hash, key), seen.own, time, value, pairs > 0);
        pairs
    }

    /// Looks for the buckets that are over next.
    pub(super) fn look_ahead_over(&mut self, watermark: i64) {
        for (_, Listed { hash, bucket, .. }) in self.over.soon(watermark).take(AHEAD) {
            self.buckets.spot(*hash, lookup(*hash, *bucket));
        }
    }

    /// Keeps a row, which has been joined already or not; its bucket was looked for.
    fn put(&mut self, (hash, key): (u64, K), spot: Spot, time: i64, value: V, is_matched: bool) {
        let bucket = self.bucket_of(time);
        let place = (key, bucket);
        let entry = self.buckets.upsert_at(spot, hash, lookup(hash, bucket), place, Few::new);
        let (key, rows) = (&entry.key.0, entry.value);
        let at = rows.partition_point(|row| row.time <= time);
        let is_first = rows.is_empty();
        let is_alone = at == 0 || rows[at - 1].time < time;
        rows.insert(at, Waiting { time, value, is_matched });
        let over_at = self.bounds.over_at(time);
        let listed = || Listed { hash, key: key.clone(), bucket };
        if is_first {
            let bucket_over_at = self.bounds.bucket_over_at(bucket);
            self.over.push(bucket_over_at, listed());
        }
        // Rows of the same time are told of together, when no more can come.
        if let Some(alone) = self.alone.as_mut().filter(|_| is_alone) {
            alone.push(over_at, (listed(), time));
        }
    }

    /// The rows of a key at these times, whose buckets were looked for, and which a row of the other side matches; notes that they are matched. Gives the key back, and how many there are.
    fn matching(
        &mut self,
        (hash, key): (u64, K),
        times: RangeInclusive<i64>,
        spots: [Spot; TOUCHED],
        mut found: impl FnMut(&K, i64, &V),
    ) -> (K, usize) {
        let (mut place, mut count) = ((key, 0), 0);
        let buckets = self.buckets_of(&times);
        debug_assert!(buckets.clone().count() <= TOUCHED, "all of them were looked for");
        for (bucket, spot) in buckets.zip(spots) {
            place.1 = bucket;
            let lookup = lookup(hash, bucket);
            let Some(rows) = self.buckets.get_at(spot, hash, lookup, &place) else { continue };
            let from = rows.partition_point(|row| row.time < *times.start());
            let to = rows.partition_point(|row| row.time <= *times.end());
            rows[from..to].iter().for_each(|row| found(&place.0, row.time, &row.value));
            count += to - from;
            let are_matched = || rows[from..to].iter().all(|row| row.is_matched);
            if self.alone.is_some() && !are_matched() {
                let there = || unreachable!("it was there just now");
                let entry = self.buckets.upsert_at(spot, hash, lookup, place.clone(), there);
                entry.value[from..to].iter_mut().for_each(|row| row.is_matched = true);
            }
        }
        (place.0, count)
    }

    /// After a restart: what was told of by the watermark `before` isn't told of again.
    pub(super) fn forget_told(&mut self, before: i64) {
        if let Some(alone) = &mut self.alone {
            while alone.pop(before).is_some() {}
        }
    }

    /// The next rows that match none for certain: hands their key, the time at which that is known, and each of them to `found`. Answers whether there was
    /// anything to look at.
    pub(super) fn next_alone(
        &mut self,
        watermark: i64,
        mut found: impl FnMut(&K, i64, &V),
    ) -> bool {
        let Some((listed, time)) =
            self.alone.as_mut().and_then(|alone| alone.pop(watermark)).map(|(_, row)| row)
        else {
            return false;
        };
        let Listed { hash, key, bucket } = listed;
        let known_at = self.bounds.last(time);
        let place = (key, bucket);
        if let Some(rows) = self.buckets.get_hashed(hash, lookup(hash, bucket), &place) {
            let from = rows.partition_point(|row| row.time < time);
            let same = rows[from..].iter().take_while(|row| row.time == time);
            let alone = same.filter(|row| !row.is_matched);
            alone.for_each(|row| found(&place.0, known_at, &row.value));
        }
        true
    }

    /// Forgets the next bucket that is of no use any more. Answers whether there was one.
    pub(super) fn forget_one(&mut self, watermark: i64) -> bool {
        let Some((_, Listed { hash, key, bucket })) = self.over.pop(watermark) else {
            return false;
        };
        self.buckets.remove_hashed(hash, lookup(hash, bucket), &(key, bucket));
        true
    }

    pub(super) fn table(&mut self) -> &mut dyn StateTable {
        &mut self.buckets
    }

    /// Lists what was read back.
    pub(super) fn restored(&mut self) {
        let Rows { bounds, buckets, over, alone } = self;
        for group in 0..buckets.group_count() {
            for ((key, bucket), rows) in buckets.group_entries(group) {
                let hash = hash_key(key).expect("a key that was stored can be hashed");
                let listed = Listed { hash, key: key.clone(), bucket: *bucket };
                if let Some(alone) = alone {
                    let mut times: Vec<i64> = rows.iter().map(|row| row.time).collect();
                    times.dedup();
                    for time in times {
                        alone.push(bounds.over_at(time), (listed.clone(), time));
                    }
                }
                over.push(bounds.bucket_over_at(*bucket), listed);
            }
        }
    }
}
