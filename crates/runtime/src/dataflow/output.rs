//! One output of a host: a place to put batches, at an epoch for which the host holds a capability.

use timely::dataflow::channels::pushers::Output as Pusher;
use timely::dataflow::operators::CapabilityTrait;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::Rows;
use crate::batch::Batch;
use crate::operator::Outputs;

/// An output of a timely operator.
pub(super) struct Output(Pusher<u64, Batch>);

impl Output {
    /// Adds an output to an operator under construction.
    pub(super) fn add<'scope>(builder: &mut OperatorBuilder<'scope, u64>) -> (Self, Rows<'scope>) {
        let (pusher, stream) = builder.new_output::<Batch>();
        (Output(pusher), stream)
    }

    /// Sends a batch.
    pub(super) fn give(&mut self, capability: &impl CapabilityTrait<u64>, mut batch: Batch) {
        self.0.activate().give(capability, &mut batch);
    }
}

/// Sends what an operator emitted; `capability` gives the right one for each output.
pub(super) fn send<'c, C: CapabilityTrait<u64> + 'c>(
    outputs: &mut [Output],
    emitted: &mut Outputs,
    capability: impl Fn(usize) -> &'c C,
) {
    for (port, batch) in emitted.batches.drain(..) {
        outputs[port].give(capability(port), batch);
    }
}
