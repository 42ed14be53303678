//! A file's content: uncompressed and as UTF-8, from any position on; and by what a file is known to be the one that was found.
//!
//! Positions count bytes of that content. Where the file holds it as it is (it is *plain*) they are the file's own; a file that is
//! stored otherwise has to be read from its begin to get anywhere, and is never cut into pieces.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use encoding_rs::{Encoding, UTF_8};
use encoding_rs_io::DecodeReaderBytesBuilder;
use highwater_runtime::BoxError;
use highwater_runtime::connector::SplitOffset;
use highwater_runtime::observe::ReaderProgress;
use memchr::memchr_iter;

use super::discover::cannot;
use crate::connectors::records::digest::Expected;
use crate::connectors::records::frames::BLOCK;

/// So many bytes at both ends of a file are looked at to know it again.
const ENDS: usize = 4 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// What a file's name says.
    fn of(path: &Path) -> Self {
        match path.extension() {
            Some(ending) if ending.eq_ignore_ascii_case("gz") => Compression::Gzip,
            Some(ending) if ending.eq_ignore_ascii_case("zst") => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// Whether a file is compressed, by its name.
pub(crate) fn is_compressed(path: &Path) -> bool {
    Compression::of(path) != Compression::None
}

/// A file that is open, and is still the one that was found.
pub(crate) struct Content<'p> {
    path: &'p Path,
    file: File,
    compression: Compression,
    /// What it is said to be written in; its mark decides if it has one.
    encoding: Option<&'static Encoding>,
    opened: Seen,
    /// By what the file is known again.
    pub(crate) check: u64,
}

impl<'p> Content<'p> {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// If that can't be, or the file isn't the one that `offset` is of.
    pub(crate) fn open(
        path: &'p Path,
        encoding: Option<&'static Encoding>,
        offset: &SplitOffset,
    ) -> Result<Self, BoxError> {
        let failed = |error| cannot("read", path, &error);
        let file = File::open(path).map_err(failed)?;
        let opened = Seen::of(&file).map_err(failed)?;
        let check = opened.check(&file).map_err(failed)?;
        // Checkpoints of earlier versions know nothing of it.
        if offset.check != 0 && offset.check != check {
            let what = "its length or its content has changed, or it was replaced";
            return Err(another(path, what, offset.records));
        }
        Ok(Content { path, file, compression: Compression::of(path), encoding, opened, check })
    }

    /// Whether positions are the file's own.
    pub(crate) fn is_plain(&self) -> Result<bool, BoxError> {
        if self.compression != Compression::None || self.encoding.is_some_and(|it| it != UTF_8) {
            return Ok(false);
        }
        let mut head = [0; 3];
        let length = read_at_most(&self.file, &mut head, 0);
        let length = length.map_err(|error| cannot("read", self.path, &error))?;
        let marked = Encoding::for_bom(&head[..length]);
        Ok(marked.is_none_or(|(encoding, _)| encoding == UTF_8))
    }

    /// The file itself, for formats that are no lines.
    #[cfg(feature = "parquet")]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// When the file was last changed, in milliseconds since 1970; 0 if nobody knows.
    pub(crate) fn changed_ms(&self) -> u64 {
        let since = self.opened.modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_millis() as u64)
    }

    /// How long the file is, as it is stored.
    pub(crate) fn stored_length(&self) -> u64 {
        self.opened.length
    }

    /// The content from a position on; where getting there takes reading from the begin, also how many lines come before. If the file isn't
    /// plain, what is read of it is said to `progress`; what is read of another is for its blocks to say.
    ///
    /// # Errors
    ///
    /// If it can't be read, or ends before.
    pub(crate) fn from(
        &self,
        position: u64,
        progress: Option<&ReaderProgress>,
    ) -> Result<(Box<dyn BufRead>, Option<u64>), BoxError> {
        self.behind(position, &mut None, progress)
    }

    /// The same, but what comes before is seen, as far as it is `expected`: by the way, or on purpose.
    pub(crate) fn behind(
        &self,
        position: u64,
        expected: &mut Option<Expected>,
        progress: Option<&ReaderProgress>,
    ) -> Result<(Box<dyn BufRead>, Option<u64>), BoxError> {
        let failed = |error| cannot("read", self.path, &error);
        // A clone shares the place at which it reads: one at a time is read.
        let mut file = self.file.try_clone().map_err(failed)?;
        if self.is_plain()? {
            let start = expected.as_ref().map_or(position, |expected| expected.begin);
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
            let mut content = BufReader::with_capacity(BLOCK, file);
            self.skip(&mut content, start, position, expected)?;
            return Ok((Box::new(content), (position == 0).then_some(0)));
        }
        file.rewind().map_err(failed)?;
        let file = Counted { file, progress: progress.cloned() };
        let file = BufReader::with_capacity(64 << 10, file);
        let stored: Box<dyn Read> = match self.compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Compression::Zstd => {
                Box::new(zstd::stream::read::Decoder::with_buffer(file).map_err(failed)?)
            }
        };
        let mut decoded = DecodeReaderBytesBuilder::new();
        decoded.encoding(self.encoding).bom_override(true).utf8_passthru(self.encoding.is_none());
        let mut content = BufReader::with_capacity(BLOCK, decoded.build(stored));
        let lines = self.skip(&mut content, 0, position, expected)?;
        Ok((Box::new(content), Some(lines)))
    }

    /// Reads over what is between two positions; answers how many lines ended there.
    fn skip(
        &self,
        content: &mut impl BufRead,
        mut at: u64,
        position: u64,
        expected: &mut Option<Expected>,
    ) -> Result<u64, BoxError> {
        let mut lines = 0;
        while at < position {
            let found = content.fill_buf().map_err(|error| cannot("read", self.path, &error))?;
            if found.is_empty() {
                return Err(format!(
                    "{} ends before byte {position} of its content, up to which it has been read; it was replaced by a \
                     shorter file",
                    self.path.display()
                )
                .into());
            }
            let left = usize::try_from(position - at).unwrap_or(usize::MAX);
            let found = &found[..found.len().min(left)];
            lines += memchr_iter(b'\n', found).count() as u64;
            if let Some(expected) = expected {
                expected.see(at, found);
            }
            let length = found.len();
            content.consume(length);
            at += length as u64;
        }
        Ok(lines)
    }

    /// Where the first line of a plain file begins that begins at `start` or later.
    pub(crate) fn line_from(&self, start: u64) -> Result<u64, BoxError> {
        // If the byte before is a line end, a line begins right at `start`.
        let (mut input, _) = self.from(start - 1, None)?;
        let skipped = input.skip_until(b'\n');
        let skipped = skipped.map_err(|error| cannot("read", self.path, &error))?;
        Ok(start - 1 + skipped as u64)
    }

    /// Makes sure that nobody has written to the file since it was opened.
    pub(crate) fn is_unchanged(&self) -> Result<(), BoxError> {
        let now = Seen::of(&self.file).map_err(|error| cannot("look at", self.path, &error))?;
        if now == self.opened {
            return Ok(());
        }
        Err(format!(
            "{} was changed while it was being read: it was of {} bytes, and is of {}. A file has to be complete when it is \
             found: write it elsewhere, and rename it into its folder",
            self.path.display(),
            self.opened.length,
            now.length
        )
        .into())
    }
}

/// What is said of a file that isn't the one that was found.
pub(crate) fn another(path: &Path, what: &str, records: u64) -> BoxError {
    format!(
        "{} is not the file any more that was found: {what}; {records} records of it have been read, and what else is new \
         can't be known. Put the old file back, or start over with --fresh. (New data belongs in new files, which are renamed \
         into their folder when they are complete.)",
        path.display(),
    )
    .into()
}

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    length: u64,
    modified: Option<SystemTime>,
}

impl Seen {
    fn of(file: &File) -> io::Result<Self> {
        let file = file.metadata()?;
        Ok(Seen { length: file.len(), modified: file.modified().ok() })
    }

    /// A checksum of the length and of what is at both ends. Not of the time of the last change: a copy of the file is as good. Never
    /// 0, which stands for nothing known.
    fn check(self, file: &File) -> io::Result<u64> {
        let mut bytes = self.length.to_le_bytes().to_vec();
        let mut end = [0; ENDS];
        for at in [0, self.length.saturating_sub(ENDS as u64)] {
            let length = read_at_most(file, &mut end, at)?;
            bytes.extend_from_slice(&end[..length]);
        }
        Ok(xxhash_rust::xxh3::xxh3_64(&bytes).max(1))
    }
}

/// Fills the buffer from a place in the file, as far as there is anything.
fn read_at_most(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64)? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}

/// A file that says how many bytes are read of it.
struct Counted {
    file: File,
    progress: Option<ReaderProgress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        if let Some(progress) = &self.progress {
            progress.read_bytes(length as u64);
        }
        Ok(length)
    }
}
