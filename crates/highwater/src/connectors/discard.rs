//! Nowhere as a sink: rows are counted and dropped, for benchmarks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater_env::BoxFuture;
use highwater_log::StagedItem;
use highwater_runtime::connector::{
    Delivery, Publisher, PublisherContext, Sink, Writer, WriterContext,
};
use highwater_runtime::{Batch, BoxError};

use super::IntoSink;

/// Drops rows, and counts them.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::AtomicU64;
/// use highwater::connectors::{Discard, IntoSink};
///
/// let count = Arc::new(AtomicU64::new(0));
/// let sink = IntoSink::<u64>::into_sink(Discard::counting(count.clone()));
/// # let _ = sink;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Discard {
    count: Arc<AtomicU64>,
}

impl Discard {
    /// Drops rows.
    #[must_use]
    pub fn new() -> Self {
        Discard::default()
    }

    /// Drops rows, and adds their number to `count`.
    #[must_use]
    pub fn counting(count: Arc<AtomicU64>) -> Self {
        Discard { count }
    }
}

/// The rows aren't looked at, so that any type will do.
impl<T> IntoSink<T> for Discard {
    fn into_sink(self) -> Arc<dyn Sink> {
        Arc::new(self)
    }
}

impl Sink for Discard {
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn at_least_once(&self) -> Result<Arc<dyn Sink>, String> {
        Ok(Arc::new(self.clone()))
    }

    fn writer(&self, _: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        Ok(Box::new(Counter(self.count.clone())))
    }

    fn publisher(&self, _: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        Ok(Box::new(Nothing))
    }
}

struct Counter(Arc<AtomicU64>);

impl Writer for Counter {
    fn write(&mut self, batch: Batch) -> Result<(), BoxError> {
        self.0.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn cut(&mut self, _: u32) -> Result<(), BoxError> {
        Ok(())
    }

    fn staged(&mut self) -> Result<Option<Vec<StagedItem>>, BoxError> {
        Ok(Some(Vec::new()))
    }
}

struct Nothing;

impl Publisher for Nothing {
    fn publish(&self, _: u64, _: Vec<StagedItem>) -> BoxFuture<Result<(), BoxError>> {
        Box::pin(async { Ok(()) })
    }
}
