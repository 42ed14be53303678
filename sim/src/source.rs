//! A source of splits that behaves as badly as sources may: little by little, idle for a while, with splits that show up late.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use highwater::connectors::IntoSource;
use highwater_runtime::connector::{Polled, Reader, ReaderContext, Source, SplitOffset, Waker};
use highwater_runtime::{Batch, BoxError, Epoch};
use highwater_world::Random;

use crate::graph::{Graph, Op, Row, rows_of};

/// Splits that show up late do so once more than so many attempts have been started.
const LATE_AFTER: usize = 2;

/// Which splits an attempt finds. All of its sources see the same.
#[derive(Debug)]
pub struct Found {
    attempts: Arc<AtomicUsize>,
    late: OnceLock<bool>,
}

impl Found {
    /// Splits that show up late are found if so many `attempts` have been started by the time at which the attempt looks.
    ///
    /// It looks when it knows the checkpoint that it goes on from, so that it finds whatever that one knows.
    pub fn after(attempts: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Found { attempts: attempts.clone(), late: OnceLock::new() })
    }

    /// All splits, or only those that are there from the beginning.
    pub fn always(late: bool) -> Arc<Self> {
        Arc::new(Found { attempts: Arc::default(), late: OnceLock::from(late) })
    }

    fn late(&self) -> bool {
        *self.late.get_or_init(|| self.attempts.load(Ordering::Relaxed) > LATE_AFTER)
    }
}

/// The number of splits of each source, with those that show up late or without.
pub fn splits(graph: &Graph, all: bool) -> impl Fn(usize) -> u32 + '_ {
    move |node| match graph.nodes[node].op {
        Op::Read { splits, late, .. } if !all => splits - late,
        Op::Read { splits, .. } => splits,
        _ => 0,
    }
}

/// The splits of one source.
pub struct SimSource {
    splits: Vec<Arc<Vec<Row>>>,
    late: usize,
    found: Arc<Found>,
}

impl SimSource {
    /// The source at `node`.
    pub fn new(graph: &Graph, node: usize, found: Arc<Found>) -> Self {
        let rows = |split| Arc::new(rows_of(graph, node, split));
        let Op::Read { splits, late, .. } = graph.nodes[node].op else {
            unreachable!("only sources read")
        };
        SimSource { splits: (0..splits).map(rows).collect(), late: late as usize, found }
    }
}

impl IntoSource<Row> for SimSource {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

impl Source for SimSource {
    fn splits(&self, _: &[(String, SplitOffset)]) -> Result<Vec<String>, BoxError> {
        let late = if self.found.late() { 0 } else { self.late };
        Ok((0..self.splits.len() - late).map(|split| format!("split-{split}")).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let mut random = Random::new(context.env.random(), "reader");
        let mut splits = Vec::new();
        for (id, offset) in context.splits.iter().cloned() {
            let number = id.strip_prefix("split-").and_then(|number| number.parse::<usize>().ok());
            let late = if self.found.late() { 0 } else { self.late };
            let there = self.splits.len() - late;
            let rows = number.filter(|number| *number < there).map(|number| &self.splits[number]);
            let rows = rows
                .ok_or_else(|| format!("a checkpoint knows the split `{id}`, which isn't there"))?;
            if offset.records > 0 && offset.position as usize >= rows.len() {
                return Err(format!("`{id}` is at its end, and is to be read again").into());
            }
            let (from, whole) = (offset.position as usize, rows.len());
            // Somebody writes to it while it is read: what comes later is for the next start.
            let there = match context.available_now && random.chance(500) {
                true => random.within(from as u64..=whole as u64) as usize,
                false => whole,
            };
            splits.push(Split { id, rows: rows.clone(), there, offset, moved: false });
        }
        Ok(Box::new(SimReader { splits, random, context, polled: String::new() }))
    }
}

struct Split {
    id: String,
    rows: Arc<Vec<Row>>,
    /// So many of them are there.
    there: usize,
    offset: SplitOffset,
    moved: bool,
}

impl Split {
    /// Whether it has more now. An empty one that is at its end has to say so.
    fn goes_on(&self) -> bool {
        let at = self.offset.position as usize;
        !self.offset.ended && (at < self.there || at == self.rows.len())
    }
}

struct SimReader {
    splits: Vec<Split>,
    random: Random,
    context: ReaderContext,
    /// The split whose rows were polled last.
    polled: String,
}

impl SimReader {
    /// Nothing now, but later.
    fn idle(&mut self, longest_us: u64) -> Polled {
        let pause = Duration::from_micros(self.random.below(longest_us));
        let (sleep, waker): (_, Waker) =
            (self.context.env.sleep(pause), self.context.waker.clone());
        let wake = async move {
            sleep.await;
            waker.wake();
        };
        self.context.env.spawn("wake-reader", Box::pin(wake));
        Polled::Waiting
    }
}

impl Reader for SimReader {
    fn poll(&mut self, _: Epoch) -> Result<Polled, BoxError> {
        match self.random.below(10) {
            0 => return Ok(self.idle(2_000)),
            1 => return Ok(Polled::EpochOver),
            2 if self.random.chance(100) => return Ok(self.idle(50_000)),
            _ => {}
        }
        let mut going: Vec<&mut Split> =
            self.splits.iter_mut().filter(|split| split.goes_on()).collect();
        if going.is_empty() {
            return Ok(Polled::Ended);
        }
        let at = self.random.below(going.len() as u64) as usize;
        let split = &mut going[at];
        self.polled.clone_from(&split.id);
        let from = split.offset.position as usize;
        // A large state is soon there, and then changes little by little.
        let most = if from < split.rows.len() / 3 { (split.rows.len() / 8).max(8) } else { 8 };
        let count = self.random.within(1..=most as u64) as usize;
        let count = count.min(split.there - from);
        let rows: Vec<Row> = split.rows.iter().skip(from).take(count).cloned().collect();
        split.offset.position += rows.len() as u64;
        split.offset.records += rows.len() as u64;
        split.offset.ended = split.offset.position as usize >= split.rows.len();
        split.moved = true;
        let bytes = rows.len() * size_of::<Row>();
        Ok(Polled::Rows(Batch::new(rows), bytes))
    }

    fn split(&self) -> &str {
        &self.polled
    }

    fn offsets(&mut self) -> Vec<(String, SplitOffset)> {
        let moved = self.splits.iter_mut().filter_map(|split| {
            let moved = std::mem::take(&mut split.moved);
            moved.then(|| (split.id.clone(), split.offset.clone()))
        });
        moved.collect()
    }
}
