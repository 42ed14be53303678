//! Who keeps an epoch or a checkpoint from completing: pure functions of reports.
//!
//! An epoch is complete when nobody has anything left of it. A worker that has gets named once, by the first of its hosts, in the
//! order in which rows flow, that has something of the oldest epoch: what is behind it can only wait. A thread that doesn't
//! come back from one host keeps all others of its worker from noting anything, so that host is named instead.

use serde::{Deserialize, Serialize};

use super::status::{HostKind, HostStatus, LeaderStatus, WorkerStatus, epoch_text};
use crate::time::Epoch;

/// A thread that has been in one host for so long is stuck there; a slice of work takes about two milliseconds.
const STUCK_MS: u64 = 200;

/// An epoch that isn't complete although a later one has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochHeld {
    /// The oldest such epoch.
    #[serde(with = "epoch_text")]
    pub epoch: Epoch,
    /// For how long it has been the oldest.
    pub for_ms: u64,
    /// Who has something of it; nobody while rows or news are on their way between workers.
    pub by: Vec<Holder>,
}

/// A checkpoint that is being taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointHeld {
    /// The last interval that it covers.
    pub interval: u32,
    /// How long ago that ended.
    pub for_ms: u64,
    /// What is being waited for.
    pub phase: Phase,
    /// Whose part is missing; nobody while the entry is being written.
    pub by: Vec<Holder>,
}

/// Who keeps something from completing, on one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The worker.
    pub worker: usize,
    /// The operator, by uid or name; none if it is the worker's uploader.
    pub operator: Option<String>,
    /// What that is.
    pub kind: Option<HostKind>,
    /// The split that a source is reading.
    pub split: Option<String>,
    /// Why, in words.
    pub why: String,
}

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Rows are still to be dealt with.
    Rows,
    /// Changed state is being encoded, or output staged.
    Encoding,
    /// State is being made durable.
    Uploading,
    /// The entry is being written.
    Committing,
}

/// The oldest epoch in the dataflow; none at the end.
pub(super) fn oldest(workers: &[WorkerStatus]) -> Option<Epoch> {
    workers.iter().filter_map(|worker| worker.complete).min()
}

/// Who keeps the oldest epoch, if it isn't the present one.
pub(super) fn epoch(leader: &LeaderStatus, workers: &[WorkerStatus]) -> Option<EpochHeld> {
    let epoch = oldest(workers).filter(|oldest| *oldest < leader.epoch)?;
    let of_oldest = workers.iter().filter(|worker| worker.complete == Some(epoch));
    let for_ms = of_oldest.map(|worker| worker.complete_for_ms).max().unwrap_or_default();
    Some(EpochHeld { epoch, for_ms, by: holders(epoch, workers) })
}

fn holders(epoch: Epoch, workers: &[WorkerStatus]) -> Vec<Holder> {
    let has = |host: &&HostStatus| host.holds.is_some_and(|holds| holds <= epoch);
    let holder = |worker: &WorkerStatus| {
        let first = worker.hosts.iter().filter(has).min_by_key(|host| host.stage)?;
        Some(stuck(worker).unwrap_or_else(|| named(worker, first, has_work(first))))
    };
    let by: Vec<Holder> = workers.iter().filter_map(holder).collect();
    match by.is_empty() {
        // What is on its way to a worker whose thread is stuck can't be seen there.
        true => workers.iter().filter_map(stuck).collect(),
        false => by,
    }
}

fn stuck(worker: &WorkerStatus) -> Option<Holder> {
    let inside = worker.inside.filter(|inside| inside.for_ms >= STUCK_MS)?;
    let host = worker.hosts.get(inside.host)?;
    let seconds = inside.for_ms as f64 / 1000.0;
    Some(named(worker, host, format!("its thread has been in it for {seconds:.1} s")))
}

fn has_work(host: &HostStatus) -> String {
    let batches = match host.waiting {
        0 => "it isn't done with what it was given".to_owned(),
        1 => "1 batch waits for it".to_owned(),
        waiting => format!("{waiting} batches wait for it"),
    };
    match host.kind {
        HostKind::Source => "it hasn't gone on to the next epoch".to_owned(),
        HostKind::Sink if host.queued_bytes > 0 => {
            format!("{batches}, and {} bytes wait for its destination", host.queued_bytes)
        }
        _ => batches,
    }
}

fn named(worker: &WorkerStatus, host: &HostStatus, why: String) -> Holder {
    Holder {
        worker: worker.worker,
        operator: Some(host.operator.clone()),
        kind: Some(host.kind),
        split: host.reader.reading.clone(),
        why,
    }
}

/// Who keeps the checkpoint under way.
pub(super) fn checkpoint(
    leader: &LeaderStatus,
    workers: &[WorkerStatus],
) -> Option<CheckpointHeld> {
    let under_way = leader.checkpoints.under_way?;
    let interval = under_way.interval;
    let held = |phase, by| Some(CheckpointHeld { interval, for_ms: under_way.for_ms, phase, by });
    if under_way.committing {
        return held(Phase::Committing, Vec::new());
    }
    let first = |of: fn(&HostStatus) -> Option<u32>,
                 why: fn(&HostStatus) -> String|
     -> Vec<Holder> {
        let holder = |worker: &WorkerStatus| {
            let late = worker.hosts.iter().filter(|host| of(host).is_some_and(|at| at <= interval));
            let host = late.min_by_key(|host| host.stage)?;
            Some(stuck(worker).unwrap_or_else(|| named(worker, host, why(host))))
        };
        workers.iter().filter_map(holder).collect()
    };
    let waiting = first(|host| host.interval, |_| "rows are still on their way to it".to_owned());
    if !waiting.is_empty() {
        // Whoever has rows of the interval left is to blame, and not those who wait for them.
        let open = oldest(workers).filter(|oldest| oldest.interval() <= interval);
        let by = open.map(|oldest| holders(oldest, workers)).unwrap_or_default();
        return held(Phase::Rows, if by.is_empty() { waiting } else { by });
    }
    let encoding = first(
        |host| host.handed,
        |host| match host.kind {
            HostKind::Sink => "its output isn't staged yet".to_owned(),
            _ => "its state is being encoded".to_owned(),
        },
    );
    if !encoding.is_empty() {
        return held(Phase::Encoding, encoding);
    }
    let uploading = workers.iter().filter(|worker| worker.uploaded <= interval);
    let uploader = |worker: &WorkerStatus| Holder {
        worker: worker.worker,
        operator: None,
        kind: None,
        split: None,
        why: "its state isn't durable yet".to_owned(),
    };
    held(Phase::Uploading, uploading.map(uploader).collect())
}
