//! Every crash there is, for jobs that are small enough.
//!
//! An undisturbed run of a job has so many steps and so many calls of the store until the job is done. The job is run again for each of them, and
//! dies there; for each call it also dies with the call's effect done and unanswered, or fails. For the smallest job there is
//! a run for each pair of deaths, too: at any step or in any call, and then at any later one, as far as the first death has let it come.

use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::time::Duration;

use highwater_runtime::Settings;
use highwater_world::{Fault, What, When};

use crate::graph::Graph;
use crate::trial::{Trial, drawn};

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
        let smallest = smallest(seed, disk);
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
    Trial { seed, graph, faults: Vec::new(), disk, settings: drawn, record: false }
}

/// The smallest job, by the first seed from this one on that has it publish twice.
fn smallest(seed: u64, disk: bool) -> Trial {
    let mut seeds =
        (seed..).map(|seed| Trial { settings: small, ..trial(seed, Graph::smallest(seed), disk) });
    let twice = seeds.find(|trial| trial.run().counts.deliveries >= 2);
    twice.expect("seeds don't come to an end")
}

/// How the smallest job runs: with one worker, and through no more epochs and checkpoints than it takes for rows of two of them.
fn small(seed: u64, attempt: usize) -> Settings {
    Settings {
        processes: 1,
        workers: 1,
        epoch: Duration::from_millis(1),
        trigger: Duration::from_millis(1).into(),
        checkpoint_interval: Some(Duration::from_millis(3)),
        in_flight_bytes: 32 << 20,
        key_groups: 1,
        retained: 1,
        unpublished: 30,
        uncommitted: Duration::from_secs(60),
        ..drawn(seed, attempt)
    }
}

/// Deaths at steps, and behind calls of the store, before anybody knows what became of them.
fn deaths(steps: RangeInclusive<u64>, calls: RangeInclusive<u64>) -> impl Iterator<Item = Fault> {
    let steps = steps.map(|step| at(When::Step(step), What::Kill));
    steps.chain(calls.map(|call| at(When::Call(call), What::KillWithin(u64::MAX))))
}

impl Found {
    /// A crash at every step, and every fault of every call.
    fn singles(&mut self, trial: &Trial, name: &str, every: usize, threads: usize) {
        let undisturbed = trial.run();
        let end = undisturbed.done;
        let mut lists: Vec<Vec<Fault>> = Vec::new();
        for step in 1..=end.step {
            lists.push(vec![at(When::Step(step), What::Kill)]);
            lists.push(vec![at(When::Step(step), What::PowerLoss)]);
            lists.push(vec![at(When::Step(step), What::Stop)]);
            lists.push(vec![at(When::Step(step), What::Pause(end.step))]);
        }
        for call in 1..=end.calls {
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
            end.step,
            end.calls,
            undisturbed.counts.deliveries,
            lists.len()
        );
        self.lines.push(text);
        self.try_all(trial, &lists, threads);
    }

    /// Two deaths: at every step and in every call, and at every later step and in every later call.
    fn pairs(&mut self, trial: &Trial, name: &str, every: usize, threads: usize) {
        let end = trial.run().done;
        let firsts: Vec<Fault> = deaths(1..=end.step, 1..=end.calls).collect();
        let (mut pairs, mut lists) = (0, Vec::new());
        for first in firsts {
            let once = Trial { faults: vec![first], ..trial.clone() }.run();
            let Some(died) = once.deaths.first() else { continue };
            let later = deaths(died.step + 1..=once.done.step, died.calls + 1..=once.done.calls);
            for second in later {
                if pairs % every.max(1) == 0 {
                    lists.push(vec![first, second]);
                }
                pairs += 1;
            }
        }
        self.lines.push(format!("{name}: {} of {pairs} pairs of deaths", lists.len()));
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
