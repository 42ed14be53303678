//! Files as a source: which are read, and how they become rows.

use std::marker::PhantomData;

use highwater_env::Env;
use highwater_runtime::connector::{
    Finder, FinderContext, Reader, ReaderContext, Source, SplitOffset, Waker,
};
use highwater_runtime::observe::ReaderProgress;
use highwater_runtime::{BoxError, Data};

use super::blocks::Reading;
use super::discover::Place;
use super::watch::FileFinder;
use crate::connectors::records::format::ReadFormat;
use crate::connectors::records::pace::Pace;
use crate::connectors::records::reader::ThreadedReader;
use crate::connectors::records::rows::Records;

/// Files, as the plan holds them.
pub(crate) struct FileSource<T, F> {
    pub(crate) place: Place,
    pub(crate) format: F,
    /// About how many bytes a record may have.
    pub(crate) longest_record: usize,
    /// Records a second, over all workers.
    pub(crate) rate: Option<u64>,
    pub(crate) rows: PhantomData<fn() -> T>,
}

impl<T: Data, F: ReadFormat<T>> Source for FileSource<T, F> {
    fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        self.place.splits(known)
    }

    fn finder(&self, context: FinderContext) -> Result<Option<Box<dyn Finder>>, BoxError> {
        FileFinder::of(&self.place, context)
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let ReaderContext { env, waker, progress, malformed, rows, .. } = context;
        let reader = self.start(&*env, waker, progress);
        let pace = self.rate.map(|rate| Pace::new(env, rate));
        Ok(Box::new(reader.with(malformed, rows).paced(pace)))
    }
}

impl<T: Data, F: ReadFormat<T>> FileSource<T, F> {
    fn start(
        &self,
        env: &dyn Env,
        waker: Waker,
        progress: ReaderProgress,
    ) -> ThreadedReader<T, Records<F::Parser>> {
        let (encoding, longest_record) = (self.place.encoding, self.longest_record);
        let reading = Reading { framing: self.format.framing(), encoding, longest_record };
        let records = Records::new(self.format.parser());
        ThreadedReader::start("read-files", reading, records, env, waker, progress)
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "oddities_tests.rs"]
mod oddities;
