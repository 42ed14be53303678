//! What a source and a sink are to the runtime. Connectors implement these traits.
//!
//! Nothing on a worker thread waits for I/O: a reader and a writer are synchronous and answer at once; whatever blocks is
//! in a thread or task beside them, behind a bounded channel, which wakes the operator through its [`Waker`].
//!
//! ```text
//!  splits ─▶ Reader ─▶ operators ─▶ Writer ──cut──▶ staged items ─▶ the commit log's entry ─▶ Publisher
//! ```
//!
//! A **writer** on every worker stages output; nothing that it writes can be seen by readers of the
//! destination. A **publisher**, one a sink, makes staged items visible once an entry covers them. Every publishing
//! step can be repeated, by another process, from the entry alone.
//!
//! A sink that was asked for at least once ([`Sink::at_least_once`]) has writers that hand rows to the destination as they come. They stage no
//! items; all that a cut asks of them is to answer once the destination has accepted everything before it, so that
//! a checkpoint doesn't cover rows that could still be lost.

mod finder;
mod malformed;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use highwater_env::{BoxFuture, Env};
use highwater_log::{Health, Log, StagedItem};
use serde::{Deserialize, Serialize};

use crate::{Batch, BoxError, Epoch};

pub use finder::{Finder, FinderContext, Found};
pub use malformed::{Malformed, MalformedRecords, Reject};

/// How far a split has been read: everything a reader needs to go on behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitOffset {
    /// The source's own position: a byte in a file, an offset in a partition, an index.
    pub position: u64,
    /// How many records have been read from the split, for people: in a file, the line.
    pub records: u64,
    /// The split has been read to its end.
    pub ended: bool,
    /// The source's own: by what it sees that the split is still the one that it was. 0 if there is nothing of the kind.
    #[serde(default)]
    pub check: u64,
    /// When the split came to be, as its source counts, in milliseconds since 1970: when its file was last changed. 0 if unknown.
    #[serde(default)]
    pub time_ms: u64,
    /// The source's own: by what it sees that what was read of the split is still what it was. 0 if there is nothing of the kind.
    #[serde(default)]
    pub digest: u64,
}

/// Wakes an operator from another thread. Waking one that is gone does nothing.
#[derive(Clone)]
pub struct Waker(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Waker(Arc::new(wake))
    }

    /// Has the operator called soon.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// A source, as the plan holds it.
pub trait Source: Send + Sync {
    /// The splits there are now, with where each begins. `known` are those of earlier attempts, with how far they were read; a
    /// split among them keeps its id (a file once cut stays cut as it was), and is read on whether or not it is given here.
    ///
    /// Called once an attempt, on process 0 and before anything runs; it may block.
    ///
    /// # Errors
    ///
    /// If the splits can't be found out.
    fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError>;

    /// What goes on looking for splits while the job runs; none if there won't be more than [`Source::splits`] has found.
    ///
    /// Called once an attempt, on process 0. Not called if only what is there now is to be read.
    ///
    /// # Errors
    ///
    /// If it can't start.
    fn finder(&self, context: FinderContext) -> Result<Option<Box<dyn Finder>>, BoxError> {
        let _ = context;
        Ok(None)
    }

    /// Makes the reader of one worker.
    ///
    /// # Errors
    ///
    /// If it can't start.
    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError>;
}

/// What a reader is told when it is made.
#[derive(Debug)]
pub struct ReaderContext {
    /// The source's uid.
    pub uid: String,
    /// This worker.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Only what is there now is to be read: the reader answers [`Polled::Ended`] behind it. A split that may have more at a later
    /// start isn't marked as ended.
    pub available_now: bool,
    /// So many rows are wanted at once, at the most; a reader that reads in blocks of its own needn't heed it.
    pub rows: usize,
    /// Time, threads and tasks.
    pub env: Arc<dyn Env>,
    /// To be woken when there is something to read again.
    pub waker: Waker,
    /// What a test's script may ask of the attempt.
    pub control: crate::attempt::Control,
    /// To say how far it is, for people.
    pub progress: crate::observe::ReaderProgress,
    /// What is to become of records that can't be read.
    pub malformed: MalformedRecords,
}

/// What a reader has.
#[derive(Debug)]
pub enum Polled {
    /// Rows, and about how many bytes of memory they take.
    Rows(Batch, usize),
    /// Rows, perhaps none, what [`MalformedRecords`] has rejected before and among them, and about how many bytes the
    /// rows take.
    WithRejects(Batch, Vec<Reject>, usize),
    /// Nothing now; the waker will be called.
    Waiting,
    /// Nothing until the next epoch.
    EpochOver,
    /// All splits are at their end; the reader isn't polled again unless there are more.
    Ended,
}

impl Polled {
    /// Rows, which take about so many bytes, and what was rejected before and among them.
    pub fn rows(rows: Batch, rejects: Vec<Reject>, bytes: usize) -> Self {
        match rejects.is_empty() {
            true => Polled::Rows(rows, bytes),
            false => Polled::WithRejects(rows, rejects, bytes),
        }
    }
}

/// Reads the splits of one worker.
pub trait Reader {
    /// Takes splits to read, each with where to begin: at the start, and whenever there are more. `of_all` is how many all workers are
    /// given at once. None of them is at its end, and none comes twice.
    ///
    /// # Errors
    ///
    /// Ends the attempt.
    fn add(&mut self, splits: Vec<(String, SplitOffset)>, of_all: usize) -> Result<(), BoxError>;

    /// The next rows, at once: a batch of some thousand at the most.
    ///
    /// # Errors
    ///
    /// Ends the attempt: says where the bad record is.
    fn poll(&mut self, epoch: Epoch) -> Result<Polled, BoxError>;

    /// So many rows are wanted at once from now on, at the most. Asked for only while a record is looked for that makes the job fail; a reader that
    /// can't hold to it leaves it unknown which record of a batch that is.
    fn limit_rows(&mut self, rows: usize) {
        let _ = rows;
    }

    /// The split that the rows polled last come from, all of them. Event time goes by splits.
    fn split(&self) -> &str;

    /// These of its splits aren't to be read from now on, as they are far ahead of others in event time; all others are.
    ///
    /// A reader that reads its splits one after the other, or has only one, needn't do anything: it isn't polled while the split that it
    /// is at is held. One that reads several at once passes these over, and answers [`Polled::Waiting`] if there is nothing else; it is polled
    /// again when that has changed. A split of which nothing was read in this attempt is never among them.
    fn hold(&mut self, held: &BTreeSet<String>) {
        let _ = held;
    }

    /// Whether nothing more comes from a split in this attempt though it isn't marked as ended, so that the others aren't held for its sake. Needs an answer from
    /// readers that read several splits at once and have splits that may go on at a later start ([`ReaderContext::available_now`]).
    fn rests(&self, split: &str) -> bool {
        let _ = split;
        false
    }

    /// Splits that have moved since the last call; all that was polled counts as read.
    fn offsets(&mut self) -> Vec<(String, SplitOffset)>;
}

/// What a sink promises to whoever reads its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Every row once, whatever happens.
    ExactlyOnce,
    /// Every row, perhaps more than once after a failure.
    AtLeastOnce,
}

/// A sink, as the plan holds it.
pub trait Sink: Send + Sync {
    /// What it promises.
    fn delivery(&self) -> Delivery;

    /// Whether its settings go together; asked when the job's graph is checked.
    ///
    /// # Errors
    ///
    /// What doesn't, and what to do, for people.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// The same sink, but its writers deliver rows as they come, at least once.
    ///
    /// # Errors
    ///
    /// Why it can't, for people.
    fn at_least_once(&self) -> Result<Arc<dyn Sink>, String> {
        Err("what it writes is seen only with the checkpoint that covers it".to_owned())
    }

    /// Makes the writer of one worker.
    ///
    /// # Errors
    ///
    /// If it can't start.
    fn writer(&self, context: WriterContext) -> Result<Box<dyn Writer>, BoxError>;

    /// Makes the one publisher; called on process 0 only.
    ///
    /// # Errors
    ///
    /// If it can't start.
    fn publisher(&self, context: PublisherContext) -> Result<Box<dyn Publisher>, BoxError>;
}

/// What a writer is told when it is made.
#[derive(Clone, Debug)]
pub struct WriterContext {
    /// The sink's uid.
    pub uid: String,
    /// This worker.
    pub worker: usize,
    /// The number of the attempt.
    pub attempt: u64,
    /// Checkpoints are off: there will be no publisher, and one cut, at the end of the job. Rows are to be delivered as they come.
    pub direct: bool,
    /// Time, threads and tasks.
    pub env: Arc<dyn Env>,
    /// To be woken when rows were taken or a cut is staged.
    pub waker: Waker,
    /// For sinks that stage rows beside the checkpoints.
    pub log: Arc<Log>,
    /// How the destination is, as far as the writer has to do with it: what is repeated there is to be a request of this.
    pub health: Arc<Health>,
}

/// Stages the output of one worker.
pub trait Writer {
    /// Takes rows.
    ///
    /// # Errors
    ///
    /// Ends the attempt.
    fn write(&mut self, batch: Batch) -> Result<(), BoxError>;

    /// How many bytes were taken from the dataflow but not yet by whatever stores them. While it is more than a few
    /// megabytes the runtime holds further rows back.
    fn queued_bytes(&self) -> usize;

    /// `interval` is over: everything since the last cut belongs to it. Answers later, through [`Writer::staged`].
    ///
    /// # Errors
    ///
    /// Ends the attempt.
    fn cut(&mut self, interval: u32) -> Result<(), BoxError>;

    /// The items of the last cut, once they are durable; none of them for rows that were delivered as they came, once the
    /// destination has accepted those.
    ///
    /// # Errors
    ///
    /// Ends the attempt. A destination that is away for a while is no error: the answer comes when it is back.
    fn staged(&mut self) -> Result<Option<Vec<StagedItem>>, BoxError>;
}

/// What a publisher is told when it is made.
#[derive(Clone, Debug)]
pub struct PublisherContext {
    /// The sink's uid.
    pub uid: String,
    /// The job's name.
    pub job: String,
    /// The identity of the job's log, for claiming a destination.
    pub job_id: String,
    /// The number of the attempt.
    pub attempt: u64,
    /// Nothing was ever committed (or it starts over): what a destination holds of this job is to be taken back.
    pub starts_over: bool,
    /// The last interval that the checkpoint covers from which the attempt goes on.
    pub covered: Option<u32>,
    /// An earlier attempt of this run has claimed the destination already: if it isn't there, it is [`Away`].
    pub begun: bool,
    /// Time, threads and tasks.
    pub env: Arc<dyn Env>,
    /// For sinks that stage rows beside the checkpoints.
    pub log: Arc<Log>,
}

/// An error that says that something which was there isn't, and should come back: a folder that was renamed, a volume that isn't mounted. If
/// it keeps an attempt from starting, the next one is started as if nothing were wrong with the job.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

/// An error of a publisher that no further try mends: somebody has to do something first. It ends the attempt; nothing is lost.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Lasting(pub String);

/// Makes staged output visible. All methods may be called again after a failure, with the same arguments.
pub trait Publisher: Send + Sync {
    /// Claims the destination: refuses one that belongs to something else, fences earlier attempts.
    /// Called once, before anything runs.
    fn prepare(&self) -> BoxFuture<Result<(), BoxError>> {
        Box::pin(async { Ok(()) })
    }

    /// Decides which of the staged items become visible with the checkpoint that is about to be committed, by giving each a
    /// `part`; what stays without is asked about again at the next one. `items` are oldest first, those of earlier
    /// checkpoints included; `last`: everything has been read, and nothing is to be left back.
    ///
    /// The decision becomes part of the entry, so that publishing is the same whenever it is repeated.
    fn plan(&self, items: &mut [StagedItem], clock_ms: u64, last: bool) {
        let _ = (clock_ms, last);
        for item in items {
            item.part.get_or_insert_with(|| item.name.clone());
        }
    }

    /// Makes the items of one committed checkpoint visible; those of a part are in order and complete.
    /// An error means: try again later, unless it is a [`Lasting`] one, or damage that the log has found.
    fn publish(&self, checkpoint: u64, items: Vec<StagedItem>) -> BoxFuture<Result<(), BoxError>>;
}

/// Runs `work`, which may block, on a thread of its own.
pub fn on_thread<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(
    env: &dyn Env,
    name: &str,
    work: W,
) -> impl Future<Output = Result<T, BoxError>> + Send + use<T, W> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    env.spawn_thread(
        name,
        Box::new(move || {
            sender.send(work()).ok();
        }),
    );
    let name = name.to_owned();
    async move {
        receiver.await.map_err(|_| format!("the thread `{name}` ended without an answer").into())
    }
}
