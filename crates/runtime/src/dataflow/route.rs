//! How batches get from worker to worker: as timely's parallelization contracts.

use timely::communication::Push;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::progress::Stamp;

use crate::batch::Batch;

/// Where a batch goes that wasn't dealt out by its sender.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whole {
    /// To this worker.
    To(usize),
    /// To the workers in turn.
    InTurn,
}

/// The contract of an edge between workers.
pub(super) fn pact(whole: Whole, me: usize) -> DistributorPact<impl FnOnce(usize) -> Route> {
    DistributorPact(move |peers| Route { whole, next: me % peers })
}

/// Hands the parts of dealt-out batches to their workers. Keeps nothing back, so there is nothing to flush.
pub(super) struct Route {
    whole: Whole,
    next: usize,
}

impl Distributor<Batch> for Route {
    fn partition<T: Clone, P: Push<Message<T, Batch>>>(
        &mut self,
        container: &mut Batch,
        stamp: &Stamp<T>,
        pushers: &mut [P],
    ) {
        let send = |batch: Batch, pusher: &mut P| {
            if !batch.is_empty() {
                // What the pusher hands back is dropped, so it never needs to be cleared.
                let mut batch = batch;
                Message::push_at(&mut batch, stamp.clone(), pusher);
            }
        };
        match std::mem::take(container).into_parts() {
            Ok(parts) => {
                assert_eq!(parts.len(), pushers.len(), "a batch is dealt to every worker");
                for (part, pusher) in parts.into_iter().zip(pushers) {
                    send(part, pusher);
                }
            }
            Err(batch) => {
                let target = match self.whole {
                    Whole::To(worker) => worker,
                    Whole::InTurn => {
                        self.next = (self.next + 1) % pushers.len();
                        self.next
                    }
                };
                send(batch, &mut pushers[target]);
            }
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Batch>>>(&mut self, _: &Stamp<T>, _: &mut [P]) {}
}
