//! A source that is told how far to go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use highwater::Control;
use highwater::connectors::IntoSource;
use highwater_runtime::connector::{Polled, Reader, ReaderContext, Source, SplitOffset};
use highwater_runtime::{Batch, BoxError, Epoch};

use super::{lock, wait_for};

/// A source of numbers, and the handle by which a test steers it and the attempt that runs it.
///
/// Split *s* of *k* holds *s*, *s + k*, *s + 2k*, ...: row *i* of split *s* is *i k + s*.
#[derive(Clone)]
pub struct Numbers {
    splits: u64,
    /// So many rows has a split; the job ends behind them.
    rows: u64,
    /// So many rows are polled at once.
    at_once: u64,
    steering: Arc<Steering>,
}

struct Steering {
    /// So many rows of a split may be read for now.
    allowed: AtomicU64,
    fail: AtomicBool,
    /// The offsets that the latest attempt began with, by split.
    began: Mutex<BTreeMap<String, SplitOffset>>,
    control: Mutex<Option<Control>>,
    attempts: AtomicUsize,
}

impl Numbers {
    pub fn new(splits: u64, rows: u64) -> Self {
        let steering = Steering {
            allowed: AtomicU64::new(u64::MAX),
            fail: AtomicBool::new(false),
            began: Mutex::default(),
            control: Mutex::default(),
            attempts: AtomicUsize::new(0),
        };
        Numbers { splits, rows, at_once: 50, steering: Arc::new(steering) }
    }

    /// Rows without end.
    pub fn endless(splits: u64) -> Self {
        Numbers::new(splits, u64::MAX)
    }

    /// Every number of the source.
    pub fn all(&self) -> Vec<u64> {
        (0..self.rows * self.splits).collect()
    }

    /// So many rows of each split may be read for now.
    pub fn allow(&self, rows: u64) {
        self.steering.allowed.store(rows, SeqCst);
    }

    /// The attempt fails at the next poll, which a test takes for a crash that nobody restarts.
    pub fn fail(&self, fail: bool) {
        self.steering.fail.store(fail, SeqCst);
    }

    /// How many attempts have asked for splits.
    pub fn attempts(&self) -> usize {
        self.steering.attempts.load(SeqCst)
    }

    /// Whether attempt number `attempt`, counted from 1, has come so far as to read.
    pub fn reads(&self, attempt: usize) -> bool {
        self.attempts() >= attempt && lock(&self.steering.control).is_some()
    }

    /// The latest attempt, once it runs.
    pub fn control(&self) -> Control {
        wait_for("the attempt runs", || lock(&self.steering.control).is_some());
        lock(&self.steering.control).clone().unwrap()
    }

    /// The control of attempt number `attempt`, counted from 1.
    pub fn control_of(&self, attempt: usize) -> Control {
        wait_for("the attempt is the one asked for", || self.attempts() >= attempt);
        self.control()
    }

    /// Where the splits of the latest attempt began.
    pub fn began(&self) -> BTreeMap<String, SplitOffset> {
        lock(&self.steering.began).clone()
    }
}

impl IntoSource<u64> for Numbers {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

impl Source for Numbers {
    fn splits(&self, _: &[(String, SplitOffset)]) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        *lock(&self.steering.control) = None;
        lock(&self.steering.began).clear();
        self.steering.attempts.fetch_add(1, SeqCst);
        let split = |number| (format!("split-{number}"), SplitOffset::default());
        Ok((0..self.splits).map(split).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let (source, control) = (self.clone(), context.control);
        let (splits, polled) = (Vec::new(), String::new());
        Ok(Box::new(NumbersReader { source, control, splits, read: None, polled }))
    }
}

struct NumbersReader {
    source: Numbers,
    control: Control,
    splits: Vec<NumbersSplit>,
    /// The epoch of the last rows: one poll an epoch, so that nothing is ever far behind.
    read: Option<Epoch>,
    /// The split whose rows were polled last.
    polled: String,
}

struct NumbersSplit {
    id: String,
    number: u64,
    offset: SplitOffset,
    moved: bool,
}

impl Reader for NumbersReader {
    fn add(&mut self, splits: Vec<(String, SplitOffset)>, _: usize) -> Result<(), BoxError> {
        lock(&self.source.steering.began).extend(splits.iter().cloned());
        *lock(&self.source.steering.control) = Some(self.control.clone());
        self.splits.extend(splits.into_iter().map(|(id, offset)| {
            let number = id.trim_start_matches("split-").parse().expect("a split of ours");
            NumbersSplit { id, number, offset, moved: false }
        }));
        Ok(())
    }

    fn poll(&mut self, epoch: Epoch) -> Result<Polled, BoxError> {
        let Numbers { splits: of, rows: end, at_once, steering } = &self.source;
        if steering.fail.load(SeqCst) {
            return Err("the test ends this attempt".into());
        }
        let allowed = steering.allowed.load(SeqCst).min(*end);
        for split in self.splits.iter_mut().filter(|split| !split.offset.ended) {
            if split.offset.position >= *end {
                split.offset.ended = true;
                split.moved = true;
            }
        }
        let going = self.splits.iter_mut().filter(|split| !split.offset.ended);
        let Some(split) = going.min_by_key(|split| split.offset.position) else {
            return Ok(Polled::Ended);
        };
        let count = allowed.saturating_sub(split.offset.position).min(*at_once);
        if count == 0 {
            return Ok(Polled::Waiting);
        }
        if self.read.replace(epoch) == Some(epoch) {
            return Ok(Polled::EpochOver);
        }
        self.polled.clone_from(&split.id);
        let first = split.offset.position;
        let rows: Vec<u64> = (first..first + count).map(|row| row * of + split.number).collect();
        split.offset.position += count;
        split.offset.records += count;
        split.moved = true;
        Ok(Polled::Rows(Batch::new(rows), count as usize * 8))
    }

    fn split(&self) -> &str {
        &self.polled
    }

    fn offsets(&mut self) -> Vec<(String, SplitOffset)> {
        let moved = self.splits.iter_mut().filter_map(|split| {
            std::mem::take(&mut split.moved).then(|| (split.id.clone(), split.offset.clone()))
        });
        moved.collect()
    }
}
