//! From a file to blocks of whole records: what the reading thread does for one split.
//!
//! # Invariants
//!
//! - A record belongs to the split in whose bytes it begins, and to no other: a piece drops the line that began before it, and
//!   reads beyond its end to the end of its last line.
//! - A block begins with a record and ends behind one, so that any record's offset is a place to go on from.

use std::io::{BufRead, Read};
use std::path::Path;

use encoding_rs::Encoding;
use highwater_runtime::BoxError;
use highwater_runtime::connector::SplitOffset;
use highwater_runtime::observe::ReaderProgress;
use memchr::{memchr, memchr_iter, memrchr};

use super::content::Content;
use super::csv::de::Header;
use super::csv::tokens::{self, Tokens};
use super::discover::{Split, cannot};

/// About how large a block is.
pub(crate) const BLOCK: usize = 256 << 10;

/// So much is kept of a record that is too long.
const KEPT: usize = 64 << 10;

/// How the files of a source are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) framing: Framing,
    /// What they are written in, if they don't say so.
    pub(crate) encoding: Option<&'static Encoding>,
    /// About how many bytes a record may have. A quote that nobody closes makes the rest of a file one record.
    pub(crate) longest_record: usize,
}

/// What separates records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Line ends.
    Lines,
    /// Line ends outside of quotes.
    Csv {
        /// What separates fields.
        delimiter: u8,
        /// The first record of a file names the columns.
        header: bool,
    },
}

impl Framing {
    fn last_record_end(self, data: &[u8]) -> Option<usize> {
        match self {
            Framing::Lines => memrchr(b'\n', data).map(|at| at + 1),
            Framing::Csv { delimiter, .. } => tokens::last_record_end(data, delimiter),
        }
    }
}

/// Whole records of a split.
#[derive(Debug)]
pub(crate) struct Block {
    /// The records.
    pub(crate) data: Vec<u8>,
    /// Where in the file's content they begin.
    pub(crate) position: u64,
    /// The number of the first line, if that is known.
    pub(crate) line: Option<u64>,
    /// The columns of the file.
    pub(crate) header: Option<Header>,
    /// There is one record, of so many bytes, which is too long: the data are its begin.
    pub(crate) too_long: Option<u64>,
}

/// Reads a split from `offset` (of a record, or 0 for the split's begin) to its end, and gives every block to `send` until
/// that says no. Says to `progress` how many bytes of the file it reads.
///
/// # Errors
///
/// If the file can't be read, isn't the one that was found, or changes meanwhile.
pub(crate) fn read_split(
    split: &Split,
    offset: &SplitOffset,
    reading: Reading,
    progress: &ReaderProgress,
    send: &mut dyn FnMut(Block) -> bool,
) -> Result<(), BoxError> {
    let path = &split.path;
    let content = Content::open(path, reading.encoding, offset)?;
    let plain = content.is_plain()?;
    let (start, end) = split.piece.unwrap_or((0, u64::MAX));
    let Head { header, length, lines: head_lines } = read_head(&content, path, reading)?;
    let from = match (offset.position, start) {
        (0, 0) => length,
        (0, _) => content.line_from(start)?.max(length),
        _ => offset.position,
    };
    let (input, skipped) = content.from(from, Some(progress))?;
    let mut line = match (start, skipped) {
        (0, Some(lines)) => Some(1 + lines),
        // Exact unless records were of several lines, or lines were empty.
        (0, None) => Some(1 + head_lines + offset.records),
        _ => None,
    };
    let mut frames = Frames::new(input, from, reading, path);
    while frames.position < end
        && let Some(Frame { mut data, too_long }) = frames.next()?
    {
        let length = too_long.unwrap_or(data.len() as u64);
        let position = frames.position - length;
        if frames.position > end && too_long.is_none() {
            // The line with the last byte of the piece is its last.
            let last = usize::try_from(end - 1 - position).unwrap_or(usize::MAX);
            if let Some(length) = memchr(b'\n', &data[last..]) {
                data.truncate(last + length + 1);
            }
        }
        if plain {
            progress.read_bytes(length);
        }
        let after = line.map(|line| line + too_long.map_or_else(|| lines(&data), |_| 1));
        if !send(Block { data, position, line, header: header.clone(), too_long }) {
            return Ok(());
        }
        line = after;
    }
    content.is_unchanged()
}

fn lines(data: &[u8]) -> u64 {
    memchr_iter(b'\n', data).count() as u64
}

/// What comes before the records of a file.
struct Head {
    header: Option<Header>,
    length: u64,
    lines: u64,
}

/// Reads a mark of the encoding, and the header.
fn read_head(content: &Content<'_>, path: &Path, reading: Reading) -> Result<Head, BoxError> {
    let (input, _) = content.from(0, None)?;
    let mut head = Head { header: None, length: 0, lines: 0 };
    let Some(Frame { data, too_long }) = Frames::new(input, 0, reading, path).next()? else {
        return Ok(head);
    };
    let mut at = if data.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    if let Framing::Csv { delimiter, header: true } = reading.framing {
        let mut tokens = Tokens::default();
        while head.header.is_none() && at < data.len() {
            let record = &data[at..];
            let length = tokens.split(record, delimiter, true);
            if tokens.is_unclosed() || too_long.is_some() {
                return Err(format!(
                    "{}: the header is too long, or a quote in it is not closed",
                    path.display()
                )
                .into());
            }
            if !tokens::without_line_end(&record[..length]).is_empty() {
                let name = |field| String::from_utf8_lossy(field).into_owned();
                head.header = Some(tokens.record(record).iter().map(name).collect());
            }
            at += length;
        }
        head.lines = lines(&data[..at]);
    }
    head.length = at as u64;
    Ok(head)
}

/// Whole records; or the begin of one that is too long, with its length.
struct Frame {
    data: Vec<u8>,
    too_long: Option<u64>,
}

/// Cuts what is read into frames.
struct Frames<'p> {
    input: Box<dyn BufRead>,
    /// The begin of a record that the last frame left.
    carry: Vec<u8>,
    /// Where the next frame begins.
    position: u64,
    reading: Reading,
    path: &'p Path,
    ended: bool,
}

impl<'p> Frames<'p> {
    fn new(input: Box<dyn BufRead>, position: u64, reading: Reading, path: &'p Path) -> Self {
        Frames { input, carry: Vec::new(), position, reading, path, ended: false }
    }

    /// The next whole records; the last may lack its line end.
    fn next(&mut self) -> Result<Option<Frame>, BoxError> {
        let mut data = Vec::with_capacity(self.carry.len() + BLOCK);
        data.append(&mut self.carry);
        let mut too_long = None;
        while !self.ended {
            // A record longer than a block is searched again only when twice as much is there.
            let wanted = BLOCK.max(data.len());
            let read = self.input.by_ref().take(wanted as u64).read_to_end(&mut data);
            self.ended = read.map_err(|error| cannot("read", self.path, &error))? < wanted;
            if self.ended {
                break;
            }
            if let Some(end) = self.reading.framing.last_record_end(&data) {
                self.carry.extend_from_slice(&data[end..]);
                data.truncate(end);
                break;
            }
            if data.len() > self.reading.longest_record {
                too_long = self.cut_off(&mut data)?;
                break;
            }
        }
        self.position += too_long.unwrap_or(data.len() as u64);
        Ok((!data.is_empty()).then_some(Frame { data, too_long }))
    }

    /// Cuts a record off that is too long, so that reading goes on behind it. If it has several lines, a quote in the first one is not
    /// closed, and that line is the bad record.
    fn cut_off(&mut self, data: &mut Vec<u8>) -> Result<Option<u64>, BoxError> {
        if let Some(end) = memchr(b'\n', data) {
            self.carry = data.split_off(end + 1);
            return Ok(None);
        }
        let begin = data.len() as u64;
        data.truncate(KEPT);
        let mut rest = 0;
        loop {
            let found = self.input.fill_buf().map_err(|error| cannot("read", self.path, &error))?;
            let (length, is_whole) = match memchr(b'\n', found) {
                Some(at) => (at + 1, true),
                None => (found.len(), found.is_empty()),
            };
            self.input.consume(length);
            rest += length as u64;
            if is_whole {
                return Ok(Some(begin + rest));
            }
        }
    }
}
