//! The operator of interval joins: rows in the order of epochs, each of which meets those of the other side that are there already.
//!
//! # Invariants
//!
//! - A pair is found once, when the later one of its rows comes.
//! - A row that isn't late is below nothing that was forgotten: what it could match is there.

use highwater_runtime::{
    Batch, BoxError, Data, Epoch, EpochEnd, Keyed, Operator, OperatorContext, Outputs, Work,
};
use highwater_state::StateTable;

use super::rows::{Bounds, Rows};
use crate::api::ordered::{Ordered, Timed};
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
pub(super) struct IntervalJoinOperator<K, L, R, O> {
    input: Ordered<K, Either<L, R>>,
    bounds: Bounds,
    left: Rows<K, L>,
    right: Rows<K, R>,
    make: fn(Match<L, R>) -> Option<O>,
    wants_late: bool,
    /// State was read back, and no epoch has been completed since.
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

impl<K: Data + Eq, L: Data, R: Data, O: Data> IntervalJoinOperator<K, L, R, O> {
    pub(super) fn new(
        context: &OperatorContext,
        bounds: Bounds,
        alone: (bool, bool),
        make: fn(Match<L, R>) -> Option<O>,
        wants_late: bool,
    ) -> Self {
        IntervalJoinOperator {
            input: Ordered::default(),
            bounds,
            left: Rows::new("left", context, bounds, alone.0),
            right: Rows::new("right", context, bounds.mirrored(), alone.1),
            make,
            wants_late,
            is_restored: false,
        }
    }

    /// Joins rows of an epoch, of which those below `late_below` are late. Answers how many rows and pairs those were.
    fn join(
        &mut self,
        (Keyed { hashes, rows }, times): Timed<K, Either<L, R>>,
        late_below: i64,
        out: &mut Outputs,
    ) -> usize {
        let (mut found, mut late, mut late_count) = (Found::new(), Found::new(), 0);
        let mut dealt_with = rows.len();
        let make = self.make;
        for ((hash, (key, value)), time) in hashes.into_iter().zip(rows).zip(times) {
            if time < late_below {
                late_count += 1;
                if self.wants_late {
                    late.push(&key, Some(value), time);
                }
                continue;
            }
            let around = |bounds: Bounds| {
                time.saturating_add(bounds.lower)..=time.saturating_add(bounds.upper)
            };
            let pairs = match value {
                Either::Left(value) => {
                    let times = around(self.bounds);
                    let (key, pairs) = self.right.matching(hash, key, times, |key, at, other| {
                        let pair = Match::Pair(value.clone(), other.clone());
                        found.push(key, make(pair), time.max(at));
                    });
                    self.left.put(hash, key, time, value, pairs > 0);
                    pairs
                }
                Either::Right(value) => {
                    let times = around(self.bounds.mirrored());
                    let (key, pairs) = self.left.matching(hash, key, times, |key, at, other| {
                        let pair = Match::Pair(other.clone(), value.clone());
                        found.push(key, make(pair), time.max(at));
                    });
                    self.right.put(hash, key, time, value, pairs > 0);
                    pairs
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
        for _ in 0..SLICE_ROWS {
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

impl<K: Data + Eq, L: Data, R: Data, O: Data> Operator for IntervalJoinOperator<K, L, R, O> {
    fn receive(
        &mut self,
        _: usize,
        epoch: Epoch,
        batch: Batch,
        _: &mut Outputs,
    ) -> Result<(), BoxError> {
        self.input.receive(epoch, batch).map(drop)
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        let late_below = end.late_below.unwrap_or(i64::MIN);
        if std::mem::take(&mut self.is_restored) {
            self.left.forget_told(late_below);
            self.right.forget_told(late_below);
        }
        let mut dealt_with = 0;
        while let Some(timed) = self.input.next(end.epoch) {
            dealt_with += self.join(timed, late_below, out);
            if dealt_with >= SLICE_ROWS {
                return Ok(Work::More);
            }
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
