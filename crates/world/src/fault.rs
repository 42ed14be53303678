//! What goes wrong, and when: a list drawn from a seed before the run, so that it can be shown, repeated and made shorter.

use std::fmt;

use highwater_env::Phase;

use crate::random::Random;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub when: When,
    /// What.
    pub what: What,
}

/// When a fault strikes. Everything is counted from the start of the run, over all attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At this step of the scheduler.
    Step(u64),
    /// So many steps after a phase was entered for the n-th time, counted from one.
    Phase(Phase, u64, u64),
    /// At this call of the store, counted from one.
    Call(u64),
    /// At this put to the store, counted from one.
    Put(u64),
    /// At this delivery of rows to a sink, counted from one.
    Delivery(u64),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The newest process dies, as by `kill -9`; if several run the newest attempt, one of them.
    Kill,
    /// The machine loses power: every process dies, and with them whatever a disk hadn't been told to keep.
    PowerLoss,
    /// The newest process stands still; its replacement is started, and so many steps later it goes on, a zombie.
    Pause(u64),
    /// A connection between two processes breaks.
    Cut,
    /// A connection between two processes, or all those of one, carries nothing for so many milliseconds.
    Silence(u64),
    /// One worker of the newest process doesn't get to run for so many steps: what others send it waits, and so do they for it.
    Stall(u64),
    /// Somebody asks the newest process to stop, as by Ctrl-C; it takes a last checkpoint, and a later attempt goes on from there.
    Stop,
    /// The machine's clock jumps by so many milliseconds.
    ClockJump(i64),
    /// A call of the store fails and has no effect.
    Fail,
    /// A call of the store fails, and has had its effect.
    LoseAnswer,
    /// A call of the store takes so many milliseconds longer.
    Slow(u64),
    /// A call of the store fails after so many milliseconds; whether it has an effect is open.
    TimeOut(u64),
    /// Listings show what was there this long ago (milliseconds), for so many calls.
    OldListings(u64, u64),
    /// The store takes nothing for so many calls: the disk is full.
    DiskFull(u64),
    /// The store can't be reached for so many milliseconds.
    Away(u64),
    /// The store refuses the name of this put, and nothing else, for so many milliseconds.
    Refuse(u64),
    /// Within a call of the store the disk fails, after so many operations on files.
    DiskFails(u64),
    /// Within a call of the store the newest process dies, after so many operations on files.
    KillWithin(u64),
    /// Within a call of the store the machine loses power, after so many operations on files.
    PowerLossWithin(u64),
    /// A bit of the newest object flips.
    BitFlip,
    /// A sink fails, and took nothing.
    SinkFails,
    /// A sink fails, and took everything.
    SinkLosesAnswer,
}

impl What {
    /// Whether it belongs to calls of the store.
    pub(crate) fn is_of_the_store(self) -> bool {
        matches!(
            self,
            What::Fail
                | What::LoseAnswer
                | What::Slow(_)
                | What::TimeOut(_)
                | What::OldListings(..)
                | What::DiskFull(_)
                | What::Away(_)
                | What::Refuse(_)
                | What::DiskFails(_)
                | What::KillWithin(_)
                | What::PowerLossWithin(_)
                | What::BitFlip
        )
    }

    /// If it strikes within a call of the store: after how many operations on files.
    pub(crate) fn within(self) -> Option<u64> {
        match self {
            What::DiskFails(after) | What::KillWithin(after) | What::PowerLossWithin(after) => {
                Some(after)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Kill => write!(f, "kill the newest process")?,
            What::PowerLoss => write!(f, "the power fails")?,
            What::Pause(steps) => write!(f, "pause the newest process for {steps} steps")?,
            What::Cut => write!(f, "a connection between processes breaks")?,
            What::Silence(ms) => write!(f, "processes don't hear each other for {ms} ms")?,
            What::Stall(steps) => {
                write!(f, "a worker of the newest process waits for {steps} steps")?;
            }
            What::Stop => write!(f, "the newest process is asked to stop")?,
            What::ClockJump(ms) => write!(f, "the wall clock jumps by {ms} ms")?,
            What::Fail => write!(f, "the store fails")?,
            What::LoseAnswer => write!(f, "the store does it and fails")?,
            What::Slow(ms) => write!(f, "the store takes {ms} ms longer")?,
            What::TimeOut(ms) => write!(f, "the store doesn't answer for {ms} ms")?,
            What::OldListings(ms, calls) => {
                write!(f, "listings are {ms} ms old for {calls} calls")?
            }
            What::DiskFull(calls) => write!(f, "the disk is full for {calls} calls")?,
            What::Away(ms) => write!(f, "the store is away for {ms} ms")?,
            What::Refuse(ms) => write!(f, "the store refuses this name for {ms} ms")?,
            What::DiskFails(after) => write!(f, "the disk fails after {after} operations")?,
            What::KillWithin(after) => {
                write!(f, "kill the newest process after {after} operations of the disk")?;
            }
            What::PowerLossWithin(after) => {
                write!(f, "the power fails after {after} operations of the disk")?;
            }
            What::BitFlip => write!(f, "a bit of the newest object flips")?,
            What::SinkFails => write!(f, "the sink fails")?,
            What::SinkLosesAnswer => write!(f, "the sink takes everything and fails")?,
        }
        match self.when {
            When::Step(step) => write!(f, " at step {step}"),
            When::Phase(phase, nth, after) => {
                write!(f, " {after} steps into {} no. {nth}", phase.name())
            }
            When::Call(call) => write!(f, " at call {call} of the store"),
            When::Put(nth) => write!(f, " at put {nth} to the store"),
            When::Delivery(nth) => write!(f, " at delivery {nth}"),
        }
    }
}

/// Which faults are drawn, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Kills, half of them by phase.
    pub kills: u64,
    /// Losses of power.
    pub power_losses: u64,
    /// Pauses.
    pub pauses: u64,
    /// Requests to stop.
    pub stops: u64,
    /// Jumps of the clock.
    pub clock_jumps: u64,
    /// Failing, slow, unanswered calls of the store.
    pub store: u64,
    /// Old listings.
    pub old_listings: u64,
    /// Full disks.
    pub full_disks: u64,
    /// Times without a store.
    pub away: u64,
    /// Failures, deaths and losses of power within a call of the store.
    pub within: u64,
    /// Flipped bits.
    pub bit_flips: u64,
    /// Failing sinks.
    pub sinks: u64,
    /// Names that the store refuses for a while.
    pub refusals: u64,
    /// Workers that wait.
    pub stalls: u64,
    /// Connections between processes that break, or are silent for a while.
    pub network: u64,
}

impl Mix {
    /// Nothing goes wrong.
    pub const NONE: Mix = Mix {
        kills: 0,
        power_losses: 0,
        pauses: 0,
        stops: 0,
        clock_jumps: 0,
        store: 0,
        old_listings: 0,
        full_disks: 0,
        away: 0,
        within: 0,
        bit_flips: 0,
        sinks: 0,
        refusals: 0,
        stalls: 0,
        network: 0,
    };

    /// Processes die, and nothing else happens.
    pub const CRASHES: Mix = Mix { kills: 6, ..Mix::NONE };

    /// A bit of everything, damage that nobody can recover from included.
    pub const ALL: Mix = Mix {
        kills: 6,
        power_losses: 1,
        pauses: 1,
        stops: 1,
        clock_jumps: 1,
        store: 6,
        old_listings: 1,
        full_disks: 1,
        away: 1,
        within: 3,
        bit_flips: 1,
        sinks: 2,
        refusals: 1,
        stalls: 1,
        network: 1,
    };

    /// Draws faults; `steps` is about how long an undisturbed run is. Of each sort there are up to twice as many as the mix says.
    pub fn draw(&self, random: &mut Random, steps: u64) -> Vec<Fault> {
        let mut faults = Vec::new();
        // Attempts that are killed early are many, so that a run is longer than an undisturbed one.
        let step = |random: &mut Random| When::Step(1 + random.below(steps * 3));
        let call = |random: &mut Random| When::Call(1 + random.below(150));
        let put = |random: &mut Random| When::Put(1 + random.below(40));
        let count = |random: &mut Random, most: u64| random.within(0..=most * 2);
        for _ in 0..count(random, self.kills) {
            let phase = *random.pick(&Phase::ALL);
            let when = match random.chance(500) {
                true => When::Phase(phase, random.within(1..=12), random.below(10)),
                false => step(random),
            };
            faults.push(Fault { when, what: What::Kill });
        }
        for _ in 0..count(random, self.power_losses) {
            let when = match random.chance(500) {
                true => {
                    When::Phase(*random.pick(&Phase::ALL), random.within(1..=12), random.below(10))
                }
                false => step(random),
            };
            faults.push(Fault { when, what: What::PowerLoss });
        }
        for _ in 0..count(random, self.pauses) {
            let steps = random.within(1..=steps);
            let when = match random.chance(300) {
                true => {
                    When::Phase(*random.pick(&Phase::ALL), random.within(1..=6), random.below(10))
                }
                false => step(random),
            };
            faults.push(Fault { when, what: What::Pause(steps) });
        }
        for _ in 0..count(random, self.stops) {
            faults.push(Fault { when: step(random), what: What::Stop });
        }
        for _ in 0..count(random, self.clock_jumps) {
            let ms = random.below(7_200_000) as i64 - 3_600_000;
            faults.push(Fault { when: step(random), what: What::ClockJump(ms) });
        }
        for _ in 0..count(random, self.store) {
            let what = match random.below(4) {
                0 => What::Fail,
                1 => What::LoseAnswer,
                2 => What::Slow(random.within(1..=300)),
                _ => What::TimeOut(random.within(50..=500)),
            };
            let when = if random.chance(500) { put(random) } else { call(random) };
            faults.push(Fault { when, what });
        }
        for _ in 0..count(random, self.old_listings) {
            let what = What::OldListings(random.within(1..=100), random.within(1..=10));
            faults.push(Fault { when: call(random), what });
        }
        for _ in 0..count(random, self.full_disks) {
            // A put is tried ten times, and several are under way.
            faults.push(Fault { when: put(random), what: What::DiskFull(random.within(5..=100)) });
        }
        for _ in 0..count(random, self.away) {
            // Ten tries of the log take four to eight seconds.
            faults.push(Fault { when: put(random), what: What::Away(random.within(10..=12_000)) });
        }
        for _ in 0..count(random, self.within) {
            // A put is six operations, or a few more if directories have to be made.
            let after = random.below(9);
            let what = match random.below(4) {
                0 => What::DiskFails(after),
                1 => What::KillWithin(after),
                _ => What::PowerLossWithin(after),
            };
            faults.push(Fault { when: put(random), what });
        }
        for _ in 0..count(random, self.bit_flips) {
            faults.push(Fault { when: call(random), what: What::BitFlip });
        }
        for _ in 0..count(random, self.sinks) {
            let what = *random.pick(&[What::SinkFails, What::SinkLosesAnswer]);
            faults.push(Fault { when: When::Delivery(random.within(1..=10)), what });
        }
        for _ in 0..count(random, self.refusals) {
            // Most of them for longer than the log tries.
            let what = What::Refuse(random.within(500..=20_000));
            faults.push(Fault { when: put(random), what });
        }
        for _ in 0..count(random, self.stalls) {
            let what = What::Stall(random.within(1..=steps));
            faults.push(Fault { when: step(random), what });
        }
        for _ in 0..count(random, self.network) {
            // Half of the silences are too short to matter.
            let what = match random.chance(500) {
                true => What::Cut,
                false => What::Silence(random.within(1..=4_000)),
            };
            faults.push(Fault { when: step(random), what });
        }
        faults
    }
}
