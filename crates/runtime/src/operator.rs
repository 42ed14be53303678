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

/// A complete epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: Epoch,
    /// The engine's clock in the epoch, in milliseconds since 1970; never runs backwards, also across attempts.
    pub clock_ms: u64,
    /// The event time up to which everything has been seen; none without event time.
    pub watermark: Option<i64>,
    /// This is the last epoch of a trigger.
    pub trigger_ends: bool,
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

/// Stateless operators, one behind the other without an exchange, run as one.
pub(crate) struct Chain {
    pub(crate) head: Box<dyn Operator>,
    pub(crate) rest: Vec<Box<dyn Operator>>,
    between: Outputs,
}

impl Chain {
    pub(crate) fn new(head: Box<dyn Operator>, rest: Vec<Box<dyn Operator>>) -> Self {
        Chain { head, rest, between: Outputs::default() }
    }

    /// Hands what the head emitted through the rest of the chain.
    fn forward(&mut self, epoch: Epoch, out: &mut Outputs) -> Result<(), BoxError> {
        out.late += std::mem::take(&mut self.between.late);
        run_through(&mut self.rest, &mut self.between, epoch, out)
    }
}

/// Hands batches at port 0 of `from` through `stages`, and what comes out of the last into `out`.
pub(crate) fn run_through(
    stages: &mut [Box<dyn Operator>],
    from: &mut Outputs,
    epoch: Epoch,
    out: &mut Outputs,
) -> Result<(), BoxError> {
    let Some((last, inner)) = stages.split_last_mut() else {
        out.batches.append(&mut from.batches);
        return Ok(());
    };
    for (port, mut batch) in from.batches.drain(..) {
        debug_assert_eq!(port, 0, "only the last of a chain has several outputs");
        for stage in inner.iter_mut() {
            let mut next = Outputs::default();
            stage.receive(0, epoch, batch, &mut next)?;
            debug_assert!(next.batches.len() <= 1, "a stateless operator emits one batch for one");
            batch = next.batches.pop().map(|(_, batch)| batch).unwrap_or_default();
        }
        if !batch.is_empty() {
            last.receive(0, epoch, batch, out)?;
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
            return self.head.receive(port, epoch, batch, out);
        }
        self.head.receive(port, epoch, batch, &mut self.between)?;
        self.forward(epoch, out)
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        let work = self.head.complete(end, &mut self.between)?;
        self.forward(end.epoch, out)?;
        Ok(work)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        self.head.tables()
    }

    fn restored(&mut self) {
        self.head.restored();
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
        let mut alone = Chain::new(Box::new(Late), Vec::new());
        let mut chain = Chain::new(Box::new(Late), vec![Box::new(Pass), Box::new(Pass)]);
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
