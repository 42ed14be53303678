//! Records that a source can't read, and what becomes of them. A reader asks [`MalformedRecords`] about each, so that all sources
//! answer alike.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::BoxError;
use crate::observe::ReaderProgress;

/// So many characters of a record are shown in an error.
const SHOWN: usize = 200;

/// So many bytes of a record a [`Reject`] holds.
const KEPT: usize = 64 << 10;

/// What a source does with a record that it can't read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Malformed {
    /// The job ends with an error that names its place and shows it.
    #[default]
    Fail,
    /// It is left out and counted.
    Skip,
    /// It becomes a row of the source's second output.
    Reject,
}

/// A record that its source couldn't read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// The source's uid.
    pub source: String,
    /// The split that it is in: a file, a partition.
    pub split: String,
    /// Its number in the split, from 1.
    pub record: u64,
    /// The line of the file on which it begins, from 1; none if that isn't known or there are no lines.
    pub line: Option<u64>,
    /// Where in the split it begins, as the source counts: a byte of a file (uncompressed), an offset of a partition.
    pub position: u64,
    /// What it says, without its line end. What isn't UTF-8 is replaced by U+FFFD, and what is beyond 64 KB is cut off.
    pub text: String,
    /// Why it can't be read.
    pub error: String,
}

impl Reject {
    /// Record number `record` of `split`, which begins at `position`; the rest is empty.
    pub fn new(split: &str, record: u64, position: u64) -> Self {
        let split = split.to_owned();
        let (source, text, error) = (String::new(), String::new(), String::new());
        Reject { source, split, record, line: None, position, text, error }
    }

    /// The text of a record, as a reject holds it.
    pub fn text_of(record: &[u8]) -> String {
        let kept = String::from_utf8_lossy(&record[..record.len().min(KEPT)]);
        kept.trim_end_matches(['\n', '\r']).to_owned()
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reject { split, record, line, position, text, error, .. } = self;
        match line {
            Some(line) => write!(f, "{split}:{line} (record {record})")?,
            None => write!(f, "{split}, at {position} (record {record})")?,
        }
        let shown: String = text.chars().take(SHOWN).collect();
        let more = if shown.len() < text.len() { " ..." } else { "" };
        write!(f, ": {error}\n  in: {shown}{more}")
    }
}

/// As the error of a source: the record that ended the job.
impl std::error::Error for Reject {}

/// Deals with the malformed records of one reader as its source was told to.
#[derive(Debug, Default)]
pub struct MalformedRecords {
    policy: Malformed,
    source: String,
    rejects: Vec<Reject>,
    progress: ReaderProgress,
}

impl MalformedRecords {
    /// For the source with this uid.
    pub fn new(source: &str, policy: Malformed, progress: ReaderProgress) -> Self {
        MalformedRecords { policy, source: source.to_owned(), rejects: Vec::new(), progress }
    }

    /// Deals with a record that can't be read. The source's uid is filled in here.
    ///
    /// # Errors
    ///
    /// If the job is to end with it.
    pub fn reject(&mut self, mut record: Reject) -> Result<(), BoxError> {
        match self.policy {
            Malformed::Fail => return Err(record.into()),
            Malformed::Skip => self.progress.skipped(1),
            Malformed::Reject => {
                record.source.clone_from(&self.source);
                self.rejects.push(record);
                self.progress.rejected(1);
            }
        }
        Ok(())
    }

    /// The rejects since the last call, which go with the rows that are polled next.
    pub fn take(&mut self) -> Vec<Reject> {
        std::mem::take(&mut self.rejects)
    }
}
