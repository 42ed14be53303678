//! Explores what can happen to random jobs: many seeds, or one of them in detail.
//!
//! ```text
//! cargo run --release -p highwater-sim -- --seeds 1000          # the seeds 0 to 999
//! cargo run --release -p highwater-sim -- --minutes 10 --start 5000
//! cargo run --release -p highwater-sim -- --seed 4711            # one of them, with everything that happens
//! cargo run --release -p highwater-sim -- --exhaustive           # every crash of small jobs
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use highwater_sim::exhaust;
use highwater_sim::explore::{Plan, explore, report};
use highwater_sim::trial::Trial;
use highwater_world::Mix;

/// Runs random jobs under simulated failure, and compares what they come to with a plain model.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Repeat one seed: show the job, the faults that matter, and everything that happens.
    #[arg(long, conflicts_with_all = ["seeds", "minutes", "exhaustive"])]
    seed: Option<u64>,
    /// Try so many seeds [default: 100, or as many as there is time for].
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Try seeds for so long.
    #[arg(long)]
    minutes: Option<f64>,
    /// Which faults there are.
    #[arg(long, value_enum, default_value_t = Faults::All)]
    faults: Faults,
    /// Leave one sort of fault out (repeatable).
    #[arg(long, value_enum)]
    without: Vec<Sort>,
    /// So many runs at the same time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Run every n-th seed twice, and demand that both runs are the same.
    #[arg(long, default_value_t = 10)]
    twice_every: u64,
    /// Stop at the first violation.
    #[arg(long)]
    stop_at_first: bool,
    /// Every crash of small jobs: at every step, every call of the store, and every pair of them for the smallest.
    #[arg(long)]
    exhaustive: bool,
    /// Of the crashes alone only every so many-th.
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// Of the pairs only every so many-th.
    #[arg(long, default_value_t = 1)]
    pairs_every: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Faults {
    All,
    Crashes,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Sort {
    Kills,
    PowerLosses,
    Pauses,
    Stops,
    ClockJumps,
    Store,
    OldListings,
    FullDisks,
    Away,
    Within,
    BitFlips,
    Sinks,
    Refusals,
    Stalls,
    Network,
}

impl Arguments {
    fn mix(&self) -> Mix {
        let mut mix = match self.faults {
            Faults::All => Mix::ALL,
            Faults::Crashes => Mix::CRASHES,
            Faults::None => Mix::NONE,
        };
        for sort in &self.without {
            *match sort {
                Sort::Kills => &mut mix.kills,
                Sort::PowerLosses => &mut mix.power_losses,
                Sort::Pauses => &mut mix.pauses,
                Sort::Stops => &mut mix.stops,
                Sort::ClockJumps => &mut mix.clock_jumps,
                Sort::Store => &mut mix.store,
                Sort::OldListings => &mut mix.old_listings,
                Sort::FullDisks => &mut mix.full_disks,
                Sort::Away => &mut mix.away,
                Sort::Within => &mut mix.within,
                Sort::BitFlips => &mut mix.bit_flips,
                Sort::Sinks => &mut mix.sinks,
                Sort::Refusals => &mut mix.refusals,
                Sort::Stalls => &mut mix.stalls,
                Sort::Network => &mut mix.network,
            } = 0;
        }
        mix
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mix = arguments.mix();
    if let Some(seed) = arguments.seed {
        return repeat(&Trial::draw(seed, &mix));
    }
    #[allow(clippy::disallowed_methods, reason = "how long the exploring itself takes")]
    let begin = Instant::now();
    if arguments.exhaustive {
        let found = exhaust::all(
            arguments.start + 1,
            arguments.every,
            arguments.pairs_every,
            arguments.threads,
        );
        println!("{}", found.describe());
        println!("{:.1} s", begin.elapsed().as_secs_f64());
        println!(
            "runs={} crashes={} violations={}",
            found.runs,
            found.crashes,
            found.violations.len()
        );
        return exit(found.violations.is_empty());
    }
    let limit = arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let plan = Plan {
        start: arguments.start,
        seeds: arguments.seeds.unwrap_or(if limit.is_some() { u64::MAX >> 1 } else { 100 }),
        limit,
        mix,
        threads: arguments.threads,
        twice_every: arguments.twice_every,
        stop_at_first: arguments.stop_at_first,
    };
    let total = explore(&plan, &|| begin.elapsed());
    for (seed, violation) in &total.violations {
        println!("seed {seed}: {violation}");
    }
    for seed in &total.differed {
        println!("seed {seed}: two runs differ");
    }
    if let Some((seed, _)) = total.violations.first() {
        println!("\n{}", report(&Trial::draw(*seed, &mix), false));
        println!("everything that happens: --seed {seed}");
    }
    println!("{}", total.describe());
    let seconds = begin.elapsed().as_secs_f64();
    println!("{seconds:.1} s, {:.0} crashes a second", total.counts.crashes as f64 / seconds);
    let violations = total.violations.len() + total.differed.len();
    println!("seeds={} crashes={} violations={violations}", total.seeds, total.counts.crashes);
    exit(violations == 0)
}

fn repeat(trial: &Trial) -> ExitCode {
    let verdict = trial.run();
    if verdict.violation.is_some() {
        println!("{}", report(trial, true));
        return ExitCode::FAILURE;
    }
    let verdict = Trial { record: true, ..trial.clone() }.run();
    for (at, node) in trial.graph.nodes.iter().enumerate() {
        println!("n{at} = {:?} <- {:?}", node.op, node.inputs);
    }
    trial.faults.iter().for_each(|fault| println!("{fault}"));
    verdict.trace.iter().for_each(|line| println!("{line}"));
    println!("seeds=1 crashes={} violations=0", verdict.counts.crashes);
    ExitCode::SUCCESS
}

fn exit(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
