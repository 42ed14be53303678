//! Reports: what is noted, as it travels between processes and to those who ask. Times are durations, because clocks of
//! different processes don't compare.

use std::ops::Range;

use highwater_log::Trouble;
use serde::{Deserialize, Serialize};

use crate::time::Epoch;

/// What one process of an attempt reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its number; process 0 leads.
    pub process: usize,
    /// How its operating system knows it.
    pub pid: u32,
    /// Its workers.
    pub workers: Vec<WorkerStatus>,
    /// How it gets on with the checkpoints' storage.
    #[serde(default)]
    pub storage: StorageStatus,
    /// What only process 0 knows.
    pub leader: Option<LeaderStatus>,
}

/// How processes get on with the checkpoints' storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// How many calls have failed in this attempt.
    pub failed_calls: u64,
    /// It doesn't work at the moment.
    pub trouble: Option<TroubleStatus>,
}

/// Something doesn't work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleStatus {
    /// For how long.
    pub for_ms: u64,
    /// What failed last, and why.
    pub why: String,
}

/// What process 0 knows of the whole job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaderStatus {
    /// The job's name.
    pub job: String,
    /// The attempt, by the number of its entry; 0 without checkpoints.
    pub attempt: u64,
    /// What it is about to do.
    pub state: State,
    /// For how long the attempt has been running.
    pub running_ms: u64,
    /// How often the job was started again before this attempt.
    pub restarts: u64,
    /// Why, the last time.
    pub last_failure: Option<String>,
    /// The present epoch.
    #[serde(with = "epoch_text")]
    pub epoch: Epoch,
    /// How many epochs this attempt has begun.
    pub epochs: u64,
    /// The present trigger.
    pub trigger: u64,
    /// Its checkpoints.
    pub checkpoints: CheckpointsStatus,
    /// How far each sink is published.
    pub sinks: Vec<SinkStatus>,
}

impl TroubleStatus {
    pub(super) fn of(Trouble { lasts, why }: Trouble) -> Self {
        TroubleStatus { for_ms: super::millis(lasts), why }
    }
}

/// What a job is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It reads a checkpoint, and doesn't run yet.
    Starting,
    /// It runs.
    Running,
    /// Somebody asked it to stop: it takes a last checkpoint.
    Stopping,
    /// All sources are at their end, and the rest is being committed and published.
    Finishing,
    /// It has ended.
    Over,
}

/// What one worker reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number among the workers of all processes.
    pub worker: usize,
    /// The key groups that it owns: their keys are processed here, and their state is here.
    pub key_groups: Range<u32>,
    /// The oldest epoch that is still in the dataflow, as this worker knows it; none at the end.
    #[serde(with = "epoch_text::option")]
    pub complete: Option<Epoch>,
    /// For how long it has been that.
    pub complete_for_ms: u64,
    /// Bytes of records that its sources have read and its operators have added, of epochs that aren't complete.
    pub in_flight_bytes: u64,
    /// Its sources pause: too much is in flight, or committed and not yet published, or nothing could be committed for long.
    pub paused: bool,
    /// The host that its thread is in.
    pub inside: Option<Inside>,
    /// Of all intervals before this one, its part is uploaded.
    pub uploaded: u32,
    /// Its hosts.
    pub hosts: Vec<HostStatus>,
}

/// Where a worker's thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// The host, by its number among those of the worker.
    pub host: usize,
    /// For how long.
    pub for_ms: u64,
}

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// It reads.
    Source,
    /// It keeps how far a source's splits were read; an operator of the engine's own.
    Splits,
    /// It computes.
    Operator,
    /// It writes.
    Sink,
}

/// What one operator reports on one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its place in the order of the plan: rows flow from lower to higher ones.
    pub stage: usize,
    /// What it is.
    pub kind: HostKind,
    /// The uid, or a name and a number if it has none.
    pub operator: String,
    /// Stateless operators that run with it.
    pub with: Vec<String>,
    /// No row of an epoch before this one can arrive; none at the end.
    #[serde(with = "epoch_text::option")]
    pub frontier: Option<Epoch>,
    /// The oldest epoch of which it has something to do.
    #[serde(with = "epoch_text::option")]
    pub holds: Option<Epoch>,
    /// The batches that wait for it.
    pub waiting: usize,
    /// The bytes that wait in a sink's writer.
    pub queued_bytes: u64,
    /// All intervals before this one are frozen or cut; none if it has no part in checkpoints.
    pub interval: Option<u32>,
    /// All intervals before this one have been handed to the uploader; none if it has no part in checkpoints.
    pub handed: Option<u32>,
    /// Rows that came in: from the edges, or read by a source.
    pub records_in: u64,
    /// Rows that went out.
    pub records_out: u64,
    /// Bytes that a source's rows take in memory.
    pub bytes_in: u64,
    /// Bytes that a sink has staged.
    pub bytes_out: u64,
    /// Rows that came after the watermark had passed them.
    pub late: u64,
    /// The event time up to which everything has been seen, in milliseconds since 1970.
    pub watermark_ms: Option<i64>,
    /// What a source's reader says.
    #[serde(default)]
    pub reader: ReaderStatus,
    /// A sink's writer can't stage or deliver.
    #[serde(default)]
    pub trouble: Option<TroubleStatus>,
}

/// What a source's reader says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReaderStatus {
    /// How many bytes there are to read; 0 if that isn't known.
    pub bytes_expected: u64,
    /// How many of them were read.
    pub bytes_read: u64,
    /// Bad records that were left out.
    pub skipped: u64,
    /// Bad records that went to the sink for such.
    pub rejected: u64,
    /// The split that is being read.
    pub reading: Option<String>,
    /// Those that have moved and aren't at their end.
    pub splits: Vec<SplitStatus>,
    /// How many have come to their end in this attempt.
    pub splits_ended: u64,
}

/// How far a split is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStatus {
    /// The split.
    pub split: String,
    /// The source's own position at the end of the last checkpoint interval: a byte, an offset.
    pub position: u64,
    /// How many records had been read from it.
    pub records: u64,
    /// How much more there is, in the unit of the position, if the source knows.
    pub behind: Option<u64>,
    /// It isn't read now because others are far behind it in event time.
    #[serde(default)]
    pub is_held: bool,
}

/// The checkpoints of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointsStatus {
    /// How often one is taken; none if checkpoints are off.
    pub interval_ms: Option<u64>,
    /// How many were committed in this attempt.
    pub committed: u64,
    /// How many bytes of state they wrote.
    pub bytes: u64,
    /// How many failed; what they would have covered is in later ones.
    pub failed: u64,
    /// Why the last of these failed.
    pub last_failure: Option<String>,
    /// Committed and not yet published.
    pub unpublished: usize,
    /// The one that is being taken.
    pub under_way: Option<UnderWay>,
    /// The last ones, newest first.
    pub last: Vec<CheckpointStatus>,
}

/// A checkpoint that is being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// The last interval that it covers.
    pub interval: u32,
    /// How long ago that interval ended.
    pub for_ms: u64,
    /// Every worker has reported, and the entry is being written.
    pub committing: bool,
}

/// A committed checkpoint. Where several workers took part, a phase is as long as the slowest one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// The number of its entry in the log.
    pub checkpoint: u64,
    /// The last interval that it covers.
    pub interval: u32,
    /// How many bytes of state were written for it.
    pub bytes: u64,
    /// How long ago it was committed.
    pub age_ms: u64,
    /// From the end of the interval to the entry.
    pub duration_us: u64,
    /// Until all rows of the interval had been dealt with.
    pub wait_us: u64,
    /// Until changed state was encoded, and output staged.
    pub encode_us: u64,
    /// Until the object was durable.
    pub upload_us: u64,
    /// Until the entry was in the log.
    pub commit_us: u64,
    /// From there until its output was visible; none while it isn't.
    pub publish_us: Option<u64>,
    /// How long it took to delete garbage; none before.
    pub collect_us: Option<u64>,
}

/// How far a sink is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// The sink's uid.
    pub sink: String,
    /// Everything that entries up to this one decided is published; 0 before the first.
    pub published: u64,
    /// So many committed checkpoints have output for it that isn't published.
    pub unpublished: u64,
    /// Why the last try failed, if it did.
    pub failing: Option<String>,
}

/// Epochs as people read them, `interval.number`.
pub(super) mod epoch_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::time::Epoch;

    pub fn serialize<S: Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(epoch)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is no epoch")))
    }

    fn parse(text: &str) -> Option<Epoch> {
        let (interval, number) = text.split_once('.')?;
        Some(Epoch::new(interval.parse().ok()?, number.parse().ok()?))
    }

    pub mod option {
        use super::*;

        pub fn serialize<S: Serializer>(
            epoch: &Option<Epoch>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match epoch {
                Some(epoch) => serializer.collect_str(epoch),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Epoch>, D::Error> {
            let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
            let epoch = parse(&text);
            epoch.map(Some).ok_or_else(|| de::Error::custom(format!("`{text}` is no epoch")))
        }
    }
}
