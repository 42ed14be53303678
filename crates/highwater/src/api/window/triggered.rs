//! Windows that a trigger has told of: each window of a key is an entry, with what it holds and the timers that are set for it.

use std::marker::PhantomData;

use highwater_codec::hash_key;
use highwater_runtime::{Data, Keyed, OperatorContext, Work};
use highwater_state::{KeyedTable, Kind, StateTable};

use super::grid::{Grid, Lookup};
use super::held::{Contents, Decided, Held, Moment, NEVER};
use super::kind::Kept;
use super::operator::{Late, Now, ToldRows, Windows};
use super::timetable::{Scheduled, Timetable};
use super::trigger::{AnyTrigger, Fire};
use crate::api::moment::{ByMoment, lookup};
use crate::api::ordered::Timed;
use crate::api::process::By;

/// A window for which something is due.
#[derive(Clone, Debug)]
pub(super) struct Listed<K> {
    hash: u64,
    key: K,
    end: i64,
}

/// How windows are laid out, if each is on its own.
enum Laid {
    Spans(Lookup),
    Grid(Grid),
    Global,
}

/// The windows of some keys.
pub(super) struct Triggered<K, V, C: Contents<V>> {
    contents: C,
    trigger: AnyTrigger<V>,
    layout: Laid,
    /// Windows are kept so much longer than they last.
    lateness: i64,
    /// By their ends.
    windows: KeyedTable<(K, i64), Held<C::Acc>, ByMoment>,
    timetable: Timetable<Listed<K>>,
    values: PhantomData<fn(V)>,
}

impl<K: Data + Eq, V: Data, C: Contents<V>> Triggered<K, V, C> {
    pub(super) fn new(
        context: &OperatorContext,
        contents: C,
        trigger: AnyTrigger<V>,
        kept: Kept<V>,
        lateness: i64,
    ) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        let layout = match kept {
            Kept::Disjoint(spans) => Laid::Spans(Lookup::new(spans)),
            Kept::Panes(grid) => Laid::Grid(grid),
            Kept::Global => Laid::Global,
            Kept::Sessions(_) => unreachable!("sessions are kept by `TriggeredSessions`"),
        };
        Triggered {
            contents,
            trigger,
            layout,
            lateness,
            windows: KeyedTable::new("windows", Kind::Accumulator, key_groups, groups),
            timetable: Timetable::default(),
            values: PhantomData,
        }
    }

    fn start_of(&self, end: i64) -> i64 {
        match &self.layout {
            Laid::Global => i64::MIN,
            Laid::Spans(spans) => spans.span_of(end - 1).0,
            Laid::Grid(grid) => grid.start_of(end),
        }
    }

    /// The ends of all windows of a moment that aren't forgotten yet; whether there are others, that are.
    fn ends_of(&self, time: i64, before: i64) -> (Vec<i64>, bool) {
        let mut ends = Vec::new();
        match &self.layout {
            Laid::Global => ends.push(NEVER),
            Laid::Spans(spans) => ends.push(spans.span_of(time).1),
            Laid::Grid(grid) => {
                let pane = grid.pane_of(time);
                let mut after = i64::MIN;
                while let Some(end) = grid.next_end(pane, after) {
                    ends.push(end);
                    after = end;
                }
            }
        }
        let all = ends.len();
        // A window without end is never over, also when time is at its end and something is told after it.
        ends.retain(|end| *end == NEVER || self.forgotten_at(*end) > before);
        let some_are_over = ends.len() < all;
        (ends, some_are_over)
    }

    fn forgotten_at(&self, end: i64) -> i64 {
        end.saturating_add(self.lateness)
    }

    /// Puts a record into a window, and asks the trigger.
    fn put(
        &mut self,
        listed: Listed<K>,
        record: (V, i64),
        now: Now,
        told: &mut ToldRows<K, C::Out>,
    ) {
        let (hash, end) = (listed.hash, listed.end);
        let place = (listed.key.clone(), end);
        let is_new = self.windows.get_hashed(hash, lookup(hash, end), &place).is_none();
        let moment = Moment::of_record((self.start_of(end), end), now);
        let held = self.windows.upsert_hashed(hash, lookup(hash, end), place, Held::new).value;
        if is_new && end < NEVER {
            // A window that is over has been told of at its end.
            if end > now.before && held.set_event_timer(end) {
                self.timetable.list(By::EventTime, end, listed.clone());
            }
            let forgotten_at = end.saturating_add(self.lateness);
            self.timetable.list(By::EventTime, forgotten_at, listed.clone());
        }
        let decided = held.put(&self.contents, &self.trigger, record, moment);
        self.done(listed, decided, told);
    }

    fn held(&mut self, listed: &Listed<K>) -> Option<&mut Held<C::Acc>> {
        let place = (listed.key.clone(), listed.end);
        let (hash, lookup) = (listed.hash, lookup(listed.hash, listed.end));
        self.windows.get_hashed(hash, lookup, &place)?;
        let never = || unreachable!("it is there");
        Some(self.windows.upsert_hashed(hash, lookup, place, never).value)
    }

    /// Does what the trigger has decided about a window.
    fn done(&mut self, listed: Listed<K>, decided: Decided, told: &mut ToldRows<K, C::Out>) {
        let fire = self.timetable.list_decided(decided, || listed.clone());
        if fire == Fire::No {
            return;
        }
        let span = (self.start_of(listed.end), listed.end);
        let place = (listed.key.clone(), listed.end);
        let (hash, lookup) = (listed.hash, lookup(listed.hash, listed.end));
        let never = || unreachable!("the trigger was asked about it just now");
        let held = self.windows.upsert_hashed(hash, lookup, place, never).value;
        if let Some(out) = held.fire(&self.contents, fire) {
            told.push(listed.key.clone(), span, out);
        }
        self.leave(&listed);
    }

    /// Forgets a window without end of which nothing is left.
    fn leave(&mut self, listed: &Listed<K>) {
        let place = (listed.key.clone(), listed.end);
        let (hash, lookup) = (listed.hash, lookup(listed.hash, listed.end));
        let is_empty = self.windows.get_hashed(hash, lookup, &place).is_some_and(Held::is_empty);
        if listed.end == NEVER && is_empty {
            self.windows.remove_hashed(hash, lookup, &place);
        }
    }

    /// Something may be due for a window at a time that has come by event time.
    fn event_time(&mut self, at: i64, listed: Listed<K>, now: Now, told: &mut ToldRows<K, C::Out>) {
        let moment = Moment::of_timer((self.start_of(listed.end), listed.end), now);
        let trigger = self.trigger.clone();
        let Some(held) = self.held(&listed) else { return };
        if held.take_event_timer(at) {
            let decided = held.ask(moment, |cx| trigger.event_time(at.into(), cx));
            self.done(listed.clone(), decided, told);
        }
        if listed.end < NEVER && self.forgotten_at(listed.end) <= at {
            let place = (listed.key, listed.end);
            self.windows.remove_hashed(listed.hash, lookup(listed.hash, listed.end), &place);
        } else {
            self.leave(&listed);
        }
    }

    fn clock(&mut self, at: i64, listed: Listed<K>, now: Now, told: &mut ToldRows<K, C::Out>) {
        let moment = Moment::of_timer((self.start_of(listed.end), listed.end), now);
        let trigger = self.trigger.clone();
        let Some(held) = self.held(&listed) else { return };
        if held.take_clock_timer(at) {
            let decided = held.ask(moment, |cx| trigger.clock(at.into(), cx));
            self.done(listed.clone(), decided, told);
            self.leave(&listed);
        }
    }
}

impl<K: Data + Eq, V: Data, C: Contents<V>> Scheduled for Triggered<K, V, C> {
    type Listed = Listed<K>;

    fn timetable(&mut self) -> &mut Timetable<Listed<K>> {
        &mut self.timetable
    }

    fn due(
        &mut self,
        (by, at, listed): (By, i64, Listed<K>),
        now: Now,
        told: &mut ToldRows<K, C::Out>,
    ) {
        match by {
            By::EventTime => self.event_time(at, listed, now, told),
            By::Clock => self.clock(at, listed, now, told),
        }
    }
}

impl<K: Data + Eq, V: Data, C: Contents<V>> Windows for Triggered<K, V, C> {
    type Key = K;
    type In = V;
    type Out = C::Out;

    fn add(
        &mut self,
        (keyed, times): Timed<K, V>,
        now: Now,
        late: &mut Late<K, V>,
        told: &mut ToldRows<K, C::Out>,
    ) {
        let Keyed { hashes, rows } = keyed;
        for (index, (key, value)) in rows.into_iter().enumerate() {
            let time = times.get(index).copied().unwrap_or(i64::MIN);
            let (ends, some_are_over) = self.ends_of(time, now.before);
            let Some((last, others)) = ends.split_last() else {
                if some_are_over {
                    late.push(key, value, time);
                }
                continue;
            };
            let hash = hashes[index];
            for end in others {
                let listed = Listed { hash, key: key.clone(), end: *end };
                self.put(listed, (value.clone(), time), now, told);
            }
            self.put(Listed { hash, key, end: *last }, (value, time), now, told);
        }
    }

    fn tell(&mut self, now: Now, told: &mut ToldRows<K, C::Out>) -> Work {
        self.do_due(now, told)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.windows]
    }

    fn restored(&mut self) {
        for group in 0..self.windows.group_count() {
            for ((key, end), held) in self.windows.group_entries(group) {
                let hash = hash_key(key).expect("a key that was stored can be hashed");
                let listed = || Listed { hash, key: key.clone(), end: *end };
                self.timetable.list_timers(&held.event_timers, &held.clock_timers, listed);
                if *end < NEVER {
                    let forgotten_at = end.saturating_add(self.lateness);
                    self.timetable.list(By::EventTime, forgotten_at, listed());
                }
            }
        }
    }
}
