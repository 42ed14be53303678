//! Keyed state: what an operator remembers for each key, and how it becomes part of a checkpoint.
//!
//! State lives in memory beside its operator, in *key groups* ([`KeyGroups`]), as a [`KeyedTable`]. A
//! checkpoint freezes a table in O(1), then encodes what changed into a *section* (one Arrow IPC file,
//! sorted by key group, [`section`]) in slices between the operator's steps. The sections of all operators of a
//! worker make one *object* ([`object`]). What was written at several checkpoints forms a chain for each
//! key group ([`chain`]), which is kept short, and which [`Image`] reads back, for any number of workers.
//!
//! This crate knows nothing of timely, of epochs or of the commit log: it gets intervals as numbers and gives
//! bytes.

pub mod chain;
mod error;
mod group;
mod image;
pub mod object;
mod replicated;
pub mod section;
mod table;

pub use error::StateError;
pub use group::{DEFAULT_KEY_GROUPS, KeyGroups};
pub use image::Image;
pub use replicated::Replicated;
pub use table::{
    AHEAD, ByFirst, ByKey, Hashing, KeyedTable, Slice, Spot, StateTable, Upserted, Verdict,
    prefetch, prefetch_behind,
};

/// What the rows of a state are; written into every section for whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One value a key.
    Value,
    /// An accumulator of a running aggregate, one a key.
    Accumulator,
    /// One element of a list; the key column is (key, position).
    ListElement,
    /// One entry of a map; the key column is (key, map key).
    MapEntry,
    /// How far a split of a source has been read; the key is the split.
    Split,
    /// A timer; the key column is (key, time).
    Timer,
    /// One entry of a state of which every worker has a copy.
    Broadcast,
    /// When an entry of another state was last touched.
    Lifetime,
}

impl Kind {
    /// Its name in sections and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Value => "value",
            Kind::Accumulator => "accumulator",
            Kind::ListElement => "list_element",
            Kind::MapEntry => "map_entry",
            Kind::Split => "split",
            Kind::Timer => "timer",
            Kind::Broadcast => "broadcast",
            Kind::Lifetime => "lifetime",
        }
    }
}
