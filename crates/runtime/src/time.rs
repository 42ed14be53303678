//! The timestamp of every record: the epoch in which a source read it.
//!
//! One `u64` with the checkpoint interval in the upper half and the epoch's number within the interval in the
//! lower half, so that every record shows which checkpoint it belongs to, and no operator has to be told in time.

use std::fmt;

/// An epoch: a checkpoint interval and a number within it. Orders as time does.
///
/// ```
/// use highwater_runtime::Epoch;
/// let epoch = Epoch::new(3, 7);
/// assert!(epoch < Epoch::first_of(4));
/// assert_eq!(Epoch::from_timestamp(epoch.timestamp()), epoch);
/// ```
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Epoch(u64);

impl Epoch {
    /// The `number`-th epoch of a checkpoint interval.
    pub const fn new(interval: u32, number: u32) -> Self {
        Epoch(((interval as u64) << 32) | number as u64)
    }

    /// The first epoch of a checkpoint interval.
    pub const fn first_of(interval: u32) -> Self {
        Epoch::new(interval, 0)
    }

    /// The epoch with this timely timestamp.
    pub const fn from_timestamp(timestamp: u64) -> Self {
        Epoch(timestamp)
    }

    /// The timestamp that timely knows it by.
    pub const fn timestamp(self) -> u64 {
        self.0
    }

    /// The checkpoint interval.
    pub const fn interval(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The number within the interval.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// The next epoch of the same interval.
    pub(crate) fn next(self) -> Self {
        assert!(self.number() < u32::MAX, "an interval has fewer than 2^32 epochs");
        Epoch(self.0 + 1)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.interval(), self.number())
    }
}
