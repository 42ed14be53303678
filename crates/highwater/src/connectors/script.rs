//! What a test says as a source: records, and marks at which something happens.
//!
//! One split, `script`, whose position is the number of the next step; a mark is a step like a record.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_runtime::connector::{Polled, Reader, ReaderContext, Source, SplitOffset};
use highwater_runtime::{Batch, BoxError, Control, Data, Epoch};

use super::IntoSource;

const SPLIT: &str = "script";

/// Records and marks, in order.
///
/// ```
/// use highwater::connectors::{IntoSource, Script};
///
/// let script = Script::new()
///     .records(["morning", "noon"].map(String::from))
///     .epoch()          // what follows comes in a later epoch
///     .checkpoint()     // go on when everything so far is committed
///     .crash()          // end the attempt here, the first time
///     .record("evening".to_owned());
/// let source = script.into_source();
/// # let _ = source;
/// ```
#[derive(Clone, Debug)]
pub struct Script<T> {
    steps: Vec<Step<T>>,
}

#[derive(Clone, Debug)]
enum Step<T> {
    Record(T),
    Epoch,
    Checkpoint,
    Crash,
}

impl<T> Default for Script<T> {
    fn default() -> Self {
        Script { steps: Vec::new() }
    }
}

impl<T> Script<T> {
    /// An empty script.
    #[must_use]
    pub fn new() -> Self {
        Script::default()
    }

    fn step(mut self, step: Step<T>) -> Self {
        self.steps.push(step);
        self
    }

    /// A record.
    #[must_use]
    pub fn record(self, record: T) -> Self {
        self.step(Step::Record(record))
    }

    /// Records.
    #[must_use]
    pub fn records(mut self, records: impl IntoIterator<Item = T>) -> Self {
        self.steps.extend(records.into_iter().map(Step::Record));
        self
    }

    /// The epoch ends: records before this mark are in epochs before those of the records behind it.
    #[must_use]
    pub fn epoch(self) -> Self {
        self.step(Step::Epoch)
    }

    /// Goes on only when a checkpoint that covers everything so far is committed, and asks for one.
    #[must_use]
    pub fn checkpoint(self) -> Self {
        self.step(Step::Checkpoint)
    }

    /// The attempt ends here as by a crash, the first time that this mark is reached.
    #[must_use]
    pub fn crash(self) -> Self {
        self.step(Step::Crash)
    }
}

impl<T: Data> IntoSource<T> for Script<T> {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(ScriptSource { steps: Mutex::new(self.steps), crashed: Arc::default() })
    }
}

/// Records without marks.
impl<T: Data> IntoSource<T> for Vec<T> {
    fn into_source(self) -> Arc<dyn Source> {
        Script::new().records(self).into_source()
    }
}

struct ScriptSource<T> {
    /// Behind a mutex because records needn't be `Sync`; a reader takes a copy.
    steps: Mutex<Vec<Step<T>>>,
    /// Crash marks that were reached, in any attempt.
    crashed: Arc<Mutex<BTreeSet<usize>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Data> Source for ScriptSource<T> {
    fn splits(&self, _: &[(String, SplitOffset)]) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        Ok(vec![(SPLIT.to_owned(), SplitOffset::default())])
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let mut reader = self.read(context.rows, context.control);
        reader.marks_end = !context.available_now;
        Ok(Box::new(reader))
    }
}

impl<T: Data> ScriptSource<T> {
    fn read<M: Marks>(&self, rows: usize, marks: M) -> ScriptReader<T, M> {
        ScriptReader {
            steps: lock(&self.steps).clone(),
            crashed: self.crashed.clone(),
            offset: None,
            rows,
            moved: false,
            emitted: None,
            requested: false,
            marks_end: true,
            marks,
        }
    }
}

/// What marks ask of the attempt.
trait Marks {
    fn crash(&self);
    fn request_checkpoint(&self);
    fn committed_interval(&self) -> u32;
}

impl Marks for Control {
    fn crash(&self) {
        Control::crash(self);
    }

    fn request_checkpoint(&self) {
        Control::request_checkpoint(self);
    }

    fn committed_interval(&self) -> u32 {
        Control::committed_interval(self)
    }
}

struct ScriptReader<T, M> {
    steps: Vec<Step<T>>,
    crashed: Arc<Mutex<BTreeSet<usize>>>,
    /// None until the split is given to this worker.
    offset: Option<SplitOffset>,
    /// So many records are polled at once.
    rows: usize,
    moved: bool,
    /// The interval of the last record that this attempt emitted.
    emitted: Option<u32>,
    /// A checkpoint has been asked for, for the mark that is waited at.
    requested: bool,
    /// There is nothing behind the last step, at a later start neither.
    marks_end: bool,
    marks: M,
}

impl<T: Data, M: Marks> Reader for ScriptReader<T, M> {
    fn add(&mut self, splits: Vec<(String, SplitOffset)>, _: usize) -> Result<(), BoxError> {
        self.offset = splits.into_iter().next().map(|(_, offset)| offset).or(self.offset.take());
        Ok(())
    }

    fn poll(&mut self, epoch: Epoch) -> Result<Polled, BoxError> {
        let Some(offset) = &mut self.offset else { return Ok(Polled::Ended) };
        loop {
            let at = usize::try_from(offset.position).unwrap_or(usize::MAX);
            let Some(step) = self.steps.get(at) else {
                offset.ended = self.marks_end;
                self.moved = true;
                return Ok(Polled::Ended);
            };
            match step {
                Step::Record(_) => {
                    let record = |step: &Step<T>| match step {
                        Step::Record(record) => Some(record.clone()),
                        _ => None,
                    };
                    let rows: Vec<T> =
                        self.steps[at..].iter().take(self.rows).map_while(record).collect();
                    offset.position += rows.len() as u64;
                    offset.records += rows.len() as u64;
                    self.moved = true;
                    self.emitted = Some(epoch.interval());
                    let batch = Batch::new(rows);
                    let bytes = batch.bytes();
                    return Ok(Polled::Rows(batch, bytes));
                }
                Step::Epoch => {
                    offset.position += 1;
                    self.moved = true;
                    return Ok(Polled::EpochOver);
                }
                Step::Checkpoint => {
                    // What earlier attempts emitted is committed: this one began behind it.
                    let covered = self
                        .emitted
                        .is_none_or(|emitted| self.marks.committed_interval() >= emitted);
                    if !covered {
                        if !std::mem::replace(&mut self.requested, true) {
                            self.marks.request_checkpoint();
                        }
                        return Ok(Polled::Waiting);
                    }
                    self.requested = false;
                }
                Step::Crash => {
                    if lock(&self.crashed).insert(at) {
                        self.marks.crash();
                        return Ok(Polled::Waiting);
                    }
                }
            }
            offset.position += 1;
            self.moved = true;
        }
    }

    fn limit_rows(&mut self, rows: usize) {
        self.rows = rows;
    }

    fn split(&self) -> &str {
        SPLIT
    }

    fn offsets(&mut self) -> Vec<(String, SplitOffset)> {
        match &self.offset {
            Some(offset) if std::mem::take(&mut self.moved) => {
                vec![(SPLIT.to_owned(), offset.clone())]
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
