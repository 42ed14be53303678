//! (g) What the end of an epoch takes, however many timers are held.
//!
//! The operator of a process function is driven by hand, without an engine around it, so that nothing but its own work is timed. In every epoch as many rows come as timers
//! are due. First each row sets a timer that is due in the next epoch; then each puts a timer off that is held, as functions do that wait for silence, until all have
//! been put off more than once.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use highwater::connectors::Discard;
use highwater::time::{Timestamp, Watermark};
use highwater::{BoxError, Context, Process, States, Timers, testing};
use highwater_codec::hash_key;
use highwater_env::RealEnv;
use highwater_runtime::plan::Role;
use highwater_runtime::{Batch, Epoch, EpochEnd, Keyed, Operator, OperatorContext, Outputs, Work};
use highwater_state::KeyGroups;

#[derive(clap::Args)]
pub struct Arguments {
    /// Timers that are held; each number is measured by itself.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000, 10_000_000])]
    held: Vec<u64>,
    /// Rows, and timers that are due, in each epoch.
    #[arg(long, default_value_t = 1_000)]
    due: u64,
    /// Epochs in which timers are due.
    #[arg(long, default_value_t = 500)]
    epochs: u64,
}

/// Long after all that is due.
const FAR_MS: i64 = 1_000_000_000_000;

const EPOCH_MS: i64 = 10;

/// A row asks for a timer: deletes the one at the first time, and sets one at the second.
type Row = (Option<i64>, i64);

/// How many timers were called.
static FIRED: AtomicU64 = AtomicU64::new(0);

struct Asked {
    timers: Timers,
}

impl Process for Asked {
    type Key = u64;
    type In = Row;
    type Out = u64;

    fn declare(states: &mut States<Self>) -> Self {
        Asked { timers: states.event_timers("timers") }
    }

    fn record(&mut self, (delete, set): Row, cx: &mut Context<Self>) -> Result<(), BoxError> {
        if let Some(at) = delete {
            self.timers.delete(cx, at);
        }
        self.timers.set(cx, set);
        Ok(())
    }

    fn timer(&mut self, _: Timers, _: Timestamp, cx: &mut Context<Self>) -> Result<(), BoxError> {
        FIRED.fetch_add(1, Ordering::Relaxed);
        cx.emit(*cx.key());
        Ok(())
    }
}

pub fn run(arguments: &Arguments) -> highwater::Result<()> {
    let Arguments { held, due, epochs } = arguments;
    println!("{due} rows and {due} due timers, or {due} that are put off, in each epoch");
    println!(
        "    held   memory   an epoch's end, due: median, p99, most   put off: median, p99, most"
    );
    for &held in held {
        let before = resident_bytes();
        let mut driven = Driven::new()?;
        for from in (0..held).step_by(10_000) {
            let keys = from..held.min(from + 10_000);
            driven.epoch(keys.map(|key| (key, (None, far(key, 0)))));
        }
        let memory = resident_bytes().saturating_sub(before);
        // Keys of their own.
        let soon = |epoch: u64| {
            let at = (epoch as i64 + 2) * EPOCH_MS;
            (0..*due).map(move |key| (held + epoch * due + key, (None, at)))
        };
        driven.now = 0;
        driven.epoch(soon(0));
        let firing: Vec<Duration> = (1..=*epochs)
            .map(|epoch| {
                FIRED.store(0, Ordering::Relaxed);
                let took = driven.epoch(soon(epoch));
                let fired = FIRED.load(Ordering::Relaxed);
                assert_eq!(fired, *due, "those that the epoch before had set");
                took
            })
            .collect();
        let put_off = (0..held * 5 / 2 / due).map(|epoch| {
            let keys = epoch * due..(epoch + 1) * due;
            let rows = keys.map(|number| {
                let (key, round) = (number % held, (number / held) as i64);
                (key, (Some(far(key, round)), far(key, round + 1)))
            });
            driven.epoch(rows)
        });
        let put_off: Vec<Duration> = put_off.collect();
        let memory = memory / 1_000_000;
        println!("{held:>8}   {memory:>4} MB   {}   {}", spread(firing), spread(put_off));
    }
    Ok(())
}

/// When the timer of a key is due that was put off so often: one each millisecond.
fn far(key: u64, round: i64) -> i64 {
    FAR_MS + key as i64 + round * 1_000
}

/// The operator, on the only worker.
struct Driven {
    operator: Box<dyn Operator>,
    epoch: u32,
    now: i64,
}

impl Driven {
    fn new() -> highwater::Result<Self> {
        let plan = testing::plan(|job| {
            let rows = job.read("rows", Vec::<(u64, Row)>::new());
            let rows = rows.event_time(|row| row.1.1, Watermark::monotonous()).keyed();
            rows.process(Asked::declare).uid("timers").main().write("out", Discard::new());
        });
        let key_groups = KeyGroups::default();
        let context = OperatorContext {
            uid: "timers".to_owned(),
            worker: 0,
            workers: 1,
            key_groups,
            groups: key_groups.range(0, 1),
            owners: key_groups.owners(1).into(),
            env: Arc::new(RealEnv::new()?),
        };
        let is_it = |uid: &Option<String>| uid.as_deref() == Some("timers");
        let node = plan.nodes().iter().find(|node| is_it(&node.uid)).expect("it was put there");
        let Role::Operator { make, .. } = &node.role else { unreachable!("it is an operator") };
        let mut operator = make(&context);
        operator.tables().into_iter().for_each(|table| table.begin(1, true));
        Ok(Driven { operator, epoch: 0, now: i64::MIN })
    }

    /// These rows come, and their epoch ends. Answers what the end took.
    fn epoch(&mut self, rows: impl Iterator<Item = (u64, Row)>) -> Duration {
        let mut keyed = Keyed::default();
        let mut times = Vec::new();
        for (key, row) in rows {
            keyed.push(hash_key(&key).expect("a number can be hashed"), key, row);
            times.push(row.1);
        }
        let mut out = Outputs::default();
        let (epoch, late_below) = (Epoch::new(1, self.epoch), Some(self.now));
        let batch = Batch::new(keyed).with_times(times);
        self.operator.receive(0, epoch, batch, &mut out).expect("it takes all rows");
        self.epoch += 1;
        self.now = self.now.saturating_add(EPOCH_MS);
        let end = EpochEnd {
            epoch,
            clock_ms: 0,
            clock_before_ms: 0,
            watermark: Some(self.now),
            late_below,
            trigger: 0,
            trigger_ends: false,
            finished: false,
        };
        let began = Instant::now();
        while self.operator.complete(&end, &mut out).expect("nothing fails") == Work::More {}
        let took = began.elapsed();
        black_box(out);
        took
    }
}

fn spread(mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    let at = |part: usize| all[(all.len() - 1) * part / 100].as_secs_f64() * 1e3;
    format!("{:.2} ms, {:.2} ms, {:.2} ms", at(50), at(99), at(100))
}

/// What the process has in memory.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    resident.unwrap_or(0u64) * 4096
}
