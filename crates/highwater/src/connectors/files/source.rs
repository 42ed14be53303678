//! Files as a source: a thread reads blocks of whole records, the worker turns them into rows.
//!
//! ```text
//!  splits of the worker ─▶ reading thread ──bounded channel──▶ poll: parse a few thousand records ─▶ rows, rejects
//!                          (disk, gzip)  ◀─── full: waits ───   (on the worker thread, never waits)
//! ```
//!
//! # Invariants
//!
//! - 8\. Nothing on the worker thread waits: the channel is only looked at.
//! - 5\. A split's offset is that of the first record that was not polled, and its end is part of it.

use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};

use highwater_env::Env;
use highwater_runtime::connector::{
    Finder, FinderContext, MalformedRecords, Polled, Reader, ReaderContext, Reject, Source,
    SplitOffset, Waker,
};
use highwater_runtime::observe::ReaderProgress;
use highwater_runtime::{Batch, BoxError, Data, Epoch};
use memchr::memchr_iter;

use super::blocks::{Block, Reading, read_split};
use super::discover::{Place, Split};
use super::format::{Parser, ReadFormat};
use super::pace::Pace;
use super::watch::FileFinder;

/// So many blocks wait for the worker.
const BLOCKS: usize = 4;

/// So many rows are polled at once, unless fewer are wanted.
const ROWS: usize = 4096;

/// Files, as the plan holds them.
pub(crate) struct FileSource<T, F> {
    pub(crate) place: Place,
    pub(crate) format: F,
    /// About how many bytes a record may have.
    pub(crate) longest_record: usize,
    /// Records a second, over all workers.
    pub(crate) rate: Option<u64>,
    pub(crate) rows: PhantomData<fn() -> T>,
}

impl<T: Data, F: ReadFormat<T>> Source for FileSource<T, F> {
    fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        self.place.splits(known)
    }

    fn finder(&self, context: FinderContext) -> Result<Option<Box<dyn Finder>>, BoxError> {
        let Some(watch) = self.place.watch else { return Ok(None) };
        Ok(Some(Box::new(FileFinder::start(self.place.clone(), watch, context))))
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let ReaderContext { env, waker, progress, malformed, rows, .. } = context;
        let Place { encoding, .. } = self.place;
        let framing = self.format.framing();
        let reading = Reading { framing, encoding, longest_record: self.longest_record };
        let parser = self.format.parser();
        let reader = FileReader::<T, _>::new(parser, reading, &*env, waker, progress);
        let pace = self.rate.map(|rate| Pace::new(env, rate));
        Ok(Box::new(FileReader { malformed, rows_at_once: ROWS.min(rows), pace, ..reader }))
    }
}

/// Splits for the reading thread, each with its number among the worker's.
type Work = Vec<(usize, String, SplitOffset)>;

/// What the reading thread says.
enum Message {
    Block(usize, Block),
    /// Nothing more of this split.
    End(usize),
    Failed(BoxError),
}

/// A split and how far it has been polled.
struct Progress {
    id: String,
    offset: SplitOffset,
    moved: bool,
}

pub(crate) struct FileReader<T, P> {
    splits: Vec<Progress>,
    /// How many of them aren't at their end.
    left: usize,
    /// To the reading thread, which ends when this is gone.
    work: Sender<Work>,
    blocks: Receiver<Message>,
    parser: P,
    malformed: MalformedRecords,
    present: Option<Present>,
    /// The split whose rows were polled last.
    polled: usize,
    /// How many rows are polled at once.
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
    /// So many line ends were counted, in so many bytes.
    counted: (u64, usize),
}

impl<T: Data, P: Parser<T>> FileReader<T, P> {
    pub(crate) fn new(
        parser: P,
        reading: Reading,
        env: &dyn Env,
        waker: Waker,
        progress: ReaderProgress,
    ) -> Self {
        let (work, to_read) = channel();
        let (sender, blocks) = sync_channel(BLOCKS);
        let read = move || read(&to_read, reading, &sender, &waker, &progress);
        env.spawn_thread("read-files", Box::new(read));
        FileReader {
            splits: Vec::new(),
            left: 0,
            work,
            blocks,
            parser,
            malformed: MalformedRecords::default(),
            present: None,
            polled: 0,
            rows_at_once: ROWS,
            pace: None,
            rows: PhantomData,
        }
    }
}

/// The reading thread. Ends when the reader is gone.
fn read(
    work: &Receiver<Work>,
    reading: Reading,
    sender: &SyncSender<Message>,
    waker: &Waker,
    progress: &ReaderProgress,
) {
    let send = |message| {
        let sent = sender.send(message).is_ok();
        waker.wake();
        sent
    };
    while let Ok(splits) = work.recv() {
        let left =
            splits.iter().map(|(_, id, offset)| Split::parse(id).bytes_left(offset.position));
        progress.expect_bytes(left.sum());
        for (number, id, offset) in splits {
            progress.reading(&id);
            let mut gone = false;
            let mut send_block = |block| {
                gone = !send(Message::Block(number, block));
                !gone
            };
            let split = Split::parse(&id);
            let read = read_split(&split, &offset, reading, progress, &mut send_block);
            if let Err(error) = read {
                send(Message::Failed(error));
                return;
            }
            if gone || !send(Message::End(number)) {
                return;
            }
        }
    }
}

impl<T: Data, P: Parser<T>> FileReader<T, P> {
    /// What the reading thread says next; none if it has nothing to say yet.
    fn receive(&mut self) -> Result<Option<()>, BoxError> {
        match self.blocks.try_recv() {
            Ok(Message::Block(split, block)) => {
                self.parser.begin(&block);
                let progress = &mut self.splits[split];
                progress.offset.position = block.position;
                progress.moved = true;
                self.present = Some(Present { split, block, at: 0, counted: (0, 0) });
            }
            Ok(Message::End(split)) => {
                let progress = &mut self.splits[split];
                progress.offset.ended = true;
                progress.moved = true;
                self.left -= 1;
            }
            Ok(Message::Failed(error)) => return Err(error),
            Err(TryRecvError::Empty) => return Ok(None),
            Err(TryRecvError::Disconnected) => return Err(no_thread()),
        }
        Ok(Some(()))
    }
}

fn no_thread() -> BoxError {
    "the thread that reads files ended without a word: the operating system refused it, or it panicked (the log above says \
     which)"
        .into()
}

impl<T: Data, P: Parser<T>> Reader for FileReader<T, P> {
    fn add(&mut self, splits: Vec<(String, SplitOffset)>, of_all: usize) -> Result<(), BoxError> {
        if let Some(pace) = &mut self.pace {
            pace.share(splits.len(), of_all);
        }
        let numbers = self.splits.len()..;
        let work = numbers.zip(&splits).map(|(number, (id, at))| (number, id.clone(), at.clone()));
        self.work.send(work.collect()).map_err(|_| no_thread())?;
        self.left += splits.len();
        let progress = |(id, offset)| Progress { id, offset, moved: false };
        self.splits.extend(splits.into_iter().map(progress));
        Ok(())
    }

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
                let records = progress.offset.records;
                let (rows, bytes) =
                    parse(present, progress, &mut self.parser, &mut self.malformed, limit)?;
                if let Some(pace) = &mut self.pace {
                    pace.take(progress.offset.records - records);
                }
                if present.at == present.block.data.len() {
                    self.present = None;
                }
                let rejects = self.malformed.take();
                if !rows.is_empty() || !rejects.is_empty() {
                    return Ok(Polled::rows(Batch::new::<Vec<T>>(rows), rejects, bytes));
                }
            }
            if self.left == 0 {
                return Ok(Polled::Ended);
            }
            if self.present.is_none() && self.receive()?.is_none() {
                return Ok(Polled::Waiting);
            }
        }
    }

    fn limit_rows(&mut self, rows: usize) {
        self.rows_at_once = rows.min(ROWS);
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

/// The next rows of the block, at most `limit` records, and about how much memory they take.
fn parse<T: Data, P: Parser<T>>(
    present: &mut Present,
    progress: &mut Progress,
    parser: &mut P,
    malformed: &mut MalformedRecords,
    limit: usize,
) -> Result<(Vec<T>, usize), BoxError> {
    let Progress { id, offset, moved } = progress;
    *moved = true;
    if let Some(length) = present.block.too_long {
        let begin = present.block.data.len();
        let reject = present.reject(id, 0, begin, offset.records + 1);
        let error =
            format!("longer than a record may be: {length} bytes (`longest_record` says how many)");
        malformed.reject(Reject { error, ..reject })?;
        present.at = begin;
        offset.records += 1;
        offset.position = present.block.position + length;
        return Ok((Vec::new(), 0));
    }
    let begin = present.at;
    let left = present.block.data.len() - begin;
    // A block rarely has room for as many rows as may be polled: 16 bytes is a short record.
    let mut rows = Vec::with_capacity(limit.min(left / 16 + 1));
    let last = offset.records.saturating_add(limit as u64);
    while present.at < present.block.data.len() && offset.records < last {
        let at = present.at;
        let (length, row) = parser.next(&present.block.data[at..]);
        present.at += length;
        match row {
            Ok(None) => continue,
            Ok(Some(row)) => rows.push(row),
            Err(why) => {
                let reject = present.reject(id, at, length, offset.records + 1);
                malformed.reject(Reject { error: why.to_string(), ..reject })?;
            }
        }
        offset.records += 1;
    }
    offset.position = present.block.position + present.at as u64;
    let bytes = rows.len() * size_of::<T>() + (present.at - begin);
    Ok((rows, bytes))
}

impl Present {
    /// The record at `at`, of which something is wrong.
    #[cold]
    fn reject(&mut self, split: &str, at: usize, length: usize, record: u64) -> Reject {
        let Present { block, counted: (lines, until), .. } = self;
        *lines += memchr_iter(b'\n', &block.data[*until..at]).count() as u64;
        *until = at;
        Reject {
            line: block.line.map(|line| line + *lines),
            text: Reject::text_of(&block.data[at..at + length]),
            ..Reject::new(split, record, block.position + at as u64)
        }
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
