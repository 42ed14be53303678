//! Every crash there is, for jobs that are small enough.
//!
//! An undisturbed run of a job has so many steps and so many calls of the store. The job is run again for each of them, and
//! dies there; for each call it also dies with the call's effect done and unanswered, or fails. For the smallest job there is
//! a run for each pair of steps, too.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_world::{Fault, What, When};

use crate::graph::Graph;
use crate::trial::Trial;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// How often a job was run.
    pub runs: u64,
    /// How often it died.
    pub crashes: u64,
    /// What must not have happened: the faults, and what they led to.
    pub violations: Vec<String>,
    /// Everything that happened in the first run with one.
    trace: Vec<String>,
    lines: Vec<String>,
}

impl Found {
    /// What was tried and found, for people.
    pub fn describe(&self) -> String {
        let mut lines = self.lines.clone();
        lines.extend(self.trace.iter().cloned());
        lines.extend(self.violations.iter().take(10).cloned());
        lines.join("\n")
    }
}

fn at(when: When, what: What) -> Fault {
    Fault { when, what }
}

/// Every crash of the smallest job, alone and in pairs, and of some small random ones, alone. Of those alone only every so many-th
/// is tried, and of the pairs.
pub fn all(seed: u64, every: usize, pairs_every: usize, threads: usize) -> Found {
    let mut found = Found::default();
    for disk in [false, true] {
        let smallest = trial(seed, Graph::smallest(seed), disk);
        found.singles(&smallest, "the smallest job", every, threads);
        found.pairs(&smallest, "the smallest job", pairs_every, threads);
    }
    for number in 0..4 {
        let graph = Graph::draw(seed + number, 3);
        found.singles(&trial(seed + number, graph, number % 2 == 1), "a small job", every, threads);
    }
    found
}

fn trial(seed: u64, graph: Graph, disk: bool) -> Trial {
    Trial { seed, graph, faults: Vec::new(), disk, record: false }
}

impl Found {
    /// A crash at every step, and every fault of every call.
    fn singles(&mut self, trial: &Trial, name: &str, every: usize, threads: usize) {
        let undisturbed = trial.run();
        let mut lists: Vec<Vec<Fault>> = Vec::new();
        for step in 1..=undisturbed.steps {
            lists.push(vec![at(When::Step(step), What::Kill)]);
            lists.push(vec![at(When::Step(step), What::PowerLoss)]);
            lists.push(vec![at(When::Step(step), What::Stop)]);
            lists.push(vec![at(When::Step(step), What::Pause(undisturbed.steps))]);
        }
        for call in 1..=undisturbed.counts.calls {
            let faults = [What::Fail, What::LoseAnswer, What::TimeOut(100), What::Slow(100)];
            lists.extend(faults.map(|what| vec![at(When::Call(call), what)]));
            lists.push(vec![at(When::Call(call), What::KillWithin(u64::MAX))]);
            // A put is six operations on files, or a few more if directories have to be made.
            for after in (0..9).filter(|_| trial.disk) {
                let faults =
                    [What::DiskFails(after), What::KillWithin(after), What::PowerLossWithin(after)];
                lists.extend(faults.map(|what| vec![at(When::Call(call), what)]));
            }
        }
        for delivery in 1..=undisturbed.counts.deliveries {
            let faults = [What::SinkFails, What::SinkLosesAnswer];
            lists.extend(faults.map(|what| vec![at(When::Delivery(delivery), what)]));
        }
        let lists: Vec<_> = lists.into_iter().step_by(every.max(1)).collect();
        let text = format!(
            "{name}: {} steps, {} calls of the store, {} deliveries: {} runs",
            undisturbed.steps,
            undisturbed.counts.calls,
            undisturbed.counts.deliveries,
            lists.len()
        );
        self.lines.push(text);
        self.try_all(trial, &lists, threads);
    }

    /// A crash at every pair of steps; the second is counted on from the first.
    fn pairs(&mut self, trial: &Trial, name: &str, every: usize, threads: usize) {
        let steps = trial.run().steps;
        let kill = |step| at(When::Step(step), What::Kill);
        let mut lists = Vec::new();
        for first in 1..=steps {
            let once = Trial { faults: vec![kill(first)], ..trial.clone() }.run();
            lists.extend((first + 1..=once.steps).map(|second| vec![kill(first), kill(second)]));
        }
        let pairs = lists.len();
        let lists: Vec<_> = lists.into_iter().step_by(every.max(1)).collect();
        self.lines.push(format!("{name}, {} of {pairs} pairs of {steps} steps", lists.len()));
        self.try_all(trial, &lists, threads);
    }

    fn try_all(&mut self, trial: &Trial, lists: &[Vec<Fault>], threads: usize) {
        let next = AtomicUsize::new(0);
        let shared = Mutex::new(&mut *self);
        let work = || {
            while let Some(faults) = lists.get(next.fetch_add(1, Ordering::Relaxed)) {
                let trial = Trial { faults: faults.clone(), ..trial.clone() };
                let verdict = trial.run();
                let mut found = shared.lock().expect("nobody panics with it");
                found.runs += 1;
                found.crashes += verdict.counts.crashes;
                if let Some(violation) = verdict.violation {
                    if found.trace.is_empty() {
                        found.trace = Trial { record: true, ..trial }.run().trace;
                    }
                    let faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
                    found.violations.push(format!("{}: {violation}", faults.join(", ")));
                }
            }
        };
        std::thread::scope(|scope| {
            (0..threads.max(1)).for_each(|_| drop(scope.spawn(work)));
        });
    }
}
