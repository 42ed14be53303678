//! A job of one to three real processes is struck hundreds of times, in every phase: one of its processes is killed with SIGKILL, or
//! paused with SIGSTOP and woken up when its replacement runs. It is started again with another number of processes and workers each
//! time; then it runs to its end, and everything that it has written is compared with a straightforward computation over the whole
//! input.
//!
//! ```text
//!  rounds: start ─▶ wait for a phase in the trace ─▶ kill -9 or -STOP ─▶ the other processes end by themselves  (job: this test's own binary)
//!  members: the processes of an attempt      trace: the phases that strikes fell in
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
mod members;
mod observer;
mod results;
mod rounds;
mod trace;

use std::io::Write;

use rounds::{Blow, Rounds};
use trace::{Strikes, Target};

/// So many strikes at least, and so many in each phase.
const KILLS: (usize, usize) = (200, 5);
const PAUSES: (usize, usize) = (50, 2);

/// More rounds than this, and something keeps the job out of a phase.
const ROUNDS_MAX: usize = 330;

#[test]
fn results_are_exact_after_hundreds_of_kills_and_pauses_in_all_phases() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let sales = input::sales();
    input::write(&folder.join("in"), &sales);
    let observer = observer::Observer::start(folder);

    let mut rounds = Rounds::new(folder);
    let (mut kills, mut pauses) = (Strikes::default(), Strikes::default());
    let is_enough =
        |strikes: &Strikes, (total, least)| strikes.total() >= total && strikes.least() >= least;
    let mut round = 0;
    while !is_enough(&kills, KILLS) || !is_enough(&pauses, PAUSES) || rounds.has_zombies() {
        assert!(
            round < ROUNDS_MAX,
            "only this after {round} rounds: kills={kills}, pauses={pauses}"
        );
        // Every fifth is a pause, as long as both are needed.
        let pause = (round % 5 == 4 || is_enough(&kills, KILLS)) && !is_enough(&pauses, PAUSES);
        let (blow, strikes, least) = match pause {
            true => (Blow::Pause, &mut pauses, PAUSES.0),
            false => (Blow::Kill, &mut kills, KILLS.0),
        };
        // Full turns over all targets, then those that need more.
        let target = if strikes.total() < least {
            Target::ALL[strikes.total() % Target::ALL.len()]
        } else if rounds.has_zombies() {
            // What they leave behind is cleared away by the attempt after that.
            Target::Running
        } else {
            strikes.rarest()
        };
        strikes.count(&rounds.strike(blow, target));
        round += 1;
    }
    let published = results::published_sales(folder);
    for _ in 0..2 {
        let last = rounds.run_to_end();
        assert!(last.iter().all(|status| status.success()), "{last:?}\n{}", rounds.said());
    }
    let seen = observer.stop();

    // Past libtest's capture: how often which phase was hit is what this test is worth.
    let (stderr, rows) = (&mut std::io::stderr(), sales.len());
    let noticed = rounds.noticed();
    writeln!(
        stderr,
        "kills={kills}; pauses={pauses}; {noticed}; {published} of {rows} rows were published when the striking ended"
    )
    .unwrap();
    assert!(
        published > 0 && published < rows,
        "the job hadn't begun, or was over, when it was struck"
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
