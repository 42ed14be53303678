//! Stream processing that survives failure.
//!
//! A Highwater job reads records from sources, computes on them with state for each key, and writes to sinks. It can be killed
//! at any instant: started again, it goes on from its last checkpoint, and its results are as if nothing had happened. Nothing has
//! to be set up: checkpoints go to a folder beside the job.
//!
//! ```
//! use highwater::testing::{self, Collect, Script};
//!
//! // What a user writes: a job function over streams ...
//! fn totals(sales: highwater::Stream<(String, u64)>) -> highwater::Stream<(String, u64)> {
//!     sales.keyed().reduce(|a, b| a + b).uid("totals")
//! }
//!
//! // ... and a test of it, with a crash in the middle.
//! let run = testing::run(2, |job| {
//!     let sales = Script::new()
//!         .records([("tea".to_owned(), 2), ("cocoa".to_owned(), 3)])
//!         .checkpoint()
//!         .crash()
//!         .record(("tea".to_owned(), 5));
//!     totals(job.read("sales", sales)).write("out", Collect);
//! })?;
//! assert_eq!(run.last_per_key::<String, u64>("out")["tea"], 7);
//! # Ok::<(), highwater::Error>(())
//! ```
//!
//! - [`run`](fn@run) runs a job as a program: options from the command line, signals, a progress line.
//! - [`Job`], [`Stream`], [`KeyedStream`]: what a job is made of. - [`connectors`]: where records come from and go to.
//! - [`control`] looks at a running job and steers it, from another process. - [`testing`] runs a job in a test, with crashes.

mod api;
pub mod connectors;
pub mod control;
mod desk;
mod error;
mod front;
mod memory;
mod metrics;
mod options;
mod progress;
mod run;
mod supervise;
pub mod testing;
mod voice;

pub use api::*;
pub use error::{Error, Result};
pub use highwater_env as env;
pub use highwater_runtime::{Control, Outcome, Settings, Trigger, observe};
pub use options::Options;
pub use run::{Runner, run};
pub use supervise::{FailingRecord, Restart};

/// The pages of documentation with examples, which are run as those here are.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../docs/dstreams.md")]
    struct DStreams;
    #[doc = include_str!("../../../docs/event-time.md")]
    struct EventTime;
    #[doc = include_str!("../../../docs/process.md")]
    struct ProcessFunctions;
}

/// What most jobs import.
pub mod prelude {
    pub use crate::connectors::*;
    pub use crate::{Job, KeyedStream, Running, Stream, run};
}
