//! (d) What it costs that workers are in different processes: keyed count and sum with two workers, as threads of one process and
//! as two processes that exchange records over TCP on this machine.
//!
//! The parent starts this program again for every process that is measured. Each one says its own rate when its window has passed,
//! and runs on until the parent has heard all.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;

use crate::{Measured, bare, keyed, print_table};

#[derive(clap::Args)]
pub struct Arguments {
    /// How many keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// How long each engine is measured, after its keys are all there.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; the median of each engine counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    member: Member,
}

/// What a process that is measured is told by its parent; the parent has no engine.
#[derive(clap::Args, Clone)]
struct Member {
    #[arg(long, hide = true)]
    engine: Option<Engine>,
    #[arg(long, hide = true, value_delimiter = ',')]
    hosts: Vec<String>,
    #[arg(long, hide = true, default_value_t = 0)]
    process: usize,
    #[arg(long, hide = true, default_value = ".")]
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Engine {
    Highwater,
    WithoutCheckpoints,
    Timely,
}

const WORKERS: usize = 2;

pub fn run(arguments: &Arguments) -> highwater::Result<()> {
    if let Some(engine) = arguments.member.engine {
        return measure(arguments, engine);
    }
    let mut rates: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..arguments.rounds {
        let mut row = 0;
        for engine in [Engine::Highwater, Engine::WithoutCheckpoints, Engine::Timely] {
            for processes in [1, WORKERS] {
                let rate = rate(arguments, engine, processes);
                let name = format!("{engine:?}, {processes} process(es)");
                eprintln!("  {name}: {:.2} M/s", rate / 1e6);
                if rates.len() == row {
                    rates.push((name, Vec::new()));
                }
                rates[row].1.push(rate);
                row += 1;
            }
        }
    }
    let rows: Vec<Measured> = rates.into_iter().map(Measured::of).collect();
    print_table(&format!("keyed count+sum, {} keys, {WORKERS} workers", arguments.keys), &rows);
    Ok(())
}

/// Starts the processes, and gives the sum of their rates.
fn rate(arguments: &Arguments, engine: Engine, processes: usize) -> f64 {
    // All are held until all are known, so that no two are the same.
    let doors: Vec<TcpListener> = (0..processes)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port of this machine"))
        .collect();
    let hosts: Vec<String> =
        doors.iter().map(|door| door.local_addr().expect("it is bound").to_string()).collect();
    drop(doors);
    let folder = keyed::folder();
    let start = |process: usize| {
        Command::new(std::env::current_exe().expect("this program's path"))
            .args(["tcp", "--hosts", &hosts.join(","), "--process", &process.to_string()])
            .args(["--keys", &arguments.keys.to_string()])
            .args(["--seconds", &arguments.seconds.to_string()])
            .args(["--engine", engine.to_possible_value().expect("it has a name").get_name()])
            .arg("--folder")
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again")
    };
    let mut members: Vec<Child> = (0..processes).map(start).collect();
    let said = |member: &mut Child| -> f64 {
        let stdout = member.stdout.take().expect("it is piped");
        // Timely says there how it connects.
        let mut numbers = BufReader::new(stdout).lines().filter_map(|line| line.ok()?.parse().ok());
        numbers.next().expect("a process says its rate")
    };
    let sum = members.iter_mut().map(said).sum();
    members.iter_mut().for_each(|member| drop(member.stdin.take()));
    for member in &mut members {
        let status = member.wait().expect("it was started");
        assert!(status.success(), "{engine:?} ended with {status}");
    }
    std::fs::remove_dir_all(&folder).ok();
    sum
}

/// Says the rate, and waits until the parent has heard it of all.
fn say_and_wait(rate: f64) {
    println!("{rate}");
    std::io::stdin().read_line(&mut String::new()).ok();
}

fn measure(arguments: &Arguments, engine: Engine) -> highwater::Result<()> {
    let window = Duration::from_secs(arguments.seconds);
    let Member { hosts, process, folder, .. } = arguments.member.clone();
    let processes = hosts.len();
    let threads = WORKERS / processes;
    if engine == Engine::Timely {
        let config = match processes {
            1 => timely::Config::process(threads),
            _ => timely::Config {
                communication: timely::CommunicationConfig::Cluster {
                    threads,
                    process,
                    addresses: hosts,
                    report: false,
                    zerocopy: false,
                },
                worker: timely::WorkerConfig::default(),
            },
        };
        bare::timely(config, arguments.keys, window, say_and_wait);
        return Ok(());
    }
    let mut options = vec!["--workers".to_owned(), threads.to_string()];
    if processes > 1 {
        options.extend(["--hosts".to_owned(), hosts.join(",")]);
        options.extend(["--process".to_owned(), process.to_string()]);
    }
    if engine == Engine::WithoutCheckpoints {
        options.push("--no-checkpoints".to_owned());
    }
    keyed::highwater_rate(arguments.keys, window, &folder, &options, say_and_wait)?;
    Ok(())
}
