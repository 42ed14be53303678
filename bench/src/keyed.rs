//! (a) Keyed count and sum, uniform keys.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use highwater::connectors::{Discard, Generator};
use highwater::{Options, Runner};

use crate::{Measured, bare, print_table};

#[derive(clap::Args)]
pub struct Arguments {
    /// How many keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How long each engine is measured, after its keys are all there.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; the median of each engine counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only this engine, by its name in the table: for a profiler.
    #[arg(long)]
    only: Option<String>,
}

/// The key of the `index`-th record: all keys come up, in no order that a cache could like.
pub fn key(index: u64, keys: u64) -> u64 {
    index.wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys
}

pub fn run(arguments: &Arguments) -> highwater::Result<()> {
    let Arguments { keys, workers, seconds, rounds, ref only } = *arguments;
    let window = Duration::from_secs(seconds);
    let mut rates: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        for name in ["highwater", "without checkpoints", "bare timely", "bare loop"] {
            if only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            let rate = match name {
                "bare timely" => {
                    bare::timely(timely::Config::process(workers), keys, window, |_| ())
                }
                "bare loop" => bare::spin(keys, workers, window),
                _ => {
                    let folder = folder();
                    let mut options = vec!["--workers".to_owned(), workers.to_string()];
                    options.extend((name != "highwater").then(|| "--no-checkpoints".to_owned()));
                    let rate = highwater_rate(keys, window, &folder, &options, |_| ())?;
                    std::fs::remove_dir_all(&folder).ok();
                    rate
                }
            };
            match rates.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.push(rate),
                None => rates.push((name.to_owned(), vec![rate])),
            }
        }
    }
    let rows: Vec<Measured> = rates.into_iter().map(Measured::of).collect();
    print_table(&format!("keyed count+sum, {keys} keys, {workers} workers"), &rows);
    Ok(())
}

/// Where checkpoints go meanwhile.
pub fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("highwater-bench-{}", std::process::id()))
}

/// Records a second of the job on Highwater over `window`, once all keys are there, with `more` options. `wait` is called with
/// it before the job is stopped.
pub fn highwater_rate(
    keys: u64,
    window: Duration,
    folder: &Path,
    more: &[String],
    wait: fn(f64),
) -> highwater::Result<f64> {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    let words = ["bench", "--quiet", "--checkpoints"].map(str::to_owned).into_iter();
    let words = words.chain([folder.display().to_string()]).chain(more.iter().cloned());
    // Measured in this process.
    let options =
        Options { restart: highwater::Restart::Never, ..Alone::parse_from(words).options };
    let rate = Arc::new(Mutex::new(0.0));
    let measured = rate.clone();
    let watch = move |control: &highwater::Control| {
        let control = control.clone();
        std::thread::spawn(move || {
            let read = || control.observed().records_in();
            // Every key has come up once, and the hash tables have grown.
            while read() < keys * 3 / 2 {
                std::thread::sleep(Duration::from_millis(20));
            }
            let (began, from) = (Instant::now(), read());
            let checkpoints = control.observed().checkpoints();
            std::thread::sleep(window);
            let rate = (read() - from) as f64 / began.elapsed().as_secs_f64();
            *measured.lock().expect("nobody panics here") = rate;
            let checkpoints = control.observed().checkpoints() - checkpoints;
            eprintln!(
                "  {:.2} M/s, {checkpoints} checkpoints, last {} MB",
                rate / 1e6,
                control.observed().last_checkpoint_bytes() >> 20
            );
            wait(rate);
            control.stop();
        });
    };
    Runner::new("bench").options(options).on_start(watch).run(|job| {
        job.read("records", Generator::new(move |index| (key(index, keys), index as i64 & 1023)))
            .keyed()
            .fold((0_u64, 0_i64), |sum, value: i64| {
                sum.0 += 1;
                sum.1 += value;
            })
            .uid("sums")
            .write("out", Discard::new());
    })?;
    Ok(*rate.lock().expect("nobody panics here"))
}
