//! A function as a sink: it gets the rows of each committed checkpoint, with the checkpoint's number.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use highwater_runtime::connector::{Delivery, Lasting, PublisherContext, Sink};
use highwater_runtime::{BoxError, Data};

use super::IntoSink;
use super::staged_rows::{Destination, StagedRows};

/// Calls `function` with the rows of every committed checkpoint, in the order of checkpoints; not for one without rows.
///
/// After a failure it may be called again for a checkpoint that it has dealt with, and then gets the very same rows. It delivers exactly
/// once if it makes that harmless: by writing the number into the same transaction as the rows, say, and leaving a number out
/// that is there already. It runs on a thread of its own and may block; an error means that it is called again later.
///
/// ```
/// use highwater::connectors::{IntoSink, foreach_batch};
///
/// let sink = foreach_batch(|checkpoint, rows: Vec<(String, u64)>| {
///     for (word, count) in rows {
///         println!("{checkpoint}: {word} {count}");
///     }
///     Ok(())
/// });
/// let sink = sink.into_sink();
/// # let _ = sink;
/// ```
pub fn foreach_batch<T, F>(function: F) -> ForeachBatch<T, F>
where
    T: Data,
    F: FnMut(u64, Vec<T>) -> Result<(), BoxError> + Send + 'static,
{
    ForeachBatch { function, rows: PhantomData }
}

/// A function as a sink: what [`foreach_batch`] makes.
pub struct ForeachBatch<T, F> {
    function: F,
    rows: PhantomData<fn(T)>,
}

impl<T, F> fmt::Debug for ForeachBatch<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForeachBatch")
    }
}

impl<T, F> IntoSink<T> for ForeachBatch<T, F>
where
    T: Data,
    F: FnMut(u64, Vec<T>) -> Result<(), BoxError> + Send + 'static,
{
    fn into_sink(self) -> Arc<dyn Sink> {
        StagedRows::<T, _>::sink(Function(Mutex::new(self.function)))
    }
}

struct Function<F>(Mutex<F>);

impl<T, F> Destination<T> for Function<F>
where
    F: FnMut(u64, Vec<T>) -> Result<(), BoxError> + Send + 'static,
{
    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn only_by_checkpoint(&self) -> Option<&'static str> {
        Some("its function is told the checkpoint that rows belong to; use `foreach`, which isn't")
    }

    fn deliver(&self, _: &PublisherContext, checkpoint: u64, rows: Vec<T>) -> Result<(), BoxError> {
        let mut function = self.0.lock().map_err(|_| {
            Lasting("the function of `foreach_batch` panicked, and what it had done isn't known; start the job again".to_owned())
        })?;
        function(checkpoint, rows)
    }
}
