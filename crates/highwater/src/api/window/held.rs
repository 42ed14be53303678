//! One window that a trigger decides about: what it holds, the timers that are set for it, and what the trigger has noted.

use std::sync::Arc;

use highwater_runtime::Data;
use highwater_runtime::watermark::END_OF_TIME;
use serde::{Deserialize, Serialize};

use super::operator::Now;
use super::trigger::{AnyTrigger, Fire, MergedStates, TriggerContext};
use crate::api::step::{Merge, Step};
use crate::api::time::Timestamp;

/// What a window holds, and what that comes to.
pub(super) trait Contents<V>: Send + Sync + 'static {
    type Acc: Data;
    type Out: Data;
    fn add(&self, acc: &mut Option<Self::Acc>, value: V, time: i64);
    /// Adds what another window holds that has become one with this one.
    fn merge(&self, acc: &mut Self::Acc, other: Self::Acc);
    /// None if nothing is left.
    fn out(&self, acc: &mut Self::Acc) -> Option<Self::Out>;
}

/// An aggregate, which grows with every record.
pub(super) struct Folding<S>(pub(super) Arc<S>);

impl<V, S: Merge<V>> Contents<V> for Folding<S> {
    type Acc = S::Acc;
    type Out = S::Out;

    fn add(&self, acc: &mut Option<S::Acc>, value: V, _: i64) {
        match acc {
            Some(acc) => self.0.add(acc, value),
            None => *acc = Some(self.0.first(value)),
        }
    }

    fn merge(&self, acc: &mut S::Acc, other: S::Acc) {
        self.0.merge(acc, other);
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

    fn merge(&self, acc: &mut Self::Acc, mut other: Self::Acc) {
        acc.append(&mut other);
    }

    fn out(&self, acc: &mut Self::Acc) -> Option<S::Out> {
        (self.evict)(acc);
        let mut values = acc.iter().map(|(_, value)| value.clone());
        let mut folded = self.step.first(values.next()?);
        values.for_each(|value| self.step.add(&mut folded, value));
        Some(self.step.out(&folded))
    }
}

/// The end of the window that has none.
pub(super) const NEVER: i64 = i64::MAX;

/// A window of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "A: Data")]
pub(super) struct Held<A> {
    /// None after it was purged.
    acc: Option<A>,
    /// Records since it was told of last.
    records: u64,
    /// What is due by event time: what the trigger asked for.
    pub(super) event_timers: Vec<i64>,
    pub(super) clock_timers: Vec<i64>,
    /// What the trigger has noted.
    noted: Vec<u8>,
}

/// When a trigger is asked, and about which window.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Its first moment, and the first one behind it.
    pub(super) span: (i64, i64),
    pub(super) watermark: i64,
    pub(super) clock: i64,
}

impl Moment {
    /// When a record comes.
    pub(super) fn of_record(span: (i64, i64), now: Now) -> Self {
        Moment { span, watermark: now.before, clock: now.clock }
    }

    /// At the end of an epoch.
    pub(super) fn of_timer(span: (i64, i64), now: Now) -> Self {
        Moment { span, watermark: now.watermark, clock: now.clock }
    }
}

/// What a trigger has decided.
#[must_use]
pub(super) struct Decided {
    pub(super) fire: Fire,
    /// Timers that weren't set before; they are to be listed.
    pub(super) event_timers: Vec<i64>,
    pub(super) clock_timers: Vec<i64>,
}

impl<A: Data> Held<A> {
    pub(super) fn new() -> Self {
        Held {
            acc: None,
            records: 0,
            event_timers: Vec::new(),
            clock_timers: Vec::new(),
            noted: Vec::new(),
        }
    }

    /// Puts a record in, and asks the trigger.
    pub(super) fn put<V: Data, C: Contents<V, Acc = A>>(
        &mut self,
        contents: &C,
        trigger: &AnyTrigger<V>,
        (value, time): (V, i64),
        moment: Moment,
    ) -> Decided {
        self.records += 1;
        let decided = self.ask(moment, |cx| trigger.record(&value, cx));
        contents.add(&mut self.acc, value, time);
        decided
    }

    /// Asks the trigger, and sets the timers for which it asks.
    pub(super) fn ask(
        &mut self,
        moment: Moment,
        decide: impl FnOnce(&mut TriggerContext<'_>) -> Fire,
    ) -> Decided {
        let Moment { span: (start, end), watermark, clock } = moment;
        let (mut event_timers, mut clock_timers) = (Vec::new(), Vec::new());
        let fire = decide(&mut TriggerContext {
            start,
            end,
            watermark,
            clock,
            records: self.records,
            state: &mut self.noted,
            event_timers: &mut event_timers,
            clock_timers: &mut clock_timers,
        });
        // At the end of time every timer is due, and a window that has no end would set its next one for ever.
        if end == NEVER && watermark == END_OF_TIME {
            event_timers.clear();
        }
        let event_timers = set(&mut self.event_timers, event_timers);
        let clock_timers = set(&mut self.clock_timers, clock_timers);
        Decided { fire, event_timers, clock_timers }
    }

    /// Has the timers for which an engine asks set, too; answers whether it wasn't.
    pub(super) fn set_event_timer(&mut self, at: i64) -> bool {
        !set(&mut self.event_timers, vec![at]).is_empty()
    }

    /// A timer is due; answers whether it was set.
    pub(super) fn take_event_timer(&mut self, at: i64) -> bool {
        take(&mut self.event_timers, at)
    }

    /// A timer is due; answers whether it was set.
    pub(super) fn take_clock_timer(&mut self, at: i64) -> bool {
        take(&mut self.clock_timers, at)
    }

    /// Does what the trigger has decided; answers what is to be told.
    pub(super) fn fire<V, C: Contents<V, Acc = A>>(
        &mut self,
        contents: &C,
        fire: Fire,
    ) -> Option<C::Out> {
        if fire == Fire::No {
            return None;
        }
        self.records = 0;
        let acc = self.acc.as_mut()?;
        let out = if fire == Fire::Purge { None } else { contents.out(acc) };
        if fire != Fire::Tell {
            self.acc = None;
        }
        out
    }

    /// Takes over what others hold that have become one with this window, later ones: their records count as its own, and their timers are set. What
    /// the trigger had noted of them is handed to it.
    pub(super) fn merge<V: Data, C: Contents<V, Acc = A>>(
        &mut self,
        contents: &C,
        trigger: &AnyTrigger<V>,
        others: Vec<Held<A>>,
        moment: Moment,
    ) -> Decided {
        let mut noted = Vec::new();
        for other in others {
            match (&mut self.acc, other.acc) {
                (Some(acc), Some(other)) => contents.merge(acc, other),
                (acc, other) => *acc = acc.take().or(other),
            }
            self.records += other.records;
            set(&mut self.event_timers, other.event_timers);
            set(&mut self.clock_timers, other.clock_timers);
            noted.push(other.noted);
        }
        self.ask(moment, |cx| {
            trigger.merge(&MergedStates(noted), cx);
            Fire::No
        })
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.acc.is_none()
            && self.noted.is_empty()
            && self.event_timers.is_empty()
            && self.clock_timers.is_empty()
    }
}

/// Adds timers to those that are set; answers those that weren't.
fn set(timers: &mut Vec<i64>, mut more: Vec<i64>) -> Vec<i64> {
    more.sort_unstable();
    more.dedup();
    more.retain(|at| !timers.contains(at));
    timers.extend(&more);
    more
}

fn take(timers: &mut Vec<i64>, at: i64) -> bool {
    let before = timers.len();
    timers.retain(|timer| *timer != at);
    timers.len() < before
}
