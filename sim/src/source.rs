//! A source of splits that behaves as badly as sources may: little by little, idle for a while, with splits that show up late.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use highwater::connectors::IntoSource;
use highwater_runtime::connector::{
    self as runtime, Finder, FinderContext, Malformed, Polled, Reader, ReaderContext, Reject,
    Source, SplitOffset, Waker,
};
use highwater_runtime::{Batch, BoxError, Epoch};
use highwater_world::Random;

use crate::graph::{Graph, Row, is_malformed, rows_of};
use crate::op::Op;

/// Splits that show up late do so once more than so many attempts have been started.
const LATE_AFTER: usize = 2;

/// Which splits an attempt finds when it starts. All of its sources see the same; those that show up late it may still find while it
/// runs.
#[derive(Debug)]
pub struct Found {
    /// How many have been started; none if nothing more is found later.
    attempts: Option<Arc<AtomicUsize>>,
    late: OnceLock<bool>,
}

impl Found {
    /// Splits that show up late are found if so many `attempts` have been started by the time at which the attempt looks.
    ///
    /// It looks when it knows the checkpoint that it goes on from, so that it finds whatever that one knows.
    pub fn after(attempts: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Found { attempts: Some(attempts.clone()), late: OnceLock::new() })
    }

    /// All splits, or only those that are there from the beginning.
    pub fn always(late: bool) -> Arc<Self> {
        Arc::new(Found { attempts: None, late: OnceLock::from(late) })
    }

    fn late(&self) -> bool {
        *self.late.get_or_init(|| {
            let started = |attempts: &Arc<AtomicUsize>| attempts.load(Ordering::Relaxed);
            self.attempts.as_ref().is_some_and(|attempts| started(attempts) > LATE_AFTER)
        })
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
    /// Some rows can't be read.
    malformed: bool,
    found: Arc<Found>,
}

impl SimSource {
    /// The source at `node`.
    pub fn new(graph: &Graph, node: usize, found: Arc<Found>) -> Self {
        let rows = |split| Arc::new(rows_of(graph, node, split));
        let Op::Read { splits, late, malformed, .. } = graph.nodes[node].op else {
            unreachable!("only sources read")
        };
        let (late, malformed) = (late as usize, malformed != Malformed::Fail);
        SimSource { splits: (0..splits).map(rows).collect(), late, malformed, found }
    }
}

impl SimSource {
    /// How many splits are there when an attempt starts.
    fn there(&self) -> usize {
        self.splits.len() - if self.found.late() { 0 } else { self.late }
    }
}

impl IntoSource<Row> for SimSource {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

/// The number of a split.
fn number(id: &str) -> Option<usize> {
    id.strip_prefix("split-")?.parse().ok()
}

fn split(number: usize) -> (String, SplitOffset) {
    (format!("split-{number}"), SplitOffset::default())
}

/// The first split behind those that are known: they are found in their order.
fn first_new(known: &[(String, SplitOffset)]) -> usize {
    known.iter().filter_map(|(id, _)| number(id)).max().map_or(0, |last| last + 1)
}

impl Source for SimSource {
    fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        Ok((first_new(known)..self.there()).map(split).collect())
    }

    fn finder(&self, context: FinderContext) -> Result<Option<Box<dyn Finder>>, BoxError> {
        let Some(attempts) = self.found.attempts.clone().filter(|_| !self.found.late()) else {
            return Ok(None);
        };
        let random = Random::new(context.env.random(), "finder");
        let known = context.known.into_iter().map(|(id, _)| id).collect();
        let splits = self.splits.len();
        Ok(Some(Box::new(SimFinder { known, splits, attempts, random })))
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let mut random = Random::new(context.env.random(), "reader");
        let (all, splits, polled) = (self.splits.clone(), Vec::new(), String::new());
        let leaves_alone = random.chance(500);
        let (held, malformed) = (BTreeSet::new(), self.malformed);
        Ok(Box::new(SimReader {
            all,
            splits,
            malformed,
            held,
            leaves_alone,
            random,
            context,
            polled,
        }))
    }
}

/// Comes upon the splits that show up late, one by one, and releases all but the last, as who knows their order may.
struct SimFinder {
    /// Those that aren't released.
    known: Vec<String>,
    splits: usize,
    /// How many attempts were started; more are noted as soon as anything is found.
    attempts: Arc<AtomicUsize>,
    random: Random,
}

impl Finder for SimFinder {
    fn poll(&mut self) -> Result<runtime::Found, BoxError> {
        let mut found = runtime::Found::default();
        if self.random.chance(900) {
            return Ok(found);
        }
        let known: Vec<_> =
            self.known.iter().map(|id| (id.clone(), SplitOffset::default())).collect();
        let next = first_new(&known);
        if next < self.splits {
            // Whoever comes after this attempt may know it, and then finds all of them.
            self.attempts.fetch_max(LATE_AFTER + 1, Ordering::Relaxed);
            found.splits.push(split(next));
        } else {
            found.complete = true;
        }
        let last = format!("split-{}", next.saturating_sub(1));
        let (last, released) = self.known.drain(..).partition(|id| *id == last);
        self.known = last;
        self.known.extend(found.splits.iter().map(|(id, _)| id.clone()));
        found.released = released;
        Ok(found)
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
    /// The rows of all splits, also of those that show up late.
    all: Vec<Arc<Vec<Row>>>,
    splits: Vec<Split>,
    /// Some rows can't be read.
    malformed: bool,
    /// Those that aren't to be read for now.
    held: BTreeSet<String>,
    /// It does as it is told with these.
    leaves_alone: bool,
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
    fn add(&mut self, splits: Vec<(String, SplitOffset)>, _: usize) -> Result<(), BoxError> {
        for (id, offset) in splits {
            let rows = number(&id).and_then(|number| self.all.get(number));
            let rows = rows
                .ok_or_else(|| format!("a checkpoint knows the split `{id}`, which isn't there"))?;
            if offset.records > 0 && offset.position as usize >= rows.len() {
                return Err(format!("`{id}` is at its end, and is to be read again").into());
            }
            let (from, whole) = (offset.position as usize, rows.len());
            // Somebody writes to it while it is read: what comes later is for the next start.
            let there = match self.context.available_now && self.random.chance(500) {
                true => self.random.within(from as u64..=whole as u64) as usize,
                false => whole,
            };
            self.splits.push(Split { id, rows: rows.clone(), there, offset, moved: false });
        }
        Ok(())
    }

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
        if self.leaves_alone {
            going.retain(|split| !self.held.contains(&split.id));
        }
        if going.is_empty() {
            return Ok(Polled::Waiting);
        }
        let at = self.random.below(going.len() as u64) as usize;
        let split = &mut going[at];
        self.polled.clone_from(&split.id);
        let from = split.offset.position as usize;
        // A large state is soon there, and then changes little by little.
        let most = if from < split.rows.len() / 3 { (split.rows.len() / 8).max(8) } else { 8 };
        let count = self.random.within(1..=most as u64) as usize;
        let count = count.min(split.there - from);
        let mut rows: Vec<Row> = Vec::new();
        for row in &split.rows[from..from + count] {
            if self.malformed && is_malformed(row) {
                let Row { key, value, split: number, seq } = row;
                let (text, position) = (format!("{key} {value} {number} {seq}"), u64::from(*seq));
                let reject = Reject::new(&split.id, position + 1, position);
                self.context.malformed.reject(Reject { text, ..reject })?;
            } else {
                rows.push(row.clone());
            }
        }
        split.offset.position += count as u64;
        split.offset.records += count as u64;
        split.offset.ended = split.offset.position as usize >= split.rows.len();
        split.moved = true;
        let bytes = rows.len() * size_of::<Row>();
        Ok(Polled::rows(Batch::new(rows), self.context.malformed.take(), bytes))
    }

    fn split(&self) -> &str {
        &self.polled
    }

    fn hold(&mut self, held: &BTreeSet<String>) {
        self.held.clone_from(held);
    }

    fn rests(&self, split: &str) -> bool {
        self.splits.iter().any(|other| other.id == split && !other.goes_on())
    }

    fn offsets(&mut self) -> Vec<(String, SplitOffset)> {
        let moved = self.splits.iter_mut().filter_map(|split| {
            let moved = std::mem::take(&mut split.moved);
            moved.then(|| (split.id.clone(), split.offset.clone()))
        });
        moved.collect()
    }
}
