//! Looking at a job and steering it through its socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command as Program;

use highwater::control::{self, Answer, AskError, Command};
use highwater::observe::{CheckpointStatus, HostKind, State};

use super::{asked, numbers, place, start};
use crate::program::{command, this_program};
use crate::support::{rows, wait_for};

pub fn a_running_job_says_what_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), place(folder.path()));
    assert!(matches!(control::find(&place), Err(AskError::NotRunning(_))));
    let job = start(numbers(folder, None, 20_000).args(["--workers", "2"]));
    let (status, _client) = asked(&place, "checkpoints are published", |status| {
        status.leader.checkpoints.last.iter().any(|last| {
            last.bytes > 0 && last.publish_us.is_some_and(|us| us > 0) && last.collect_us.is_some()
        })
    });
    assert_eq!((status.leader.job.as_str(), status.leader.state), ("numbers", State::Running));
    let [only] = &status.processes[..] else { panic!("one process: {:?}", status.processes) };
    assert_eq!((only.pid, only.workers, only.key_groups.start), (job.0.id(), 2, 0));
    let operators: Vec<_> =
        status.operators.iter().map(|host| (host.operator.as_str(), host.kind)).collect();
    let expected = [
        ("numbers", HostKind::Source),
        ("key_by@1", HostKind::Operator),
        ("count", HostKind::Operator),
        ("counts", HostKind::Sink),
        ("numbers-out", HostKind::Sink),
    ];
    assert_eq!(operators, expected);
    assert!(status.operators.iter().all(|host| host.records_in > 0), "{:?}", status.operators);
    let sink = status.operators.last().unwrap();
    assert!(sink.records_out > 0 && sink.bytes_out > sink.records_out, "{sink:?}");
    let source = &status.workers[0].hosts[0].reader;
    assert!(!source.splits.is_empty() && source.splits.iter().all(|split| split.records > 0));
    // The phases of a checkpoint make up the whole, but for what one worker takes longer than the other.
    let add_up = |last: &CheckpointStatus| {
        let phases = last.wait_us + last.encode_us + last.upload_us + last.commit_us;
        (0.8..1.25).contains(&(phases as f64 / last.duration_us as f64))
    };
    let last = &status.leader.checkpoints.last;
    assert!(last.iter().all(|last| last.commit_us > 0 && last.upload_us > 0), "{last:?}");
    assert!(last.iter().any(add_up), "{last:?}");
    let found = control::running().unwrap();
    assert!(
        found.iter().any(|found| {
            found.job.as_ref().is_ok_and(|(running, _)| running.pid == job.0.id())
        })
    );
}

pub fn a_checkpoint_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), place(folder.path()));
    let _job = start(command(this_program(), folder, None, 20_000).args([
        "--checkpoint-interval",
        "1h",
        "--restart",
        "never",
    ]));
    let (status, mut client) = asked(&place, "rows are read", |status| status.records_out > 100);
    assert_eq!(status.leader.checkpoints.committed, 0);
    let mut before = 0;
    for _ in 0..3 {
        let Answer::Checkpoint(taken) = client.ask(Command::Checkpoint).unwrap() else { panic!() };
        assert!(taken.checkpoint > before);
        before = taken.checkpoint;
        assert!(client.status().unwrap().status.unwrap().leader.checkpoints.committed > 0);
    }
    wait_for("its output is published", || !rows(&folder.join("out/numbers")).is_empty());
}

pub fn a_job_without_checkpoints() {
    let mut command = super::stuck::command();
    let job = start(command.args(["--no-checkpoints", "--workers", "2"]));
    // It keeps nothing anywhere, so it is known by its process alone.
    let mut client = None;
    wait_for("it runs", || {
        let found = control::running().unwrap().into_iter().filter_map(|found| found.job.ok());
        let ours = found.filter(|(running, _)| running.pid == job.0.id());
        client = ours.map(|(running, client)| running.status.map(|_| client)).next().flatten();
        client.is_some()
    });
    let error = client.unwrap().ask(Command::Checkpoint).unwrap_err().to_string();
    assert!(error.contains("keeps no checkpoints"), "{error}");
}

pub fn a_stop_takes_a_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), place(folder.path()));
    let mut job = start(command(this_program(), folder, None, 20_000).args([
        "--checkpoint-interval",
        "1h",
        "--restart",
        "never",
    ]));
    let (_, mut client) = asked(&place, "rows are read", |status| status.records_out > 100);
    let Answer::Stopping(_) = client.ask(Command::Stop).unwrap() else { panic!() };
    let Some(Answer::Ended(ended)) = client.next(None).unwrap() else { panic!() };
    assert!(!ended.finished && ended.error.is_none(), "{ended:?}");
    assert!(job.0.wait().unwrap().success());
    let read = rows(&folder.join("out/numbers")).len() as u64;
    assert_eq!(ended.records_in, read, "everything that was read is in the last checkpoint");
    assert!(matches!(control::find(&place), Err(AskError::NotRunning(_))));

    let mut again = start(&mut numbers(folder, Some(read + 3_000), 0));
    let mut said = String::new();
    again.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(ended.checkpoint.is_some() && said.contains("went on from checkpoint"), "{said}");
    assert!(said.contains("finished: 3000 records"), "{said}");
}

/// The socket of a job in its process.
fn socket(pid: u32) -> PathBuf {
    let found = control::running()
        .unwrap()
        .into_iter()
        .find(|found| found.path.to_str().unwrap().ends_with(&format!("-{pid}.sock")));
    found.unwrap().path
}

pub fn a_killed_job_is_not_running() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), place(folder.path()));
    let mut job = start(&mut numbers(folder, None, 20_000));
    asked(&place, "it runs", |_| true);
    let path = socket(job.0.id());
    job.0.kill().unwrap();
    job.0.wait().unwrap();
    assert!(path.exists(), "nobody has removed it yet");
    assert!(matches!(control::find(&place), Err(AskError::NotRunning(_))));
    assert!(!path.exists());
    let _again = start(&mut numbers(folder, None, 20_000));
    let (status, _) = asked(&place, "it runs again", |_| true);
    assert!(status.leader.attempt > 0);
}

pub fn a_paused_process_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), place(folder.path()));
    let job = start(&mut numbers(folder, None, 20_000));
    asked(&place, "it runs", |_| true);
    let signal = |name: &str| {
        let sent = Program::new("kill").args([name, &job.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    wait_for("it says nothing any more", || {
        matches!(control::find(&place), Err(AskError::Silent { .. }))
    });
    signal("-CONT");
    asked(&place, "it answers again", |_| true);
}

pub fn wrong_requests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), place(folder.path()));
    let job = start(&mut numbers(folder, None, 20_000));
    asked(&place, "it runs", |_| true);
    let path = socket(job.0.id());
    let folder_mode = std::fs::metadata(path.parent().unwrap()).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&folder_mode) & 0o777, 0o700);
    let long = "x".repeat(100_000);
    for (request, words) in [
        ("hello\n", "no JSON"),
        ("{\"version\":7,\"command\":\"status\"}\n", "speaks version 1 and not 7"),
        ("{\"version\":1,\"command\":\"explode\"}\n", "no command `explode`"),
        ("{\"version\":1}\n", "the command is missing"),
        (&long, "longer than 4096 bytes"),
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        // It may hang up before it has read all.
        stream.write_all(request.as_bytes()).ok();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["version"], 1);
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
    }
    // Whoever says nothing, or goes in the middle of a word, disturbs nobody.
    let _idle = UnixStream::connect(&path).unwrap();
    UnixStream::connect(&path).unwrap().write_all(b"{\"vers").unwrap();
    asked(&place, "it still answers", |_| true);
}
