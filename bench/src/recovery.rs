//! (b) From a kill to the first row out of the last operator, and to the first published one.
//!
//! The program starts itself as the job, supervised as any job is, in one process or several. Once a checkpoint holds all keys, one of
//! the job's processes is killed with SIGKILL; the supervisor starts the next attempt, whose processes say when their first rows came.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use highwater::connectors::{Files, Generator};
use highwater::{Options, Runner};

use crate::keyed::key;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Of each process.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    #[arg(long, default_value_t = 1)]
    processes: usize,
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
    let (mut first_rows, mut first_published) = (Vec::new(), Vec::new());
    let Arguments { keys, workers, processes, kills, ref folder, .. } = *arguments;
    let mut job = Command::new(std::env::current_exe()?)
        .args(["recovery", "--job", "--folder", folder])
        .args(["--keys", &keys.to_string(), "--workers", &workers.to_string()])
        .args(["--processes", &processes.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(job.stdout.take().expect("piped")).lines();
    let mut killed: Option<(Instant, Vec<u32>)> = None;
    for kill in 0..=kills {
        let mut first = [None; 2];
        // A line is a process and what came to it. Process 0 alone knows of checkpoints, and so that all is there.
        loop {
            let Some(line) = lines.next() else { return Err(ended(&mut job)) };
            let line = line?;
            let (process, what) = line.split_once(' ').unwrap_or_default();
            let process = process.parse().unwrap_or_default();
            let since = match &killed {
                // What one of the old processes still said.
                Some((_, old)) if old.contains(&process) => continue,
                killed => killed.as_ref().map(|(killed, _)| killed.elapsed().as_secs_f64()),
            };
            match what {
                "first row" => first[0] = first[0].or(since),
                "first published" => first[1] = first[1].or(since),
                "all there" => break,
                _ => {}
            }
        }
        if kill > 0 {
            let shown = first.map(|time| time.unwrap_or(f64::NAN));
            eprintln!(
                "  kill {kill}: first row {:.2} s, first published {:.2} s",
                shown[0], shown[1]
            );
            first_rows.extend(first[0]);
            first_published.extend(first[1]);
        }
        let children = children(&job);
        let victim = children[kill % children.len()];
        Command::new("kill").args(["-KILL", &victim.to_string()]).status()?;
        killed = Some((Instant::now(), children));
    }
    Command::new("kill").args(["-KILL", &job.id().to_string()]).status()?;
    job.wait()?;
    let shown = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let index = (all.len() * percent).div_ceil(100).saturating_sub(1);
            all.get(index).copied().unwrap_or(f64::NAN)
        };
        format!("p50 {:.2} s, p90 {:.2} s, max {:.2} s", at(50), at(90), at(100))
    };
    println!(
        "\nrecovery of {keys} keys, {processes} process(es) of {workers} workers, {kills} kills"
    );
    println!("  kill to first row        {}", shown(first_rows));
    println!("  kill to first published  {}", shown(first_published));
    std::fs::remove_dir_all(folder).ok();
    Ok(())
}

fn ended(job: &mut Child) -> highwater::Error {
    let status = job.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    std::io::Error::other(format!("the job ended: {status}")).into()
}

/// The processes that the supervisor has started.
fn children(supervisor: &Child) -> Vec<u32> {
    let path = format!("/proc/{0}/task/{0}/children", supervisor.id());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn job(arguments: &Arguments) -> highwater::Result<()> {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    let Arguments { keys, workers, processes, folder, .. } = arguments;
    let (keys, processes) = (*keys, *processes);
    let checkpoints = format!("{folder}/checkpoints");
    let options = [
        "job",
        "--quiet",
        // The delay that a first failure has by default.
        "--restart",
        "fixed,delay=50ms,times=1000",
        "--processes",
        &processes.to_string(),
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
                println!("{} {what}", std::process::id());
            };
            wait("first row", &|| observed.has_first_row());
            wait("first published", &|| observed.has_first_published());
            let restored = observed.restored_entries();
            let read = || observed.records_in();
            let share = keys / processes as u64;
            if restored < share * 9 / 10 {
                while read() < share * 5 / 4 {
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
