//! What the host of one operator on one worker notes, and what its worker does.
//!
//! Only the worker's thread writes these (a reader's thread beside it writes its [`ReaderProgress`]); anybody may read them.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use highwater_log::Health;

use super::{HostKind, HostStatus, Inside, ReaderProgress, TroubleStatus, WorkerStatus, millis};
use crate::attempt::lock;
use crate::time::Epoch;

/// Where an atomic timestamp stands for none: nothing is held, nothing can come any more.
const NONE: u64 = u64::MAX;

/// Where an atomic interval stands for none.
const NO_INTERVAL: u32 = u32::MAX;

/// Where an atomic watermark stands for none.
const NO_WATERMARK: i64 = i64::MIN;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// What it has come to.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How people know a host.
#[derive(Clone, Debug)]
pub(crate) struct HostName {
    /// Its place in the order of the plan: rows flow from lower to higher ones.
    pub(crate) stage: usize,
    pub(crate) kind: HostKind,
    /// The uid, or what the plan calls it and its number if it has none.
    pub(crate) operator: String,
    /// Stateless operators that run with it.
    pub(crate) with: Vec<&'static str>,
}

/// What one operator on one worker notes.
#[derive(Debug)]
pub struct HostFacts {
    name: HostName,
    /// Rows that came in: from the edges, or read by a source.
    pub records_in: Counter,
    /// Rows that went out.
    pub records_out: Counter,
    /// Bytes that a source's rows take in memory.
    pub bytes_in: Counter,
    /// Bytes that a sink has staged.
    pub bytes_out: Counter,
    /// Rows that came after the watermark had passed them.
    pub late: Counter,
    /// The event time up to which everything has been seen, in milliseconds since 1970.
    watermark_ms: AtomicI64,
    /// No row of an epoch before this one can arrive.
    frontier: AtomicU64,
    /// The oldest epoch of which it has something to do.
    holds: AtomicU64,
    /// The batches that wait for it, and the bytes that wait in a sink's writer.
    waiting: AtomicUsize,
    queued_bytes: AtomicUsize,
    /// All intervals before this one are frozen (or cut); all before the other have been handed to the uploader.
    interval: AtomicU32,
    handed: AtomicU32,
    /// What a source's reader says.
    pub(crate) reader: Option<ReaderProgress>,
    /// How the destination of a sink's writer is.
    health: OnceLock<Arc<Health>>,
}

impl HostFacts {
    /// `interval` is the first one; none for a host that has no part in checkpoints.
    pub(crate) fn new(name: HostName, interval: Option<u32>) -> Self {
        let reader = (name.kind == HostKind::Source).then(ReaderProgress::default);
        let interval = interval.unwrap_or(NO_INTERVAL);
        HostFacts {
            name,
            records_in: Counter::default(),
            records_out: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            late: Counter::default(),
            watermark_ms: AtomicI64::new(NO_WATERMARK),
            frontier: AtomicU64::new(0),
            holds: AtomicU64::new(NONE),
            waiting: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            interval: AtomicU32::new(interval),
            handed: AtomicU32::new(interval),
            reader,
            health: OnceLock::new(),
        }
    }

    /// Says where to learn how the destination of a sink's writer is.
    pub(crate) fn set_health(&self, health: Arc<Health>) {
        self.health.set(health).ok();
    }

    /// Notes how far the watermark is.
    pub fn set_watermark(&self, watermark_ms: i64) {
        self.watermark_ms.store(watermark_ms, Relaxed);
    }

    /// Notes the frontier of what comes in, and what there is to do.
    pub(crate) fn set_backlog(
        &self,
        frontier: Option<Epoch>,
        holds: Option<Epoch>,
        waiting: usize,
    ) {
        self.frontier.store(frontier.map_or(NONE, Epoch::timestamp), Relaxed);
        self.set_holds(holds);
        self.waiting.store(waiting, Relaxed);
    }

    /// Notes the oldest epoch of which there is something to do.
    pub(crate) fn set_holds(&self, holds: Option<Epoch>) {
        self.holds.store(holds.map_or(NONE, Epoch::timestamp), Relaxed);
    }

    pub(crate) fn set_queued(&self, bytes: usize) {
        self.queued_bytes.store(bytes, Relaxed);
    }

    /// All intervals before this one are frozen or cut.
    pub(crate) fn set_interval(&self, interval: u32) {
        self.interval.store(interval, Relaxed);
    }

    /// All intervals before this one have been handed to the uploader.
    pub(crate) fn set_handed(&self, interval: u32) {
        self.handed.store(interval, Relaxed);
    }

    fn status(&self) -> HostStatus {
        let HostName { stage, kind, operator, with } = self.name.clone();
        let reader = self.reader.as_ref().map(ReaderProgress::status).unwrap_or_default();
        HostStatus {
            stage,
            kind,
            operator,
            with: with.into_iter().map(str::to_owned).collect(),
            frontier: epoch(&self.frontier),
            holds: epoch(&self.holds),
            waiting: self.waiting.load(Relaxed),
            queued_bytes: self.queued_bytes.load(Relaxed) as u64,
            interval: interval(&self.interval),
            handed: interval(&self.handed),
            records_in: self.records_in.get(),
            records_out: self.records_out.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            late: self.late.get(),
            watermark_ms: match self.watermark_ms.load(Relaxed) {
                NO_WATERMARK => None,
                watermark => Some(watermark),
            },
            reader,
            trouble: self.health.get().and_then(|health| health.trouble()).map(TroubleStatus::of),
        }
    }
}

fn epoch(timestamp: &AtomicU64) -> Option<Epoch> {
    let timestamp = timestamp.load(Relaxed);
    (timestamp != NONE).then(|| Epoch::from_timestamp(timestamp))
}

fn interval(atomic: &AtomicU32) -> Option<u32> {
    Some(atomic.load(Relaxed)).filter(|interval| *interval != NO_INTERVAL)
}

/// What one worker does.
#[derive(Debug)]
pub(crate) struct WorkerFacts {
    index: usize,
    key_groups: Range<u32>,
    hosts: Mutex<Vec<Arc<HostFacts>>>,
    /// The oldest epoch that is still somewhere in the dataflow, and since when it has been that.
    complete: AtomicU64,
    complete_since_ms: AtomicU64,
    in_flight_bytes: AtomicUsize,
    /// 1 while sources pause.
    paused: AtomicU32,
    /// The number among the hosts of the one that the thread is in, plus one, and since when.
    inside: AtomicUsize,
    inside_since_ms: AtomicU64,
    /// Of all intervals before this one, this worker's part is uploaded and reported.
    uploaded: AtomicU32,
}

impl WorkerFacts {
    pub(super) fn new(index: usize, key_groups: Range<u32>) -> Self {
        WorkerFacts {
            index,
            key_groups,
            hosts: Mutex::default(),
            complete: AtomicU64::new(0),
            complete_since_ms: AtomicU64::new(0),
            in_flight_bytes: AtomicUsize::new(0),
            paused: AtomicU32::new(0),
            inside: AtomicUsize::new(0),
            inside_since_ms: AtomicU64::new(0),
            uploaded: AtomicU32::new(0),
        }
    }

    /// The facts of one more host; what comes back notes when the thread is in it.
    pub(crate) fn add_host(
        self: &Arc<Self>,
        name: HostName,
        interval: Option<u32>,
    ) -> (Arc<HostFacts>, Presence) {
        let facts = Arc::new(HostFacts::new(name, interval));
        let mut hosts = lock(&self.hosts);
        hosts.push(facts.clone());
        (facts, Presence { worker: self.clone(), number: hosts.len() })
    }

    pub(super) fn sum(&self, kind: HostKind, count: &impl Fn(&HostFacts) -> u64) -> u64 {
        let hosts = lock(&self.hosts);
        hosts.iter().filter(|host| host.name.kind == kind).map(|host| count(host)).sum()
    }

    /// Notes that all epochs before this timestamp have left the dataflow.
    pub(crate) fn set_complete(&self, timestamp: u64, now: Duration) {
        if self.complete.swap(timestamp, Relaxed) != timestamp {
            self.complete_since_ms.store(millis(now), Relaxed);
        }
    }

    pub(crate) fn set_in_flight(&self, bytes: usize) {
        self.in_flight_bytes.store(bytes, Relaxed);
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused.into(), Relaxed);
    }

    pub(crate) fn set_uploaded(&self, interval: u32) {
        self.uploaded.store(interval, Relaxed);
    }

    pub(super) fn status(&self, now: Duration) -> WorkerStatus {
        let now_ms = millis(now);
        let hosts = lock(&self.hosts);
        let inside = self.inside.load(Relaxed);
        let since_ms = self.inside_since_ms.load(Relaxed);
        WorkerStatus {
            worker: self.index,
            key_groups: self.key_groups.clone(),
            complete: epoch(&self.complete),
            complete_for_ms: now_ms.saturating_sub(self.complete_since_ms.load(Relaxed)),
            in_flight_bytes: self.in_flight_bytes.load(Relaxed) as u64,
            paused: self.paused.load(Relaxed) > 0,
            inside: (inside > 0)
                .then(|| Inside { host: inside - 1, for_ms: now_ms.saturating_sub(since_ms) }),
            uploaded: self.uploaded.load(Relaxed),
            hosts: hosts.iter().map(|host| host.status()).collect(),
        }
    }
}

/// Notes whether a worker's thread is in a host.
#[derive(Debug)]
pub(crate) struct Presence {
    worker: Arc<WorkerFacts>,
    /// The host's number among those of its worker, plus one.
    number: usize,
}

impl Presence {
    /// The thread enters the host, and leaves it when what comes back is dropped.
    pub(crate) fn enter(&self, now: Duration) -> Visit<'_> {
        self.worker.inside_since_ms.store(millis(now), Relaxed);
        self.worker.inside.store(self.number, Relaxed);
        Visit(&self.worker)
    }
}

/// A thread is in a host until this is dropped.
pub(crate) struct Visit<'w>(&'w WorkerFacts);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.inside.store(0, Relaxed);
    }
}
