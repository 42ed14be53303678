//! The one trait under every operator, typed or SQL, with any number of inputs and outputs.
//!
//! An operator is synchronous and never waits. The runtime hands it the rows of an epoch, tells it when an
//! epoch is complete, and asks for its state tables when an interval ends. It makes sure that rows of a later
//! interval never arrive before the interval is frozen, whatever the number of workers.

use std::ops::Range;
use std::sync::Arc;

use highwater_env::Env;
use highwater_state::{KeyGroups, StateTable};

use crate::{Batch, BoxError, Epoch};

/// One operator on one worker.
pub trait Operator {
    /// Takes rows of `epoch` that arrived at input `port`. Epochs overlap: rows of a later epoch of the same
    /// interval may come before the last rows of an earlier one.
    ///
    /// # Errors
    ///
    /// Ends the attempt: the error is the user's to read.
    fn receive(
        &mut self,
        port: usize,
        epoch: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError>;

    /// All epochs before `begin.epoch` have been dealt with: rows of it needn't wait for its end, whatever depends on what came before.
    /// Called once an epoch, in their order, if the operator wants epochs. Rows of the epoch may have been received before.
    fn begin(&mut self, begin: &EpochBegin) {
        let _ = begin;
    }

    /// All rows of `end.epoch` have been received, on every worker. Called once an epoch, in their order, and only if
    /// the plan says that this operator wants it ([`Wants::epochs`]).
    ///
    /// An operator with much to do answers [`Work::More`] after about two milliseconds, and is called again; it receives
    /// nothing in between.
    ///
    /// # Errors
    ///
    /// Ends the attempt.
    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        let _ = (end, out);
        Ok(Work::Done)
    }

    /// The state of this operator, in an order that never changes.
    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        Vec::new()
    }

    /// State was read back: rebuild whatever is derived from it.
    fn restored(&mut self) {}
}

/// Whether an operator is done with what it was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It is.
    Done,
    /// It wants to be called again.
    More,
}

/// What an operator needs from the runtime; part of the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// It is told when epochs are complete.
    pub epochs: bool,
    /// It has state: it gets a uid, and intervals are kept apart for it.
    pub state: bool,
}

/// An epoch whose turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochBegin {
    /// The epoch.
    pub epoch: Epoch,
    /// As in its [`EpochEnd`].
    pub clock_ms: u64,
    /// As in its [`EpochEnd`].
    pub clock_before_ms: u64,
    /// As in its [`EpochEnd`].
    pub late_below: Option<i64>,
    /// As in its [`EpochEnd`].
    pub trigger: u64,
}

/// A complete epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: Epoch,
    /// The engine's clock in the epoch, in milliseconds since 1970; never runs backwards, also across attempts.
    pub clock_ms: u64,
    /// The clock in the epoch before, also if that was in an attempt before.
    pub clock_before_ms: u64,
    /// The event time up to which everything has been seen at the end of the epoch, in milliseconds since 1970; none before
    /// anything is known, and without event time. Never falls, also across attempts.
    pub watermark: Option<i64>,
    /// The watermark at the end of the epoch before: a row of this epoch with a time below it is late.
    pub late_below: Option<i64>,
    /// The number of the trigger that the epoch belongs to; they rise by one, also across attempts.
    pub trigger: u64,
    /// This is the last epoch of the trigger.
    pub trigger_ends: bool,
    /// All sources are at their end, and there is no further epoch.
    pub finished: bool,
}

impl EpochEnd {
    /// What was known of the epoch when it began.
    pub fn begin(&self) -> EpochBegin {
        let EpochEnd { epoch, clock_ms, clock_before_ms, late_below, trigger, .. } = *self;
        EpochBegin { epoch, clock_ms, clock_before_ms, late_below, trigger }
    }
}

/// Where an operator puts its output.
#[derive(Debug, Default)]
pub struct Outputs {
    pub(crate) batches: Vec<(usize, Batch)>,
    /// Rows that came too late, not yet counted.
    pub(crate) late: u64,
}

impl Outputs {
    /// Emits rows at output `port`, in the epoch for which the operator was called.
    pub fn emit(&mut self, port: usize, batch: Batch) {
        if !batch.is_empty() {
            self.batches.push((port, batch));
        }
    }

    /// Says that so many rows came after the watermark had passed them, for people.
    pub fn count_late(&mut self, rows: u64) {
        self.late += rows;
    }

    /// How many rows were accounted for as late.
    pub fn late_rows(&self) -> u64 {
        self.late
    }

    /// About how many bytes of memory take the rows that were emitted and not yet sent.
    pub(crate) fn bytes(&self) -> usize {
        self.batches.iter().map(|(_, batch)| batch.bytes()).sum()
    }

    /// How many rows were emitted and not yet sent.
    pub(crate) fn rows(&self) -> u64 {
        self.batches.iter().map(|(_, batch)| batch.len() as u64).sum()
    }
}

/// What an operator is told when it is made.
#[derive(Clone, Debug)]
pub struct OperatorContext {
    /// The operator's uid, or its name in the plan if it has no state.
    pub uid: String,
    /// This worker.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
    /// The key space.
    pub key_groups: KeyGroups,
    /// The key groups that this worker owns.
    pub groups: Range<u32>,
    /// Which worker owns each key group.
    pub owners: Arc<[u32]>,
    /// Time and randomness.
    pub env: Arc<dyn Env>,
}

/// A stage: an operator, and stateless ones behind it without an exchange, which run as one.
pub(crate) struct Chain {
    head: Link,
    rest: Vec<Link>,
}

/// One operator of a stage. Its output 0 is the input of the next one, or output 0 of the stage if it is the last.
pub(crate) struct Link {
    pub(crate) operator: Box<dyn Operator>,
    /// The output of the stage at which its output 1 is found, behind which the others follow.
    pub(crate) side: usize,
}

impl Chain {
    pub(crate) fn new(head: Link, rest: Vec<Link>) -> Self {
        Chain { head, rest }
    }
}

/// Hands what an operator whose further outputs are at `side` has `emitted` through the operators behind it, into `out`.
pub(crate) fn run_through(
    behind: &mut [Link],
    side: usize,
    emitted: &mut Outputs,
    epoch: Epoch,
    out: &mut Outputs,
) -> Result<(), BoxError> {
    out.late += std::mem::take(&mut emitted.late);
    for (port, batch) in emitted.batches.drain(..) {
        if port > 0 {
            out.batches.push((side + port - 1, batch));
            continue;
        }
        match behind.split_first_mut() {
            None => out.batches.push((0, batch)),
            Some((next, behind)) => {
                let mut between = Outputs::default();
                next.operator.receive(0, epoch, batch, &mut between)?;
                run_through(behind, next.side, &mut between, epoch, out)?;
            }
        }
    }
    Ok(())
}

impl Operator for Chain {
    fn receive(
        &mut self,
        port: usize,
        epoch: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        if self.rest.is_empty() {
            return self.head.operator.receive(port, epoch, batch, out);
        }
        let mut between = Outputs::default();
        self.head.operator.receive(port, epoch, batch, &mut between)?;
        run_through(&mut self.rest, self.head.side, &mut between, epoch, out)
    }

    fn begin(&mut self, begin: &EpochBegin) {
        self.head.operator.begin(begin);
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        let mut between = Outputs::default();
        let work = self.head.operator.complete(end, &mut between)?;
        run_through(&mut self.rest, self.head.side, &mut between, end.epoch, out)?;
        Ok(work)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        self.head.operator.tables()
    }

    fn restored(&mut self) {
        self.head.operator.restored();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes everything on, and calls all of it late.
    struct Late;

    impl Operator for Late {
        fn receive(
            &mut self,
            port: usize,
            _: Epoch,
            batch: Batch,
            out: &mut Outputs,
        ) -> Result<(), BoxError> {
            out.count_late(batch.len() as u64);
            out.emit(port, batch);
            Ok(())
        }
    }

    #[test]
    fn what_the_head_of_a_chain_calls_late_is_counted_once() {
        /// What has no state is never late.
        struct Pass;
        impl Operator for Pass {
            fn receive(
                &mut self,
                port: usize,
                _: Epoch,
                batch: Batch,
                out: &mut Outputs,
            ) -> Result<(), BoxError> {
                out.emit(port, batch);
                Ok(())
            }
        }
        fn link(operator: impl Operator + 'static) -> Link {
            Link { operator: Box::new(operator), side: 1 }
        }
        let mut alone = Chain::new(link(Late), Vec::new());
        let mut chain = Chain::new(link(Late), vec![link(Pass), link(Pass)]);
        for chain in [&mut alone, &mut chain] {
            let mut out = Outputs::default();
            for _ in 0..2 {
                let batch = Batch::new(vec![1_u64, 2, 3]);
                chain.receive(0, Epoch::new(1, 0), batch, &mut out).unwrap();
            }
            assert_eq!((out.late, out.rows()), (6, 6));
        }
    }
}
