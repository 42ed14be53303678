//! Measures Highwater, beside bare timely and a bare loop that do the same work in the same run.
//!
//! `cargo run --release -p highwater-bench -- keyed|operators|recovery|tcp|timers|w6|windows`; see `bench/RESULTS.md` for what came out.

#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the real clock")]

use clap::{Parser, Subcommand};

mod bare;
mod keyed;
mod operators;
mod recovery;
mod tcp;
mod timers;
mod w6;
mod windows;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Keyed count and sum over generated records: with checkpoints, without, bare timely, bare loop.
    Keyed(keyed::Arguments),
    /// Windows, sessions and timers, each beside a bare loop.
    Operators(operators::Arguments),
    /// From a kill to the first row out of the last operator, and to the first published one.
    Recovery(recovery::Arguments),
    /// The same keyed count and sum in two processes against two threads, of Highwater and of bare timely.
    Tcp(tcp::Arguments),
    /// What the end of an epoch takes with few timers held and with many.
    Timers(timers::Arguments),
    /// CSV files in, running count and sum per bidder, CSV files out.
    W6(Box<w6::Arguments>),
    /// CSV files in, windows by event time, CSV files out.
    Windows(Box<windows::Arguments>),
}

fn main() -> highwater::Result<()> {
    match Arguments::parse().what {
        What::Keyed(arguments) => keyed::run(&arguments),
        What::Operators(arguments) => operators::run(&arguments),
        What::Recovery(arguments) => recovery::run(&arguments),
        What::Tcp(arguments) => tcp::run(&arguments),
        What::Timers(arguments) => timers::run(&arguments),
        What::W6(arguments) => w6::run(*arguments),
        What::Windows(arguments) => windows::run(*arguments),
    }
}

/// What one engine did.
struct Measured {
    name: String,
    /// The median.
    records_per_second: f64,
    least: f64,
    most: f64,
}

impl Measured {
    fn of((name, mut all): (String, Vec<f64>)) -> Self {
        all.sort_by(f64::total_cmp);
        let records_per_second = all[all.len() / 2];
        Measured { name, records_per_second, least: all[0], most: all[all.len() - 1] }
    }
}

fn print_table(title: &str, rows: &[Measured]) {
    println!("\n{title}");
    for row in rows {
        let ratios: Vec<String> = rows
            .iter()
            .filter(|other| other.name != row.name)
            .map(|other| {
                format!(
                    "{:.2} of {}",
                    row.records_per_second / other.records_per_second,
                    other.name
                )
            })
            .collect();
        println!(
            "  {:<24} {:>7.2} ({:.2} to {:.2}) M records/s   {}",
            row.name,
            row.records_per_second / 1e6,
            row.least / 1e6,
            row.most / 1e6,
            ratios.join(", ")
        );
    }
}
