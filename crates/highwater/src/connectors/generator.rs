//! Rows made by a function, for tests and benchmarks: as many as asked for, as fast as asked for.
//!
//! Row *i* is `make(i)`, whoever makes it and whenever: a job that is started again makes the same rows. Split *s* of *k* has the rows *s*,
//! *s + k*, *s + 2k*, ... The number of splits doesn't depend on the number of workers.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_runtime::connector::{Polled, Reader, ReaderContext, Source, SplitOffset};
use highwater_runtime::observe::ReaderProgress;
use highwater_runtime::{Batch, BoxError, Data, Epoch};

use super::IntoSource;

/// Rows made by a function from their index.
///
/// ```
/// use highwater::connectors::{Generator, IntoSource};
///
/// let squares = Generator::new(|index| index * index).limit(1_000_000).rate(50_000);
/// let source = IntoSource::<u64>::into_source(squares);
/// assert_eq!(source.splits(&[])?.len(), 8);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone)]
pub struct Generator<F> {
    make: Arc<F>,
    rate: Option<u64>,
    limit: Option<u64>,
    splits: u64,
}

impl<F> fmt::Debug for Generator<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("rate", &self.rate)
            .field("limit", &self.limit)
            .field("splits", &self.splits)
            .finish_non_exhaustive()
    }
}

impl<F> Generator<F> {
    /// Rows without end, as fast as they are taken, in 8 splits.
    pub fn new<T>(make: F) -> Self
    where
        F: Fn(u64) -> T + Send + Sync + 'static,
    {
        Generator { make: Arc::new(make), rate: None, limit: None, splits: 8 }
    }

    /// So many rows a second, over all splits, from the start of the attempt on. What a pause held back comes at once behind it.
    #[must_use]
    pub fn rate(self, rows_per_second: u64) -> Self {
        Generator { rate: Some(rows_per_second), ..self }
    }

    /// So many rows in all. With the trigger available-now, which needs a limit, a later start with a higher one goes on from there.
    #[must_use]
    pub fn limit(self, rows: u64) -> Self {
        Generator { limit: Some(rows), ..self }
    }

    /// In so many splits, of which a worker reads whole ones; one keeps the rows in order.
    ///
    /// # Panics
    ///
    /// Panics if there are none.
    #[must_use]
    pub fn splits(self, splits: u64) -> Self {
        assert!(splits > 0, "rows are made in one split at least");
        Generator { splits, ..self }
    }
}

impl<T: Data, F: Fn(u64) -> T + Send + Sync + 'static> IntoSource<T> for Generator<F> {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

/// The number of a split and how many there are, from its id.
fn parse(id: &str) -> Option<(u64, u64)> {
    let (number, of) = id.split_once("-of-")?;
    Some((number.parse().ok()?, of.parse().ok()?))
}

impl<T: Data, F: Fn(u64) -> T + Send + Sync + 'static> Source for Generator<F> {
    fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        // Dealt out differently, rows would be made twice or never.
        if !known.is_empty() {
            return Ok(Vec::new());
        }
        let split = |number| (format!("{number}-of-{}", self.splits), SplitOffset::default());
        Ok((0..self.splits).map(split).collect())
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        if context.available_now && self.limit.is_none() {
            return Err("a generator without a limit never comes to an end, and the trigger available-now waits for it; \
                        give it one with `.limit(rows)`"
                .into());
        }
        let ReaderContext { rows, env, available_now, progress, .. } = context;
        let reader = GeneratorReader::new(self, rows, env);
        Ok(Box::new(GeneratorReader { marks_ends: !available_now, progress, ..reader }))
    }
}

struct GeneratorReader<F> {
    make: Arc<F>,
    limit: u64,
    splits: Vec<Split>,
    /// So many rows are polled at once.
    rows: u64,
    env: Arc<dyn Env>,
    start: Duration,
    /// Rows a second, over all splits.
    rate: Option<u64>,
    /// This worker's share of all splits.
    share: f64,
    made: u64,
    /// The split whose rows were polled last.
    present: usize,
    /// What is at the limit has ended for good.
    marks_ends: bool,
    progress: ReaderProgress,
}

struct Split {
    id: String,
    number: u64,
    of: u64,
    offset: SplitOffset,
    at_limit: bool,
    is_held: bool,
    moved: bool,
}

impl Split {
    /// The index of its next row.
    fn next(&self) -> Option<u64> {
        self.offset.position.checked_mul(self.of)?.checked_add(self.number)
    }
}

impl<F> GeneratorReader<F> {
    fn new(generator: &Generator<F>, rows: usize, env: Arc<dyn Env>) -> Self {
        GeneratorReader {
            make: generator.make.clone(),
            limit: generator.limit.unwrap_or(u64::MAX),
            splits: Vec::new(),
            rows: rows as u64,
            start: env.monotonic(),
            env,
            rate: generator.rate,
            share: 0.0,
            made: 0,
            present: 0,
            marks_ends: true,
            progress: ReaderProgress::default(),
        }
    }

    /// How many rows may be made now.
    fn allowed(&self) -> u64 {
        let Some(rate) = self.rate else { return self.rows };
        let due = (self.env.monotonic() - self.start).as_secs_f64() * rate as f64 * self.share;
        (due as u64).saturating_sub(self.made).min(self.rows)
    }
}

impl<T: Data, F: Fn(u64) -> T + Send + Sync + 'static> Reader for GeneratorReader<F> {
    fn add(&mut self, splits: Vec<(String, SplitOffset)>, _: usize) -> Result<(), BoxError> {
        for (id, offset) in splits {
            let Some((number, of)) = parse(&id) else {
                return Err(format!(
                    "the checkpoint has a split `{id}`, which no generator made: did the source change?"
                )
                .into());
            };
            self.splits.push(Split {
                id,
                number,
                of,
                offset,
                at_limit: false,
                is_held: false,
                moved: false,
            });
        }
        self.share = self.splits.iter().map(|split| 1.0 / split.of as f64).sum();
        Ok(())
    }

    fn poll(&mut self, _: Epoch) -> Result<Polled, BoxError> {
        let limit = self.limit;
        for split in self.splits.iter_mut().filter(|split| !split.at_limit) {
            if split.next().is_none_or(|next| next >= limit) {
                split.at_limit = true;
                split.offset.ended = self.marks_ends;
                split.moved = true;
            }
        }
        let allowed = self.allowed();
        // The one that is furthest behind, so that rows come about in the order of their indexes.
        let going = self.splits.iter_mut().enumerate().filter(|(_, split)| !split.at_limit);
        let next = going.min_by_key(|(_, split)| (split.is_held, split.next()));
        let Some((number, split)) = next else {
            return Ok(Polled::Ended);
        };
        if allowed == 0 || split.is_held {
            // Polled again at every tick.
            return Ok(Polled::Waiting);
        }
        self.progress.reading(&split.id);
        let first = split.next().unwrap_or(limit);
        let left = (limit - first).div_ceil(split.of);
        let count = left.min(allowed);
        let make = self.make.as_ref();
        let step = split.of;
        let rows: Vec<T> = (0..count).map(|row| make(first + row * step)).collect();
        split.offset.position += count;
        split.offset.records += count;
        split.moved = true;
        self.made += count;
        self.present = number;
        let batch = Batch::new(rows);
        let bytes = batch.bytes();
        Ok(Polled::Rows(batch, bytes))
    }

    fn limit_rows(&mut self, rows: usize) {
        self.rows = rows as u64;
    }

    fn split(&self) -> &str {
        &self.splits[self.present].id
    }

    fn hold(&mut self, held: &BTreeSet<String>) {
        for split in &mut self.splits {
            split.is_held = held.contains(&split.id);
        }
    }

    fn rests(&self, split: &str) -> bool {
        self.splits.iter().any(|other| other.id == split && other.at_limit)
    }

    fn offsets(&mut self) -> Vec<(String, SplitOffset)> {
        let moved = self.splits.iter_mut().filter_map(|split| {
            let moved = std::mem::take(&mut split.moved);
            moved.then(|| (split.id.clone(), split.offset.clone()))
        });
        moved.collect()
    }
}

#[cfg(test)]
#[path = "generator_tests.rs"]
mod tests;
