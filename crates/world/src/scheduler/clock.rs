//! The world's clock: who is woken when, and how time passes while nobody has anything to do.

use std::cmp::Reverse;
use std::task::Waker;

use super::{Event, State};

impl State {
    /// A look at the clock, which takes time itself.
    pub(crate) fn look_at_clock(&mut self) -> u64 {
        self.clock_us += self.random.below(self.habits.look_us + 1);
        self.clock_us
    }

    /// Has `waker` woken once the clock is there. Gives the timer's number.
    pub(crate) fn set_timer(&mut self, due_us: u64, waker: Waker) -> u64 {
        self.next_timer += 1;
        self.timers.push(Reverse((due_us, self.next_timer)));
        self.sleepers.insert(self.next_timer, waker);
        self.next_timer
    }

    pub(crate) fn has_timer(&self, timer: u64) -> bool {
        self.sleepers.contains_key(&timer)
    }

    /// Nobody waits for it any more.
    pub(crate) fn cancel_timer(&mut self, timer: u64) {
        self.sleepers.remove(&timer);
    }

    /// Who has slept until now.
    pub(super) fn due(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some(Reverse((due, number))) = self.timers.peek().copied() {
            if due > self.clock_us {
                break;
            }
            self.timers.pop();
            wakers.extend(self.sleepers.remove(&number));
        }
        wakers
    }

    /// Moves the clock to the next thing due.
    pub(super) fn let_time_pass(&mut self) {
        while let Some(Reverse((_, timer))) = self.timers.peek()
            && !self.sleepers.contains_key(timer)
        {
            self.timers.pop();
        }
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let workers = self.workers.iter().map(|id| &self.threads[*id]);
        let worker = workers
            .filter(|slot| self.may_run(slot.process) && slot.due_us > self.clock_us)
            .map(|slot| slot.due_us)
            .min();
        match timer.into_iter().chain(worker).min() {
            Some(due) => {
                self.clock_us = self.clock_us.max(due);
            }
            None => {
                let paused = self.processes.iter_mut().filter(|process| process.alive);
                let wake = paused.filter(|process| process.paused_until.is_some());
                match wake.min_by_key(|process| process.paused_until) {
                    // Nothing but a zombie is left, and it wakes up.
                    Some(process) => {
                        process.paused_until_us = 0;
                        process.paused_until = process.paused_until.min(Some(self.steps));
                    }
                    None if self.workers.is_empty() => self.events.push_back(Event::Stuck),
                    None => {}
                }
            }
        }
    }
}
