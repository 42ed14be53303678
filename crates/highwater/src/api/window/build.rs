//! Putting windows into the plan: which operator keeps them depends on their kind, and on who says when they are told of.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater_runtime::plan::{Edge, Exchange, NodeId, Times};
use highwater_runtime::{Data, OperatorContext, Wants};

use super::disjoint::Disjoint;
use super::grid::Spans;
use super::held::{Contents, Evict, Folding, Keeping};
use super::inverse::{Functions, Inverting};
use super::kind::{Axis, Kept, Layout};
use super::operator::{WindowOperator, Windows};
use super::panes::Panes;
use super::session::Sessions;
use super::trigger::{AnyTrigger, AtEnd};
use super::triggered::Triggered;
use super::triggered_sessions::TriggeredSessions;
use super::{WindowTrigger, Windowed, WindowedStream};
use crate::api::job::{Job, Spec};
use crate::api::step::Merge;
use crate::api::time::{Timestamp, as_ms};
use crate::api::{Key, KeyedStream};

/// Who says when windows are told of: [`WhenOver`], [`Triggers`] or [`Evicting`].
pub trait Telling<V>: sealed::Telling<V> {}

impl<V, T: sealed::Telling<V>> Telling<V> for T {}

mod sealed {
    use super::{Build, Data, Key, Merge, NodeId};

    pub trait Telling<V> {
        /// Appends the operator.
        fn build<K: Key, S: Merge<V>>(self, build: Build<V>, step: S) -> NodeId
        where
            V: Data;
    }
}

/// Windows are told of when they are over.
#[derive(Clone, Copy, Debug)]
pub struct WhenOver;

/// A trigger says when windows are told of.
pub struct Triggers<V>(AnyTrigger<V>);

/// A trigger says when windows are told of, and they keep all records, some of which are taken out then.
pub struct Evicting<V> {
    trigger: AnyTrigger<V>,
    evict: Evict<V>,
}

impl<V> fmt::Debug for Triggers<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Triggers")
    }
}

impl<V> fmt::Debug for Evicting<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Evicting")
    }
}

impl<V> Layout<V> {
    /// Whether records must have event times.
    pub(super) fn needs_event_time(&self) -> bool {
        self.axis == Axis::EventTime && !matches!(self.kept, Kept::Global)
    }

    /// For windows of triggers, how many they last, and after how many one ends.
    fn triggers(&self) -> Option<(i64, i64)> {
        match &self.kept {
            _ if self.axis != Axis::Triggers => None,
            Kept::Disjoint(Spans::Equal(grid)) | Kept::Panes(grid) => grid.size_and_slide(),
            _ => None,
        }
    }
}

/// What an operator with windows is made of.
pub struct Build<V> {
    job: Job,
    spec: Spec,
    layout: Layout<V>,
    lateness: i64,
    wants_late: Arc<AtomicBool>,
}

impl<V: Data> Build<V> {
    /// Appends the operator around the windows that `make` makes.
    fn operator<W: Windows + 'static>(
        self,
        make: impl Fn(&OperatorContext, &Kept<V>, i64) -> W + Send + Sync + 'static,
    ) -> NodeId {
        let Build { job, spec, layout, lateness, wants_late } = self;
        let is_timed = spec.times == Times::Given;
        job.operator(spec, move |context| {
            let windows = make(context, &layout.kept, lateness);
            WindowOperator::new(windows, layout.axis, is_timed, wants_late.load(Ordering::Relaxed))
        })
    }

    fn triggered<K: Key, C: Contents<V>>(
        self,
        trigger: AnyTrigger<V>,
        keeps_all: bool,
        contents: impl Fn() -> C + Send + Sync + 'static,
    ) -> NodeId {
        if let Kept::Sessions(gap) = self.layout.kept.clone() {
            return self.operator(move |context, _, lateness| {
                let (trigger, gap) = (trigger.clone(), gap.clone());
                TriggeredSessions::<K, V, C>::new(context, contents(), trigger, gap, lateness)
            });
        }
        let grows = matches!(self.layout.kept, Kept::Global) && keeps_all && !trigger.is_purging();
        let job = self.job.clone();
        let node = self.operator(move |context, kept, lateness| {
            let (trigger, kept) = (trigger.clone(), kept.clone());
            Triggered::<K, V, C>::new(context, contents(), trigger, kept, lateness)
        });
        if grows {
            let why = "its windows have no end, and their trigger never has them forget what they hold: make it a `.purging()` one, or \
                       use `.keep_last(...)`";
            job.plan().warn(node, why);
        }
        node
    }
}

impl<V> sealed::Telling<V> for WhenOver {
    fn build<K: Key, S: Merge<V>>(self, build: Build<V>, step: S) -> NodeId
    where
        V: Data,
    {
        let step = Arc::new(step);
        match build.layout.kept.clone() {
            Kept::Disjoint(spans) => build.operator(move |context, _, lateness| {
                Disjoint::<K, V, S>::new(context, step.clone(), spans.clone(), lateness)
            }),
            Kept::Panes(grid) => build.operator(move |context, _, lateness| {
                Panes::<K, V, S>::new(context, step.clone(), grid, lateness)
            }),
            Kept::Sessions(gap) => build.operator(move |context, _, lateness| {
                Sessions::<K, V, S>::new(context, step.clone(), gap.clone(), lateness)
            }),
            Kept::Global => {
                let why = "a global window is never over: give it a `.trigger(...)`, or use `count_window`";
                build.job.error(build.spec.at, why);
                Triggers(Arc::new(AtEnd))
                    .build::<K, S>(build, Arc::into_inner(step).expect("not shared"))
            }
        }
    }
}

impl<V> sealed::Telling<V> for Triggers<V> {
    fn build<K: Key, S: Merge<V>>(self, build: Build<V>, step: S) -> NodeId
    where
        V: Data,
    {
        let step = Arc::new(step);
        build.triggered::<K, _>(self.0, true, move || Folding(step.clone()))
    }
}

impl<V> sealed::Telling<V> for Evicting<V> {
    fn build<K: Key, S: Merge<V>>(self, build: Build<V>, step: S) -> NodeId
    where
        V: Data,
    {
        let (step, evict) = (Arc::new(step), self.evict);
        build.triggered::<K, _>(self.trigger, false, move || Keeping {
            step: step.clone(),
            evict: evict.clone(),
        })
    }
}

impl<K: Key, V: Data, W: Telling<V>> WindowedStream<K, V, W> {
    /// Appends the operator that makes `step` of each window.
    pub(super) fn step<S: Merge<V>>(self, name: &'static str, step: S) -> Windowed<K, V, S::Out> {
        let (build, job, telling) = self.prepare_telling(name);
        let wants_late = build.wants_late.clone();
        let is_endless = build.lateness == i64::MAX;
        let node = telling.build::<K, S>(build, step);
        if is_endless {
            let why = "its windows are kept for ever, since nothing is ever too late for them: give `.allowed_lateness(...)` an end";
            job.plan().warn(node, why);
        }
        Windowed::new(job, node, wants_late)
    }

    /// What the operator is made of, but for what it does.
    fn prepare_telling(self, name: &'static str) -> (Build<V>, Job, W) {
        let WindowedStream { input: KeyedStream { job, port, .. }, layout, lateness, telling, at } =
            self;
        if layout.axis != Axis::EventTime && !lateness.is_zero() {
            let why = "nothing is late for windows that don't go by event time: leave `.allowed_lateness(...)` out";
            job.error(at, why);
        }
        let watermark = match layout.axis {
            Axis::EventTime => job.plan().watermark_of(&[port], at),
            Axis::Clock | Axis::Triggers => None,
        };
        let spec = Spec {
            name,
            inputs: vec![Edge { from: port, exchange: Exchange::Keyed }],
            outputs: 1,
            wants: Wants { state: true, epochs: true },
            times: if layout.needs_event_time() { Times::Given } else { Times::Dropped },
            watermark,
            at,
        };
        let (lateness, wants_late) = (as_ms(lateness), Arc::new(AtomicBool::new(false)));
        (Build { job: job.clone(), spec, layout, lateness, wants_late }, job, telling)
    }

    fn with<X>(self, telling: X) -> WindowedStream<K, V, X> {
        let WindowedStream { input, layout, lateness, at, .. } = self;
        WindowedStream { input, layout, lateness, telling, at }
    }
}

impl<K: Key, V: Data> WindowedStream<K, V> {
    /// Has windows told of when `trigger` says so: [`AtEnd`], [`CountTrigger`](super::CountTrigger), [`EarlyTrigger`](super::EarlyTrigger) or one of your own.
    ///
    /// Rows of windows that are told of early are replaced by later rows of the same window, unless the trigger is a purging one.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, secs};
    /// use highwater::{EarlyTrigger, Tumbling};
    ///
    /// let run = testing::run(1, |job| {
    ///     let times = job.read("in", vec![1_000i64, 2_000, 3_000, 12_000]);
    ///     let times = times.event_time(|time| *time, Watermark::bounded(secs(5)));
    ///     let tens = times.key_by(|_| "all".to_owned()).window(Tumbling::of(secs(10)));
    ///     let counts = tens.trigger(EarlyTrigger::count(2)).count().uid("counts");
    ///     counts.map(|window| (window.start.as_ms(), window.value)).write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(i64, u64)>("out"), [(0, 2), (0, 3), (10_000, 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn trigger(self, trigger: impl WindowTrigger<V>) -> WindowedStream<K, V, Triggers<V>> {
        self.with(Triggers(Arc::new(trigger)))
    }

    /// Has windows keep all records with their times, and lets `evict` take some out before each time that they are told of (at their end).
    /// Those are gone for good.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, secs};
    /// use highwater::Tumbling;
    ///
    /// let run = testing::run(1, |job| {
    ///     let values = job.read("in", vec![(1_000i64, 7i64), (2_000, 900), (3_000, 8)]);
    ///     let values = values.event_time(|value| value.0, Watermark::bounded(secs(5)));
    ///     let tens = values.key_by(|_| "all".to_owned()).window(Tumbling::of(secs(10)));
    ///     // Without outliers.
    ///     let sums = tens.evict(|values| values.retain(|(_, value)| value.1 < 100)).sum(|value| value.1);
    ///     sums.uid("sums").map(|window| window.value).write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<i64>("out"), [15]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn evict(
        self,
        evict: impl Fn(&mut Vec<(Timestamp, V)>) + Send + Sync + 'static,
    ) -> WindowedStream<K, V, Evicting<V>> {
        self.trigger(AtEnd).evict(evict)
    }

    /// Of each window only the last so many records count, in the order in which they came. See [`evict`](Self::evict).
    pub fn keep_last(self, records: usize) -> WindowedStream<K, V, Evicting<V>> {
        self.trigger(AtEnd).keep_last(records)
    }

    /// Of each window only records count that are no longer than so much before its latest. See [`evict`](Self::evict).
    pub fn keep_within(self, time: Duration) -> WindowedStream<K, V, Evicting<V>> {
        self.trigger(AtEnd).keep_within(time)
    }
}

impl<K: Key, V: Data> WindowedStream<K, V> {
    /// As [`reduce`](Self::reduce), for [`Batches`](super::Batches) of triggers: what falls out of a window is taken away by `inverse` again, so that a window
    /// costs what has changed, however long it is.
    ///
    /// `inverse(reduce(a, b), b)` must be `a` ([`testing::assert_inverts`](crate::testing::assert_inverts)). Every key that ever had a record is told of with every window, unless `keep` answers false
    /// for what its window came to: then the key is forgotten.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::Batches;
    ///
    /// let run = testing::run(2, |job| {
    ///     let words = job.read("in", vec![("a".to_owned(), 1i64), ("b".to_owned(), 1), ("a".to_owned(), 1)]);
    ///     let counts = words
    ///         .keyed()
    ///         .window(Batches::last(10))
    ///         .reduce_with_inverse(|a, b| a + b, |a, b| a - b, |_, count| *count != 0)
    ///         .uid("counts");
    ///     counts.map(|window| (window.key, window.value)).write("out", Collect);
    /// })?;
    /// assert_eq!(run.last_per_key::<String, i64>("out")["a"], 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reduce_with_inverse(
        self,
        reduce: impl Fn(V, V) -> V + Send + Sync + 'static,
        inverse: impl Fn(V, V) -> V + Send + Sync + 'static,
        keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
    ) -> Windowed<K, V, V> {
        let (build, job, WhenOver) = self.prepare_telling("window_reduce_with_inverse");
        let lengths = build.layout.triggers().unwrap_or_else(|| {
            let why = "an inverse function takes away what falls out of windows of triggers: use `Batches`, or `.reduce(...)`, which \
                       shares what windows have in common";
            job.error(build.spec.at, why);
            (1, 1)
        });
        let functions = Arc::new(Functions { reduce, inverse, keep });
        let wants_late = build.wants_late.clone();
        let node = build.operator(move |context, _, _| {
            Inverting::<K, V, _, _, _>::new(context, functions.clone(), lengths)
        });
        Windowed::new(job, node, wants_late)
    }
}

impl<K: Key, V: Data> WindowedStream<K, V, Triggers<V>> {
    /// As [`evict`](WindowedStream::evict) without a trigger of one's own.
    pub fn evict(
        self,
        evict: impl Fn(&mut Vec<(Timestamp, V)>) + Send + Sync + 'static,
    ) -> WindowedStream<K, V, Evicting<V>> {
        let trigger = self.telling.0.clone();
        self.with(Evicting { trigger, evict: Arc::new(evict) })
    }

    /// Of each window only the last so many records count, in the order in which they came.
    pub fn keep_last(self, records: usize) -> WindowedStream<K, V, Evicting<V>> {
        self.evict(move |kept| drop(kept.drain(..kept.len().saturating_sub(records))))
    }

    /// Of each window only records count that are no longer than so much before its latest.
    pub fn keep_within(self, time: Duration) -> WindowedStream<K, V, Evicting<V>> {
        let time = as_ms(time);
        self.evict(move |kept| {
            let latest = kept.iter().map(|(at, _)| at.as_ms()).max();
            kept.retain(|(at, _)| {
                latest.is_some_and(|latest| at.as_ms() >= latest.saturating_sub(time))
            });
        })
    }
}
