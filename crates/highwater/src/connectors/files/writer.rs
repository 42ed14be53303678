//! Files as a sink, on every worker: rows become text (or stay what they are, where a file is more than its rows one after the other) on the
//! worker thread, a [thread](super::staging) beside it encodes them and writes the staged files.
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
//! - What gathers in memory is bounded, however many partitions there are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use highwater_log::StagedItem;
use highwater_runtime::connector::{
    Delivery, Publisher, PublisherContext, Sink, Writer, WriterContext,
};
use highwater_runtime::{Batch, BoxError, Data};

use super::partition::Partition;
use super::place;
use super::publisher::{FilePublisher, Roll};
use super::staging::{self, Buffer, Line, Message};
use crate::connectors::records::format::WriteFormat;

/// A buffer this full goes to the writing thread.
const BUFFER: usize = 256 << 10;

/// The same, of all partitions together. Less than the runtime lets a writer have queued: what gathers counts as that.
const PARTITIONS_BUFFER: usize = 2 << 20;

/// Files in a folder, as the plan holds them.
pub(crate) struct FileSink<T, F> {
    pub(crate) path: PathBuf,
    pub(crate) format: F,
    pub(crate) roll: Roll,
    /// None: all rows go to the folder itself.
    pub(crate) partition: Option<Partition<T>>,
}

impl<T: Data, F: WriteFormat<T>> Sink for FileSink<T, F> {
    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn check(&self) -> Result<(), String> {
        self.format.check()?;
        place::check(&self.path, self.roll.bytes)
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
        let line = staging::start(self.format.clone(), &self.path, self.roll.bytes, context)?;
        let Line { messages, answers, queued } = line;
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
        let format = self.format.clone();
        Ok(Box::new(FilePublisher::new(&self.path, format, self.roll, context)?))
    }
}

struct FileWriter<T, F: WriteFormat<T>> {
    format: F,
    partition: Option<Partition<T>>,
    /// The partition of the row that is being written.
    folder: String,
    /// Of the last row's partition; those of the others by their partition.
    buffer: Buffer<F::Chunk>,
    others: BTreeMap<String, Buffer<F::Chunk>>,
    /// How many bytes are in all buffers.
    gathered: usize,
    header_sent: bool,
    messages: Sender<Message<F::Chunk>>,
    answers: Receiver<Result<Vec<StagedItem>, BoxError>>,
    queued: Arc<AtomicUsize>,
}

impl<T, F: WriteFormat<T>> FileWriter<T, F> {
    fn send(&mut self, message: Message<F::Chunk>) -> Result<(), BoxError> {
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
            self.queued.fetch_add(buffer.bytes, Ordering::Relaxed);
            self.send(Message::Rows(buffer))?;
        }
        // The next one will be as large.
        if self.partition.is_none() {
            self.format.reserve(&mut self.buffer.chunk, BUFFER + BUFFER / 8);
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
            let bytes = self.format.write(row, &mut self.buffer.chunk)?;
            self.buffer.rows += 1;
            self.buffer.bytes += bytes;
            self.gathered += bytes;
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
