//! Timers of each key: moments at which a process function is called without a record.
//!
//! A timer is an entry of a state: set once however often it is set, and deleted like any entry. Beside the entries stands a list by time
//! ([`Due`]), which is derived from them, so that the end of an epoch costs as much as there are timers due, however many are
//! held. What was deleted stays on the list until its time comes or it is tidied up.

use std::fmt;
use std::ops::Range;

use highwater_codec::hash_key;
use highwater_runtime::Data;
use highwater_state::{AHEAD, KeyGroups, KeyedTable, Kind, Spot, StateTable};

use super::states::ProcessTable;
use super::{Context, Process};
use crate::api::due::Due;
use crate::api::moment::{ByMoment, lookup};
use crate::api::time::Timestamp;

/// The handle of timers of each key; see [`States::event_timers`](super::States::event_timers) and
/// [`States::clock_timers`](super::States::clock_timers).
///
/// Its methods act on the present key. A key may have any number of timers, at different times; when one is due it is gone, and
/// [`Process::timer`] is called.
///
/// # Panics
///
/// Every method panics when it is given the context of another process function than the one that declared the handle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    index: usize,
}

impl Timers {
    pub(super) fn new(index: usize) -> Self {
        Timers { index }
    }

    /// Sets a timer, if there isn't one at this time already. One whose time has passed is due at the end of the present epoch.
    ///
    /// At the end of all sources event time comes to its end, and all event timers are due; those that are set by a timer then never are, and
    /// setting them does nothing.
    pub fn set<P: Process>(&self, cx: &mut Context<P>, at: impl Into<Timestamp>) {
        let at = at.into().as_ms();
        if cx.has_time_ended() && self.by(cx) == By::EventTime {
            return;
        }
        let (table, hash, key) = cx.state_mut::<TimerTable<P::Key>>(self.index);
        table.set(hash, key, at);
    }

    /// Deletes the timer at this time, if there is one. Answers whether there was.
    pub fn delete<P: Process>(&self, cx: &mut Context<P>, at: impl Into<Timestamp>) -> bool {
        let place_at = at.into().as_ms();
        let (table, hash, key) = cx.state_mut::<TimerTable<P::Key>>(self.index);
        table.remove(hash, &(key.clone(), place_at))
    }

    /// Whether there is a timer at this time.
    pub fn contains<P: Process>(&self, cx: &Context<P>, at: impl Into<Timestamp>) -> bool {
        let (table, hash, key) = cx.state::<TimerTable<P::Key>>(self.index);
        table.has(hash, &(key.clone(), at.into().as_ms()))
    }

    fn by<P: Process>(&self, cx: &Context<P>) -> By {
        cx.state::<TimerTable<P::Key>>(self.index).0.by
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timers({})", self.index)
    }
}

/// What timers go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum By {
    /// The watermark.
    EventTime,
    /// The engine's clock.
    Clock,
}

/// So many more timers than there are may be on the list without anybody minding.
const FEW: usize = 1024;

/// So many timers on the list are looked at again at the end of an epoch, at least.
const TIDIED: usize = 4096;

/// The state behind it.
pub(super) struct TimerTable<K> {
    pub(super) by: By,
    timers: KeyedTable<(K, i64), (), ByMoment>,
    /// With the hash of each key.
    due: Due<(u64, K)>,
    /// How many were deleted in the present epoch.
    deleted: usize,
    /// Where the next timers were seen that are due, and which of them is the next.
    spots: [Spot; AHEAD],
    turn: usize,
}

impl<K: Data + Eq> TimerTable<K> {
    pub(super) fn new(name: &str, by: By, key_groups: KeyGroups, groups: Range<u32>) -> Self {
        let timers = KeyedTable::new(name, Kind::Timer, key_groups, groups);
        TimerTable {
            by,
            timers,
            due: Due::default(),
            deleted: 0,
            spots: [Spot::default(); AHEAD],
            turn: 0,
        }
    }

    fn has(&self, hash: u64, place: &(K, i64)) -> bool {
        self.timers.get_hashed(hash, lookup(hash, place.1), place).is_some()
    }

    fn set(&mut self, hash: u64, key: &K, at: i64) {
        let place = (key.clone(), at);
        // One that is there is left alone: it needn't be written to the next checkpoint again.
        if self.timers.insert_hashed(hash, lookup(hash, at), place, || ()) {
            self.due.push(at, (hash, key.clone()));
        }
    }

    fn remove(&mut self, hash: u64, place: &(K, i64)) -> bool {
        let was_there = self.timers.remove_hashed(hash, lookup(hash, place.1), place).is_some();
        self.deleted += usize::from(was_there);
        was_there
    }

    /// Looks for the next timers; answers the hashes of their keys.
    pub(super) fn look_ahead_due(&mut self, now: i64) -> Vec<u64> {
        let soon = self.due.soon(now).take(AHEAD);
        let places = soon.clone().map(|(at, (hash, _))| (*hash, lookup(*hash, *at)));
        (self.spots, self.turn) = (self.timers.look_ahead(places), 0);
        soon.map(|(_, (hash, _))| *hash).collect()
    }

    /// When the next timer is due, if any is by now.
    pub(super) fn next(&mut self, now: i64) -> Option<i64> {
        while let Some((at, (hash, key))) = self.due.next(now) {
            let (at, place) = (*at, (key.clone(), *at));
            let spot = self.spots[self.turn];
            if self.timers.get_at(spot, *hash, lookup(*hash, at), &place).is_some() {
                return Some(at);
            }
            self.pop(now);
        }
        None
    }

    /// Takes the timer that [`next`](Self::next) told of: its key, and the key's hash.
    pub(super) fn take(&mut self, now: i64) -> Option<(u64, K)> {
        let spot = self.spots[self.turn];
        let (at, (hash, key)) = self.pop(now)?;
        let place = (key, at);
        let taken = self.timers.remove_at(spot, hash, lookup(hash, at), &place);
        debug_assert!(taken.is_some(), "it was there a moment ago");
        Some((hash, place.0))
    }

    fn pop(&mut self, now: i64) -> Option<(i64, (u64, K))> {
        self.turn = (self.turn + 1) % AHEAD;
        self.due.pop(now)
    }

    /// Takes some of what was deleted off the list, if it is a good part of it: as much as was put there meanwhile, and some more, so that the
    /// list is never much longer than there are timers.
    pub(super) fn tidy(&mut self) {
        // Counted anew in each epoch: all that was deleted before would be looked for at once, and hold up that epoch's end.
        let deleted = std::mem::take(&mut self.deleted);
        if self.due.len() < 2 * self.timers.len() as usize + FEW {
            return;
        }
        let looked_at = TIDIED + 3 * deleted;
        let timers = &self.timers;
        self.due.tidy(looked_at, |bucket| {
            // What was deleted and set again is there twice.
            bucket.sort_unstable_by_key(|(at, (hash, _))| (*at, *hash));
            bucket.dedup();
            bucket.retain(|(at, (hash, key))| {
                timers.get_hashed(*hash, lookup(*hash, *at), &(key.clone(), *at)).is_some()
            });
            bucket.shrink_to_fit();
        });
    }
}

impl<K: Data + Eq> ProcessTable for TimerTable<K> {
    fn state_tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.timers]
    }

    fn restored(&mut self) {
        for group in 0..self.timers.group_count() {
            for ((key, at), ()) in self.timers.group_entries(group) {
                let hash = hash_key(key).expect("a key that was stored can be hashed");
                self.due.push(*at, (hash, key.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde::{Deserialize, Serialize};

    use super::*;

    thread_local! {
        static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }
    /// Whoever looks at a timer compares its key, copies it or hashes it.
    #[derive(Debug, Eq, Serialize, Deserialize)]
    struct Watched(u64);
    impl PartialEq for Watched {
        fn eq(&self, other: &Self) -> bool {
            LOOKED_AT.set(LOOKED_AT.get() + 1);
            self.0 == other.0
        }
    }
    impl Clone for Watched {
        fn clone(&self) -> Self {
            LOOKED_AT.set(LOOKED_AT.get() + 1);
            Watched(self.0)
        }
    }

    /// A key whose timer is put off by every record, as one that waits for silence does.
    #[test]
    fn what_is_put_off_again_and_again_leaves_little_behind() {
        let groups = KeyGroups::default();
        let mut table: TimerTable<u64> =
            TimerTable::new("silent", By::EventTime, groups, groups.range(0, 1));
        table.timers.begin(1, true);
        let keys = 1_000;
        for round in 0..200 {
            for key in 0..keys {
                let hash = hash_key(&key).unwrap();
                table.remove(hash, &(key, round * 10));
                table.set(hash, &key, (round + 1) * 10);
                // Of one that comes again at the same time nothing is left twice, either.
                table.remove(hash, &(key, (round + 1) * 10));
                table.set(hash, &key, (round + 1) * 10);
            }
            assert_eq!(table.next(0), None);
            table.tidy();
            assert!(table.due.len() < 10_000, "{} are listed", table.due.len());
        }
        let mut called = 0;
        while table.next(2_000).is_some() {
            assert!(table.take(2_000).is_some());
            called += 1;
        }
        assert_eq!((called, table.due.len()), (keys, 0));
    }

    /// Many timers are held, nearly all of which are due much later: the end of an epoch looks at those that are due.
    #[test]
    fn the_end_of_an_epoch_costs_what_is_due() {
        let groups = KeyGroups::default();
        let mut table: TimerTable<Watched> =
            TimerTable::new("held", By::EventTime, groups, groups.range(0, 1));
        table.timers.begin(1, true);
        let held = 300_000;
        // A few are due in each of the next milliseconds, and in that bucket of the list there are many more; the others are due later.
        for key in 0..held {
            let at = if key % 100 == 0 { key as i64 / 100 % 64 } else { 1_000 + key as i64 };
            table.set(hash_key(&key).unwrap(), &Watched(key), at);
        }
        let (mut called, mut most_each) = (0, 0.0_f64);
        for now in 0..64 {
            LOOKED_AT.set(0);
            let mut due = 0;
            while table.next(now).is_some() {
                assert!(table.take(now).is_some());
                due += 1;
            }
            table.tidy();
            called += due;
            most_each = most_each.max(LOOKED_AT.get() as f64 / (due + 1) as f64);
        }
        assert_eq!((called, table.due.len()), (held as usize / 100, held as usize / 100 * 99));
        assert!(most_each < 10.0, "{most_each} looks for each timer that is due");
    }

    /// However long nothing had to be tidied up, no epoch makes up for it all at once.
    #[test]
    fn the_end_of_an_epoch_costs_what_is_put_off() {
        let groups = KeyGroups::default();
        let mut table: TimerTable<Watched> =
            TimerTable::new("held", By::EventTime, groups, groups.range(0, 1));
        table.timers.begin(1, true);
        let (held, each) = (30_000_u64, 100);
        // Far enough from each other to be in different buckets of the list.
        let at = |key: u64, round: u64| ((round * held + key) * 100) as i64;
        for key in 0..held {
            table.set(hash_key(&key).unwrap(), &Watched(key), at(key, 0));
        }
        let (mut most, mut longest) = (0, 0);
        for round in 0..4 {
            for first in (0..held).step_by(each) {
                for key in first..first + each as u64 {
                    let hash = hash_key(&key).unwrap();
                    table.remove(hash, &(Watched(key), at(key, round)));
                    table.set(hash, &Watched(key), at(key, round + 1));
                }
                LOOKED_AT.set(0);
                table.tidy();
                (most, longest) = (most.max(LOOKED_AT.get()), longest.max(table.due.len()));
            }
        }
        assert!(longest < 3 * held as usize, "{longest} are listed for {held} timers");
        assert!(
            most < 50 * each,
            "{most} looks at the end of an epoch in which {each} were put off"
        );
    }
}
