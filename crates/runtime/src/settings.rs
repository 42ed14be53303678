//! The settings of a job; four of them are about time and size, and stay apart.

use std::time::Duration;

use highwater_state::DEFAULT_KEY_GROUPS;

/// How a job runs. Nothing here changes its results.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many workers (threads) there are; a restart may have another number.
    pub workers: usize,
    /// About how long an epoch is while nothing is overdue; it grows under load.
    pub epoch: Duration,
    /// How often operators over whole batches run.
    pub trigger: Duration,
    /// How often a checkpoint is taken, at the most; none if checkpoints are off.
    pub checkpoint_interval: Option<Duration>,
    /// How many bytes of records a worker may have under way before it stops reading.
    pub in_flight_bytes: usize,
    /// So many rows a reader hands over at once, at the most, if it doesn't read in blocks of its own.
    pub batch_rows: usize,
    /// How many key groups the key space has; fixed by the first checkpoint.
    pub key_groups: u32,
    /// So many checkpoints are kept.
    pub retained: usize,
    /// Beyond so many committed but unpublished checkpoints, sources pause.
    pub unpublished: usize,
    /// Start over, forgetting everything.
    pub fresh: bool,
    /// Rows go from worker to worker as bytes, as they do between processes, and not as they are: for tests.
    pub exchange_bytes: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            workers: 1,
            epoch: Duration::from_millis(10),
            trigger: Duration::from_secs(1),
            checkpoint_interval: Some(Duration::from_secs(1)),
            in_flight_bytes: 32 << 20,
            batch_rows: 4096,
            key_groups: DEFAULT_KEY_GROUPS,
            retained: 3,
            unpublished: 30,
            fresh: false,
            exchange_bytes: false,
        }
    }
}
