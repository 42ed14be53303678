//! What comes next: drawn from everything that can.

use std::task::Waker;

use highwater_env::BoxFuture;

use super::{CONTROLLER, Event, ProcessId, State, TaskId, ThreadId};

/// What comes next.
pub(crate) enum Decision {
    /// Those who slept until now are woken.
    Wake(Vec<Waker>),
    /// This task is polled.
    Task(TaskId, BoxFuture<()>, Waker),
    /// This thread goes on.
    Thread(ThreadId),
}

impl State {
    /// The next thing to happen.
    pub(super) fn decide(&mut self) -> Decision {
        loop {
            self.steps += 1;
            self.clock_us += self.random.below(self.habits.jitter_us + 1);
            let due = self.due();
            if !due.is_empty() {
                return Decision::Wake(due);
            }
            self.strike();
            if let Some(dying) = self.dying() {
                return Decision::Thread(dying);
            }
            if self.steps > self.step_limit {
                self.step_limit = u64::MAX;
                self.events.push_back(Event::Stuck);
            }
            if !self.events.is_empty() && self.threads[CONTROLLER].waits_for.is_none() {
                return Decision::Thread(CONTROLLER);
            }
            if let Some(decision) = self.choose() {
                return decision;
            }
        }
    }

    /// Those who must end come first: workers, then the main thread, which waits for them.
    fn dying(&self) -> Option<ThreadId> {
        if self.dying == 0 {
            return None;
        }
        let dying = |id: &ThreadId| self.threads[*id].dying && !self.threads[*id].gone;
        let worker = self.workers.iter().copied().find(dying);
        worker.or_else(|| {
            let mains = self.processes.iter().skip(1).map(|process| process.main);
            mains.filter(|main| *main != CONTROLLER).find(dying)
        })
    }

    pub(super) fn may_run(&self, process: ProcessId) -> bool {
        let process = &self.processes[process];
        process.alive && process.paused_until.is_none()
    }

    fn may_step(&self, worker: ThreadId) -> bool {
        let slot = &self.threads[worker];
        self.may_run(slot.process) && slot.stalled_until <= self.steps
    }

    /// Chooses among what can happen; none if only time had to pass.
    fn choose(&mut self) -> Option<Decision> {
        let task_ready = |state: &State, id: &TaskId| {
            state.tasks[*id].as_ref().is_some_and(|task| state.may_run(task.process))
        };
        // Tasks that are gone needn't be looked at again.
        let tasks = &self.tasks;
        self.woken.retain(|id| tasks[*id].is_some());
        let tasks = self.woken.iter().filter(|id| task_ready(self, id)).count() as u64;
        let main_ready = |id: &&ThreadId| self.may_run(self.threads[**id].process);
        let mains = self.ready.iter().filter(main_ready).count() as u64;
        let workers = self.workers.iter().filter(|id| self.may_step(**id)).count() as u64;
        let others = tasks + mains;
        if others > 0 && (workers == 0 || self.random.below(100) < self.habits.tasks_first) {
            let nth = self.random.below(others);
            if nth < tasks {
                let at = self.woken.iter().enumerate().filter(|(_, id)| task_ready(self, id));
                let at = at.map(|(at, _)| at).nth(nth as usize).expect("counted above");
                let id = self.woken.remove(at);
                self.trace.add(id as u64);
                let task = self.tasks[id].as_mut().expect("it is ready");
                task.woken = false;
                let future = task.future.take().expect("a task is polled by one thread");
                return Some(Decision::Task(id, future, task.waker.clone()));
            }
            let main_ready =
                |(_, id): &(usize, &ThreadId)| self.may_run(self.threads[**id].process);
            let mut mains = self.ready.iter().enumerate().filter(main_ready);
            let (at, _) = mains.nth((nth - tasks) as usize).expect("counted above");
            let id = self.ready.remove(at);
            self.trace.add(!(id as u64));
            return Some(Decision::Thread(id));
        }
        if workers == 0 {
            self.let_time_pass();
            return None;
        }
        if others == 0 && self.random.below(100) < self.habits.hurry {
            self.let_time_pass();
        }
        let nth = match self.random.below(100) < self.habits.favour {
            true => 0,
            false => self.random.below(workers),
        };
        let mut workers = self.workers.iter().filter(|id| self.may_step(**id));
        let id = *workers.nth(nth as usize).expect("counted above");
        self.trace.add(!(id as u64));
        Some(Decision::Thread(id))
    }
}
