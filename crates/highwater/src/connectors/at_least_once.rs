//! The choice of a sink's delivery: rows as they come, instead of with the checkpoint that covers them.

use std::sync::Arc;

use highwater_runtime::BoxError;
use highwater_runtime::connector::{
    Delivery, Publisher, PublisherContext, Sink, Writer, WriterContext,
};

use super::IntoSink;

/// Has `sink` deliver rows as they come: readers see them at once, and perhaps again after a crash, when everything behind the
/// last checkpoint is read once more. None is lost: a checkpoint is complete only when the destination has accepted every row before it.
///
/// A sink that can't (files appear whole, [`foreach_batch`](super::foreach_batch()) is told checkpoints) is refused, with
/// its place in the job, before anything runs.
///
/// ```
/// use highwater::connectors::{IntoSink, Stdout, at_least_once};
///
/// let soon = IntoSink::<u64>::into_sink(at_least_once(Stdout::new()));
/// assert!(soon.check().is_ok());
/// ```
pub fn at_least_once<S>(sink: S) -> AtLeastOnce<S> {
    AtLeastOnce(sink)
}

/// A sink that delivers rows as they come: what [`at_least_once`] makes.
#[derive(Clone, Copy, Debug)]
pub struct AtLeastOnce<S>(S);

impl<T, S: IntoSink<T>> IntoSink<T> for AtLeastOnce<S> {
    fn into_sink(self) -> Arc<dyn Sink> {
        self.0.into_sink().at_least_once().unwrap_or_else(|why| Arc::new(Refused { why }))
    }
}

/// Stands in the plan for a sink that can't, until the plan is checked.
struct Refused {
    why: String,
}

impl Refused {
    fn error(&self) -> String {
        format!("this sink can't deliver at least once: {}; leave `at_least_once` out", self.why)
    }
}

impl Sink for Refused {
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn check(&self) -> Result<(), String> {
        Err(self.error())
    }

    fn writer(&self, _: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        Err(self.error().into())
    }

    fn publisher(&self, _: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        Err(self.error().into())
    }
}
