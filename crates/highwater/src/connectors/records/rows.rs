//! From blocks of records to rows: the decoder of formats whose records are bytes.

use highwater_runtime::connector::{MalformedRecords, Reject, SplitOffset};
use highwater_runtime::{BoxError, Data};
use memchr::memchr_iter;

use super::digest;
use super::format::Parser;
use super::frames::Block;
use super::reader::Decoder;

/// Parses record by record.
pub(crate) struct Records<P> {
    parser: P,
    present: Option<Present>,
}

/// The block that is being parsed.
struct Present {
    block: Block,
    /// The next record.
    at: usize,
    /// So many line ends were counted, in so many bytes.
    counted: (u64, usize),
}

impl<P> Records<P> {
    /// Records that `parser` understands.
    pub(crate) fn new(parser: P) -> Self {
        Records { parser, present: None }
    }
}

impl<T: Data, P: Parser<T>> Decoder<T> for Records<P> {
    type Block = Block;

    fn begin(&mut self, block: Block, offset: &mut SplitOffset) {
        self.parser.begin(&block);
        offset.position = block.position;
        self.present = Some(Present { block, at: 0, counted: (0, 0) });
    }

    fn is_empty(&self) -> bool {
        self.present.is_none()
    }

    fn rows(
        &mut self,
        split: &str,
        offset: &mut SplitOffset,
        malformed: &mut MalformedRecords,
        limit: usize,
    ) -> Result<(Vec<T>, usize), BoxError> {
        let Some(present) = &mut self.present else { return Ok((Vec::new(), 0)) };
        if let Some(length) = present.block.too_long {
            let begin = present.block.data.len();
            let reject = present.reject(split, 0, begin, offset.records + 1);
            let error = format!(
                "longer than a record may be: {length} bytes (`longest_record` says how many)"
            );
            malformed.reject(Reject { error, ..reject })?;
            offset.records += 1;
            offset.position = present.block.position + length;
            digest::lose(&mut offset.digest);
            self.present = None;
            return Ok((Vec::new(), 0));
        }
        let begin = present.at;
        let left = present.block.data.len() - begin;
        // A block rarely has room for as many rows as may be polled: 16 bytes is a short record.
        let mut rows = Vec::with_capacity(limit.min(left / 16 + 1));
        let last = offset.records.saturating_add(limit as u64);
        while present.at < present.block.data.len() && offset.records < last {
            let at = present.at;
            let (length, row) = self.parser.next(&present.block.data[at..]);
            present.at += length;
            match row {
                Ok(None) => continue,
                Ok(Some(row)) => rows.push(row),
                Err(why) => {
                    let reject = present.reject(split, at, length, offset.records + 1);
                    malformed.reject(Reject { error: why.to_string(), ..reject })?;
                }
            }
            offset.records += 1;
        }
        offset.position = present.block.position + present.at as u64;
        digest::add(&mut offset.digest, &present.block.data[begin..present.at]);
        let bytes = rows.len() * size_of::<T>() + (present.at - begin);
        if present.at == present.block.data.len() {
            self.present = None;
        }
        Ok((rows, bytes))
    }
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
