//! Files as a sink, on every worker: rows become text on the worker thread, a thread beside it writes the staged files.
//!
//! ```text
//!  write: rows ─▶ buffer ──full, or cut──▶ channel ─▶ writing thread ─▶ .highwater/staged/open-... ─cut: fsync─▶ a..-i..-w..
//!  staged: items ◀───────────────────────── channel ◀──────────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - 8\. Nothing on the worker thread waits. The channel has no bound of its own: the runtime holds rows back while
//!   `queued_bytes` is large.
//! - 3\. What is staged is in a hidden folder; only the publisher makes it visible.
//! - However many partitions there are, the number of open files is bounded, and so is what is in memory.
//! - An item is given only when its file and its name are durable.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use highwater_env::Env;
use highwater_log::StagedItem;
use highwater_runtime::connector::{
    Delivery, Publisher, PublisherContext, Sink, Waker, Writer, WriterContext,
};
use highwater_runtime::{Batch, BoxError, Data};
use xxhash_rust::xxh3::Xxh3Default;

use super::discover::cannot;
use super::folder::{Folder, Staged, sync_folder};
use super::partition::{self, Partition};
use super::publisher::{FilePublisher, Roll};
use crate::connectors::records::format::{FileFormat, WriteFormat};

/// A buffer this full goes to the writing thread.
const BUFFER: usize = 256 << 10;

/// The same, of all partitions together. Less than the runtime lets a writer have queued: what gathers counts as that.
const PARTITIONS_BUFFER: usize = 2 << 20;

/// So many files of partitions are open at once on a worker.
const OPEN_MAX: usize = 64;

/// Between tries to write, at first and at the most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Files in a folder, as the plan holds them.
pub(crate) struct FileSink<T, F> {
    pub(crate) path: PathBuf,
    pub(crate) format: F,
    pub(crate) roll: Roll,
    /// None: all rows go to the folder itself.
    pub(crate) partition: Option<Partition<T>>,
}

impl<T: Data, F: WriteFormat<T> + FileFormat> Sink for FileSink<T, F> {
    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn at_least_once(&self) -> Result<Arc<dyn Sink>, String> {
        Err("a file appears whole, with the checkpoint that covers its rows".to_owned())
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        if context.direct {
            return Err(
                "files are written exactly once, which needs checkpoints; switch them on".into()
            );
        }
        let WriterContext { worker, attempt, env, waker, .. } = context;
        let (messages, inbox) = channel();
        let (outbox, answers) = channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let thread = Thread {
            staged: Folder::new(&self.path).staged(),
            attempt,
            worker: worker as u64,
            roll_bytes: self.roll.bytes,
            env: env.clone(),
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
        let (format, partition) = (self.format.clone(), self.partition.clone());
        let buffer = Buffer::default();
        Ok(Box::new(FileWriter {
            format,
            partition,
            folder: String::new(),
            buffer,
            others: BTreeMap::new(),
            gathered: 0,
            header_sent: false,
            messages,
            answers,
            queued,
        }))
    }

    fn publisher(&self, context: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        Ok(Box::new(FilePublisher::new(&self.path, self.format.clone(), self.roll, context)))
    }
}

/// What the writing thread is told.
enum Message {
    /// What every file begins with.
    Header(Vec<u8>),
    Rows(Buffer),
    Cut {
        interval: u32,
    },
}

/// Text for one file.
#[derive(Default)]
struct Buffer {
    /// The folder within the sink's, empty without partitions.
    partition: String,
    text: Vec<u8>,
    rows: u64,
}

struct FileWriter<T, F> {
    format: F,
    partition: Option<Partition<T>>,
    /// The partition of the row that is being written.
    folder: String,
    /// Of the last row's partition; those of the others by their partition.
    buffer: Buffer,
    others: BTreeMap<String, Buffer>,
    /// How many bytes are in all buffers.
    gathered: usize,
    header_sent: bool,
    messages: Sender<Message>,
    answers: Receiver<Result<Vec<StagedItem>, BoxError>>,
    queued: Arc<AtomicUsize>,
}

impl<T, F> FileWriter<T, F> {
    fn send(&mut self, message: Message) -> Result<(), BoxError> {
        if self.messages.send(message).is_err() {
            // It said why, unless it never ran.
            return Err(match self.answers.try_recv() {
                Ok(Err(error)) => error,
                _ => thread_is_gone(),
            });
        }
        Ok(())
    }

    /// Takes the buffer of the row's partition in hand.
    fn turn_to(&mut self, row: &T) -> Result<(), BoxError> {
        let Some(partition) = &self.partition else { return Ok(()) };
        self.folder.clear();
        partition(row, &mut self.folder)?;
        if self.folder != self.buffer.partition {
            let next = self.others.remove(&self.folder);
            let next = next
                .unwrap_or_else(|| Buffer { partition: self.folder.clone(), ..Buffer::default() });
            let last = std::mem::replace(&mut self.buffer, next);
            if last.rows > 0 {
                self.others.insert(last.partition.clone(), last);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        self.gathered = 0;
        let next = Buffer { partition: self.buffer.partition.clone(), ..Buffer::default() };
        let last = std::mem::replace(&mut self.buffer, next);
        let others = std::mem::take(&mut self.others).into_values();
        for buffer in others.chain([last]).filter(|buffer| buffer.rows > 0) {
            self.queued.fetch_add(buffer.text.len(), Ordering::Relaxed);
            self.send(Message::Rows(buffer))?;
        }
        // The next one will be as large.
        if self.partition.is_none() {
            self.buffer.text.reserve(BUFFER + BUFFER / 8);
        }
        Ok(())
    }
}

fn thread_is_gone() -> BoxError {
    "the thread that writes files ended without a word: the operating system refused it, or it panicked (the log above says \
     which)"
        .into()
}

impl<T: Data, F: WriteFormat<T>> Writer for FileWriter<T, F> {
    fn write(&mut self, batch: Batch) -> Result<(), BoxError> {
        let rows: Vec<T> = batch.take()?;
        if let (false, Some(first)) = (self.header_sent, rows.first()) {
            self.header_sent = true;
            let header = self.format.header(first)?;
            self.send(Message::Header(header))?;
        }
        let full = if self.partition.is_none() { BUFFER } else { PARTITIONS_BUFFER };
        for row in &rows {
            self.turn_to(row)?;
            let before = self.buffer.text.len();
            self.format.write(row, &mut self.buffer.text)?;
            self.buffer.rows += 1;
            self.gathered += self.buffer.text.len() - before;
            if self.gathered >= full {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.gathered
    }

    fn cut(&mut self, interval: u32) -> Result<(), BoxError> {
        self.flush()?;
        self.send(Message::Cut { interval })
    }

    fn staged(&mut self) -> Result<Option<Vec<StagedItem>>, BoxError> {
        match self.answers.try_recv() {
            Ok(answer) => answer.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(thread_is_gone()),
        }
    }
}

/// The writing thread.
struct Thread {
    staged: PathBuf,
    attempt: u64,
    worker: u64,
    roll_bytes: u64,
    env: Arc<dyn Env>,
    inbox: Receiver<Message>,
    queued: Arc<AtomicUsize>,
    waker: Waker,
    header: Vec<u8>,
    /// By partition: files that are being written. At most [`OPEN_MAX`] of them are open.
    files: BTreeMap<String, OpenFile>,
    /// Counts what was written, to know which file was last written longest ago.
    used: u64,
    /// Whole files of the present interval.
    closed: Vec<ClosedFile>,
    /// How many files were begun in the present interval.
    number: u64,
}

struct OpenFile {
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

impl Thread {
    fn run(mut self, outbox: &Sender<Result<Vec<StagedItem>, BoxError>>) {
        while let Ok(message) = self.inbox.recv() {
            let answer = match message {
                Message::Header(header) => {
                    self.header = header;
                    continue;
                }
                Message::Rows(buffer) => {
                    let bytes = buffer.text.len();
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

    fn take(&mut self, buffer: Buffer) -> Result<(), Stop> {
        let Buffer { partition, text, rows } = buffer;
        let mut open = match self.files.remove(&partition) {
            Some(open) => open,
            None => self.begin(),
        };
        if open.file.is_none() {
            self.make_room();
            self.open(&mut open)?;
        }
        self.append(&mut open, &text)?;
        open.rows += rows;
        self.used += 1;
        open.used = self.used;
        if open.length >= self.roll_bytes {
            let closed = self.close(partition, open)?;
            self.closed.push(closed);
        } else {
            self.files.insert(partition, open);
        }
        Ok(())
    }

    /// A file that isn't there yet.
    fn begin(&mut self) -> OpenFile {
        let number = self.number;
        self.number += 1;
        let path = self.staged.join(Staged::open_name(self.attempt, self.worker, number));
        let (checksum, time_ms) = (Xxh3Default::new(), self.env.wall_clock_ms());
        OpenFile { path, file: None, used: 0, length: 0, rows: 0, checksum, number, time_ms }
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
    fn open(&self, open: &mut OpenFile) -> Result<(), Stop> {
        let (path, length) = (&open.path, open.length);
        let file = self.retried("open", path, || {
            if length > 0 {
                let mut file = OpenOptions::new().write(true).open(path)?;
                file.seek(SeekFrom::Start(length))?;
                return Ok(file);
            }
            fs::create_dir_all(&self.staged)?;
            File::create(path)
        })?;
        open.file = Some(file);
        if length == 0 { self.append(open, &self.header) } else { Ok(()) }
    }

    fn append(&self, open: &mut OpenFile, text: &[u8]) -> Result<(), Stop> {
        let OpenFile { path, file, length, .. } = open;
        let file = file.as_mut().expect("whoever appends has opened the file");
        let mut first = true;
        self.retried("write", path, || {
            if !std::mem::take(&mut first) {
                file.set_len(*length)?;
                file.seek(SeekFrom::Start(*length))?;
            }
            file.write_all(text)
        })?;
        open.length += text.len() as u64;
        open.checksum.update(text);
        Ok(())
    }

    fn close(&self, partition: String, mut open: OpenFile) -> Result<ClosedFile, Stop> {
        if open.file.is_none() {
            self.open(&mut open)?;
        }
        let OpenFile { path, file, length, rows, checksum, number, time_ms, .. } = open;
        let file = file.expect("it was opened");
        // After a failed sync nobody knows which bytes are on the disk, and a second one may succeed without them.
        file.sync_all().map_err(|error| Stop::Failed(cannot("sync", &path, &error)))?;
        let checksum = format!("{:016x}", checksum.digest());
        Ok(ClosedFile { partition, path, bytes: length, rows, checksum, number, time_ms })
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
            let ClosedFile { partition, path, bytes, rows, checksum, number, time_ms } = closed;
            let (attempt, worker, interval) = (self.attempt, self.worker, u64::from(interval));
            let name = Staged { attempt, interval, worker, number, time_ms }.name();
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
            let synced = sync_folder(&self.staged);
            synced.map_err(|error| Stop::Failed(cannot("sync", &self.staged, &error)))?;
        }
        Ok(items)
    }

    /// Tries until it works: a full disk or a file system that is away is no reason to end an attempt. What can't get
    /// better by waiting is an error.
    fn retried<T>(
        &self,
        what: &str,
        path: &Path,
        mut work: impl FnMut() -> io::Result<T>,
    ) -> Result<T, Stop> {
        let mut delay = RETRY.0;
        loop {
            let error = match work() {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
            if matches!(error.kind(), NotFound | NotADirectory | InvalidFilename) {
                return Err(Stop::Failed(cannot(what, path, &error)));
            }
            tracing::warn!(path = %path.display(), %error, "can't {what} staged output; trying again");
            self.pause(delay)?;
            delay = (delay * 2).min(RETRY.1);
        }
    }

    /// Waits, as long as there is somebody to wait for.
    fn pause(&self, delay: Duration) -> Result<(), Gone> {
        // The environment's clock passes while the thread sleeps.
        self.env.block_on(self.env.sleep(delay));
        if Arc::strong_count(&self.queued) == 1 { Err(Gone) } else { Ok(()) }
    }
}
