//! When windows are told of, other than at their end, and what is left of them then.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use highwater_runtime::Data;

use crate::api::time::{Timestamp, as_ms};

/// What becomes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fire {
    /// Nothing.
    No,
    /// It is told of as it is now, and goes on.
    Tell,
    /// It is told of, and what it holds is forgotten.
    TellAndPurge,
    /// What it holds is forgotten.
    Purge,
}

/// Says when windows are told of. Used with [`WindowedStream::trigger`](crate::WindowedStream::trigger).
///
/// There are [`AtEnd`], [`CountTrigger`] and [`EarlyTrigger`], each of which may be [`purging`](Purging); for any other rule this is implemented. There
/// is one trigger for all windows; what it must remember of one is in the hands of its [`TriggerContext`].
///
/// ```
/// use highwater::testing::{self, Collect};
/// use highwater::{Fire, Global, TriggerContext, WindowTrigger};
///
/// /// Tells of a basket when it is paid for.
/// struct Paid;
///
/// impl WindowTrigger<String> for Paid {
///     fn is_purging(&self) -> bool {
///         true
///     }
///
///     fn record(&self, item: &String, _: &mut TriggerContext<'_>) -> Fire {
///         if item == "pay" { Fire::TellAndPurge } else { Fire::No }
///     }
/// }
///
/// let run = testing::run(1, |job| {
///     let items = ["tea", "milk", "pay", "salt", "pay"].map(|item| (7u64, item.to_owned()));
///     let baskets = job.read("in", items.to_vec()).keyed().window(Global).trigger(Paid).count();
///     baskets.map(|basket| basket.value).write("out", Collect);
/// })?;
/// assert_eq!(run.committed::<u64>("out"), [3, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait WindowTrigger<V>: Send + Sync + 'static {
    /// A record comes to the window. It is put there before what this answers is done.
    fn record(&self, record: &V, cx: &mut TriggerContext<'_>) -> Fire;

    /// The watermark has come to a time for which a timer was set, or to the window's end.
    ///
    /// Tells of the window at its end, unless it is implemented.
    fn event_time(&self, at: Timestamp, cx: &mut TriggerContext<'_>) -> Fire {
        if at == cx.end() { Fire::Tell } else { Fire::No }
    }

    /// Whether windows forget what they held when they are told of; those without an end grow for ever otherwise, which the job warns of.
    fn is_purging(&self) -> bool {
        false
    }

    /// [Sessions](crate::Session) have become one, because a record came that belongs to all of them: the window that `cx` is about. It has their records, all
    /// of which count as new that were new to them, and all of their timers. What this had noted of the first of them is its state; what it had noted of the others
    /// is in `others`. Then [`record`](Self::record) is called for the record.
    ///
    /// Does nothing unless it is implemented: what was noted of the others is forgotten.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, secs};
    /// use highwater::{Fire, MergedStates, Session, TriggerContext, WindowTrigger};
    ///
    /// /// Tells of a visit as soon as something was bought for more than a hundred.
    /// struct Worthwhile;
    ///
    /// impl WindowTrigger<(i64, u64)> for Worthwhile {
    ///     fn record(&self, (_, price): &(i64, u64), cx: &mut TriggerContext<'_>) -> Fire {
    ///         let spent = cx.state().unwrap_or(0u64) + price;
    ///         cx.set_state(&spent);
    ///         if spent > 100 { Fire::Tell } else { Fire::No }
    ///     }
    ///
    ///     fn merge(&self, others: &MergedStates, cx: &mut TriggerContext<'_>) {
    ///         let spent: u64 = cx.state().unwrap_or(0) + others.states::<u64>().sum::<u64>();
    ///         cx.set_state(&spent);
    ///     }
    /// }
    ///
    /// let run = testing::run(1, |job| {
    ///     // The third brings the first two together.
    ///     let buys = job.read("in", vec![(0i64, 60u64), (8_000, 30), (4_000, 20)]);
    ///     let buys = buys.event_time(|buy| buy.0, Watermark::bounded(secs(10)));
    ///     let visits = buys.window_all(Session::with_gap(secs(5))).trigger(Worthwhile).count();
    ///     visits.map(|visit| (visit.end.as_ms(), visit.value)).write("out", Collect);
    /// })?;
    /// // As it comes to more than a hundred, and at its end.
    /// assert_eq!(run.committed::<(i64, u64)>("out"), [(13_000, 3), (13_000, 3)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn merge(&self, others: &MergedStates, cx: &mut TriggerContext<'_>) {
        let _ = (others, cx);
    }

    /// The engine's clock has come to a time for which a timer was set.
    fn clock(&self, at: Timestamp, cx: &mut TriggerContext<'_>) -> Fire {
        let _ = (at, cx);
        Fire::No
    }
}

/// The window that a trigger decides about.
pub struct TriggerContext<'a> {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) watermark: i64,
    pub(super) clock: i64,
    pub(super) records: u64,
    pub(super) state: &'a mut Vec<u8>,
    /// Timers that are to be set.
    pub(super) event_timers: &'a mut Vec<i64>,
    pub(super) clock_timers: &'a mut Vec<i64>,
}

impl TriggerContext<'_> {
    /// The first moment of the window.
    pub fn start(&self) -> Timestamp {
        self.start.into()
    }

    /// The first moment behind it.
    pub fn end(&self) -> Timestamp {
        self.end.into()
    }

    /// How many records have come since it was told of last, the present one among them.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The event time up to which everything has been seen.
    pub fn watermark(&self) -> Timestamp {
        self.watermark.into()
    }

    /// Whether the watermark has come to the window's end: the present record is late, and allowed to be.
    pub fn is_over(&self) -> bool {
        self.end <= self.watermark
    }

    /// The engine's clock.
    pub fn clock(&self) -> Timestamp {
        self.clock.into()
    }

    /// Has [`WindowTrigger::event_time`] called when the watermark has come to that time. A timer that is set twice is one. At the end of all
    /// sources every timer is due; those that a window without an end sets from then on never are.
    pub fn event_timer(&mut self, at: impl Into<Timestamp>) {
        self.event_timers.push(at.into().as_ms());
    }

    /// Has [`WindowTrigger::clock`] called when the engine's clock has come to that time. A timer that is set twice is one.
    pub fn clock_timer(&mut self, at: impl Into<Timestamp>) {
        self.clock_timers.push(at.into().as_ms());
    }

    /// What [`set_state`](Self::set_state) noted of this window, if anything.
    ///
    /// # Panics
    ///
    /// Panics if it was of a type that can't be read as this one.
    pub fn state<T: Data>(&self) -> Option<T> {
        read(self.state)
    }

    /// Notes something of this window, for later calls.
    ///
    /// # Panics
    ///
    /// Panics if it can't be serialized.
    pub fn set_state<T: Data>(&mut self, state: &T) {
        let failed = |error| panic!("the state of a trigger can't be written: {error}");
        *self.state = serde_json::to_vec(state).unwrap_or_else(failed);
    }
}

impl fmt::Debug for TriggerContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TriggerContext({} to {})", self.start(), self.end())
    }
}

/// What a trigger had noted of sessions that have become one with another; see [`WindowTrigger::merge`].
#[derive(Debug)]
pub struct MergedStates(pub(super) Vec<Vec<u8>>);

impl MergedStates {
    /// What was noted of each, of those of which anything was, in the order in which they began.
    ///
    /// # Panics
    ///
    /// Panics if it was of a type that can't be read as this one.
    pub fn states<T: Data>(&self) -> impl Iterator<Item = T> {
        self.0.iter().filter_map(|state| read(state))
    }
}

fn read<T: Data>(state: &[u8]) -> Option<T> {
    let failed = |error| panic!("the state of a trigger isn't what it was: {error}");
    (!state.is_empty()).then(|| serde_json::from_slice(state).unwrap_or_else(failed))
}

/// A trigger that many windows share.
pub(super) type AnyTrigger<V> = Arc<dyn WindowTrigger<V>>;

/// Gives a trigger its purging form.
macro_rules! purging {
    ($trigger:ty) => {
        impl $trigger {
            /// The same, and what a window held is forgotten when it is told of.
            #[must_use]
            pub fn purging(self) -> Purging<Self> {
                Purging::of(self)
            }
        }
    };
}

/// Tells of a window when the watermark has come to its end, and of late records as they come.
#[derive(Clone, Copy, Debug)]
pub struct AtEnd;

impl<V> WindowTrigger<V> for AtEnd {
    fn record(&self, _: &V, cx: &mut TriggerContext<'_>) -> Fire {
        if cx.is_over() { Fire::Tell } else { Fire::No }
    }
}

/// Tells of a window whenever so many records have come, and only then.
///
/// ```text
/// of(2)            records  1  2  3  4  5
///                  told        2     4         with what came before; of(2).purging(): 2, then 2
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CountTrigger {
    records: u64,
}

impl CountTrigger {
    /// After every so many records.
    #[must_use]
    pub fn of(records: u64) -> Self {
        CountTrigger { records }
    }
}

purging!(AtEnd);
purging!(CountTrigger);
purging!(EarlyTrigger);

impl<V> WindowTrigger<V> for CountTrigger {
    fn record(&self, _: &V, cx: &mut TriggerContext<'_>) -> Fire {
        if cx.records() >= self.records { Fire::Tell } else { Fire::No }
    }

    fn event_time(&self, _: Timestamp, _: &mut TriggerContext<'_>) -> Fire {
        Fire::No
    }
}

/// Tells of a window before its end, too: again and again as it grows, and then of the whole.
///
/// ```text
/// Tumbling::of(10), records at   1  3  4      12
/// count(2)                          2  at 3: 2 records;   at the end: 3
/// every(5)                          when the watermark comes to 5: 3 records;   at the end (nothing new): 3
/// ```
#[derive(Clone, Copy, Debug)]
pub struct EarlyTrigger(Early);

#[derive(Clone, Copy, Debug)]
enum Early {
    Count(u64),
    EventTime(i64),
    Clock(i64),
}

impl EarlyTrigger {
    /// After every so many records.
    #[must_use]
    pub fn count(records: u64) -> Self {
        EarlyTrigger(Early::Count(records))
    }

    /// Whenever event time has gone on for so long, if there are new records.
    #[must_use]
    pub fn every(time: Duration) -> Self {
        EarlyTrigger(Early::EventTime(as_ms(time).max(1)))
    }

    /// Whenever the engine's clock has gone on for so long, if there are new records.
    #[must_use]
    pub fn every_by_clock(time: Duration) -> Self {
        EarlyTrigger(Early::Clock(as_ms(time).max(1)))
    }
}

/// The next multiple of `every` behind a time.
fn next(time: i64, every: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(every)).saturating_add(every)
}

impl<V> WindowTrigger<V> for EarlyTrigger {
    fn record(&self, _: &V, cx: &mut TriggerContext<'_>) -> Fire {
        if cx.is_over() {
            return Fire::Tell;
        }
        match self.0 {
            Early::Count(records) if cx.records() >= records => return Fire::Tell,
            Early::Count(_) => {}
            // Before the first watermark there is no time from which to count on, but the window's.
            Early::EventTime(every) => {
                let at = next(cx.watermark.max(cx.start), every);
                if at < cx.end {
                    cx.event_timer(at);
                }
            }
            Early::Clock(every) => cx.clock_timer(next(cx.clock, every)),
        }
        Fire::No
    }

    fn event_time(&self, at: Timestamp, cx: &mut TriggerContext<'_>) -> Fire {
        if at == cx.end() || cx.records() > 0 { Fire::Tell } else { Fire::No }
    }

    fn clock(&self, _: Timestamp, cx: &mut TriggerContext<'_>) -> Fire {
        if cx.records() > 0 { Fire::Tell } else { Fire::No }
    }
}

/// A trigger, and windows forget what they held whenever it has them told of.
#[derive(Clone, Copy, Debug)]
pub struct Purging<T>(T);

impl<T> Purging<T> {
    /// This trigger, and windows forget.
    #[must_use]
    pub fn of(trigger: T) -> Self {
        Purging(trigger)
    }
}

fn purge(fire: Fire) -> Fire {
    if fire == Fire::Tell { Fire::TellAndPurge } else { fire }
}

impl<V, T: WindowTrigger<V>> WindowTrigger<V> for Purging<T> {
    fn is_purging(&self) -> bool {
        true
    }

    fn record(&self, record: &V, cx: &mut TriggerContext<'_>) -> Fire {
        purge(self.0.record(record, cx))
    }

    fn event_time(&self, at: Timestamp, cx: &mut TriggerContext<'_>) -> Fire {
        purge(self.0.event_time(at, cx))
    }

    fn merge(&self, others: &MergedStates, cx: &mut TriggerContext<'_>) {
        self.0.merge(others, cx);
    }

    fn clock(&self, at: Timestamp, cx: &mut TriggerContext<'_>) -> Fire {
        purge(self.0.clock(at, cx))
    }
}
