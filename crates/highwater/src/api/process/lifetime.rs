//! States whose entries come to an end: how long they live, and how they go without anybody waiting for it.
//!
//! When an entry was last touched is a state of its own (`name.touched`), beside the values, which are stored as if they lived for ever. So a
//! lifetime can be given and changed from one version of a job to the next: it counts from the times that are stored, and entries
//! without one are touched when the job begins. One that was given isn't left out any more ([`Ttl::never`] instead), or times would be missing later.
//!
//! ```text
//! set ─▶ value, touched = now, listed for now + ttl          get: nothing, from touched + ttl on
//! end of an epoch: at most some of those that are listed for now are looked at ─▶ removed, or listed for later
//! ```
//!
//! # Invariants
//!
//! - An entry whose time is over is never seen, whether or not it is still there.
//! - Every entry that has an end is listed, for no later than that.
//! - What is done at the end of an epoch is bounded, however much ends at once.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use highwater_runtime::Data;
use highwater_state::{Hashing, KeyGroups, KeyedTable, Kind, StateTable};

use super::timers::By;
use crate::api::due::Due;
use crate::api::time::as_ms;

/// How long the entries of a state live; see [`States::ttl`](super::States::ttl).
///
/// ```text
/// after_write(10)    set at 0   get at 6: there   get at 9: there   get at 10: gone
/// after_access(10)   set at 0   get at 6: there   get at 15: there  get at 25: gone
/// ```
///
/// States without one live for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// None is for ever.
    length: Option<Duration>,
    on_read: bool,
    by: By,
}

impl Ttl {
    /// An entry lives so long after it was last written, by the engine's clock.
    #[must_use]
    pub fn after_write(length: Duration) -> Self {
        Ttl { length: Some(length), on_read: false, by: By::Clock }
    }

    /// An entry lives so long after it was last written or read.
    ///
    /// Whatever is read is then written to the next checkpoint, too, with the time. To ask how many there are, or whether there is one, isn't
    /// reading.
    #[must_use]
    pub fn after_access(length: Duration) -> Self {
        Ttl { on_read: true, ..Ttl::after_write(length) }
    }

    /// An entry lives for ever; when it was last written is noted all the same, for a lifetime that was there before, or that is to come.
    ///
    /// A state that had a lifetime once is always declared with one, or the job is refused.
    #[must_use]
    pub fn never() -> Self {
        Ttl { length: None, on_read: false, by: By::Clock }
    }

    /// It goes by event time: an entry is touched at the time of the record or timer that does it, and gone when the watermark has come
    /// to its end.
    #[must_use]
    pub fn by_event_time(self) -> Self {
        Ttl { by: By::EventTime, ..self }
    }

    /// Whether nothing comes to its end.
    pub(in crate::api) fn is_endless(self) -> bool {
        self.length.is_none_or(|length| as_ms(length) == i64::MAX)
    }

    /// What it goes by.
    pub(super) fn goes_by(self) -> By {
        self.by
    }

    /// Why there can't be such a lifetime.
    pub(super) fn check(self) -> Result<(), String> {
        match self.length {
            Some(length) if as_ms(length) == 0 => Err(format!(
                "states must live for a millisecond or more, and these live for {length:?}"
            )),
            _ => Ok(()),
        }
    }
}

/// The present, as far as lifetimes depend on it.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Instant {
    pub(in crate::api) clock: Option<i64>,
    pub(in crate::api) watermark: Option<i64>,
    /// Of the record or timer.
    pub(in crate::api) time: Option<i64>,
}

/// So many entries are looked at at the end of an epoch.
const CLEANED: usize = 4096;

/// So many more entries than there are may be listed without anybody minding.
const FEW: usize = 1024;

/// A place in a table, and its hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct Placed<Q> {
    pub(in crate::api) group: u64,
    pub(in crate::api) lookup: u64,
    pub(in crate::api) place: Q,
}

/// When each entry of a state was last touched.
pub(in crate::api) struct Lifetimes<Q, H> {
    ttl: Ttl,
    /// In milliseconds; none is for ever.
    length: Option<i64>,
    /// Written where the state is only read, too.
    touched: RefCell<KeyedTable<Q, i64, H>>,
    due: Due<Placed<Q>>,
    /// Entries without a time, which live until they are given one.
    timeless: Vec<Placed<Q>>,
    /// How many were forgotten in the present epoch.
    forgotten: usize,
}

impl<Q: Data + Eq, H: Hashing<Q>> Lifetimes<Q, H> {
    pub(in crate::api) fn new(
        name: &str,
        ttl: Ttl,
        key_groups: KeyGroups,
        groups: Range<u32>,
    ) -> Self {
        let name = format!("{name}.touched");
        Lifetimes {
            ttl,
            length: ttl.length.map(as_ms),
            touched: RefCell::new(KeyedTable::new(&name, Kind::Lifetime, key_groups, groups)),
            due: Due::default(),
            timeless: Vec::new(),
            forgotten: 0,
        }
    }

    pub(in crate::api) fn state_table(&mut self) -> &mut dyn StateTable {
        self.touched.get_mut()
    }

    /// When an entry comes to its end that was touched then; none if it never does.
    fn end(&self, touched: i64) -> Option<i64> {
        self.length.map(|length| touched.saturating_add(length))
    }

    fn now(&self, instant: Instant) -> Option<i64> {
        match self.ttl.by {
            By::Clock => instant.clock,
            By::EventTime => instant.watermark,
        }
    }

    /// When an entry is touched that is touched now.
    fn touch_time(&self, instant: Instant) -> Option<i64> {
        match self.ttl.by {
            By::Clock => instant.clock,
            By::EventTime => instant.time.or(instant.watermark),
        }
    }

    /// Whether an entry that is there is to be seen.
    pub(in crate::api) fn is_alive(
        &self,
        group: u64,
        lookup: u64,
        place: &Q,
        instant: Instant,
    ) -> bool {
        let touched = self.touched.borrow();
        let touched = touched.get_hashed(group, lookup, place);
        match (touched.and_then(|touched| self.end(*touched)), self.now(instant)) {
            (Some(end), Some(now)) => end > now,
            _ => true,
        }
    }

    /// An entry that is alive is read.
    pub(in crate::api) fn read(&self, group: u64, lookup: u64, place: &Q, instant: Instant) {
        let Some(at) = self.touch_time(instant).filter(|_| self.ttl.on_read) else { return };
        let mut touched = self.touched.borrow_mut();
        if touched.get_hashed(group, lookup, place).is_some_and(|touched| *touched < at) {
            *touched.upsert_hashed(group, lookup, place.clone(), || at).value = at;
        }
    }

    /// An entry is written.
    pub(in crate::api) fn write(&mut self, spot: Placed<Q>, instant: Instant) {
        match self.touch_time(instant) {
            Some(at) => self.touch(spot, at),
            None => self.timeless.push(spot),
        }
    }

    fn touch(&mut self, spot: Placed<Q>, at: i64) {
        let Placed { group, lookup, ref place } = spot;
        let touched = self.touched.get_mut();
        match touched.get_hashed(group, lookup, place) {
            Some(touched) if *touched >= at => {}
            Some(_) => *touched.upsert_hashed(group, lookup, spot.place, || at).value = at,
            None => {
                touched.upsert_hashed(group, lookup, place.clone(), || at);
                if let Some(end) = self.end(at) {
                    self.due.push(end, spot);
                }
            }
        }
    }

    /// An entry is removed.
    pub(in crate::api) fn forget(&mut self, group: u64, lookup: u64, place: &Q) {
        if self.touched.get_mut().remove_hashed(group, lookup, place).is_some() {
            self.forgotten += 1;
        }
    }

    /// Touches entries without a time, some at the end of each epoch, as soon as there is one. `is_there` says which of them haven't been removed.
    pub(in crate::api) fn give_times(
        &mut self,
        instant: Instant,
        is_there: impl Fn(&Placed<Q>) -> bool,
    ) {
        let Some(now) = self.now(instant) else { return };
        let some = self.timeless.len().saturating_sub(CLEANED);
        for spot in self.timeless.split_off(some) {
            if is_there(&spot) {
                self.touch(spot, now);
            }
        }
    }

    /// Finds entries whose time is over, some at the end of each epoch, and has them removed.
    pub(in crate::api) fn clean(&mut self, instant: Instant, mut remove: impl FnMut(&Placed<Q>)) {
        let Some(now) = self.now(instant) else { return };
        for _ in 0..CLEANED {
            let Some((_, spot)) = self.due.pop(now) else { break };
            let touched = self.touched.get_mut();
            let found = touched.get_hashed(spot.group, spot.lookup, &spot.place).copied();
            let Some(end) = found.and_then(|touched| self.end(touched)) else { continue };
            if end > now {
                self.due.push(end, spot);
            } else {
                self.touched.get_mut().remove_hashed(spot.group, spot.lookup, &spot.place);
                remove(&spot);
            }
        }
        self.tidy();
    }

    /// Takes some of what was forgotten off the list, if it is a good part of it: as much as was forgotten in this epoch, and some more.
    fn tidy(&mut self) {
        let forgotten = std::mem::take(&mut self.forgotten);
        let touched = self.touched.get_mut();
        if self.due.len() < 2 * touched.len() as usize + FEW {
            return;
        }
        let looked_at = CLEANED + 3 * forgotten;
        let (length, mut later) = (self.length, Vec::new());
        self.due.tidy(looked_at, |bucket| {
            // What was forgotten and written again is there twice, or will be as soon as both are listed for its end.
            bucket.sort_unstable_by_key(|(at, spot)| (*at, spot.lookup));
            bucket.dedup();
            bucket.retain(|(at, spot)| {
                let found = touched.get_hashed(spot.group, spot.lookup, &spot.place);
                let Some((touched, length)) = found.zip(length) else { return false };
                let end = touched.saturating_add(length);
                if end > *at {
                    later.push((end, spot.clone()));
                }
                end <= *at
            });
            bucket.shrink_to_fit();
        });
        later.into_iter().for_each(|(end, spot)| self.due.push(end, spot));
    }

    /// Both tables were read back; `places` are the entries of the state.
    pub(in crate::api) fn restored<'q>(&mut self, places: impl Iterator<Item = &'q Q>)
    where
        Q: 'q,
    {
        let placed = |place: &Q| {
            let (group, lookup) = H::both(place);
            Placed { group, lookup, place: place.clone() }
        };
        let touched = self.touched.get_mut();
        for group in 0..touched.group_count() {
            for (place, touched) in touched.group_entries(group) {
                if let Some(length) = self.length {
                    self.due.push(touched.saturating_add(length), placed(place));
                }
            }
        }
        let is_timeless =
            |spot: &Placed<Q>| touched.get_hashed(spot.group, spot.lookup, &spot.place).is_none();
        self.timeless = places.map(placed).filter(is_timeless).collect();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use highwater_state::ByKey;
    use serde::{Deserialize, Serialize};

    use super::*;

    /// What lives for ever is on no list, and is still there at the end of time.
    #[test]
    fn what_has_no_end_is_not_listed() {
        let groups = KeyGroups::default();
        let ttl = Ttl::never().by_event_time();
        let mut lifetimes: Lifetimes<u64, ByKey> =
            Lifetimes::new("state", ttl, groups, groups.range(0, 1));
        lifetimes.touched.get_mut().begin(1, true);
        let at = |watermark| Instant { clock: None, watermark: Some(watermark), time: None };
        let (group, lookup) = ByKey::both(&7_u64);
        lifetimes.write(Placed { group, lookup, place: 7 }, at(0));
        assert_eq!((lifetimes.touched.borrow().len(), lifetimes.due.len()), (1, 0));
        lifetimes.give_times(at(i64::MAX), |_| true);
        lifetimes.clean(at(i64::MAX), |_| panic!("nothing ends"));
        assert!(lifetimes.is_alive(group, lookup, &7, at(i64::MAX)));
        lifetimes.restored([7].iter());
        assert_eq!(lifetimes.due.len(), 0);
    }

    /// Of many entries some are forgotten and written again in every epoch, until the list has twice as much as there is: it is tidied up a little at a time.
    #[test]
    fn tidying_up_costs_what_was_forgotten_in_the_epoch() {
        thread_local! {
            static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
        }
        /// Whoever looks at an entry compares its place.
        #[derive(Clone, Debug, Eq, Serialize, Deserialize)]
        struct Watched(u64);
        impl PartialEq for Watched {
            fn eq(&self, other: &Self) -> bool {
                LOOKED_AT.set(LOOKED_AT.get() + 1);
                self.0 == other.0
            }
        }
        let groups = KeyGroups::default();
        let ttl = Ttl::after_write(Duration::from_secs(3600));
        let mut lifetimes: Lifetimes<Watched, ByKey> =
            Lifetimes::new("state", ttl, groups, groups.range(0, 1));
        lifetimes.touched.get_mut().begin(1, true);
        let at = |clock| Instant { clock: Some(clock), watermark: None, time: None };
        let (entries, in_epoch) = (100_000, 1_000);
        let write = |lifetimes: &mut Lifetimes<Watched, ByKey>, number: u64, clock| {
            let place = Watched(number % entries);
            let (group, lookup) = ByKey::both(&place);
            lifetimes.forget(group, lookup, &place);
            lifetimes.write(Placed { group, lookup, place }, at(clock));
        };
        (0..entries).for_each(|number| write(&mut lifetimes, number, number as i64));
        let mut most = 0;
        for epoch in 0..entries as i64 / 300 {
            let first = epoch as u64 * in_epoch;
            let clock = entries as i64 + epoch * 10;
            (first..first + in_epoch).for_each(|number| write(&mut lifetimes, number, clock));
            LOOKED_AT.set(0);
            lifetimes.clean(at(clock), |_| panic!("nothing ends"));
            most = most.max(LOOKED_AT.get());
        }
        assert!(most < 60_000, "{most} looks at the end of an epoch");
        assert!(lifetimes.due.len() < 3 * entries as usize, "{} are listed", lifetimes.due.len());
    }

    /// An entry that is written before there is any time, and removed before it is given one, leaves nothing behind.
    #[test]
    fn what_is_removed_before_it_has_a_time_is_forgotten() {
        let groups = KeyGroups::default();
        for ttl in [Ttl::never(), Ttl::after_write(Duration::from_secs(1))] {
            let ttl = ttl.by_event_time();
            let mut lifetimes: Lifetimes<u64, ByKey> =
                Lifetimes::new("state", ttl, groups, groups.range(0, 1));
            lifetimes.touched.get_mut().begin(1, true);
            let at = |watermark| Instant { clock: None, watermark, time: None };
            for place in [7, 8] {
                let (group, lookup) = ByKey::both(&place);
                lifetimes.write(Placed { group, lookup, place }, at(None));
            }
            let (group, lookup) = ByKey::both(&7);
            lifetimes.forget(group, lookup, &7);
            lifetimes.give_times(at(Some(0)), |spot| spot.place != 7);
            assert_eq!(lifetimes.touched.borrow().len(), 1, "{ttl:?}");
            let (group, lookup) = ByKey::both(&8);
            assert!(lifetimes.touched.borrow().get_hashed(group, lookup, &8).is_some());
        }
    }
}
