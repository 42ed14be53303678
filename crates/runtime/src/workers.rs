//! The workers of an attempt on this process: threads that timely starts, from their restored state to the end of the dataflow.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_env::{Seat, Turn};
use timely::CommunicationConfig;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::{Allocator, AllocatorBuilder, Hooks, WorkerGuards, initialize_from};
use timely::worker::Config as WorkerConfig;
use tokio::sync::mpsc::UnboundedSender;

use crate::Error;
use crate::attempt::{Attempt, lock};
use crate::cluster::Conduits;
use crate::dataflow::{self, Pacer, Ready, Worker};
use crate::plan::Checked;
use crate::recover::Recovered;

/// A worker with nothing to do looks around at least so often.
const PARK_MAX: Duration = Duration::from_millis(50);

/// Starts the workers, connected through `conduits` with those of other processes, if there are any. `ready` is for worker 0.
pub(crate) fn start(
    plan: Checked,
    recovered: Recovered,
    attempt: &Arc<Attempt>,
    conduits: Option<Conduits>,
    ready: Option<UnboundedSender<Ready>>,
) -> Result<WorkerGuards<()>, Error> {
    let workers = attempt.settings.workers;
    let failed = |why: String| Error::Io {
        what: "starting workers".to_owned(),
        source: std::io::Error::other(why),
    };
    let (builders, guard) = connect(attempt, conduits).map_err(failed)?;
    let shared = Arc::new((plan, recovered));
    let seats = (0..workers).map(|worker| Some((shared.clone(), attempt.env.seat(worker))));
    let (seats, ready) = (Mutex::new(seats.collect::<Vec<_>>()), Mutex::new(ready));
    drop(shared);
    let owner = attempt.clone();
    let work = move |allocator: Allocator| {
        let index = allocator.index();
        let ready = if index == 0 { lock(&ready).take() } else { None };
        let here = index % workers;
        let (shared, mut seat) = lock(&seats)[here].take().expect("each worker starts once");
        let result = catch_unwind(AssertUnwindSafe(|| {
            work(allocator, shared, &owner, ready, &mut *seat);
        }));
        if let Err(panic) = result {
            owner.fail(Error::Panic { worker: index, message: message(&*panic) });
        }
        owner.worker_left();
    };
    // Timely's builders can only be built on threads of its own; these are the engine's workers.
    initialize_from(builders, guard, work).map_err(failed)
}

/// Timely's allocators for the workers of this process.
fn connect(
    attempt: &Attempt,
    conduits: Option<Conduits>,
) -> Result<(Vec<AllocatorBuilder>, Box<dyn Any + Send>), String> {
    let workers = attempt.settings.workers;
    let Some(conduits) = conduits else {
        let config = match workers {
            1 => CommunicationConfig::Thread,
            workers if attempt.settings.exchange_bytes => {
                CommunicationConfig::ProcessBinary(workers)
            }
            workers => CommunicationConfig::Process(workers),
        };
        return config.try_build();
    };
    let hooks = Hooks::default();
    let inner = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
    let (builders, guard) =
        initialize_networking_from_sockets(inner, conduits, attempt.process, workers, hooks)
            .map_err(|error| error.to_string())?;
    Ok((builders.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(guard)))
}

/// One worker, from its restored state to the end of its dataflow.
fn work(
    allocator: Allocator,
    shared: Arc<(Checked, Recovered)>,
    attempt: &Arc<Attempt>,
    ready: Option<UnboundedSender<Ready>>,
    seat: &mut dyn Seat,
) {
    if seat.turn(Duration::ZERO) == Turn::Dead {
        return;
    }
    let (index, peers) = (allocator.index(), allocator.peers());
    let mut timely = timely::worker::Worker::new(WorkerConfig::default(), allocator, None);
    let worker = Worker::new(index, peers, attempt.clone(), shared.1.key_groups);
    let built: Result<Rc<Pacer>, Error> = timely.dataflow::<u64, _, _>(|scope| {
        dataflow::build(scope, &shared.0, &shared.1, &worker, ready)
    });
    drop(shared);
    let pacer = match built {
        Ok(pacer) => pacer,
        Err(error) => {
            attempt.fail(error);
            return leave(timely, attempt);
        }
    };
    let env = &attempt.env;
    loop {
        let due = pacer.due();
        let idle = due.map_or(PARK_MAX, |due| due.saturating_sub(env.monotonic()).min(PARK_MAX));
        let Turn::Step(idle) = seat.turn(idle) else { return };
        if attempt.is_over() {
            return leave(timely, attempt);
        }
        if due.is_some_and(|due| due <= env.monotonic()) {
            pacer.activate();
        }
        if !timely.step_or_park(Some(idle)) {
            return;
        }
        worker.release();
    }
}

/// Invariant 6: not one step more, so nothing that is dropped now is ever told to others. A worker that is connected with other processes
/// isn't even dropped, because its connections would then say that it has come to its end.
fn leave(timely: timely::worker::Worker, attempt: &Attempt) {
    if attempt.settings.processes > 1 {
        std::mem::forget(timely);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
