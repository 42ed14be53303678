//! What a run is like: how its decisions are biased.

use crate::random::Random;

/// How decisions are biased in this run: a run in which everything is equally likely finds less than runs that differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// A woken task is preferred to a worker, in percent.
    pub(super) tasks_first: u64,
    /// Time moves on to the next thing due when no task is woken, in percent.
    pub(super) hurry: u64,
    /// The clock moves by up to so many microseconds at each decision.
    pub(super) jitter_us: u64,
    /// A look at the clock takes up to so many microseconds, so that slices end early.
    pub(super) look_us: u64,
    /// What one process says to another takes up to so many microseconds.
    pub(crate) network_us: u64,
    /// One worker is favoured over the others, in percent.
    pub(super) favour: u64,
}

impl Habits {
    pub(crate) fn draw(random: &mut Random) -> Self {
        Habits {
            tasks_first: random.within(30..=95),
            hurry: random.within(20..=80),
            jitter_us: random.within(1..=200),
            look_us: if random.chance(700) { random.within(1..=1_000) } else { 1 },
            network_us: if random.chance(200) { random.within(1..=50_000) } else { 1_000 },
            favour: if random.chance(300) { random.within(20..=90) } else { 0 },
        }
    }
}
