//! The writing thread of a file sink on one worker: encodes rows, and writes staged files.
//!
//! Where those are until their interval is over, and how they are staged then, is for a [`Stage`] to know: [`folder`] for a folder, [`bucket`]
//! for a bucket.
//!
//! # Invariants
//!
//! - 3\. What is staged is hidden; only the publisher makes it visible.
//! - However many partitions there are, the number of open files is bounded, and so is what is in memory.
//! - An item is given only when its file and its name are durable.

mod bucket;
mod folder;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use highwater_env::Env;
use highwater_log::{Health, Retry, StagedItem};
use highwater_runtime::connector::{Waker, WriterContext};
use highwater_runtime::{BoxError, Data};
use xxhash_rust::xxh3::Xxh3Default;

use super::layout::Staged;
use super::partition;
use super::place::{self, Bucket, Folder};
use crate::connectors::records::format::{Encoder, WriteFormat};
use std::path::Path;

/// Encoders of all files together may hold so many bytes.
const PENDING_MAX: usize = 64 << 20;

/// Between tries to write, at first and at the most.
const RETRY: Retry = Retry::endless(Duration::from_millis(50), Duration::from_secs(5));

/// What the writing thread is told.
pub(super) enum Message<C> {
    /// What every file begins with.
    Header(Vec<u8>),
    Rows(Buffer<C>),
    Cut {
        interval: u32,
    },
}

/// Rows for one file.
#[derive(Default)]
pub(super) struct Buffer<C> {
    /// The folder within the sink's, empty without partitions.
    pub(super) partition: String,
    pub(super) chunk: C,
    pub(super) bytes: usize,
    pub(super) rows: u64,
}

/// The writer's end of the line to its thread.
pub(super) struct Line<C> {
    pub(super) messages: Sender<Message<C>>,
    /// The items of a cut, or why there won't be any.
    pub(super) answers: Receiver<Result<Vec<StagedItem>, BoxError>>,
    /// How many bytes the thread was sent and hasn't taken.
    pub(super) queued: Arc<AtomicUsize>,
}

/// Where the files of one worker are until they are published.
trait Stage: Send + 'static {
    /// A file that is being written.
    type File: Send;

    /// Begins a file; `number` is its own in the present interval.
    fn begin(&mut self, number: u64) -> Self::File;

    /// Appends to a file, and tries until that works.
    fn append(&mut self, file: &mut Self::File, bytes: &[u8]) -> Result<(), Stop>;

    /// Nothing is appended to a file any more.
    fn close(&mut self, file: &mut Self::File) -> Result<(), Stop>;

    /// Stages whole files by the names of their items, durably, and then answers; perhaps later.
    fn stage(&mut self, files: Vec<(StagedItem, Self::File)>, answer: Answer);
}

/// Starts the thread, which writes to the place at `path`.
pub(super) fn start<T: Data, F: WriteFormat<T>>(
    format: F,
    path: &Path,
    roll_bytes: u64,
    context: WriterContext,
) -> Result<Line<F::Chunk>, BoxError> {
    let WriterContext { worker, attempt, env, waker, health, .. } = context;
    let (messages, inbox) = channel();
    let (outbox, answers) = channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let answer = Answer { outbox, waker };
    let tries = Tries { env: env.clone(), health, queued: Arc::downgrade(&queued) };
    let thread = Inbox { attempt, worker: worker as u64, roll_bytes, inbox, answer, tries };
    let work: Box<dyn FnOnce() + Send> = match place::location(path) {
        Some(location) => {
            let stage = bucket::Stage::new(Bucket::open(location, &env)?, thread.tries.clone());
            let thread = Thread::<T, F, _>::new(format, stage, thread);
            Box::new(move || thread.run())
        }
        None => {
            let staged = Folder::new(path).staged();
            let (worker, tries) = (thread.worker, thread.tries.clone());
            let stage = folder::Stage::new(staged, attempt, worker, tries);
            let thread = Thread::<T, F, _>::new(format, stage, thread);
            Box::new(move || thread.run())
        }
    };
    env.spawn_thread("write-files", work);
    Ok(Line { messages, answers, queued })
}

/// How the writer is answered.
#[derive(Clone)]
struct Answer {
    outbox: Sender<Result<Vec<StagedItem>, BoxError>>,
    waker: Waker,
}

impl Answer {
    /// Gives the items of a cut, or says why there won't be any.
    fn give(&self, staged: Result<Vec<StagedItem>, Stop>) {
        match staged {
            Ok(items) => self.outbox.send(Ok(items)).ok(),
            Err(Stop::Failed(error)) => self.outbox.send(Err(error)).ok(),
            Err(Stop::Gone) => return,
        };
        self.waker.wake();
    }
}

/// What the thread is given, whatever it writes and wherever.
struct Inbox<C> {
    attempt: u64,
    worker: u64,
    roll_bytes: u64,
    inbox: Receiver<Message<C>>,
    answer: Answer,
    tries: Tries,
}

/// The writing thread.
struct Thread<T, F: WriteFormat<T>, S: Stage> {
    format: F,
    stage: S,
    with: Inbox<F::Chunk>,
    header: Vec<u8>,
    /// By partition: files that are being written.
    files: BTreeMap<String, OpenFile<F::Encoder, S::File>>,
    /// Whole files of the present interval, and in which partition they are.
    closed: Vec<(String, ClosedFile<S::File>)>,
    /// How many files were begun in the present interval.
    number: u64,
}

struct OpenFile<E, S> {
    encoder: E,
    file: S,
    length: u64,
    rows: u64,
    checksum: Xxh3Default,
    number: u64,
    time_ms: u64,
}

struct ClosedFile<S> {
    columns: Option<u32>,
    file: S,
    bytes: u64,
    rows: u64,
    checksum: String,
    number: u64,
    time_ms: u64,
}

/// The writer is gone: nobody waits for this thread any more.
struct Gone;

/// Why the thread stops.
enum Stop {
    Gone,
    Failed(BoxError),
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Stop::Gone
    }
}

impl<T: Data, F: WriteFormat<T>, S: Stage> Thread<T, F, S> {
    fn new(format: F, stage: S, with: Inbox<F::Chunk>) -> Self {
        let (header, files, closed) = (Vec::new(), BTreeMap::new(), Vec::new());
        Thread { format, stage, with, header, files, closed, number: 0 }
    }

    fn run(mut self) {
        while let Ok(message) = self.with.inbox.recv() {
            let done = match message {
                Message::Header(header) => {
                    self.header = header;
                    continue;
                }
                Message::Rows(buffer) => {
                    let bytes = buffer.bytes;
                    let taken = self.take(buffer);
                    self.with.tries.taken(bytes);
                    taken
                }
                Message::Cut { interval } => self.cut(interval),
            };
            if let Err(stop) = done {
                return self.with.answer.give(Err(stop));
            }
            self.with.answer.waker.wake();
        }
    }

    fn take(&mut self, buffer: Buffer<F::Chunk>) -> Result<(), Stop> {
        let Buffer { partition, chunk, rows, .. } = buffer;
        let mut open = match self.files.remove(&partition) {
            Some(open) => open,
            None => self.begin(),
        };
        let mut bytes = Vec::new();
        open.encoder.encode(chunk, &mut bytes).map_err(Stop::Failed)?;
        self.append(&mut open, &bytes)?;
        open.rows += rows;
        if open.length + open.encoder.pending() as u64 >= self.with.roll_bytes {
            self.close(partition, open)?;
        } else {
            self.files.insert(partition, open);
        }
        self.bound_pending()
    }

    /// Has the encoder write what it holds that holds most, if all of them hold too much.
    fn bound_pending(&mut self) -> Result<(), Stop> {
        let pending: usize = self.files.values().map(|file| file.encoder.pending()).sum();
        if pending < PENDING_MAX {
            return Ok(());
        }
        let largest = self.files.iter().max_by_key(|(_, file)| file.encoder.pending());
        let Some((partition, _)) = largest else { return Ok(()) };
        let partition = partition.clone();
        let Some(mut open) = self.files.remove(&partition) else { return Ok(()) };
        let mut bytes = Vec::new();
        open.encoder.flush(&mut bytes).map_err(Stop::Failed)?;
        self.append(&mut open, &bytes)?;
        self.files.insert(partition, open);
        Ok(())
    }

    /// A file that isn't there yet.
    fn begin(&mut self) -> OpenFile<F::Encoder, S::File> {
        let number = self.number;
        self.number += 1;
        let (checksum, time_ms) = (Xxh3Default::new(), self.with.tries.env.wall_clock_ms());
        let (encoder, file) = (self.format.encoder(), self.stage.begin(number));
        OpenFile { encoder, file, length: 0, rows: 0, checksum, number, time_ms }
    }

    /// Appends to a file, the header first.
    fn append(
        &mut self,
        open: &mut OpenFile<F::Encoder, S::File>,
        bytes: &[u8],
    ) -> Result<(), Stop> {
        let header: &[u8] = if open.length == 0 { &self.header } else { &[] };
        for bytes in [header, bytes] {
            if !bytes.is_empty() {
                self.stage.append(&mut open.file, bytes)?;
                open.length += bytes.len() as u64;
                open.checksum.update(bytes);
            }
        }
        Ok(())
    }

    fn close(
        &mut self,
        partition: String,
        mut open: OpenFile<F::Encoder, S::File>,
    ) -> Result<(), Stop> {
        let columns = open.encoder.columns();
        let mut end = Vec::new();
        open.encoder.finish(&mut end).map_err(Stop::Failed)?;
        self.append(&mut open, &end)?;
        self.stage.close(&mut open.file)?;
        let OpenFile { file, length, rows, checksum, number, time_ms, .. } = open;
        let checksum = format!("{:016x}", checksum.digest());
        let closed = ClosedFile { columns, file, bytes: length, rows, checksum, number, time_ms };
        self.closed.push((partition, closed));
        Ok(())
    }

    fn cut(&mut self, interval: u32) -> Result<(), Stop> {
        for (partition, open) in std::mem::take(&mut self.files) {
            self.close(partition, open)?;
        }
        self.number = 0;
        let (attempt, worker, interval) = (self.with.attempt, self.with.worker, interval.into());
        let closed = std::mem::take(&mut self.closed).into_iter().map(|(partition, closed)| {
            let ClosedFile { columns, file, bytes, rows, checksum, number, time_ms } = closed;
            let name = Staged { attempt, interval, worker, number, time_ms, columns }.name();
            let name = partition::join(&partition, &name);
            (StagedItem { name, bytes, rows, checksum, part: None }, file)
        });
        self.stage.stage(closed.collect(), self.with.answer.clone());
        Ok(())
    }
}

/// How something is tried until it works: a full disk, or a place that is away, is no reason to end an attempt.
#[derive(Clone)]
struct Tries {
    env: Arc<dyn Env>,
    health: Arc<Health>,
    /// The writer has the other end.
    queued: Weak<AtomicUsize>,
}

impl Tries {
    /// So many bytes aren't waiting any more.
    fn taken(&self, bytes: usize) {
        if let Some(queued) = self.queued.upgrade() {
            queued.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Tries `work`, which may block, until it works or what it answers is an error that `lasts`.
    fn until_done<R, E: Display>(
        &self,
        describe: impl Fn(&E) -> BoxError,
        lasts: impl Fn(&E) -> bool,
        mut work: impl FnMut() -> Result<R, E>,
    ) -> Result<R, Stop> {
        let mut request = self.health.request("stage");
        let mut delays = RETRY.delays(self.env.as_ref());
        loop {
            let error = match work() {
                Ok(done) => {
                    request.done();
                    return Ok(done);
                }
                Err(error) if lasts(&error) => return Err(Stop::Failed(describe(&error))),
                Err(error) => error,
            };
            request.failed(describe(&error).to_string());
            // The environment's clock passes while the thread sleeps.
            self.env.block_on(self.env.sleep(delays.next().unwrap_or(RETRY.longest)));
            self.still_wanted()?;
        }
    }

    /// Whether there is somebody to work for.
    fn still_wanted(&self) -> Result<(), Gone> {
        if self.queued.strong_count() == 0 { Err(Gone) } else { Ok(()) }
    }
}
