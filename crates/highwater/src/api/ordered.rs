//! Rows in the order of their epochs, for operators whose answer depends on it.
//!
//! Epochs overlap on their way here. Whoever goes by the watermark must see the rows of an epoch when all epochs before it are complete,
//! since only then is it known which are late. So rows wait, as they came, until it is their epoch's turn.

use std::collections::VecDeque;

use highwater_runtime::{Batch, BoxError, Data, Epoch, Keyed};

use super::changed::PerEpoch;

/// So many batches are taken when one has come and it is its epoch's turn: what came before that is caught up with little by little.
pub(super) const BATCHES_TAKEN: usize = 2;

/// Rows with keys, and the event time of each (none if the stream has none).
pub(super) type Timed<K, V> = (Keyed<K, V>, Vec<i64>);

/// The input of an operator, by epochs.
pub(super) struct Ordered<K, V> {
    /// Of later epochs than the present one.
    waiting: PerEpoch<Timed<K, V>>,
    /// The epoch whose turn it is, and what is left of it.
    present: Option<(Epoch, VecDeque<Timed<K, V>>)>,
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Ordered { waiting: PerEpoch::default(), present: None }
    }
}

impl<K: Data, V: Data> Ordered<K, V> {
    /// It is the turn of `epoch`: all before it are dealt with.
    pub(super) fn begin(&mut self, epoch: Epoch) {
        debug_assert!(self.present.is_none(), "one epoch is finished before the next one begins");
        self.present = Some((epoch, self.waiting.take(epoch).into()));
    }

    /// Takes rows of an epoch that isn't complete. Answers whether it is that epoch's turn.
    pub(super) fn receive(&mut self, epoch: Epoch, batch: Batch) -> Result<bool, BoxError> {
        let timed = batch.take_timed()?;
        match &mut self.present {
            Some((present, rows)) if *present == epoch => {
                rows.push_back(timed);
                Ok(true)
            }
            _ => {
                self.waiting.of(epoch).push(timed);
                Ok(false)
            }
        }
    }

    /// The next rows of `epoch`, whose turn it is, in the order in which they came; none when there are no more.
    pub(super) fn next(&mut self, epoch: Epoch) -> Option<Timed<K, V>> {
        if self.present.is_none() {
            self.begin(epoch);
        }
        let (present, rows) = self.present.as_mut()?;
        debug_assert!(*present == epoch, "epochs come in their order");
        rows.pop_front()
    }

    /// The epoch is dealt with.
    pub(super) fn finish(&mut self) {
        let left = self.present.take();
        debug_assert!(left.is_none_or(|(_, rows)| rows.is_empty()), "all of its rows were taken");
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.present.is_none()
    }
}
