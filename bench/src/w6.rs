//! (c) W6 of the peers' kit: CSV files of bids in, running count and sum of prices per bidder, CSV files out.

use highwater::connectors::Files;
use highwater::{Options, Runner};
use serde::{Deserialize, Serialize};

#[derive(clap::Args)]
pub struct Arguments {
    /// The kit's folder `wide`: CSV files without header of auction, bidder, price, time.
    #[arg(long)]
    input: String,
    #[arg(long)]
    output: String,
    /// One row for each record, as a Flink `OVER` does; otherwise one for each changed key and epoch.
    #[arg(long)]
    every_record: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Serialize, Deserialize)]
struct Bid {
    auction: i64,
    bidder: i64,
    price: i64,
    time: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Total {
    bidder: i64,
    count: i64,
    total: i64,
}

pub fn run(arguments: Arguments) -> highwater::Result<()> {
    let Arguments { input, output, every_record, options } = arguments;
    Runner::new("w6").options(options).run(|job| {
        let totals = job
            .read("bids", Files::csv(input).without_header())
            .map(|bid: Bid| (bid.bidder, bid.price))
            .keyed()
            .fold((0_i64, 0_i64), |sum, price: i64| {
                sum.0 += 1;
                sum.1 += price;
            });
        let totals = if every_record { totals.every_record() } else { totals };
        totals
            .uid("totals")
            .map(|(bidder, (count, total))| Total { bidder, count, total })
            .write("out", Files::csv(output).without_header());
    })?;
    Ok(())
}
