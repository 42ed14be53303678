//! What processes must keep to while they run an attempt, looked at when they begin, whenever they commit, and at the end.

use highwater_runtime::{Control, Trigger};

use super::{Event, Process, ProcessId, State};

/// How a process was started that takes part in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// The number of the attempt's entry in the log; 0 if checkpoints are off.
    attempt: u64,
    processes: usize,
    workers: usize,
    available_now: bool,
}

impl State {
    /// The workers of a process are about to run. Those that run an attempt together were started the same way.
    pub(crate) fn begins(&mut self, process: ProcessId, control: Control) {
        let settings = control.settings();
        let begun = Begun {
            attempt: control.attempt(),
            processes: settings.processes,
            workers: settings.workers,
            available_now: matches!(settings.trigger, Trigger::AvailableNow { .. }),
        };
        let differs = |other: &Begun| other.attempt == begun.attempt && *other != begun;
        let others = self.processes.iter().filter_map(|other| other.begun);
        if let Some(other) = others.clone().find(differs).filter(|_| begun.attempt > 0) {
            self.breaks(format!("an attempt has a process with {other:?}, and one with {begun:?}"));
        }
        self.processes[process].control = Some(control);
        self.processes[process].begun = Some(begun);
    }

    /// A process has committed a checkpoint. None begins while more are unpublished than the settings say; the last one of an attempt may follow
    /// another one at once.
    pub(crate) fn commits(&mut self, process: ProcessId, checkpoint: u64) {
        let Some(control) = &self.processes[process].control else { return };
        let (unpublished, most) = (control.unpublished(), control.settings().unpublished);
        if unpublished > most + 1 {
            self.breaks(format!(
                "checkpoint {checkpoint} is committed, with {unpublished} before it that aren't published, and there is \
                 room for {most}"
            ));
        }
    }

    /// The first process of an attempt has come to its end. It waits for the others: none of them still has something to do.
    pub(crate) fn all_is_over(&mut self, process: ProcessId) {
        let Some(begun) = self.processes[process].begun else { return };
        let runs = |id: ProcessId| {
            let Process { alive, begun: other, .. } = &self.processes[id];
            let together = other.is_some_and(|other| other.attempt == begun.attempt);
            *alive && together && id != process
        };
        let left = self.workers.iter().map(|worker| self.threads[*worker].process);
        if let Some(other) = left.into_iter().find(|id| runs(*id)).filter(|_| begun.attempt > 0) {
            self.breaks(format!(
                "attempt {} is over at process 0, and workers of process {other} still run",
                begun.attempt
            ));
        }
    }

    fn breaks(&mut self, rule: String) {
        self.note(|| rule.clone());
        if self.broken_rule.is_none() {
            self.broken_rule = Some(rule);
            self.events.push_back(Event::BrokenRule);
        }
    }
}
