//! What an operator makes of rows may be larger than the rows: such growth is under way, too, and counts against the bound that
//! sources pause at.

use std::collections::BTreeMap;

/// More epochs than this aren't kept apart; what older ones emit after that counts in full.
const EPOCHS_MAX: usize = 256;

/// How many bytes one operator has taken and not given in each epoch.
#[derive(Default)]
pub(super) struct Growth {
    by_epoch: BTreeMap<u64, usize>,
}

impl Growth {
    /// Rows of the epoch came in.
    pub(super) fn took(&mut self, timestamp: u64, bytes: usize) {
        *self.by_epoch.entry(timestamp).or_default() += bytes;
        if self.by_epoch.len() > EPOCHS_MAX {
            self.by_epoch.pop_first();
        }
    }

    /// Rows of the epoch went out: how many bytes more than came in, and were told before.
    pub(super) fn gave(&mut self, timestamp: u64, bytes: usize) -> usize {
        let Some(taken) = self.by_epoch.get_mut(&timestamp) else { return bytes };
        let grown = bytes.saturating_sub(*taken);
        *taken = taken.saturating_sub(bytes);
        grown
    }

    /// Nothing of epochs up to this one comes any more.
    pub(super) fn completed(&mut self, timestamp: u64) {
        self.by_epoch.retain(|epoch, _| *epoch > timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_goes_beyond_the_input_has_grown() {
        let mut growth = Growth::default();
        growth.took(1, 100);
        growth.took(2, 50);
        assert_eq!((growth.gave(1, 60), growth.gave(1, 60), growth.gave(1, 5)), (0, 20, 5));
        assert_eq!(growth.gave(2, 50), 0);
        growth.completed(1);
        growth.took(2, 10);
        assert_eq!((growth.gave(2, 12), growth.gave(3, 7)), (2, 7));
        for epoch in 0..1000 {
            growth.took(epoch, 1);
        }
        assert_eq!(growth.by_epoch.len(), EPOCHS_MAX);
    }
}
