//! A source that is far faster than what comes behind it is held back: memory stays within the bound on what is in flight.
//!
//! Each measurement is a process of its own, this test's binary once more, because a process can't take its peak back.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "the time that a slow function takes is real")]

use std::process::Command;
use std::time::{Duration, Instant};

use highwater::StateHandle;
use highwater::connectors::{Discard, Generator};
use highwater::testing::Test;

/// What one process is to do: `rows-kind workers rows in_flight`.
const LOAD_VARIABLE: &str = "MEMORY_TEST_LOAD";

/// Large rows are a quarter of a kilobyte.
type Large = [u64; 32];

/// The rows of a measurement.
#[derive(Clone, Copy)]
struct Rows {
    kind: &'static str,
    size: usize,
    /// The slow function takes so long for one.
    work: Duration,
    /// There is so many times more to read than may be in flight.
    times: usize,
}

const LARGE: Rows =
    Rows { kind: "large", size: size_of::<Large>(), work: Duration::from_micros(6), times: 7 };

/// As small as rows are: whatever the engine keeps beside each is a large part of what it takes.
const SMALL: Rows =
    Rows { kind: "small", size: size_of::<u64>(), work: Duration::from_nanos(700), times: 4 };

/// What all workers may have in flight.
const IN_FLIGHT: usize = 8 << 20;

#[test]
fn memory_stays_within_the_in_flight_bound() {
    for (rows, workers) in [(LARGE, 1), (LARGE, 2), (SMALL, 2)] {
        // The setting is that of each worker.
        let in_flight = IN_FLIGHT / workers;
        let count = rows.times * IN_FLIGHT / rows.size;
        let idle = peak(rows, workers, 1, in_flight);
        let busy = peak(rows, workers, count, in_flight);
        let unbounded = peak(rows, workers, count, usize::MAX);
        let allowed = idle + 4 * IN_FLIGHT;
        let what = format!("{} rows, {workers} workers", rows.kind);
        eprintln!("{what}: idle {idle}, bounded {busy}, unbounded {unbounded} bytes");
        assert!(busy <= allowed, "{what}: {busy} bytes at the peak, allowed are {allowed}");
        // Otherwise the source isn't so fast, and this test shows nothing.
        assert!(unbounded > allowed, "{what}: without a bound only {unbounded} bytes");
    }
}

/// The peak of resident memory of a process that runs the job.
fn peak(rows: Rows, workers: usize, count: usize, in_flight: usize) -> usize {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "job_process", "--nocapture", "--test-threads=1"])
        .env(LOAD_VARIABLE, format!("{} {workers} {count} {in_flight}", rows.kind))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find(|line| line.contains("VmHWM:")).expect("it says its peak");
    let kilobytes = line.split_whitespace().rev().nth(1).expect("a number before kB");
    kilobytes.parse::<usize>().unwrap() << 10
}

/// Not a test: what the other one starts.
#[test]
fn job_process() {
    let Ok(load) = std::env::var(LOAD_VARIABLE) else { return };
    let (kind, numbers) = load.split_once(' ').unwrap();
    let numbers: Vec<usize> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
    let [workers, count, in_flight] = numbers[..] else { panic!("{load:?}") };
    let test = Test::new(workers).settings(|settings| {
        settings.in_flight_bytes = in_flight;
        // In its turn a source reads many of these, and the slow function takes one.
        settings.batch_rows = 256;
    });
    // Without an exchange the function would run in the source's own turn, and nothing could pile up.
    let run = test.run(|job| match kind {
        "large" => {
            let rows = Generator::new(|index| -> Large { [index; 32] }).limit(count as u64);
            let dealt = job.read("rows", rows).rebalance();
            dealt.map(|row| slow(row[0], LARGE.work)).write("nowhere", Discard::new());
        }
        _ => {
            let rows = Generator::new(|index| index).limit(count as u64);
            let keyed = job.read("rows", rows).key_by(|row| row % 1_000);
            let mapped = keyed.map_with_state(|_, row, last: &mut StateHandle<u64>| {
                last.set(row);
                Some(slow(row, SMALL.work))
            });
            mapped.uid("last").write("nowhere", Discard::new());
        }
    });
    assert_eq!(run.unwrap().outcome().records_out, count as u64);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}

fn slow(row: u64, time: Duration) -> u64 {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    row
}
