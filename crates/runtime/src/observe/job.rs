//! One view of a job, put together from the reports of its processes by a pure function.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::held::{self, CheckpointHeld, EpochHeld};
use super::status::{
    HostKind, HostStatus, LeaderStatus, ProcessStatus, StorageStatus, WorkerStatus, epoch_text,
};
use crate::time::Epoch;

/// What a job does, over all its processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// What its process 0 knows.
    #[serde(flatten)]
    pub leader: LeaderStatus,
    /// Its processes, in their order.
    pub processes: Vec<ProcessShare>,
    /// The oldest epoch in the dataflow; none at the end.
    #[serde(with = "epoch_text::option")]
    pub oldest_epoch: Option<Epoch>,
    /// Records that sources have read in this attempt.
    pub records_in: u64,
    /// Rows that sinks were handed in this attempt.
    pub records_out: u64,
    /// How many bytes there are to read; 0 if that isn't known of every source.
    pub bytes_expected: u64,
    /// How many bytes were read.
    pub bytes_read: u64,
    /// Bad records that were left out.
    pub skipped: u64,
    /// Bad records that went to the sink for such.
    pub rejected: u64,
    /// Rows that came after the watermark had passed them.
    pub late: u64,
    /// Bytes of records under way, over all workers.
    pub in_flight_bytes: u64,
    /// Every stage, over all workers, in the order in which rows pass them.
    pub operators: Vec<OperatorStatus>,
    /// Who keeps the oldest epoch from completing, if it isn't the present one.
    pub epoch_held: Option<EpochHeld>,
    /// Who keeps the checkpoint under way from being committed.
    pub checkpoint_held: Option<CheckpointHeld>,
    /// How its processes get on with the checkpoints' storage: what has lasted longest.
    #[serde(default)]
    pub storage: StorageStatus,
    /// Every worker, in their order.
    pub workers: Vec<WorkerStatus>,
}

/// A process of the job, and its share of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessShare {
    /// Its number; process 0 leads.
    pub process: usize,
    /// How its operating system knows it.
    pub pid: u32,
    /// How many workers it has.
    pub workers: usize,
    /// The key groups that its workers own: their keys are processed in this process.
    pub key_groups: Range<u32>,
}

impl ProcessShare {
    fn of(process: &ProcessStatus) -> Self {
        let groups = || process.workers.iter().map(|worker| &worker.key_groups);
        // Workers of a process have numbers, and so groups, that follow each other.
        let first = groups().map(|groups| groups.start).min().unwrap_or(0);
        let end = groups().map(|groups| groups.end).max().unwrap_or(0);
        ProcessShare {
            process: process.process,
            pid: process.pid,
            workers: process.workers.len(),
            key_groups: first..end,
        }
    }
}

/// What a source, an operator or a sink does, over all workers; the fields are those of [`HostStatus`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are described where they come from")]
pub struct OperatorStatus {
    pub operator: String,
    pub kind: HostKind,
    pub with: Vec<String>,
    pub records_in: u64,
    pub records_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub late: u64,
    pub skipped: u64,
    pub rejected: u64,
    pub bytes_expected: u64,
    pub bytes_read: u64,
    pub waiting: usize,
    pub queued_bytes: u64,
    /// The lowest of all workers.
    pub watermark_ms: Option<i64>,
}

impl JobStatus {
    /// Puts the reports of a job's processes together; none if that of process 0 isn't among them.
    pub fn of(processes: Vec<ProcessStatus>) -> Option<Self> {
        let leader = processes.iter().find_map(|process| process.leader.clone())?;
        let mut shares: Vec<ProcessShare> = processes.iter().map(ProcessShare::of).collect();
        shares.sort_by_key(|share| share.process);
        let storage = storage(&processes);
        let mut workers: Vec<WorkerStatus> =
            processes.into_iter().flat_map(|process| process.workers).collect();
        workers.sort_by_key(|worker| worker.worker);
        let operators = operators(&workers);
        let sum = |count: fn(&OperatorStatus) -> u64| operators.iter().map(count).sum();
        let of_kind = |kind: HostKind| operators.iter().filter(move |host| host.kind == kind);
        let sources_known = of_kind(HostKind::Source).all(|source| source.bytes_expected > 0);
        let bytes_expected: u64 = sum(|host| host.bytes_expected);
        Some(JobStatus {
            processes: shares,
            oldest_epoch: held::oldest(&workers),
            records_in: of_kind(HostKind::Source).map(|source| source.records_in).sum(),
            records_out: of_kind(HostKind::Sink).map(|sink| sink.records_in).sum(),
            bytes_expected: if sources_known { bytes_expected } else { 0 },
            bytes_read: sum(|host| host.bytes_read),
            skipped: sum(|host| host.skipped),
            rejected: sum(|host| host.rejected),
            late: sum(|host| host.late),
            in_flight_bytes: workers.iter().map(|worker| worker.in_flight_bytes).sum(),
            epoch_held: held::epoch(&leader, &workers),
            checkpoint_held: held::checkpoint(&leader, &workers),
            storage,
            operators,
            workers,
            leader,
        })
    }
}

fn storage(processes: &[ProcessStatus]) -> StorageStatus {
    let all = || processes.iter().map(|process| &process.storage);
    let troubles = all().filter_map(|storage| storage.trouble.clone());
    StorageStatus {
        failed_calls: all().map(|storage| storage.failed_calls).sum(),
        trouble: troubles.max_by_key(|trouble| trouble.for_ms),
    }
}

/// Every stage but those of the engine's own, summed up over the workers.
fn operators(workers: &[WorkerStatus]) -> Vec<OperatorStatus> {
    let hosts = || workers.iter().flat_map(|worker| &worker.hosts);
    let mut stages: Vec<usize> = hosts().map(|host| host.stage).collect();
    stages.sort_unstable();
    stages.dedup();
    let of_stage = |stage: usize| -> Vec<&HostStatus> {
        hosts().filter(|host| host.stage == stage && host.kind != HostKind::Splits).collect()
    };
    stages.into_iter().filter_map(|stage| over_workers(&of_stage(stage))).collect()
}

fn over_workers(hosts: &[&HostStatus]) -> Option<OperatorStatus> {
    let first = hosts.first()?;
    let sum = |count: fn(&HostStatus) -> u64| hosts.iter().map(|host| count(host)).sum();
    Some(OperatorStatus {
        operator: first.operator.clone(),
        kind: first.kind,
        with: first.with.clone(),
        records_in: sum(|host| host.records_in),
        records_out: sum(|host| host.records_out),
        bytes_in: sum(|host| host.bytes_in),
        bytes_out: sum(|host| host.bytes_out),
        late: sum(|host| host.late),
        skipped: sum(|host| host.reader.skipped),
        rejected: sum(|host| host.reader.rejected),
        bytes_expected: sum(|host| host.reader.bytes_expected),
        bytes_read: sum(|host| host.reader.bytes_read),
        waiting: hosts.iter().map(|host| host.waiting).sum(),
        queued_bytes: sum(|host| host.queued_bytes),
        watermark_ms: hosts.iter().filter_map(|host| host.watermark_ms).min(),
    })
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
