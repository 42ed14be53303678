//! Sequences of steps that others publish: each step is an epoch, and the job dies in between.

use highwater::testing::{Run, Script, Test};
use highwater::{Data, Stream, Timestamp};

/// What happens: records, or a crash behind a checkpoint.
pub enum Step<T> {
    Add(Vec<T>),
    Crash,
}

pub use Step::{Add, Crash};

fn script<T>(steps: Vec<Step<T>>) -> Script<T> {
    steps.into_iter().fold(Script::new(), |script, step| match step {
        Add(records) => script.records(records).epoch(),
        Crash => script.checkpoint().crash(),
    })
}

/// Runs a job over these steps, at first on two workers and after crashes on others.
pub fn run_steps<T: Data>(steps: Vec<Step<T>>, job: impl FnOnce(Stream<T>)) -> Run {
    Test::new(2).then(3).then(1).run(|graph| job(graph.read("in", script(steps)))).unwrap()
}

/// The seconds of a time.
pub fn seconds(at: Timestamp) -> i64 {
    at.as_ms() / 1_000
}

/// What came out, sorted.
pub fn sorted_rows<T: Data + Ord>(run: &Run, name: &str) -> Vec<T> {
    let mut rows = run.committed(name);
    rows.sort();
    rows
}
