//! A slow store slows nothing down but checkpoints.

#![allow(clippy::disallowed_methods, reason = "rates are measured by the real clock")]

mod support;

use std::time::{Duration, Instant};

use highwater::Control;
use highwater::connectors::{Discard, Generator};
use highwater::testing::Test;
use support::{Fate, Gate, Ruled, memory, watched};

/// So long is measured with a slow store, which answers nothing in that time, and so long with a fast one.
const SLOW: Duration = Duration::from_secs(10);
const FAST: Duration = Duration::from_secs(3);

/// Machines are noisy: one good comparison is enough, of so many.
const COMPARISONS: usize = 3;

const KEYS: u64 = 20_000;

#[test]
fn a_slow_store_does_not_slow_processing() {
    let gate = Gate::new();
    gate.open();
    let slow = gate.clone();
    let store = Ruled::over(&memory(), move |_, _, _| Fate::Held(slow.clone()));
    let (rows, controls) = watched(Generator::new(|index| index % KEYS));
    let measure = std::thread::spawn(move || {
        let control = controls.recv().unwrap();
        let ratio = best_ratio(&gate, &control);
        control.stop();
        ratio
    });
    let test = Test::new(2).store(store).settings(|settings| {
        settings.checkpoint_interval = Some(Duration::from_millis(200));
        settings.epoch = Duration::from_millis(10);
        // Counted is what is read. With little in flight, that is what is processed.
        settings.in_flight_bytes = 1 << 20;
    });
    let run = test.run(|job| {
        job.read("rows", rows)
            .key_by(|row| *row)
            .count()
            .uid("counts")
            .write("nowhere", Discard::new());
    });
    let (run, ratio) = (run.unwrap(), measure.join().unwrap());
    assert_eq!(run.attempts(), 1);
    assert!(
        ratio > 0.9,
        "with a slow store it runs at {:.0} % of the rate with a fast one",
        ratio * 100.0
    );
}

/// The best of some comparisons of a rate with a slow store to the rates with a fast one before and behind it.
fn best_ratio(gate: &Gate, control: &Control) -> f64 {
    let committed = || control.observed().checkpoints();
    let wait_for = |condition: &dyn Fn() -> bool| {
        while !condition() {
            assert!(!control.is_over(), "the job ended by itself");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    };
    // All keys are there, and have been written.
    wait_for(&|| committed() >= 5);
    let mut best: f64 = 0.0;
    let mut before = rate(control, FAST);
    for _ in 0..COMPARISONS {
        gate.shut();
        wait_for(&|| gate.waiting() > 0);
        let checkpoints = committed();
        let slow = rate(control, SLOW);
        assert!(gate.waiting() > 0, "no request took as long as it should");
        assert!(committed() <= checkpoints + 1, "checkpoints were committed as ever");
        gate.open();
        let checkpoints = committed();
        wait_for(&|| committed() > checkpoints);
        let behind = rate(control, FAST);
        let ratio = slow / before.min(behind);
        eprintln!("{before:.0} records a second, with a slow store {slow:.0}, then {behind:.0}");
        best = best.max(ratio);
        if best > 0.9 {
            break;
        }
        before = behind;
    }
    best
}

/// Records a second.
fn rate(control: &Control, time: Duration) -> f64 {
    let read = || control.observed().records_in();
    let (began, before) = (Instant::now(), read());
    while let Some(left) = time.checked_sub(began.elapsed()) {
        std::thread::park_timeout(left);
    }
    (read() - before) as f64 / began.elapsed().as_secs_f64()
}
