//! A job of real processes is killed with SIGKILL more than a hundred times, in every phase, and started again with another number
//! of workers each time; then it runs to its end, and everything that it has written is compared with a straightforward
//! computation over the whole input.
//!
//! ```text
//!  rounds: start ─▶ wait for a phase in the trace ─▶ kill -9 ─▶ count the phase that it died in   (job: this test's own binary)
//!  observer: looks at the output all the time; whatever was seen once must stay as it was
//!  results: after the last run, output against model
//! ```

#![cfg(all(unix, feature = "files"))]
#![allow(
    clippy::disallowed_methods,
    reason = "a test of real processes, which looks at the real clock"
)]

mod input;
mod job;
mod observer;
mod results;
mod rounds;

use std::io::Write;
use std::process::ExitStatus;

use rounds::{Kills, Rounds, Target};

/// So many kills at least, and so many in each phase.
const KILLS: usize = 105;
const KILLS_IN_EACH: usize = 5;

/// More rounds than this, and something keeps the job out of a phase.
const ROUNDS_MAX: usize = 200;

#[test]
fn results_are_exact_after_a_hundred_kills_in_all_phases() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let sales = input::sales();
    input::write(&folder.join("in"), &sales);
    let observer = observer::Observer::start(folder);

    let mut rounds = Rounds::new(folder);
    let mut kills = Kills::default();
    let mut round = 0;
    while kills.total() < KILLS || kills.least() < KILLS_IN_EACH {
        assert!(round < ROUNDS_MAX, "after {round} rounds there are only these kills: {kills}");
        // A full turn over all targets, then those that need more.
        let target = match round < KILLS {
            true => Target::ALL[round % Target::ALL.len()],
            false => kills.rarest(),
        };
        kills.count(&rounds.kill(target));
        round += 1;
    }
    let published = results::published_sales(folder);
    let last: ExitStatus = rounds.run_to_end();
    assert!(last.success(), "{last}\n{}", rounds.said());
    let again = rounds.run_to_end();
    assert!(again.success(), "{again}\n{}", rounds.said());
    let seen = observer.stop();

    // Past libtest's capture: how often which phase was hit is what this test is worth.
    let (stderr, rows) = (&mut std::io::stderr(), sales.len());
    writeln!(stderr, "{kills}; {published} of {rows} rows were published when the killing ended")
        .unwrap();
    assert!(
        published > 0 && published < rows,
        "kills fell on a job that hadn't begun, or was over"
    );
    observer::check(&seen, folder);
    results::check(folder, &sales);
    assert_eq!(rounds.warnings(), Vec::<String>::new());
}

/// Not a test: what the other one starts and kills.
#[test]
fn job_process() {
    if let Some(folder) = std::env::var_os(job::FOLDER_VARIABLE) {
        job::run(folder.as_ref()).unwrap();
    }
}
