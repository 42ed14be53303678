//! Connectors: where rows come from and go to.
//!
//! Each is a module behind the runtime's traits ([`Source`], [`Sink`]) and knows nothing of the others:
//!
//! | connector | reads | writes |
//! | --- | --- | --- |
//! | [`Files`] | text, NDJSON, CSV, Parquet; compressed | parts in a folder, exactly once |
//! | [`Stdin`], [`Socket`] | lines as they come, at most once | |
//! | [`Http`] | | lines of JSON posted to a web service |
//! | [`foreach_batch`] | | the rows of each checkpoint, to a function |
//! | [`foreach`] | | rows as they come, to a function |
//! | [`Stdout`] | | a line of JSON a row |
//! | [`Collect`] | | memory, for tests |
//! | [`Discard`] | | nowhere, for benchmarks |
//! | [`Script`], `Vec` | what a test says | |
//! | [`Generator`] | rows made by a function | |
//!
//! Sinks deliver with the checkpoints; [`at_least_once`] has one deliver rows as they come.
//!
//! What a user names in `job.read` and `stream.write` is a builder, which becomes a source or sink for rows of one
//! type through [`IntoSource`] and [`IntoSink`].

use std::sync::Arc;

use highwater_runtime::connector::{Sink, Source};

mod at_least_once;
pub mod collect;
mod direct;
mod discard;
#[cfg(feature = "files")]
mod feed;
#[cfg(feature = "files")]
mod files;
mod foreach;
mod foreach_batch;
mod generator;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "files")]
mod records;
mod script;
mod staged_rows;
mod stdout;
#[cfg(test)]
mod testing;

pub use at_least_once::{AtLeastOnce, at_least_once};
pub use collect::Collect;
pub use discard::Discard;
#[cfg(feature = "files")]
pub use feed::{Feed, Socket, Stdin};
#[cfg(feature = "files")]
pub use files::Files;
#[cfg(feature = "parquet")]
pub use files::{Compression, Parquet};
pub use foreach::{Foreach, foreach};
pub use foreach_batch::{ForeachBatch, foreach_batch};
pub use generator::Generator;
pub use highwater_runtime::connector::{Lasting, Reject};
#[cfg(feature = "http")]
pub use http::Http;
#[cfg(feature = "files")]
pub use records::format::{Csv, Ndjson, Text};
pub use script::Script;
pub use stdout::Stdout;

/// What can be read from, as rows of type `T`.
///
/// ```
/// use highwater::connectors::IntoSource;
/// let source = IntoSource::<u64>::into_source(vec![1, 2, 3]);
/// assert_eq!(source.splits(&[])?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub trait IntoSource<T> {
    /// The source, as a plan holds it.
    fn into_source(self) -> Arc<dyn Source>;
}

/// What rows of type `T` can be written to.
///
/// ```
/// use highwater::connectors::{IntoSink, Stdout};
/// let sink = IntoSink::<u64>::into_sink(Stdout::new());
/// # let _ = sink;
/// ```
pub trait IntoSink<T> {
    /// The sink, as a plan holds it.
    fn into_sink(self) -> Arc<dyn Sink>;
}
