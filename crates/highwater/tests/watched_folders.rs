//! A watched folder and the records in it that can't be read, killed again and again: every row once, every reject once.

#![allow(clippy::disallowed_methods, reason = "tests run in the real world")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use highwater::connectors::{Files, Reject};
use program::{children, kill};
use support::{rows, sorted, wait_for};

/// How the job watches: `any` files, or `ordered` ones.
const WATCH: &str = "HIGHWATER_TEST_WATCH";

/// So many files of so many rows, every tenth of which can't be read.
const FILES: u64 = 24;
const ROWS: u64 = 1_000;

/// So many rows are read a second.
const RATE: u64 = 20_000;

fn main() -> highwater::Result<()> {
    if let Ok(watch) = std::env::var(WATCH) {
        return job(&watch);
    }
    program::main(&[
        ("new_files_and_bad_records_come_once", || everything_comes_once("any", &[])),
        ("also_in_the_order_of_names", || everything_comes_once("ordered", &[])),
        ("also_in_two_processes", || everything_comes_once("any", &["--processes", "2"])),
    ])
}

fn job(watch: &str) -> highwater::Result<()> {
    highwater::run("watched", |graph| {
        let interval = Duration::from_millis(10);
        let files = Files::csv("in").rate(RATE);
        let files = match watch {
            "ordered" => files.watch_in_order(interval),
            _ => files.watch(interval),
        };
        let (read, rejects) = graph.read_with_rejects::<(u64, String)>("in", files);
        read.map(|(number, _)| number).write("rows", Files::text("rows"));
        // What it says and where it was, as one number.
        let told = |reject: Reject| {
            let number: u64 = reject.text.trim_end_matches(",1,too many").parse().unwrap();
            assert!(reject.error.contains("expected 2 fields"), "{reject}");
            number * 10_000 + reject.line.unwrap()
        };
        rejects.map(told).write("rejects", Files::text("rejects"));
    })?;
    Ok(())
}

fn is_bad(number: u64) -> bool {
    number % 10 == 7
}

/// Writes a file elsewhere, and renames it into its folder.
fn deliver(folder: &Path, file: u64) {
    let mut text = "number,text\n".to_owned();
    for number in file * ROWS..(file + 1) * ROWS {
        let more = if is_bad(number) { ",too many" } else { "" };
        text += &format!("{number},1{more}\n");
    }
    let (name, content) = match file % 3 {
        0 => ("csv", text.into_bytes()),
        1 => {
            let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            zipped.write_all(text.as_bytes()).unwrap();
            ("csv.gz", zipped.finish().unwrap())
        }
        _ => ("csv.zst", zstd::stream::encode_all(text.as_bytes(), 1).unwrap()),
    };
    let new = folder.join("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, folder.join(format!("in/{file:04}.{name}"))).unwrap();
}

fn everything_comes_once(watch: &str, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("in")).unwrap();
    let mut command = Command::new(program::this_program());
    for variable in ["HIGHWATER_CHECKPOINTS", "HIGHWATER_SUPERVISOR", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.current_dir(folder).env(WATCH, watch).stdin(Stdio::null()).stdout(Stdio::null());
    command.args(["--checkpoint-interval", "30ms"]).args(arguments).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let count = || rows(&folder.join("rows")).len() + rows(&folder.join("rejects")).len();
    let mut victims = Vec::new();
    for file in 0..FILES {
        deliver(folder, file);
        // At whatever point that is: as soon as there is anything new, now of one process, now of another.
        if file % 4 == 3 {
            let before = count();
            wait_for("more is published", || count() > before);
            let now = children(child.id());
            let victim = now[victims.len() % now.len()];
            assert!(kill(victim, "-KILL"));
            wait_for("it is replaced", || {
                let then = children(child.id());
                then.len() == now.len() && !then.contains(&victim)
            });
            victims.push(victim);
        }
    }
    let (bad, good): (Vec<u64>, Vec<u64>) = (0..FILES * ROWS).partition(|number| is_bad(*number));
    wait_for("everything is published", || count() >= good.len() + bad.len());
    assert!(kill(child.id(), "-TERM"));
    let output = child.wait_with_output().unwrap();
    let said = program::said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.matches("; starting again in").count() >= victims.len(), "{said}");
    assert_eq!(sorted(rows(&folder.join("rows"))), good);
    let rejected = bad.iter().map(|number| number * 10_000 + number % ROWS + 2);
    assert_eq!(sorted(rows(&folder.join("rejects"))), rejected.collect::<Vec<_>>());
}
