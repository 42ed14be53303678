//! The commit log of a job: what a restart needs to know, and who may add to it.
//!
//! A job under a root path of an object store keeps a numbered log of small JSON entries (`log/`) beside
//! its data (`data/`, `stage/`). An entry says either *an attempt started* or *a checkpoint committed*;
//! appending the latter is the one commit point of the whole engine. The log also decides who runs: an
//! attempt owns the numbers after its own attempt entry until another attempt's entry takes the next one.
//!
//! How the crate is laid out:
//!
//! - [`entry`]: the durable formats; [`names`]: the names of everything in the store;
//!   [`record`]: lines of JSON that show damage.
//! - [`decide`]: every decision of the protocol, as pure functions from facts.
//! - [`log`]: reading and writing, with retries; [`store`]: the store beneath, durable also on local disks.
//! - [`health`]: how a place is that calls fail at, said once; [`retry`]: when they are tried again.
//! - [`error`]: what can go wrong, where, and what to do about it.
//!
//! The crate knows nothing of timely, of state's contents or of sinks; objects are opaque bytes to it.

pub mod decide;
pub mod entry;
pub mod error;
pub mod facts;
pub mod health;
pub mod log;
pub mod names;
pub mod record;
pub mod retry;
pub mod store;

pub use bytes::Bytes;
pub use decide::{Base, Committed, Holding, collect, next_base, to_publish};
pub use entry::{
    AttemptEntry, Body, CheckpointEntry, Configuration, Entry, Manifest, ObjectRef, OperatorEntry,
    StagedItem, StagedOutput, StateEntry,
};
pub use error::{AppendError, Damage, LogError, Why};
pub use facts::{Facts, Found};
pub use health::{Health, Trouble};
pub use log::{Log, Started};
pub use object_store::PutPayload;
pub use retry::Retry;
pub use store::{LocalStore, Store};
