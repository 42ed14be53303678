//! Many trials, and what to say about one that fails.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater_world::{Counts, Fault, Mix, shrink};

use crate::trial::{Trial, Verdict};

/// What many trials came to.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Seeds tried.
    pub seeds: u64,
    /// What they went through.
    pub counts: Counts,
    /// Attempts that were started.
    pub attempts: u64,
    /// Jobs that refused to go on, because a bit had flipped.
    pub refused: u64,
    /// Seeds of which two runs differed.
    pub differed: Vec<u64>,
    /// Seeds that led to a violation, and to which.
    pub violations: Vec<(u64, String)>,
}

/// Which seeds are tried, and how.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The first.
    pub start: u64,
    /// How many, at the most.
    pub seeds: u64,
    /// For how long, at the most; looked at between two seeds by `clock`.
    pub limit: Option<Duration>,
    /// What goes wrong.
    pub mix: Mix,
    /// So many are tried at the same time.
    pub threads: usize,
    /// Every n-th seed is run twice, and must do the same; none if zero.
    pub twice_every: u64,
    /// Stop at the first violation.
    pub stop_at_first: bool,
}

/// Tries seeds. `clock` tells how long it has been.
pub fn explore(plan: &Plan, clock: &(dyn Fn() -> Duration + Sync)) -> Total {
    let next = AtomicU64::new(plan.start);
    let total = Mutex::new(Total::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let stop = {
                let total = total.lock().expect("nobody panics with it");
                plan.stop_at_first && !total.violations.is_empty()
            };
            if stop
                || seed >= plan.start + plan.seeds
                || plan.limit.is_some_and(|limit| clock() > limit)
            {
                return;
            }
            let trial = Trial::draw(seed, &plan.mix);
            let verdict = trial.run();
            let again = plan.twice_every > 0 && seed.is_multiple_of(plan.twice_every);
            let differs = again && trial.run().trace_hash != verdict.trace_hash;
            let mut total = total.lock().expect("nobody panics with it");
            total.add(seed, verdict);
            if differs {
                total.differed.push(seed);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..plan.threads.max(1)).for_each(|_| drop(scope.spawn(work)));
    });
    let mut total = total.into_inner().expect("nobody panics with it");
    total.violations.sort();
    total.differed.sort();
    total
}

impl Total {
    fn add(&mut self, seed: u64, verdict: Verdict) {
        self.seeds += 1;
        self.counts.add(&verdict.counts);
        self.attempts += verdict.attempts as u64;
        self.refused += u64::from(verdict.refused);
        self.violations.extend(verdict.violation.map(|violation| (seed, violation)));
    }

    /// What was gone through, for people.
    pub fn describe(&self) -> String {
        let Counts { by_phase, running, power_losses, pauses, store_faults, other_faults, .. } =
            &self.counts;
        let Counts { bit_flips, calls, deliveries, network_faults, of_several, .. } = &self.counts;
        let mut phases = format!("running={running}");
        for (phase, count) in highwater::env::Phase::ALL.iter().zip(by_phase) {
            let _ = write!(phases, " {}={count}", phase.name());
        }
        format!(
            "crash points: {phases}; one of several processes={of_several}\n\
             power losses={power_losses} pauses={pauses} store faults={store_faults} bit flips={bit_flips} \
             network faults={network_faults} clock and sink faults={other_faults}\n\
             attempts={} store calls={calls} deliveries={deliveries} refused after damage={}",
            self.attempts, self.refused,
        )
    }
}

/// The shortest list of faults under which the trial still fails, and that run, written down.
pub fn explain(trial: &Trial) -> (Vec<Fault>, Verdict) {
    let fails = |faults: &[Fault]| {
        let trial = Trial { faults: faults.to_vec(), ..trial.clone() };
        trial.run().violation.is_some()
    };
    let faults = shrink(trial.faults.clone(), fails);
    let verdict = Trial { faults: faults.clone(), record: true, ..trial.clone() }.run();
    (faults, verdict)
}

/// The explanation of a failing trial, for people.
pub fn report(trial: &Trial, trace: bool) -> String {
    let (faults, verdict) = explain(trial);
    let mut text = format!("seed {}\n", trial.seed);
    for (at, node) in trial.graph.nodes.iter().enumerate() {
        let _ = writeln!(text, "  n{at} = {:?} <- {:?}", node.op, node.inputs);
    }
    let media = if trial.disk { "a disk of this machine" } else { "another machine" };
    let _ = writeln!(
        text,
        "checkpoints on {media}; {} of {} faults are enough:",
        faults.len(),
        trial.faults.len()
    );
    for fault in &faults {
        let _ = writeln!(text, "  {fault}");
    }
    if trace {
        for line in &verdict.trace {
            let _ = writeln!(text, "{line}");
        }
    }
    let violation =
        verdict.violation.unwrap_or_else(|| "it doesn't fail when it is shortened".to_owned());
    let _ = writeln!(text, "violation: {violation}");
    text
}
