//! The operator of interval joins: rows in the order of epochs, each of which meets those of the other side that are there already.
//!
//! # Invariants
//!
//! - A pair is found once, when the later one of its rows comes.
//! - A row that isn't late is below nothing that was forgotten: what it could match is there.

use highwater_runtime::{
    Batch, BoxError, Data, Epoch, EpochBegin, EpochEnd, Keyed, Operator, OperatorContext, Outputs,
    Work,
};
use highwater_state::{AHEAD, StateTable};

use super::rows::{Bounds, Rows, Seen};
use crate::api::ordered::{BATCHES_TAKEN, Ordered, Timed};
use crate::api::stateless::emit;
use crate::api::{BATCH_ROWS, Either, SLICE_ROWS};

/// What is told of.
pub(super) enum Match<L, R> {
    Pair(L, R),
    /// It matches none.
    Left(L),
    /// It matches none.
    Right(R),
}

/// The operator.
pub(super) struct IntervalJoinOperator<K, L, R, F> {
    input: Ordered<K, Either<L, R>>,
    left: Rows<K, L>,
    right: Rows<K, R>,
    /// Makes a row of what is told of.
    make: F,
    wants_late: bool,
    /// Rows below it are late, in the epoch whose turn it is.
    late_below: i64,
    /// State was read back, and no epoch has had its turn since.
    is_restored: bool,
}

/// Rows with their times, on their way out.
struct Found<K, O> {
    rows: Vec<(K, O)>,
    times: Vec<i64>,
}

impl<K: Data, O: Data> Found<K, O> {
    fn new() -> Self {
        Found { rows: Vec::new(), times: Vec::new() }
    }

    #[inline]
    fn push(&mut self, key: &K, row: Option<O>, time: i64) {
        if let Some(row) = row {
            self.rows.push((key.clone(), row));
            self.times.push(time);
        }
    }

    fn emit(&mut self, port: usize, out: &mut Outputs) {
        let (rows, times) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.times));
        emit(out, port, Batch::new(rows).with_times(times));
    }

    fn emit_if_full(&mut self, port: usize, out: &mut Outputs) {
        if self.rows.len() >= BATCH_ROWS {
            self.emit(port, out);
        }
    }
}

impl<K, L, R, O, F> IntervalJoinOperator<K, L, R, F>
where
    K: Data + Eq,
    L: Data,
    R: Data,
    O: Data,
    F: Fn(Match<L, R>) -> Option<O> + Copy,
{
    pub(super) fn new(
        context: &OperatorContext,
        bounds: Bounds,
        alone: (bool, bool),
        make: F,
        wants_late: bool,
    ) -> Self {
        IntervalJoinOperator {
            input: Ordered::default(),
            left: Rows::new("left", context, bounds, alone.0),
            right: Rows::new("right", context, bounds.mirrored(), alone.1),
            make,
            wants_late,
            late_below: i64::MIN,
            is_restored: false,
        }
    }

    /// It is the turn of an epoch in which rows below `late_below` are late.
    fn turn(&mut self, late_below: Option<i64>) {
        self.late_below = late_below.unwrap_or(i64::MIN);
        if std::mem::take(&mut self.is_restored) {
            self.left.forget_told(self.late_below);
            self.right.forget_told(self.late_below);
        }
    }

    /// Joins so many batches of the epoch whose turn it is, or some less if there is much to do for them. Answers whether those were all.
    fn take_in(&mut self, batches: usize, epoch: Epoch, out: &mut Outputs) -> Work {
        let (mut taken, mut dealt_with) = (0, 0);
        while let Some(timed) = self.input.next(epoch) {
            taken += 1;
            dealt_with += self.join(timed, out);
            if taken >= batches || dealt_with >= SLICE_ROWS {
                return Work::More;
            }
        }
        Work::Done
    }

    /// Joins rows. Answers how many rows and pairs those were.
    fn join(
        &mut self,
        (Keyed { hashes, rows }, times): Timed<K, Either<L, R>>,
        out: &mut Outputs,
    ) -> usize {
        let (mut found, mut late, mut late_count) = (Found::new(), Found::new(), 0);
        let mut dealt_with = rows.len();
        let make = self.make;
        let mut seen = [Seen::default(); AHEAD];
        let mut rows = rows.into_iter();
        for (index, (hash, time)) in hashes.iter().copied().zip(times.iter().copied()).enumerate() {
            if index % AHEAD == 0 {
                let soon = hashes[index..].iter().zip(&times[index..]).zip(rows.as_slice());
                for (seen, ((hash, time), row)) in seen.iter_mut().zip(soon.clone()) {
                    *seen = match row.1 {
                        Either::Left(_) => self.left.look_ahead(&self.right, *hash, *time),
                        Either::Right(_) => self.right.look_ahead(&self.left, *hash, *time),
                    };
                }
                for (seen, ((hash, _), row)) in seen.iter().zip(soon) {
                    match row.1 {
                        Either::Left(_) => self.left.prefetch(&self.right, *hash, seen),
                        Either::Right(_) => self.right.prefetch(&self.left, *hash, seen),
                    }
                }
            }
            let seen = seen[index % AHEAD];
            let (key, value) = rows.next().expect("each row has a hash and a time");
            if time < self.late_below {
                late_count += 1;
                if self.wants_late {
                    late.push(&key, Some(value), time);
                }
                continue;
            }
            let place = (hash, key);
            let pairs = match value {
                Either::Left(value) => {
                    let (left, right) = (&mut self.left, &mut self.right);
                    left.meet(right, place, time, value, seen, |key, at, left, right| {
                        found.push(key, make(Match::Pair(left.clone(), right.clone())), at);
                    })
                }
                Either::Right(value) => {
                    let (left, right) = (&mut self.left, &mut self.right);
                    right.meet(left, place, time, value, seen, |key, at, right, left| {
                        found.push(key, make(Match::Pair(left.clone(), right.clone())), at);
                    })
                }
            };
            dealt_with += pairs;
            found.emit_if_full(0, out);
        }
        found.emit(0, out);
        late.emit(1, out);
        out.count_late(late_count);
        dealt_with
    }

    /// Tells of rows that match none, and forgets what is of no use any more, for a while. Answers whether that was all.
    fn pass(&mut self, watermark: i64, out: &mut Outputs) -> Work {
        let (make, mut found) = (self.make, Found::new());
        for passed in 0..SLICE_ROWS {
            if passed % AHEAD == 0 {
                self.left.look_ahead_over(watermark);
                self.right.look_ahead_over(watermark);
            }
            let goes_on = self.left.next_alone(watermark, |key, at, value| {
                found.push(key, make(Match::Left(value.clone())), at);
            }) || self.right.next_alone(watermark, |key, at, value| {
                found.push(key, make(Match::Right(value.clone())), at);
            }) || self.left.forget_one(watermark)
                || self.right.forget_one(watermark);
            if !goes_on {
                found.emit(0, out);
                return Work::Done;
            }
            found.emit_if_full(0, out);
        }
        found.emit(0, out);
        Work::More
    }
}

impl<K, L, R, O, F> Operator for IntervalJoinOperator<K, L, R, F>
where
    K: Data + Eq,
    L: Data,
    R: Data,
    O: Data,
    F: Fn(Match<L, R>) -> Option<O> + Copy,
{
    fn receive(
        &mut self,
        _: usize,
        epoch: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        if self.input.receive(epoch, batch)? {
            self.take_in(BATCHES_TAKEN, epoch, out);
        }
        Ok(())
    }

    fn begin(&mut self, begin: &EpochBegin) {
        self.input.begin(begin.epoch);
        self.turn(begin.late_below);
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        self.turn(end.late_below);
        if self.take_in(usize::MAX, end.epoch, out) == Work::More {
            return Ok(Work::More);
        }
        let work = self.pass(end.watermark.unwrap_or(i64::MIN), out);
        if work == Work::Done {
            self.input.finish();
        }
        Ok(work)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![self.left.table(), self.right.table()]
    }

    fn restored(&mut self) {
        debug_assert!(self.input.is_empty(), "no epoch has begun");
        self.left.restored();
        self.right.restored();
        self.is_restored = true;
    }
}
