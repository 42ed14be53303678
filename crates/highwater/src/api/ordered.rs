//! Rows in the order of their epochs, for operators whose answer depends on it.
//!
//! Epochs overlap on their way here. Whoever goes by the watermark must see the rows of an epoch when all epochs before it are complete,
//! since only then is it known which are late. So rows wait, as they came, until their own epoch is complete.

use std::vec;

use highwater_runtime::{Batch, BoxError, Data, Epoch, Keyed};

use super::changed::PerEpoch;

/// Rows with keys, and the event time of each (none if the stream has none).
pub(super) type Timed<K, V> = (Keyed<K, V>, Vec<i64>);

/// The input of an operator, by epochs.
pub(super) struct Ordered<K, V> {
    waiting: PerEpoch<Timed<K, V>>,
    /// What is left of the epoch that is being completed.
    present: Option<vec::IntoIter<Timed<K, V>>>,
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Ordered { waiting: PerEpoch::default(), present: None }
    }
}

impl<K: Data, V: Data> Ordered<K, V> {
    /// Takes rows of an epoch that isn't complete.
    pub(super) fn receive(&mut self, epoch: Epoch, batch: Batch) -> Result<(), BoxError> {
        let timed = batch.take_timed()?;
        self.waiting.of(epoch).push(timed);
        Ok(())
    }

    /// The next rows of `epoch`, which is complete, in the order in which they came; none when there are no more.
    pub(super) fn next(&mut self, epoch: Epoch) -> Option<Timed<K, V>> {
        let waiting = &mut self.waiting;
        self.present.get_or_insert_with(|| waiting.take(epoch).into_iter()).next()
    }

    /// The epoch is dealt with.
    pub(super) fn finish(&mut self) {
        self.present = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.present.is_none()
    }
}
