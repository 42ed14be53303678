//! So many records a second.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;

/// Holds one worker's reader back to its share of a rate.
pub(crate) struct Pace {
    env: Arc<dyn Env>,
    /// Records a second, over all workers.
    rate: u64,
    /// How many splits this worker was given so far, and how many all were.
    splits: (usize, usize),
    /// When the share last changed, and how many records were due by then.
    since: Duration,
    due: f64,
    taken: u64,
}

impl Pace {
    /// Begins now, without a share yet.
    pub(crate) fn new(env: Arc<dyn Env>, rate: u64) -> Self {
        Pace { since: env.monotonic(), env, rate, splits: (0, 0), due: 0.0, taken: 0 }
    }

    /// So many splits of so many are this worker's to read. One without splits leaves its share to the others.
    pub(crate) fn share(&mut self, splits: usize, of_all: usize) {
        let now = self.env.monotonic();
        self.due = self.due_at(now);
        self.since = now;
        self.splits = (self.splits.0 + splits, self.splits.1 + of_all);
    }

    fn due_at(&self, now: Duration) -> f64 {
        let share = self.splits.0 as f64 / self.splits.1.max(1) as f64;
        self.due + (now - self.since).as_secs_f64() * self.rate as f64 * share
    }

    /// How many records may be taken now.
    pub(crate) fn allowed(&self) -> usize {
        let due = self.due_at(self.env.monotonic());
        usize::try_from((due as u64).saturating_sub(self.taken)).unwrap_or(usize::MAX)
    }

    /// Says that so many were taken.
    pub(crate) fn take(&mut self, records: u64) {
        self.taken += records;
    }
}
