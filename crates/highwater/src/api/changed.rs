//! Which keys changed in which epoch, without hashing or comparing anything twice.
//!
//! An accumulator's entry is marked with the youngest epoch in which it was touched ([`touch`]). A touch by an older epoch or by
//! the same one adds nothing; a touch by a younger one puts the entry on that epoch's list.
//!
//! Epochs overlap, so a key may be touched by epoch 5 and then by epoch 4. It is then listed for 5 only, whose row
//! tells both changes; rows of 4 that came before are told by either. No key is on a list twice, and every touched key is on
//! the list of an epoch that isn't complete yet.
//!
//! The lists are no state: an interval ends only when all its epochs are complete, so they are empty at every checkpoint. So
//! a mark needn't tell the interval, and the table clears it when the next one begins.

use std::collections::VecDeque;

use highwater_runtime::Epoch;

/// Marks an entry as touched in `epoch`, and answers whether this is the first touch that the epoch's list has to know of.
#[inline]
pub(super) fn touch(mark: &mut u32, epoch: Epoch) -> bool {
    let touched = epoch.number() + 1;
    let is_first = *mark < touched;
    if is_first {
        *mark = touched;
    }
    is_first
}

/// Something of each epoch that isn't complete yet, oldest first.
#[derive(Debug)]
pub(super) struct PerEpoch<T> {
    epochs: VecDeque<(Epoch, Vec<T>)>,
    /// How long the last list became: about as long as the next.
    usual: usize,
}

impl<T> Default for PerEpoch<T> {
    fn default() -> Self {
        PerEpoch { epochs: VecDeque::new(), usual: 0 }
    }
}

impl<T> PerEpoch<T> {
    /// The list of `epoch`.
    pub(super) fn of(&mut self, epoch: Epoch) -> &mut Vec<T> {
        debug_assert!(
            self.epochs.iter().all(|(other, _)| other.interval() == epoch.interval()),
            "an interval ends only when its epochs are complete"
        );
        // Few epochs are under way, and most rows are of the youngest.
        let younger = self.epochs.iter().rev().take_while(|(other, _)| *other > epoch).count();
        let index = self.epochs.len() - younger;
        if index > 0 && self.epochs[index - 1].0 == epoch {
            return &mut self.epochs[index - 1].1;
        }
        self.epochs.insert(index, (epoch, Vec::with_capacity(self.usual)));
        &mut self.epochs[index].1
    }

    /// Takes the list of `epoch`, which is complete; empty if it has none. Epochs complete in their order.
    pub(super) fn take(&mut self, epoch: Epoch) -> Vec<T> {
        match self.epochs.front() {
            Some((first, _)) if *first == epoch => {
                let (_, list) = self.epochs.pop_front().expect("there is a front");
                self.usual = list.len();
                list
            }
            first => {
                debug_assert!(
                    first.is_none_or(|(first, _)| *first > epoch),
                    "epochs complete in order"
                );
                Vec::new()
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }
}
