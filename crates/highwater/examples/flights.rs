//! How late are the airlines of New York? All 336,776 flights of 2013, as running statistics that survive `kill -9`.
//!
//! ```text
//!  flights-2013-*.csv.gz ─┬─ by carrier and route ─ aggregate ─▶ out/flights/routes     CSV, a row for every flight
//!                         ├─ by carrier ─────────── aggregate ─▶ out/flights/carriers   NDJSON, a row when it has changed
//!                         └─ cancelled or an hour late ────────▶ out/flights/disrupted  CSV, the flights themselves
//! ```
//!
//! Run it from the project's root, slowly enough to see it work:
//!
//! ```text
//! cargo run --release --example flights -- --rate 50000
//! ```
//!
//! Kill it, and start it again, also with another number of workers (`--workers 2`): it goes on, and what it has written in the end
//! is the same as if nothing had happened. `scripts/kill-demo.sh` does that ten times and counts. When it is done it prints
//! what it has published; `--fresh` starts over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use highwater::prelude::*;
use highwater::{Aggregate, Options, Runner};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Parser)]
#[command(about = "Running statistics of the delays of all flights out of New York in 2013")]
struct Arguments {
    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "out/flights")]
    output: PathBuf,

    /// Where the flights are: a file, a folder or a pattern [default: those that come with the example].
    #[arg(long, value_name = "PATH")]
    input: Option<PathBuf>,

    /// Read so many flights a second, instead of as many as possible.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    #[command(flatten)]
    highwater: Options,
}

/// A row of the input. Delays are in minutes; a flight that never left, or never arrived where it should, has none.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flight {
    year: u16,
    month: u8,
    day: u8,
    dep_delay: Option<i32>,
    arr_delay: Option<i32>,
    carrier: String,
    flight: u32,
    origin: String,
    dest: String,
}

impl Flight {
    fn is_disrupted(&self) -> bool {
        self.dep_delay.is_none() || self.arr_delay.is_some_and(|minutes| minutes > 60)
    }
}

/// What is remembered of the flights of a carrier or a route. Whole numbers only, so that the order of flights doesn't matter.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Sums {
    flights: u64,
    cancelled: u64,
    departed: u64,
    departure_delay: i64,
    arrived: u64,
    arrival_delay: i64,
    worst: i32,
    late: u64,
}

/// What is told of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Delays {
    flights: u64,
    cancelled: u64,
    mean_departure_delay: Option<f64>,
    mean_arrival_delay: Option<f64>,
    worst_arrival_delay: Option<i32>,
    /// Of the flights that arrived, those that were more than a quarter of an hour late.
    share_late: Option<f64>,
}

struct Punctuality;

impl Aggregate for Punctuality {
    type In = Flight;
    type Acc = Sums;
    type Out = Delays;

    fn create(&self) -> Sums {
        Sums { worst: i32::MIN, ..Sums::default() }
    }

    fn add(&self, sums: &mut Sums, flight: Flight) {
        sums.flights += 1;
        match flight.dep_delay {
            Some(minutes) => {
                sums.departed += 1;
                sums.departure_delay += i64::from(minutes);
            }
            None => sums.cancelled += 1,
        }
        if let Some(minutes) = flight.arr_delay {
            sums.arrived += 1;
            sums.arrival_delay += i64::from(minutes);
            sums.worst = sums.worst.max(minutes);
            sums.late += u64::from(minutes > 15);
        }
    }

    fn result(&self, sums: &Sums) -> Delays {
        let per = |sum: f64, count: u64| (count > 0).then(|| sum / count as f64);
        Delays {
            flights: sums.flights,
            cancelled: sums.cancelled,
            mean_departure_delay: per(sums.departure_delay as f64, sums.departed),
            mean_arrival_delay: per(sums.arrival_delay as f64, sums.arrived),
            worst_arrival_delay: (sums.arrived > 0).then_some(sums.worst),
            share_late: per(sums.late as f64, sums.arrived),
        }
    }
}

/// A row of `routes`: one of the columns after another, as CSV wants it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RouteRow {
    carrier: String,
    origin: String,
    dest: String,
    flights: u64,
    cancelled: u64,
    mean_departure_delay: Option<f64>,
    mean_arrival_delay: Option<f64>,
    worst_arrival_delay: Option<i32>,
    share_late: Option<f64>,
}

impl RouteRow {
    fn new(((carrier, origin, dest), delays): ((String, String, String), Delays)) -> Self {
        RouteRow {
            carrier,
            origin,
            dest,
            flights: delays.flights,
            cancelled: delays.cancelled,
            mean_departure_delay: delays.mean_departure_delay,
            mean_arrival_delay: delays.mean_arrival_delay,
            worst_arrival_delay: delays.worst_arrival_delay,
            share_late: delays.share_late,
        }
    }
}

/// A row of `carriers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct CarrierRow {
    carrier: String,
    #[serde(flatten)]
    delays: Delays,
}

fn pipeline(flights: &Stream<Flight>, output: &Path) {
    let routes = flights
        .key_by(|flight| (flight.carrier.clone(), flight.origin.clone(), flight.dest.clone()))
        .aggregate(Punctuality)
        .every_record()
        .uid("route-delays");
    routes.map(RouteRow::new).write("routes", Files::csv(output.join("routes")));

    let carriers = flights
        .key_by(|flight| flight.carrier.clone())
        .aggregate(Punctuality)
        .uid("carrier-delays");
    carriers
        .map(|(carrier, delays)| CarrierRow { carrier, delays })
        .write("carriers", Files::ndjson(output.join("carriers")));

    flights.filter(Flight::is_disrupted).write("disrupted", Files::csv(output.join("disrupted")));
}

fn main() -> highwater::Result<()> {
    let Arguments { output, input, rate, highwater } = Arguments::parse();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    let mut flights = Files::csv(input.unwrap_or_else(|| data.join("flights")));
    if let Some(rate) = rate {
        flights = flights.rate(rate);
    }
    let quiet = highwater.quiet;
    let outcome = Runner::new("flights")
        .options(highwater)
        .run(|job| pipeline(&job.read("flights", flights), &output))?;
    if !quiet {
        let whole = outcome.finished || outcome.already_finished;
        println!("\n{}", if whole { "all flights" } else { "the flights so far" });
        report(&output, &data.join("airlines.csv"))?;
    }
    Ok(())
}

/// Prints what was published, from the published files: the last row of each key counts.
fn report(output: &Path, airlines: &Path) -> highwater::Result<()> {
    let names: BTreeMap<String, String> = csv_rows(airlines)?.into_iter().collect();
    let mut carriers = BTreeMap::new();
    for part in parts(&output.join("carriers"))? {
        for line in fs::read_to_string(part)?.lines() {
            let row: CarrierRow = serde_json::from_str(line).map_err(other)?;
            carriers.insert(row.carrier, row.delays);
        }
    }
    let mut routes = BTreeMap::new();
    for part in parts(&output.join("routes"))? {
        for row in csv_rows::<RouteRow>(&part)? {
            routes.insert((row.carrier.clone(), row.origin.clone(), row.dest.clone()), row);
        }
    }

    println!(
        "{:<28}{:>9}{:>11}{:>12}{:>12}{:>10}{:>8}",
        "", "flights", "cancelled", "departure", "arrival", "worst", "late"
    );
    let mut carriers: Vec<_> = carriers.into_iter().collect();
    carriers.sort_by_key(|(_, delays)| std::cmp::Reverse(delays.flights));
    for (carrier, delays) in &carriers {
        let name = names.get(carrier).unwrap_or(carrier);
        println!(
            "{name:<28}{:>9}{:>11}{:>12}{:>12}{:>10}{:>8}",
            delays.flights,
            delays.cancelled,
            minutes(delays.mean_departure_delay),
            minutes(delays.mean_arrival_delay),
            minutes(delays.worst_arrival_delay.map(f64::from)),
            percent(delays.share_late)
        );
    }
    let flights: u64 = carriers.iter().map(|(_, delays)| delays.flights).sum();
    println!("{:<28}{flights:>9}", "all");

    // A route flown now and then is late by chance.
    let mut routes: Vec<RouteRow> =
        routes.into_values().filter(|row| row.flights >= 100 && row.share_late.is_some()).collect();
    routes.sort_by(|a, b| b.share_late.partial_cmp(&a.share_late).expect("no share is NaN"));
    println!("\nthe worst routes of 100 flights or more");
    for row in routes.iter().take(5) {
        let name = names.get(&row.carrier).unwrap_or(&row.carrier);
        println!(
            "{:<28}{:>9}{:>11}{:>12}{:>12}{:>10}{:>8}  {name}",
            format!("{} to {}", row.origin, row.dest),
            row.flights,
            row.cancelled,
            minutes(row.mean_departure_delay),
            minutes(row.mean_arrival_delay),
            minutes(row.worst_arrival_delay.map(f64::from)),
            percent(row.share_late)
        );
    }
    Ok(())
}

/// The published files of a sink, oldest first. None if nothing was published.
fn parts(folder: &Path) -> highwater::Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("part-") {
            parts.push(entry.path());
        }
    }
    parts.sort();
    Ok(parts)
}

fn csv_rows<T: DeserializeOwned>(path: &Path) -> highwater::Result<Vec<T>> {
    let mut reader = csv::Reader::from_path(path).map_err(other)?;
    reader.deserialize().collect::<Result<_, _>>().map_err(other)
}

fn minutes(minutes: Option<f64>) -> String {
    minutes.map_or("-".to_owned(), |minutes| format!("{minutes:.0} min"))
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> highwater::Error {
    let error: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
    error.into()
}
