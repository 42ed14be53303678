//! Files as source and sink: text, newline-delimited JSON, CSV; compressed files and other encodings on the way in.
//!
//! ```text
//!  discover: which splits ─▶ blocks: whole records ─▶ rows ─▶ job ─▶ writer: staged files ─▶ publisher: parts
//!  watch: new ones           content: bytes
//! ```
//!
//! How bytes become records and rows is in [`records`](super::records).

mod blocks;
mod content;
mod discover;
mod layout;
#[cfg(feature = "parquet")]
mod parquet;
mod partition;
mod place;
mod publisher;
mod source;
mod staging;
mod watch;
mod writer;

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use highwater_runtime::Data;
use highwater_runtime::connector::{Sink, Source};

use super::records::format::{self, Csv, Ndjson, Text};
use super::{IntoSink, IntoSource};
use discover::{Cut, Place};
use encoding_rs::Encoding;
#[cfg(feature = "parquet")]
pub use parquet::{Compression, Parquet};
use partition::Partition;
use publisher::Roll;
use source::FileSource;
use watch::Watch;
use writer::FileSink;

/// Files, to read from or to write to.
///
/// To read, name a file, a pattern (`data/*.csv`) or a folder; files that end in `.gz` or `.zst` are
/// uncompressed. To write, name a folder: it fills
/// with `part-...` files, which appear whole, with the checkpoint that covers them, and never change. It may be in a bucket:
/// `s3://bucket/prefix`, with the feature `s3` and the settings that checkpoints there take (variables `AWS_...`).
///
/// ```
/// use highwater::connectors::Files;
///
/// let flights = Files::csv("data/flights.csv.gz");
/// let measurements = Files::csv("data/*.txt").delimiter(b';').without_header();
/// let worst = Files::ndjson("out/worst");
/// let all = Files::csv("s3://bucket/out/all");
/// # let _ = (flights, measurements, worst, all);
/// ```
#[derive(Clone, Debug)]
pub struct Files<F = Csv> {
    path: PathBuf,
    format: F,
    split_bytes: Option<u64>,
    longest_record: usize,
    encoding: Option<&'static Encoding>,
    watch: Option<Watch>,
    rate: Option<u64>,
    roll: Roll,
}

/// Lines are cut off one another anywhere, so that large files are read by several workers.
const SPLIT_BYTES: u64 = 64 << 20;

/// A record of more bytes is malformed.
const LONGEST_RECORD: usize = 64 << 20;

impl Files {
    /// Comma-separated values with a header.
    ///
    /// A struct takes its fields from the columns of the same names, whatever their order; a tuple takes them by
    /// position. An empty field is `None`. The first record names the columns ([`Files::without_header`] if it doesn't).
    ///
    /// ```
    /// use highwater::connectors::{Files, IntoSource};
    ///
    /// #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// struct Flight { carrier: String, delay: Option<i32> }
    ///
    /// let source = IntoSource::<Flight>::into_source(Files::csv("data/flights.csv"));
    /// # let _ = source;
    /// ```
    pub fn csv(path: impl AsRef<Path>) -> Files<Csv> {
        // A line end within quotes can't be told from one that ends a record without reading from the file's begin.
        Files::new(path.as_ref(), Csv { header: true, delimiter: b',' }, None)
    }

    /// One JSON value a line.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let events = Files::ndjson("events/");
    /// # let _ = events;
    /// ```
    pub fn ndjson(path: impl AsRef<Path>) -> Files<Ndjson> {
        Files::new(path.as_ref(), Ndjson, Some(SPLIT_BYTES))
    }

    /// Lines of text: read as `String`, without their line ends; written from anything that can be displayed.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let lines = Files::text("logs/*.log");
    /// # let _ = lines;
    /// ```
    pub fn text(path: impl AsRef<Path>) -> Files<Text> {
        Files::new(path.as_ref(), Text, Some(SPLIT_BYTES))
    }
}

impl<F> Files<F> {
    fn new(path: &Path, format: F, split_bytes: Option<u64>) -> Self {
        Files {
            path: path.to_owned(),
            format,
            split_bytes,
            longest_record: LONGEST_RECORD,
            encoding: None,
            watch: None,
            rate: None,
            roll: Roll::default(),
        }
    }

    /// Goes on looking for new files while the job runs, every `interval`; the job ends only when it is stopped. For reading.
    ///
    /// Each file is read once, whatever happens to the job. It is taken when nobody has changed it for one interval, and must not
    /// be changed after that; the best is to write it elsewhere and rename it into its folder. The name of every file is
    /// remembered: if they come in an order, use [`Files::watch_in_order`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use highwater::connectors::Files;
    /// let orders = Files::ndjson("orders/").watch(Duration::from_secs(1));
    /// # let _ = orders;
    /// ```
    #[must_use]
    pub fn watch(self, interval: Duration) -> Self {
        Files { watch: Some(Watch { interval, in_order: false }), ..self }
    }

    /// Looks for new files as [`Files::watch`] does, and takes them in the order of their names (`2024-05-17T12.ndjson`, `000042.csv`).
    /// Only the last one needs to be remembered. A file whose name is before that of one that was taken comes too late: it is
    /// left out, with a warning. For reading.
    ///
    /// ```
    /// use std::time::Duration;
    /// use highwater::connectors::Files;
    /// let orders = Files::ndjson("orders/*.ndjson").watch_in_order(Duration::from_secs(1));
    /// # let _ = orders;
    /// ```
    #[must_use]
    pub fn watch_in_order(self, interval: Duration) -> Self {
        Files { watch: Some(Watch { interval, in_order: true }), ..self }
    }

    /// What the files are written in: a name of the [Encoding Standard](https://encoding.spec.whatwg.org/#names-and-labels), such as
    /// `windows-1252` or `shift_jis`; UTF-8 if not said. UTF-8 and UTF-16 with a byte order mark are known by it. What can't be decoded becomes
    /// U+FFFD. For reading; files in other encodings than UTF-8 are never cut.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let old = Files::csv("data/1998.csv").encoding("windows-1252");
    /// # let _ = old;
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if there is no such encoding.
    #[must_use]
    pub fn encoding(self, name: &str) -> Self {
        let encoding = Encoding::for_label(name.as_bytes());
        assert!(encoding.is_some(), "there is no encoding `{name}`");
        Files { encoding, ..self }
    }

    /// A record of more than about so many bytes is malformed; 64 MB if not said. This bounds the memory that a file without line ends
    /// takes. For reading.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let events = Files::ndjson("events/").longest_record(1 << 20);
    /// # let _ = events;
    /// ```
    #[must_use]
    pub fn longest_record(self, bytes: usize) -> Self {
        Files { longest_record: bytes, ..self }
    }

    /// Cuts files larger than this into pieces that are read in parallel. Text and NDJSON are cut at 64 MB by
    /// themselves.
    ///
    /// CSV is not, because a piece can only begin at a line end, and one within quotes looks the same as one between
    /// records: say this only if no field has a line end in it. Compressed files are never cut.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let big = Files::csv("data/measurements.csv").split_bytes(256 << 20);
    /// # let _ = big;
    /// ```
    #[must_use]
    pub fn split_bytes(self, bytes: u64) -> Self {
        Files { split_bytes: Some(bytes), ..self }
    }

    /// Reads so many records a second, over all workers, from the start of the attempt on. What a pause held back comes at once behind it. For
    /// reading.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let slow = Files::csv("data/flights.csv").rate(10_000);
    /// # let _ = slow;
    /// ```
    #[must_use]
    pub fn rate(self, records_per_second: u64) -> Self {
        Files { rate: Some(records_per_second), ..self }
    }

    /// Begins a new file when one is this large; 128 MB if not said. For writing.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let out = Files::csv("out/worst").roll_bytes(1 << 30);
    /// # let _ = out;
    /// ```
    #[must_use]
    pub fn roll_bytes(mut self, bytes: u64) -> Self {
        self.roll.bytes = bytes.max(1);
        self
    }

    /// Gathers the output of several checkpoints in one file until its first row is this old, or there is enough for
    /// [`Files::roll_bytes`], or 256 staged files wait (one for each worker, checkpoint and folder): take checkpoints less often for files
    /// that gather longer. Without this, every checkpoint that has rows publishes its own file. For writing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use highwater::connectors::Files;
    /// let out = Files::csv("out/worst").roll_age(Duration::from_secs(60));
    /// # let _ = out;
    /// ```
    #[must_use]
    pub fn roll_age(mut self, age: Duration) -> Self {
        self.roll.age = age;
        self
    }

    /// Writes into folders within the folder, named `column=value` as Hive, Spark and DuckDB read them. For writing.
    ///
    /// Characters that can't stand in such a name become `%XX`; rows with an empty value go to
    /// `column=__HIVE_DEFAULT_PARTITION__`. The columns stay in the rows, too. Every checkpoint writes a file for each
    /// folder that it has rows for: partition by what changes slowly, or gather with [`Files::roll_age`].
    ///
    /// ```
    /// use highwater::connectors::{Files, IntoSink};
    ///
    /// #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// struct Worst { carrier: String, day: String, delay: u32 }
    ///
    /// let files = Files::ndjson("out/worst");
    /// let files = files.partition_by(["day", "carrier"], |row: &Worst| [row.day.clone(), row.carrier.clone()]);
    /// // out/worst/day=2026-11-25/carrier=AA/part-....ndjson
    /// let sink = files.into_sink();
    /// # let _ = sink;
    /// ```
    #[must_use]
    pub fn partition_by<T: Data, V: Display, const N: usize>(
        self,
        columns: [&str; N],
        values: impl Fn(&T) -> [V; N] + Send + Sync + 'static,
    ) -> PartitionedFiles<T, F> {
        PartitionedFiles { files: self, partition: partition::by(columns, values) }
    }
}

impl Files<Csv> {
    /// The files have no line with the names of the columns; a struct takes its fields by position.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let bids = Files::csv("bid/*.csv").without_header();
    /// # let _ = bids;
    /// ```
    #[must_use]
    pub fn without_header(mut self) -> Self {
        self.format.header = false;
        self
    }

    /// What separates fields; a comma if not said.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let table = Files::csv("table.tsv").delimiter(b'\t');
    /// # let _ = table;
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if it is a quote or a line end, which have a meaning of their own.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.format = self.format.delimited_by(delimiter);
        self
    }
}

impl<F> Files<F> {
    fn place(&self) -> Place {
        Place {
            // Splits are named by paths, which have to be text in the end; lossy ones match nothing and are named in the error.
            pattern: self.path.to_string_lossy().into_owned(),
            split_bytes: self.split_bytes,
            encoding: self.encoding,
            watch: self.watch,
            cut: Cut::Lines,
        }
    }

    fn source<T: Data>(self) -> Arc<dyn Source>
    where
        F: format::ReadFormat<T>,
    {
        Arc::new(FileSource::<T, F> {
            place: self.place(),
            format: self.format,
            longest_record: self.longest_record,
            rate: self.rate,
            rows: PhantomData,
        })
    }

    fn sink<T: Data>(self, partition: Option<Partition<T>>) -> Arc<dyn Sink>
    where
        F: format::WriteFormat<T>,
    {
        let Files { path, format, roll, .. } = self;
        Arc::new(FileSink::<T, F> { path, format, roll, partition })
    }
}

/// Files in folders by the values of some columns: what [`Files::partition_by`] makes.
pub struct PartitionedFiles<T, F> {
    files: Files<F>,
    partition: Partition<T>,
}

impl<T, F: fmt::Debug> fmt::Debug for PartitionedFiles<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PartitionedFiles").field(&self.files).finish()
    }
}

impl<T: Data, F: format::WriteFormat<T>> IntoSink<T> for PartitionedFiles<T, F> {
    fn into_sink(self) -> Arc<dyn Sink> {
        self.files.sink(Some(self.partition))
    }
}

impl<T: Data> IntoSource<T> for Files<Csv> {
    fn into_source(self) -> Arc<dyn Source> {
        self.source::<T>()
    }
}

impl<T: Data> IntoSource<T> for Files<Ndjson> {
    fn into_source(self) -> Arc<dyn Source> {
        self.source::<T>()
    }
}

impl IntoSource<String> for Files<Text> {
    fn into_source(self) -> Arc<dyn Source> {
        self.source::<String>()
    }
}

impl<T: Data> IntoSink<T> for Files<Csv> {
    fn into_sink(self) -> Arc<dyn Sink> {
        self.sink::<T>(None)
    }
}

impl<T: Data> IntoSink<T> for Files<Ndjson> {
    fn into_sink(self) -> Arc<dyn Sink> {
        self.sink::<T>(None)
    }
}

impl<T: Data + Display> IntoSink<T> for Files<Text> {
    fn into_sink(self) -> Arc<dyn Sink> {
        self.sink::<T>(None)
    }
}
