//! Memory as a sink, for tests: what was committed, by checkpoint.
//!
//! Rows are kept in one place of the process, by the job's name, the identity of its log and the sink's uid, so that they outlive attempts as a
//! destination outside would. A test kit reads them with [`rows()`] or [`take`].

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_runtime::connector::{Delivery, PublisherContext, Sink};
use highwater_runtime::{BoxError, Data};

use super::IntoSink;
use super::staged_rows::{Destination, StagedRows};

/// Keeps committed rows in memory, where a test finds them.
///
/// ```
/// use highwater::connectors::{Collect, IntoSink};
/// let sink = IntoSink::<u64>::into_sink(Collect);
/// # let _ = sink;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Collect;

/// The rows of one sink, by checkpoint; each is a `Vec<T>`.
type Committed = BTreeMap<u64, Box<dyn Any + Send>>;

/// Job, job id and uid.
type Address = (String, String, String);

/// Everything that was collected in this process.
static COLLECTED: Mutex<BTreeMap<Address, Committed>> = Mutex::new(BTreeMap::new());

fn collected() -> MutexGuard<'static, BTreeMap<Address, Committed>> {
    COLLECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address(job: &str, job_id: &str, uid: &str) -> Address {
    (job.to_owned(), job_id.to_owned(), uid.to_owned())
}

/// A copy of the rows that the sink `uid` of the job with this name and id has collected, in the order of checkpoints.
///
/// ```
/// use highwater::connectors::collect;
/// assert!(collect::rows::<u64>("job", "no such id", "seen").is_empty());
/// ```
///
/// # Panics
///
/// Panics if the sink's rows are of another type.
pub fn rows<T: Data>(job: &str, job_id: &str, uid: &str) -> Vec<T> {
    let collected = collected();
    let committed = collected.get(&address(job, job_id, uid));
    committed
        .into_iter()
        .flat_map(BTreeMap::values)
        .flat_map(|rows| typed::<T>(rows.as_ref(), uid).clone())
        .collect()
}

/// The rows that the sink `uid` of the job with this name and id has collected, by checkpoint, without keeping them.
///
/// ```
/// use highwater::connectors::collect;
/// assert!(collect::take::<u64>("job", "no such id", "seen").is_empty());
/// ```
///
/// # Panics
///
/// Panics if the sink's rows are of another type.
pub fn take<T: Data>(job: &str, job_id: &str, uid: &str) -> BTreeMap<u64, Vec<T>> {
    let committed = collected().remove(&address(job, job_id, uid)).unwrap_or_default();
    committed
        .into_iter()
        .map(|(checkpoint, rows)| (checkpoint, typed::<T>(rows.as_ref(), uid).clone()))
        .collect()
}

/// Forgets everything that jobs of this name have collected.
#[cfg(feature = "simulation")]
pub(crate) fn forget(job: &str) {
    collected().retain(|(name, ..), _| name != job);
}

fn typed<'r, T: 'static>(rows: &'r (dyn Any + Send), uid: &str) -> &'r Vec<T> {
    rows.downcast_ref()
        .unwrap_or_else(|| panic!("the rows of `{uid}` are no {}", std::any::type_name::<T>()))
}

impl<T: Data> IntoSink<T> for Collect {
    fn into_sink(self) -> Arc<dyn Sink> {
        StagedRows::<T, _>::sink(self)
    }
}

impl<T: Data> Destination<T> for Collect {
    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn deliver(
        &self,
        from: &PublisherContext,
        checkpoint: u64,
        rows: Vec<T>,
    ) -> Result<(), BoxError> {
        let sink = address(&from.job, &from.job_id, &from.uid);
        // The same checkpoint again replaces itself.
        collected().entry(sink).or_default().insert(checkpoint, Box::new(rows));
        Ok(())
    }

    fn start_over(&self, from: &PublisherContext) {
        // What a later attempt has committed stays, should this one have been fenced without knowing it yet.
        if let Some(committed) = collected().get_mut(&address(&from.job, &from.job_id, &from.uid)) {
            committed.retain(|checkpoint, _| *checkpoint > from.attempt);
        }
    }
}
