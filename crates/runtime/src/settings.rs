//! The settings of a job; four of them are about time and size, and stay apart.

use std::time::Duration;

use highwater_state::DEFAULT_KEY_GROUPS;

use crate::careful::Care;

/// How a job runs. Nothing here changes its results.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many workers (threads) there are in each process; a restart may have another number.
    pub workers: usize,
    /// How many processes run the job together; a restart may have another number.
    pub processes: usize,
    /// About how long an epoch is while nothing is overdue; it grows under load.
    pub epoch: Duration,
    /// When operators over whole batches run, and whether the job waits for more.
    pub trigger: Trigger,
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
    /// Beyond so many committed but unpublished checkpoints, sources pause and no checkpoint begins.
    pub unpublished: usize,
    /// When a checkpoint has been due for so long and none could be committed, sources pause.
    pub uncommitted: Duration,
    /// Start over, forgetting everything.
    pub fresh: bool,
    /// An attempt of this run has begun before: what it made or claimed is there, or will be again, and isn't made anew.
    pub begun: bool,
    /// How carefully sources read, when a record makes the job fail.
    pub care: Care,
    /// Rows go from worker to worker as bytes, as they do between processes, and not as they are: for tests.
    pub exchange_bytes: bool,
}

impl Settings {
    /// How many workers there are in all processes together.
    pub fn all_workers(&self) -> usize {
        self.workers * self.processes
    }
}

/// When operators over whole batches (`update_state_by_key`) run, and whether the job waits for more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// They run so often, over what has come in the meantime. The job goes on until its sources end.
    Every(Duration),
    /// The job reads what is there when it starts, and stops when all of that is committed and published; started again, it
    /// goes on with what is new. Operators over whole batches run every time when about so many rows were read, and at the end.
    AvailableNow {
        /// Rows of a trigger, on the process that sets the time.
        rows: u64,
    },
}

impl Trigger {
    /// Reads what is there, in triggers of about a million rows.
    pub const AVAILABLE_NOW: Trigger = Trigger::AvailableNow { rows: 1 << 20 };
}

impl From<Duration> for Trigger {
    fn from(time: Duration) -> Self {
        Trigger::Every(time)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            workers: 1,
            processes: 1,
            epoch: Duration::from_millis(10),
            trigger: Trigger::Every(Duration::from_secs(1)),
            checkpoint_interval: Some(Duration::from_secs(1)),
            in_flight_bytes: 32 << 20,
            batch_rows: 4096,
            key_groups: DEFAULT_KEY_GROUPS,
            retained: 3,
            unpublished: 30,
            uncommitted: Duration::from_secs(60),
            fresh: false,
            begun: false,
            care: Care::default(),
            exchange_bytes: false,
        }
    }
}
