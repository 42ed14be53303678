//! From bytes to blocks of whole records.
//!
//! # Invariants
//!
//! - A block begins with a record and ends behind one, so that any record's offset is a place to go on from.

use std::io::{self, BufRead, Read};

use memchr::{memchr, memchr_iter, memrchr};

use super::csv::de::Header;
use super::csv::tokens;

/// About how large a block is.
pub(crate) const BLOCK: usize = 256 << 10;

/// So much is kept of a record that is too long.
const KEPT: usize = 64 << 10;

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
    /// The end of the last whole record; none if not even one is whole.
    pub(crate) fn last_record_end(self, data: &[u8]) -> Option<usize> {
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
    /// Where in the split's content they begin.
    pub(crate) position: u64,
    /// The number of the first line, if that is known.
    pub(crate) line: Option<u64>,
    /// The names of the columns.
    pub(crate) header: Option<Header>,
    /// There is one record, of so many bytes, which is too long: the data are its begin.
    pub(crate) too_long: Option<u64>,
}

/// How many lines end in `data`.
pub(crate) fn line_ends(data: &[u8]) -> u64 {
    memchr_iter(b'\n', data).count() as u64
}

/// Whole records; or the begin of one that is too long, with its length.
pub(crate) struct Frame {
    pub(crate) data: Vec<u8>,
    pub(crate) too_long: Option<u64>,
}

impl Frame {
    /// How many bytes of the content it stands for.
    pub(crate) fn length(&self) -> u64 {
        self.too_long.unwrap_or(self.data.len() as u64)
    }

    /// How many lines it stands for.
    pub(crate) fn lines(&self) -> u64 {
        self.too_long.map_or_else(|| line_ends(&self.data), |_| 1)
    }
}

/// Cuts what is read into frames.
pub(crate) struct Frames<R> {
    input: R,
    /// The begin of a record that the last frame left.
    carry: Vec<u8>,
    /// It may hold whole records.
    carries_whole: bool,
    /// Where the next frame begins.
    pub(crate) position: u64,
    framing: Framing,
    /// About how many bytes a record may have. A quote that nobody closes makes the rest of a file one record.
    longest_record: usize,
    /// Frames are as large as what is there when they are asked for, not as blocks are.
    at_once: bool,
    /// Nothing more comes: a frame that is given with this may lack the end of its last record.
    pub(crate) ended: bool,
}

impl<R: BufRead> Frames<R> {
    /// What `input` gives, which is at `position`.
    pub(crate) fn new(input: R, position: u64, framing: Framing, longest_record: usize) -> Self {
        let (carry, carries_whole, at_once, ended) = (Vec::new(), false, false, false);
        Frames { input, carry, carries_whole, position, framing, longest_record, at_once, ended }
    }

    /// Gives records as they come, instead of waiting for a block of them.
    pub(crate) fn at_once(self) -> Self {
        Frames { at_once: true, ..self }
    }

    /// The next whole records; the last may lack its end.
    ///
    /// # Errors
    ///
    /// If it can't be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let room = if self.at_once { 0 } else { BLOCK };
        let mut data = Vec::with_capacity(self.carry.len() + room);
        data.append(&mut self.carry);
        let mut too_long = None;
        while !self.ended {
            let mut ends = std::mem::take(&mut self.carries_whole);
            if !ends {
                if data.len() > self.longest_record {
                    too_long = self.cut_off(&mut data)?;
                    break;
                }
                let known = data.len();
                self.fill(&mut data)?;
                // Where no line ends, no record does.
                ends = memchr(b'\n', &data[known..]).is_some();
            }
            if self.ended {
                break;
            }
            if ends && let Some(end) = self.framing.last_record_end(&data) {
                self.carry.extend_from_slice(&data[end..]);
                data.truncate(end);
                break;
            }
        }
        let frame = Frame { data, too_long };
        self.position += frame.length();
        Ok((!frame.data.is_empty()).then_some(frame))
    }

    /// Reads more.
    fn fill(&mut self, data: &mut Vec<u8>) -> io::Result<()> {
        if self.at_once {
            let found = retried(|| self.input.fill_buf().map(<[u8]>::len))?;
            data.extend_from_slice(&self.input.fill_buf()?[..found]);
            self.input.consume(found);
            self.ended = found == 0;
        } else {
            // A record longer than a block is searched again only when twice as much is there.
            let wanted = BLOCK.max(data.len());
            self.ended = self.input.by_ref().take(wanted as u64).read_to_end(data)? < wanted;
        }
        Ok(())
    }

    /// Cuts a record off that is too long, so that reading goes on behind it. If it has several lines, a quote in the first one is not
    /// closed, and that line is the bad record.
    fn cut_off(&mut self, data: &mut Vec<u8>) -> io::Result<Option<u64>> {
        if let Some(end) = memchr(b'\n', data) {
            self.carry = data.split_off(end + 1);
            self.carries_whole = true;
            return Ok(None);
        }
        let begin = data.len() as u64;
        data.truncate(KEPT);
        let mut rest = 0;
        loop {
            let found = self.input.fill_buf()?;
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

/// Does again what a signal has interrupted.
fn retried<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
