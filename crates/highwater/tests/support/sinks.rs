//! Sinks that fail or remember.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use highwater::connectors::{Files, IntoSink, foreach_batch};
use highwater::env::BoxFuture;
use highwater_log::StagedItem;
use highwater_runtime::BoxError;
use highwater_runtime::connector::{
    Delivery, Publisher, PublisherContext, Sink, Writer, WriterContext,
};

use super::{Gate, lock, sorted};

/// A sink that was made already, as something to write to.
pub struct Raw(pub Arc<dyn Sink>);

impl<T> IntoSink<T> for Raw {
    fn into_sink(self) -> Arc<dyn Sink> {
        self.0
    }
}

/// What a destination in memory was given, call by call.
#[derive(Clone, Default)]
pub struct Recorded(Arc<Mutex<Vec<Call>>>);

/// A checkpoint's number, and its rows.
type Call = (u64, Vec<u64>);

impl Recorded {
    /// A sink that promises exactly once and keeps the promise, as a function that knows the checkpoint's number can.
    pub fn sink(&self) -> Arc<dyn Sink> {
        let calls = self.0.clone();
        let sink = foreach_batch(move |checkpoint, rows: Vec<u64>| {
            lock(&calls).push((checkpoint, rows));
            Ok(())
        });
        sink.into_sink()
    }

    /// The same, promising less.
    pub fn at_least_once(&self) -> Arc<dyn Sink> {
        Arc::new(AtLeastOnce(self.sink()))
    }

    /// Every call, as it came.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.0).clone()
    }

    /// A destination that was given the same, and goes on by itself.
    pub fn fork(&self) -> Self {
        Recorded(Arc::new(Mutex::new(self.calls())))
    }

    /// The rows of every checkpoint once; a checkpoint that was given again must have had the same rows.
    pub fn once(&self) -> Vec<u64> {
        let mut checkpoints: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (checkpoint, rows) in self.calls() {
            if let Some(before) = checkpoints.insert(checkpoint, rows.clone()) {
                assert_eq!(
                    before, rows,
                    "checkpoint {checkpoint} brought other rows when it was repeated"
                );
            }
        }
        sorted(checkpoints.into_values().flatten().collect())
    }
}

struct AtLeastOnce(Arc<dyn Sink>);

impl Sink for AtLeastOnce {
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }
    fn writer(&self, context: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        self.0.writer(context)
    }
    fn publisher(&self, context: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        self.0.publisher(context)
    }
}

/// A destination that can be down, or can hold whoever prepares it.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn Sink>,
    state: Arc<FaultyState>,
}

#[derive(Default)]
struct FaultyState {
    down: AtomicBool,
    refused: AtomicUsize,
    published: Mutex<Vec<(u64, Vec<StagedItem>)>>,
    hold_prepare: Mutex<Option<Arc<Gate>>>,
}

impl Faulty {
    pub fn over(inner: Arc<dyn Sink>) -> Self {
        Faulty { inner, state: Arc::default() }
    }

    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, SeqCst);
    }

    /// How often something was to be published and couldn't.
    pub fn refused(&self) -> usize {
        self.state.refused.load(SeqCst)
    }

    /// What was published, call by call.
    pub fn published(&self) -> Vec<(u64, Vec<StagedItem>)> {
        lock(&self.state.published).clone()
    }

    /// Whoever prepares the destination next waits at the gate, before anything is done.
    pub fn hold_prepare(&self, gate: Arc<Gate>) {
        *lock(&self.state.hold_prepare) = Some(gate);
    }

    pub fn sink(&self) -> Raw {
        Raw(Arc::new(self.clone()))
    }
}

impl Sink for Faulty {
    fn delivery(&self) -> Delivery {
        self.inner.delivery()
    }
    fn writer(&self, context: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        self.inner.writer(context)
    }
    fn publisher(&self, context: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        let inner = Arc::from(self.inner.publisher(context)?);
        Ok(Box::new(FaultyPublisher { inner, state: self.state.clone() }))
    }
}

struct FaultyPublisher {
    inner: Arc<dyn Publisher>,
    state: Arc<FaultyState>,
}

impl Publisher for FaultyPublisher {
    fn prepare(&self) -> BoxFuture<Result<(), BoxError>> {
        let (inner, gate) = (self.inner.clone(), lock(&self.state.hold_prepare).take());
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.pass().await;
            }
            inner.prepare().await
        })
    }

    fn plan(&self, items: &mut [StagedItem], clock_ms: u64, last: bool) {
        self.inner.plan(items, clock_ms, last);
    }

    fn publish(&self, checkpoint: u64, items: Vec<StagedItem>) -> BoxFuture<Result<(), BoxError>> {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        Box::pin(async move {
            if state.down.load(SeqCst) {
                state.refused.fetch_add(1, SeqCst);
                return Err("the destination is down".into());
            }
            inner.publish(checkpoint, items.clone()).await?;
            lock(&state.published).push((checkpoint, items));
            Ok(())
        })
    }
}

/// Files with a line a row.
pub fn files(folder: &Path) -> Arc<dyn Sink> {
    IntoSink::<u64>::into_sink(Files::text(folder))
}
