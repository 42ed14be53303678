//! (f) Operators that go by event time, each beside a bare loop that does the same on one thread: no engine, no exchange, no checkpoints.
//!
//! Both get their rows in batches, as readers make them. Rows come in the order of time; every window of 60 s has 60 panes of 1 s. What counts is
//! the processor time of all threads, since others may use the machine, and the ratio of what was measured one behind the other.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Parser, ValueEnum};
use cpu_time::ProcessTime;
use hashbrown::HashMap;
use highwater::connectors::{Discard, Generator};
use highwater::time::{Timestamp, Watermark, after, before, secs};
use highwater::{
    BoxError, Context, Job, Options, Process, Runner, Session, Sliding, States, Timers, Tumbling,
    Value,
};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Seconds of event time.
    #[arg(long, default_value_t = 100)]
    seconds: u64,
    /// Rows of each key in a second of event time, on average.
    #[arg(long, default_value_t = 3)]
    per_key: u64,
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
    /// Pairs of rows of two streams that happened within half a second of each other.
    Join,
}

const PANES: usize = 60;
const GAP_MS: i64 = 500;
const APART_MS: i64 = 500;

/// A key and a time in ms.
type Row = (u64, i64);

/// What rows there are.
#[derive(Clone, Copy)]
struct Load {
    keys: u64,
    /// Rows of all keys in a second of event time.
    per_second: u64,
    rows: u64,
}

impl Load {
    fn row(self, index: u64) -> Row {
        let mixed = (index ^ (index >> 15)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        ((mixed >> 20) % self.keys, (index * 1000 / self.per_second) as i64)
    }
}

pub fn run(arguments: &Arguments) -> highwater::Result<()> {
    let Arguments { keys, seconds, per_key, rounds, only } = *arguments;
    let rows = keys * per_key * seconds;
    let load = Load { keys, per_second: keys * per_key, rows };
    for operator in Operator::value_variants().iter().copied() {
        if only.is_some_and(|only| only != operator) {
            continue;
        }
        let (mut highwater, mut bare, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        let mut told = (0, 0);
        for _ in 0..rounds {
            let began = ProcessTime::now();
            told.0 = job(operator, load)?;
            highwater.push(rows as f64 / began.elapsed().as_secs_f64() / 1e6);
            let began = ProcessTime::now();
            told.1 = bare_loop(operator, load);
            bare.push(rows as f64 / began.elapsed().as_secs_f64() / 1e6);
            ratio.push(highwater[highwater.len() - 1] / bare[bare.len() - 1]);
        }
        println!("\n{operator:?}, {keys} keys, {rows} rows, 1 worker: million rows a CPU second");
        println!("  highwater                {}, {} rows out", spread(highwater), told.0);
        println!("  bare loop                {}, {} rows out", spread(bare), told.1);
        println!("  highwater : bare loop    {}", spread(ratio));
    }
    Ok(())
}

/// The median, with the least and the most.
fn spread(mut all: Vec<f64>) -> String {
    all.sort_by(f64::total_cmp);
    let (median, least, most) = (all[all.len() / 2], all[0], all[all.len() - 1]);
    format!("{median:.2} ({least:.2} to {most:.2})")
}

/// Answers how many rows came out.
fn job(operator: Operator, load: Load) -> highwater::Result<u64> {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    let words = ["bench", "--quiet", "--no-checkpoints", "--restart", "never", "--workers", "1"];
    let Alone { options } = Alone::parse_from(words);
    let told = Arc::new(AtomicU64::new(0));
    let count = told.clone();
    Runner::new("operators").options(options).run(move |job| build(job, operator, load, &count))?;
    Ok(told.load(Ordering::Relaxed))
}

fn build(job: &Job, operator: Operator, load: Load, told: &Arc<AtomicU64>) {
    // The `number`-th of so many streams, which have the rows in turn.
    let keyed = |number: u64, of: u64| {
        let rows = Generator::new(move |index| load.row(index * of + number));
        let rows = job.read(&format!("rows-{number}"), rows.limit(load.rows / of).splits(1));
        rows.event_time(|row: &Row| row.1, Watermark::monotonous()).key_by(|row| row.0)
    };
    if operator == Operator::Join {
        let apart = std::time::Duration::from_millis(APART_MS as u64);
        let (left, right) = (keyed(0, 2), keyed(1, 2));
        let near = left.interval_join(&right, before(apart), after(apart));
        near.join().uid("near").write("out", Discard::counting(told.clone()));
        return;
    }
    let keyed = keyed(0, 1);
    let out = Discard::counting(told.clone());
    let minute = secs(PANES as u64);
    match operator {
        Operator::Tumbling => {
            keyed.window(Tumbling::of(minute)).count().uid("count").write("out", out);
        }
        Operator::Sliding => {
            keyed.window(Sliding::of(minute, secs(1))).count().uid("count").write("out", out);
        }
        Operator::Session => {
            let gap = std::time::Duration::from_millis(GAP_MS as u64);
            keyed.window(Session::with_gap(gap)).count().uid("count").write("out", out);
        }
        Operator::Timers => {
            keyed.process(Counted::declare).uid("count").main().write("out", out);
        }
        Operator::Join => unreachable!("it has two streams"),
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

/// So many rows are made at once, as a reader does.
const BATCH_ROWS: u64 = 4096;

/// The same without an engine; gives how many rows came out.
fn bare_loop(operator: Operator, load: Load) -> u64 {
    let batch = |first: u64| {
        let batch = first..load.rows.min(first + BATCH_ROWS);
        batch.map(|index| load.row(index)).collect::<Vec<Row>>()
    };
    let rows = (0..load.rows).step_by(BATCH_ROWS as usize).flat_map(batch);
    match operator {
        Operator::Tumbling => tumbling(rows),
        Operator::Sliding => sliding(rows),
        Operator::Session => sessions(rows),
        Operator::Timers => timers(rows),
        Operator::Join => join(rows),
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
    /// Tells of the windows that end there.
    fn end(rings: &mut HashMap<u64, Ring>, second: i64) -> u64 {
        let (oldest, mut out) = (second as usize % PANES, 0);
        for (key, ring) in rings {
            if ring.total > 0 {
                black_box((*key, second, ring.total));
                out += 1;
            }
            ring.total -= std::mem::take(&mut ring.panes[oldest]);
        }
        out
    }
    let (mut rings, mut second, mut out) = (HashMap::<u64, Ring>::new(), 0_i64, 0);
    for (key, time) in rows {
        while time / 1000 > second {
            second += 1;
            out += end(&mut rings, second);
        }
        let ring = rings.entry(key).or_insert(Ring { panes: [0; PANES], total: 0 });
        ring.panes[second as usize % PANES] += 1;
        ring.total += 1;
    }
    let last = second + PANES as i64;
    out + (second + 1..=last).map(|second| end(&mut rings, second)).sum::<u64>()
}

/// Each session is told of when time has come to its end.
fn sessions(rows: impl Iterator<Item = Row>) -> u64 {
    /// The times of the first row and of the last one, and how many there are.
    type Open = HashMap<u64, (i64, i64, u64)>;
    let (mut open, mut out) = (Open::new(), 0);
    let mut due: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for (key, time) in rows {
        while let Some(first) = due.first_entry().filter(|first| *first.key() <= time) {
            let now = *first.key();
            for key in first.remove() {
                let Some(session) = open.get(&key) else { continue };
                let end = session.1 + GAP_MS;
                if end > now {
                    due.entry(end).or_default().push(key);
                } else {
                    black_box((key, open.remove(&key)));
                    out += 1;
                }
            }
        }
        let session = open.entry(key).or_insert((time, time, 0));
        if session.2 == 0 {
            due.entry(time + GAP_MS).or_default().push(key);
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

/// Rows come in turn from the left and from the right, in the order of time: so those that are too old for one are too old for all that follow.
fn join(rows: impl Iterator<Item = Row>) -> u64 {
    type Waiting = VecDeque<Row>;
    let (mut waiting, mut out) = (HashMap::<u64, (Waiting, Waiting)>::new(), 0);
    for (index, row) in rows.enumerate() {
        let (left, right) = waiting.entry(row.0).or_default();
        let (own, other) = if index % 2 == 0 { (left, right) } else { (right, left) };
        while other.pop_front_if(|other| other.1 < row.1 - APART_MS).is_some() {}
        for other in &*other {
            black_box((row.0, (row, *other)));
            out += 1;
        }
        own.push_back(row);
    }
    out
}
