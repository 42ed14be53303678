//! Windows: what the records of each key within a span of event time come to.
//!
//! ```text
//! keyed stream ─▶ Ordered: rows by epoch ─epoch before is complete─▶ add to windows ─epoch complete─▶ tell of those that the watermark has passed
//!                                             │ too late
//!                                             └──▶ late output, counted
//! ```
//!
//! There is one operator ([`WindowOperator`]) around four ways to keep windows: [`disjoint`] ones, of which a record is in one, are
//! entries of their own; of overlapping ones ([`panes`]) each key keeps the panes that they share; [`session`]s of a key merge; those with a
//! [`trigger`] are entries of their own, whatever their kind ([`triggered`]). Windows by the clock, or by triggers of the job, are the same along another
//! axis ([`kind::Axis`]).

mod batched;
mod build;
mod calendar;
mod disjoint;
mod grid;
mod held;
mod inverse;
mod join;
mod key_panes;
mod kind;
mod operator;
mod panes;
mod session;
mod timetable;
mod trigger;
mod triggered;
mod triggered_sessions;

use std::fmt;
use std::ops::{Add, Deref};
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater_runtime::Data;
use highwater_runtime::plan::NodeId;
use serde::{Deserialize, Serialize};

use super::job::Job;
use super::step::{Best, ByAggregate, Collected, Count, Fold, Merged, Reduce, Sum};
use super::time::Timestamp;
use super::{Key, KeyedStream, MergeAggregate, Stream};
pub use batched::BatchedStream;
pub use build::{Evicting, Telling, Triggers, WhenOver};
use kind::Layout;
pub use kind::{
    Batches, Calendar, Cumulating, Global, Session, SessionsByRecord, Sliding, Tumbling, WindowKind,
};
pub use trigger::{
    AtEnd, CountTrigger, EarlyTrigger, Fire, MergedStates, Purging, TriggerContext, WindowTrigger,
};

/// What the records of a key in one window come to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowResult<K, V> {
    /// The key.
    pub key: K,
    /// The first moment of the window.
    pub start: Timestamp,
    /// The first moment behind it.
    pub end: Timestamp,
    /// What its records come to.
    pub value: V,
}

/// A keyed stream in windows; made by [`KeyedStream::window`].
///
/// ```text
/// Tumbling::of(10), records of one key at   1  4  12   3  25      bounded(5): the watermark behind each, if each is an epoch
/// watermark                                -4 -1   7   7  20
/// told                                              [0,10) and [10,20) when it comes to 20; the record at 3 was in time
/// ```
///
/// Every window is told of once, when the watermark has passed its end (see [`allowed_lateness`](Self::allowed_lateness) for more). Its row
/// has the time of the window's last moment, so that windows can follow windows.
///
/// `W` says when windows are told of: at their end, or when a [trigger](Self::trigger) says so.
#[must_use]
pub struct WindowedStream<K, V, W = WhenOver> {
    input: KeyedStream<K, V>,
    layout: Layout<V>,
    lateness: Duration,
    telling: W,
    at: &'static Location<'static>,
}

impl<K: Key, V: Data> KeyedStream<K, V> {
    /// Puts the records of each key into windows: [`Tumbling`], [`Sliding`], [`Cumulating`], [`Session`] or [`Calendar`] ones by their event times (or
    /// by the clock), [`Batches`] of triggers, or one [`Global`] one.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Timestamp, Watermark, secs};
    /// use highwater::{Tumbling, WindowResult};
    ///
    /// let run = testing::run(2, |job| {
    ///     // (sensor, time in ms, value)
    ///     let readings = job.read("in", vec![("a".to_owned(), 1_000i64, 7i64), ("a".to_owned(), 9_000, 9)]);
    ///     let readings = readings.event_time(|reading| reading.1, Watermark::bounded(secs(1)));
    ///     let highest = readings
    ///         .key_by(|reading| reading.0.clone())
    ///         .window(Tumbling::of(secs(10)))
    ///         .max_by_key(|reading| reading.2)
    ///         .uid("highest");
    ///     highest.map(|window| (window.key, window.end, window.value.2)).write("out", Collect);
    /// })?;
    /// let out = run.committed::<(String, Timestamp, i64)>("out");
    /// assert_eq!(out, [("a".to_owned(), Timestamp::from_ms(10_000), 9)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A stream without event times, and windows that can't be (of no length), are reported when the job is checked.
    #[track_caller]
    pub fn window(&self, windows: impl WindowKind<V>) -> WindowedStream<K, V> {
        let at = Location::caller();
        let layout = windows.layout().unwrap_or_else(|why| {
            self.job.error(at, why);
            Layout::any()
        });
        if layout.needs_event_time() && !self.job.plan().is_timed(self.port) {
            let why = "windows go by event time, which these records don't have: give them one with `.event_time(...)` before \
                       `.key_by(...)` (only stateless operators, windows and process functions pass it on), or take windows \
                       `.by_clock()`";
            self.job.error(at, why);
        }
        let lateness = Duration::ZERO;
        WindowedStream { input: self.clone(), layout, lateness, telling: WhenOver, at }
    }

    /// Windows of so many records of a key, one behind the other: each is told of when it is full, and what isn't full waits.
    ///
    /// ```text
    /// count_window(3)             records  1  2  3  4  5  6  7
    ///                             told           1-3      4-6
    /// sliding_count_window(3, 2)  told        1-2   2-4   4-6
    /// ```
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(1, |job| {
    ///     let numbers = job.read("in", (1..=7u64).map(|n| ("a".to_owned(), n)).collect::<Vec<_>>());
    ///     let threes = numbers.keyed().count_window(3).sum(|n| n).uid("threes");
    ///     threes.map(|window| window.value).write("sums", Collect);
    ///     let last = numbers.keyed().sliding_count_window(3, 2).collect().uid("last");
    ///     last.map(|window| window.value).write("lists", Collect);
    /// })?;
    /// assert_eq!(run.committed::<u64>("sums"), [6, 15]);
    /// assert_eq!(run.committed::<Vec<u64>>("lists"), [vec![1, 2], vec![2, 3, 4], vec![4, 5, 6]]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn count_window(&self, records: u64) -> WindowedStream<K, V, Triggers<V>> {
        self.check_count(records, "of no records");
        self.window(Global).trigger(CountTrigger::of(records).purging())
    }

    /// The last `records` records of a key, told of after every `every` of them. See [`count_window`](Self::count_window).
    #[track_caller]
    pub fn sliding_count_window(
        &self,
        records: u64,
        every: u64,
    ) -> WindowedStream<K, V, Evicting<V>> {
        self.check_count(records.min(every), "of no records, or after every none");
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        self.window(Global).trigger(CountTrigger::of(every)).keep_last(records)
    }

    #[track_caller]
    fn check_count(&self, records: u64, what: &str) {
        if records == 0 {
            self.job.error(Location::caller(), format!("there are no windows {what}"));
        }
    }
}

impl<V: Data> Stream<V> {
    /// Puts all records into windows, whatever their keys: [`KeyedStream::window`] with one key, and so on one worker.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, secs};
    /// use highwater::Tumbling;
    ///
    /// let run = testing::run(2, |job| {
    ///     let times = job.read("in", vec![1_000i64, 2_000, 12_000]);
    ///     let times = times.event_time(|time| *time, Watermark::bounded(secs(5)));
    ///     let tens = times.window_all(Tumbling::of(secs(10))).count().uid("tens");
    ///     tens.map(|window| (window.start.as_ms(), window.value)).write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(i64, u64)>("out"), [(0, 2), (10_000, 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn window_all(&self, windows: impl WindowKind<V>) -> WindowedStream<(), V> {
        self.key_by(|_| ()).window(windows)
    }
}

impl<K: Key, V: Data, W: Telling<V>> WindowedStream<K, V, W> {
    /// Keeps windows so much longer, in event time, after they have been told of: a record that belongs to one changes it, and it is told
    /// of again, once for each epoch with such records. The last row of a window is the right one.
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        WindowedStream { lateness, ..self }
    }

    /// How many records each window has.
    pub fn count(self) -> Windowed<K, V, u64> {
        self.step("window_count", Count)
    }

    /// The sum of what `number` takes from each record.
    pub fn sum<N>(self, number: impl Fn(V) -> N + Send + Sync + 'static) -> Windowed<K, V, N>
    where
        N: Data + Default + Add<Output = N>,
    {
        self.step("window_sum", Sum(number))
    }

    /// Combines the records of each window, two at a time. `f` must be associative, since windows share what they have in common.
    pub fn reduce(self, f: impl Fn(V, V) -> V + Send + Sync + 'static) -> Windowed<K, V, V> {
        self.step("window_reduce", Reduce(f))
    }

    /// Folds the records of each window into an accumulator, which starts as a copy of `init`; `merge` adds a second accumulator to
    /// a first one, where windows overlap or grow together.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, secs};
    /// use highwater::Sliding;
    ///
    /// let run = testing::run(2, |job| {
    ///     let readings = job.read("in", vec![(1_000i64, 7i64), (11_000, 8)]);
    ///     let readings = readings.event_time(|reading| reading.0, Watermark::monotonous());
    ///     let count_and_sum = readings.key_by(|_| "all".to_owned()).window(Sliding::of(secs(20), secs(10))).fold(
    ///         (0u64, 0i64),
    ///         |acc, (_, value)| { acc.0 += 1; acc.1 += value; },
    ///         |acc, other| { acc.0 += other.0; acc.1 += other.1; },
    ///     );
    ///     count_and_sum.map(|window| (window.start.as_ms(), window.value)).write("out", Collect);
    /// })?;
    /// let expected = [(-10_000, (1, 7)), (0, (2, 15)), (10_000, (1, 8))];
    /// assert_eq!(run.committed::<(i64, (u64, i64))>("out"), expected);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fold<A: Data + Sync>(
        self,
        init: A,
        add: impl Fn(&mut A, V) + Send + Sync + 'static,
        merge: impl Fn(&mut A, A) + Send + Sync + 'static,
    ) -> Windowed<K, V, A> {
        self.step("window_fold", Merged { step: Fold { init, add }, merge })
    }

    /// Folds the records of each window as `aggregate` says.
    pub fn aggregate<G: MergeAggregate<In = V>>(self, aggregate: G) -> Windowed<K, V, G::Out> {
        self.step("window_aggregate", ByAggregate(aggregate))
    }

    /// The smallest record of each window; of several, the first.
    pub fn min(self) -> Windowed<K, V, V>
    where
        V: Ord,
    {
        self.step("window_min", Best(|held: &V, new: &V| new < held))
    }

    /// The largest record of each window; of several, the first.
    pub fn max(self) -> Windowed<K, V, V>
    where
        V: Ord,
    {
        self.step("window_max", Best(|held: &V, new: &V| new > held))
    }

    /// The record of each window for which `order` is smallest; of several, the first.
    pub fn min_by_key<O: Ord>(
        self,
        order: impl Fn(&V) -> O + Send + Sync + 'static,
    ) -> Windowed<K, V, V> {
        self.step("window_min_by_key", Best(move |held: &V, new: &V| order(new) < order(held)))
    }

    /// The record of each window for which `order` is largest; of several, the first.
    pub fn max_by_key<O: Ord>(
        self,
        order: impl Fn(&V) -> O + Send + Sync + 'static,
    ) -> Windowed<K, V, V> {
        self.step("window_max_by_key", Best(move |held: &V, new: &V| order(new) > order(held)))
    }

    /// All records of each window, for whoever must see them together; every one is state until then. Those that several panes or sessions
    /// brought together are in the order of these, and otherwise in the order in which they came.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, secs};
    /// use highwater::Session;
    ///
    /// let run = testing::run(1, |job| {
    ///     let clicks = job.read("in", vec![("ann".to_owned(), 1_000i64), ("ann".to_owned(), 3_000), ("ann".to_owned(), 60_000)]);
    ///     let clicks = clicks.event_time(|click| click.1, Watermark::monotonous());
    ///     // A process-window function: whatever one makes of a window and its records.
    ///     let paths = clicks.key_by(|click| click.0.clone()).window(Session::with_gap(secs(10))).collect();
    ///     paths.map(|visit| (visit.start.as_ms(), visit.value.len())).write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(i64, usize)>("out"), [(1_000, 2), (60_000, 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn collect(self) -> Windowed<K, V, Vec<V>> {
        self.step("window_collect", Collected)
    }
}

impl<K, V, W> fmt::Debug for WindowedStream<K, V, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {:?}", self.input, self.layout.axis)
    }
}

/// What comes out of windows: a stream of [`WindowResult`]s, and what came too late for them.
pub struct Windowed<K, V, O> {
    main: Stream<WindowResult<K, O>>,
    late: Stream<(K, V)>,
    job: Job,
    wants_late: Arc<AtomicBool>,
}

impl<K, V, O> Windowed<K, V, O> {
    /// What comes out of a node, whose operator reads `wants_late` when it is made.
    fn new(job: Job, node: NodeId, wants_late: Arc<AtomicBool>) -> Self {
        let (main, late) = (Stream::new(job.clone(), node, 0), Stream::new(job.clone(), node, 1));
        Windowed { main, late, job, wants_late }
    }

    /// Records that came when all of their windows were over. They are counted in any case: records in are records used and records
    /// late.
    ///
    /// ```
    /// use highwater::testing::{self, Collect, Script};
    /// use highwater::time::{Watermark, secs};
    /// use highwater::Tumbling;
    ///
    /// let run = testing::run(1, |job| {
    ///     let times = Script::new().record(1_000i64).epoch().record(20_000).epoch().record(2_000);
    ///     let times = job.read("in", times).event_time(|time| *time, Watermark::monotonous());
    ///     let counts = times.key_by(|_| "all".to_owned()).window(Tumbling::of(secs(10))).count();
    ///     counts.late().map(|(_, time)| time).write("late", Collect);
    ///     counts.write("counts", Collect);
    /// })?;
    /// assert_eq!(run.committed::<i64>("late"), [2_000]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn late(&self) -> Stream<(K, V)> {
        self.wants_late.store(true, Ordering::Relaxed);
        self.job.plan().set_outputs(self.late.port().node, 2);
        self.late.clone()
    }

    /// Names the operator, and so its windows; see [`Stream::uid`].
    #[track_caller]
    pub fn uid(self, uid: &str) -> Self {
        self.main.uid(uid);
        self
    }
}

impl<K, V, O> Deref for Windowed<K, V, O> {
    type Target = Stream<WindowResult<K, O>>;

    fn deref(&self) -> &Stream<WindowResult<K, O>> {
        &self.main
    }
}

impl<K, V, O> From<Windowed<K, V, O>> for Stream<WindowResult<K, O>> {
    fn from(windowed: Windowed<K, V, O>) -> Self {
        windowed.main
    }
}

impl<K, V, O> fmt::Debug for Windowed<K, V, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.main.fmt(f)
    }
}
