//! The job that is killed: operators with state of every kind, and sinks of every kind, behind a source that is slowed down.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use highwater::connectors::{Files, IntoSource, foreach_batch};
use highwater::env::Env;
use highwater::{
    Aggregate, BoxError, Context, Data, Map, Options, Process, Runner, StateHandle, States, Value,
};
use highwater_runtime::Epoch;
use highwater_runtime::connector::{
    Finder, FinderContext, Polled, Reader, ReaderContext, Source, SplitOffset,
};

use crate::input::Sale;

/// Names the folder of a test, and makes a process of this test's binary a job.
pub const FOLDER_VARIABLE: &str = "KILL_TEST_FOLDER";

/// The number of workers.
pub const WORKERS_VARIABLE: &str = "KILL_TEST_WORKERS";

/// Set if there are several processes: where all of them are, and which one this is.
pub const HOSTS_VARIABLE: &str = "KILL_TEST_HOSTS";
pub const PROCESS_VARIABLE: &str = "KILL_TEST_PROCESS";

/// If set, a worker reads slowly, and only so many rows in this attempt.
pub const QUOTA_VARIABLE: &str = "KILL_TEST_QUOTA";

/// While there is a quota, a worker reads so many rows a second.
const RATE: f64 = 2_000.0;

/// Pieces of the large file are so small that a batch of rows is.
const SPLIT_BYTES: u64 = 6 << 10;

/// Where the function of the last sink keeps its rows, and what it finds wrong.
pub const BATCHES: &str = "batches";
pub const VIOLATIONS: &str = "violations";

/// Every n-th sale goes to the function.
pub const BATCHED: u64 = 4;

/// So many regions there are.
pub const REGIONS: u16 = 7;

/// Runs the job in `folder`, as an attempt of its own process.
pub fn run(folder: &Path) -> highwater::Result<()> {
    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }
    let workers = std::env::var(WORKERS_VARIABLE).expect("the number of workers is set");
    let checkpoints = folder.join("checkpoints");
    let checkpoints = checkpoints.to_str().expect("temporary folders have plain names");
    let arguments = [
        "kill",
        "--quiet",
        "--restart",
        "never",
        "--workers",
        &workers,
        "--checkpoints",
        checkpoints,
    ];
    let times = ["--checkpoint-interval", "80ms", "--trigger", "80ms"];
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (hosts, process) = (variable(HOSTS_VARIABLE), variable(PROCESS_VARIABLE));
    let place = ["--hosts", hosts.as_str(), "--process", process.as_str()];
    let place = if hosts.is_empty() { &[][..] } else { &place[..] };
    let all = arguments.into_iter().chain(times).chain(place.iter().copied());
    let Arguments { options } = Arguments::parse_from(all);
    let quota = std::env::var(QUOTA_VARIABLE).ok().map(|rows| rows.parse().expect("a number"));
    let out = |name: &str| folder.join("out").join(name);
    Runner::new("kill").options(options).run(|job| {
        let files = Files::csv(folder.join("in")).split_bytes(SPLIT_BYTES);
        let sales = job.read::<Sale>("sales", Paced { source: files, quota });
        sales.write("all-out", Files::csv(out("all")));

        let by_shop = sales.key_by(|sale| sale.shop.clone());
        by_shop.aggregate(Totals).uid("totals").write("totals-out", Files::ndjson(out("totals")));
        let counts = by_shop.count().every_record();
        counts.uid("counts").write("counts-out", Files::ndjson(out("counts")));
        let steps = by_shop.map_with_state(|shop, sale, state: &mut StateHandle<(u64, i64)>| {
            let (number, balance) = state.get().copied().unwrap_or_default();
            let after = (number + 1, balance + sale.amount);
            state.set(after);
            Some((shop.clone(), after.0, after.1))
        });
        steps.uid("steps").write("steps-out", Files::csv(out("steps")));
        let firsts = by_shop.process(Firsts::declare).uid("firsts");
        firsts.main().write("firsts-out", Files::csv(out("firsts")));

        let by_region = sales.key_by(|sale| sale.item % REGIONS);
        let regions =
            by_region.update_state_by_key(|_, new: Vec<Sale>, old: Option<(u64, i64)>| {
                let (count, sum) = old.unwrap_or_default();
                let amounts: i64 = new.iter().map(|sale| sale.amount).sum();
                Some((count + new.len() as u64, sum + amounts))
            });
        regions.uid("regions").write("regions-out", Files::ndjson(out("regions")));

        let folder = folder.to_owned();
        let some = sales.filter(|sale| sale.id % BATCHED == 0);
        some.write(
            "batches-out",
            foreach_batch(move |checkpoint, rows| keep(&folder, checkpoint, &rows)),
        );
    })?;
    Ok(())
}

struct Totals;

impl Aggregate for Totals {
    type In = Sale;
    type Acc = (u64, i64);
    type Out = (u64, i64);

    fn create(&self) -> (u64, i64) {
        (0, 0)
    }

    fn add(&self, (count, sum): &mut (u64, i64), sale: Sale) {
        *count += 1;
        *sum += sale.amount;
    }

    fn result(&self, acc: &(u64, i64)) -> (u64, i64) {
        *acc
    }
}

/// Tells which items a shop sells, with a number in the order of the first sales.
struct Firsts {
    seen: Map<u16, u64>,
    count: Value<u64>,
}

impl Process for Firsts {
    type Key = String;
    type In = Sale;
    type Out = (String, u16, u64);

    fn declare(states: &mut States<Self>) -> Self {
        Firsts { seen: states.map("seen"), count: states.value("count") }
    }

    fn record(&mut self, sale: Sale, cx: &mut Context<Self>) -> Result<(), BoxError> {
        if !self.seen.contains(cx, &sale.item) {
            let number = self.count.get(cx).unwrap_or_default() + 1;
            self.count.set(cx, number);
            self.seen.insert(cx, sale.item, number);
            cx.emit((cx.key().clone(), sale.item, number));
        }
        Ok(())
    }
}

/// Keeps the rows of a checkpoint as one file, which appears whole; what was kept before must be the same.
fn keep(folder: &Path, checkpoint: u64, rows: &[Sale]) -> Result<(), BoxError> {
    let batches = folder.join(BATCHES);
    fs::create_dir_all(&batches)?;
    let path = batches.join(batch_name(checkpoint));
    let text = format!("{}\n", serde_json::to_string(rows)?);
    let mut wrong = Vec::new();
    if path.exists() {
        if fs::read_to_string(&path)? != text {
            wrong.push(format!("checkpoint {checkpoint} came again with other rows\n"));
        }
    } else {
        let later = |path: &PathBuf| path.file_name() > Some(batch_name(checkpoint).as_ref());
        if fs::read_dir(&batches)?.any(|entry| entry.is_ok_and(|entry| later(&entry.path()))) {
            wrong.push(format!("checkpoint {checkpoint} came after a later one\n"));
        }
        let new = folder.join("batch.new");
        fs::write(&new, text)?;
        fs::rename(&new, &path)?;
    }
    let mut violations =
        fs::File::options().create(true).append(true).open(folder.join(VIOLATIONS))?;
    wrong.iter().try_for_each(|wrong| violations.write_all(wrong.as_bytes()))?;
    Ok(())
}

fn batch_name(checkpoint: u64) -> String {
    format!("batch-{checkpoint:020}.json")
}

/// A source that is read slowly, so that an attempt doesn't come far. Workers and epochs go on as ever.
struct Paced<S> {
    source: S,
    quota: Option<u64>,
}

impl<T: Data, S: IntoSource<T>> IntoSource<T> for Paced<S> {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(Paced { source: self.source.into_source(), quota: self.quota })
    }
}

impl Source for Paced<Arc<dyn Source>> {
    fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        self.source.splits(known)
    }

    fn finder(&self, context: FinderContext) -> Result<Option<Box<dyn Finder>>, BoxError> {
        self.source.finder(context)
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let env = context.env.clone();
        let reader = self.source.reader(context)?;
        let Some(quota) = self.quota else { return Ok(reader) };
        Ok(Box::new(PacedReader { reader, quota, read: 0, start: env.monotonic(), env }))
    }
}

struct PacedReader {
    reader: Box<dyn Reader>,
    quota: u64,
    read: u64,
    start: Duration,
    env: Arc<dyn Env>,
}

impl Reader for PacedReader {
    fn add(&mut self, splits: Vec<(String, SplitOffset)>, of_all: usize) -> Result<(), BoxError> {
        self.reader.add(splits, of_all)
    }

    fn poll(&mut self, epoch: Epoch) -> Result<Polled, BoxError> {
        let due = (self.env.monotonic() - self.start).as_secs_f64() * RATE;
        if self.read >= self.quota.min(due as u64) {
            // Polled again at every tick.
            return Ok(Polled::Waiting);
        }
        let polled = self.reader.poll(epoch)?;
        if let Polled::Rows(rows, _) = &polled {
            self.read += rows.len() as u64;
        }
        Ok(polled)
    }

    fn split(&self) -> &str {
        self.reader.split()
    }

    fn offsets(&mut self) -> Vec<(String, SplitOffset)> {
        self.reader.offsets()
    }
}
