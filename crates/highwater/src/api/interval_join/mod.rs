//! Joins of two streams by how far apart their records happened.
//!
//! ```text
//! orders   ─Left─▶ ┐              left rows of each key by time  ─┐
//!                  ├─▶ one input ─▶                               ├─▶ pairs, when the second of them is here
//! payments ─Right▶ ┘              right rows of each key by time ─┘   rows that are alone, when their interval has passed
//! ```
//!
//! Rows go by event time and wait for each other in [`operator`], which see.

mod operator;
mod rows;

use std::fmt;
use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_runtime::plan::{Edge, Exchange, NodeId, Times};
use highwater_runtime::{Data, Wants};

use super::job::{Job, Spec};
use super::time::RelativeTime;
use super::{Either, Key, KeyedStream, Stream};
use operator::{IntervalJoinOperator, Match};
use rows::Bounds;

/// Two keyed streams whose records are joined if they happened near each other; made by [`KeyedStream::interval_join`].
#[must_use]
pub struct IntervalJoin<K, L, R> {
    both: KeyedStream<K, Either<L, R>>,
    bounds: Bounds,
    at: &'static Location<'static>,
}

impl<K: Key, L: Data> KeyedStream<K, L> {
    /// Joins each record with those of the other stream that have the same key and happened within an interval around it, from `lower` to
    /// `upper`, both included, to the millisecond.
    ///
    /// ```text
    /// orders.interval_join(&payments, before(secs(2)), after(secs(5)))
    ///
    /// orders            10
    /// payments    7  8     15  16
    /// join()         (10, 8)  (10, 15)      each when the second of the two is here
    /// ```
    ///
    /// A record is kept until the watermark has passed the last moment at which one could come that matches it (and up to a quarter of the interval's
    /// length more, since records are forgotten together). One that comes below the watermark is [late](Joined::late), and is joined with nothing.
    /// A pair has the later time of its two records.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, after, before, secs};
    ///
    /// let run = testing::run(2, |job| {
    ///     let time = |record: &(u64, i64)| record.1;
    ///     let orders = job.read("orders", vec![(1u64, 10_000i64), (2, 10_000)]);
    ///     let orders = orders.event_time(time, Watermark::bounded(secs(1))).key_by(|order| order.0);
    ///     let payments = job.read("payments", vec![(1u64, 7_000i64), (1, 8_000), (1, 15_000), (1, 16_000)]);
    ///     let payments = payments.event_time(time, Watermark::bounded(secs(1))).key_by(|payment| payment.0);
    ///     let near = orders.interval_join(&payments, before(secs(2)), after(secs(5)));
    ///     let paid = near.join().uid("paid");
    ///     paid.map(|(order, (_, payment))| (order, payment.1)).write("out", Collect);
    /// })?;
    /// let mut out = run.committed::<(u64, i64)>("out");
    /// out.sort();
    /// assert_eq!(out, [(1, 8_000), (1, 15_000)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Streams without event times, and an interval that ends before it begins, are reported when the job is checked.
    #[track_caller]
    pub fn interval_join<R: Data>(
        &self,
        other: &KeyedStream<K, R>,
        lower: RelativeTime,
        upper: RelativeTime,
    ) -> IntervalJoin<K, L, R> {
        let at = Location::caller();
        let both = self.connect(other);
        let bounds = Bounds::new(lower.as_ms(), upper.as_ms()).unwrap_or_else(|why| {
            self.job.error(at, why);
            Bounds::POINT
        });
        if !self.job.plan().is_timed(both.port) {
            let why = "an interval join goes by event time, which the records of both streams must have: give them one with \
                       `.event_time(...)` before `.key_by(...)`";
            self.job.error(at, why);
        }
        IntervalJoin { both, bounds, at }
    }
}

impl<K: Key, L: Data, R: Data> IntervalJoin<K, L, R> {
    /// Every pair.
    pub fn join(&self) -> Joined<K, L, R, (L, R)> {
        self.build("interval_join", (false, false), |found| match found {
            Match::Pair(left, right) => Some((left, right)),
            Match::Left(_) | Match::Right(_) => None,
        })
    }

    /// Every pair; a record of the left stream for which there is none comes alone, when the watermark has passed its interval and itself. It then has the
    /// time of the interval's end, or its own if that is later.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, after, secs};
    ///
    /// let run = testing::run(2, |job| {
    ///     let time = |record: &(u64, i64)| record.1;
    ///     let orders = job.read("orders", vec![(1u64, 10_000i64), (2, 10_000)]);
    ///     let orders = orders.event_time(time, Watermark::bounded(secs(1))).key_by(|order| order.0);
    ///     let payments = job.read("payments", vec![(1u64, 15_000i64)]);
    ///     let payments = payments.event_time(time, Watermark::bounded(secs(1))).key_by(|payment| payment.0);
    ///     let paid = orders.interval_join(&payments, after(secs(0)), after(secs(5))).left_outer_join();
    ///     let unpaid = paid.filter(|(_, (_, payment))| payment.is_none());
    ///     unpaid.map(|(order, _)| order).write("unpaid", Collect);
    /// })?;
    /// assert_eq!(run.committed::<u64>("unpaid"), [2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn left_outer_join(&self) -> Joined<K, L, R, (L, Option<R>)> {
        self.build("interval_left_join", (true, false), |found| match found {
            Match::Pair(left, right) => Some((left, Some(right))),
            Match::Left(left) => Some((left, None)),
            Match::Right(_) => None,
        })
    }

    /// As [`left_outer_join`](Self::left_outer_join), for records of the right stream.
    pub fn right_outer_join(&self) -> Joined<K, L, R, (Option<L>, R)> {
        self.build("interval_right_join", (false, true), |found| match found {
            Match::Pair(left, right) => Some((Some(left), right)),
            Match::Left(_) => None,
            Match::Right(right) => Some((None, right)),
        })
    }

    /// As [`left_outer_join`](Self::left_outer_join), for records of both streams.
    pub fn full_outer_join(&self) -> Joined<K, L, R, (Option<L>, Option<R>)> {
        self.build("interval_full_join", (true, true), |found| match found {
            Match::Pair(left, right) => Some((Some(left), Some(right))),
            Match::Left(left) => Some((Some(left), None)),
            Match::Right(right) => Some((None, Some(right))),
        })
    }

    /// Appends the operator. `alone` says of which sides records that match none are told of.
    fn build<O: Data>(
        &self,
        name: &'static str,
        alone: (bool, bool),
        make: impl Fn(Match<L, R>) -> Option<O> + Copy + Send + Sync + 'static,
    ) -> Joined<K, L, R, O> {
        let IntervalJoin { both: KeyedStream { job, port, .. }, bounds, at } = self;
        let spec = Spec {
            name,
            inputs: vec![Edge { from: *port, exchange: Exchange::Keyed }],
            outputs: 1,
            wants: Wants { state: true, epochs: true },
            times: Times::Given,
            watermark: job.plan().watermark_of(&[*port], at),
            at,
        };
        let (bounds, wants_late) = (*bounds, Arc::new(AtomicBool::new(false)));
        let wanted = wants_late.clone();
        let node = job.operator(spec, move |context| {
            let wants_late = wanted.load(Ordering::Relaxed);
            IntervalJoinOperator::<K, L, R, _>::new(context, bounds, alone, make, wants_late)
        });
        Joined::new(job.clone(), node, wants_late)
    }
}

impl<K, L, R> fmt::Debug for IntervalJoin<K, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} joined within {:?}", self.both, self.bounds)
    }
}

/// What comes out of an [interval join](KeyedStream::interval_join): a stream of keys with what was joined, and what came too late.
pub struct Joined<K, L, R, O> {
    main: Stream<(K, O)>,
    late: Stream<(K, Either<L, R>)>,
    job: Job,
    wants_late: Arc<AtomicBool>,
}

impl<K, L, R, O> Joined<K, L, R, O> {
    /// What comes out of a node, whose operator reads `wants_late` when it is made.
    fn new(job: Job, node: NodeId, wants_late: Arc<AtomicBool>) -> Self {
        let (main, late) = (Stream::new(job.clone(), node, 0), Stream::new(job.clone(), node, 1));
        Joined { main, late, job, wants_late }
    }

    /// Records of either stream that came below the watermark, and were joined with nothing. They are counted in any case.
    pub fn late(&self) -> Stream<(K, Either<L, R>)> {
        self.wants_late.store(true, Ordering::Relaxed);
        self.job.plan().set_outputs(self.late.port().node, 2);
        self.late.clone()
    }

    /// Names the operator, and so the records that it keeps; see [`Stream::uid`].
    #[track_caller]
    pub fn uid(self, uid: &str) -> Self {
        self.main.uid(uid);
        self
    }
}

impl<K, L, R, O> Deref for Joined<K, L, R, O> {
    type Target = Stream<(K, O)>;

    fn deref(&self) -> &Stream<(K, O)> {
        &self.main
    }
}

impl<K, L, R, O> From<Joined<K, L, R, O>> for Stream<(K, O)> {
    fn from(joined: Joined<K, L, R, O>) -> Self {
        joined.main
    }
}

impl<K, L, R, O> fmt::Debug for Joined<K, L, R, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.main.fmt(f)
    }
}
