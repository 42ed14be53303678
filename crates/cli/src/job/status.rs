//! `highwater status`: what running jobs do, and what holds them up.

use clap::Args;
use highwater::control::{self, Found, RunningJob};
use highwater::observe::{
    CheckpointStatus, CheckpointsStatus, Holder, HostKind, JobStatus, OperatorStatus, Phase,
    ProcessShare, SinkStatus, State, WorkerStatus,
};
use serde::Serialize;

use crate::human::{count, duration, size, table, time};
use crate::{Answer, Error};

#[derive(Args, Clone, Debug)]
pub struct Status {
    /// The job: its name, or where it keeps its checkpoints; all that run if none is given.
    #[arg(value_name = "JOB")]
    job: Option<String>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Whether the answer is for a program.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Asks one job, or all.
    pub fn run(&self) -> Result<Answer, Error> {
        match &self.job {
            Some(job) => {
                let (job, _) = super::find(job)?;
                Answer::new(&job, in_full(&job), true)
            }
            None => all(),
        }
    }
}

/// Every running job of this user, a line each.
fn all() -> Result<Answer, Error> {
    #[derive(Default, Serialize)]
    struct All {
        jobs: Vec<RunningJob>,
        /// Why some that are there don't say what they do.
        silent: Vec<String>,
    }
    let mut all = All::default();
    for Found { job, .. } in control::running()? {
        match job {
            Ok((job, _)) => all.jobs.push(job),
            Err(error) => all.silent.push(error.to_string()),
        }
    }
    all.jobs.sort_by(|a, b| (&a.job, a.pid).cmp(&(&b.job, b.pid)));
    let mut text = match all.jobs.is_empty() && all.silent.is_empty() {
        true => "no job is run by this user on this machine\n".to_owned(),
        false => String::new(),
    };
    if !all.jobs.is_empty() {
        let heads = ["JOB", ">PROCESS", "STATE", ">ATTEMPT", ">RECORDS", ">CHECKPOINT", "WHERE"];
        text += &table(&heads, all.jobs.iter().map(in_short));
    }
    all.silent.iter().for_each(|why| text += &format!("SILENT: {why}\n"));
    let sound = all.silent.is_empty();
    Answer::new(&all, text, sound)
}

fn in_short(job: &RunningJob) -> Vec<String> {
    let of = |value: fn(&JobStatus) -> Option<u64>| {
        let value = job.status.as_ref().and_then(value);
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    };
    vec![
        job.job.clone(),
        job.pid.to_string(),
        state(job.state()).to_owned(),
        of(|status| Some(status.leader.attempt)),
        of(|status| Some(status.records_in)),
        of(|status| Some(status.leader.checkpoints.last.first()?.checkpoint)),
        place(job),
    ]
}

fn place(job: &RunningJob) -> String {
    job.location.clone().unwrap_or_else(|| "no lasting checkpoints".to_owned())
}

fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Stopping => "stopping",
        State::Finishing => "finishing",
        State::Over => "over",
    }
}

fn in_full(job: &RunningJob) -> String {
    let mut text = format!(
        "job {}, process {}, {}\n  checkpoints  {}\n",
        job.job,
        job.pid,
        state(job.state()),
        place(job)
    );
    if let Some(status) = &job.status {
        text += &numbers(status);
        if let Some(trouble) = &status.storage.trouble {
            let time = ms(trouble.for_ms);
            text += &format!(
                "  TROUBLE      with the checkpoint storage, for {time}: {}\n",
                trouble.why
            );
        }
        text += &troubles(&status.workers);
        text += &held(status);
        text += &processes(&status.processes);
        text += "\noperators\n";
        text += &operators(&status.operators);
        text += &splits(&status.workers);
        text += &checkpoints(&status.leader.checkpoints);
        text += &sinks(&status.leader.sinks);
    }
    text
}

fn numbers(status: &JobStatus) -> String {
    let leader = &status.leader;
    let mut text = format!(
        "  attempt      {}, for {}, {}, {}\n",
        leader.attempt,
        ms(leader.running_ms),
        count(status.workers.len() as u64, "worker"),
        count(leader.restarts, "restart"),
    );
    if let Some(why) = &leader.last_failure {
        text += &format!("  last failure {why}\n");
    }
    let oldest = status.oldest_epoch.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
    text += &format!(
        "  epoch        {}, the oldest under way {oldest}; trigger {}\n",
        leader.epoch, leader.trigger
    );
    text += &format!("  records      {} in, {} out", status.records_in, status.records_out);
    for (number, what) in [
        (status.late, "late"),
        (status.skipped, "bad and skipped"),
        (status.rejected, "bad and set aside"),
    ] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    let paused = status.workers.iter().filter(|worker| worker.paused).count() as u64;
    let paused = match paused {
        0 => String::new(),
        paused => format!("; sources pause on {}", count(paused, "worker")),
    };
    text + &format!("\n  in flight    {}{paused}\n", size(status.in_flight_bytes))
}

/// Writers whose destinations take nothing.
fn troubles(workers: &[WorkerStatus]) -> String {
    let mut text = String::new();
    for worker in workers {
        for host in &worker.hosts {
            let Some(trouble) = &host.trouble else { continue };
            let (sink, worker, time) = (&host.operator, worker.worker, ms(trouble.for_ms));
            let why = &trouble.why;
            text +=
                &format!("  TROUBLE      of sink {sink} on worker {worker}, for {time}: {why}\n");
        }
    }
    text
}

/// What keeps an epoch or a checkpoint from completing, if anything does.
fn held(status: &JobStatus) -> String {
    let mut text = String::new();
    if let Some(held) = &status.epoch_held {
        text += &format!("  open         epoch {}, for {}\n", held.epoch, ms(held.for_ms));
        held.by.iter().for_each(|by| text += &format!("               {}\n", holder(by)));
    }
    if let Some(held) = &status.checkpoint_held {
        let phase = match held.phase {
            Phase::Rows => "waits for rows",
            Phase::Encoding => "waits for state to be encoded and output to be staged",
            Phase::Uploading => "is being uploaded",
            Phase::Committing => "is being committed",
        };
        let (interval, time) = (held.interval, ms(held.for_ms));
        text += &format!("  checkpoint   of interval {interval} {phase}, for {time}\n");
        held.by.iter().for_each(|by| text += &format!("               {}\n", holder(by)));
    }
    text
}

/// Who does what, if there are several processes.
fn processes(processes: &[ProcessShare]) -> String {
    let [_, _, ..] = processes else { return String::new() };
    let row = |share: &ProcessShare| {
        let groups = &share.key_groups;
        vec![
            share.process.to_string(),
            share.pid.to_string(),
            share.workers.to_string(),
            match groups.is_empty() {
                true => "none".to_owned(),
                false => format!("{} to {}", groups.start, groups.end - 1),
            },
        ]
    };
    let heads = [">PROCESS", ">PID", ">WORKERS", "KEY GROUPS"];
    format!("\nprocesses\n{}", table(&heads, processes.iter().map(row)))
}

fn holder(holder: &Holder) -> String {
    let mut text = format!("worker {}", holder.worker);
    if let Some(operator) = &holder.operator {
        text += &format!(", {} {operator}", holder.kind.map_or("operator", kind));
    }
    if let Some(split) = &holder.split {
        text += &format!(", split {split}");
    }
    text + ": " + &holder.why
}

fn kind(kind: HostKind) -> &'static str {
    match kind {
        HostKind::Source => "source",
        HostKind::Splits => "splits",
        HostKind::Operator => "operator",
        HostKind::Sink => "sink",
    }
}

fn operators(operators: &[OperatorStatus]) -> String {
    let row = |host: &OperatorStatus| {
        let watermark = host.watermark_ms.and_then(|ms| u64::try_from(ms).ok()).map(time);
        vec![
            std::iter::once(&host.operator)
                .chain(&host.with)
                .cloned()
                .collect::<Vec<_>>()
                .join(" + "),
            kind(host.kind).to_owned(),
            host.records_in.to_string(),
            host.records_out.to_string(),
            host.late.to_string(),
            watermark.unwrap_or_else(|| "-".to_owned()),
            match (host.waiting, host.queued_bytes) {
                (0, 0) => "-".to_owned(),
                (1, 0) => "1 batch".to_owned(),
                (batches, 0) => format!("{batches} batches"),
                (_, bytes) => size(bytes),
            },
        ]
    };
    let heads = ["OPERATOR", "KIND", ">IN", ">OUT", ">LATE", "WATERMARK", "WAITING"];
    table(&heads, operators.iter().map(row))
}

/// The splits that are being read.
fn splits(workers: &[WorkerStatus]) -> String {
    let mut rows = Vec::new();
    for worker in workers {
        for source in worker.hosts.iter().filter(|host| host.kind == HostKind::Source) {
            for split in &source.reader.splits {
                rows.push(vec![
                    source.operator.clone(),
                    worker.worker.to_string(),
                    split.split.clone(),
                    split.position.to_string(),
                    split.records.to_string(),
                    split.behind.map_or_else(|| "-".to_owned(), |behind| behind.to_string()),
                    if split.is_held { "far ahead, waits" } else { "" }.to_owned(),
                ]);
            }
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let heads = ["SOURCE", ">WORKER", "SPLIT", ">OFFSET", ">RECORDS", ">BEHIND", "HELD"];
    format!("\nsplits, at the end of the last interval\n{}", table(&heads, rows))
}

fn checkpoints(checkpoints: &CheckpointsStatus) -> String {
    let Some(interval_ms) = checkpoints.interval_ms else {
        return "\ncheckpoints: none (--no-checkpoints)\n".to_owned();
    };
    let CheckpointsStatus { committed, bytes, failed, unpublished, .. } = checkpoints;
    let mut text = format!(
        "\ncheckpoints: every {}; {committed} committed in this attempt ({}), {failed} failed, {unpublished} not yet published\n",
        ms(interval_ms),
        size(*bytes),
    );
    if let Some(why) = &checkpoints.last_failure {
        text += &format!("  the last one that failed: {why}\n");
    }
    let row = |last: &CheckpointStatus| {
        let later = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), duration);
        vec![
            last.checkpoint.to_string(),
            ms(last.age_ms),
            size(last.bytes),
            duration(last.duration_us),
            duration(last.wait_us),
            duration(last.encode_us),
            duration(last.upload_us),
            duration(last.commit_us),
            later(last.publish_us),
            later(last.collect_us),
        ]
    };
    let heads = [
        ">CHECKPOINT",
        ">AGE",
        ">SIZE",
        ">TOOK",
        ">WAIT",
        ">ENCODE",
        ">UPLOAD",
        ">COMMIT",
        ">PUBLISH",
        ">COLLECT",
    ];
    if !checkpoints.last.is_empty() {
        text += &table(&heads, checkpoints.last.iter().map(row));
    }
    text
}

fn sinks(sinks: &[SinkStatus]) -> String {
    if sinks.is_empty() {
        return String::new();
    }
    let row = |sink: &SinkStatus| {
        vec![
            sink.sink.clone(),
            sink.published.to_string(),
            sink.unpublished.to_string(),
            sink.failing.as_ref().map_or_else(String::new, |why| format!("FAILING: {why}")),
        ]
    };
    let heads = ["SINK", ">PUBLISHED UP TO", ">CHECKPOINTS LEFT", ""];
    format!("\nsinks\n{}", table(&heads, sinks.iter().map(row)))
}

fn ms(ms: u64) -> String {
    duration(ms.saturating_mul(1000))
}
