//! Faults that strike, and what they strike down: deaths of processes, losses of power, zombies.

use highwater_env::Phase;

use super::{Event, NETWORK, ProcessId, State, ThreadId};
use crate::fault::{Fault, What, When};
use crate::world::Moment;

impl State {
    /// Lets faults strike whose step has come, and zombies wake.
    pub(super) fn strike(&mut self) {
        for id in 1..self.processes.len() {
            let process = &mut self.processes[id];
            if process.paused_until.is_some_and(|step| step <= self.steps)
                && process.paused_until_us <= self.clock_us
            {
                process.paused_until = None;
                self.note(|| format!("process {id} goes on"));
            }
        }
        if self.steps < self.next_strike {
            return;
        }
        let steps = self.steps;
        let (now, later): (Vec<Fault>, Vec<Fault>) = std::mem::take(&mut self.faults)
            .into_iter()
            .partition(|fault| matches!(fault.when, When::Step(step) if step <= steps));
        self.faults = later;
        self.find_next_strike();
        for fault in now {
            self.note(|| fault.to_string());
            match (fault.what, self.victim()) {
                (What::Kill, Some(process)) => self.kill(process, "killed"),
                (What::PowerLoss, _) => self.lose_power(),
                (What::Cut, _) => self.cut(),
                (What::Silence(ms), _) => self.silence(ms),
                (What::Pause(steps), Some(process)) => self.pause(process, steps),
                (What::Stall(steps), Some(process)) => self.stall(process, steps),
                (What::Stop, Some(process)) => {
                    if let Some(control) = self.processes[process].control.clone() {
                        self.counts.other_faults += 1;
                        self.stopped.push(control);
                    }
                }
                (What::ClockJump(ms), _) => {
                    self.counts.other_faults += 1;
                    self.wall_offset_ms += ms;
                }
                _ => {}
            }
        }
    }

    /// One of the processes that run the newest attempt.
    fn victim(&mut self) -> Option<ProcessId> {
        let newest = (1..self.processes.len()).rev().find(|id| self.may_run(*id))?;
        let team = self.processes[newest].team;
        let members: Vec<ProcessId> = (1..=newest)
            .filter(|id| self.processes[*id].team == team && self.may_run(*id))
            .collect();
        match members.as_slice() {
            [alone] => Some(*alone),
            members => Some(*self.random.pick(members)),
        }
    }

    /// A process stands still; if it has others, sometimes they do, too, and sometimes it does for long enough to be missed.
    fn pause(&mut self, process: ProcessId, steps: u64) {
        let team = self.processes[process].team;
        let others = |id: &ProcessId| {
            *id != process && self.processes[*id].team == team && self.may_run(*id)
        };
        let others: Vec<ProcessId> = (1..self.processes.len()).filter(others).collect();
        let mut paused = vec![process];
        let mut until_us = 0;
        if !others.is_empty() {
            if self.random.chance(400) {
                paused.extend(others);
            } else if self.random.chance(700) {
                until_us = self.clock_us + self.random.within(1_000_000..=4_000_000);
            }
        }
        for process in paused {
            self.counts.pauses += 1;
            self.processes[process].paused_until = Some(self.steps + steps);
            self.processes[process].paused_until_us = until_us;
            self.events.push_back(Event::Paused(process));
        }
    }

    /// Has one worker of a process wait.
    fn stall(&mut self, process: ProcessId, steps: u64) {
        let workers = self.workers.iter().copied();
        let workers: Vec<ThreadId> =
            workers.filter(|id| self.threads[*id].process == process).collect();
        if !workers.is_empty() {
            self.counts.other_faults += 1;
            let worker = *self.random.pick(&workers);
            self.threads[worker].stalled_until = self.steps + steps;
        }
    }

    /// Nobody has to wait any more.
    pub(crate) fn end_stalls(&mut self) {
        self.threads.iter_mut().for_each(|slot| slot.stalled_until = 0);
    }

    /// Has the death follow that struck within a call of the store, before anybody learns of the call's end.
    pub(crate) fn strike_within(&mut self, fault: Option<What>) {
        let what = match fault {
            Some(What::KillWithin(_)) => What::Kill,
            Some(What::PowerLossWithin(_)) => What::PowerLoss,
            _ => return,
        };
        self.faults.push(Fault { when: When::Step(self.steps + 1), what });
        self.find_next_strike();
    }

    /// The fault that strikes at this point, if there is one.
    pub(crate) fn take_fault(&mut self, when: When) -> Option<Fault> {
        let at = self.faults.iter().position(|fault| fault.when == when)?;
        let fault = self.faults.remove(at);
        self.note(|| fault.to_string());
        Some(fault)
    }

    pub(super) fn find_next_strike(&mut self) {
        let steps = self.faults.iter().filter_map(|fault| match fault.when {
            When::Step(step) => Some(step),
            _ => None,
        });
        self.next_strike = steps.min().unwrap_or(u64::MAX);
    }

    fn lose_power(&mut self) {
        self.counts.power_losses += 1;
        for process in 1..self.processes.len() {
            self.kill(process, "out of power");
        }
        self.media.lose_power();
    }

    /// Ends a process here and now: its tasks are never polled again, its threads end as soon as they have the baton.
    pub(crate) fn kill(&mut self, process: ProcessId, why: &str) {
        if process == NETWORK || !self.processes[process].alive {
            return;
        }
        self.count_crash(process);
        self.note(|| format!("process {process} is {why}"));
        self.trace.add(process as u64);
        self.bury(process, true);
        for slot in self.threads.iter_mut().filter(|slot| slot.process == process && !slot.gone) {
            slot.dying = true;
            self.dying += 1;
        }
    }

    /// The same, and it is no crash.
    pub(crate) fn end_process(&mut self, process: ProcessId, why: &str) {
        if self.processes[process].alive {
            let (counts, deaths) = (self.counts.clone(), self.deaths.len());
            self.kill(process, why);
            self.counts = counts;
            self.deaths.truncate(deaths);
        }
    }

    /// A thread is no more.
    pub(crate) fn forget(&mut self, thread: ThreadId) {
        self.threads[thread].gone = true;
        self.dying -= usize::from(self.threads[thread].dying);
        self.workers.retain(|worker| *worker != thread);
    }

    /// Has the workers of a process end that has ended.
    pub(crate) fn end_workers(&mut self, process: ProcessId) {
        for worker in self.workers.clone() {
            let slot = &mut self.threads[worker];
            if slot.process == process && !slot.dying {
                slot.dying = true;
                self.dying += 1;
            }
        }
    }

    /// The tasks and connections of a process that was killed or has ended go with it.
    pub(crate) fn bury(&mut self, process: ProcessId, killed: bool) {
        if self.processes[process].alive {
            self.hang_up(process, killed);
        }
        self.processes[process].alive = false;
        self.processes[process].paused_until = None;
        self.processes[process].control = None;
        let threads = &self.threads;
        self.ready.retain(|id| threads[*id].process != process);
        for task in &mut self.tasks {
            if task.as_ref().is_some_and(|task| task.process == process)
                && let Some(task) = task.take()
            {
                self.dropped.extend(task.future);
            }
        }
    }

    /// How far the run is.
    pub(crate) fn now(&self) -> Moment {
        Moment { step: self.steps, calls: self.counts.calls }
    }

    fn count_crash(&mut self, process: ProcessId) {
        self.counts.crashes += 1;
        self.deaths.push(self.now());
        let team = self.processes[process].team;
        let others = self
            .processes
            .iter()
            .enumerate()
            .any(|(id, other)| id != process && other.team == team && other.alive);
        self.counts.of_several += u64::from(others);
        let mut under_way = self.processes[process].under_way;
        under_way[Phase::Committed as usize] += u32::from(self.processes[process].committed);
        let mut any = false;
        for phase in Phase::ALL {
            if under_way[phase as usize] > 0 {
                self.counts.by_phase[phase as usize] += 1;
                any = true;
            }
        }
        if !any {
            self.counts.running += 1;
        }
    }

    /// A process enters or leaves a phase.
    pub(crate) fn phase(&mut self, process: ProcessId, phase: Phase, entered: bool) {
        let under_way = &mut self.processes[process].under_way[phase as usize];
        if !entered {
            *under_way = under_way.saturating_sub(1);
            return;
        }
        *under_way += 1;
        match phase {
            Phase::Committed => self.processes[process].committed = true,
            Phase::Publishing => self.processes[process].committed = false,
            _ => {}
        }
        self.phases_entered[phase as usize] += 1;
        let count = self.phases_entered[phase as usize];
        self.note(|| format!("process {process}: {} no. {count}", phase.name()));
        let steps = self.steps;
        for fault in &mut self.faults {
            if let When::Phase(of, nth, after) = fault.when
                && of == phase
                && nth == count
            {
                fault.when = When::Step(steps + after + 1);
            }
        }
        self.find_next_strike();
    }
}
