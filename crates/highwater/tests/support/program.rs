//! A job as a program of its own: a test binary without libtest's harness, which runs itself again.
//!
//! Called with `HIGHWATER_TEST_OUT`, it is the job: numbers, to files in that folder. The rest of the command line is Highwater's.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Output};

use highwater::connectors::{Files, Generator};

const OUT: &str = "HIGHWATER_TEST_OUT";
const LIMIT: &str = "HIGHWATER_TEST_LIMIT";
const RATE: &str = "HIGHWATER_TEST_RATE";
/// A file that the job makes when it reads its 1000th row, in which it then hangs.
pub const HANG: &str = "HIGHWATER_TEST_HANG";
/// If set, a function of the job panics at number 1000: `early`, one beside the source; `late`, one behind an exchange.
pub const PANIC: &str = "HIGHWATER_TEST_PANIC";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The test binary's `main`: the job, or the tests whose names contain what the command line says.
pub fn main(tests: &[(&str, fn())]) -> highwater::Result<()> {
    if let Some(out) = variable(OUT) {
        return job(&out);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return Ok(());
    }
    let filters: Vec<&String> =
        arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let mut failed = Vec::new();
    for (name, test) in tests.iter().filter(|(name, _)| chosen(name)) {
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(highwater::BoxError::from(format!("failed: {failed:?}")).into())
    }
}

fn job(out: &str) -> highwater::Result<()> {
    let limit = variable(LIMIT).and_then(|limit| limit.parse().ok());
    let rate = variable(RATE).and_then(|rate| rate.parse().ok());
    highwater::run("numbers", |graph| {
        let hang = variable(HANG);
        let number = move |index| {
            if let (1000, Some(file)) = (index, &hang) {
                std::fs::write(file, "").unwrap();
                loop {
                    std::thread::park();
                }
            }
            index
        };
        let mut numbers = Generator::new(number).splits(3);
        if let Some(limit) = limit {
            numbers = numbers.limit(limit);
        }
        if let Some(rate) = rate {
            numbers = numbers.rate(rate);
        }
        let numbers = graph.read::<u64>("numbers", numbers);
        let bad = |number: &u64| assert!(*number != 1000, "number {number} is bad");
        let numbers = match variable(PANIC).as_deref() {
            Some("early") => numbers.inspect(bad),
            Some("late") => numbers.rebalance().inspect(bad),
            _ => numbers,
        };
        let counts =
            numbers.clone().key_by(|number| number % crate::support::CLASSES).count().uid("count");
        counts
            .map(|(class, count)| class + crate::support::CLASSES * count)
            .write("counts", Files::text(format!("{out}/counts")));
        numbers.write("numbers-out", Files::text(format!("{out}/numbers")));
    })?;
    Ok(())
}

/// The job as a command: its files below `folder`, so many rows at that many a second (0: as fast as it can).
pub fn command<S: AsRef<OsStr>>(
    program: S,
    folder: &Path,
    limit: Option<u64>,
    rate: u64,
) -> Command {
    let mut command = Command::new(program);
    describe(&mut command, folder, limit, rate);
    command
}

/// Says in `command` what the job is to be.
pub fn describe(command: &mut Command, folder: &Path, limit: Option<u64>, rate: u64) {
    command
        .env(OUT, folder.join("out"))
        .env_remove(LIMIT)
        .env_remove(RATE)
        .env_remove(HANG)
        .env_remove(PANIC);
    command
        .current_dir(folder)
        .env_remove("HIGHWATER_CHECKPOINTS")
        .env_remove("HIGHWATER_WORKERS")
        .env_remove("RUST_LOG");
    if let Some(limit) = limit {
        command.env(LIMIT, limit.to_string());
    }
    if rate > 0 {
        command.env(RATE, rate.to_string());
    }
}

pub fn this_program() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

/// What a program said on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The processes that `parent` has started and that still run.
pub fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// Sends a signal to a process; false if it is gone.
pub fn kill(process: u32, signal: &str) -> bool {
    let mut kill = Command::new("kill");
    kill.args([signal, &process.to_string()]).stderr(std::process::Stdio::null());
    kill.status().unwrap().success()
}
