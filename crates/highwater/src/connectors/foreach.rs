//! A function as a sink that gets rows as they come.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use highwater_env::Env;
use highwater_runtime::connector::{Delivery, Lasting, PublisherContext, Sink};
use highwater_runtime::{BoxError, Data};

use super::IntoSink;
use super::staged_rows::{Destination, StagedRows};

/// Calls `function` with rows as they come: at least once, with the lowest latency, without waiting for a checkpoint.
///
/// A call brings rows of one worker, in their order; the function is shared by the workers of a process, and called by one at a time. An error means that it is
/// called again with the same rows a little later; sources pause meanwhile, once enough is under way. A checkpoint is complete only when the function has accepted every row before it, so that none is lost in a
/// crash; rows behind the last checkpoint come again after one, perhaps in other calls and in another order. It works without checkpoints,
/// too. It runs on a thread of its own and may block.
///
/// Where a row must count only once, use [`foreach_batch`](super::foreach_batch()).
///
/// ```
/// use highwater::connectors::{IntoSink, foreach};
///
/// let sink = foreach(|rows: &[(String, u64)]| {
///     for (word, count) in rows {
///         println!("{word}: {count}");
///     }
///     Ok(())
/// });
/// let sink = sink.into_sink();
/// # let _ = sink;
/// ```
pub fn foreach<T, F>(function: F) -> Foreach<T, F>
where
    T: Data,
    F: FnMut(&[T]) -> Result<(), BoxError> + Send + 'static,
{
    Foreach { function, rows: PhantomData }
}

/// A function as a sink: what [`foreach`] makes.
pub struct Foreach<T, F> {
    function: F,
    rows: PhantomData<fn(T)>,
}

impl<T, F> fmt::Debug for Foreach<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Foreach")
    }
}

impl<T, F> IntoSink<T> for Foreach<T, F>
where
    T: Data,
    F: FnMut(&[T]) -> Result<(), BoxError> + Send + 'static,
{
    fn into_sink(self) -> Arc<dyn Sink> {
        StagedRows::<T, _>::as_they_come(Function(Mutex::new(self.function)))
    }
}

struct Function<F>(Mutex<F>);

impl<F> Function<F> {
    fn call<T>(&self, rows: &[T]) -> Result<(), BoxError>
    where
        F: FnMut(&[T]) -> Result<(), BoxError>,
    {
        let mut function = self.0.lock().map_err(|_| {
            Lasting("the function of `foreach` panicked, and what it had done isn't known; start the job again".to_owned())
        })?;
        function(rows)
    }
}

impl<T, F> Destination<T> for Function<F>
where
    F: FnMut(&[T]) -> Result<(), BoxError> + Send + 'static,
{
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    /// What was staged before the job was changed to deliver rows as they come.
    fn deliver(&self, _: &PublisherContext, _: u64, rows: Vec<T>) -> Result<(), BoxError> {
        self.call(&rows)
    }

    fn only_by_checkpoint(&self) -> Option<&'static str> {
        None
    }

    fn deliver_directly(&self, _: &dyn Env, rows: &[T]) -> Result<(), BoxError> {
        self.call(rows)
    }
}
