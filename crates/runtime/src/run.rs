//! Runs one attempt of a job in this process, from the log's tail to the end of its sources.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_env::{Env, Seat, Turn, block_on};
use highwater_log::{Log, Store};
use object_store::path::Path;
use timely::communication::Allocator;
use timely::worker::Config as WorkerConfig;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::attempt::{Attempt, Control, lock};
use crate::commit::Committer;
use crate::dataflow::{self, Pacer, Ready, Worker};
use crate::plan::{Checked, Plan};
use crate::recover::{self, Recovered};
use crate::{Error, Settings};

/// A worker with nothing to do looks around at least so often.
const PARK_MAX: Duration = Duration::from_millis(50);

/// More threads than this are a mistake.
const WORKERS_MAX: usize = 1024;

/// So long a failed attempt waits for workers that are in the middle of a step.
const LEAVE_MAX: Duration = Duration::from_millis(100);

/// How an attempt ended without an error.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The number of the attempt; 0 if checkpoints are off.
    pub attempt: u64,
    /// The identity of the job's log.
    pub job_id: String,
    /// All sources were read to their end, or with [`Trigger::AvailableNow`](crate::Trigger::AvailableNow) everything that was
    /// there. Otherwise somebody stopped the job.
    pub finished: bool,
    /// It had finished before, and nothing was run now.
    pub already_finished: bool,
    /// The checkpoint it started from, by the number of its entry.
    pub recovered_from: Option<u64>,
    /// Records read in this attempt.
    pub records_in: u64,
    /// Rows handed to sinks in this attempt.
    pub records_out: u64,
    /// Checkpoints committed in this attempt.
    pub checkpoints: u64,
}

/// Runs a job until its sources end, it is stopped through the [`Control`], or it fails.
///
/// `started` is called once workers are about to run; it must not block. `store` holds the checkpoints, and isn't used if
/// the settings switch them off.
///
/// # Errors
///
/// Everything that keeps the job from starting, and whatever ended the attempt.
pub fn run(
    job: &str,
    plan: Plan,
    settings: Settings,
    env: Arc<dyn Env>,
    store: Store,
    started: impl FnOnce(Control),
) -> Result<Outcome, Error> {
    let checkpoints = settings.checkpoint_interval.is_some();
    let plan = plan.check(checkpoints).map_err(Error::Plan)?;
    if settings.workers == 0 {
        return Err(Error::Setting("a job needs at least one worker".to_owned()));
    }
    if settings.workers > WORKERS_MAX {
        let text = format!("{} workers are too many; there can be {WORKERS_MAX}", settings.workers);
        return Err(Error::Setting(text));
    }
    let log = Log::new(store, Path::default(), env.clone(), job);
    let mut recovered = if checkpoints {
        let task = recover::recover(log, plan.clone(), settings.clone(), env.clone());
        block_on(&*env, task)?
    } else {
        Recovered::without_checkpoints(log, &settings)
    };
    let finished = recovered.base.as_ref().filter(|(_, base)| base.finished);
    let finished = finished.map(|(number, _)| *number);
    if finished.is_none() {
        // Before any sink touches its destination: input that is missing changes nothing.
        recover::find_splits(&plan, &mut recovered)?;
    }
    let attempt = Arc::new(Attempt::new(job, recovered.attempt, settings, env.clone()));
    let committer = match checkpoints {
        true => Some(start_committer(job, &plan, &recovered, &attempt)?),
        false => None,
    };
    if let Some(number) = finished {
        let mut committer = committer.expect("a base was found in a log");
        block_on(&*env, async move { committer.finish().await });
        check_failure(&attempt, &recovered.log)?;
        return Ok(outcome(&attempt, &recovered, true, Some(number)));
    }
    run_workers(plan, recovered, attempt, committer, started)
}

fn start_committer(
    job: &str,
    plan: &Checked,
    recovered: &Recovered,
    attempt: &Arc<Attempt>,
) -> Result<Committer, Error> {
    // The task must own what it uses; the image isn't needed for it.
    let slim = Recovered {
        log: recovered.log.clone(),
        attempt: recovered.attempt,
        job_id: recovered.job_id.clone(),
        facts: recovered.facts.clone(),
        base: recovered.base.clone(),
        graph: recovered.graph.clone(),
        progress: recovered.progress,
        key_groups: recovered.key_groups,
        objects: Vec::new(),
        image: Default::default(),
        splits: Default::default(),
    };
    let (job, plan, owner) = (job.to_owned(), plan.clone(), attempt.clone());
    block_on(&*attempt.env, async move {
        match Committer::start(&job, &plan, &slim, &owner).await {
            Err(error) => Err(recover::or_fenced(&slim.log, slim.attempt, error).await),
            started => started,
        }
    })
}

/// What ended the attempt, if it has failed.
fn check_failure(attempt: &Attempt, log: &Arc<Log>) -> Result<(), Error> {
    let Some(failure) = attempt.take_failure() else { return Ok(()) };
    let (log, number) = (log.clone(), attempt.number);
    Err(block_on(&*attempt.env, async move { recover::or_fenced(&log, number, failure).await }))
}

fn outcome(
    attempt: &Attempt,
    recovered: &Recovered,
    already_finished: bool,
    recovered_from: Option<u64>,
) -> Outcome {
    let observed = &attempt.observed;
    Outcome {
        attempt: attempt.number,
        job_id: recovered.job_id.clone(),
        finished: already_finished,
        already_finished,
        recovered_from,
        records_in: observed.records_in(),
        records_out: observed.records_out(),
        checkpoints: observed.checkpoints(),
    }
}

fn run_workers(
    plan: Checked,
    recovered: Recovered,
    attempt: Arc<Attempt>,
    committer: Option<Committer>,
    started: impl FnOnce(Control),
) -> Result<Outcome, Error> {
    let from = recovered.base.as_ref().map(|(number, _)| *number);
    let log = recovered.log.clone();
    let workers = attempt.settings.workers;
    let config = match workers {
        1 => timely::CommunicationConfig::Thread,
        workers if attempt.settings.exchange_bytes => {
            timely::CommunicationConfig::ProcessBinary(workers)
        }
        workers => timely::CommunicationConfig::Process(workers),
    };
    let threads = |why: String| Error::Io {
        what: "starting workers".to_owned(),
        source: std::io::Error::other(why),
    };
    let (builders, guard) = config.try_build().map_err(threads)?;
    let (ready, receiver) = unbounded_channel();
    let (committed, committer_done) = tokio::sync::oneshot::channel::<()>();
    if let Some(committer) = committer {
        let task = async move {
            committer.run(receiver).await;
            committed.send(()).ok();
        };
        attempt.env.spawn("commit", Box::pin(task));
    } else {
        drop(committed);
    }
    started(Control(attempt.clone()));
    let summary = outcome(&attempt, &recovered, false, from);
    let shared = Arc::new((plan, recovered));
    let ready = Mutex::new(attempt.settings.checkpoint_interval.map(|_| ready));
    let seats = (0..workers).map(|worker| Some((shared.clone(), attempt.env.seat(worker))));
    let (seats, owner) = (Mutex::new(seats.collect::<Vec<_>>()), attempt.clone());
    drop(shared);
    let work = move |allocator: Allocator| {
        let index = allocator.index();
        let ready = if index == 0 { lock(&ready).take() } else { None };
        let (shared, mut seat) = lock(&seats)[index].take().expect("each worker starts once");
        let result = catch_unwind(AssertUnwindSafe(|| {
            work(index, workers, allocator, shared, &owner, ready, &mut *seat);
        }));
        if let Err(panic) = result {
            owner.fail(Error::Panic { worker: index, message: message(&*panic) });
        }
        owner.worker_left();
    };
    // Timely's builders can only be built on threads of its own; these are the engine's workers.
    let guards = timely::communication::initialize_from(builders, guard, work).map_err(threads)?;
    let owner = attempt.clone();
    let checkpoints = attempt.settings.checkpoint_interval.is_some();
    block_on(&*attempt.env, async move {
        owner.ended().await;
        if owner.is_over() {
            let moment = owner.env.sleep(LEAVE_MAX);
            futures::future::select(std::pin::pin!(owner.all_left()), moment).await;
        } else {
            // The committer ends after the coordinator, which went with its worker.
            if committer_done.await.is_err() && checkpoints && !owner.is_over() {
                owner.fail(Error::Committer);
            }
        }
    });
    if attempt.workers_running() == 0 {
        drop(guards);
    } else {
        // A worker hangs in a user's function; nobody waits for it.
        std::mem::forget(guards);
    }
    check_failure(&attempt, &log)?;
    attempt.end();
    let observed = &attempt.observed;
    Ok(Outcome {
        finished: attempt.is_finished(),
        records_in: observed.records_in(),
        records_out: observed.records_out(),
        checkpoints: observed.checkpoints(),
        ..summary
    })
}

/// One worker, from its restored state to the end of its dataflow.
fn work(
    index: usize,
    workers: usize,
    allocator: Allocator,
    shared: Arc<(Checked, Recovered)>,
    attempt: &Arc<Attempt>,
    ready: Option<UnboundedSender<Ready>>,
    seat: &mut dyn Seat,
) {
    if seat.turn(Duration::ZERO) == Turn::Dead {
        return;
    }
    let mut timely = timely::worker::Worker::new(WorkerConfig::default(), allocator, None);
    let worker = Worker::new(index, workers, attempt.clone(), shared.1.key_groups);
    let built: Result<Rc<Pacer>, Error> = timely.dataflow::<u64, _, _>(|scope| {
        dataflow::build(scope, &shared.0, &shared.1, &worker, ready)
    });
    drop(shared);
    let pacer = match built {
        Ok(pacer) => pacer,
        Err(error) => {
            attempt.fail(error);
            return;
        }
    };
    let env = &attempt.env;
    loop {
        let due = pacer.due();
        let idle = due.map_or(PARK_MAX, |due| due.saturating_sub(env.monotonic()).min(PARK_MAX));
        let Turn::Step(idle) = seat.turn(idle) else { return };
        if attempt.is_over() {
            // Invariant 6: not one step more, so nothing that is dropped now is ever told to others.
            return;
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

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
