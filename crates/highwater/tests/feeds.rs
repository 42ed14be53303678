//! Jobs that read standard input or a TCP server, killed: no row twice, none made of pieces, and everything behind the source exact.

#![allow(clippy::disallowed_methods, reason = "tests run in the real world")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater::connectors::{Files, Socket, Stdin};
use program::{children, kill};
use support::{CLASSES, rows, wait_for};

/// Where the job reads: `stdin`, or a server's address.
const FEED: &str = "HIGHWATER_TEST_FEED";

fn main() -> highwater::Result<()> {
    if let Ok(feed) = std::env::var(FEED) {
        return job(&feed);
    }
    program::main(&[
        ("standard_input_is_read_to_its_end", standard_input_is_read_to_its_end),
        ("standard_input_outlives_its_readers", standard_input_outlives_its_readers),
        ("standard_input_need_not_wait", standard_input_need_not_wait),
        ("each_start_may_have_input_of_its_own", each_start_may_have_input_of_its_own),
        ("a_server_and_its_readers_come_and_go", a_server_and_its_readers_come_and_go),
        ("a_socket_has_no_end", a_socket_has_no_end),
    ])
}

/// Rows are `[number, number * 7]`: a piece of one is none.
fn job(feed: &str) -> highwater::Result<()> {
    highwater::run("feed", |graph| {
        let pairs = match feed {
            "stdin" => graph.read("in", Stdin::ndjson()),
            address => graph.read("in", Socket::ndjson(address)),
        };
        let numbers = pairs.map(|(number, times): (u64, u64)| {
            assert_eq!(number * 7, times, "a whole row");
            number
        });
        let counts = numbers.clone().key_by(|number| number % CLASSES).count().uid("count");
        counts.map(|(class, count)| class + CLASSES * count).write("counts", Files::text("counts"));
        numbers.write("numbers", Files::text("numbers"));
    })?;
    Ok(())
}

fn command(folder: &Path, feed: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program::this_program());
    command.current_dir(folder).env(FEED, feed).args(["--checkpoint-interval", "20ms"]);
    for variable in
        ["HIGHWATER_CHECKPOINTS", "HIGHWATER_WORKERS", "HIGHWATER_SUPERVISOR", "RUST_LOG"]
    {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn line(number: u64) -> String {
    format!("[{number},{}]\n", number * 7)
}

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(line).collect()
}

/// Ends the job's input, and gives what it said.
fn finish(mut child: Child) -> String {
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let said = program::said(&output);
    assert!(output.status.success(), "{said}");
    said
}

/// Nothing comes twice, and the counts are those of what came.
fn assert_consistent(folder: &Path) -> BTreeSet<u64> {
    let numbers = rows(&folder.join("numbers"));
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(numbers.len(), distinct.len(), "some came twice");
    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
    numbers.iter().for_each(|number| *expected.entry(number % CLASSES).or_default() += 1);
    let mut counts = BTreeMap::new();
    for row in rows(&folder.join("counts")) {
        counts.insert(row % CLASSES, row / CLASSES);
    }
    assert_eq!(counts, expected);
    distinct
}

fn standard_input_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(folder.path(), "stdin", &["--workers", "2"]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines(0..5000).trim_end().as_bytes()).unwrap();
    drop(input);
    let said = finish(child);
    assert!(said.contains("standard input can't be asked for anything again"), "{said}");
    assert_eq!(assert_consistent(folder.path()), (0..5000).collect());
    // A record that can't be read is named.
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(folder.path(), "stdin", &["--restart", "never"]).spawn().unwrap();
    let said = format!("{}nonsense\n", lines(0..10));
    child.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = program::said(&output);
    assert!(!output.status.success() && said.contains("stdin:11 (record 11): expected"), "{said}");
}

/// Writes numbers until told to stop, and rests in the middle of a line each time; gives how many.
fn produce(mut to: impl Write, stop: &AtomicBool) -> u64 {
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let text = lines(next..next + 20);
        next += 20;
        let (head, tail) = text.split_at(text.len() - 5);
        to.write_all(head.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        to.write_all(tail.as_bytes()).unwrap();
    }
    next
}

/// Kills process 0 and waits until it is replaced and rows flow again.
fn kill_reader(parent: &Child, processes: usize, folder: &Path) {
    wait_for("the processes are there", || children(parent.id()).len() == processes);
    let victim = children(parent.id())[0];
    assert!(kill(victim, "-KILL"));
    wait_for("it is replaced", || {
        let now = children(parent.id());
        now.len() == processes && !now.contains(&victim)
    });
    let before = rows(&folder.join("numbers")).len();
    wait_for("rows flow again", || rows(&folder.join("numbers")).len() > before);
}

fn standard_input_outlives_its_readers() {
    for processes in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let p = processes.to_string();
        let mut child = command(folder, "stdin", &["--processes", &p]).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let producer = std::thread::spawn(move || produce(input, &told));
        wait_for("rows flow", || !rows(&folder.join("numbers")).is_empty());
        for _ in 0..4 {
            kill_reader(&child, processes, folder);
        }
        stop.store(true, Ordering::Relaxed);
        let end = producer.join().unwrap();
        let said = finish(child);
        assert!(said.contains("lost, and how much that is can't be known"), "{said}");
        let found = assert_consistent(folder);
        assert_eq!(found.last(), Some(&(end - 1)), "what came after the last failure isn't lost");
        // Each restart loses at most one stretch.
        let stretches = found.iter().zip(found.iter().skip(1)).filter(|(a, b)| *a + 1 != **b);
        assert!(stretches.count() <= 4);
    }
}

/// Another program may have made it non-blocking. And while nothing comes, the job can be stopped.
fn standard_input_need_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut command = command(folder.path(), "stdin", &[]);
    let mut child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
    // Ours is the only other end.
    drop(command);
    for n in 0..3 {
        ours.write_all(lines(n * 10..n * 10 + 10).as_bytes()).unwrap();
        let all = (n as usize + 1) * 10;
        wait_for("they come through", || rows(&folder.path().join("numbers")).len() == all);
    }
    assert!(kill(child.id(), "-TERM"));
    assert!(child.wait().unwrap().success());
    assert_eq!(assert_consistent(folder.path()), (0..30).collect());
}

fn each_start_may_have_input_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    for start in 0..3 {
        let arguments = ["--trigger", "available-now"];
        let mut child = command(folder.path(), "stdin", &arguments).spawn().unwrap();
        let input = lines(start * 100..start * 100 + 100);
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        finish(child);
    }
    assert_eq!(assert_consistent(folder.path()), (0..300).collect());
}

/// A server that sends numbers, breaks off within a line, is away for a moment, and goes on with the next number.
fn unsteady_server(next: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut listener = Some(listener);
    let at = address.clone();
    std::thread::spawn(move || {
        loop {
            let listening = listener.take().unwrap_or_else(|| TcpListener::bind(&at).unwrap());
            let mut connection = listening.accept().unwrap().0;
            // Nobody can connect until this connection is over.
            drop(listening);
            for _ in 0..200 {
                let from = next.fetch_add(5, Ordering::Relaxed);
                if connection.write_all(lines(from..from + 5).as_bytes()).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            connection.write_all(b"[1,").ok();
        }
    });
    address
}

fn a_server_and_its_readers_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let next = Arc::new(AtomicU64::new(0));
    let address = unsteady_server(next.clone());
    let mut child = command(folder, &address, &[]).spawn().unwrap();
    for _ in 0..3 {
        let sent = next.load(Ordering::Relaxed);
        wait_for("rows flow", || {
            rows(&folder.join("numbers")).into_iter().max().is_some_and(|last| last >= sent + 1000)
        });
        kill_reader(&child, 1, folder);
    }
    assert!(kill(child.id(), "-TERM"));
    let mut said = String::new();
    child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    for part in ["has closed the connection", "closed the connection within a record; the 3 bytes"]
    {
        assert!(said.contains(part), "{said}");
    }
    assert!(said.contains("lost, and how much that is can't be known"), "{said}");
    assert_consistent(folder);
}

fn a_socket_has_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--trigger", "available-now"];
    let child = command(folder.path(), "localhost:1", &arguments).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = program::said(&output);
    assert!(!output.status.success() && said.contains("say `.once()`"), "{said}");
}
