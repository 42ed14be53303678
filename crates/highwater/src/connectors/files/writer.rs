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
//! - An item is given only when its file and its name are durable.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::marker::PhantomData;
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
use super::format::{FileFormat, WriteFormat};
use super::publisher::{FilePublisher, Roll};

/// A buffer this full goes to the writing thread.
const BUFFER: usize = 256 << 10;

/// Between tries to write, at first and at the most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Files in a folder, as the plan holds them.
pub(crate) struct FileSink<T, F> {
    pub(crate) path: PathBuf,
    pub(crate) format: F,
    pub(crate) roll: Roll,
    pub(crate) rows: PhantomData<fn() -> T>,
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
            file: None,
            closed: Vec::new(),
            number: 0,
        };
        env.spawn_thread("write-files", Box::new(move || thread.run(&outbox)));
        let format = self.format.clone();
        let (buffer, rows) = (Vec::with_capacity(BUFFER + BUFFER / 8), 0);
        let header_sent = false;
        let rows_type = PhantomData::<fn() -> T>;
        Ok(Box::new(FileWriter {
            format,
            buffer,
            rows,
            header_sent,
            messages,
            answers,
            queued,
            rows_type,
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
    Rows {
        text: Vec<u8>,
        rows: u64,
    },
    Cut {
        interval: u32,
    },
}

struct FileWriter<T, F> {
    format: F,
    buffer: Vec<u8>,
    /// How many rows are in the buffer.
    rows: u64,
    header_sent: bool,
    messages: Sender<Message>,
    answers: Receiver<Result<Vec<StagedItem>, BoxError>>,
    queued: Arc<AtomicUsize>,
    rows_type: PhantomData<fn() -> T>,
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

    fn flush(&mut self) -> Result<(), BoxError> {
        if self.rows == 0 {
            return Ok(());
        }
        let empty = Vec::with_capacity(BUFFER + BUFFER / 8);
        let text = std::mem::replace(&mut self.buffer, empty);
        self.queued.fetch_add(text.len(), Ordering::Relaxed);
        let rows = std::mem::take(&mut self.rows);
        self.send(Message::Rows { text, rows })
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
        for row in &rows {
            self.format.write(row, &mut self.buffer)?;
            self.rows += 1;
            if self.buffer.len() >= BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
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
    file: Option<OpenFile>,
    /// Whole files of the present interval.
    closed: Vec<ClosedFile>,
    /// How many files were begun in the present interval.
    number: u64,
}

struct OpenFile {
    path: PathBuf,
    file: File,
    /// How much was surely written; what is behind it is cut off before it is written again.
    length: u64,
    rows: u64,
    checksum: Xxh3Default,
    number: u64,
    time_ms: u64,
}

struct ClosedFile {
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
                Message::Rows { text, rows } => {
                    let taken = self.take(&text, rows);
                    self.queued.fetch_sub(text.len(), Ordering::Relaxed);
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

    fn take(&mut self, text: &[u8], rows: u64) -> Result<(), Stop> {
        let mut open = match self.file.take() {
            Some(open) => open,
            None => self.open()?,
        };
        self.append(&mut open, text)?;
        open.rows += rows;
        if open.length >= self.roll_bytes {
            let closed = self.close(open)?;
            self.closed.push(closed);
        } else {
            self.file = Some(open);
        }
        Ok(())
    }

    fn open(&mut self) -> Result<OpenFile, Stop> {
        let number = self.number;
        self.number += 1;
        let path = self.staged.join(Staged::open_name(self.attempt, self.worker, number));
        let file = self.retried("create", &path, || {
            fs::create_dir_all(&self.staged)?;
            File::create(&path)
        })?;
        let checksum = Xxh3Default::new();
        let time_ms = self.env.wall_clock_ms();
        let mut open = OpenFile { path, file, length: 0, rows: 0, checksum, number, time_ms };
        let header = std::mem::take(&mut self.header);
        let written = self.append(&mut open, &header);
        self.header = header;
        written.map(|()| open)
    }

    fn append(&self, open: &mut OpenFile, text: &[u8]) -> Result<(), Stop> {
        let OpenFile { path, file, length, .. } = open;
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

    fn close(&self, open: OpenFile) -> Result<ClosedFile, Stop> {
        let OpenFile { path, file, length, rows, checksum, number, time_ms } = open;
        // After a failed sync nobody knows which bytes are on the disk, and a second one may succeed without them.
        file.sync_all().map_err(|error| Stop::Failed(cannot("sync", &path, &error)))?;
        let checksum = format!("{:016x}", checksum.digest());
        Ok(ClosedFile { path, bytes: length, rows, checksum, number, time_ms })
    }

    fn cut(&mut self, interval: u32) -> Result<Vec<StagedItem>, Stop> {
        if let Some(open) = self.file.take() {
            let closed = self.close(open)?;
            self.closed.push(closed);
        }
        self.number = 0;
        let mut items = Vec::new();
        for closed in std::mem::take(&mut self.closed) {
            let ClosedFile { path, bytes, rows, checksum, number, time_ms } = closed;
            let (attempt, worker, interval) = (self.attempt, self.worker, u64::from(interval));
            let name = Staged { attempt, interval, worker, number, time_ms }.name();
            let named = self.staged.join(&name);
            self.retried("name", &named, || match fs::rename(&path, &named) {
                // An earlier try may have done it without saying so, as network file systems do.
                Err(error) if error.kind() == io::ErrorKind::NotFound && named.exists() => Ok(()),
                other => other,
            })?;
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
