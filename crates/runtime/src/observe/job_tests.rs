//! Reports of made-up processes, and what is said of them.

use super::super::status::{
    CheckpointsStatus, HostKind, HostStatus, Inside, LeaderStatus, ProcessStatus, ReaderStatus,
    State, StorageStatus, TroubleStatus, UnderWay, WorkerStatus,
};
use super::super::{Holder, Phase};
use super::*;

const PRESENT: Epoch = Epoch::new(5, 9);

fn leader() -> LeaderStatus {
    LeaderStatus {
        job: "job".to_owned(),
        attempt: 3,
        state: State::Running,
        running_ms: 1,
        restarts: 2,
        last_failure: Some("it was killed".to_owned()),
        epoch: PRESENT,
        epochs: 40,
        trigger: 1,
        checkpoints: CheckpointsStatus {
            interval_ms: Some(1000),
            committed: 0,
            bytes: 0,
            failed: 0,
            last_failure: None,
            unpublished: 0,
            under_way: None,
            last: Vec::new(),
        },
        sinks: Vec::new(),
    }
}

fn host(stage: usize, kind: HostKind, operator: &str) -> HostStatus {
    let in_checkpoints = !matches!(kind, HostKind::Source);
    let interval = in_checkpoints.then_some(PRESENT.interval());
    HostStatus {
        stage,
        kind,
        operator: operator.to_owned(),
        with: Vec::new(),
        frontier: Some(PRESENT),
        holds: (kind == HostKind::Source).then_some(PRESENT),
        waiting: 0,
        queued_bytes: 0,
        interval,
        handed: interval,
        records_in: 10,
        records_out: 20,
        bytes_in: 0,
        bytes_out: 0,
        late: 0,
        watermark_ms: None,
        reader: ReaderStatus::default(),
        trouble: None,
    }
}

/// A worker with nothing but the present epoch.
fn worker(number: usize) -> WorkerStatus {
    let mut source = host(0, HostKind::Source, "in");
    source.reader.reading = Some("a.csv".to_owned());
    WorkerStatus {
        key_groups: 64 * number as u32..64 * (number as u32 + 1),
        worker: number,
        complete: Some(PRESENT),
        complete_for_ms: 3,
        in_flight_bytes: 7,
        paused: false,
        inside: None,
        uploaded: PRESENT.interval(),
        hosts: vec![
            source,
            host(0, HostKind::Splits, "in"),
            host(1, HostKind::Operator, "count"),
            host(2, HostKind::Sink, "out"),
        ],
    }
}

fn job(leader: LeaderStatus, workers: Vec<WorkerStatus>) -> JobStatus {
    // One process a worker, the leader's last.
    let process = |worker: WorkerStatus| ProcessStatus {
        process: worker.worker,
        pid: 100 + worker.worker as u32,
        leader: (worker.worker == 0).then(|| leader.clone()),
        storage: trouble(worker.worker as u64),
        workers: vec![worker],
    };
    JobStatus::of(workers.into_iter().rev().map(process).collect()).unwrap()
}

/// Process 0 has had some trouble, and every later one for longer.
fn trouble(process: u64) -> StorageStatus {
    let trouble = TroubleStatus { for_ms: 10 * process, why: format!("of process {process}") };
    StorageStatus { failed_calls: 3, trouble: Some(trouble) }
}

fn said(by: &[Holder]) -> Vec<(usize, &str)> {
    by.iter().map(|by| (by.worker, by.operator.as_deref().unwrap_or("-"))).collect()
}

/// Both workers know that `epoch` isn't complete.
fn behind(epoch: Epoch) -> Vec<WorkerStatus> {
    let mut workers = vec![worker(0), worker(1)];
    for worker in &mut workers {
        worker.complete = Some(epoch);
        worker.complete_for_ms = 900;
    }
    workers
}

#[test]
fn workers_are_summed_up_by_stage() {
    let status = job(leader(), vec![worker(0), worker(1)]);
    assert_eq!((status.records_in, status.records_out, status.in_flight_bytes), (20, 20, 14));
    let operators: Vec<&str> = status.operators.iter().map(|host| &*host.operator).collect();
    assert_eq!(operators, ["in", "count", "out"], "splits are the engine's own");
    assert_eq!(status.operators[1].records_out, 40);
    assert_eq!((status.leader.restarts, status.processes.len()), (2, 2));
    let shares = status.processes.iter().map(|share| (share.process, share.key_groups.clone()));
    assert_eq!(shares.collect::<Vec<_>>(), [(0, 0..64), (1, 64..128)]);
    assert_eq!((status.epoch_held, status.checkpoint_held), (None, None));
    assert_eq!((status.storage.failed_calls, status.storage.trouble), (6, trouble(1).trouble));
    let without_leader = ProcessStatus {
        process: 1,
        pid: 1,
        workers: Vec::new(),
        storage: StorageStatus::default(),
        leader: None,
    };
    assert_eq!(JobStatus::of(vec![without_leader]), None);
}

#[test]
fn bytes_are_expected_only_if_every_source_knows() {
    let mut one = worker(0);
    one.hosts[0].reader.bytes_expected = 100;
    one.hosts.push(host(3, HostKind::Source, "endless"));
    assert_eq!(job(leader(), vec![one.clone()]).bytes_expected, 0);
    one.hosts[4].reader.bytes_expected = 11;
    assert_eq!(job(leader(), vec![one]).bytes_expected, 111);
}

#[test]
fn the_watermark_is_the_lowest() {
    let mut workers = vec![worker(0), worker(1)];
    workers[0].hosts[2].watermark_ms = Some(50);
    workers[1].hosts[2].watermark_ms = Some(20);
    assert_eq!(job(leader(), workers).operators[1].watermark_ms, Some(20));
}

#[test]
fn the_first_host_that_has_something_left_holds_the_epoch() {
    let old = Epoch::new(5, 2);
    let mut workers = behind(old);
    // What waits behind it is no fault of theirs.
    workers[1].hosts[2].holds = Some(old);
    workers[1].hosts[3].holds = Some(old);
    workers[1].hosts[2].waiting = 4;
    // A later epoch isn't the oldest.
    workers[0].hosts[2].holds = Some(Epoch::new(5, 3));
    let held = job(leader(), workers).epoch_held.unwrap();
    assert_eq!((held.epoch, held.for_ms), (old, 900));
    assert_eq!(said(&held.by), [(1, "count")]);
    assert!(held.by[0].why.contains("4 batches wait"), "{held:?}");
}

#[test]
fn a_stuck_thread_is_named_for_what_it_is_in() {
    let old = Epoch::new(5, 2);
    let mut workers = behind(old);
    // The thread of worker 0 is in its operator, so its source hasn't heard of later epochs.
    workers[0].hosts[0].holds = Some(old);
    workers[0].inside = Some(Inside { host: 2, for_ms: 5_100 });
    let held = job(leader(), workers.clone()).epoch_held.unwrap();
    assert_eq!(said(&held.by), [(0, "count")]);
    assert!(held.by[0].why.contains("5.1 s"), "{held:?}");
    // In its reader.
    workers[0].inside = Some(Inside { host: 0, for_ms: 5_100 });
    let held = job(leader(), workers.clone()).epoch_held.unwrap();
    assert_eq!(held.by[0].split.as_deref(), Some("a.csv"));
    // Just now is no sign of anything; it is the source that hasn't gone on.
    workers[0].inside = Some(Inside { host: 2, for_ms: 1 });
    let held = job(leader(), workers.clone()).epoch_held.unwrap();
    assert_eq!(said(&held.by), [(0, "in")]);
    // What was sent to a stuck thread isn't seen there.
    workers[0].hosts[0].holds = Some(PRESENT);
    workers[0].inside = Some(Inside { host: 3, for_ms: 300 });
    assert_eq!(said(&job(leader(), workers).epoch_held.unwrap().by), [(0, "out")]);
}

#[test]
fn a_checkpoint_waits_for_one_phase_after_the_other() {
    let mut leader = leader();
    let interval = PRESENT.interval() - 1;
    leader.checkpoints.under_way = Some(UnderWay { interval, for_ms: 70, committing: false });
    let mut workers = behind(Epoch::new(interval, 8));
    for worker in &mut workers {
        worker.uploaded = interval;
        for host in worker.hosts.iter_mut().filter(|host| host.kind != HostKind::Source) {
            (host.interval, host.handed) = (Some(interval), Some(interval));
        }
    }
    let held = |leader: &LeaderStatus, workers: &[WorkerStatus]| {
        job(leader.clone(), workers.to_vec()).checkpoint_held.unwrap()
    };
    workers[1].hosts[3].holds = Some(Epoch::new(interval, 8));
    let now = held(&leader, &workers);
    assert_eq!((now.interval, now.phase, now.for_ms), (interval, Phase::Rows, 70));
    assert_eq!(said(&now.by), [(1, "out")], "who has rows, not who waits for them");

    workers.iter_mut().flat_map(|worker| &mut worker.hosts).for_each(|host| {
        host.interval = Some(PRESENT.interval());
    });
    workers[0].hosts[1].handed = Some(PRESENT.interval());
    workers[0].hosts[2].handed = Some(PRESENT.interval());
    workers[1].hosts[1].handed = Some(PRESENT.interval());
    let now = held(&leader, &workers);
    assert_eq!(now.phase, Phase::Encoding);
    assert_eq!(said(&now.by), [(0, "out"), (1, "count")]);
    assert!(now.by[0].why.contains("staged") && now.by[1].why.contains("encoded"), "{now:?}");

    workers.iter_mut().flat_map(|worker| &mut worker.hosts).for_each(|host| {
        host.handed = Some(PRESENT.interval());
    });
    workers[1].uploaded = PRESENT.interval();
    let now = held(&leader, &workers);
    assert_eq!((now.phase, said(&now.by)), (Phase::Uploading, vec![(0, "-")]));

    leader.checkpoints.under_way = Some(UnderWay { interval, for_ms: 70, committing: true });
    let now = held(&leader, &workers);
    assert_eq!((now.phase, now.by), (Phase::Committing, vec![]));
}

#[test]
fn a_report_survives_its_journey() {
    let mut workers = behind(Epoch::new(5, 2));
    workers[0].hosts[1].frontier = None;
    let status = job(leader(), workers);
    let text = serde_json::to_string(&status).unwrap();
    assert!(text.contains(r#""epoch":"5.9""#), "{text}");
    assert_eq!(serde_json::from_str::<JobStatus>(&text).unwrap(), status);
}
