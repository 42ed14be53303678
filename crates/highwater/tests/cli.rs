//! A job as a program: signals, restarts, and what it refuses, by exit code and words.

#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use program::{command, said, this_program};
use support::{CLASSES, parts, rows, wait_for};

fn main() -> highwater::Result<()> {
    program::main(&[
        ("a_signal_takes_a_last_checkpoint_and_a_restart_goes_on", a_signal_and_a_restart),
        ("a_second_signal_ends_it_at_once", a_second_signal_ends_it_at_once),
        ("a_killed_program_goes_on", a_killed_program_goes_on),
        ("a_folder_of_somebody_else_is_refused", a_folder_of_somebody_else_is_refused),
        ("files_without_checkpoints_are_refused", files_without_checkpoints_are_refused),
        ("wrong_options_are_refused", wrong_options_are_refused),
        ("checkpoints_of_another_job_are_refused", checkpoints_of_another_job_are_refused),
    ])
}

/// The job in `folder`, with checkpoints every 50 ms.
fn job(folder: &Path, limit: Option<u64>, rate: u64) -> Command {
    let mut command = command(this_program(), folder, limit, rate);
    command.args(["--checkpoint-interval", "50ms"]);
    command
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

/// The output of a program that ended with this exit code.
fn ended(child: Child, code: i32) -> String {
    let output: Output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn run(command: &mut Command, code: i32) -> String {
    ended(start(command), code)
}

fn numbers(folder: &Path) -> Vec<u64> {
    rows(&folder.join("out/numbers"))
}

/// The rows are those of each split up to somewhere, each once; gives how many there are.
fn whole_so_far(rows: &[u64]) -> u64 {
    for split in 0..3 {
        let of_split: Vec<u64> = rows.iter().copied().filter(|row| row % 3 == split).collect();
        let expected: Vec<u64> = (0..of_split.len() as u64).map(|row| row * 3 + split).collect();
        assert_eq!(of_split, expected);
    }
    rows.len() as u64
}

/// The last count of every class is the right one for so many rows.
fn assert_counted(folder: &Path, rows: u64) {
    let mut last = std::collections::BTreeMap::new();
    for row in support::rows(&folder.join("out/counts")) {
        last.insert(row % CLASSES, row / CLASSES);
    }
    assert_eq!(last.into_values().sum::<u64>(), rows);
}

fn a_signal_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut read = 0;
    // The third time over several workers.
    for (round, (name, workers)) in
        [("-INT", "1"), ("-TERM", "2"), ("-INT", "3")].into_iter().enumerate()
    {
        let child = start(job(folder, None, 20_000).args(["--workers", workers]));
        wait_for("something is published", || numbers(folder).len() as u64 > read);
        signal(&child, name);
        let said = ended(child, 0);
        assert!(
            said.contains("numbers: stopping after a last checkpoint (again to stop at once)"),
            "{said}"
        );
        assert!(said.contains("stopped; started again, it goes on from here"), "{said}");
        assert!(said.contains("checkpoints in .highwater/numbers"), "{said}");
        assert_eq!(said.contains("went on from checkpoint"), round > 0, "{said}");
        read = whole_so_far(&numbers(folder));
        assert_counted(folder, read);
    }
    let limit = read + 3_000;
    let said = run(&mut job(folder, Some(limit), 0), 0);
    assert!(said.contains("finished: ") && said.contains("went on from checkpoint"), "{said}");
    assert!(said.contains(&format!("finished: {} records", limit - read)), "{said}");
    assert_eq!(numbers(folder), (0..limit).collect::<Vec<_>>());
    assert_counted(folder, limit);

    let visible = parts(&folder.join("out/numbers"));
    let said = run(&mut job(folder, Some(limit), 0), 0);
    assert!(said.contains("finished already; nothing to do (--fresh starts over)"), "{said}");
    assert_eq!(parts(&folder.join("out/numbers")), visible);
    let said = run(job(folder, Some(limit), 0).arg("--quiet"), 0);
    assert_eq!(said, "", "quiet");

    let said = run(job(folder, Some(500), 0).arg("--fresh"), 0);
    assert!(said.contains("finished: 500 records") && !said.contains("went on"), "{said}");
    assert_eq!(numbers(folder), (0..500).collect::<Vec<_>>(), "the output was taken back");
    assert_counted(folder, 500);
}

/// A job that hangs takes no last checkpoint; the second signal ends it as it would end any program.
fn a_second_signal_ends_it_at_once() {
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let (folder, hangs) = (folder.path(), folder.path().join("hangs"));
        let mut child = start(job(folder, None, 0).env(program::HANG, &hangs));
        wait_for("the job hangs", || hangs.exists());
        signal(&child, name);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let stopping = lines.find(|line| line.contains("again to stop at once"));
        assert!(stopping.is_some(), "it ended before the second signal");
        assert_eq!(child.try_wait().unwrap(), None);
        signal(&child, name);
        wait_for("it has ended", || child.try_wait().unwrap().is_some());
        ended(child, code);
        run(&mut job(folder, Some(5_000), 0), 0);
        assert_eq!(numbers(folder), (0..5_000).collect::<Vec<_>>());
    }
}

fn a_killed_program_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for _ in 0..3 {
        let before = numbers(folder).len();
        let mut child = start(job(folder, None, 20_000).args(["--workers", "2", "--keep", "1"]));
        wait_for("something is published", || numbers(folder).len() > before);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let limit = numbers(folder).len() as u64 + 50_000;
    run(&mut job(folder, Some(limit), 0), 0);
    assert_eq!(numbers(folder), (0..limit).collect::<Vec<_>>());
    assert_counted(folder, limit);
}

fn a_folder_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let out = folder.join("out/numbers");
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("precious.txt"), "mine\n").unwrap();
    let said = run(&mut job(folder, Some(100), 0), 1);
    assert!(
        said.contains("holds files that Highwater didn't write, such as precious.txt"),
        "{said}"
    );
    assert!(said.contains("out/numbers") && said.contains("choose an empty folder"), "{said}");
    assert_eq!(fs::read_to_string(out.join("precious.txt")).unwrap(), "mine\n");

    fs::remove_file(out.join("precious.txt")).unwrap();
    run(&mut job(folder, Some(100), 0), 0);
    let visible = parts(&out);
    // The same job from another place: not the one that wrote there. Nor does starting over make it so.
    for options in [
        &["--checkpoints", "elsewhere"][..],
        &["--checkpoints", "elsewhere", "--fresh"],
        &["--checkpoints", "memory:"],
    ] {
        let said = run(job(folder, Some(100), 0).args(options), 1);
        assert!(
            said.contains("belongs to the sink") && said.contains("of the job `numbers`"),
            "{said}"
        );
        assert_eq!(parts(&out), visible);
    }
}

fn files_without_checkpoints_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(job(folder.path(), Some(100), 0).arg("--no-checkpoints"), 1);
    assert!(said.contains("promises exactly once, which needs checkpoints"), "{said}");
    assert!(
        said.contains("numbers-out") && said.contains("cli") || said.contains("program.rs:"),
        "both, with their places: {said}"
    );
    assert!(
        !folder.path().join("out").exists() && !folder.path().join(".highwater").exists(),
        "nothing was touched"
    );
}

fn wrong_options_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |options: &[&str], code: i32| {
        run(command(this_program(), folder.path(), Some(10), 0).args(options), code)
    };
    for (options, words) in [
        (&["--workers", "x"][..], "invalid value 'x' for '--workers <N>'"),
        (&["--checkpoint-interval", "5"], "a time is a number with ms, s, m or h"),
        (&["--in-flight", "1TB"], "a size is a number"),
        (&["--unknown"], "unexpected argument '--unknown'"),
        (&["input.csv"], "unexpected argument 'input.csv'"),
    ] {
        let said = refused(options, 2);
        assert!(said.contains(words) && said.contains("--help"), "{options:?}: {said}");
    }
    for (options, words) in [
        (&["--workers", "0"][..], "at least one worker"),
        (&["--checkpoints", ""], "checkpoint location ``: it is empty"),
        (&["--checkpoints", "gs://bucket/job"], "no store `gs`"),
    ] {
        let said = refused(options, 1);
        assert!(said.contains(words), "{options:?}: {said}");
    }
    let help = start(command(this_program(), folder.path(), None, 0).arg("--help"))
        .wait_with_output()
        .unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    for option in [
        "--workers",
        "--checkpoints",
        "--checkpoint-interval",
        "--no-checkpoints",
        "--keep",
        "--fresh",
        "--quiet",
    ] {
        assert!(text.contains(option), "{option}: {text}");
    }
    assert!(!folder.path().join("out").exists(), "nothing was touched");
}

fn checkpoints_of_another_job_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = highwater_log::Store::open(folder.path().join("state").to_str().unwrap()).unwrap();
    let other = support::Numbers::new(1, 10);
    support::test(1, &store).run(support::file_job(&other, &folder.path().join("other"))).unwrap();
    let said = run(job(folder.path(), Some(100), 0).args(["--checkpoints", "state"]), 1);
    assert!(
        said.contains("`test`") && said.contains("`numbers`") && said.contains("log/"),
        "{said}"
    );
    assert!(!folder.path().join("out").exists(), "nothing was touched");
}
