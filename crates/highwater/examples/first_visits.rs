//! A mistake that ordinary tests pass, and a test under simulated crashes doesn't.
//!
//! The job lets through the first visit of each visitor. One version remembers whom it has seen in a variable of its own, the other in the
//! engine's state. As long as nothing fails both are right.
//!
//! ```text
//! cargo run --example first_visits
//! ```

use std::collections::HashSet;
use std::sync::Mutex;

use highwater::testing::{self, Collect, Crashes, Simulated};
use highwater::{Job, Stream};

/// Wrong: the variable is no part of a checkpoint, and is empty when the job is started again.
fn remembered_in_a_variable(visits: Stream<String>) -> Stream<String> {
    let seen = Mutex::new(HashSet::new());
    visits.filter(move |visitor| match seen.lock() {
        Ok(mut seen) => seen.insert(visitor.clone()),
        Err(_) => false,
    })
}

/// Right: what has been seen is keyed state.
fn remembered_in_state(visits: Stream<String>) -> Stream<String> {
    visits.distinct().uid("visitors").filter(|_| true)
}

fn job(job: &Job, pipeline: fn(Stream<String>) -> Stream<String>) {
    let visits = (0..40).map(|visit: u64| format!("visitor {}", visit * visit % 11));
    pipeline(job.read("visits", visits.collect::<Vec<_>>())).write("first", Collect);
}

/// Every visitor once.
fn check(run: &Simulated) {
    let first: Vec<String> = run.committed("first");
    let different: HashSet<&String> = first.iter().collect();
    assert_eq!(first.len(), different.len(), "a visitor is let through twice");
    assert_eq!(different.len(), 6, "a visitor is missing");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // An ordinary test sees no difference.
    for pipeline in [remembered_in_a_variable, remembered_in_state] {
        let run = testing::run(1, |handle| job(handle, pipeline))?;
        assert_eq!(run.committed::<String>("first").len(), 6);
    }
    println!("without failures both versions are right\n");

    // A crash at every point does.
    let crashes = Crashes::exhaustive().workers([1]);
    match crashes.check(|handle| job(handle, remembered_in_a_variable), check) {
        Ok(survived) => return Err(format!("the mistake wasn't found: {survived}").into()),
        Err(failure) => println!("remembered in a variable: {failure}\n"),
    }
    let survived = crashes.check(|handle| job(handle, remembered_in_state), check)?;
    println!("remembered in state: {survived}, and right every time");
    Ok(())
}
