//! A supervised job of one process and several: killed, paused, doubled, and still exact.

#![allow(clippy::disallowed_methods, reason = "tests run in the real world")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use program::{children, command, kill, said, this_program};
use support::{CLASSES, rows, wait_for};

/// As `cluster::SILENCE`, and a little for starting anew on a loaded machine.
const NOTICED: Duration = Duration::from_secs(8);

fn main() -> highwater::Result<()> {
    program::main(&[
        ("processes_share_the_work", processes_share_the_work),
        ("any_process_may_be_killed_at_any_time", any_process_may_be_killed_at_any_time),
        ("a_paused_process_is_replaced", a_paused_process_is_replaced),
        ("a_zombie_of_a_cluster_changes_nothing", a_zombie_of_a_cluster_changes_nothing),
        ("of_two_supervisors_one_goes_on", of_two_supervisors_one_goes_on),
        ("processes_that_do_not_fit_are_refused", processes_that_do_not_fit_are_refused),
        ("a_record_that_always_fails_is_named", a_record_that_always_fails_is_named),
        ("a_record_that_always_fails_is_left_out", a_record_that_always_fails_is_left_out),
        ("a_job_is_killed_while_a_folder_is_away", a_job_is_killed_while_a_folder_is_away),
        ("a_killed_supervisor_takes_its_processes_with_it", a_killed_supervisor),
    ])
}

/// The job in `folder`, with checkpoints every 50 ms.
fn job(folder: &Path, limit: Option<u64>, rate: u64) -> Command {
    let mut command = command(this_program(), folder, limit, rate);
    command.args(["--checkpoint-interval", "50ms"]).env_remove("HIGHWATER_SUPERVISOR");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn wait_for_children(parent: &Child, count: usize) -> Vec<u32> {
    wait_for("the processes are there", || children(parent.id()).len() == count);
    children(parent.id())
}

/// Kills the process with this number, and gives its id. On a machine under load, it may have been replaced the moment before.
fn kill_one(parent: &Child, count: usize, number: usize) -> u32 {
    loop {
        let victim = wait_for_children(parent, count)[number];
        if kill(victim, "-KILL") {
            return victim;
        }
    }
}

fn published(folder: &Path) -> usize {
    rows(&folder.join("out/numbers")).len()
}

/// A number that no split has come to: they needn't be read evenly.
fn beyond(folder: &Path) -> u64 {
    rows(&folder.join("out/numbers")).into_iter().max().unwrap_or_default() + 1_000
}

/// Ends the job, and gives what it said.
fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    said
}

fn assert_exact(folder: &Path, limit: u64) {
    let numbers = rows(&folder.join("out/numbers"));
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    let lost: Vec<u64> = (0..limit).filter(|number| !distinct.contains(number)).collect();
    let doubled = numbers.len() - distinct.len();
    assert!(lost.is_empty() && doubled == 0, "lost {lost:?}, doubled {doubled}");
    assert_eq!(distinct.len() as u64, limit, "nothing but what was read");
    // Two epochs may tell of the same count, and none of a smaller one.
    let mut last = std::collections::BTreeMap::new();
    for row in rows(&folder.join("out/counts")) {
        let (class, count) = (row % CLASSES, row / CLASSES);
        let before = last.insert(class, count).unwrap_or_default();
        assert!(before <= count, "the counts of a class never fall");
    }
    assert_eq!(last.into_values().sum::<u64>(), limit);
}

/// The folder of the checkpoints, then that of the output is renamed; the job is killed, and started again while it is away. Nobody makes
/// the folder anew, and all goes on once it is back.
fn a_job_is_killed_while_a_folder_is_away() {
    for name in [".highwater", "out/numbers"] {
        let folder = tempfile::tempdir().unwrap();
        let (there, away) = (folder.path().join(name), folder.path().join("away"));
        let limit = 20_000;
        let log = folder.path().join("said");
        let mut job = job(folder.path(), Some(limit), 4_000);
        job.args(["--workers", "2", "--restart", "exponential,first=10ms,longest=200ms"]);
        let mut child = job.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let said = || fs::read_to_string(&log).unwrap();
        wait_for("something is published", || {
            folder.path().join("out/numbers").is_dir() && published(folder.path()) > 0
        });
        fs::rename(&there, &away).unwrap();
        wait_for("the trouble is said", || said().contains("this is repeated until it works"));
        for _ in 0..2 {
            let before = said().matches("starting again").count();
            kill_one(&child, 1, 0);
            wait_for("it can't start", || said().matches("starting again").count() > before + 2);
        }
        assert!(said().contains("put it back"), "{}", said());
        assert!(!there.exists(), "{name} was made anew");
        fs::rename(&away, &there).unwrap();
        assert!(child.wait().unwrap().success(), "{}", said());
        assert_exact(folder.path(), limit);
    }
}

fn processes_share_the_work() {
    for (processes, workers) in [("2", "1"), ("3", "2")] {
        let folder = tempfile::tempdir().unwrap();
        let limit = 30_000;
        let mut job = job(folder.path(), Some(limit), 0);
        let child = job.args(["--processes", processes, "--workers", workers]).spawn().unwrap();
        let said = finish(child);
        assert!(said.contains(&format!("finished: {limit} records")), "of all processes: {said}");
        assert_exact(folder.path(), limit);
    }
}

fn any_process_may_be_killed_at_any_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut before = 0;
    // Other numbers of processes and workers at every start; each lives through kills of each of its processes.
    for (processes, workers) in [(2, 1), (1, 2), (3, 1), (2, 2)] {
        let (p, w) = (processes.to_string(), workers.to_string());
        let mut command = job(folder, None, 20_000);
        let mut child = command.args(["--processes", &p, "--workers", &w]).spawn().unwrap();
        for round in 0..processes * 2 {
            // Some are killed as soon as they are there, others once they have published something.
            if round % 2 == 0 {
                wait_for("something is published", || published(folder) > before);
                before = published(folder);
            }
            let victim = kill_one(&child, processes, round / 2);
            wait_for("it is replaced", || {
                let now = children(child.id());
                now.len() == processes && !now.contains(&victim)
            });
        }
        wait_for("something is published", || published(folder) > before);
        before = published(folder);
        assert!(kill(child.id(), "-TERM"));
        let mut said = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        assert!(said.contains("; starting again in"), "{said}");
    }
    let limit = beyond(folder);
    finish(job(folder, Some(limit), 0).args(["--processes", "2"]).spawn().unwrap());
    assert_exact(folder, limit);
}

fn a_paused_process_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut job_of_two = job(folder, None, 20_000);
    let mut child = job_of_two.args(["--processes", "2"]).spawn().unwrap();
    for process in [1, 0] {
        let before = published(folder);
        wait_for("something is published", || published(folder) > before);
        let paused = wait_for_children(&child, 2)[process];
        assert!(kill(paused, "-STOP"));
        let since = Instant::now();
        wait_for("it is replaced", || !children(child.id()).contains(&paused));
        assert!(since.elapsed() < NOTICED, "{:?}", since.elapsed());
    }
    let before = published(folder);
    wait_for("the job goes on", || published(folder) > before);
    kill(child.id(), "-TERM");
    assert!(child.wait().unwrap().success());
    let limit = beyond(folder);
    finish(job(folder, Some(limit), 0).spawn().unwrap());
    assert_exact(folder, limit);
}

/// Addresses that nobody listens at, for now.
fn hosts(count: usize) -> String {
    let free: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let hosts: Vec<String> =
        free.iter().map(|host| host.local_addr().unwrap().to_string()).collect();
    hosts.join(",")
}

/// Process `process` of a job whose processes are started one by one.
fn member(folder: &Path, limit: Option<u64>, hosts: &str, process: usize) -> Command {
    let mut command = job(folder, limit, 20_000);
    command.args(["--hosts", hosts, "--process", &process.to_string()]);
    command
}

fn a_zombie_of_a_cluster_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let old = hosts(2);
    let start = |hosts: &str, process, limit| {
        // Without a supervisor, so that what is paused and what is replaced are the processes themselves.
        member(folder, limit, hosts, process).args(["--restart", "never"]).spawn().unwrap()
    };
    for zombie in [0, 1] {
        let before = published(folder);
        let mut members = [start(&old, 0, None), start(&old, 1, None)];
        wait_for("something is published", || published(folder) > before);
        assert!(kill(members[zombie].id(), "-STOP"));
        let other = &mut members[1 - zombie];
        let since = Instant::now();
        wait_for("the other one notices", || other.try_wait().unwrap().is_some());
        assert!(since.elapsed() < NOTICED);

        // The whole job once more, elsewhere.
        let before = published(folder);
        let mut anew = job(folder, None, 20_000);
        let mut anew = anew.args(["--processes", "2"]).spawn().unwrap();
        wait_for("something is published", || published(folder) > before);
        assert!(kill(members[zombie].id(), "-CONT"));
        wait_for("the zombie ends", || members[zombie].try_wait().unwrap().is_some());
        assert!(!members[zombie].wait().unwrap().success());
        let before = published(folder);
        wait_for("its replacement goes on", || published(folder) > before);
        kill(anew.id(), "-TERM");
        assert!(anew.wait().unwrap().success());
    }
    let limit = beyond(folder);
    finish(job(folder, Some(limit), 0).spawn().unwrap());
    assert_exact(folder, limit);
}

fn of_two_supervisors_one_goes_on() {
    for processes in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let start = || job(folder, None, 20_000).args(["--processes", processes]).spawn().unwrap();
        let mut both = [start(), start()];
        wait_for("one of them ends", || {
            both.iter_mut().any(|one| one.try_wait().unwrap().is_some())
        });
        let loser = both.iter_mut().position(|one| one.try_wait().unwrap().is_some()).unwrap();
        let before = published(folder);
        wait_for("the other one goes on", || published(folder) > before);
        let [mut one, mut two] = both;
        let (loser, winner) = if loser == 0 { (one, &mut two) } else { (two, &mut one) };
        let output = loser.wait_with_output().unwrap();
        let why = said(&output);
        assert!(!output.status.success());
        assert!(why.contains("has taken over") || why.contains("belongs to"), "{why}");
        kill(winner.id(), "-TERM");
        assert!(winner.wait().unwrap().success());
        let limit = beyond(folder);
        finish(job(folder, Some(limit), 0).spawn().unwrap());
        assert_exact(folder, limit);
    }
}

fn processes_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hosts = hosts(2);
    let mut zero = member(folder, Some(3_000), &hosts, 0).spawn().unwrap();
    let mut stranger = member(folder, Some(3_000), &hosts, 1);
    let stranger = stranger.args(["--workers", "3", "--restart", "never"]).spawn().unwrap();
    let output = stranger.wait_with_output().unwrap();
    let why = said(&output);
    assert!(!output.status.success());
    assert!(why.contains("refuses this process: another number of workers"), "{why}");
    // Nobody takes a place that is taken, and process 0 waits for the right one.
    let mut taken = member(folder, Some(3_000), &hosts, 0);
    let taken = taken.args(["--restart", "never"]).spawn().unwrap().wait_with_output().unwrap();
    assert!(said(&taken).contains("can't listen at"), "{}", said(&taken));
    assert!(zero.try_wait().unwrap().is_none());
    assert!(!folder.join(".highwater/numbers/log").exists(), "the log wasn't touched");
    let one = member(folder, Some(3_000), &hosts, 1).spawn().unwrap();
    finish(one);
    finish(zero);
    assert_exact(folder, 3_000);
}

/// Row 333 of split 1 of 3 is number 1000, its record 334.
fn a_record_that_always_fails_is_named() {
    for (when, processes) in [("early", "1"), ("late", "1"), ("late", "2")] {
        let folder = tempfile::tempdir().unwrap();
        let mut job_of = job(folder.path(), Some(30_000), 0);
        let child = job_of.args(["--processes", processes]).env(program::PANIC, when);
        let output = child.spawn().unwrap().wait_with_output().unwrap();
        let why = said(&output);
        assert_eq!(output.status.code(), Some(1), "{why}");
        let record =
            "record 334 of split `1-of-3` of the source `numbers` makes the job fail: a panic at";
        assert!(why.contains(record) && why.contains("number 1000 is bad"), "{why}");
        finish(job(folder.path(), Some(30_000), 0).spawn().unwrap());
        assert_exact(folder.path(), 30_000);
    }
}

fn a_record_that_always_fails_is_left_out() {
    for (when, processes) in [("early", "2"), ("late", "1")] {
        let folder = tempfile::tempdir().unwrap();
        let mut job = job(folder.path(), Some(30_000), 0);
        let job = job.args(["--processes", processes, "--failing-record", "skip"]);
        let said = finish(job.env(program::PANIC, when).spawn().unwrap());
        assert!(said.contains("the job goes on without it"), "{said}");
        assert!(said.contains("1 bad record skipped"), "{said}");
        // Those that led to the record count, too.
        let restarts = said.matches("; starting again in").count();
        assert!(restarts > 1 && said.contains(&format!("{restarts} restarts")), "{said}");
        let mut numbers = rows(&folder.path().join("out/numbers"));
        numbers.sort_unstable();
        let expected: Vec<u64> = (0..30_000).filter(|number| *number != 1000).collect();
        assert!(numbers == expected, "every number but that one, once");
    }
}

fn a_killed_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut command = job(folder, None, 20_000);
    let mut child = command.args(["--processes", "2"]).spawn().unwrap();
    let processes = wait_for_children(&child, 2);
    wait_for("something is published", || published(folder) > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("its processes end", || processes.iter().all(|process| !kill(*process, "-0")));
    let limit = beyond(folder);
    finish(job(folder, Some(limit), 0).spawn().unwrap());
    assert_exact(folder, limit);
}
