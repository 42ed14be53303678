//! Feeds: input that comes once and can't be asked for again. Standard input, and lines from a TCP server.
//!
//! ```text
//!  stdin: file descriptor 0 ─┐
//!  socket: connects, again ──┴─▶ source: records as they come ─▶ rows     (the rest is `records`)
//! ```
//!
//! # Invariants
//!
//! - A row that a checkpoint covers is never read again, and one that was read after the last checkpoint of a failed attempt is lost: at most
//!   once. Everything behind the source is as exact as behind any other.
//! - No row is made of a piece of a record: where the begin or the end of one may be missing, it is left out.

mod socket;
mod source;
mod stdin;

use std::marker::PhantomData;
use std::sync::Arc;

use highwater_runtime::Data;
use highwater_runtime::connector::Source;

use super::IntoSource;
use super::records::csv::de::Header;
use super::records::format::{Csv, Ndjson, ReadFormat, Text};
use source::{FeedSource, Origin};

/// A record of more bytes is malformed. Less than for files: until a quote is closed, everything behind it waits.
const LONGEST_RECORD: usize = 1 << 20;

/// Standard input as a source: `producer | my-job`. At most once.
///
/// Records become rows as they come, and the end of the input is the end of the source. It is read by one worker, of process 0; a job has one
/// such source at the most.
///
/// If the job fails, its next attempt goes on behind what the last one has read, and what that had read after its last checkpoint is
/// lost; nobody knows how much. The first line that the next attempt reads is left out, since it may be the rest of one. For
/// input that exists as a file, [`Files`](super::Files) loses nothing.
///
/// ```
/// use highwater::connectors::{IntoSource, Stdin};
///
/// let lines = IntoSource::<String>::into_source(Stdin::text());
/// let pairs = IntoSource::<(String, u64)>::into_source(Stdin::ndjson());
/// # let _ = (lines, pairs);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stdin;

/// Lines from a TCP server as a source. At most once.
///
/// The job connects to the server, and connects again, after 0.1 seconds at first and 5 at the most, whenever there is no connection; each time with
/// a warning. What the server sends while nobody is connected is lost, as is what was read after the last checkpoint of an attempt that failed.
/// A last line that the connection doesn't end is left out. One worker reads.
///
/// ```
/// use highwater::connectors::{IntoSource, Socket};
///
/// let lines = IntoSource::<String>::into_source(Socket::text("localhost:9999"));
/// assert_eq!(lines.splits(&[])?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Socket;

impl Stdin {
    /// Lines of text, without their line ends.
    ///
    /// ```
    /// use highwater::connectors::Stdin;
    /// let lines = Stdin::text();
    /// # let _ = lines;
    /// ```
    pub fn text() -> Feed<Text> {
        Feed::new(Origin::Stdin, Text)
    }

    /// One JSON value a line.
    ///
    /// ```
    /// use highwater::connectors::Stdin;
    /// let events = Stdin::ndjson();
    /// # let _ = events;
    /// ```
    pub fn ndjson() -> Feed<Ndjson> {
        Feed::new(Origin::Stdin, Ndjson)
    }

    /// Comma-separated values, whose fields are taken by position unless the columns are [named](Feed::columns).
    ///
    /// ```
    /// use highwater::connectors::Stdin;
    /// let flights = Stdin::csv().columns(["carrier", "delay"]);
    /// # let _ = flights;
    /// ```
    pub fn csv() -> Feed<Csv> {
        Feed::new(Origin::Stdin, Csv { header: false, delimiter: b',' })
    }
}

impl Socket {
    /// Lines of text from the server at `host:port`, without their line ends.
    ///
    /// ```
    /// use highwater::connectors::Socket;
    /// let lines = Socket::text("localhost:9999");
    /// # let _ = lines;
    /// ```
    pub fn text(address: impl Into<String>) -> Feed<Text> {
        Feed::new(Origin::socket(address.into()), Text)
    }

    /// One JSON value a line.
    ///
    /// ```
    /// use highwater::connectors::Socket;
    /// let events = Socket::ndjson("localhost:9999");
    /// # let _ = events;
    /// ```
    pub fn ndjson(address: impl Into<String>) -> Feed<Ndjson> {
        Feed::new(Origin::socket(address.into()), Ndjson)
    }

    /// Comma-separated values, whose fields are taken by position unless the columns are [named](Feed::columns).
    ///
    /// ```
    /// use highwater::connectors::Socket;
    /// let quotes = Socket::csv("localhost:9999").columns(["symbol", "price"]);
    /// # let _ = quotes;
    /// ```
    pub fn csv(address: impl Into<String>) -> Feed<Csv> {
        Feed::new(Origin::socket(address.into()), Csv { header: false, delimiter: b',' })
    }
}

/// Input that comes once and can't be asked for again: what [`Stdin`] and [`Socket`] make.
#[derive(Clone, Debug)]
pub struct Feed<F> {
    origin: Origin,
    format: F,
    columns: Option<Header>,
    longest_record: usize,
}

impl<F> Feed<F> {
    fn new(origin: Origin, format: F) -> Self {
        Feed { origin, format, columns: None, longest_record: LONGEST_RECORD }
    }

    /// A record of more than about so many bytes is malformed; 1 MB if not said. In CSV a quote that isn't closed holds the records behind it
    /// up until so many bytes have come.
    ///
    /// ```
    /// use highwater::connectors::Socket;
    /// let events = Socket::ndjson("localhost:9999").longest_record(64 << 10);
    /// # let _ = events;
    /// ```
    #[must_use]
    pub fn longest_record(self, bytes: usize) -> Self {
        Feed { longest_record: bytes, ..self }
    }

    /// The source is at its end when the server closes the connection, instead of connecting again. For sockets.
    ///
    /// ```
    /// use highwater::connectors::Socket;
    /// let dump = Socket::ndjson("localhost:9999").once();
    /// # let _ = dump;
    /// ```
    #[must_use]
    pub fn once(mut self) -> Self {
        if let Origin::Socket { once, .. } = &mut self.origin {
            *once = true;
        }
        self
    }

    fn source<T: Data>(self) -> Arc<dyn Source>
    where
        F: ReadFormat<T>,
    {
        let Feed { origin, format, columns, longest_record } = self;
        Arc::new(FeedSource::<T, F> { origin, format, columns, longest_record, rows: PhantomData })
    }
}

impl Feed<Csv> {
    /// What the columns are called, in their order: a struct then takes its fields by name. They can't be taken from a first record, which only
    /// the first attempt of a job would ever see; one that says just these names, at the begin of the input or of a connection, is left out.
    ///
    /// ```
    /// use highwater::connectors::{IntoSource, Stdin};
    ///
    /// #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// struct Flight { delay: Option<i32>, carrier: String }
    ///
    /// let flights = Stdin::csv().columns(["carrier", "tail", "delay"]);
    /// let source = IntoSource::<Flight>::into_source(flights);
    /// # let _ = source;
    /// ```
    #[must_use]
    pub fn columns<C: Into<String>>(self, names: impl IntoIterator<Item = C>) -> Self {
        Feed { columns: Some(names.into_iter().map(Into::into).collect()), ..self }
    }

    /// What separates fields; a comma if not said.
    ///
    /// ```
    /// use highwater::connectors::Stdin;
    /// let table = Stdin::csv().delimiter(b'\t');
    /// # let _ = table;
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if it is a quote or a line end, which have a meaning of their own.
    #[must_use]
    pub fn delimiter(self, delimiter: u8) -> Self {
        Feed { format: self.format.delimited_by(delimiter), ..self }
    }
}

impl<T: Data> IntoSource<T> for Feed<Csv> {
    fn into_source(self) -> Arc<dyn Source> {
        self.source::<T>()
    }
}

impl<T: Data> IntoSource<T> for Feed<Ndjson> {
    fn into_source(self) -> Arc<dyn Source> {
        self.source::<T>()
    }
}

impl IntoSource<String> for Feed<Text> {
    fn into_source(self) -> Arc<dyn Source> {
        self.source::<String>()
    }
}
