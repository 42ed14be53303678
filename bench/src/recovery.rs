//! (b) From a kill to the first row out of the last operator, and to the first published one.
//!
//! The program starts itself as the job, waits until a checkpoint holds all keys, kills it with SIGKILL, starts it again, and
//! reads from the new process when its first rows came.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use highwater::connectors::{Files, Generator};
use highwater::{Options, Runner};

use crate::keyed::key;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Where checkpoints and output go.
    #[arg(long, default_value = "/tmp/highwater-bench-recovery")]
    folder: String,
    /// Be the job that is killed.
    #[arg(long, hide = true)]
    job: bool,
}

pub fn run(arguments: &Arguments) -> highwater::Result<()> {
    if arguments.job {
        return job(arguments);
    }
    std::fs::remove_dir_all(&arguments.folder).ok();
    let mut first_rows = Vec::new();
    let mut first_published = Vec::new();
    let mut killed: Option<Instant> = None;
    for kill in 0..=arguments.kills {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["recovery", "--job", "--folder", &arguments.folder])
            .args([
                "--keys",
                &arguments.keys.to_string(),
                "--workers",
                &arguments.workers.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().expect("piped");
        for line in BufReader::new(output).lines() {
            let line = line?;
            let since = killed.map(|killed| killed.elapsed().as_secs_f64());
            match (line.as_str(), since) {
                ("first row", Some(since)) => first_rows.push(since),
                ("first published", Some(since)) => first_published.push(since),
                ("all there", _) => break,
                _ => {}
            }
        }
        child.kill()?;
        killed = Some(Instant::now());
        child.wait()?;
        if kill > 0 {
            let last = |all: &[f64]| all.last().copied().unwrap_or(f64::NAN);
            eprintln!(
                "  kill {kill}: first row {:.2} s, first published {:.2} s",
                last(&first_rows),
                last(&first_published)
            );
        }
    }
    let shown = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        let at = |part: usize| {
            all.get((all.len().saturating_sub(1)) * part / 2).copied().unwrap_or(f64::NAN)
        };
        format!("min {:.2} s, median {:.2} s, max {:.2} s", at(0), at(1), at(2))
    };
    println!(
        "\nrecovery of {} keys, {} workers, {} kills",
        arguments.keys, arguments.workers, arguments.kills
    );
    println!("  kill to first row        {}", shown(first_rows));
    println!("  kill to first published  {}", shown(first_published));
    std::fs::remove_dir_all(&arguments.folder).ok();
    Ok(())
}

fn job(arguments: &Arguments) -> highwater::Result<()> {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    let Arguments { keys, workers, folder, .. } = arguments;
    let keys = *keys;
    let checkpoints = format!("{folder}/checkpoints");
    let options = [
        "job",
        "--quiet",
        "--restart",
        "never",
        "--checkpoints",
        &checkpoints,
        "--workers",
        &workers.to_string(),
    ]
    .map(str::to_owned);
    let watch = move |control: &highwater::Control| {
        let control = control.clone();
        std::thread::spawn(move || {
            let observed = control.observed();
            let wait = |what: &str, until: &dyn Fn() -> bool| {
                while !until() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                println!("{what}");
            };
            wait("first row", &|| observed.has_first_row());
            wait("first published", &|| observed.has_first_published());
            let restored = observed.restored_entries();
            let read = || observed.records_in();
            if restored < keys {
                while read() < keys * 5 / 4 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            // Two more, so that the last one covers all keys.
            let checkpoints = observed.checkpoints();
            wait("all there", &|| observed.checkpoints() >= checkpoints + 2);
        });
    };
    Runner::new("recovery").options(Alone::parse_from(options).options).on_start(watch).run(
        |job| {
            job.read(
                "records",
                Generator::new(move |index| (key(index, keys), index as i64 & 1023))
                    .rate(4_000_000),
            )
            .keyed()
            .fold((0_u64, 0_i64), |sum, value: i64| {
                sum.0 += 1;
                sum.1 += value;
            })
            .uid("sums")
            // Few rows are written: what is measured is how soon the first one is there.
            .filter(|(key, _)| key % 1024 == 0)
            .map(|(key, (count, sum))| (key, count, sum))
            .write("out", Files::csv(format!("{folder}/out")).without_header());
        },
    )?;
    Ok(())
}
