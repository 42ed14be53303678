//! A feed as a source: one split, read by one worker, whose records are handed over as they come.

use std::io::{self, BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_runtime::connector::{Reader, ReaderContext, Source, SplitOffset};
use highwater_runtime::{BoxError, Data};

use super::{socket, stdin};
use crate::connectors::records::csv::de::Header;
use crate::connectors::records::csv::tokens::Tokens;
use crate::connectors::records::format::ReadFormat;
use crate::connectors::records::frames::{Block, Frame, Frames, Framing};
use crate::connectors::records::reader::{Input, Outbox, ThreadedReader};
use crate::connectors::records::rows::Records;

/// So much is read at once; as much as a pipe holds.
const BUFFER: usize = 64 << 10;

/// Where a feed comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Stdin,
    Socket {
        /// `host:port`.
        address: String,
        /// Its end is the end of the feed.
        once: bool,
    },
}

impl Origin {
    pub(super) fn socket(address: String) -> Self {
        Origin::Socket { address, once: false }
    }
}

/// A feed, as the plan holds it.
pub(super) struct FeedSource<T, F> {
    pub(super) origin: Origin,
    pub(super) format: F,
    pub(super) columns: Option<Header>,
    pub(super) longest_record: usize,
    pub(super) rows: PhantomData<fn() -> T>,
}

impl<T: Data, F: ReadFormat<T>> Source for FeedSource<T, F> {
    /// There is one, whatever it is read from: a server may move.
    fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        let id = match &self.origin {
            Origin::Stdin => "stdin",
            Origin::Socket { address, .. } => {
                socket::check(address)?;
                "socket"
            }
        };
        let split = (id.to_owned(), SplitOffset::default());
        Ok(if known.is_empty() { vec![split] } else { Vec::new() })
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let ReaderContext { uid, env, waker, progress, malformed, rows, control, .. } = context;
        let available_now = context.available_now;
        if available_now && matches!(self.origin, Origin::Socket { once: false, .. }) {
            return Err("a socket never comes to an end, and the trigger available-now waits for it; say `.once()`, and its end is \
                        that of the connection"
                .into());
        }
        let input = FeedInput {
            origin: self.origin.clone(),
            framing: self.format.framing(),
            columns: self.columns.clone(),
            longest_record: self.longest_record,
            uid,
            is_restart: control.observed().restarts() > 0,
            env: env.clone(),
        };
        let records = Records::new(self.format.parser());
        let reader = ThreadedReader::start("read-feed", input, records, &*env, waker, progress);
        Ok(Box::new(reader.with(malformed, rows).marking_ends(!available_now)))
    }
}

/// What the reading thread knows.
pub(super) struct FeedInput {
    pub(super) origin: Origin,
    pub(super) framing: Framing,
    pub(super) columns: Option<Header>,
    pub(super) longest_record: usize,
    /// The source's, for people.
    pub(super) uid: String,
    /// An earlier attempt has read, too.
    pub(super) is_restart: bool,
    pub(super) env: Arc<dyn Env>,
}

/// How far a feed was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Counts bytes over all attempts, except those that were lost.
    pub(super) position: u64,
    /// The line that begins here, where that is known.
    pub(super) line: Option<u64>,
}

impl Input for FeedInput {
    type Block = Block;

    fn read(
        &mut self,
        _: &str,
        offset: &SplitOffset,
        out: &Outbox<'_, Block>,
    ) -> Result<(), BoxError> {
        match &self.origin {
            Origin::Stdin => stdin::read(self, offset, out),
            Origin::Socket { address, once } => socket::read(self, address, *once, offset, out),
        }
    }
}

impl FeedInput {
    /// Says once what this source can't promise.
    pub(super) fn warn(&self, what: &str, after_failure: &str) {
        let uid = &self.uid;
        if self.is_restart {
            tracing::warn!(
                "{uid}: {what} can't be asked for anything again: what the failed attempt had read after its last checkpoint is \
                 lost, and how much that is can't be known{after_failure}"
            );
        } else {
            tracing::warn!(
                "{uid}: {what} can't be asked for anything again: should the job fail, what it has read after its last \
                 checkpoint is lost (at most once)"
            );
        }
    }

    /// Waits for `input` as long as anybody waits for what it brings, and between two looks at it so long, if looking doesn't wait by itself.
    pub(super) fn patient<'o, 't, R: Read>(
        &'o self,
        input: R,
        pause: Duration,
        out: &'o Outbox<'t, Block>,
    ) -> BufReader<Patient<'o, 't, R>> {
        BufReader::with_capacity(BUFFER, Patient { input, pause, env: &*self.env, out })
    }

    /// Hands over the records of `input` as they come, until its end, and moves `place`. At the end a record that lacks its own is one
    /// if `keeps_last`; otherwise answers how many bytes of it were left out.
    pub(super) fn pass(
        &self,
        input: impl BufRead,
        place: &mut Place,
        keeps_last: bool,
        out: &Outbox<'_, Block>,
    ) -> io::Result<usize> {
        let mut frames = Frames::new(input, place.position, self.framing, self.longest_record);
        frames = frames.at_once();
        let mut is_first = true;
        while let Some(frame) = frames.next()? {
            let lines = frame.lines();
            let Frame { mut data, too_long } = frame;
            let mut left_out = 0;
            if frames.ended && !keeps_last && too_long.is_none() {
                let whole = self.framing.last_record_end(&data).unwrap_or(0);
                left_out = data.len() - whole;
                data.truncate(whole);
            }
            let (mut position, mut line) = (place.position, place.line);
            if std::mem::take(&mut is_first) && too_long.is_none() {
                let head = self.head(&data);
                line = line.map(|line| line + data[..head].contains(&b'\n') as u64);
                data.drain(..head);
                position += head as u64;
            }
            place.position = frames.position;
            place.line = place.line.map(|line| line + lines);
            let header = self.columns.clone();
            let goes_on =
                data.is_empty() || out.send(Block { data, position, line, header, too_long });
            if !goes_on || left_out > 0 {
                return Ok(left_out);
            }
        }
        Ok(0)
    }

    /// How much of the begin is a mark of the encoding, and a record that says what the columns are called.
    fn head(&self, data: &[u8]) -> usize {
        let begin = if data.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        let data = &data[begin..];
        let (Some(columns), Framing::Csv { delimiter, .. }) = (&self.columns, self.framing) else {
            return begin;
        };
        if data.is_empty() {
            return begin;
        }
        let mut tokens = Tokens::default();
        let length = tokens.split(data, delimiter, true);
        let names = columns.iter().map(String::as_bytes);
        let says_names = !tokens.is_unclosed() && tokens.record(data).iter().eq(names);
        if says_names { begin + length } else { begin }
    }
}

/// An input that may have nothing to say for now.
pub(super) struct Patient<'o, 't, R> {
    input: R,
    pause: Duration,
    env: &'o dyn Env,
    out: &'o Outbox<'t, Block>,
}

impl<R: Read> Read for Patient<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use io::ErrorKind::{TimedOut, WouldBlock};
        loop {
            match self.input.read(buffer) {
                Err(error)
                    if matches!(error.kind(), WouldBlock | TimedOut) && self.out.is_wanted() =>
                {
                    if !self.pause.is_zero() {
                        self.env.block_on(self.env.sleep(self.pause));
                    }
                }
                read => return read,
            }
        }
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
