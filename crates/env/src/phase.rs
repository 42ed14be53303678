//! The phases of an attempt that a test may want to stop, stretch or kill in.

use std::sync::Arc;

use crate::Env;

/// Where an attempt stands; several phases can be under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// The log is read, a base is chosen and state is loaded.
    Recovering = 0,
    /// Changed state is being turned into sections.
    Encoding = 1,
    /// A worker's object is being written.
    Uploading = 2,
    /// The entry exists, nothing of it is published yet.
    Committed = 3,
    /// Committed output is being made visible.
    Publishing = 4,
    /// Garbage that an entry listed is being deleted.
    Collecting = 5,
}

impl Phase {
    /// Every phase, in the order of their numbers.
    pub const ALL: [Phase; 6] = [
        Phase::Recovering,
        Phase::Encoding,
        Phase::Uploading,
        Phase::Committed,
        Phase::Publishing,
        Phase::Collecting,
    ];

    /// The name used in traces and in test hooks, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Recovering => "recovering",
            Phase::Encoding => "encoding",
            Phase::Uploading => "uploading",
            Phase::Committed => "committed",
            Phase::Publishing => "publishing",
            Phase::Collecting => "collecting",
        }
    }
}

/// Keeps a phase announced; see [`enter`](crate::enter).
#[derive(Debug)]
pub struct PhaseGuard {
    env: Arc<dyn Env>,
    phase: Phase,
}

impl PhaseGuard {
    pub(crate) fn new(env: Arc<dyn Env>, phase: Phase) -> Self {
        env.phase(phase, true);
        PhaseGuard { env, phase }
    }
}

impl Drop for PhaseGuard {
    fn drop(&mut self) {
        self.env.phase(self.phase, false);
    }
}
