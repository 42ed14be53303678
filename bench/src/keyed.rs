//! (a) Keyed count and sum, uniform keys.

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
                "bare timely" => bare::timely(keys, workers, window),
                "bare loop" => bare::spin(keys, workers, window),
                _ => highwater_rate(keys, workers, window, name == "highwater")?,
            };
            match rates.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.push(rate),
                None => rates.push((name.to_owned(), vec![rate])),
            }
        }
    }
    let measured = |(name, mut all): (String, Vec<f64>)| {
        all.sort_by(f64::total_cmp);
        let records_per_second = all[all.len() / 2];
        Measured { name, records_per_second, least: all[0], most: all[all.len() - 1] }
    };
    let rows: Vec<Measured> = rates.into_iter().map(measured).collect();
    print_table(&format!("keyed count+sum, {keys} keys, {workers} workers"), &rows);
    Ok(())
}

fn highwater_rate(
    keys: u64,
    workers: usize,
    window: Duration,
    checkpoints: bool,
) -> highwater::Result<f64> {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    let folder = std::env::temp_dir().join(format!("highwater-bench-{}", std::process::id()));
    let folder = folder.display().to_string();
    let mut words =
        vec!["bench".to_owned(), "--quiet".to_owned(), "--checkpoints".to_owned(), folder.clone()];
    words.extend(["--workers".to_owned(), workers.to_string()]);
    if !checkpoints {
        words.push("--no-checkpoints".to_owned());
    }
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
    std::fs::remove_dir_all(&folder).ok();
    Ok(*rate.lock().expect("nobody panics here"))
}
