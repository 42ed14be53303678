//! A source of splits that behaves as badly as sources may: little by little, idle for a while, with splits that show up late.

use std::sync::Arc;
use std::time::Duration;

use highwater::connectors::IntoSource;
use highwater_runtime::connector::{Polled, Reader, ReaderContext, Source, SplitOffset, Waker};
use highwater_runtime::{Batch, BoxError, Epoch};
use highwater_world::Random;

use crate::graph::{Graph, Row, rows_of};

/// The splits of one source that can be found in this attempt.
pub struct SimSource {
    splits: Vec<Arc<Vec<Row>>>,
}

impl SimSource {
    /// The first `splits` splits of the source at `node`.
    pub fn new(graph: &Graph, node: usize, splits: u32) -> Self {
        SimSource {
            splits: (0..splits).map(|split| Arc::new(rows_of(graph, node, split))).collect(),
        }
    }
}

impl IntoSource<Row> for SimSource {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

impl Source for SimSource {
    fn splits(&self, _: &[(String, SplitOffset)]) -> Result<Vec<String>, BoxError> {
        Ok((0..self.splits.len()).map(|split| format!("split-{split}")).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let random = Random::new(context.env.random(), "reader");
        let mut splits = Vec::new();
        for (id, offset) in context.splits.iter().cloned() {
            let number = id.strip_prefix("split-").and_then(|number| number.parse::<usize>().ok());
            let rows = number.and_then(|number| self.splits.get(number));
            let rows = rows
                .ok_or_else(|| format!("a checkpoint knows the split `{id}`, which isn't there"))?;
            if offset.records > 0 && offset.position as usize >= rows.len() {
                return Err(format!("`{id}` is at its end, and is to be read again").into());
            }
            splits.push(Split { id, rows: rows.clone(), offset, moved: false });
        }
        Ok(Box::new(SimReader { splits, random, context, polled: String::new() }))
    }
}

struct Split {
    id: String,
    rows: Arc<Vec<Row>>,
    offset: SplitOffset,
    moved: bool,
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
            self.splits.iter_mut().filter(|split| !split.offset.ended).collect();
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
