//! A reader whose input may wait: a thread reads blocks, the worker turns them into rows.
//!
//! ```text
//!  splits of the worker ─▶ reading thread ──bounded channel──▶ poll: decode a few thousand records ─▶ rows, rejects
//!                          (an `Input`)   ◀─── full: waits ───  (a `Decoder`, on the worker thread, never waits)
//! ```
//!
//! # Invariants
//!
//! - 8\. Nothing on the worker thread waits: the channel is only looked at.
//! - 5\. A split's offset is that of the first record that was not polled, and its end is part of it.

use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Weak};

use highwater_env::Env;
use highwater_runtime::connector::{MalformedRecords, Polled, Reader, SplitOffset, Waker};
use highwater_runtime::observe::ReaderProgress;
use highwater_runtime::{Batch, BoxError, Data, Epoch};

use super::pace::Pace;

/// So many blocks wait for the worker.
const BLOCKS: usize = 4;

/// So many rows are polled at once, unless fewer are wanted.
const ROWS: usize = 4096;

/// What is read from, on a thread where it may wait.
pub(crate) trait Input: Send + 'static {
    /// Some records, with where they are.
    type Block: Send + 'static;

    /// About how many bytes are to be read of a split from an offset on, for people; 0 if nobody can know.
    fn bytes_left(&self, split: &str, offset: &SplitOffset) -> u64 {
        let _ = (split, offset);
        0
    }

    /// Reads a split to its end, or until no more is wanted.
    ///
    /// # Errors
    ///
    /// Ends the attempt.
    fn read(
        &mut self,
        split: &str,
        offset: &SplitOffset,
        out: &Outbox<'_, Self::Block>,
    ) -> Result<(), BoxError>;
}

/// Turns blocks into rows, on the worker thread.
pub(crate) trait Decoder<T> {
    /// What it takes.
    type Block: Send + 'static;

    /// Takes a block of the split whose offset this is; the last one is used up.
    fn begin(&mut self, block: Self::Block, offset: &mut SplitOffset);

    /// Whether the block is used up.
    fn is_empty(&self) -> bool;

    /// The next rows of the block, from at most `limit` records, and about how much memory they take. Moves the offset behind them.
    ///
    /// # Errors
    ///
    /// Ends the attempt.
    fn rows(
        &mut self,
        split: &str,
        offset: &mut SplitOffset,
        malformed: &mut MalformedRecords,
        limit: usize,
    ) -> Result<(Vec<T>, usize), BoxError>;
}

/// What the reading thread says.
enum Message<B> {
    Block(usize, B),
    /// Nothing more of this split.
    End(usize),
    Failed(BoxError),
}

/// Where an input puts the blocks of a split.
pub(crate) struct Outbox<'t, B> {
    split: usize,
    sender: &'t SyncSender<Message<B>>,
    waker: &'t Waker,
    reader: &'t Weak<()>,
    /// For people.
    pub(crate) progress: &'t ReaderProgress,
}

impl<B> Outbox<'_, B> {
    /// Hands a block over, and waits while many are there. Says whether more are wanted.
    pub(crate) fn send(&self, block: B) -> bool {
        self.say(Message::Block(self.split, block))
    }

    /// Whether anybody still waits for blocks.
    pub(crate) fn is_wanted(&self) -> bool {
        self.reader.strong_count() > 0
    }

    fn say(&self, message: Message<B>) -> bool {
        let sent = self.sender.send(message).is_ok();
        self.waker.wake();
        sent
    }
}

/// Splits for the reading thread, each with its number among the worker's.
type Work = Vec<(usize, String, SplitOffset)>;

/// A split and how far it has been polled.
struct Progress {
    id: String,
    offset: SplitOffset,
    moved: bool,
}

/// Reads splits one after the other.
pub(crate) struct ThreadedReader<T, D: Decoder<T>> {
    /// What the thread is called.
    name: &'static str,
    splits: Vec<Progress>,
    /// How many of them aren't at their end.
    left: usize,
    /// To the reading thread, which ends when this is gone.
    work: Sender<Work>,
    blocks: Receiver<Message<D::Block>>,
    /// Tells the reading thread that somebody waits for it.
    _alive: Arc<()>,
    decoder: D,
    malformed: MalformedRecords,
    /// The split of the block that is being decoded.
    present: usize,
    /// The split whose rows were polled last.
    polled: usize,
    /// How many rows are polled at once.
    rows_at_once: usize,
    pace: Option<Pace>,
    /// A split at its end has ended for good.
    marks_ends: bool,
    rows: PhantomData<fn() -> T>,
}

impl<T: Data, D: Decoder<T>> ThreadedReader<T, D> {
    /// Starts the thread.
    pub(crate) fn start<I: Input<Block = D::Block>>(
        name: &'static str,
        mut input: I,
        decoder: D,
        env: &dyn Env,
        waker: Waker,
        progress: ReaderProgress,
    ) -> Self {
        let (work, to_read) = channel();
        let (sender, blocks) = sync_channel(BLOCKS);
        let alive = Arc::new(());
        let reader = Arc::downgrade(&alive);
        let read = move || read(&mut input, &to_read, &sender, &waker, &reader, &progress);
        env.spawn_thread(name, Box::new(read));
        ThreadedReader {
            name,
            splits: Vec::new(),
            left: 0,
            work,
            blocks,
            _alive: alive,
            decoder,
            malformed: MalformedRecords::default(),
            present: 0,
            polled: 0,
            rows_at_once: ROWS,
            pace: None,
            marks_ends: true,
            rows: PhantomData,
        }
    }

    /// Deals with malformed records so, and polls so many rows at once at the most.
    pub(crate) fn with(self, malformed: MalformedRecords, rows: usize) -> Self {
        ThreadedReader { malformed, rows_at_once: ROWS.min(rows), ..self }
    }

    /// Holds to a pace, if there is one.
    pub(crate) fn paced(self, pace: Option<Pace>) -> Self {
        ThreadedReader { pace, ..self }
    }

    /// Whether a split at its end has ended for good, or more may come at a later start.
    pub(crate) fn marking_ends(self, marks_ends: bool) -> Self {
        ThreadedReader { marks_ends, ..self }
    }

    /// What the reading thread says next; none if it has nothing to say yet.
    fn receive(&mut self) -> Result<Option<()>, BoxError> {
        match self.blocks.try_recv() {
            Ok(Message::Block(split, block)) => {
                let progress = &mut self.splits[split];
                self.decoder.begin(block, &mut progress.offset);
                progress.moved = true;
                self.present = split;
            }
            Ok(Message::End(split)) => {
                let progress = &mut self.splits[split];
                progress.offset.ended = self.marks_ends;
                progress.moved = true;
                self.left -= 1;
            }
            Ok(Message::Failed(error)) => return Err(error),
            Err(TryRecvError::Empty) => return Ok(None),
            Err(TryRecvError::Disconnected) => return Err(self.no_thread()),
        }
        Ok(Some(()))
    }

    fn no_thread(&self) -> BoxError {
        format!(
            "the thread `{}` ended without a word: the operating system refused it, or it panicked (the log above says which)",
            self.name
        )
        .into()
    }
}

/// The reading thread. Ends when the reader is gone.
fn read<I: Input>(
    input: &mut I,
    work: &Receiver<Work>,
    sender: &SyncSender<Message<I::Block>>,
    waker: &Waker,
    reader: &Weak<()>,
    progress: &ReaderProgress,
) {
    while let Ok(splits) = work.recv() {
        progress
            .expect_bytes(splits.iter().map(|(_, id, offset)| input.bytes_left(id, offset)).sum());
        for (split, id, offset) in splits {
            progress.reading(&id);
            let out = Outbox { split, sender, waker, reader, progress };
            if let Err(error) = input.read(&id, &offset, &out) {
                out.say(Message::Failed(error));
                return;
            }
            if !out.say(Message::End(split)) {
                return;
            }
        }
    }
}

impl<T: Data, D: Decoder<T>> Reader for ThreadedReader<T, D> {
    fn add(&mut self, splits: Vec<(String, SplitOffset)>, of_all: usize) -> Result<(), BoxError> {
        if let Some(pace) = &mut self.pace {
            pace.share(splits.len(), of_all);
        }
        let numbers = self.splits.len()..;
        let work = numbers.zip(&splits).map(|(number, (id, at))| (number, id.clone(), at.clone()));
        self.work.send(work.collect()).map_err(|_| self.no_thread())?;
        self.left += splits.len();
        let progress = |(id, offset)| Progress { id, offset, moved: false };
        self.splits.extend(splits.into_iter().map(progress));
        Ok(())
    }

    fn poll(&mut self, _: Epoch) -> Result<Polled, BoxError> {
        loop {
            if !self.decoder.is_empty() {
                let allowed = self.pace.as_ref().map_or(usize::MAX, Pace::allowed);
                if allowed == 0 {
                    // Polled again at every tick.
                    return Ok(Polled::Waiting);
                }
                self.polled = self.present;
                let Progress { id, offset, moved } = &mut self.splits[self.present];
                *moved = true;
                let limit = self.rows_at_once.min(allowed);
                let records = offset.records;
                let (rows, bytes) = self.decoder.rows(id, offset, &mut self.malformed, limit)?;
                if let Some(pace) = &mut self.pace {
                    pace.take(offset.records - records);
                }
                let rejects = self.malformed.take();
                if !rows.is_empty() || !rejects.is_empty() {
                    return Ok(Polled::rows(Batch::new::<Vec<T>>(rows), rejects, bytes));
                }
            }
            if self.left == 0 {
                return Ok(Polled::Ended);
            }
            if self.decoder.is_empty() && self.receive()?.is_none() {
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

#[cfg(test)]
mod tests {
    use super::super::format::TextParser;
    use super::super::frames::Block;
    use super::super::rows::Records;
    use super::*;
    use crate::connectors::testing::{at_begin, drain, env, no_waker};

    struct Broken;

    impl Input for Broken {
        type Block = Block;

        fn read(
            &mut self,
            _: &str,
            _: &SplitOffset,
            _: &Outbox<'_, Block>,
        ) -> Result<(), BoxError> {
            panic!("a bug")
        }
    }

    #[test]
    fn a_thread_that_ends_without_a_word_is_an_error() {
        let (env, progress) = (env(), ReaderProgress::default());
        let records = Records::new(TextParser);
        let mut reader =
            ThreadedReader::start("broken", Broken, records, &*env, no_waker(), progress);
        reader.add(at_begin(&["x".to_owned()]), 1).unwrap();
        let error = drain::<String>(&mut reader, &*env).unwrap_err().to_string();
        assert!(error.contains("`broken` ended without a word"), "{error}");
    }
}
