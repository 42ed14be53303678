//! What a file's lines are: text, JSON or CSV; how rows are read from them and written to them.

use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::Write as _;

use highwater_runtime::{BoxError, Data};
use memchr::memchr;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::csv::de::Layout;
use super::csv::ser;
use super::csv::tokens::{Tokens, without_line_end};
use super::frames::{Block, Framing};

/// Comma-separated values: the format of [`Files::csv`](crate::connectors::Files::csv) and other connectors' `csv`.
#[derive(Clone, Debug)]
pub struct Csv {
    pub(crate) header: bool,
    pub(crate) delimiter: u8,
}

/// A JSON value a line: the format of [`Files::ndjson`](crate::connectors::Files::ndjson) and other connectors' `ndjson`.
#[derive(Clone, Debug)]
pub struct Ndjson;

/// Lines of text: the format of [`Files::text`](crate::connectors::Files::text) and other connectors' `text`.
#[derive(Clone, Debug)]
pub struct Text;

impl Csv {
    /// The same with another delimiter.
    ///
    /// # Panics
    ///
    /// Panics if it is a quote or a line end, which have a meaning of their own.
    pub(crate) fn delimited_by(self, delimiter: u8) -> Self {
        assert!(!b"\"\r\n".contains(&delimiter), "a quote or a line end can't separate fields");
        Csv { delimiter, ..self }
    }
}

/// A format from which rows of type `T` can be read.
pub(crate) trait ReadFormat<T>: Clone + Send + Sync + 'static {
    /// What separates records.
    fn framing(&self) -> Framing;

    /// What parses it.
    type Parser: Parser<T> + 'static;

    /// Makes a parser.
    fn parser(&self) -> Self::Parser;
}

/// Turns records into rows.
pub(crate) trait Parser<T> {
    /// A new block comes, perhaps of another file.
    fn begin(&mut self, block: &Block) {
        let _ = block;
    }

    /// Reads the record at the begin of `data`, which isn't empty: its length, and the row; none for an empty line that
    /// is no record.
    fn next(&mut self, data: &[u8]) -> (usize, Result<Option<T>, BoxError>);
}

/// A format to which rows of type `T` can be written.
pub(crate) trait WriteFormat<T>: FileFormat {
    /// Rows of one file, as the worker hands them over.
    type Chunk: Default + Send + 'static;

    /// What makes bytes of them, on the writing thread.
    type Encoder: Encoder<Self::Chunk> + Send + 'static;

    /// Whether such rows can be written; asked when the job's graph is checked.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Appends a row; answers by how many bytes the chunk has grown.
    fn write(&self, row: &T, chunk: &mut Self::Chunk) -> Result<usize, BoxError>;

    /// Makes room for about so many bytes.
    fn reserve(&self, chunk: &mut Self::Chunk, bytes: usize) {
        let _ = (chunk, bytes);
    }

    /// What a file of rows like this one begins with.
    fn header(&self, row: &T) -> Result<Vec<u8>, BoxError> {
        let _ = row;
        Ok(Vec::new())
    }

    /// An encoder for one file.
    fn encoder(&self) -> Self::Encoder;
}

/// Makes the bytes of one file.
pub(crate) trait Encoder<C> {
    /// Takes rows, and appends what is done to `out`.
    fn encode(&mut self, chunk: C, out: &mut Vec<u8>) -> Result<(), BoxError>;

    /// About how many bytes it has taken that aren't done.
    fn pending(&self) -> usize {
        0
    }

    /// Appends all that isn't done, so that it takes no memory.
    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let _ = out;
        Ok(())
    }

    /// By what its columns are known; none if files of any columns may be put together.
    fn columns(&self) -> Option<u32> {
        None
    }

    /// Appends the end of the file.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let _ = out;
        Ok(())
    }
}

/// The encoder of formats whose rows become bytes one by one: they already are.
#[derive(Debug)]
pub(crate) struct Plain;

impl Encoder<Vec<u8>> for Plain {
    fn encode(&mut self, chunk: Vec<u8>, out: &mut Vec<u8>) -> Result<(), BoxError> {
        match out.is_empty() {
            true => *out = chunk,
            false => out.extend_from_slice(&chunk),
        }
        Ok(())
    }
}

/// What a sink's files look like, whatever the rows.
pub(crate) trait FileFormat: Clone + Send + Sync + 'static {
    /// What the names of files end with.
    const EXTENSION: &'static str;

    /// The length of the header at the begin of a file's content.
    fn header_length(&self, content: &[u8]) -> usize {
        let _ = content;
        0
    }

    /// Puts the contents of several files together as one, whose columns are the same; the same ones always make the same.
    fn join(&self, contents: Contents<'_>, out: &mut File) -> Result<(), BoxError> {
        let mut header: Option<Vec<u8>> = None;
        for content in contents {
            let content = content?;
            let length = self.header_length(&content);
            // Other columns, since the job was changed in between: better in the middle than not at all.
            let is_there = header.as_ref().is_some_and(|header| content[..length] == header[..]);
            out.write_all(&content[if is_there { length } else { 0 }..])?;
            header.get_or_insert_with(|| content[..length].to_vec());
        }
        Ok(())
    }
}

/// The contents of files, one after the other.
pub(crate) type Contents<'c> = &'c mut dyn Iterator<Item = Result<Vec<u8>, BoxError>>;

fn line(data: &[u8]) -> &[u8] {
    &data[..memchr(b'\n', data).map_or(data.len(), |at| at + 1)]
}

/// The parser of text.
#[derive(Debug)]
pub(crate) struct TextParser;

impl ReadFormat<String> for Text {
    type Parser = TextParser;

    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn parser(&self) -> TextParser {
        TextParser
    }
}

impl Parser<String> for TextParser {
    fn next(&mut self, data: &[u8]) -> (usize, Result<Option<String>, BoxError>) {
        let line = line(data);
        let text = match std::str::from_utf8(without_line_end(line)) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(error) => {
                Err(format!("expected UTF-8 text, and byte {} isn't", error.valid_up_to() + 1)
                    .into())
            }
        };
        (line.len(), text)
    }
}

/// The parser of JSON.
#[derive(Debug)]
pub(crate) struct JsonParser;

impl<T: DeserializeOwned> ReadFormat<T> for Ndjson {
    type Parser = JsonParser;

    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn parser(&self) -> JsonParser {
        JsonParser
    }
}

impl<T: DeserializeOwned> Parser<T> for JsonParser {
    fn next(&mut self, data: &[u8]) -> (usize, Result<Option<T>, BoxError>) {
        let line = line(data);
        if line.trim_ascii().is_empty() {
            return (line.len(), Ok(None));
        }
        let row = serde_json::from_slice(line).map(Some).map_err(|error| {
            // The line's number is said elsewhere; within it, only the column helps.
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or(&text);
            format!("{what} (character {})", error.column()).into()
        });
        (line.len(), row)
    }
}

/// The parser of CSV.
pub(crate) struct CsvParser {
    delimiter: u8,
    tokens: Tokens,
    layout: Layout,
    /// Whether the block has quotes.
    quotes: bool,
    position: Option<u64>,
}

impl<T: DeserializeOwned> ReadFormat<T> for Csv {
    type Parser = CsvParser;

    fn framing(&self) -> Framing {
        Framing::Csv { delimiter: self.delimiter, header: self.header }
    }

    fn parser(&self) -> CsvParser {
        CsvParser {
            delimiter: self.delimiter,
            tokens: Tokens::default(),
            layout: Layout::new(None),
            quotes: false,
            position: None,
        }
    }
}

impl<T: DeserializeOwned> Parser<T> for CsvParser {
    fn begin(&mut self, block: &Block) {
        self.quotes = memchr(b'"', &block.data).is_some();
        // The next block of the same file has the same columns.
        if self.position != Some(block.position) || !self.layout.is_for(block.header.as_ref()) {
            self.layout = Layout::new(block.header.clone());
        }
        self.position = Some(block.position + block.data.len() as u64);
    }

    #[inline]
    fn next(&mut self, data: &[u8]) -> (usize, Result<Option<T>, BoxError>) {
        let length = self.tokens.split(data, self.delimiter, self.quotes);
        if self.tokens.is_unclosed() {
            return (length, Err("a quote is not closed".into()));
        }
        if length <= 2 && without_line_end(&data[..length]).is_empty() {
            return (length, Ok(None));
        }
        let row = self.layout.row(self.tokens.record(data));
        (length, row.map(Some).map_err(BoxError::from))
    }
}

impl<T: Data + Display> WriteFormat<T> for Text {
    type Chunk = Vec<u8>;
    type Encoder = Plain;

    fn write(&self, row: &T, out: &mut Vec<u8>) -> Result<usize, BoxError> {
        struct Bytes<'o>(&'o mut Vec<u8>);
        impl std::fmt::Write for Bytes<'_> {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                self.0.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
        let before = out.len();
        write!(Bytes(out), "{row}")?;
        out.push(b'\n');
        Ok(out.len() - before)
    }

    fn reserve(&self, chunk: &mut Vec<u8>, bytes: usize) {
        chunk.reserve(bytes);
    }

    fn encoder(&self) -> Plain {
        Plain
    }
}

impl<T: Serialize> WriteFormat<T> for Ndjson {
    type Chunk = Vec<u8>;
    type Encoder = Plain;

    fn write(&self, row: &T, out: &mut Vec<u8>) -> Result<usize, BoxError> {
        let before = out.len();
        serde_json::to_writer(&mut *out, row)?;
        out.push(b'\n');
        Ok(out.len() - before)
    }

    fn reserve(&self, chunk: &mut Vec<u8>, bytes: usize) {
        chunk.reserve(bytes);
    }

    fn encoder(&self) -> Plain {
        Plain
    }
}

impl<T: Serialize> WriteFormat<T> for Csv {
    type Chunk = Vec<u8>;
    type Encoder = Plain;

    #[inline]
    fn write(&self, row: &T, out: &mut Vec<u8>) -> Result<usize, BoxError> {
        let before = out.len();
        ser::write_row(row, self.delimiter, out)?;
        Ok(out.len() - before)
    }

    fn header(&self, row: &T) -> Result<Vec<u8>, BoxError> {
        if self.header { Ok(ser::header(row, self.delimiter)?) } else { Ok(Vec::new()) }
    }

    fn reserve(&self, chunk: &mut Vec<u8>, bytes: usize) {
        chunk.reserve(bytes);
    }

    fn encoder(&self) -> Plain {
        Plain
    }
}

impl FileFormat for Text {
    const EXTENSION: &'static str = "txt";
}

impl FileFormat for Ndjson {
    const EXTENSION: &'static str = "ndjson";
}

impl FileFormat for Csv {
    const EXTENSION: &'static str = "csv";

    fn header_length(&self, content: &[u8]) -> usize {
        if !self.header {
            return 0;
        }
        super::csv::tokens::record_end(content, self.delimiter).unwrap_or(content.len())
    }
}
