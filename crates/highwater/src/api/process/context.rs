//! What a process function is lent for the time of a call.

use std::any::{Any, type_name};

use highwater_runtime::Epoch;
use highwater_runtime::watermark::END_OF_TIME;
use highwater_state::AHEAD;

use super::lifetime::Instant;
use super::side::Side;
use super::states::{ProcessTable, States};
use super::timers::{By, TimerTable};
use super::{Process, Timers};
use crate::api::time::{Timestamp, event_ms};

/// The present key and its states, and where output goes.
///
/// States are reached through their handles: `self.last.get(cx)`.
pub struct Context<P: Process> {
    pub(super) tables: Vec<Box<dyn ProcessTable>>,
    /// Which of the tables are timers, and what they go by.
    timers: Vec<(usize, By)>,
    /// None before the first record.
    present: Option<Present<P::Key>>,
    /// None in a function that gets its records as they come.
    pub(super) now: Option<Now>,
    pub(super) sides: Vec<Box<dyn Side>>,
    emitted: Vec<P::Out>,
    /// When each happened, if the stream has event times.
    times: Vec<i64>,
    is_timed: bool,
}

/// Whose turn it is.
struct Present<K> {
    epoch: Epoch,
    hash: u64,
    key: K,
    moment: Moment,
    /// Its place among those that were looked for together.
    turn: usize,
}

/// Why the function is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// For a record without event time.
    None,
    /// For a record of this time.
    Record(i64),
    /// For a timer that was set for this time.
    Timer(By, i64),
}

/// The present, in both kinds of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) clock_ms: i64,
    pub(super) watermark: Option<i64>,
    /// At the end of the epoch before.
    pub(super) late_below: Option<i64>,
}

impl Now {
    /// While records of an epoch are handed over, event time is where it was at the end of the epoch before.
    pub(super) fn of_records(clock_ms: u64, late_below: Option<i64>) -> Self {
        let clock_ms = clock_ms.min(i64::MAX as u64) as i64;
        Now { clock_ms, watermark: late_below, late_below }
    }
}

impl<P: Process> Context<P> {
    pub(super) fn new(states: States<P>, is_timed: bool) -> Self {
        let States { tables, timers, sides, .. } = states;
        let sides = sides.into_iter().map(|side| side.rows).collect();
        let (emitted, times) = (Vec::new(), Vec::new());
        Context { tables, timers, sides, present: None, now: None, emitted, times, is_timed }
    }

    /// No key is the present one.
    pub(super) fn leave(&mut self) {
        self.present = None;
    }

    /// Makes `key` the present one. It is the `turn`-th of those that were looked for together; nothing but time depends on that.
    #[inline]
    pub(super) fn enter(
        &mut self,
        epoch: Epoch,
        (hash, key): (u64, P::Key),
        moment: Moment,
        turn: usize,
    ) {
        self.present = Some(Present { epoch, hash, key, moment, turn: turn % AHEAD });
    }

    /// The present key's place among those that were looked for together.
    #[inline]
    pub(super) fn turn(&self) -> usize {
        self.present.as_ref().map_or(0, |present| present.turn)
    }

    /// What was emitted, with times if the stream has event times.
    pub(super) fn take_emitted(&mut self) -> (Vec<P::Out>, Vec<i64>) {
        (std::mem::take(&mut self.emitted), std::mem::take(&mut self.times))
    }

    /// The key of the present record or timer.
    pub fn key(&self) -> &P::Key {
        &self.present().key
    }

    /// The epoch of the present record: when a source read it. Of a timer, the epoch at whose end it is due.
    pub fn epoch(&self) -> Epoch {
        self.present().epoch
    }

    /// The event time of the present record, if its stream has event times; the time for which the present timer was set.
    pub fn time(&self) -> Option<Timestamp> {
        match self.present().moment {
            Moment::None => None,
            Moment::Record(at) | Moment::Timer(_, at) => Some(at.into()),
        }
    }

    /// The event time up to which everything has been seen: a record with a time below it is late. Known only in functions that get their
    /// records epoch by epoch (those with timers, lifetimes or a broadcast stream), and behind
    /// [`event_time`](crate::Stream::event_time).
    pub fn watermark(&self) -> Option<Timestamp> {
        self.now?.watermark.map(Timestamp::from_ms)
    }

    /// The engine's clock in the present epoch, by which [clock timers](super::States::clock_timers) go. It never runs backwards, also
    /// when the job is started again. Known only in functions that get their records epoch by epoch (those with timers, lifetimes or a
    /// broadcast stream).
    pub fn clock(&self) -> Option<Timestamp> {
        self.now.map(|now| Timestamp::from_ms(now.clock_ms))
    }

    /// Emits a record, in the present epoch.
    ///
    /// If the stream has event times, it has that of the present record or event timer, and for a clock timer the watermark.
    pub fn emit(&mut self, out: P::Out) {
        self.emitted.push(out);
        let time = self.emit_time();
        self.times.extend(time);
    }

    /// The time of what is emitted now, if the stream has event times.
    pub(super) fn emit_time(&self) -> Option<i64> {
        if !self.is_timed {
            return None;
        }
        let time = match self.present().moment {
            Moment::Record(at) | Moment::Timer(By::EventTime, at) => Some(at),
            Moment::None | Moment::Timer(By::Clock, _) => self.now.and_then(|now| now.watermark),
        };
        // A timer may be set for any time, and the watermark may be at the end of time.
        Some(event_ms(time.unwrap_or(i64::MIN)))
    }

    /// What lifetimes of states depend on.
    #[inline]
    pub(super) fn instant(&self) -> Instant {
        let moment = self.present.as_ref().map(|present| present.moment);
        let Some(Now { clock_ms, watermark, late_below }) = self.now else {
            return Instant { clock: None, watermark: None, time: None };
        };
        let (watermark, time) = match moment {
            Some(Moment::Record(at)) => (watermark, Some(at)),
            // However far the watermark has come at once, timers are called one after the other.
            Some(Moment::Timer(By::EventTime, at)) => (late_below.max(Some(at)), Some(at)),
            _ => (watermark, None),
        };
        Instant { clock: Some(clock_ms), watermark, time }
    }

    /// Removes some of what has come to its end.
    pub(super) fn clean(&mut self) {
        self.leave();
        let instant = self.instant();
        self.tables.iter_mut().for_each(|table| table.clean(instant));
    }

    /// Whether event time is at its end, and a timer is being called.
    pub(super) fn has_time_ended(&self) -> bool {
        let is_timer = matches!(self.present().moment, Moment::Timer(..));
        is_timer && self.now.is_some_and(|now| now.watermark == Some(END_OF_TIME))
    }

    /// Takes the first of all timers of a kind that are due by then: whose it is, its time, and its key.
    pub(super) fn take_due(&mut self, by: By, until: i64) -> Option<(Timers, i64, u64, P::Key)> {
        let mut first: Option<(i64, usize)> = None;
        for position in 0..self.timers.len() {
            let (index, goes_by) = self.timers[position];
            if goes_by == by
                && let Some(at) = self.timer_table(index).next(until)
            {
                first = first.into_iter().chain([(at, index)]).min();
            }
        }
        let (at, index) = first?;
        let (hash, key) = self.timer_table(index).take(until)?;
        Some((Timers::new(index), at, hash, key))
    }

    /// Looks for the states of keys whose turn it is next, no more than [`AHEAD`] of them. The first has turn 0.
    pub(super) fn look_ahead(&mut self, hashes: &[u64]) {
        self.tables.iter_mut().for_each(|table| table.look_ahead(hashes));
    }

    /// Does so for keys whose timers of a kind will be taken next.
    pub(super) fn look_ahead_due(&mut self, by: By, until: i64) {
        for position in 0..self.timers.len() {
            let (index, goes_by) = self.timers[position];
            if goes_by == by {
                let hashes = self.timer_table(index).look_ahead_due(until);
                self.look_ahead(&hashes);
            }
        }
    }

    /// An epoch is over.
    pub(super) fn tidy_timers(&mut self) {
        for position in 0..self.timers.len() {
            self.timer_table(self.timers[position].0).tidy();
        }
    }

    fn timer_table(&mut self, index: usize) -> &mut TimerTable<P::Key> {
        self.table_mut(index)
    }

    fn present(&self) -> &Present<P::Key> {
        self.present.as_ref().expect(NO_RECORD)
    }

    /// A state.
    #[inline]
    pub(super) fn table<T: ProcessTable>(&self, index: usize) -> &T {
        let table: &dyn Any = &*self.tables[index];
        table.downcast_ref().unwrap_or_else(|| foreign::<P>())
    }

    /// As [`table`](Self::table), to be changed.
    pub(super) fn table_mut<T: ProcessTable>(&mut self, index: usize) -> &mut T {
        let table: &mut dyn Any = &mut *self.tables[index];
        table.downcast_mut().unwrap_or_else(|| foreign::<P>())
    }

    /// What was emitted at a side output.
    pub(super) fn side_mut<T: Side>(&mut self, index: usize) -> &mut T {
        let side = self.sides.get_mut(index).unwrap_or_else(|| foreign::<P>());
        let side: &mut dyn Any = &mut **side;
        side.downcast_mut().unwrap_or_else(|| foreign::<P>())
    }

    /// A state, the present key's hash and the key.
    #[inline]
    pub(super) fn state<T: ProcessTable>(&self, index: usize) -> (&T, u64, &P::Key) {
        let Present { hash, key, .. } = self.present();
        (self.table(index), *hash, key)
    }

    /// As [`state`](Self::state), to be changed.
    #[inline]
    pub(super) fn state_mut<T: ProcessTable>(&mut self, index: usize) -> (&mut T, u64, &P::Key) {
        let Present { hash, key, .. } = self.present.as_ref().expect(NO_RECORD);
        let table: &mut dyn Any = &mut *self.tables[index];
        (table.downcast_mut().unwrap_or_else(|| foreign::<P>()), *hash, key)
    }
}

const NO_RECORD: &str = "states of keys, emitting and the key are for records and timers of a key";

#[cold]
fn foreign<P>() -> ! {
    panic!("a handle that `{}` uses was declared by another process function", type_name::<P>())
}

impl<P: Process> std::fmt::Debug for Context<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context<{}>", type_name::<P>())
    }
}
