//! From a file to blocks of whole records: what the reading thread does for one split.
//!
//! # Invariants
//!
//! - A record belongs to the split in whose bytes it begins, and to no other: a piece drops the line that began before it, and
//!   reads beyond its end to the end of its last line.
//! - A block begins with a record and ends behind one, so that any record's offset is a place to go on from.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use highwater_runtime::BoxError;
use highwater_runtime::observe::ReaderProgress;
use memchr::{memchr, memchr_iter, memrchr};

use super::csv::de::Header;
use super::csv::tokens::{self, Tokens};
use super::discover::{Split, cannot, is_gzip};

/// About how large a block is.
pub(crate) const BLOCK: usize = 256 << 10;

/// A record isn't longer. A quote that nobody closes makes the rest of a file one record.
const LONGEST_RECORD: usize = 256 << 20;

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
    /// Where in the file (uncompressed) they begin.
    pub(crate) position: u64,
    /// The number of the first line, if that is known.
    pub(crate) line: Option<u64>,
    /// The columns of the file.
    pub(crate) header: Option<Header>,
}

/// Reads a split from `position` (of a record, or 0 for the split's begin) to its end, and gives every block to `send` until
/// that says no. `records` have been read before. Says to `progress` how many bytes of the file it reads.
///
/// # Errors
///
/// If the file can't be read.
pub(crate) fn read_split(
    split: &Split,
    (position, records): (u64, u64),
    framing: Framing,
    progress: &ReaderProgress,
    send: &mut dyn FnMut(Block) -> bool,
) -> Result<(), BoxError> {
    let path = &split.path;
    let (start, end) = split.piece.unwrap_or((0, u64::MAX));
    let Head { header, length, lines: head_lines } = read_head(path, framing)?;
    let from = match (position, start) {
        (0, 0) => length,
        (0, _) => line_from(path, start)?.max(length),
        _ => position,
    };
    let (input, skipped) = open_at(path, from, Some(progress))?;
    let mut line = match (start, skipped) {
        (0, Some(lines)) => Some(1 + lines),
        // Exact unless records were of several lines, or lines were empty.
        (0, None) => Some(1 + head_lines + records),
        _ => None,
    };
    let mut frames =
        Frames { input, carry: Vec::new(), position: from, framing, path, ended: false };
    while frames.position < end
        && let Some(mut data) = frames.next()?
    {
        let position = frames.position - data.len() as u64;
        if frames.position > end {
            // The line with the last byte of the piece is its last.
            let last = usize::try_from(end - 1 - position).unwrap_or(usize::MAX);
            if let Some(length) = memchr(b'\n', &data[last..]) {
                data.truncate(last + length + 1);
            }
        }
        if !is_gzip(path) {
            progress.read_bytes(data.len() as u64);
        }
        let after = line.map(|line| line + lines(&data));
        if !send(Block { data, position, line, header: header.clone() }) {
            return Ok(());
        }
        line = after;
    }
    Ok(())
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
fn read_head(path: &Path, framing: Framing) -> Result<Head, BoxError> {
    let (input, _) = open_at(path, 0, None)?;
    let mut frames = Frames { input, carry: Vec::new(), position: 0, framing, path, ended: false };
    let mut head = Head { header: None, length: 0, lines: 0 };
    let Some(data) = frames.next()? else { return Ok(head) };
    let mut at = if data.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    if let Framing::Csv { delimiter, header: true } = framing {
        let mut tokens = Tokens::default();
        while head.header.is_none() && at < data.len() {
            let record = &data[at..];
            let length = tokens.split(record, delimiter, true);
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

/// Where the first line begins that begins at `start` or later.
fn line_from(path: &Path, start: u64) -> Result<u64, BoxError> {
    let cannot = |error| cannot("read", path, &error);
    let mut file = File::open(path).map_err(cannot)?;
    // If the byte before is a line end, a line begins right at `start`.
    file.seek(SeekFrom::Start(start - 1)).map_err(cannot)?;
    let skipped = BufReader::new(file).skip_until(b'\n').map_err(cannot)?;
    Ok(start - 1 + skipped as u64)
}

/// Opens a file at a position of its uncompressed content; where that takes reading, also says how many lines come before. What is
/// read of a compressed file is said to `progress`; what is read of another is for its blocks to say.
fn open_at(
    path: &Path,
    position: u64,
    progress: Option<&ReaderProgress>,
) -> Result<(Box<dyn Read>, Option<u64>), BoxError> {
    let cannot = |error| cannot("read", path, &error);
    let mut file = File::open(path).map_err(cannot)?;
    if !is_gzip(path) {
        file.seek(SeekFrom::Start(position)).map_err(cannot)?;
        return Ok((Box::new(file), (position == 0).then_some(0)));
    }
    let file = Counted { file, progress: progress.cloned() };
    let file = BufReader::with_capacity(64 << 10, file);
    let mut unzipped = BufReader::with_capacity(BLOCK, flate2::read::MultiGzDecoder::new(file));
    let (mut left, mut before) = (position, 0);
    while left > 0 {
        let found = unzipped.fill_buf().map_err(cannot)?;
        if found.is_empty() {
            return Err(format!(
                "{} ends before byte {position} (uncompressed), up to which it has been read; it was replaced by a shorter file",
                path.display()
            )
            .into());
        }
        let length = found.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        before += lines(&found[..length]);
        unzipped.consume(length);
        left -= length as u64;
    }
    Ok((Box::new(unzipped), Some(before)))
}

/// A file that says how many bytes are read of it.
struct Counted {
    file: File,
    progress: Option<ReaderProgress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.file.read(buffer)?;
        if let Some(progress) = &self.progress {
            progress.read_bytes(length as u64);
        }
        Ok(length)
    }
}

/// Cuts what is read into blocks.
struct Frames<'p> {
    input: Box<dyn Read>,
    /// The begin of a record that the last block left.
    carry: Vec<u8>,
    /// Where the next block begins.
    position: u64,
    framing: Framing,
    path: &'p Path,
    ended: bool,
}

impl Frames<'_> {
    /// The next whole records; the last may lack its line end.
    fn next(&mut self) -> Result<Option<Vec<u8>>, BoxError> {
        let mut data = Vec::with_capacity(self.carry.len() + BLOCK);
        data.append(&mut self.carry);
        while !self.ended {
            // A record longer than a block is searched again only when twice as much is there.
            let wanted = BLOCK.max(data.len());
            let read = self.input.by_ref().take(wanted as u64).read_to_end(&mut data);
            self.ended = read.map_err(|error| cannot("read", self.path, &error))? < wanted;
            if self.ended {
                break;
            }
            if let Some(end) = self.framing.last_record_end(&data) {
                self.carry.extend_from_slice(&data[end..]);
                data.truncate(end);
                break;
            }
            if data.len() > LONGEST_RECORD {
                let why = match self.framing {
                    Framing::Lines => "a line end is missing",
                    Framing::Csv { .. } => "a quote is not closed",
                };
                return Err(format!(
                    "{}: the record at byte {} is longer than {} MB; perhaps {why}",
                    self.path.display(),
                    self.position,
                    LONGEST_RECORD >> 20
                )
                .into());
            }
        }
        self.position += data.len() as u64;
        Ok((!data.is_empty()).then_some(data))
    }
}
