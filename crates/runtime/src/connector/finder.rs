//! Splits that appear while the job runs: files in a watched folder, partitions of a topic that grows.

use std::sync::Arc;

use highwater_env::Env;

use super::{SplitOffset, Waker};
use crate::BoxError;

/// Looks for splits while the job runs; there is one for a source, on worker 0 of process 0, whatever the number of workers.
///
/// What it finds is noted in the checkpoint that covers the first rows of it, so that it is found once, whenever the job is
/// killed. For that the checkpoint keeps every split, also those read to their end, until the finder **releases** it:
///
/// - A finder that remembers a split by its name never needs to.
/// - One that takes splits in an order (files by name) finds none again that sorts before the last one, and releases all but
///   that. What it has released is gone from `known` at the next start once it was read to its end; it releases again what is still there.
pub trait Finder {
    /// What is new since the last call. Called in every epoch and when the waker was; never waits.
    ///
    /// # Errors
    ///
    /// Ends the attempt. Something that can't be looked at for a while is no error: it is logged, and looked at again.
    fn poll(&mut self) -> Result<Found, BoxError>;
}

/// What a [`Finder`] has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// New splits, with where each begins, in the order in which they are to be read if one worker reads them.
    pub splits: Vec<(String, SplitOffset)>,
    /// Splits that the finder won't find again even if nobody remembers them.
    pub released: Vec<String>,
    /// There will be no more.
    pub complete: bool,
}

/// What a finder is told when it is made.
#[derive(Clone, Debug)]
pub struct FinderContext {
    /// The source's uid.
    pub uid: String,
    /// The splits of earlier attempts that weren't released, with how far they were read, and those that
    /// [`Source::splits`](super::Source::splits) has just found.
    pub known: Vec<(String, SplitOffset)>,
    /// Time, threads and tasks.
    pub env: Arc<dyn Env>,
    /// To be called when something was found.
    pub waker: Waker,
}
