//! Memory as a sink, for tests: what was committed, by checkpoint.
//!
//! Rows are kept in one place of the process, by the identity of the job's log and the sink's uid, so that they outlive attempts as a
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

/// Everything that was collected in this process, by job id and uid.
static COLLECTED: Mutex<BTreeMap<(String, String), Committed>> = Mutex::new(BTreeMap::new());

fn collected() -> MutexGuard<'static, BTreeMap<(String, String), Committed>> {
    COLLECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A copy of the rows that the sink `uid` of the job with this id has collected, in the order of checkpoints.
///
/// ```
/// use highwater::connectors::collect;
/// assert!(collect::rows::<u64>("no such job", "seen").is_empty());
/// ```
///
/// # Panics
///
/// Panics if the sink's rows are of another type.
pub fn rows<T: Data>(job_id: &str, uid: &str) -> Vec<T> {
    let collected = collected();
    let committed = collected.get(&(job_id.to_owned(), uid.to_owned()));
    committed
        .into_iter()
        .flat_map(BTreeMap::values)
        .flat_map(|rows| typed::<T>(rows.as_ref(), uid).clone())
        .collect()
}

/// The rows that the sink `uid` of the job with this id has collected, by checkpoint, without keeping them.
///
/// ```
/// use highwater::connectors::collect;
/// assert!(collect::take::<u64>("no such job", "seen").is_empty());
/// ```
///
/// # Panics
///
/// Panics if the sink's rows are of another type.
pub fn take<T: Data>(job_id: &str, uid: &str) -> BTreeMap<u64, Vec<T>> {
    let committed = collected().remove(&(job_id.to_owned(), uid.to_owned())).unwrap_or_default();
    committed
        .into_iter()
        .map(|(checkpoint, rows)| (checkpoint, typed::<T>(rows.as_ref(), uid).clone()))
        .collect()
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
        let sink = (from.job_id.clone(), from.uid.clone());
        // The same checkpoint again replaces itself.
        collected().entry(sink).or_default().insert(checkpoint, Box::new(rows));
        Ok(())
    }

    fn start_over(&self, from: &PublisherContext) {
        collected().remove(&(from.job_id.clone(), from.uid.clone()));
    }
}
