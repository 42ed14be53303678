//! What the whole-engine tests share: a source that is told how far to go, sinks that fail or remember, a store that does what a test says.

#![allow(dead_code, unused_imports, reason = "every test file uses a part of it")]

mod folders;
mod numbers;
mod published;
mod ruled;
mod sinks;
mod stored;
mod trouble;
mod watched;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use highwater::Job;
use highwater::testing::{Run, Test};
use highwater_log::Store;

pub use folders::*;
pub use numbers::*;
pub use published::*;
pub use ruled::*;
pub use sinks::*;
pub use stored::*;
pub use trouble::*;
pub use watched::*;

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` holds.
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(wait_at_most(PATIENCE, condition), "waited in vain until {what}");
}

/// Waits until `condition` holds; false if it doesn't within `time`.
#[allow(clippy::disallowed_methods, reason = "tests run in the real world")]
pub fn wait_at_most(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !condition() {
        if begin.elapsed() > time {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

pub fn sorted(mut rows: Vec<u64>) -> Vec<u64> {
    rows.sort_unstable();
    rows
}

/// The job of most tests: the numbers themselves to `sink`, and how many there are of each class to `counts`.
pub fn job(job: &Job, numbers: &Numbers, sink: Raw) {
    let numbers = job.read("numbers", numbers.clone());
    numbers.clone().write("numbers-out", sink);
    numbers
        .key_by(|number| number % CLASSES)
        .count()
        .uid("count")
        .write("counts", highwater::testing::Collect);
}

pub const CLASSES: u64 = 13;

/// What the counts of [`job`] come to for the numbers up to `end`.
pub fn expected_counts(end: u64) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for number in 0..end {
        *counts.entry(number % CLASSES).or_default() += 1;
    }
    counts
}

pub fn counts(run: &Run) -> BTreeMap<u64, u64> {
    run.last_per_key::<u64, u64>("counts").into_iter().collect()
}

/// The same, as something that can be built on another thread, with a file sink.
pub fn file_job(numbers: &Numbers, out: &Path) -> impl FnOnce(&Job) + Send + 'static + use<> {
    let (numbers, out) = (numbers.clone(), out.to_owned());
    move |graph| job(graph, &numbers, Raw(files(&out)))
}

/// The same, with a sink that fails.
pub fn faulty_job(numbers: &Numbers, sink: &Faulty) -> impl FnOnce(&Job) + Send + 'static + use<> {
    let (numbers, sink) = (numbers.clone(), sink.clone());
    move |graph| job(graph, &numbers, sink.sink())
}

/// Runs a job beside the test. Nobody waits for it if the test fails.
pub fn start(
    test: Test,
    job: impl FnOnce(&Job) + Send + 'static,
) -> JoinHandle<highwater::Result<Run>> {
    let thread = std::thread::Builder::new().name("a job".to_owned());
    thread.spawn(|| test.run(job)).unwrap()
}

/// A test whose attempts see `store`.
pub fn test(workers: usize, store: &Store) -> Test {
    Test::new(workers).store(store.clone())
}
