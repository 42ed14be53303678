//! A source that gives the test a handle to the attempt that reads it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use highwater::connectors::IntoSource;
use highwater::{BoxError, Control, Data};
use highwater_runtime::connector::{
    Finder, FinderContext, Reader, ReaderContext, Source, SplitOffset,
};

/// Another source, and to whom the handle goes.
pub struct Watched<S> {
    source: S,
    controls: Mutex<Sender<Control>>,
}

/// Wraps `source`; what comes back gets a handle for every reader that is made, so one for every worker and attempt.
pub fn watched<S>(source: S) -> (Watched<S>, Receiver<Control>) {
    let (sender, receiver) = channel();
    (Watched { source, controls: Mutex::new(sender) }, receiver)
}

impl<T: Data, S: IntoSource<T>> IntoSource<T> for Watched<S> {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(Watched { source: self.source.into_source(), controls: self.controls })
    }
}

impl Source for Watched<Arc<dyn Source>> {
    fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        self.source.splits(known)
    }

    fn finder(&self, context: FinderContext) -> Result<Option<Box<dyn Finder>>, BoxError> {
        self.source.finder(context)
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        // A test that has seen enough takes no more handles.
        self.controls.lock().unwrap().send(context.control.clone()).ok();
        self.source.reader(context)
    }
}
