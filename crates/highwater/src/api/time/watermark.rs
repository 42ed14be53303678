//! How far behind the times of its records event time is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use highwater_runtime::alignment::Align;
use highwater_runtime::watermark::Stragglers;

use super::Timestamp;
use super::timestamp::{as_ms, event_ms};

/// How the watermark of a stream is made from its records: the event time up to which everything is thought to have been seen.
///
/// It is made for each split (file, partition) and is the least of these; see [`Stream::event_time`](crate::Stream::event_time).
///
/// ```text
/// times of a split     10  12  11  17  13  20
/// bounded(5)            5   7   7  12  12  15    13 came late by 4, which is within the bound
/// monotonous           10  12  12  17  17  20    11 and 13 are late
/// ```
pub struct Watermark<T> {
    made: Made<T>,
    stragglers: Stragglers,
}

enum Made<T> {
    Behind(i64),
    Told(Arc<Tell<T>>),
    Generated(Arc<Generate<T>>),
}

/// Makes the generator of a split.
type Generate<T> = dyn Fn() -> Box<dyn WatermarkGenerator<T>> + Send + Sync;

/// Makes a watermark of the records of one split by a rule of one's own, which may remember something: what disorder there was of late, say.
/// Used with [`Watermark::generated`].
///
/// What it remembers isn't state: after a restart it begins anew. The watermark doesn't; it never falls, whatever a generator answers.
pub trait WatermarkGenerator<T>: Send + 'static {
    /// Takes the next record of the split and its time. May answer a time below which nothing comes any more.
    fn record(&mut self, record: &T, at: Timestamp) -> Option<Timestamp>;
}

/// What a batch of records with their times tells.
type Tell<T> = dyn Fn(&[T], &[i64]) -> Option<i64> + Send + Sync;

/// The generators of the splits that have had records.
pub(super) type Generators<T> = BTreeMap<String, Box<dyn WatermarkGenerator<T>>>;

impl<T: 'static> Watermark<T> {
    fn made(made: Made<T>) -> Self {
        Watermark { made, stragglers: Stragglers::default() }
    }

    /// Records come in the order of their times.
    #[must_use]
    pub fn monotonous() -> Self {
        Self::bounded(Duration::ZERO)
    }

    /// Records come at most so much out of order: the watermark is that much behind the highest time.
    #[must_use]
    pub fn bounded(disorder: Duration) -> Self {
        Watermark::made(Made::Behind(as_ms(disorder)))
    }

    /// The records say it themselves: `tell` is shown every one with its time, and may answer a time below which nothing comes any
    /// more from the same split. For sources with marks among their records, and for rules of one's own.
    ///
    /// ```
    /// use highwater::time::{Timestamp, Watermark};
    ///
    /// #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// enum Message { Reading(f64), EverythingBefore(i64) }
    ///
    /// let marks = Watermark::told(|message: &Message, _time| match message {
    ///     Message::EverythingBefore(time) => Some(Timestamp::from_ms(*time)),
    ///     Message::Reading(_) => None,
    /// });
    /// # let _ = marks;
    /// ```
    #[must_use]
    pub fn told(tell: impl Fn(&T, Timestamp) -> Option<Timestamp> + Send + Sync + 'static) -> Self {
        let all = move |rows: &[T], times: &[i64]| {
            let told = rows.iter().zip(times).filter_map(|(row, time)| tell(row, (*time).into()));
            told.max().map(Timestamp::as_ms)
        };
        Watermark::made(Made::Told(Arc::new(all)))
    }

    /// A rule of one's own for each split: `make` makes one when the split has its first record.
    ///
    /// ```
    /// use highwater::time::{Timestamp, Watermark, WatermarkGenerator};
    ///
    /// /// Twice as far behind as the largest disorder so far.
    /// #[derive(Default)]
    /// struct Adaptive { highest: i64, disorder: i64 }
    ///
    /// impl WatermarkGenerator<(u64, i64)> for Adaptive {
    ///     fn record(&mut self, _: &(u64, i64), at: Timestamp) -> Option<Timestamp> {
    ///         self.disorder = self.disorder.max(self.highest - at.as_ms());
    ///         self.highest = self.highest.max(at.as_ms());
    ///         Some(Timestamp::from_ms(self.highest - 2 * self.disorder))
    ///     }
    /// }
    ///
    /// let watermark = Watermark::generated(Adaptive::default);
    /// # let _ = watermark;
    /// ```
    #[must_use]
    pub fn generated<G: WatermarkGenerator<T>>(
        make: impl Fn() -> G + Send + Sync + 'static,
    ) -> Self {
        let make = move || -> Box<dyn WatermarkGenerator<T>> { Box::new(make()) };
        Watermark::made(Made::Generated(Arc::new(make)))
    }

    /// A split that has had no record for so long doesn't hold the watermark back any more, until it has one again. What it
    /// brings then may be late.
    ///
    /// A split counts as silent from the start of the job on, also one that never has a record; not while reading is paused
    /// because the job can't keep up. Files of one worker are read one after another, so this is for sources without an end.
    #[must_use]
    pub fn idle_after(mut self, silence: Duration) -> Self {
        self.stragglers.idle_after = Some(silence);
        self
    }

    /// A split that is further ahead of the one that is furthest behind than this, in event time, isn't read until that one has caught up. So
    /// what windows and joins hold of those ahead stays bounded, however unevenly splits are read.
    ///
    /// ```text
    /// align_within(10)   split a     5   8            15   19
    ///                    split b     4  14  (waits)        18  27
    /// ```
    ///
    /// ```
    /// use highwater::connectors::Generator;
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, mins, secs};
    /// use highwater::Tumbling;
    ///
    /// let run = testing::run(2, |job| {
    ///     // Rows of the odd split are an hour ahead.
    ///     let times = Generator::new(|row| (row / 2 * 1_000 + row % 2 * 3_600_000) as i64).splits(2).limit(2_000);
    ///     let watermark = Watermark::bounded(secs(1)).align_within(mins(2));
    ///     let times = job.read("in", times).event_time(|time: &i64| *time, watermark);
    ///     times.window_all(Tumbling::of(mins(1))).count().uid("counts").write("out", Collect);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A split counts from its first record in an attempt on, while it is neither idle nor at its end; those that wait behind another one for their
    /// reader, as files do, don't. It may get ahead by what is read in some ten milliseconds more. Splits of several sources are aligned with each
    /// other if their streams are [united](crate::Stream::union) before they get their times, or are of one [group](Self::align_group). What comes out
    /// doesn't depend on it.
    ///
    /// Give it where records are as they were read: it is refused behind operators with state, which regroup them, and for a source whose splits are
    /// aligned by another watermark.
    #[must_use]
    pub fn align_within(mut self, ahead: Duration) -> Self {
        self.stragglers.align = Some(Align { within: ahead, group: None });
        self
    }

    /// As [`align_within`](Self::align_within), together with the splits of all other streams of the job that name the same group: orders wait for
    /// payments, say, which are records of another type with a time and a watermark of their own. Each stream says for itself how far ahead its splits may be.
    ///
    /// ```
    /// use highwater::connectors::Generator;
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, after, before, mins, secs};
    ///
    /// let run = testing::run(2, |job| {
    ///     let orders = Generator::new(|row| (row % 7, row as i64 * 1_000)).splits(1).limit(100);
    ///     let watermark = Watermark::bounded(secs(1)).align_group("money", mins(2));
    ///     let orders = job.read("orders", orders).event_time(|order| order.1, watermark).key_by(|order| order.0);
    ///     let payments = Generator::new(|row| (row % 7, row as i64 * 1_000, "card".to_owned())).splits(1).limit(100);
    ///     let watermark = Watermark::bounded(secs(1)).align_group("money", mins(2));
    ///     let payments = job.read("payments", payments).event_time(|payment| payment.1, watermark).key_by(|payment| payment.0);
    ///     orders.interval_join(&payments, before(mins(1)), after(mins(1))).join().write("out", Collect);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn align_group(mut self, group: &str, ahead: Duration) -> Self {
        self.stragglers.align = Some(Align { within: ahead, group: Some(group.to_owned()) });
        self
    }

    pub(in crate::api) fn stragglers(&self) -> Stragglers {
        self.stragglers.clone()
    }

    /// What records of a split with these times tell, if anything.
    pub(super) fn reached(
        &self,
        rows: &[T],
        times: &[i64],
        split: &str,
        generators: &mut Generators<T>,
    ) -> Option<i64> {
        let told = match &self.made {
            Made::Behind(disorder) => {
                times.iter().max().map(|highest| highest.saturating_sub(*disorder))
            }
            Made::Told(tell) => tell(rows, times),
            Made::Generated(make) => {
                if !generators.contains_key(split) {
                    generators.insert(split.to_owned(), make());
                }
                let generator = generators.get_mut(split)?;
                let records = rows.iter().zip(times);
                let told = records.filter_map(|(row, at)| generator.record(row, (*at).into()));
                told.max().map(Timestamp::as_ms)
            }
        };
        // No record is later. The end of time is for those to tell who know that nothing comes any more.
        told.map(event_ms)
    }
}

impl<T> Clone for Watermark<T> {
    fn clone(&self) -> Self {
        let made = match &self.made {
            Made::Behind(disorder) => Made::Behind(*disorder),
            Made::Told(tell) => Made::Told(tell.clone()),
            Made::Generated(make) => Made::Generated(make.clone()),
        };
        Watermark { made, stragglers: self.stragglers.clone() }
    }
}

impl<T> fmt::Debug for Watermark<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.made {
            Made::Behind(disorder) => write!(f, "Watermark({disorder} ms behind")?,
            Made::Told(_) => write!(f, "Watermark(told")?,
            Made::Generated(_) => write!(f, "Watermark(generated")?,
        }
        if let Some(silence) = self.stragglers.idle_after {
            write!(f, ", idle after {silence:?}")?;
        }
        if let Some(Align { within, group }) = &self.stragglers.align {
            let of = group.as_ref().map(|group| format!(" of {group:?}")).unwrap_or_default();
            write!(f, ", aligned within {within:?}{of}")?;
        }
        write!(f, ")")
    }
}
