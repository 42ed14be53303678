//! The writing thread of a file sink on one worker: encodes rows, and writes staged files.
//!
//! # Invariants
//!
//! - 3\. What is staged is in a hidden folder; only the publisher makes it visible.
//! - However many partitions there are, the number of open files is bounded, and so is what is in memory.
//! - An item is given only when its file and its name are durable.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use highwater_env::Env;
use highwater_log::{Health, Retry, StagedItem};
use highwater_runtime::connector::{Waker, WriterContext};
use highwater_runtime::{BoxError, Data};
use xxhash_rust::xxh3::Xxh3Default;

use super::discover::cannot;
use super::folder::{Staged, sync_folder};
use super::partition;
use crate::connectors::records::format::{Encoder, WriteFormat};

/// So many files of partitions are open at once on a worker.
const OPEN_MAX: usize = 64;

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

/// Starts the thread, which writes to the folder `staged`.
pub(super) fn start<T: Data, F: WriteFormat<T>>(
    format: F,
    staged: PathBuf,
    roll_bytes: u64,
    context: WriterContext,
) -> Line<F::Chunk> {
    let WriterContext { worker, attempt, env, waker, health, .. } = context;
    let (messages, inbox) = channel();
    let (outbox, answers) = channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let thread = Thread::<T, F> {
        format,
        staged,
        attempt,
        worker: worker as u64,
        roll_bytes,
        env: env.clone(),
        health,
        inbox,
        queued: queued.clone(),
        waker,
        header: Vec::new(),
        files: BTreeMap::new(),
        used: 0,
        closed: Vec::new(),
        number: 0,
    };
    env.spawn_thread("write-files", Box::new(move || thread.run(&outbox)));
    Line { messages, answers, queued }
}

/// The writing thread.
struct Thread<T, F: WriteFormat<T>> {
    format: F,
    staged: PathBuf,
    attempt: u64,
    worker: u64,
    roll_bytes: u64,
    env: Arc<dyn Env>,
    health: Arc<Health>,
    inbox: Receiver<Message<F::Chunk>>,
    queued: Arc<AtomicUsize>,
    waker: Waker,
    header: Vec<u8>,
    /// By partition: files that are being written. At most [`OPEN_MAX`] of them are open.
    files: BTreeMap<String, OpenFile<F::Encoder>>,
    /// Counts what was written, to know which file was last written longest ago.
    used: u64,
    /// Whole files of the present interval.
    closed: Vec<ClosedFile>,
    /// How many files were begun in the present interval.
    number: u64,
}

struct OpenFile<E> {
    encoder: E,
    path: PathBuf,
    /// None: closed for now, since too many others were open.
    file: Option<File>,
    used: u64,
    /// How much was surely written; what is behind it is cut off before it is written again.
    length: u64,
    rows: u64,
    checksum: Xxh3Default,
    number: u64,
    time_ms: u64,
}

struct ClosedFile {
    columns: Option<u32>,
    partition: String,
    path: PathBuf,
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

impl<T, F: WriteFormat<T>> Thread<T, F> {
    fn run(mut self, outbox: &Sender<Result<Vec<StagedItem>, BoxError>>) {
        while let Ok(message) = self.inbox.recv() {
            let answer = match message {
                Message::Header(header) => {
                    self.header = header;
                    continue;
                }
                Message::Rows(buffer) => {
                    let bytes = buffer.bytes;
                    let taken = self.take(buffer);
                    self.queued.fetch_sub(bytes, Ordering::Relaxed);
                    taken.map(|()| None)
                }
                Message::Cut { interval } => self.cut(interval).map(Some),
            };
            let goes_on = match answer {
                Ok(None) => true,
                Ok(Some(items)) => outbox.send(Ok(items)).is_ok(),
                Err(Stop::Gone) => false,
                Err(Stop::Failed(error)) => {
                    outbox.send(Err(error)).ok();
                    false
                }
            };
            self.waker.wake();
            if !goes_on {
                return;
            }
        }
    }

    fn take(&mut self, buffer: Buffer<F::Chunk>) -> Result<(), Stop> {
        let Buffer { partition, chunk, rows, .. } = buffer;
        let mut open = match self.files.remove(&partition) {
            Some(open) => open,
            None => self.begin(),
        };
        if open.file.is_none() {
            self.make_room();
            self.open(&mut open)?;
        }
        let mut bytes = Vec::new();
        open.encoder.encode(chunk, &mut bytes).map_err(Stop::Failed)?;
        self.append(&mut open, &bytes)?;
        open.rows += rows;
        self.used += 1;
        open.used = self.used;
        if open.length + open.encoder.pending() as u64 >= self.roll_bytes {
            let closed = self.close(partition, open)?;
            self.closed.push(closed);
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
        if open.file.is_none() {
            self.make_room();
            self.open(&mut open)?;
        }
        self.append(&mut open, &bytes)?;
        self.files.insert(partition, open);
        Ok(())
    }

    /// A file that isn't there yet.
    fn begin(&mut self) -> OpenFile<F::Encoder> {
        let number = self.number;
        self.number += 1;
        let path = self.staged.join(Staged::open_name(self.attempt, self.worker, number));
        let (checksum, time_ms) = (Xxh3Default::new(), self.env.wall_clock_ms());
        let encoder = self.format.encoder();
        OpenFile {
            encoder,
            path,
            file: None,
            used: 0,
            length: 0,
            rows: 0,
            checksum,
            number,
            time_ms,
        }
    }

    /// Closes the file that was last written longest ago, if as many are open as may be. What was written to it is synced with the
    /// rest of it at the cut: a sync takes in what was written through other handles.
    fn make_room(&mut self) {
        let open = || self.files.values().filter(|file| file.file.is_some());
        if open().count() < OPEN_MAX {
            return;
        }
        let oldest = self.files.values_mut().filter(|file| file.file.is_some());
        if let Some(oldest) = oldest.min_by_key(|file| file.used) {
            oldest.file = None;
        }
    }

    /// Opens a file, at its begin or to go on.
    fn open(&self, open: &mut OpenFile<F::Encoder>) -> Result<(), Stop> {
        let (path, length) = (&open.path, open.length);
        let file = self.retried("open", path, || {
            if length > 0 {
                let mut file = OpenOptions::new().write(true).open(path)?;
                file.seek(SeekFrom::Start(length))?;
                return Ok(file);
            }
            File::create(path)
        })?;
        open.file = Some(file);
        if length == 0 { self.append(open, &self.header) } else { Ok(()) }
    }

    fn append(&self, open: &mut OpenFile<F::Encoder>, bytes: &[u8]) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        let OpenFile { path, file, length, .. } = open;
        let file = file.as_mut().expect("whoever appends has opened the file");
        let mut first = true;
        self.retried("write", path, || {
            if !std::mem::take(&mut first) {
                file.set_len(*length)?;
                file.seek(SeekFrom::Start(*length))?;
            }
            file.write_all(bytes)
        })?;
        open.length += bytes.len() as u64;
        open.checksum.update(bytes);
        Ok(())
    }

    fn close(&self, partition: String, mut open: OpenFile<F::Encoder>) -> Result<ClosedFile, Stop> {
        if open.file.is_none() {
            self.open(&mut open)?;
        }
        let columns = open.encoder.columns();
        let mut end = Vec::new();
        open.encoder.finish(&mut end).map_err(Stop::Failed)?;
        self.append(&mut open, &end)?;
        let OpenFile { path, file, length, rows, checksum, number, time_ms, .. } = open;
        let file = file.expect("it was opened");
        // After a failed sync nobody knows which bytes are on the disk, and a second one may succeed without them.
        file.sync_all().map_err(|error| Stop::Failed(cannot("sync", &path, &error)))?;
        let checksum = format!("{:016x}", checksum.digest());
        Ok(ClosedFile { columns, partition, path, bytes: length, rows, checksum, number, time_ms })
    }

    fn cut(&mut self, interval: u32) -> Result<Vec<StagedItem>, Stop> {
        // Those that are open first, so that no more of them become open.
        let files = std::mem::take(&mut self.files).into_iter();
        let (open, others): (Vec<_>, Vec<_>) = files.partition(|(_, file)| file.file.is_some());
        for (partition, open) in open.into_iter().chain(others) {
            let closed = self.close(partition, open)?;
            self.closed.push(closed);
        }
        self.number = 0;
        let mut items = Vec::new();
        for closed in std::mem::take(&mut self.closed) {
            let ClosedFile { columns, partition, path, bytes, rows, checksum, number, time_ms } =
                closed;
            let (attempt, worker, interval) = (self.attempt, self.worker, u64::from(interval));
            let name = Staged { attempt, interval, worker, number, time_ms, columns }.name();
            let named = self.staged.join(&name);
            self.retried("name", &named, || match fs::rename(&path, &named) {
                // An earlier try may have done it without saying so, as network file systems do.
                Err(error) if error.kind() == io::ErrorKind::NotFound && named.exists() => Ok(()),
                other => other,
            })?;
            let name = partition::join(&partition, &name);
            items.push(StagedItem { name, bytes, rows, checksum, part: None });
        }
        if !items.is_empty() {
            self.retried("sync", &self.staged, || sync_folder(&self.staged))?;
        }
        Ok(items)
    }

    /// Tries until it works: a full disk, or a folder that is away, is no reason to end an attempt. What can't get better by waiting is an
    /// error: that a file is gone while its folder is there.
    fn retried<R>(
        &self,
        what: &str,
        path: &Path,
        mut work: impl FnMut() -> io::Result<R>,
    ) -> Result<R, Stop> {
        let mut request = self.health.request("stage");
        let mut delays = RETRY.delays(self.env.as_ref());
        loop {
            let error = match work() {
                Ok(done) => {
                    request.done();
                    return Ok(done);
                }
                Err(error) => error,
            };
            use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
            let lasts = match error.kind() {
                NotFound | NotADirectory => self.staged.is_dir(),
                kind => kind == InvalidFilename,
            };
            if lasts {
                return Err(Stop::Failed(cannot(what, path, &error)));
            }
            request.failed(cannot(what, path, &error).to_string());
            self.pause(delays.next().unwrap_or(RETRY.longest))?;
        }
    }

    /// Waits, as long as there is somebody to wait for.
    fn pause(&self, delay: Duration) -> Result<(), Gone> {
        // The environment's clock passes while the thread sleeps.
        self.env.block_on(self.env.sleep(delay));
        if Arc::strong_count(&self.queued) == 1 { Err(Gone) } else { Ok(()) }
    }
}
