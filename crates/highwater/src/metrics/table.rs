//! Every metric that a job exports: name, type, meaning, labels, and where its value comes from.
//!
//! Names follow Prometheus' conventions (base units, `_total` for what only grows) and, in what they are about, Flink's. Every sample
//! has the label `job`. A metric that says nothing at the moment, such as a watermark without event time, has no samples.

use highwater_runtime::observe::{
    CheckpointStatus, HostKind, HostStatus, JobStatus, SinkStatus, WorkerStatus,
};

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// It only grows while an attempt lasts.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A metric.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) help: &'static str,
    /// The labels beside `job`, in the order in which samples give their values.
    pub(super) labels: &'static [&'static str],
    pub(super) samples: fn(&Seen<'_>) -> Vec<Sample>,
}

/// What metrics are made of.
pub(super) struct Seen<'s> {
    pub(super) status: &'s JobStatus,
    /// Milliseconds since 1970.
    pub(super) now_ms: u64,
}

/// A value with those of its labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) labels: Vec<String>,
    pub(super) value: f64,
}

const OF_OPERATOR: &[&str] = &["operator", "worker"];
const OF_SOURCE: &[&str] = &["source", "worker"];
const OF_SINK: &[&str] = &["sink", "worker"];

/// Every metric, in the order in which they are exported.
pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "highwater_attempt",
        kind: Type::Gauge,
        help: "Number of the attempt that runs, by its entry in the commit log.",
        labels: &[],
        samples: |seen| one(seen.status.leader.attempt as f64),
    },
    Metric {
        name: "highwater_uptime_seconds",
        kind: Type::Gauge,
        help: "Time since the attempt started.",
        labels: &[],
        samples: |seen| one(seconds_of_ms(seen.status.leader.running_ms)),
    },
    Metric {
        name: "highwater_restarts_total",
        kind: Type::Counter,
        help: "Restarts after a failure, before this attempt.",
        labels: &[],
        samples: |seen| one(seen.status.leader.restarts as f64),
    },
    Metric {
        name: "highwater_epochs_total",
        kind: Type::Counter,
        help: "Epochs begun.",
        labels: &[],
        samples: |seen| one(seen.status.leader.epochs as f64),
    },
    Metric {
        name: "highwater_triggers_total",
        kind: Type::Counter,
        help: "Triggers begun, over all attempts.",
        labels: &[],
        samples: |seen| one(seen.status.leader.trigger as f64),
    },
    Metric {
        name: "highwater_oldest_epoch_age_seconds",
        kind: Type::Gauge,
        help: "Time since the oldest epoch that isn't complete became the oldest; 0 if only the present one is open.",
        labels: &[],
        samples: |seen| {
            let held = seen.status.epoch_held.as_ref();
            one(held.map_or(0.0, |held| seconds_of_ms(held.for_ms)))
        },
    },
    Metric {
        name: "highwater_records_in_total",
        kind: Type::Counter,
        help: "Records that came into an operator; for a source, those that it read.",
        labels: OF_OPERATOR,
        samples: |seen| of_operators(seen, |host| Some(host.records_in as f64)),
    },
    Metric {
        name: "highwater_records_out_total",
        kind: Type::Counter,
        help: "Records that went out of an operator; for a sink, those that it staged.",
        labels: OF_OPERATOR,
        samples: |seen| of_operators(seen, |host| Some(host.records_out as f64)),
    },
    Metric {
        name: "highwater_bytes_in_total",
        kind: Type::Counter,
        help: "Bytes that the records of a source take in memory.",
        labels: OF_SOURCE,
        samples: |seen| of_kind(seen, HostKind::Source, |host| Some(host.bytes_in as f64)),
    },
    Metric {
        name: "highwater_bytes_out_total",
        kind: Type::Counter,
        help: "Bytes that a sink staged for publishing.",
        labels: OF_SINK,
        samples: |seen| of_kind(seen, HostKind::Sink, |host| Some(host.bytes_out as f64)),
    },
    Metric {
        name: "highwater_source_read_bytes_total",
        kind: Type::Counter,
        help: "Bytes of its input (compressed, if it is) that a source has read; only of sources that know.",
        labels: OF_SOURCE,
        samples: |seen| of_kind(seen, HostKind::Source, |host| known(host, host.reader.bytes_read)),
    },
    Metric {
        name: "highwater_source_expected_bytes",
        kind: Type::Gauge,
        help: "Bytes of its input that a source has to read in this attempt; only of sources that know.",
        labels: OF_SOURCE,
        samples: |seen| {
            of_kind(seen, HostKind::Source, |host| known(host, host.reader.bytes_expected))
        },
    },
    Metric {
        name: "highwater_source_split_lag",
        kind: Type::Gauge,
        help: "What a split has beyond what was read of it, in the source's unit (records of a partition, bytes of a file); only of sources that know.",
        labels: &["source", "worker", "split"],
        samples: split_lag,
    },
    Metric {
        name: "highwater_source_splits_held",
        kind: Type::Gauge,
        help: "Splits that aren't read now because others are far behind them in event time; only with `Watermark::align_within`.",
        labels: OF_SOURCE,
        samples: |seen| {
            let held = |host: &HostStatus| host.reader.splits.iter().filter(|s| s.is_held).count();
            of_kind(seen, HostKind::Source, |host| Some(held(host) as f64))
        },
    },
    Metric {
        name: "highwater_skipped_records_total",
        kind: Type::Counter,
        help: "Malformed records that a source left out.",
        labels: OF_SOURCE,
        samples: |seen| of_kind(seen, HostKind::Source, |host| Some(host.reader.skipped as f64)),
    },
    Metric {
        name: "highwater_rejected_records_total",
        kind: Type::Counter,
        help: "Malformed records that a source handed to the sink for such.",
        labels: OF_SOURCE,
        samples: |seen| of_kind(seen, HostKind::Source, |host| Some(host.reader.rejected as f64)),
    },
    Metric {
        name: "highwater_late_records_total",
        kind: Type::Counter,
        help: "Records that came after the watermark had passed them.",
        labels: OF_OPERATOR,
        samples: |seen| of_kind(seen, HostKind::Operator, |host| Some(host.late as f64)),
    },
    Metric {
        name: "highwater_watermark_timestamp_seconds",
        kind: Type::Gauge,
        help: "Event time up to which an operator has seen everything, in seconds since 1970.",
        labels: OF_OPERATOR,
        samples: |seen| of_operators(seen, |host| Some(host.watermark_ms? as f64 / 1000.0)),
    },
    Metric {
        name: "highwater_watermark_lag_seconds",
        kind: Type::Gauge,
        help: "The machine's clock minus an operator's watermark.",
        labels: OF_OPERATOR,
        samples: |seen| {
            let now_ms = seen.now_ms as f64;
            of_operators(seen, |host| Some((now_ms - host.watermark_ms? as f64) / 1000.0))
        },
    },
    Metric {
        name: "highwater_waiting_batches",
        kind: Type::Gauge,
        help: "Batches that wait for an operator.",
        labels: OF_OPERATOR,
        samples: |seen| of_operators(seen, |host| Some(host.waiting as f64)),
    },
    Metric {
        name: "highwater_sink_queued_bytes",
        kind: Type::Gauge,
        help: "Bytes that a sink's writer has taken and its destination hasn't.",
        labels: OF_SINK,
        samples: |seen| of_kind(seen, HostKind::Sink, |host| Some(host.queued_bytes as f64)),
    },
    Metric {
        name: "highwater_in_flight_bytes",
        kind: Type::Gauge,
        help: "Bytes of records that a worker's sources have read and its operators have added, of epochs that aren't complete.",
        labels: &["worker"],
        samples: |seen| of_workers(seen, |worker| worker.in_flight_bytes as f64),
    },
    Metric {
        name: "highwater_sources_paused",
        kind: Type::Gauge,
        help: "1 while a worker's sources pause, because too much is in flight or unpublished, or nothing could be committed for long.",
        labels: &["worker"],
        samples: |seen| of_workers(seen, |worker| f64::from(u8::from(worker.paused))),
    },
    Metric {
        name: "highwater_checkpoints_total",
        kind: Type::Counter,
        help: "Checkpoints of this attempt, by result: committed, or failed (the next one covers what it would have).",
        labels: &["result"],
        samples: |seen| {
            let checkpoints = &seen.status.leader.checkpoints;
            vec![
                sample(["committed"], checkpoints.committed as f64),
                sample(["failed"], checkpoints.failed as f64),
            ]
        },
    },
    Metric {
        name: "highwater_checkpoint_bytes_total",
        kind: Type::Counter,
        help: "Bytes of state that checkpoints wrote.",
        labels: &[],
        samples: |seen| one(seen.status.leader.checkpoints.bytes as f64),
    },
    Metric {
        name: "highwater_last_checkpoint_age_seconds",
        kind: Type::Gauge,
        help: "Time since the last checkpoint was committed.",
        labels: &[],
        samples: |seen| of_last(seen, |last| seconds_of_ms(last.age_ms)),
    },
    Metric {
        name: "highwater_last_checkpoint_size_bytes",
        kind: Type::Gauge,
        help: "Bytes of state that the last checkpoint wrote.",
        labels: &[],
        samples: |seen| of_last(seen, |last| last.bytes as f64),
    },
    Metric {
        name: "highwater_last_checkpoint_duration_seconds",
        kind: Type::Gauge,
        help: "Time that the last checkpoint took, from the end of its interval to its entry in the log.",
        labels: &[],
        samples: |seen| of_last(seen, |last| seconds_of_us(last.duration_us)),
    },
    Metric {
        name: "highwater_last_checkpoint_phase_seconds",
        kind: Type::Gauge,
        help: "Time that each phase of the last checkpoint took: wait, encode, upload, commit, publish, collect.",
        labels: &["phase"],
        samples: phases,
    },
    Metric {
        name: "highwater_storage_trouble_seconds",
        kind: Type::Gauge,
        help: "Time for which the checkpoints' storage hasn't worked; 0 if all is well.",
        labels: &[],
        samples: |seen| {
            let trouble = seen.status.storage.trouble.as_ref();
            // In trouble for no time is in trouble, too.
            one(trouble.map_or(0.0, |trouble| seconds_of_ms(trouble.for_ms.max(1))))
        },
    },
    Metric {
        name: "highwater_storage_failed_calls_total",
        kind: Type::Counter,
        help: "Calls to the checkpoints' storage that failed, and were tried again.",
        labels: &[],
        samples: |seen| one(seen.status.storage.failed_calls as f64),
    },
    Metric {
        name: "highwater_unpublished_checkpoints",
        kind: Type::Gauge,
        help: "Committed checkpoints with output that isn't published; sources pause if there are too many.",
        labels: &[],
        samples: |seen| one(seen.status.leader.checkpoints.unpublished as f64),
    },
    Metric {
        name: "highwater_sink_unpublished_checkpoints",
        kind: Type::Gauge,
        help: "Committed checkpoints with output for a sink that isn't published.",
        labels: &["sink"],
        samples: |seen| {
            let sinks = seen.status.leader.sinks.iter();
            sinks.map(|sink| sample([&*sink.sink], sink.unpublished as f64)).collect()
        },
    },
    Metric {
        name: "highwater_sink_failing",
        kind: Type::Gauge,
        help: "1 while a sink's destination takes nothing: its last try to stage, deliver or publish has failed.",
        labels: &["sink"],
        samples: |seen| {
            let in_trouble = |sink: &str| {
                hosts(seen).any(|(_, host)| host.operator == sink && host.trouble.is_some())
            };
            let failing = |sink: &SinkStatus| sink.failing.is_some() || in_trouble(&sink.sink);
            let value = |sink| f64::from(u8::from(failing(sink)));
            let sinks = seen.status.leader.sinks.iter();
            sinks.map(|sink| sample([&*sink.sink], value(sink))).collect()
        },
    },
];

fn sample<const N: usize>(labels: [&str; N], value: f64) -> Sample {
    Sample { labels: labels.map(str::to_owned).into(), value }
}

fn one(value: f64) -> Vec<Sample> {
    vec![sample([], value)]
}

fn seconds_of_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn seconds_of_us(us: u64) -> f64 {
    us as f64 / 1e6
}

fn hosts<'s>(seen: &'s Seen<'_>) -> impl Iterator<Item = (&'s WorkerStatus, &'s HostStatus)> {
    let workers = seen.status.workers.iter();
    let hosts = workers.flat_map(|worker| worker.hosts.iter().map(move |host| (worker, host)));
    hosts.filter(|(_, host)| host.kind != HostKind::Splits)
}

fn of_operators(seen: &Seen<'_>, value: impl Fn(&HostStatus) -> Option<f64>) -> Vec<Sample> {
    let sample = |(worker, host): (&WorkerStatus, &HostStatus)| {
        Some(sample([&*host.operator, &worker.worker.to_string()], value(host)?))
    };
    hosts(seen).filter_map(sample).collect()
}

fn of_kind(
    seen: &Seen<'_>,
    kind: HostKind,
    value: impl Fn(&HostStatus) -> Option<f64>,
) -> Vec<Sample> {
    of_operators(seen, |host| (host.kind == kind).then(|| value(host)).flatten())
}

fn known(host: &HostStatus, bytes: u64) -> Option<f64> {
    (host.reader.bytes_expected > 0).then_some(bytes as f64)
}

fn split_lag(seen: &Seen<'_>) -> Vec<Sample> {
    let splits = hosts(seen).flat_map(|(worker, host)| {
        let splits = host.reader.splits.iter();
        splits.filter_map(move |split| {
            let labels = [&*host.operator, &worker.worker.to_string(), &split.split];
            Some(sample(labels, split.behind? as f64))
        })
    });
    splits.collect()
}

fn of_workers(seen: &Seen<'_>, value: impl Fn(&WorkerStatus) -> f64) -> Vec<Sample> {
    let workers = seen.status.workers.iter();
    workers.map(|worker| sample([&*worker.worker.to_string()], value(worker))).collect()
}

fn of_last(seen: &Seen<'_>, value: impl Fn(&CheckpointStatus) -> f64) -> Vec<Sample> {
    seen.status.leader.checkpoints.last.first().map(|last| one(value(last))).unwrap_or_default()
}

fn phases(seen: &Seen<'_>) -> Vec<Sample> {
    let Some(last) = seen.status.leader.checkpoints.last.first() else { return Vec::new() };
    let phases = [
        ("wait", Some(last.wait_us)),
        ("encode", Some(last.encode_us)),
        ("upload", Some(last.upload_us)),
        ("commit", Some(last.commit_us)),
        ("publish", last.publish_us),
        ("collect", last.collect_us),
    ];
    phases.into_iter().filter_map(|(phase, us)| Some(sample([phase], seconds_of_us(us?)))).collect()
}
