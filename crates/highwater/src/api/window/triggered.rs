//! Windows that a trigger has told of: each window of a key is an entry, with what it holds and the timers that are set for it.

use std::marker::PhantomData;
use std::sync::Arc;

use highwater_codec::hash_key;
use highwater_runtime::watermark::END_OF_TIME;
use highwater_runtime::{Data, Keyed, OperatorContext, Work};
use highwater_state::{KeyedTable, Kind, StateTable};
use serde::{Deserialize, Serialize};

use super::grid::{Grid, Lookup};
use super::kind::Kept;
use super::operator::{Late, Now, ToldRows, Windows};
use super::trigger::{AnyTrigger, Fire, TriggerContext};
use crate::api::SLICE_ROWS;
use crate::api::due::Due;
use crate::api::moment::{ByMoment, lookup};
use crate::api::ordered::Timed;
use crate::api::step::Step;
use crate::api::time::Timestamp;

/// What a window holds, and what that comes to.
pub(super) trait Contents<V>: Send + Sync + 'static {
    type Acc: Data;
    type Out: Data;
    fn add(&self, acc: &mut Option<Self::Acc>, value: V, time: i64);
    /// None if nothing is left.
    fn out(&self, acc: &mut Self::Acc) -> Option<Self::Out>;
}

/// An aggregate, which grows with every record.
pub(super) struct Folding<S>(pub(super) Arc<S>);

impl<V, S: Step<V>> Contents<V> for Folding<S> {
    type Acc = S::Acc;
    type Out = S::Out;

    fn add(&self, acc: &mut Option<S::Acc>, value: V, _: i64) {
        match acc {
            Some(acc) => self.0.add(acc, value),
            None => *acc = Some(self.0.first(value)),
        }
    }

    fn out(&self, acc: &mut S::Acc) -> Option<S::Out> {
        Some(self.0.out(acc))
    }
}

/// Takes records out of a window before it is told of.
pub(super) type Evict<V> = Arc<dyn Fn(&mut Vec<(Timestamp, V)>) + Send + Sync>;

/// All records, with their times; some are taken out, and the aggregate is made of the others whenever the window is told of.
pub(super) struct Keeping<S, V> {
    pub(super) step: Arc<S>,
    pub(super) evict: Evict<V>,
}

impl<V: Data, S: Step<V>> Contents<V> for Keeping<S, V> {
    type Acc = Vec<(Timestamp, V)>;
    type Out = S::Out;

    fn add(&self, acc: &mut Option<Self::Acc>, value: V, time: i64) {
        acc.get_or_insert_default().push((time.into(), value));
    }

    fn out(&self, acc: &mut Self::Acc) -> Option<S::Out> {
        (self.evict)(acc);
        let mut values = acc.iter().map(|(_, value)| value.clone());
        let mut folded = self.step.first(values.next()?);
        values.for_each(|value| self.step.add(&mut folded, value));
        Some(self.step.out(&folded))
    }
}

/// A window of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "A: Data")]
struct Held<A> {
    /// None after it was purged.
    acc: Option<A>,
    /// Records since it was told of last.
    records: u64,
    /// What is due by event time: what the trigger asked for, and its end.
    event_timers: Vec<i64>,
    clock_timers: Vec<i64>,
    /// What the trigger has noted.
    noted: Vec<u8>,
}

/// A window for which something is due.
#[derive(Clone, Debug)]
struct Listed<K> {
    hash: u64,
    key: K,
    end: i64,
}

/// The end of the window that has none.
const NEVER: i64 = i64::MAX;

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
    by_event_time: Due<Listed<K>>,
    by_clock: Due<Listed<K>>,
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
            // Sessions are refused when the plan is made.
            Kept::Global | Kept::Sessions(_) => Laid::Global,
        };
        Triggered {
            contents,
            trigger,
            layout,
            lateness,
            windows: KeyedTable::new("windows", Kind::Accumulator, key_groups, groups),
            by_event_time: Due::default(),
            by_clock: Due::default(),
            values: PhantomData,
        }
    }

    fn start_of(&self, end: i64) -> i64 {
        match &self.layout {
            Laid::Global => i64::MIN,
            Laid::Spans(spans) => spans.start_of(end - 1),
            Laid::Grid(grid) => grid.start_of(end),
        }
    }

    /// The ends of all windows of a moment that aren't forgotten yet; whether there are others, that are.
    fn ends_of(&self, time: i64, before: i64) -> (Vec<i64>, bool) {
        let mut ends = Vec::new();
        match &self.layout {
            Laid::Global => ends.push(NEVER),
            Laid::Spans(spans) => ends.push(spans.end_of(spans.start_of(time))),
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
        ends.retain(|end| self.forgotten_at(*end) > before);
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
        (value, time): (V, i64),
        now: Now,
        told: &mut ToldRows<K, C::Out>,
    ) {
        let end = listed.end;
        let place = (listed.key.clone(), end);
        let new = || Held {
            acc: None,
            records: 0,
            event_timers: Vec::new(),
            clock_timers: Vec::new(),
            noted: Vec::new(),
        };
        let hash = listed.hash;
        let is_new = self.windows.get_hashed(hash, lookup(hash, end), &place).is_none();
        if is_new && end < NEVER {
            self.by_event_time.push(self.forgotten_at(end), listed.clone());
        }
        let held = self.windows.upsert_hashed(hash, lookup(hash, end), place, new).value;
        held.records += 1;
        let trigger = self.trigger.clone();
        // A window that is over has been told of at its end.
        let at_end = (is_new && end > now.before && end < NEVER).then_some(end);
        let fire =
            self.ask(&listed, now.before, now.clock, at_end, |cx| trigger.record(&value, cx));
        if let Some(held) = self.held(&listed) {
            let mut acc = held.acc.take();
            self.contents.add(&mut acc, value, time);
            if let Some(held) = self.held(&listed) {
                held.acc = acc;
            }
        }
        self.done(listed, fire, told);
    }

    fn held(&mut self, listed: &Listed<K>) -> Option<&mut Held<C::Acc>> {
        let place = (listed.key.clone(), listed.end);
        let (hash, lookup) = (listed.hash, lookup(listed.hash, listed.end));
        self.windows.get_hashed(hash, lookup, &place)?;
        let never = || unreachable!("it is there");
        Some(self.windows.upsert_hashed(hash, lookup, place, never).value)
    }

    /// Asks the trigger about a window that is there, and sets the timers for which it asks.
    fn ask(
        &mut self,
        listed: &Listed<K>,
        watermark: i64,
        clock: i64,
        at_end: Option<i64>,
        decide: impl FnOnce(&mut TriggerContext<'_>) -> Fire,
    ) -> Fire {
        let start = self.start_of(listed.end);
        let Some(held) = self.held(listed) else { return Fire::No };
        let (mut event_timers, mut clock_timers) = (Vec::from_iter(at_end), Vec::new());
        let fire = decide(&mut TriggerContext {
            start,
            end: listed.end,
            watermark,
            clock,
            records: held.records,
            state: &mut held.noted,
            event_timers: &mut event_timers,
            clock_timers: &mut clock_timers,
        });
        // At the end of time every timer is due, and a window that has no end would set its next one for ever.
        if listed.end == NEVER && watermark == END_OF_TIME {
            event_timers.clear();
        }
        // What isn't set yet is listed.
        event_timers.retain(|at| !held.event_timers.contains(at));
        clock_timers.retain(|at| !held.clock_timers.contains(at));
        held.event_timers.extend(&event_timers);
        held.clock_timers.extend(&clock_timers);
        event_timers.into_iter().for_each(|at| self.by_event_time.push(at, listed.clone()));
        clock_timers.into_iter().for_each(|at| self.by_clock.push(at, listed.clone()));
        fire
    }

    /// Does what the trigger has decided.
    fn done(&mut self, listed: Listed<K>, fire: Fire, told: &mut ToldRows<K, C::Out>) {
        if fire == Fire::No {
            return;
        }
        let span = (self.start_of(listed.end), listed.end);
        let Some(held) = self.held(&listed) else { return };
        let acc = held.acc.take();
        held.records = 0;
        let Some(mut acc) = acc else { return };
        if fire != Fire::Purge
            && let Some(out) = self.contents.out(&mut acc)
        {
            told.push(listed.key.clone(), span, out);
        }
        if fire == Fire::Tell
            && let Some(held) = self.held(&listed)
        {
            held.acc = Some(acc);
        }
        self.leave(&listed);
    }

    /// Forgets a window without end of which nothing is left.
    fn leave(&mut self, listed: &Listed<K>) {
        let place = (listed.key.clone(), listed.end);
        let (hash, lookup) = (listed.hash, lookup(listed.hash, listed.end));
        let is_empty = self.windows.get_hashed(hash, lookup, &place).is_some_and(|held| {
            held.acc.is_none()
                && held.noted.is_empty()
                && held.event_timers.is_empty()
                && held.clock_timers.is_empty()
        });
        if listed.end == NEVER && is_empty {
            self.windows.remove_hashed(hash, lookup, &place);
        }
    }

    /// Something may be due for a window at a time that has come by event time.
    fn event_time(&mut self, at: i64, listed: Listed<K>, now: Now, told: &mut ToldRows<K, C::Out>) {
        let Some(held) = self.held(&listed) else { return };
        let timers = held.event_timers.len();
        held.event_timers.retain(|timer| *timer != at);
        if held.event_timers.len() < timers {
            let trigger = self.trigger.clone();
            let due = |cx: &mut TriggerContext<'_>| trigger.event_time(at.into(), cx);
            let fire = self.ask(&listed, now.watermark, now.clock, None, due);
            self.done(listed.clone(), fire, told);
        }
        if listed.end < NEVER && self.forgotten_at(listed.end) <= at {
            let place = (listed.key, listed.end);
            self.windows.remove_hashed(listed.hash, lookup(listed.hash, listed.end), &place);
        } else {
            self.leave(&listed);
        }
    }

    fn clock(&mut self, at: i64, listed: Listed<K>, now: Now, told: &mut ToldRows<K, C::Out>) {
        let Some(held) = self.held(&listed) else { return };
        let timers = held.clock_timers.len();
        held.clock_timers.retain(|timer| *timer != at);
        if held.clock_timers.len() < timers {
            let trigger = self.trigger.clone();
            let due = |cx: &mut TriggerContext<'_>| trigger.clock(at.into(), cx);
            let fire = self.ask(&listed, now.watermark, now.clock, None, due);
            self.done(listed.clone(), fire, told);
            self.leave(&listed);
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
        let mut looked = 0;
        while let Some((at, listed)) = self.by_event_time.pop(now.watermark) {
            self.event_time(at, listed, now, told);
            looked += 1;
            if told.is_full() || looked >= SLICE_ROWS {
                return Work::More;
            }
        }
        while let Some((at, listed)) = self.by_clock.pop(now.clock) {
            self.clock(at, listed, now, told);
            looked += 1;
            if told.is_full() || looked >= SLICE_ROWS {
                return Work::More;
            }
        }
        Work::Done
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.windows]
    }

    fn restored(&mut self) {
        for group in 0..self.windows.group_count() {
            for ((key, end), held) in self.windows.group_entries(group) {
                let hash = hash_key(key).expect("a key that was stored can be hashed");
                let listed = || Listed { hash, key: key.clone(), end: *end };
                for at in &held.event_timers {
                    self.by_event_time.push(*at, listed());
                }
                for at in &held.clock_timers {
                    self.by_clock.push(*at, listed());
                }
                if *end < NEVER {
                    self.by_event_time.push(end.saturating_add(self.lateness), listed());
                }
            }
        }
    }
}
