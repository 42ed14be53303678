//! What is due when, for windows about which a trigger decides: by event time, and by the engine's clock. Derived from the windows, and made anew when
//! these are read back.

use highwater_runtime::Work;

use super::held::Decided;
use super::operator::{Now, ToldRows, Windows};
use super::trigger::Fire;
use crate::api::SLICE_ROWS;
use crate::api::due::Due;
use crate::api::process::By;

/// Windows, each listed for the times at which something is to be done about it.
pub(super) struct Timetable<L> {
    by_event_time: Due<L>,
    by_clock: Due<L>,
}

impl<L> Default for Timetable<L> {
    fn default() -> Self {
        Timetable { by_event_time: Due::default(), by_clock: Due::default() }
    }
}

impl<L> Timetable<L> {
    /// Lists a window.
    pub(super) fn list(&mut self, by: By, at: i64, listed: L) {
        match by {
            By::EventTime => self.by_event_time.push(at, listed),
            By::Clock => self.by_clock.push(at, listed),
        }
    }

    /// Lists a window for timers that are set for it.
    pub(super) fn list_timers(
        &mut self,
        event_timers: &[i64],
        clock_timers: &[i64],
        listed: impl Fn() -> L,
    ) {
        event_timers.iter().for_each(|at| self.list(By::EventTime, *at, listed()));
        clock_timers.iter().for_each(|at| self.list(By::Clock, *at, listed()));
    }

    /// Lists a window for the timers that its trigger has decided to set; gives what else it has decided.
    pub(super) fn list_decided(&mut self, decided: Decided, listed: impl Fn() -> L) -> Fire {
        self.list_timers(&decided.event_timers, &decided.clock_timers, listed);
        decided.fire
    }

    /// The next window for which something is due, and its time: first whatever is due by event time.
    fn pop(&mut self, now: Now) -> Option<(By, i64, L)> {
        let by_event_time = self.by_event_time.pop(now.watermark);
        let due = by_event_time.map(|(at, listed)| (By::EventTime, at, listed));
        due.or_else(|| self.by_clock.pop(now.clock).map(|(at, listed)| (By::Clock, at, listed)))
    }
}

/// Windows that are listed in a timetable.
pub(super) trait Scheduled: Windows {
    type Listed;

    fn timetable(&mut self) -> &mut Timetable<Self::Listed>;

    /// Something is due for a window.
    fn due(
        &mut self,
        due: (By, i64, Self::Listed),
        now: Now,
        told: &mut ToldRows<Self::Key, Self::Out>,
    );

    /// Does what is due, for a while. Answers whether that was all.
    fn do_due(&mut self, now: Now, told: &mut ToldRows<Self::Key, Self::Out>) -> Work {
        for _ in 0..SLICE_ROWS {
            let Some(due) = self.timetable().pop(now) else { return Work::Done };
            self.due(due, now, told);
            if told.is_full() {
                break;
            }
        }
        Work::More
    }
}
