//! What people see of a running attempt: facts that its parts note as they go, and reports made of them.
//!
//! ```text
//!  hosts, gauge, uploader ──▶ WorkerFacts ─┐
//!  pacer, committer ────────▶ Ledger ──────┼─▶ Observed ─report─▶ ProcessStatus ─┐ (one of each process)
//!  publishers ──────────────▶ Ledger ──────┘                                     └─▶ JobStatus ─▶ status, metrics, progress
//! ```
//!
//! Noting is cheap enough to be always on: counters once a batch, frontiers once a step, the `ledger` a few times a
//! checkpoint. No result depends on anything here, and every number may be a moment older than its neighbour.
//!
//! - `host`: what one operator and one worker note. - `reader`: what a source's reader says about itself.
//! - `ledger`: checkpoints and their publishing. - `status`: reports, as they travel. - `job`: one view of them all.
//! - `held`: who keeps an epoch or a checkpoint from completing.

mod held;
mod host;
mod job;
mod ledger;
mod reader;
mod status;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use highwater_env::Env;
use highwater_log::Health;

use crate::Settings;
use crate::attempt::lock;
use crate::time::Epoch;

pub use held::{CheckpointHeld, EpochHeld, Holder, Phase};
pub use host::{Counter, HostFacts};
pub use job::{JobStatus, OperatorStatus, ProcessShare};
pub use reader::ReaderProgress;
pub use status::{
    CheckpointStatus, CheckpointsStatus, HostKind, HostStatus, Inside, LeaderStatus, ProcessStatus,
    ReaderStatus, SinkStatus, SplitStatus, State, StorageStatus, TroubleStatus, UnderWay,
    WorkerStatus,
};

pub(crate) use host::{HostName, WorkerFacts};
pub(crate) use ledger::{Ledger, WorkerPhases};

/// Everything that is noted of one attempt on one process.
#[derive(Debug)]
pub struct Observed {
    job: String,
    /// When the attempt was made, by the environment's monotonic clock.
    began: Duration,
    workers: Mutex<Vec<Arc<WorkerFacts>>>,
    /// Checkpoints and their publishing; only process 0 has any.
    pub(crate) ledger: Ledger,
    /// The present epoch's timestamp, how many there have been, and the present trigger.
    epoch: AtomicU64,
    epochs: AtomicU64,
    trigger: AtomicU64,
    /// Entries of state that were read back.
    pub(crate) restored_entries: AtomicU64,
    /// When the first row came out of an operator before a sink, and when output of this attempt was first published, in
    /// microseconds of the monotonic clock; 0 if that hasn't happened.
    pub(crate) first_row_us: AtomicU64,
    pub(crate) first_published_us: AtomicU64,
    history: Mutex<History>,
    storage: OnceLock<Arc<Health>>,
    /// The last report of every other process.
    others: Mutex<BTreeMap<usize, ProcessStatus>>,
}

/// What happened to the job before this attempt, as whoever started it says.
#[derive(Clone, Debug, Default)]
struct History {
    restarts: u64,
    last_failure: Option<String>,
}

impl Observed {
    pub(crate) fn new(job: &str, settings: &Settings, now: Duration) -> Self {
        Observed {
            job: job.to_owned(),
            began: now,
            workers: Mutex::default(),
            ledger: Ledger::new(settings.checkpoint_interval),
            epoch: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
            trigger: AtomicU64::new(0),
            restored_entries: AtomicU64::new(0),
            first_row_us: AtomicU64::new(0),
            first_published_us: AtomicU64::new(0),
            history: Mutex::default(),
            storage: OnceLock::new(),
            others: Mutex::default(),
        }
    }

    /// The facts of one more worker of this process, which owns these key groups.
    pub(crate) fn add_worker(&self, index: usize, key_groups: Range<u32>) -> Arc<WorkerFacts> {
        let facts = Arc::new(WorkerFacts::new(index, key_groups));
        lock(&self.workers).push(facts.clone());
        facts
    }

    /// Says how often the job was started again before this attempt, and why the last time.
    pub fn set_history(&self, restarts: u64, last_failure: Option<String>) {
        *lock(&self.history) = History { restarts, last_failure };
    }

    /// How often the job was started again before this attempt, since it was started by whoever looks after it.
    pub fn restarts(&self) -> u64 {
        lock(&self.history).restarts
    }

    /// Says where to learn how the checkpoints' storage is.
    pub(crate) fn set_storage(&self, health: &Arc<Health>) {
        self.storage.set(health.clone()).ok();
    }

    fn storage(&self) -> StorageStatus {
        let Some(health) = self.storage.get() else { return StorageStatus::default() };
        let trouble = health.trouble().map(TroubleStatus::of);
        StorageStatus { failed_calls: health.failed(), trouble }
    }

    /// Keeps the newest report of another process.
    pub fn set_other(&self, report: ProcessStatus) {
        lock(&self.others).insert(report.process, report);
    }

    /// Records that sources of this process have read.
    pub fn records_in(&self) -> u64 {
        self.sum(HostKind::Source, |host| host.records_in.get())
    }

    /// Rows that sinks of this process were handed.
    pub fn records_out(&self) -> u64 {
        self.sum(HostKind::Sink, |host| host.records_in.get())
    }

    /// Checkpoints that were committed.
    pub fn checkpoints(&self) -> u64 {
        self.ledger.committed()
    }

    /// How many bytes the last checkpoint wrote.
    pub fn last_checkpoint_bytes(&self) -> u64 {
        self.ledger.last_bytes()
    }

    /// Entries of state that were read back.
    pub fn restored_entries(&self) -> u64 {
        self.restored_entries.load(Ordering::Relaxed)
    }

    /// Whether a row has come out of an operator before a sink.
    pub fn has_first_row(&self) -> bool {
        self.first_row_us.load(Ordering::Relaxed) > 0
    }

    /// Whether output that this attempt committed has been published.
    pub fn has_first_published(&self) -> bool {
        self.first_published_us.load(Ordering::Relaxed) > 0
    }

    /// An epoch begins.
    pub(crate) fn note_epoch(&self, epoch: Epoch, trigger: u64) {
        self.epoch.store(epoch.timestamp(), Ordering::Relaxed);
        self.epochs.fetch_add(1, Ordering::Relaxed);
        self.trigger.store(trigger, Ordering::Relaxed);
    }

    /// A row has come to a sink.
    pub(crate) fn note_row(&self, env: &dyn Env) {
        if !self.has_first_row() {
            self.first_row_us.store(micros(env.monotonic()).max(1), Ordering::Relaxed);
        }
    }

    /// Output of this attempt was published.
    pub(crate) fn note_published(&self, env: &dyn Env) {
        if !self.has_first_published() {
            self.first_published_us.store(micros(env.monotonic()).max(1), Ordering::Relaxed);
        }
    }

    fn sum(&self, kind: HostKind, count: impl Fn(&HostFacts) -> u64) -> u64 {
        let workers = lock(&self.workers);
        workers.iter().map(|worker| worker.sum(kind, &count)).sum()
    }

    /// What this process would tell another.
    pub(crate) fn report(
        &self,
        process: usize,
        leads: Option<Leads>,
        now: Duration,
    ) -> ProcessStatus {
        let workers = lock(&self.workers);
        ProcessStatus {
            process,
            pid: std::process::id(),
            workers: workers.iter().map(|worker| worker.status(now)).collect(),
            storage: self.storage(),
            leader: leads.map(|leads| self.leader(leads, now)),
        }
    }

    fn leader(&self, Leads { attempt, state, unpublished }: Leads, now: Duration) -> LeaderStatus {
        let History { restarts, last_failure } = lock(&self.history).clone();
        let (checkpoints, sinks) = self.ledger.status(unpublished, now);
        LeaderStatus {
            job: self.job.clone(),
            attempt,
            state,
            running_ms: millis(now.saturating_sub(self.began)),
            restarts,
            last_failure,
            epoch: Epoch::from_timestamp(self.epoch.load(Ordering::Relaxed)),
            epochs: self.epochs.load(Ordering::Relaxed),
            trigger: self.trigger.load(Ordering::Relaxed),
            checkpoints,
            sinks,
        }
    }

    /// The whole job, from this process's report and the newest of all others.
    pub(crate) fn job(&self, own: ProcessStatus) -> Option<JobStatus> {
        let mut processes = vec![own];
        processes.extend(lock(&self.others).values().cloned());
        JobStatus::of(processes)
    }
}

/// What process 0 knows beyond its [`Observed`].
pub(crate) struct Leads {
    pub(crate) attempt: u64,
    pub(crate) state: State,
    pub(crate) unpublished: usize,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
