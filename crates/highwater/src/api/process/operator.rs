//! The operator around a process function.
//!
//! Records are handed over as they come, unless the function has timers, states with a lifetime or a second input. Then they wait until it is their epoch's turn
//! ([`Ordered`]), or until the epoch is complete if something that all workers get comes first, and timers that are due at its end
//! follow: what a function sees then depends on epochs alone.
//!
//! ```text
//! plain         rows ─▶ record
//! timers        rows ─▶ Ordered ─epoch before is complete─▶ record ... ─epoch complete─▶ timer ... (event timers up to the watermark, then the clock's)
//! second input  rows ─▶ Ordered ─epoch complete─▶ broadcast ... ─▶ record ... ─▶ timer ...
//! ```

use highwater_runtime::{
    Batch, BoxError, Epoch, EpochBegin, EpochEnd, Keyed, Operator, OperatorContext, Outputs, Work,
};
use highwater_state::{AHEAD, StateTable};

use super::broadcast::SecondInput;
use super::context::{Moment, Now};
use super::side::emit_rows;
use super::timers::By;
use super::{Context, Process, States};
use crate::api::ordered::{BATCHES_TAKEN, Ordered, Timed};
use crate::api::{BATCH_ROWS, SLICE_ROWS};

/// The operator.
pub(in crate::api) struct ProcessOperator<P: Process> {
    process: P,
    cx: Context<P>,
    /// Only if records wait for their epoch.
    input: Option<Ordered<P::Key, P::In>>,
    second: Option<Box<dyn SecondInput<P>>>,
}

impl<P: Process> ProcessOperator<P> {
    /// `is_timed` says whether the rows that it gets have event times.
    pub(in crate::api) fn new(
        context: &OperatorContext,
        declare: impl Fn(&mut States<P>) -> P,
        is_timed: bool,
    ) -> Self {
        let (groups, is_first) = (context.groups.clone(), context.worker == 0);
        let mut states = States::new(context.key_groups, groups, is_first);
        let process = declare(&mut states);
        let input = states.needs_epochs().then(Ordered::default);
        ProcessOperator { process, cx: Context::new(states, is_timed), input, second: None }
    }

    /// As [`new`](Self::new), with a second input.
    pub(super) fn with_second(
        context: &OperatorContext,
        declare: impl Fn(&mut States<P>) -> P,
        is_timed: bool,
        second: Box<dyn SecondInput<P>>,
    ) -> Self {
        let operator = ProcessOperator::new(context, declare, is_timed);
        ProcessOperator { input: Some(Ordered::default()), second: Some(second), ..operator }
    }

    /// Hands over so many batches of the epoch whose turn it is, or some less if they are large. Answers whether those were all.
    fn take_in(
        &mut self,
        batches: usize,
        epoch: Epoch,
        out: &mut Outputs,
    ) -> Result<Work, BoxError> {
        let (mut taken, mut taken_rows) = (0, 0);
        while let Some(timed) = self.input.as_mut().and_then(|input| input.next(epoch)) {
            taken += 1;
            taken_rows += timed.0.rows.len();
            self.records(epoch, timed, out)?;
            if taken >= batches || taken_rows >= SLICE_ROWS {
                return Ok(Work::More);
            }
        }
        Ok(Work::Done)
    }

    /// Hands rows over, and emits what comes of them.
    fn records(
        &mut self,
        epoch: Epoch,
        (keyed, times): Timed<P::Key, P::In>,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let mut times = times.into_iter();
        for (index, (key, value)) in keyed.rows.into_iter().enumerate() {
            if index % AHEAD == 0 {
                let soon = index..keyed.hashes.len().min(index + AHEAD);
                self.cx.look_ahead(&keyed.hashes[soon]);
            }
            let hash = keyed.hashes[index];
            let at = times.next().map_or(Moment::None, Moment::Record);
            self.cx.enter(epoch, (hash, key), at, index);
            self.process.record(value, &mut self.cx)?;
        }
        self.emit(out);
        Ok(())
    }

    /// Calls timers for a while. Answers whether those were all that are due.
    fn timers(&mut self, epoch: Epoch, now: Now, out: &mut Outputs) -> Result<Work, BoxError> {
        let mut called = 0;
        for by in [By::EventTime, By::Clock] {
            let until = match by {
                By::EventTime => now.watermark.unwrap_or(i64::MIN),
                By::Clock => now.clock_ms,
            };
            loop {
                if called % AHEAD == 0 {
                    self.cx.look_ahead_due(by, until);
                }
                let Some((timers, at, hash, key)) = self.cx.take_due(by, until) else { break };
                self.cx.enter(epoch, (hash, key), Moment::Timer(by, at), called);
                self.process.timer(timers, at.into(), &mut self.cx)?;
                called += 1;
                if called % BATCH_ROWS == 0 {
                    self.emit(out);
                }
                if called >= SLICE_ROWS {
                    return Ok(Work::More);
                }
            }
        }
        self.emit(out);
        Ok(Work::Done)
    }

    fn emit(&mut self, out: &mut Outputs) {
        let (rows, times) = self.cx.take_emitted();
        emit_rows(0, rows, times, out);
        for (index, side) in self.cx.sides.iter_mut().enumerate() {
            side.hand_on(1 + index, out);
        }
    }
}

impl<P: Process> Operator for ProcessOperator<P> {
    fn receive(
        &mut self,
        port: usize,
        epoch: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        match (&mut self.input, &mut self.second) {
            (_, Some(second)) if port == 1 => second.receive(epoch, batch),
            (Some(input), second) => {
                // What all workers get comes first, at the epoch's end.
                if input.receive(epoch, batch)? && second.is_none() {
                    self.take_in(BATCHES_TAKEN, epoch, out)?;
                }
                Ok(())
            }
            (None, _) => {
                let timed = batch.take_timed::<Keyed<P::Key, P::In>>()?;
                self.records(epoch, timed, out)
            }
        }
    }

    fn begin(&mut self, begin: &EpochBegin) {
        if let Some(input) = &mut self.input {
            input.begin(begin.epoch);
            self.cx.now = Some(Now::of_records(begin.clock_ms, begin.late_below));
        }
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        self.cx.now = Some(Now::of_records(end.clock_ms, end.late_below));
        if let Some(second) = &mut self.second {
            self.cx.leave();
            if !second.hand_over(end.epoch, &mut self.process, &mut self.cx)? {
                return Ok(Work::More);
            }
        }
        if self.take_in(usize::MAX, end.epoch, out)? == Work::More {
            return Ok(Work::More);
        }
        let now = Now { watermark: end.watermark, ..Now::of_records(end.clock_ms, end.late_below) };
        self.cx.now = Some(now);
        if self.timers(end.epoch, now, out)? == Work::More {
            return Ok(Work::More);
        }
        self.input.iter_mut().for_each(Ordered::finish);
        self.second.iter_mut().for_each(|second| second.finish());
        self.cx.tidy_timers();
        self.cx.clean();
        Ok(Work::Done)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        self.cx.tables.iter_mut().flat_map(|table| table.state_tables()).collect()
    }

    fn restored(&mut self) {
        self.cx.tables.iter_mut().for_each(|table| table.restored());
    }
}
