//! The kinds of windows there are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::calendar::{Days, Unit};
use super::grid::{Grid, Spans, Windows};
use crate::api::time::{LONGEST_MS, as_ms};

/// A kind of windows over records of type `V`: [`Tumbling`], [`Sliding`], [`Cumulating`], [`Session`], [`Calendar`], [`Batches`] or
/// [`Global`].
pub trait WindowKind<V>: sealed::Kind<V> {}

impl<V, T: sealed::Kind<V>> WindowKind<V> for T {}

mod sealed {
    pub trait Kind<V> {
        /// How windows are laid out, or why there can't be any.
        fn layout(self) -> Result<super::Layout<V>, String>;
    }
}

/// How windows are laid out.
#[derive(Clone)]
pub struct Layout<V> {
    /// How they are kept.
    pub(super) kept: Kept<V>,
    /// Along what.
    pub(super) axis: Axis,
}

impl<V> Layout<V> {
    /// Any that can be, in place of one that can't.
    pub(super) fn any() -> Self {
        let spans = Spans::Equal(Grid::tumbling(1, 0));
        Layout { kept: Kept::Disjoint(spans), axis: Axis::EventTime }
    }
}

/// How windows are kept.
#[derive(Clone)]
pub enum Kept<V> {
    /// Each on its own.
    Disjoint(Spans),
    /// As panes that they share.
    Panes(Grid),
    /// As sessions, which grow together.
    Sessions(Gap<V>),
    /// As one that has no end.
    Global,
}

/// What windows are laid out along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Event time: when records happened.
    EventTime,
    /// The engine's clock: when they were read.
    Clock,
    /// The numbers of triggers: with which batch they were read.
    Triggers,
}

/// After how long a silence a session ends, in milliseconds.
pub enum Gap<V> {
    /// The same for all records.
    Fixed(i64),
    /// Each record has its own.
    Of(Arc<dyn Fn(&V) -> Duration + Send + Sync>),
}

impl<V> Gap<V> {
    #[inline]
    pub(super) fn behind(&self, record: &V) -> i64 {
        match self {
            Gap::Fixed(gap) => *gap,
            Gap::Of(of) => as_ms(of(record)).min(LONGEST_MS),
        }
    }
}

impl<V> Clone for Gap<V> {
    fn clone(&self) -> Self {
        match self {
            Gap::Fixed(gap) => Gap::Fixed(*gap),
            Gap::Of(of) => Gap::Of(of.clone()),
        }
    }
}

impl<V> fmt::Debug for Gap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gap::Fixed(gap) => write!(f, "{gap} ms"),
            Gap::Of(_) => write!(f, "by record"),
        }
    }
}

fn some(what: &str, length: Duration) -> Result<i64, String> {
    match as_ms(length) {
        0 => Err(format!("{what} must be a millisecond or more, and this one is {length:?}")),
        ms if ms > LONGEST_MS => {
            Err(format!("{what} of {length:?} is longer than windows can be, 4 million years"))
        }
        ms => Ok(ms),
    }
}

/// Gives the kinds of windows that go by event time a way to go by the clock instead.
macro_rules! by_clock {
    () => {
        /// They go by the engine's clock: a record is in the window of the time at which it is read, no event time is needed, and
        /// nothing is late. The clock never runs backwards, also across restarts; what was read in one epoch has one time.
        ///
        /// What a window comes to then depends on when the job runs.
        #[must_use]
        pub fn by_clock(self) -> Self {
            Self { axis: Axis::Clock, ..self }
        }
    };
}

/// Windows of one length, one behind the other; a record is in one.
///
/// ```text
/// of(10)     |--------|--------|--------|
///            0       10       20       30
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tumbling {
    size: Duration,
    offset: Duration,
    axis: Axis,
}

impl Tumbling {
    /// Windows of this length, of which one begins with 1970 (UTC).
    pub fn of(size: Duration) -> Self {
        Tumbling { size, offset: Duration::ZERO, axis: Axis::EventTime }
    }

    /// They begin so much later.
    #[must_use]
    pub fn offset(self, offset: Duration) -> Self {
        Tumbling { offset, ..self }
    }

    by_clock!();
}

impl<V> sealed::Kind<V> for Tumbling {
    fn layout(self) -> Result<Layout<V>, String> {
        let size = some("the length of windows", self.size)?;
        let grid = Grid::tumbling(size, as_ms(self.offset) % size);
        Ok(Layout { kept: Kept::Disjoint(Spans::Equal(grid)), axis: self.axis })
    }
}

/// Windows of one length, of which one begins every `slide`: they overlap, or leave gaps if the slide is longer.
///
/// ```text
/// of(20, 10)  |-----------------|
///                      |-----------------|
///             0       10       20       30
/// ```
///
/// What overlapping windows have in common is kept once, in panes of the greatest length that divides both.
#[derive(Clone, Copy, Debug)]
pub struct Sliding {
    size: Duration,
    slide: Duration,
    offset: Duration,
    axis: Axis,
}

impl Sliding {
    /// Windows of length `size`, one every `slide`.
    pub fn of(size: Duration, slide: Duration) -> Self {
        Sliding { size, slide, offset: Duration::ZERO, axis: Axis::EventTime }
    }

    /// They begin so much later.
    #[must_use]
    pub fn offset(self, offset: Duration) -> Self {
        Sliding { offset, ..self }
    }

    by_clock!();
}

impl<V> sealed::Kind<V> for Sliding {
    fn layout(self) -> Result<Layout<V>, String> {
        let size = some("the length of windows", self.size)?;
        let slide = some("the slide of windows", self.slide)?;
        let grid = Grid::sliding(size, slide, as_ms(self.offset) % slide);
        Ok(Layout { kept: Kept::Panes(grid), axis: self.axis })
    }
}

/// Windows that grow step by step to a greatest length, and then begin anew: the sum of the day so far, every hour.
///
/// ```text
/// of(30, 10)  |--------|
///             |-----------------|
///             |--------------------------|--------|
///             0       10       20       30       40
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cumulating {
    max: Duration,
    step: Duration,
    offset: Duration,
    axis: Axis,
}

impl Cumulating {
    /// Windows that begin every `max`, and of which one ends every `step`, which must divide it.
    pub fn of(max: Duration, step: Duration) -> Self {
        Cumulating { max, step, offset: Duration::ZERO, axis: Axis::EventTime }
    }

    /// They begin so much later.
    #[must_use]
    pub fn offset(self, offset: Duration) -> Self {
        Cumulating { offset, ..self }
    }

    by_clock!();
}

impl<V> sealed::Kind<V> for Cumulating {
    fn layout(self) -> Result<Layout<V>, String> {
        let max = some("the greatest length of windows", self.max)?;
        let step = some("the step of windows", self.step)?;
        if max % step != 0 {
            let (max, step) = (self.max, self.step);
            return Err(format!(
                "windows that grow by {step:?} never become {max:?} long; let the step divide the length"
            ));
        }
        let windows = Windows::Cumulating { max };
        let grid = Grid { offset: as_ms(self.offset) % max, pane: step, windows };
        Ok(Layout { kept: Kept::Panes(grid), axis: self.axis })
    }
}

/// Windows of activity: a session of a key ends when it has had no record for a while. It reaches from its first record to the
/// gap behind its last one.
///
/// ```text
/// with_gap(10)  |x--x-x---------|        |x---------|
///               0  3  5        15       24         34
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Session {
    gap: Duration,
    axis: Axis,
}

impl Session {
    /// Sessions that so long a time without records ends.
    pub fn with_gap(gap: Duration) -> Self {
        Session { gap, axis: Axis::EventTime }
    }

    /// Sessions that end differently long after different records: each keeps its session alive for as long as `gap` says. A record for
    /// which that is no time is in no session.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, millis, secs};
    /// use highwater::Session;
    ///
    /// let run = testing::run(1, |job| {
    ///     // (time in ms, how long it lasts)
    ///     let songs = job.read("in", vec![(0i64, 200u64), (150, 10), (190, 100), (500, 10)]);
    ///     let songs = songs.event_time(|song| song.0, Watermark::bounded(secs(1)));
    ///     let evenings = songs.key_by(|_| "all".to_owned()).window(Session::with_gap_of(|song: &(i64, u64)| millis(song.1)));
    ///     evenings.count().map(|w| (w.start.as_ms(), w.end.as_ms(), w.value)).write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(i64, i64, u64)>("out"), [(0, 290, 3), (500, 510, 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_gap_of<V>(
        gap: impl Fn(&V) -> Duration + Send + Sync + 'static,
    ) -> SessionsByRecord<V> {
        SessionsByRecord { gap: Gap::Of(Arc::new(gap)), axis: Axis::EventTime }
    }

    by_clock!();
}

impl<V> sealed::Kind<V> for Session {
    fn layout(self) -> Result<Layout<V>, String> {
        let gap = Gap::Fixed(some("the gap of sessions", self.gap)?);
        Ok(Layout { kept: Kept::Sessions(gap), axis: self.axis })
    }
}

/// Sessions with a gap for each record; see [`Session::with_gap_of`].
#[derive(Clone, Debug)]
pub struct SessionsByRecord<V> {
    gap: Gap<V>,
    axis: Axis,
}

impl<V> SessionsByRecord<V> {
    by_clock!();
}

impl<V> sealed::Kind<V> for SessionsByRecord<V> {
    fn layout(self) -> Result<Layout<V>, String> {
        Ok(Layout { kept: Kept::Sessions(self.gap), axis: self.axis })
    }
}

/// Windows of the calendar, as people in a time zone count them. A day has 23 or 25 hours where the clocks are put forward or back, months and years
/// have their own lengths, weeks begin on Monday.
///
/// ```text
/// days("Europe/Berlin")   |------ 24 h ------|----- 23 h -----|------ 24 h ------|
///                         29 March 2025      30 March           31 March
/// ```
///
/// ```
/// use highwater::testing::{self, Collect};
/// use highwater::time::{Watermark, secs};
/// use highwater::Calendar;
///
/// let run = testing::run(1, |job| {
///     // On 30 March 2025, at 0:30, 22:30 and (the next day) 0:30 in Berlin.
///     let sales = job.read("in", vec![1_743_291_000_000i64, 1_743_366_600_000, 1_743_373_800_000]);
///     let sales = sales.event_time(|at| *at, Watermark::bounded(secs(1)));
///     let days = sales.window_all(Calendar::days("Europe/Berlin")).count();
///     let hours = days.map(|day| ((day.end.as_ms() - day.start.as_ms()) / 3_600_000, day.value));
///     hours.write("out", Collect);
/// })?;
/// assert_eq!(run.committed::<(i64, u64)>("out"), [(23, 2), (24, 1)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Calendar {
    unit: Unit,
    zone: String,
    axis: Axis,
}

impl Calendar {
    fn of(unit: Unit, zone: &str) -> Self {
        Calendar { unit, zone: zone.to_owned(), axis: Axis::EventTime }
    }

    /// Days in a zone, by its name in the IANA database: `Europe/Berlin`, `UTC`. A zone that doesn't exist is reported when the job is checked.
    #[must_use]
    pub fn days(zone: &str) -> Self {
        Calendar::of(Unit::Day, zone)
    }

    /// Weeks, from Monday on.
    #[must_use]
    pub fn weeks(zone: &str) -> Self {
        Calendar::of(Unit::Week, zone)
    }

    /// Months.
    #[must_use]
    pub fn months(zone: &str) -> Self {
        Calendar::of(Unit::Month, zone)
    }

    /// Years.
    #[must_use]
    pub fn years(zone: &str) -> Self {
        Calendar::of(Unit::Year, zone)
    }

    by_clock!();
}

impl<V> sealed::Kind<V> for Calendar {
    fn layout(self) -> Result<Layout<V>, String> {
        let days = Days::new(self.unit, &self.zone)?;
        Ok(Layout { kept: Kept::Disjoint(Spans::Calendar(days)), axis: self.axis })
    }
}

/// Windows of whole triggers: what `--trigger` makes a batch is a moment, and windows are so many batches long. They are what the windows of
/// Spark's DStreams are; lengths are numbers of triggers, so they always divide.
///
/// ```text
/// triggers                   0    1    2    3    4    5
/// last(2)                 |----|
///                         |---------|
///                              |---------|
/// last(2).every(2)        |---------|---------|---------|
/// ```
///
/// A window is told of when its last trigger ends; `start` and `end` of its [`WindowResult`](crate::WindowResult) are numbers of triggers, not times. The first windows
/// of a job reach back before its beginning. At the end of all sources all windows are told of.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    length: u32,
    every: u32,
}

impl Batches {
    /// Each trigger by itself.
    #[must_use]
    pub fn each() -> Self {
        Batches { length: 1, every: 1 }
    }

    /// The last so many triggers, at the end of every trigger.
    #[must_use]
    pub fn last(triggers: u32) -> Self {
        Batches { length: triggers, every: 1 }
    }

    /// At the end of every so many triggers only.
    #[must_use]
    pub fn every(self, triggers: u32) -> Self {
        Batches { every: triggers, ..self }
    }
}

impl<V> sealed::Kind<V> for Batches {
    fn layout(self) -> Result<Layout<V>, String> {
        let (length, every) = (i64::from(self.length), i64::from(self.every));
        if length == 0 || every == 0 {
            return Err(
                "windows of triggers are one trigger long or more, and end after every one or more"
                    .into(),
            );
        }
        let kept = match length == every {
            true => Kept::Disjoint(Spans::Equal(Grid::tumbling(length, 0))),
            // The first one ends after `every`.
            false => Kept::Panes(Grid::sliding(length, every, -length)),
        };
        Ok(Layout { kept, axis: Axis::Triggers })
    }
}

/// One window for each key, which has no end: it is told of when a [trigger](crate::WindowTrigger) says so.
///
/// What it holds is kept for ever, unless the trigger purges it.
#[derive(Clone, Copy, Debug)]
pub struct Global;

impl<V> sealed::Kind<V> for Global {
    fn layout(self) -> Result<Layout<V>, String> {
        Ok(Layout { kept: Kept::Global, axis: Axis::EventTime })
    }
}
