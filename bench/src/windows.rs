//! (e) W3, W4 and W7 of the peers' kit: CSV files in, windows by event time, CSV files out.
//!
//! The input is the kit's `lanes`: two files, each in the order of time, so that two workers read one each.

use highwater::connectors::Files;
use highwater::time::{Watermark, secs};
use highwater::{Job, Options, Runner, Sliding, Tumbling};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(clap::Args)]
pub struct Arguments {
    workload: Workload,
    /// The kit's folder `lanes/bid`, or `lanes/text` for W7.
    #[arg(long)]
    input: String,
    #[arg(long)]
    output: String,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Workload {
    /// Bids per auction in 10 s every 2 s, and the auction with most of them.
    W3,
    /// The highest price in 10 s.
    W4,
    /// Words in 30 s every 10 s.
    W7,
}

/// A column that nobody wants.
#[derive(Clone)]
struct Skipped;

impl Serialize for Skipped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Skipped)
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Bid {
    auction: i64,
    bidder: Skipped,
    price: i64,
    channel: Skipped,
    url: Skipped,
    time: i64,
    extra: Skipped,
}

#[derive(Clone, Serialize, Deserialize)]
struct Line {
    time: i64,
    words: String,
}

pub fn run(arguments: Arguments) -> highwater::Result<()> {
    let Arguments { workload, input, output, options } = arguments;
    // One split a file: what is behind another part of the same file would hold time back until that is read.
    let input = Files::csv(input).without_header().split_bytes(u64::MAX);
    let output = Files::csv(output).without_header();
    Runner::new("windows").options(options).run(|job| match workload {
        Workload::W3 => hot_auctions(job, input, output),
        Workload::W4 => highest_price(job, input, output),
        Workload::W7 => words(job, input, output),
    })?;
    Ok(())
}

/// Two stages: the bids of each auction, then the best auction of each window. A window's row is as old as the window's last moment, so
/// those of one window meet in a tumbling window of a slide's length.
fn hot_auctions(job: &Job, input: Files, output: Files) {
    job.read("bids", input)
        .event_time(|bid: &Bid| bid.time, Watermark::monotonous())
        .map(|bid| bid.auction)
        .key_by(|auction| *auction)
        .window(Sliding::of(secs(10), secs(2)))
        .count()
        .uid("auctions")
        .map(|bids| (bids.end.as_ms(), bids.key, bids.value))
        .key_by(|bids| bids.0)
        .window(Tumbling::of(secs(2)))
        .max_by_key(|bids| (bids.2, -bids.1))
        .uid("hottest")
        .map(|hottest| hottest.value)
        .write("out", output);
}

/// Two stages, so that all workers share the first.
fn highest_price(job: &Job, input: Files, output: Files) {
    job.read("bids", input)
        .event_time(|bid: &Bid| bid.time, Watermark::monotonous())
        .map(|bid| (bid.auction % 64, bid.price))
        .keyed()
        .window(Tumbling::of(secs(10)))
        .max()
        .uid("prices")
        .map(|price| (price.end.as_ms(), price.value))
        .keyed()
        .window(Tumbling::of(secs(10)))
        .max()
        .uid("highest")
        .map(|highest| (highest.key, highest.value))
        .write("out", output);
}

fn words(job: &Job, input: Files, output: Files) {
    job.read("lines", input)
        .event_time(|line: &Line| line.time, Watermark::monotonous())
        .flat_map(|line| line.words.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .key_by(|word| word.clone())
        .window(Sliding::of(secs(30), secs(10)))
        .count()
        .uid("words")
        .map(|count| (count.end.as_ms(), count.key, count.value))
        .write("out", output);
}
