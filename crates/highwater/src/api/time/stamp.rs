//! Gives records their times, and tells how far each split is.

use std::sync::Arc;

use highwater_runtime::watermark::{News, One, Told};
use highwater_runtime::{Batch, BoxError, Data, Epoch, Operator, OperatorContext, Outputs};

use super::timestamp::event_ms;
use super::watermark::Generators;
use super::{Timestamp, Watermark};
use crate::api::stateless::emit;

/// The operator behind [`Stream::event_time`](crate::Stream::event_time): records with times at output 0, what splits have reached at
/// output 1.
pub(in crate::api) struct Stamp<T, F> {
    at: Arc<F>,
    watermark: Watermark<T>,
    generators: Generators<T>,
    /// Batches know the split that they were read from.
    by_split: bool,
    one: One,
}

impl<T, F> Stamp<T, F> {
    pub(in crate::api) fn new(
        context: &OperatorContext,
        at: Arc<F>,
        watermark: Watermark<T>,
        by_split: bool,
    ) -> Self {
        Stamp { at, watermark, generators: Generators::new(), by_split, one: One::of(context) }
    }
}

impl<T: Data, F: Fn(&T) -> Timestamp> Operator for Stamp<T, F> {
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let split = batch.split_read().cloned();
        let rows: Vec<T> = batch.take()?;
        let times: Vec<i64> = rows.iter().map(|row| event_ms((self.at)(row).as_ms())).collect();
        let of = split.as_deref().filter(|_| self.by_split).unwrap_or_default();
        let reached = self.watermark.reached(&rows, &times, of, &mut self.generators);
        if let Some(reached) = reached {
            let told = Told { split: of.to_owned(), news: News::Reached(reached) };
            emit(out, 1, self.one.tell(vec![told]));
        }
        emit(out, 0, Batch::new(rows).with_times(times).with_split(split));
        Ok(())
    }
}
