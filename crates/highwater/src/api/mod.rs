//! The typed API: what a job is written in.
//!
//! A job function gets a [`Job`], reads [`Stream`]s from it, and ends them with [`Stream::write`]. Nothing runs while it does so:
//! every method appends a node to the job's plan, and notes what is wrong with it together with the place in the
//! user's code. Each worker instantiates the finished plan; the operators in this folder are what it makes.
//!
//! ```text
//! Job ─read─▶ Stream<T> ─map, filter, split, union ...─▶ Stream<U> ─write─▶ sink
//!                │ key_by                                    ▲
//!                ▼                                           │
//!             KeyedStream<K, V> ─count, fold, aggregate ...──┤  running aggregates: one row per changed key and epoch
//!                               ─update_state_by_key ────────┤  one row per key and trigger
//!                               ─map_with_state, process ────┤  rows as the function emits them
//!                             ─window ─count, fold ... ────┘  one row per key and window
//! ```
//!
//! Stateless operators work on whole batches with the user's closure compiled in, and the runtime runs a chain of them as one;
//! operators of a keyed stream get each key on one worker only, and keep what they remember in
//! [`KeyedTable`](highwater_state::KeyedTable)s, which are checkpointed.

mod aggregate;
mod changed;
mod connect;
mod distinct;
mod due;
mod few;
mod interval_join;
mod job;
mod key_by;
mod keyed;
mod map_with_state;
mod moment;
mod ordered;
mod process;
mod running;
mod state_spec;
mod stateless;
mod step;
mod stream;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
pub mod time;
mod update_state;
mod window;

use std::hash::Hash;

pub use aggregate::{Aggregate, MergeAggregate};
pub use connect::Either;
pub use highwater_runtime::{BoxError, Data};
pub use interval_join::{IntervalJoin, Joined};
pub use job::Job;
pub use keyed::KeyedStream;
pub use map_with_state::StateHandle;
pub use process::{
    BroadcastContext, BroadcastProcess, BroadcastState, Context, Expiring, List, Map, OfKeys,
    Process, Processed, SideOutput, States, Timers, Ttl, Value,
};
pub use running::Running;
pub use state_spec::{MappedWithState, StateSpec};
pub use stateless::Side;
pub use stream::Stream;
pub use time::{Timestamp, Watermark};
pub use window::{
    AtEnd, BatchedStream, Batches, Calendar, CountTrigger, Cumulating, EarlyTrigger, Evicting,
    Fire, Global, MergedStates, Purging, Session, SessionsByRecord, Sliding, Telling,
    TriggerContext, Triggers, Tumbling, WhenOver, WindowKind, WindowResult, WindowTrigger,
    Windowed, WindowedStream,
};

/// What a key may be: any [`Data`] that can be compared and hashed.
///
/// Two keys that are equal must serialize alike, as derived implementations do: the worker and the key group of a key are
/// decided by a hash of its serialized form, which doesn't depend on the machine or the program.
pub trait Key: Data + Hash + Eq {}

impl<K: Data + Hash + Eq> Key for K {}

/// So many rows are in a batch that an operator makes on its own account, at the most.
pub(crate) const BATCH_ROWS: usize = 4096;

/// After so many rows, which take about two milliseconds, an operator that isn't driven by input lets others run.
pub(crate) const SLICE_ROWS: usize = 8192;
