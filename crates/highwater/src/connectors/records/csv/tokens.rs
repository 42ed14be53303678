//! Where records end, and where the fields of a record are.
//!
//! A record ends at a line end outside of quotes. A quote opens a quoted field only as the field's first byte, and is
//! itself anywhere else. `\r` before the line end belongs to the line end.

use memchr::{memchr, memchr2, memrchr};

const QUOTE: u8 = b'"';

/// The end of the last whole record in `data`, which begins with a record; none if not even one is whole.
pub(crate) fn last_record_end(data: &[u8], delimiter: u8) -> Option<usize> {
    if memchr(QUOTE, data).is_none() {
        return memrchr(b'\n', data).map(|at| at + 1);
    }
    let mut last = None;
    let mut at = 0;
    while let Some(length) = record_end(&data[at..], delimiter) {
        at += length;
        last = Some(at);
    }
    last
}

/// The end of the first record in `data`, behind its line end; none if it isn't whole.
pub(crate) fn record_end(data: &[u8], delimiter: u8) -> Option<usize> {
    find_end(data, delimiter).ok()
}

/// What a record lacks.
enum Lacks {
    LineEnd,
    /// The quote that closes another, and so the line end.
    Quote,
}

fn find_end(data: &[u8], delimiter: u8) -> Result<usize, Lacks> {
    let mut at = 0;
    loop {
        let found = memchr2(QUOTE, b'\n', &data[at..]).ok_or(Lacks::LineEnd)? + at;
        if data[found] == b'\n' {
            return Ok(found + 1);
        }
        at = found + 1;
        if found == 0 || data[found - 1] == delimiter {
            at = behind_quotes(data, at).ok_or(Lacks::Quote)?;
        }
    }
}

/// The first byte behind the quote that closes the one before `at`.
fn behind_quotes(data: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let quote = at + memchr(QUOTE, &data[at..])?;
        if data.get(quote + 1) != Some(&QUOTE) {
            return Some(quote + 1);
        }
        at = quote + 2;
    }
}

/// Eight times the same byte.
#[inline]
const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The highest bit of every byte that is zero. Exact: nothing is carried from one byte to the next.
#[inline]
const fn zeros(word: u64) -> u64 {
    let low = repeat(0x7F);
    !(((word & low) + low) | word | low)
}

/// The fields of one record. Between two fields there is one byte of no meaning.
#[derive(Clone, Copy)]
pub(crate) struct Record<'r> {
    bytes: &'r [u8],
    ends: &'r [u32],
}

impl<'r> Record<'r> {
    /// How many fields there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field, unquoted.
    #[inline]
    pub(crate) fn get(&self, field: usize) -> Option<&'r [u8]> {
        let end = *self.ends.get(field)? as usize;
        let start = if field == 0 { 0 } else { self.ends[field - 1] as usize + 1 };
        self.bytes.get(start..end)
    }

    /// All fields.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'r [u8]> {
        (0..self.len()).map_while(move |field| self.get(field))
    }
}

/// Finds the fields of records; keeps its buffers.
#[derive(Default)]
pub(crate) struct Tokens {
    ends: Vec<u32>,
    /// Fields of the last record that had quotes, without them.
    unquoted: Vec<u8>,
    /// Whether `unquoted` holds the record's bytes.
    quoted: bool,
    /// Whether a quote isn't closed.
    unclosed: bool,
}

impl Tokens {
    /// Splits the first record of `data` into fields, and gives its length with its line end. `quotes` says whether there
    /// may be quotes. If one isn't closed the record ends with its first line, and has no fields.
    #[inline]
    pub(crate) fn split(&mut self, data: &[u8], delimiter: u8, quotes: bool) -> usize {
        self.ends.clear();
        self.quoted = false;
        self.unclosed = false;
        if quotes {
            let (length, line) = match find_end(data, delimiter) {
                Ok(length) => (length, without_line_end(&data[..length])),
                // The last record of a file; what looks like a line end is within quotes.
                Err(Lacks::LineEnd) => (data.len(), data),
                Err(Lacks::Quote) => {
                    self.unclosed = true;
                    return memchr(b'\n', data).map_or(data.len(), |at| at + 1);
                }
            };
            if memchr(QUOTE, line).is_some() {
                self.split_quoted(line, delimiter);
                return length;
            }
        }
        self.split_plain(data, delimiter)
    }

    /// Eight bytes at a time: fields are short, so that a search for each costs more than it saves.
    #[inline]
    fn split_plain(&mut self, data: &[u8], delimiter: u8) -> usize {
        let delimiters = repeat(delimiter);
        let (words, rest) = data.as_chunks::<8>();
        for (number, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            let mut found = zeros(word ^ delimiters) | zeros(word ^ repeat(b'\n'));
            while found != 0 {
                let at = number * 8 + found.trailing_zeros() as usize / 8;
                if data[at] == b'\n' {
                    return self.end_line(data, at);
                }
                self.ends.push(at as u32);
                found &= found - 1;
            }
        }
        let begin = words.len() * 8;
        for (at, byte) in rest.iter().enumerate().map(|(at, byte)| (begin + at, *byte)) {
            if byte == b'\n' {
                return self.end_line(data, at);
            } else if byte == delimiter {
                self.ends.push(at as u32);
            }
        }
        self.end_line(data, data.len())
    }

    /// Ends the last field before the line end at `at`, and gives the record's length.
    #[inline]
    fn end_line(&mut self, data: &[u8], at: usize) -> usize {
        let end = if at > 0 && data[at - 1] == b'\r' { at - 1 } else { at };
        self.ends.push(end as u32);
        data.len().min(at + 1)
    }

    #[cold]
    fn split_quoted(&mut self, line: &[u8], delimiter: u8) {
        self.quoted = true;
        self.unquoted.clear();
        let mut at = 0;
        loop {
            if line.get(at) == Some(&QUOTE) {
                at += 1;
                // Within the quotes: two quotes are one, one is the end.
                loop {
                    let Some(length) = memchr(QUOTE, &line[at..]) else {
                        self.unquoted.extend_from_slice(&line[at..]);
                        at = line.len();
                        break;
                    };
                    self.unquoted.extend_from_slice(&line[at..at + length]);
                    at += length + 1;
                    if line.get(at) != Some(&QUOTE) {
                        break;
                    }
                    self.unquoted.push(QUOTE);
                    at += 1;
                }
            }
            let end = memchr(delimiter, &line[at..]).map(|length| at + length);
            self.unquoted.extend_from_slice(&line[at..end.unwrap_or(line.len())]);
            self.ends.push(self.unquoted.len() as u32);
            let Some(end) = end else { return };
            self.unquoted.push(delimiter);
            at = end + 1;
        }
    }

    /// Whether the record that was split has a quote that isn't closed.
    #[inline]
    pub(crate) fn is_unclosed(&self) -> bool {
        self.unclosed
    }

    /// The record that was split from the begin of `data`.
    #[inline]
    pub(crate) fn record<'r>(&'r self, data: &'r [u8]) -> Record<'r> {
        Record { bytes: if self.quoted { &self.unquoted } else { data }, ends: &self.ends }
    }
}

/// A line without `\n` or `\r\n`.
pub(crate) fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
