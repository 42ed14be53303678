//! The inputs of a host: what has arrived, in the order of arrival, with rows of later intervals set aside.
//!
//! No channel is ever blocked: whatever arrives is taken at once and kept here, with the input capability that it came with, so
//! that the frontier of the host doesn't pass it.

use std::collections::{BTreeMap, VecDeque};

use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::InputCapability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;
use timely::progress::operate::FrontierInterest;

use super::Rows;
use super::route::{self, Whole};
use crate::batch::Batch;
use crate::plan::Exchange;
use crate::time::Epoch;

/// A batch that has arrived.
pub(super) struct Item {
    pub(super) port: usize,
    pub(super) epoch: Epoch,
    pub(super) capability: InputCapability<u64>,
    pub(super) batch: Batch,
}

type Pull = Box<dyn FnMut(&mut dyn FnMut(InputCapability<u64>, Batch))>;

/// All inputs of a host.
#[derive(Default)]
pub(super) struct Intake {
    inputs: Vec<Pull>,
    /// Of the present interval, or of any if intervals aren't kept apart.
    queue: VecDeque<Item>,
    /// Of later intervals.
    aside: BTreeMap<u32, VecDeque<Item>>,
    /// The present interval; rows of later ones are set aside.
    interval: Option<u32>,
}

impl Intake {
    /// `interval` is given if intervals are to be kept apart: the first one.
    pub(super) fn new(interval: Option<u32>) -> Self {
        Intake { interval, ..Intake::default() }
    }

    /// Adds an input to an operator under construction; answers its number.
    pub(super) fn add<'scope>(
        &mut self,
        builder: &mut OperatorBuilder<'scope, u64>,
        stream: Rows<'scope>,
        exchange: Exchange,
        interest: FrontierInterest,
        worker: usize,
    ) -> usize {
        let number = self.inputs.len();
        let pull: Pull = match exchange {
            Exchange::Pipeline => {
                let mut input = builder.new_input(stream, Pipeline);
                Box::new(move |take| input.for_each(|c, batch| take(c, std::mem::take(batch))))
            }
            Exchange::Keyed | Exchange::Rebalance => {
                let whole = match exchange {
                    Exchange::Rebalance => Whole::InTurn,
                    _ => Whole::To(0),
                };
                let mut input = builder.new_input(stream, route::pact(whole, worker));
                Box::new(move |take| input.for_each(|c, batch| take(c, std::mem::take(batch))))
            }
        };
        builder.set_notify_for(number, interest);
        self.inputs.push(pull);
        number
    }

    /// Takes everything that has arrived.
    pub(super) fn pull(&mut self) {
        let Intake { inputs, queue, aside, interval } = self;
        for (port, input) in inputs.iter_mut().enumerate() {
            input(&mut |capability, batch| {
                let Some(timestamp) = capability.least() else {
                    unreachable!("the engine sends nothing without a time")
                };
                let epoch = Epoch::from_timestamp(*timestamp);
                let item = Item { port, epoch, capability, batch };
                match interval {
                    Some(present) if epoch.interval() > *present => {
                        aside.entry(epoch.interval()).or_default().push_back(item);
                    }
                    _ => queue.push_back(item),
                }
            });
        }
    }

    /// The next batch to deal with.
    pub(super) fn pop(&mut self) -> Option<Item> {
        self.queue.pop_front()
    }

    /// Goes on to a later interval.
    pub(super) fn advance(&mut self, interval: u32) {
        debug_assert!(self.queue.is_empty(), "an interval ends when all its rows are dealt with");
        self.interval = Some(interval);
        if let Some(items) = self.aside.remove(&interval) {
            self.queue = items;
        }
    }

    /// The oldest epoch of which something has arrived and isn't dealt with, and how many batches have. For people: epochs arrive
    /// nearly in order, so the first few batches tell.
    pub(super) fn backlog(&self) -> (Option<Epoch>, usize) {
        const FEW: usize = 64;
        let queues = || std::iter::once(&self.queue).chain(self.aside.values());
        let first = queues().flatten().take(FEW).map(|item| item.epoch);
        (first.min(), queues().map(VecDeque::len).sum())
    }

    /// Whether nothing waits to be dealt with now.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}

/// The timestamp below which nothing can arrive any more; none at the end of everything.
pub(super) fn least(frontiers: &[MutableAntichain<u64>]) -> Option<Epoch> {
    let least = frontiers.iter().filter_map(|frontier| frontier.frontier().first().copied()).min();
    least.map(Epoch::from_timestamp)
}
