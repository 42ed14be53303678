//! The operator around every kind of windows: rows in the order of epochs, and windows that are due at the end of each.

use highwater_runtime::{
    Batch, BoxError, Data, Epoch, EpochBegin, EpochEnd, Operator, Outputs, Work,
};
use highwater_state::StateTable;

use super::WindowResult;
use super::kind::Axis;
use crate::api::ordered::{BATCHES_TAKEN, Ordered, Timed};
use crate::api::stateless::emit;
use crate::api::time::Timestamp;
use crate::api::{BATCH_ROWS, SLICE_ROWS};

/// A way to keep the windows of some keys.
pub(super) trait Windows {
    type Key: Data + Eq;
    type In: Data;
    type Out: Data;

    /// Puts rows of the epoch into their windows; tells of windows that don't wait for the end of the epoch.
    fn add(
        &mut self,
        rows: Timed<Self::Key, Self::In>,
        now: Now,
        late: &mut Late<Self::Key, Self::In>,
        told: &mut ToldRows<Self::Key, Self::Out>,
    );

    /// Tells of windows that are due, and forgets those that are over, until `told` is full. Answers whether that was all.
    fn tell(&mut self, now: Now, told: &mut ToldRows<Self::Key, Self::Out>) -> Work;

    fn tables(&mut self) -> Vec<&mut dyn StateTable>;

    fn restored(&mut self);
}

/// Time in an epoch, of the kind that windows go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) epoch: Epoch,
    /// At the end of the epoch before: windows that ended by then have been told of.
    pub(super) before: i64,
    /// At its end; for rows that are put into windows before, the same as `before`.
    pub(super) watermark: i64,
    /// The engine's clock.
    pub(super) clock: i64,
}

fn ms(ms: u64) -> i64 {
    ms.min(i64::MAX as u64) as i64
}

impl Axis {
    fn begin(self, begin: &EpochBegin) -> Now {
        let before = match self {
            Axis::EventTime => begin.late_below,
            Axis::Clock => Some(ms(begin.clock_before_ms)),
            Axis::Triggers => Some(ms(begin.trigger)),
        };
        let before = before.unwrap_or(i64::MIN);
        let (epoch, clock) = (begin.epoch, ms(begin.clock_ms));
        Now { epoch, before, watermark: before, clock }
    }

    fn end(self, end: &EpochEnd) -> Now {
        let watermark = match self {
            Axis::EventTime => end.watermark,
            // At the end of all sources all windows are told of.
            _ if end.finished => Some(i64::MAX),
            Axis::Clock => Some(ms(end.clock_ms)),
            Axis::Triggers => Some(ms(end.trigger) + i64::from(end.trigger_ends)),
        };
        Now { watermark: watermark.unwrap_or(i64::MIN), ..self.begin(&end.begin()) }
    }

    /// The time of all rows of an epoch, if they don't have their own.
    fn time_of(self, now: Now) -> Option<i64> {
        match self {
            Axis::EventTime => None,
            Axis::Clock => Some(now.clock),
            Axis::Triggers => Some(now.before),
        }
    }
}

/// Rows that came too late.
pub(super) struct Late<K, V> {
    rows: Vec<(K, V)>,
    times: Vec<i64>,
    count: u64,
    /// Somebody wants to have them.
    wanted: bool,
}

impl<K, V> Late<K, V> {
    #[cold]
    pub(super) fn push(&mut self, key: K, value: V, time: i64) {
        self.count += 1;
        if self.wanted {
            self.rows.push((key, value));
            self.times.push(time);
        }
    }
}

/// Rows that tell of windows.
pub(super) struct ToldRows<K, O> {
    rows: Vec<WindowResult<K, O>>,
    /// Of rows that have event times.
    times: Vec<i64>,
    is_timed: bool,
}

impl<K: Data, O: Data> ToldRows<K, O> {
    fn new(is_timed: bool) -> Self {
        ToldRows { rows: Vec::new(), times: Vec::new(), is_timed }
    }

    #[inline]
    pub(super) fn push(&mut self, key: K, (start, end): (i64, i64), value: O) {
        let (start, end_at) = (Timestamp::from_ms(start), Timestamp::from_ms(end));
        self.rows.push(WindowResult { key, start, end: end_at, value });
        if self.is_timed {
            self.times.push(end.saturating_sub(1));
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS
    }

    fn emit(mut self, out: &mut Outputs) {
        while !self.rows.is_empty() {
            let length = self.rows.len().min(BATCH_ROWS);
            let rest = self.rows.split_off(length);
            let rest_times = self.times.split_off(length.min(self.times.len()));
            emit(out, 0, Batch::new(self.rows).with_times(self.times));
            (self.rows, self.times) = (rest, rest_times);
        }
    }
}

/// The operator.
pub(super) struct WindowOperator<W: Windows> {
    windows: W,
    input: Ordered<W::Key, W::In>,
    /// In the epoch whose turn it is.
    now: Option<Now>,
    axis: Axis,
    /// What it tells has event times.
    is_timed: bool,
    wants_late: bool,
}

impl<W: Windows> WindowOperator<W> {
    pub(super) fn new(windows: W, axis: Axis, is_timed: bool, wants_late: bool) -> Self {
        WindowOperator { windows, input: Ordered::default(), now: None, axis, is_timed, wants_late }
    }

    /// Puts so many batches into windows, or some less if they are large. Answers whether those were all.
    fn take_in(&mut self, batches: usize, now: Now, out: &mut Outputs) -> Work {
        let (rows, times) = (Vec::new(), Vec::new());
        let mut late = Late { rows, times, count: 0, wanted: self.wants_late };
        let (mut taken, mut taken_rows) = (0, 0);
        let mut work = Work::Done;
        let mut told = ToldRows::new(self.is_timed);
        while let Some((rows, mut times)) = self.input.next(now.epoch) {
            taken += 1;
            taken_rows += rows.rows.len();
            if let Some(time) = self.axis.time_of(now) {
                times = vec![time; rows.rows.len()];
            }
            self.windows.add((rows, times), now, &mut late, &mut told);
            if taken >= batches || taken_rows >= SLICE_ROWS {
                work = Work::More;
                break;
            }
        }
        told.emit(out);
        out.count_late(late.count);
        let late_times = if self.axis == Axis::EventTime { late.times } else { Vec::new() };
        emit(out, 1, Batch::new(late.rows).with_times(late_times));
        work
    }
}

impl<W: Windows> Operator for WindowOperator<W> {
    fn receive(
        &mut self,
        _: usize,
        epoch: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        if self.input.receive(epoch, batch)? {
            let now = self.now.expect("it is the epoch's turn, since it has begun");
            self.take_in(BATCHES_TAKEN, now, out);
        }
        Ok(())
    }

    fn begin(&mut self, begin: &EpochBegin) {
        self.input.begin(begin.epoch);
        self.now = Some(self.axis.begin(begin));
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        let now = self.axis.end(end);
        if self.take_in(usize::MAX, now, out) == Work::More {
            return Ok(Work::More);
        }
        for _ in 0..SLICE_ROWS / BATCH_ROWS {
            let mut told = ToldRows::new(self.is_timed);
            let work = self.windows.tell(now, &mut told);
            told.emit(out);
            if work == Work::Done {
                self.input.finish();
                return Ok(Work::Done);
            }
        }
        Ok(Work::More)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        self.windows.tables()
    }

    fn restored(&mut self) {
        debug_assert!(self.input.is_empty(), "no epoch has begun");
        self.windows.restored();
    }
}
