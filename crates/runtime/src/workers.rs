//! The workers of an attempt on this process: threads that timely starts, from their restored state to the end of the dataflow.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_env::{Seat, Turn, Wire};
use timely::CommunicationConfig;
use timely::communication::{Allocator, AllocatorBuilder, WorkerGuards, initialize_from};
use timely::worker::Config as WorkerConfig;
use tokio::sync::mpsc::UnboundedSender;

use crate::Error;
use crate::attempt::{Attempt, lock};
use crate::cluster::{self, Data, Wires};
use crate::dataflow::{self, Pacer, Ready, Worker};
use crate::plan::Checked;
use crate::recover::Recovered;

/// A worker with nothing to do looks around at least so often.
const PARK_MAX: Duration = Duration::from_millis(50);

/// The workers of an attempt on this process.
pub(crate) struct Workers {
    guards: WorkerGuards<()>,
    /// Their connections with other processes are real ones.
    connected: bool,
    /// One of them has panicked, and the process goes on (in a simulation and in tests).
    panicked: Arc<AtomicBool>,
}

impl Workers {
    /// The attempt has come to its end. A worker that hangs in a user's function, or a connection with another process: nobody waits for it.
    ///
    /// Nor for timely's own threads after a panic: what they share with the worker is poisoned then, so that they panic, and the guards
    /// with them.
    pub(crate) fn end(self, attempt: &Attempt) {
        let panicked = self.panicked.load(Ordering::Acquire);
        if attempt.workers_running() > 0 || self.connected || panicked {
            std::mem::forget(self.guards);
        }
    }
}

/// Starts the workers, connected through `wires` with those of other processes, if there are any. `ready` is for worker 0.
pub(crate) fn start(
    plan: Checked,
    recovered: Recovered,
    attempt: &Arc<Attempt>,
    wires: Option<Wires>,
    ready: Option<UnboundedSender<Ready>>,
) -> Result<Workers, Error> {
    let workers = attempt.settings.workers;
    let is_socket = |data: &Data| matches!(data.wire, Wire::Socket(_));
    let connected = wires.iter().flatten().flatten().any(is_socket);
    let failed = |why: String| Error::Io {
        what: "starting workers".to_owned(),
        source: std::io::Error::other(why),
    };
    let (builders, guard) = connect(attempt, wires).map_err(failed)?;
    let shared = Arc::new((plan, recovered));
    let seats = (0..workers).map(|worker| Some((shared.clone(), attempt.env.seat(worker))));
    let (seats, ready) = (Mutex::new(seats.collect::<Vec<_>>()), Mutex::new(ready));
    drop(shared);
    let owner = attempt.clone();
    let panicked = Arc::new(AtomicBool::new(false));
    let panics = panicked.clone();
    let work = move |allocator: Allocator| {
        let index = allocator.index();
        let ready = if index == 0 { lock(&ready).take() } else { None };
        let here = index % workers;
        let (shared, mut seat) = lock(&seats)[here].take().expect("each worker starts once");
        let result = catch_unwind(AssertUnwindSafe(|| {
            let left = work(allocator, shared, &owner, ready, &mut *seat);
            // A worker that is connected with other processes isn't even dropped, because its connections would then say that it has
            // come to its end.
            if connected {
                std::mem::forget(left);
            }
        }));
        if let Err(panic) = result {
            panics.store(true, Ordering::Release);
            owner.fail(Error::Panic { worker: index, message: message(&*panic) });
        }
        owner.worker_left();
    };
    // Timely's builders can only be built on threads of its own; these are the engine's workers.
    let guards = initialize_from(builders, guard, work).map_err(failed)?;
    Ok(Workers { guards, connected, panicked })
}

/// Timely's allocators for the workers of this process.
fn connect(
    attempt: &Arc<Attempt>,
    wires: Option<Wires>,
) -> Result<(Vec<AllocatorBuilder>, Box<dyn Any + Send>), String> {
    if let Some(wires) = wires {
        return cluster::connect(attempt, wires).map_err(|error| error.to_string());
    }
    let config = match attempt.settings.workers {
        1 => CommunicationConfig::Thread,
        workers if attempt.settings.exchange_bytes => CommunicationConfig::ProcessBinary(workers),
        workers => CommunicationConfig::Process(workers),
    };
    config.try_build()
}

/// One worker, from its restored state to the end of its dataflow. What is returned hasn't come to its end, because the attempt has.
///
/// Invariant 6: after the attempt's end not one step more, so nothing that is dropped then is ever told to others.
fn work(
    allocator: Allocator,
    shared: Arc<(Checked, Recovered)>,
    attempt: &Arc<Attempt>,
    ready: Option<UnboundedSender<Ready>>,
    seat: &mut dyn Seat,
) -> Option<timely::worker::Worker> {
    if seat.turn(Duration::ZERO) == Turn::Dead {
        return None;
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
            return Some(timely);
        }
    };
    let env = &attempt.env;
    loop {
        let due = pacer.due();
        let idle = due.map_or(PARK_MAX, |due| due.saturating_sub(env.monotonic()).min(PARK_MAX));
        let Turn::Step(idle) = seat.turn(idle) else { return None };
        if attempt.is_over() {
            return Some(timely);
        }
        if due.is_some_and(|due| due <= env.monotonic()) {
            pacer.activate();
        }
        if !timely.step_or_park(Some(idle)) {
            return None;
        }
        worker.release();
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
