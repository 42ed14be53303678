//! Files as a source: a thread reads blocks of whole records, the worker turns them into rows.
//!
//! ```text
//!  splits of the worker ─▶ reading thread ──bounded channel──▶ poll: parse a few thousand records ─▶ rows
//!                          (disk, gzip)  ◀─── full: waits ───   (on the worker thread, never waits)
//! ```
//!
//! # Invariants
//!
//! - 8\. Nothing on the worker thread waits: the channel is only looked at.
//! - 5\. A split's offset is that of the first record that was not polled, and its end is part of it.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use highwater_env::Env;
use highwater_runtime::connector::{Polled, Reader, ReaderContext, Source, SplitOffset, Waker};
use highwater_runtime::observe::ReaderProgress;
use highwater_runtime::{Batch, BoxError, Data, Epoch};
use memchr::memchr_iter;

use super::blocks::{Block, Framing, read_split};
use super::discover::{self, Split};
use super::format::{Parser, ReadFormat};
use super::pace::Pace;

/// So many blocks wait for the worker.
const BLOCKS: usize = 4;

/// So many rows are polled at once.
const ROWS: usize = 4096;

/// So much of a bad record is shown.
const SHOWN: usize = 200;

/// Files, as the plan holds them.
pub(crate) struct FileSource<T, F> {
    pub(crate) pattern: String,
    pub(crate) format: F,
    pub(crate) split_bytes: Option<u64>,
    /// Records a second, over all workers.
    pub(crate) rate: Option<u64>,
    pub(crate) rows: PhantomData<fn() -> T>,
}

impl<T: Data, F: ReadFormat<T>> Source for FileSource<T, F> {
    fn splits(&self, known: &[(String, SplitOffset)]) -> Result<Vec<String>, BoxError> {
        discover::splits(&self.pattern, self.split_bytes, known)
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let ReaderContext { splits, splits_of_all, env, waker, progress, .. } = context;
        // A worker without splits leaves its share to the others.
        let share = splits.len() as f64 / splits_of_all.max(1) as f64;
        let mut reader =
            FileReader::<T, _>::new(splits, &self.format, env.as_ref(), waker, progress);
        reader.pace = self.rate.map(|rate| Pace::new(env, rate as f64 * share));
        Ok(Box::new(reader))
    }
}

/// What the reading thread says. Split numbers count the worker's splits.
enum Message {
    Block(usize, Block),
    /// Nothing more of this split.
    End(usize),
    Failed(BoxError),
    /// All splits are at their end.
    Done,
}

/// A split and how far it has been polled.
struct Progress {
    id: String,
    offset: SplitOffset,
    moved: bool,
}

pub(crate) struct FileReader<T, P> {
    splits: Vec<Progress>,
    blocks: Receiver<Message>,
    parser: P,
    present: Option<Present>,
    /// The split whose rows were polled last.
    polled: usize,
    done: bool,
    /// How many rows are polled at once; tests poll fewer.
    rows_at_once: usize,
    pace: Option<Pace>,
    rows: PhantomData<fn() -> T>,
}

/// The block that is being polled.
struct Present {
    split: usize,
    block: Block,
    /// The next record.
    at: usize,
}

impl<T: Data, P: Parser<T>> FileReader<T, P> {
    pub(crate) fn new<F: ReadFormat<T, Parser = P>>(
        splits: Vec<(String, SplitOffset)>,
        format: &F,
        env: &dyn Env,
        waker: Waker,
        progress: ReaderProgress,
    ) -> Self {
        let (sender, blocks) = sync_channel(BLOCKS);
        let framing = format.framing();
        let work = splits.clone();
        if !work.is_empty() {
            let read = move || read(&work, framing, &sender, &waker, &progress);
            env.spawn_thread("read-files", Box::new(read));
        }
        let done = splits.is_empty();
        let progress = |(id, offset)| Progress { id, offset, moved: false };
        FileReader {
            splits: splits.into_iter().map(progress).collect(),
            blocks,
            parser: format.parser(),
            present: None,
            polled: 0,
            done,
            rows_at_once: ROWS,
            pace: None,
            rows: PhantomData,
        }
    }
}

/// The reading thread. Ends when the reader is gone.
fn read(
    splits: &[(String, SplitOffset)],
    framing: Framing,
    sender: &SyncSender<Message>,
    waker: &Waker,
    progress: &ReaderProgress,
) {
    let send = |message| {
        let sent = sender.send(message).is_ok();
        waker.wake();
        sent
    };
    let left = |(id, offset): &(String, SplitOffset)| Split::parse(id).bytes_left(offset.position);
    progress.expect_bytes(splits.iter().map(left).sum());
    for (number, (id, offset)) in splits.iter().enumerate() {
        progress.reading(id);
        let (split, from) = (Split::parse(id), (offset.position, offset.records));
        let mut gone = false;
        let mut send_block = |block| {
            gone = !send(Message::Block(number, block));
            !gone
        };
        if let Err(error) = read_split(&split, from, framing, progress, &mut send_block) {
            send(Message::Failed(error));
            return;
        }
        if gone || !send(Message::End(number)) {
            return;
        }
    }
    send(Message::Done);
}

impl<T: Data, P: Parser<T>> Reader for FileReader<T, P> {
    fn poll(&mut self, _: Epoch) -> Result<Polled, BoxError> {
        loop {
            if let Some(present) = &mut self.present {
                let allowed = self.pace.as_ref().map_or(usize::MAX, Pace::allowed);
                if allowed == 0 {
                    // Polled again at every tick.
                    return Ok(Polled::Waiting);
                }
                self.polled = present.split;
                let progress = &mut self.splits[present.split];
                let limit = self.rows_at_once.min(allowed);
                let polled = parse(present, progress, &mut self.parser, limit)?;
                if present.at == present.block.data.len() {
                    self.present = None;
                }
                if let Some((rows, bytes)) = polled {
                    if let Some(pace) = &mut self.pace {
                        pace.take(rows.len());
                    }
                    return Ok(Polled::Rows(Batch::new::<Vec<T>>(rows), bytes));
                }
            }
            if self.done {
                return Ok(Polled::Ended);
            }
            match self.blocks.try_recv() {
                Ok(Message::Block(split, block)) => {
                    self.parser.begin(&block);
                    let progress = &mut self.splits[split];
                    progress.offset.position = block.position;
                    progress.moved = true;
                    self.present = Some(Present { split, block, at: 0 });
                }
                Ok(Message::End(split)) => {
                    let progress = &mut self.splits[split];
                    progress.offset.ended = true;
                    progress.moved = true;
                }
                Ok(Message::Failed(error)) => return Err(error),
                Ok(Message::Done) => self.done = true,
                Err(TryRecvError::Empty) => return Ok(Polled::Waiting),
                Err(TryRecvError::Disconnected) => {
                    return Err("the thread that reads files ended without a word: the operating system refused it, \
                                or it panicked (the log above says which)"
                        .into());
                }
            }
        }
    }

    fn split(&self) -> &str {
        &self.splits[self.polled].id
    }

    fn offsets(&mut self) -> Vec<(String, SplitOffset)> {
        let moved = self.splits.iter_mut().filter_map(|split| {
            let moved = std::mem::take(&mut split.moved);
            moved.then(|| (split.id.clone(), split.offset.clone()))
        });
        moved.collect()
    }
}

/// The next rows of the block, and about how much memory they take; none if only empty lines were left.
fn parse<T: Data, P: Parser<T>>(
    present: &mut Present,
    progress: &mut Progress,
    parser: &mut P,
    limit: usize,
) -> Result<Option<(Vec<T>, usize)>, BoxError> {
    let Present { block, at, .. } = present;
    let begin = *at;
    // A block rarely has room for as many rows as may be polled: 16 bytes is a short record.
    let mut rows = Vec::with_capacity(limit.min((block.data.len() - begin) / 16 + 1));
    while *at < block.data.len() && rows.len() < limit {
        let (length, row) = parser.next(&block.data[*at..]);
        match row {
            Ok(Some(row)) => rows.push(row),
            Ok(None) => {}
            Err(why) => {
                let record = progress.offset.records + rows.len() as u64 + 1;
                return Err(bad_record(&progress.id, block, *at, length, record, &why));
            }
        }
        *at += length;
    }
    progress.offset.position = block.position + *at as u64;
    progress.offset.records += rows.len() as u64;
    progress.moved = true;
    let bytes = rows.len() * size_of::<T>() + (*at - begin);
    Ok((!rows.is_empty()).then_some((rows, bytes)))
}

#[cold]
fn bad_record(
    split: &str,
    block: &Block,
    at: usize,
    length: usize,
    record: u64,
    why: &BoxError,
) -> BoxError {
    let path: &Path = &Split::parse(split).path;
    let path = path.display();
    let place = match block.line {
        Some(line) => {
            let line = line + memchr_iter(b'\n', &block.data[..at]).count() as u64;
            format!("{path}:{line} (record {record})")
        }
        None => format!("{path}, byte {} (split {split})", block.position + at as u64),
    };
    let text = String::from_utf8_lossy(&block.data[at..at + length]);
    let text = text.trim_end();
    let shown: String = text.chars().take(SHOWN).collect();
    let more = if shown.len() < text.len() { " ..." } else { "" };
    format!("{place}: {why}\n  in: {shown}{more}").into()
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
