//! (f) Operators that go by event time, each beside a bare loop that does the same on one thread: no engine, no exchange, no checkpoints.
//!
//! Rows come in the order of time, a second of which has three for each key on average; every window of 60 s has 60 panes of 1 s.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use hashbrown::HashMap;
use highwater::connectors::{Discard, Generator};
use highwater::time::{Timestamp, Watermark, secs};
use highwater::{
    BoxError, Context, Job, Options, Process, Runner, Session, Sliding, States, Timers, Tumbling,
    Value,
};

use crate::{Measured, print_table};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Seconds of event time.
    #[arg(long, default_value_t = 100)]
    seconds: u64,
    /// Rounds; the median of each counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only this one.
    #[arg(long)]
    only: Option<Operator>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Operator {
    /// Count in 60 s.
    Tumbling,
    /// Count in 60 s, every second.
    Sliding,
    /// Count until a key is silent for half a second.
    Session,
    /// Count, told a second after a key's first row since the last time.
    Timers,
}

const PER_KEY_AND_SECOND: u64 = 3;
const PANES: usize = 60;
const GAP_MS: i64 = 500;

/// A key and a time in ms.
type Row = (u64, i64);

pub fn run(arguments: &Arguments) -> highwater::Result<()> {
    let Arguments { keys, seconds, rounds, only } = *arguments;
    let rows = keys * PER_KEY_AND_SECOND * seconds;
    for operator in Operator::value_variants().iter().copied() {
        if only.is_some_and(|only| only != operator) {
            continue;
        }
        let (mut highwater, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let began = Instant::now();
            job(operator, keys, rows)?;
            highwater.push(rows as f64 / began.elapsed().as_secs_f64());
            let began = Instant::now();
            black_box(bare_loop(operator, keys, rows));
            bare.push(rows as f64 / began.elapsed().as_secs_f64());
        }
        let measured = [("highwater".to_owned(), highwater), ("bare loop".to_owned(), bare)];
        let title = format!("{operator:?}, {keys} keys, {rows} rows, 1 worker");
        print_table(&title, &measured.map(Measured::of));
    }
    Ok(())
}

fn row(index: u64, keys: u64) -> Row {
    let mixed = (index ^ (index >> 15)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((mixed >> 20) % keys, (index * 1000 / (keys * PER_KEY_AND_SECOND)) as i64)
}

fn job(operator: Operator, keys: u64, rows: u64) -> highwater::Result<()> {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    let words = ["bench", "--quiet", "--no-checkpoints", "--restart", "never", "--workers", "1"];
    let Alone { options } = Alone::parse_from(words);
    Runner::new("operators").options(options).run(|job| build(job, operator, keys, rows))?;
    Ok(())
}

fn build(job: &Job, operator: Operator, keys: u64, rows: u64) {
    let source = Generator::new(move |index| row(index, keys)).limit(rows).splits(1);
    let rows = job.read("rows", source).event_time(|row: &Row| row.1, Watermark::monotonous());
    let keyed = rows.key_by(|row| row.0);
    let minute = secs(PANES as u64);
    match operator {
        Operator::Tumbling => {
            keyed.window(Tumbling::of(minute)).count().uid("count").write("out", Discard::new());
        }
        Operator::Sliding => {
            let windows = keyed.window(Sliding::of(minute, secs(1)));
            windows.count().uid("count").write("out", Discard::new());
        }
        Operator::Session => {
            let gap = std::time::Duration::from_millis(GAP_MS as u64);
            keyed.window(Session::with_gap(gap)).count().uid("count").write("out", Discard::new());
        }
        Operator::Timers => {
            keyed.process(Counted::declare).uid("count").main().write("out", Discard::new());
        }
    }
}

/// Counts the rows of a key for a second.
struct Counted {
    count: Value<u64>,
    told: Timers,
}

impl Process for Counted {
    type Key = u64;
    type In = Row;
    type Out = (u64, u64);

    fn declare(states: &mut States<Self>) -> Self {
        Counted { count: states.value("count"), told: states.event_timers("told") }
    }

    fn record(&mut self, row: Row, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let count = self.count.get(cx).unwrap_or_default();
        if count == 0 {
            self.told.set(cx, Timestamp::from_ms(row.1) + secs(1));
        }
        self.count.set(cx, count + 1);
        Ok(())
    }

    fn timer(&mut self, _: Timers, _: Timestamp, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let count = self.count.get(cx).unwrap_or_default();
        self.count.clear(cx);
        cx.emit((*cx.key(), count));
        Ok(())
    }
}

/// The same without an engine; gives how many rows came out.
fn bare_loop(operator: Operator, keys: u64, rows: u64) -> u64 {
    let rows = (0..rows).map(|index| row(index, keys));
    match operator {
        Operator::Tumbling => tumbling(rows),
        Operator::Sliding => sliding(rows),
        Operator::Session => sessions(rows),
        Operator::Timers => timers(rows),
    }
}

fn tumbling(rows: impl Iterator<Item = Row>) -> u64 {
    let (mut counts, mut window, mut out) = (HashMap::<u64, u64>::new(), 0, 0);
    for (key, time) in rows {
        let now = time / (1000 * PANES as i64);
        if now > window {
            window = now;
            out += counts.drain().map(black_box).count() as u64;
        }
        *counts.entry(key).or_default() += 1;
    }
    out + counts.len() as u64
}

fn sliding(rows: impl Iterator<Item = Row>) -> u64 {
    struct Ring {
        panes: [u32; PANES],
        total: u32,
    }
    let (mut rings, mut second, mut out) = (HashMap::<u64, Ring>::new(), 0_i64, 0);
    for (key, time) in rows {
        while time / 1000 > second {
            second += 1;
            let oldest = second as usize % PANES;
            for (key, ring) in &mut rings {
                if ring.total > 0 {
                    black_box((*key, second, ring.total));
                    out += 1;
                }
                ring.total -= std::mem::take(&mut ring.panes[oldest]);
            }
        }
        let ring = rings.entry(key).or_insert(Ring { panes: [0; PANES], total: 0 });
        ring.panes[second as usize % PANES] += 1;
        ring.total += 1;
    }
    out
}

fn sessions(rows: impl Iterator<Item = Row>) -> u64 {
    let (mut open, mut out) = (HashMap::<u64, (i64, i64, u64)>::new(), 0);
    for (key, time) in rows {
        let session = open.entry(key).or_insert((time, time, 0));
        if time - session.1 >= GAP_MS {
            black_box((key, *session));
            out += 1;
            *session = (time, time, 0);
        }
        session.1 = time;
        session.2 += 1;
    }
    out + open.len() as u64
}

fn timers(rows: impl Iterator<Item = Row>) -> u64 {
    let (mut counts, mut out) = (HashMap::<u64, u64>::new(), 0);
    let mut due: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for (key, time) in rows {
        while let Some(first) = due.first_entry().filter(|first| *first.key() <= time) {
            for key in first.remove() {
                black_box((key, counts.remove(&key)));
                out += 1;
            }
        }
        let count = counts.entry(key).or_default();
        if *count == 0 {
            due.entry(time + 1000).or_default().push(key);
        }
        *count += 1;
    }
    out + counts.len() as u64
}
