//! Jobs from Parquet to Parquet, in folders by a column: every row once, also if the job is killed.

#![allow(clippy::disallowed_methods, reason = "tests run in the real world")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater::connectors::{Compression, Files, Generator};
use highwater::testing::{Collect, Test};
use highwater::time::Timestamp;
use serde::{Deserialize, Serialize};
use support::wait_for;

/// The folder of the job's input and output.
const FOLDER: &str = "HIGHWATER_TEST_PARQUET";

/// So many rows, read at such a rate.
const ROWS: u64 = 40_000;
const RATE: u64 = 20_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flight {
    number: u64,
    carrier: String,
    delay: Option<i32>,
    at: Timestamp,
    stops: Vec<String>,
}

fn flight(number: u64) -> Flight {
    let carrier = ["AA", "BB", "C/C"][number as usize % 3].to_owned();
    let delay = (!number.is_multiple_of(5)).then_some(number as i32 % 100 - 50);
    let stops = (0..number % 3).map(|stop| format!("stop {stop}")).collect();
    Flight { number, carrier, delay, at: Timestamp::from_ms(number as i64 * 60_000), stops }
}

fn main() -> highwater::Result<()> {
    if let Ok(folder) = std::env::var(FOLDER) {
        return job(Path::new(&folder));
    }
    program::main(&[("every_row_once_whoever_is_killed", every_row_once_whoever_is_killed)])
}

fn job(folder: &Path) -> highwater::Result<()> {
    highwater::run("parquet", |graph| {
        let flights = graph.read("in", Files::parquet(folder.join("in")).rate(RATE));
        let out = Files::parquet(folder.join("out")).compression(Compression::Zstd);
        // Some parts are of one checkpoint, some of several.
        let out = out.timestamps(["at"]).roll_bytes(20_000).roll_age(Duration::from_millis(150));
        let out = out.partition_by(["carrier"], |flight: &Flight| [flight.carrier.clone()]);
        flights.write("out", out);
    })?;
    Ok(())
}

/// Everything that is in files.
fn read(pattern: &Path) -> Vec<Flight> {
    let files = Files::parquet(pattern);
    let run =
        Test::new(2).run(|job| job.read::<Flight>("in", files).write("out", Collect)).unwrap();
    let mut rows = run.committed::<Flight>("out");
    rows.sort_by_key(|flight| flight.number);
    rows
}

fn parts(folder: &Path) -> usize {
    let entries = |folder: &Path| fs::read_dir(folder).map(|it| it.flatten().collect::<Vec<_>>());
    let folders = entries(&folder.join("out")).unwrap_or_default();
    let files = folders.iter().map(|folder| entries(&folder.path()).map_or(0, |it| it.len()));
    files.sum()
}

fn child_of(parent: &Child) -> Option<u32> {
    program::children(parent.id()).first().copied()
}

fn every_row_once_whoever_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let expected: Vec<Flight> = (0..ROWS).map(flight).collect();
    let input = Files::parquet(folder.join("in")).row_group_bytes(50_000).roll_bytes(400_000);
    Test::new(2)
        .run(|job| job.read("made", Generator::new(flight).limit(ROWS)).write("out", input))
        .unwrap();
    assert_eq!(read(&folder.join("in")), expected);

    let mut command = Command::new(program::this_program());
    for variable in ["HIGHWATER_CHECKPOINTS", "HIGHWATER_SUPERVISOR", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.current_dir(folder).env(FOLDER, folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.args(["--checkpoint-interval", "50ms", "--workers", "2"]).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    for _ in 0..6 {
        let before = parts(folder);
        wait_for("more is published", || parts(folder) > before);
        let victim = child_of(&child).expect("the job runs");
        assert!(program::kill(victim, "-KILL"));
        wait_for("it is replaced", || child_of(&child).is_some_and(|now| now != victim));
    }
    let output = child.wait_with_output().unwrap();
    let said = program::said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("; starting again in"), "{said}");
    assert_eq!(read(&folder.join("out/*/*.parquet")), expected);
    // Of 40 checkpoints or so, in three folders, by two workers.
    assert!(parts(folder) < 200, "{} parts", parts(folder));
    assert_eq!(read(&folder.join("out/carrier=C%2FC")), read_only(&expected, "C/C"));
}

fn read_only(flights: &[Flight], carrier: &str) -> Vec<Flight> {
    flights.iter().filter(|flight| flight.carrier == carrier).cloned().collect()
}
