//! Runs one attempt of a job in this process, alone or with others, from the log's tail to the end of its sources.
//!
//! ```text
//!   alone, or process 0:   (wait for the others) ─▶ number in the log, base, splits ─▶ committer ─▶ (welcome) ─▶ workers
//!   another process:       (say hello) ─▶ (welcome) ─▶ read the base ─▶ workers
//! ```

use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Env, block_on};
use highwater_log::{Log, Store};
use object_store::path::Path;
use tokio::sync::mpsc::unbounded_channel;

use crate::attempt::{Attempt, Control};
use crate::cluster::{Cluster, Formed, Hello, Needless, Place, Signal, Totals, Watch, Welcome};
use crate::commit::Committer;
use crate::plan::{Checked, Plan};
use crate::recover::{self, Recovered};
use crate::{Error, Settings, Trigger, graph, workers};

/// More threads than this are a mistake.
const WORKERS_MAX: usize = 1024;

/// So long a failed attempt waits for workers that are in the middle of a step.
const LEAVE_MAX: Duration = Duration::from_millis(100);

/// How an attempt ended without an error.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
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
    /// Records read in this attempt, by all processes as process 0 knows them.
    pub records_in: u64,
    /// Rows handed to sinks in this attempt, by all processes as process 0 knows them.
    pub records_out: u64,
    /// Checkpoints committed in this attempt, as process 0 knows them.
    pub checkpoints: u64,
}

/// Runs a job in this process alone, until its sources end, it is stopped through the [`Control`], or it fails.
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
    let run = Run::new(job, plan, Settings { processes: 1, ..settings }, env)?;
    run.lead(store, None, started)
}

/// Runs a job in this process, together with those at the other hosts of its `place`.
///
/// After an error the process must end, and soon: its workers stand still, and its connections are still open.
///
/// # Errors
///
/// As [`run`], and if another process is lost or fails.
pub fn run_process(
    job: &str,
    plan: Plan,
    settings: Settings,
    env: Arc<dyn Env>,
    store: Store,
    place: Place,
    started: impl FnOnce(Control),
) -> Result<Outcome, Error> {
    let run = Run::new(job, plan, Settings { processes: place.processes(), ..settings }, env)?;
    match (place.processes(), place.process()) {
        (1, _) => run.lead(store, None, started),
        (_, 0) => run.lead(store, Some(place), started),
        _ => run.follow(store, place, started),
    }
}

/// What is to be run.
struct Run<'a> {
    job: &'a str,
    plan: Checked,
    settings: Settings,
    env: Arc<dyn Env>,
}

impl<'a> Run<'a> {
    fn new(job: &'a str, plan: Plan, settings: Settings, env: Arc<dyn Env>) -> Result<Self, Error> {
        let plan = plan.check(settings.checkpoint_interval.is_some()).map_err(Error::Plan)?;
        if settings.workers == 0 {
            return Err(Error::Setting("a job needs at least one worker".to_owned()));
        }
        let workers = settings.all_workers();
        if workers > WORKERS_MAX {
            let text = format!("{workers} workers are too many; there can be {WORKERS_MAX}");
            return Err(Error::Setting(text));
        }
        Ok(Run { job, plan, settings, env })
    }

    fn checkpoints(&self) -> bool {
        self.settings.checkpoint_interval.is_some()
    }

    fn log(&self, store: &Store) -> Log {
        Log::new(store.clone(), Path::default(), self.env.clone(), self.job)
    }

    /// What this process says of itself to others.
    fn hello(&self, process: usize) -> Result<Hello, Error> {
        let Settings { processes, workers, .. } = self.settings;
        let mut hello = Hello::new(process, processes, workers, self.job);
        let groups = highwater_state::KeyGroups::new(self.settings.key_groups);
        let entries = graph::of(&self.plan, groups, &self.env);
        hello.graph = graph::fingerprint(&self.plan, &entries);
        hello.binary = Hello::binary_of_this_process()?;
        hello.checkpoints = self.checkpoints();
        hello.available_now = matches!(self.settings.trigger, Trigger::AvailableNow { .. });
        Ok(hello)
    }

    /// Asks whether the log says that the job is finished, with all its output published; then no process needs another one.
    fn needless(&self, store: &Store) -> Needless {
        let log = (self.checkpoints() && !self.settings.fresh).then(|| Arc::new(self.log(store)));
        Box::new(move || {
            let log = log.clone();
            Box::pin(async move {
                let Some(log) = log else { return false };
                let Ok(facts) = log.read().await else { return false };
                let newest = facts.checkpoints().next_back();
                newest.is_some_and(|(_, newest)| newest.finished && newest.staged.is_empty())
            })
        })
    }

    /// Says what may become wrong with the plan.
    fn warn(&self) {
        for warning in self.plan.warnings() {
            tracing::warn!(target: "highwater::job", "state may grow without bound: {warning}");
        }
    }

    /// Runs as the one process that writes to the log.
    fn lead(
        self,
        store: Store,
        place: Option<Place>,
        started: impl FnOnce(Control),
    ) -> Result<Outcome, Error> {
        self.warn();
        let cluster = match place {
            None => None,
            Some(place) => {
                let (hello, needless) = (self.hello(0)?, self.needless(&store));
                let gather = Cluster::gather(place, hello, self.env.clone(), needless);
                match block_on(&*self.env, gather)? {
                    Formed::Together(cluster) => Some(cluster),
                    Formed::Needless => None,
                }
            }
        };
        let tell = |cluster: &Option<Cluster>, signal: Signal| {
            if let Some(cluster) = cluster {
                block_on(&*self.env, cluster.tell_all(&signal));
            }
        };
        let failed = |cluster: &Option<Cluster>, error: Error| {
            tell(cluster, Signal::Failed { why: error.to_string() });
            error
        };
        let prepared = self.prepare(&store);
        let (recovered, attempt, mut committer) =
            prepared.map_err(|error| failed(&cluster, error))?;
        let base = recovered.base.as_ref();
        if let Some((number, _)) = base.filter(|(_, base)| base.finished) {
            let number = *number;
            let mut committer = committer.take().expect("a base was found in a log");
            block_on(&*self.env, async move { committer.finish().await });
            check_failure(&attempt, &recovered.log).map_err(|error| failed(&cluster, error))?;
            tell(&cluster, Signal::Done { finished: true });
            return Ok(outcome(&attempt, &recovered, true, Some(number)));
        }
        let others = match cluster {
            None => None,
            Some(cluster) => {
                cluster.welcome(Welcome {
                    incarnation: 0,
                    attempt: recovered.attempt,
                    job_id: recovered.job_id.clone(),
                    base: recovered.base.clone(),
                });
                Some(cluster)
            }
        };
        self.run_workers(recovered, attempt, committer, others, started)
    }

    /// Takes a number in the log, reads the base, and claims the destinations.
    fn prepare(
        &self,
        store: &Store,
    ) -> Result<(Recovered, Arc<Attempt>, Option<Committer>), Error> {
        let log = self.log(store);
        let mut recovered = if self.checkpoints() {
            let (plan, settings, env) =
                (self.plan.clone(), self.settings.clone(), self.env.clone());
            block_on(&*self.env, recover::recover(log, plan, settings, env))?
        } else {
            Recovered::without_checkpoints(log, &self.settings)
        };
        if recovered.base.as_ref().is_none_or(|(_, base)| !base.finished) {
            // Before any sink touches its destination: input that is missing changes nothing.
            recover::find_splits(&self.plan, &mut recovered)?;
        }
        let attempt = self.attempt(0, &recovered);
        let committer = match self.checkpoints() {
            true => Some(start_committer(self.job, &self.plan, &recovered, &attempt)?),
            false => None,
        };
        Ok((recovered, attempt, committer))
    }

    fn attempt(&self, process: usize, recovered: &Recovered) -> Arc<Attempt> {
        let (settings, env) = (self.settings.clone(), self.env.clone());
        let attempt = Attempt::new(self.job, recovered.attempt, process, settings, env);
        attempt.observed.set_storage(recovered.log.health());
        Arc::new(attempt)
    }

    /// Runs as one of the other processes, which leave everything but their own workers to process 0.
    fn follow(
        self,
        store: Store,
        place: Place,
        started: impl FnOnce(Control),
    ) -> Result<Outcome, Error> {
        let process = place.process();
        let (hello, needless) = (self.hello(process)?, self.needless(&store));
        let join = Cluster::join(place, hello, self.env.clone(), needless);
        let (cluster, welcome) = match block_on(&*self.env, join)? {
            Formed::Together(together) => together,
            Formed::Needless => {
                let recovered = Recovered::without_checkpoints(self.log(&store), &self.settings);
                let attempt = self.attempt(process, &recovered);
                return Ok(outcome(&attempt, &recovered, true, None));
            }
        };
        let log = self.log(&store);
        let task = recover::follow(log, welcome, self.settings.clone(), self.env.clone());
        let recovered = block_on(&*self.env, task).inspect_err(|error| {
            let signal = Signal::Failed { why: error.to_string() };
            block_on(&*self.env, cluster.tell_all(&signal));
        })?;
        let attempt = self.attempt(process, &recovered);
        self.run_workers(recovered, attempt, None, Some(cluster), started)
    }

    fn run_workers(
        self,
        recovered: Recovered,
        attempt: Arc<Attempt>,
        committer: Option<Committer>,
        cluster: Option<Cluster>,
        started: impl FnOnce(Control),
    ) -> Result<Outcome, Error> {
        let from = recovered.base.as_ref().map(|(number, _)| *number);
        let log = recovered.log.clone();
        let (others, wires) = match cluster {
            None => (None, None),
            Some(cluster) => {
                let (cluster, wires) = block_on(&*self.env, cluster.mesh())?;
                let others = Watch::start(cluster, &attempt);
                attempt.set_others(&others);
                (Some(others), Some(wires))
            }
        };
        let commits = committer.is_some();
        let (ready, receiver) = unbounded_channel();
        let (committed, committer_done) = tokio::sync::oneshot::channel::<()>();
        if let Some(committer) = committer {
            let task = async move {
                committer.run(receiver).await;
                committed.send(()).ok();
            };
            attempt.env.spawn("commit", Box::pin(task));
            let watch = recover::watch_for_successor(log.clone(), attempt.clone());
            attempt.env.spawn("watch for a successor", Box::pin(watch));
        }
        started(Control(attempt.clone()));
        let summary = outcome(&attempt, &recovered, false, from);
        let ready = self.checkpoints().then_some(ready);
        let workers = workers::start(self.plan, recovered, &attempt, wires, ready)?;
        let (owner, together) = (attempt.clone(), others.clone());
        let finished = block_on(&*attempt.env, async move {
            owner.ended().await;
            if !owner.is_over() && commits {
                // The committer ends after the coordinator, which went with its worker.
                if committer_done.await.is_err() && !owner.is_over() {
                    owner.fail(Error::Committer);
                }
            }
            let finished = match &together {
                Some(others) => end_together(&owner, others).await,
                None => owner.is_finished(),
            };
            if owner.is_over() {
                let moment = owner.env.sleep(LEAVE_MAX);
                futures::future::select(std::pin::pin!(owner.all_left()), moment).await;
            }
            finished
        });
        workers.end(&attempt);
        let failure = check_failure(&attempt, &log);
        if let (Err(error), Some(others)) = (&failure, &others) {
            let signal = Signal::Failed { why: error.to_string() };
            block_on(&*attempt.env, others.tell_all(&signal));
        }
        failure?;
        attempt.end();
        let here = totals(&attempt);
        let there = others.map(|others| others.totals()).unwrap_or_default();
        Ok(Outcome {
            finished,
            records_in: here.records_in + there.records_in,
            records_out: here.records_out + there.records_out,
            checkpoints: attempt.observed.checkpoints(),
            ..summary
        })
    }
}

/// The end of an attempt of several processes: none leaves before the parts of all have come to their end and everything is published.
async fn end_together(attempt: &Attempt, others: &Watch) -> bool {
    if attempt.process == 0 {
        others.all_ended().await;
        let finished = attempt.is_finished();
        if !attempt.is_over() {
            others.dismiss(finished).await;
        }
        return finished;
    }
    if !attempt.is_over() {
        others.end(totals(attempt));
    }
    others.done().await.unwrap_or(false)
}

fn totals(attempt: &Attempt) -> Totals {
    let observed = &attempt.observed;
    Totals { records_in: observed.records_in(), records_out: observed.records_out() }
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
