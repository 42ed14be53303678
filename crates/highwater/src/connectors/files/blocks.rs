//! From a file to blocks of whole records: what the reading thread does for one split.
//!
//! # Invariants
//!
//! - A record belongs to the split in whose bytes it begins, and to no other: a piece drops the line that began before it, and
//!   reads beyond its end to the end of its last line.

use std::io::BufRead;
use std::path::Path;

use encoding_rs::Encoding;
use highwater_runtime::BoxError;
use highwater_runtime::connector::SplitOffset;
use memchr::memchr;

use super::content::{self, Content};
use super::discover::{Split, cannot};
use crate::connectors::records::csv::de::Header;
use crate::connectors::records::csv::tokens::{self, Tokens};
use crate::connectors::records::digest::Expected;
use crate::connectors::records::frames::{Block, Frame, Frames, Framing, line_ends};
use crate::connectors::records::reader::{Input, Outbox};

/// How the files of a source are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) framing: Framing,
    /// What they are written in, if they don't say so.
    pub(crate) encoding: Option<&'static Encoding>,
    /// About how many bytes a record may have. A quote that nobody closes makes the rest of a file one record.
    pub(crate) longest_record: usize,
}

impl Reading {
    fn frames(self, input: Box<dyn BufRead>, position: u64) -> Frames<Box<dyn BufRead>> {
        Frames::new(input, position, self.framing, self.longest_record)
    }
}

impl Input for Reading {
    type Block = Block;

    fn bytes_left(&self, split: &str, offset: &SplitOffset) -> u64 {
        Split::parse(split).bytes_left(offset.position)
    }

    /// Reads a split from `offset` (of a record, or 0 for the split's begin) to its end, and says how many bytes of the file it reads.
    ///
    /// Fails if the file can't be read, isn't the one that was found, or changes meanwhile.
    fn read(
        &mut self,
        split: &str,
        offset: &SplitOffset,
        out: &Outbox<'_, Block>,
    ) -> Result<(), BoxError> {
        read_split(&Split::parse(split), offset, *self, out)
    }
}

fn read_split(
    split: &Split,
    offset: &SplitOffset,
    reading: Reading,
    out: &Outbox<'_, Block>,
) -> Result<(), BoxError> {
    let path = &split.path;
    let content = Content::open(path, reading.encoding, offset)?;
    let plain = content.is_plain()?;
    let (start, end) = split.piece.unwrap_or((0, u64::MAX));
    let Head { header, length, lines: head_lines } = read_head(&content, path, reading)?;
    let begin = match start {
        0 => length,
        _ => content.line_from(start)?.max(length),
    };
    let from = if offset.position == 0 { begin } else { offset.position };
    // What is read over anyway is looked at; what isn't, only if the file was touched.
    let suspicious = !plain || content.changed_ms() != offset.time_ms;
    let mut expected = Expected::of(offset, begin).filter(|_| suspicious && from > begin);
    let (input, skipped) = content.behind(from, &mut expected, Some(out.progress))?;
    if expected.is_some_and(|expected| !expected.is_met()) {
        let what = "what was read of it has changed since";
        return Err(content::another(path, what, offset.records));
    }
    let mut line = match (start, skipped) {
        (0, Some(lines)) => Some(1 + lines),
        // Exact unless records were of several lines, or lines were empty.
        (0, None) => Some(1 + head_lines + offset.records),
        _ => None,
    };
    let mut frames = reading.frames(input, from);
    let failed = |error| cannot("read", path, &error);
    while frames.position < end
        && let Some(mut frame) = frames.next().map_err(failed)?
    {
        let length = frame.length();
        let position = frames.position - length;
        if frames.position > end && frame.too_long.is_none() {
            // The line with the last byte of the piece is its last.
            let last = usize::try_from(end - 1 - position).unwrap_or(usize::MAX);
            if let Some(length) = memchr(b'\n', &frame.data[last..]) {
                frame.data.truncate(last + length + 1);
            }
        }
        if plain {
            out.progress.read_bytes(length);
        }
        let after = line.map(|line| line + frame.lines());
        let Frame { data, too_long } = frame;
        if !out.send(Block { data, position, line, header: header.clone(), too_long }) {
            return Ok(());
        }
        line = after;
    }
    content.is_unchanged()
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
    let failed = |error| cannot("read", path, &error);
    let mut head = Head { header: None, length: 0, lines: 0 };
    let Some(Frame { data, too_long }) = reading.frames(input, 0).next().map_err(failed)? else {
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
        head.lines = line_ends(&data[..at]);
    }
    head.length = at as u64;
    Ok(head)
}
