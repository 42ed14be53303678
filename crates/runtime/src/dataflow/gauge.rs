//! Measures how far the whole dataflow is: which epochs have left it everywhere.

use std::rc::Rc;

use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::worker::Worker;
use super::{Rows, intake};

/// Watches the ends of the dataflow; whatever still arrives there is dropped.
pub(super) fn build<'scope>(
    scope: Scope<'scope, u64>,
    leaves: Vec<Rows<'scope>>,
    worker: &Rc<Worker>,
) {
    let mut builder = OperatorBuilder::new("gauge".to_owned(), scope);
    let mut inputs: Vec<_> =
        leaves.into_iter().map(|leaf| builder.new_input(leaf, Pipeline)).collect();
    let worker = worker.clone();
    builder.build(move |_| {
        move |frontiers| {
            for input in &mut inputs {
                input.for_each(|_, batch| drop(std::mem::take(batch)));
            }
            let complete = intake::least(frontiers).map_or(u64::MAX, |epoch| epoch.timestamp());
            worker.complete.set(complete);
            worker.facts.set_complete(complete, worker.attempt.env.monotonic());
        }
    });
}
