//! So many records a second.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;

/// Holds one worker's reader back to its share of a rate.
pub(crate) struct Pace {
    env: Arc<dyn Env>,
    start: Duration,
    per_second: f64,
    taken: u64,
}

impl Pace {
    /// Begins now.
    pub(crate) fn new(env: Arc<dyn Env>, per_second: f64) -> Self {
        Pace { start: env.monotonic(), env, per_second, taken: 0 }
    }

    /// How many records may be taken now.
    pub(crate) fn allowed(&self) -> usize {
        let due = (self.env.monotonic() - self.start).as_secs_f64() * self.per_second;
        usize::try_from((due as u64).saturating_sub(self.taken)).unwrap_or(usize::MAX)
    }

    /// Says that so many were taken.
    pub(crate) fn take(&mut self, records: usize) {
        self.taken += records as u64;
    }
}
