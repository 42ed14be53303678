//! A job under simulated failure: in a test of yours, everything that could happen to it in production.

use std::fmt::{self, Write as _};
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater_runtime::{Data, Settings};
use highwater_world::{Ended, Fault, Media, Mix, Random, Scenario, What, When, shrink};

use super::plan;
use crate::Job;
use crate::connectors::collect;

/// Each run has a job name of its own: what it collects is kept by name, and equal seeds make equal identities.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// The order in which an exhaustive check has things happen is drawn so many times.
const ORDERS: u64 = 3;

/// Of the crashes in one order, so many are tried at the most.
const CRASHES_MAX: u64 = 300;

/// Runs a job in a simulated world, again and again, and crashes it in every run: everywhere once, or at random places.
///
/// The whole engine runs in the simulation, unchanged, with several workers, a virtual clock and a simulated store. Which worker goes
/// next, when a checkpoint is taken, what a call of the store takes: all that is drawn from a seed, so that a failure can be
/// repeated. After each run the committed output is handed to a function of yours, which panics (`assert!`) if it is wrong.
///
/// The job function is called anew for every attempt, as `main` is in a new process: what it keeps in variables of its own is gone after
/// a crash. That is what ordinary tests don't see:
///
/// ```
/// use std::collections::HashSet;
/// use std::sync::Mutex;
///
/// use highwater::Stream;
/// use highwater::testing::{Collect, Crashes, Script};
///
/// // The first visit of each visitor, remembered in a variable: wrong.
/// fn first_visits(visits: Stream<String>) -> Stream<String> {
///     let seen = Mutex::new(HashSet::new());
///     visits.filter(move |visitor| seen.lock().unwrap().insert(visitor.clone()))
/// }
///
/// let visits = ["ada", "bob", "ada", "eve", "bob", "ada", "eve", "ada", "bob", "ada"];
/// let visits: Vec<String> = visits.map(str::to_owned).into();
/// let result = Crashes::exhaustive().workers([1]).check(
///     |job| {
///         first_visits(job.read("visits", visits.clone())).write("first", Collect);
///     },
///     |run| {
///         let mut first = run.committed::<String>("first");
///         first.sort();
///         assert_eq!(first, ["ada", "bob", "eve"]);
///     },
/// );
/// let failure = result.unwrap_err().to_string();
/// assert!(failure.contains("kill the newest process at step"), "{failure}");
///
/// // Remembered in the engine's state: right.
/// let result = Crashes::exhaustive().check(
///     |job| {
///         job.read("visits", visits.clone()).distinct().uid("visitors").write("first", Collect);
///     },
///     |run| assert_eq!(run.committed::<String>("first").len(), 3),
/// );
/// assert!(result.unwrap().crashes() > 100);
/// ```
///
/// Sources and sinks must be those of a test: [`Script`](super::Script), a `Vec`, a [`Generator`](crate::connectors::Generator) with a limit;
/// [`Collect`](super::Collect), [`foreach_batch`](crate::connectors::foreach_batch). Files, which wait for a disk of this machine, can't be
/// simulated. A script needs no [`crash`](super::Script::crash).
#[derive(Clone, Debug)]
pub struct Crashes {
    seeds: Option<u64>,
    start: u64,
    workers: Vec<usize>,
    mix: Mix,
}

impl Crashes {
    /// One crash in each run, at each point at which there can be one, in turn: after every step of the scheduler. That for three
    /// orders in which things happen; in each, if there are more than 300 steps, evenly spaced ones.
    pub fn exhaustive() -> Self {
        Crashes { seeds: None, start: 0, workers: vec![2, 1, 3], mix: Mix::CRASHES }
    }

    /// So many runs, each with several random crashes, lost power, stopped processes, a failing store and failing sinks.
    pub fn seeds(seeds: u64) -> Self {
        // A damaged checkpoint may be a reason to refuse, which is no failure of the job.
        let mix = Mix { bit_flips: 0, ..Mix::ALL };
        Crashes { seeds: Some(seeds), mix, ..Crashes::exhaustive() }
    }

    /// Begins with another seed, such as one that was reported.
    #[must_use]
    pub fn start(self, seed: u64) -> Self {
        Crashes { start: seed, ..self }
    }

    /// The first attempt has so many workers, the next so many, and so on, over and over. Two, one and three, unless said otherwise.
    ///
    /// # Panics
    ///
    /// Panics if there is no number, or a zero among them.
    #[must_use]
    pub fn workers(self, workers: impl IntoIterator<Item = usize>) -> Self {
        let workers: Vec<usize> = workers.into_iter().collect();
        assert!(!workers.is_empty() && !workers.contains(&0), "a job needs at least one worker");
        Crashes { workers, ..self }
    }

    /// Only processes die, and nothing else goes wrong.
    #[must_use]
    pub fn only_crashes(self) -> Self {
        Crashes { mix: Mix::CRASHES, ..self }
    }

    /// Runs the job through all of it, and `expect` after each run.
    ///
    /// # Errors
    ///
    /// If the job fails by itself or `expect` panics: with the seed, the fewest faults that it takes, and what happened.
    pub fn check<R>(
        &self,
        job: impl Fn(&Job) -> R,
        expect: impl Fn(&Simulated),
    ) -> Result<Survived, Box<Failure>> {
        let job = |handle: &Job| drop(job(handle));
        let subject = Subject { job: &job, expect: &expect, workers: &self.workers };
        let mut survived = Survived::default();
        let mut trials: Vec<(u64, Vec<Fault>)> = Vec::new();
        let orders = if self.seeds.is_some() { 1 } else { ORDERS };
        for seed in self.start..self.start + orders {
            let undisturbed = subject.run(seed, &[], false);
            survived.add(&undisturbed);
            if undisturbed.violation.is_some() {
                return Err(Box::new(subject.explain(seed, Vec::new())));
            }
            let steps = undisturbed.steps;
            match self.seeds {
                None => {
                    let every = steps.div_ceil(CRASHES_MAX).max(1) as usize;
                    let crash = |step| vec![Fault { when: When::Step(step), what: What::Kill }];
                    trials.extend((1..=steps).step_by(every).map(|step| (seed, crash(step))));
                }
                Some(seeds) => trials
                    .extend((self.start..self.start + seeds).map(|seed| {
                        (seed, self.mix.draw(&mut Random::new(seed, "faults"), steps))
                    })),
            }
        }
        for (seed, faults) in trials {
            let result = subject.run(seed, &faults, false);
            survived.add(&result);
            if result.violation.is_some() {
                return Err(Box::new(subject.explain(seed, faults)));
            }
        }
        Ok(survived)
    }
}

/// What is run.
struct Subject<'t> {
    job: &'t dyn Fn(&Job),
    expect: &'t dyn Fn(&Simulated),
    workers: &'t [usize],
}

struct RunResult {
    violation: Option<String>,
    steps: u64,
    crashes: u64,
    attempts: u64,
    trace: Vec<String>,
}

impl Subject<'_> {
    fn run(&self, seed: u64, faults: &[Fault], record: bool) -> RunResult {
        let name = format!("simulated-{:012}", RUNS.fetch_add(1, Ordering::Relaxed));
        let run = highwater_world::run(Scenario {
            seed,
            faults: faults.to_vec(),
            media: if seed.is_multiple_of(2) { Media::remote() } else { Media::disk(seed) },
            step_limit: 2_000_000,
            record,
            name: name.clone(),
            plan: &|_| plan(self.job),
            settings: &|attempt| settings(seed, attempt, self.workers),
            done: &|| (),
        });
        let mut violation = run.violation.map(|violation| violation.to_string());
        if let (None, Some(outcome)) = (&violation, &run.outcome) {
            let simulated = Simulated { job: name.clone(), job_id: outcome.job_id.clone() };
            let checked = catch_unwind(AssertUnwindSafe(|| (self.expect)(&simulated)));
            violation = checked.err().map(|panic| text(&*panic).to_owned());
        }
        collect::forget(&name);
        let attempts = run.attempts.iter().filter(|attempt| attempt.ended != Ended::FoundFinished);
        RunResult {
            violation,
            steps: run.world.steps(),
            crashes: run.counts.crashes,
            attempts: attempts.count() as u64,
            trace: run.world.trace(),
        }
    }

    fn explain(&self, seed: u64, faults: Vec<Fault>) -> Failure {
        let faults = shrink(faults, |faults| self.run(seed, faults, false).violation.is_some());
        let RunResult { violation, trace, .. } = self.run(seed, &faults, true);
        let why = violation.unwrap_or_else(|| {
            "it doesn't fail when it is repeated: the job depends on something that isn't simulated, such as \
             the time, random numbers or the order of a hash map"
                .to_owned()
        });
        Failure { seed, faults, why, trace }
    }
}

/// Fast, so that much happens in few steps.
fn settings(seed: u64, attempt: usize, workers: &[usize]) -> Settings {
    let mut random = Random::new(seed ^ ((attempt as u64) << 40), "settings");
    Settings {
        workers: workers[attempt % workers.len()],
        epoch: Duration::from_micros(random.within(200..=3_000)),
        trigger: Duration::from_micros(random.below(10_000)).into(),
        checkpoint_interval: Some(Duration::from_micros(random.within(1_000..=10_000))),
        // Little is under way at once, so that crashes find jobs in the midst of their input.
        batch_rows: random.within(1..=4) as usize,
        in_flight_bytes: random.within(1..=400) as usize,
        exchange_bytes: true,
        ..Settings::default()
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the check panicked")
}

/// A run that came to its end.
#[derive(Clone, Debug)]
pub struct Simulated {
    job: String,
    job_id: String,
}

impl Simulated {
    /// Every row that the [`Collect`](super::Collect) sink `uid` was given by committed checkpoints, in the order of checkpoints.
    ///
    /// # Panics
    ///
    /// Panics if the sink's rows are of another type.
    pub fn committed<T: Data>(&self, uid: &str) -> Vec<T> {
        collect::rows(&self.job, &self.job_id, uid)
    }

    /// The last row of each key that the sink `uid` was given: what a running aggregate came to.
    ///
    /// # Panics
    ///
    /// Panics if the sink's rows are of another type.
    pub fn last_per_key<K: Data + Hash + Eq, V: Data>(
        &self,
        uid: &str,
    ) -> std::collections::HashMap<K, V> {
        self.committed::<(K, V)>(uid).into_iter().collect()
    }
}

/// What a job has survived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survived {
    runs: u64,
    crashes: u64,
    attempts: u64,
}

impl Survived {
    fn add(&mut self, result: &RunResult) {
        self.runs += 1;
        self.crashes += result.crashes;
        self.attempts += result.attempts;
    }

    /// How often the job was run.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// How often it crashed, in all runs.
    pub fn crashes(&self) -> u64 {
        self.crashes
    }
}

impl fmt::Display for Survived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs, {} crashes, {} attempts", self.runs, self.crashes, self.attempts)
    }
}

/// How a job failed: its `Display` and `Debug` are a report for people.
#[derive(Clone)]
pub struct Failure {
    seed: u64,
    faults: Vec<Fault>,
    why: String,
    trace: Vec<String>,
}

impl Failure {
    /// The seed that repeats it: see [`Crashes::start`].
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What `expect` said, or what the job failed with.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Everything that happened, a line each: its step and the virtual time first.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }
}

/// So many lines of what happened around a fault are shown.
const LINES: usize = 12;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("the job doesn't survive (seed {})\n\n{}\n\n", self.seed, self.why);
        match self.faults.as_slice() {
            [] => text.push_str("nothing needs to go wrong for that\n"),
            faults => {
                text.push_str("what has to go wrong for that:\n");
                faults.iter().try_for_each(|fault| writeln!(text, "  - {fault}"))?;
                text.push_str("\nwhat happened before and after:\n");
                let marks: Vec<usize> = (0..self.trace.len())
                    .filter(|at| faults.iter().any(|fault| self.trace[*at].contains(&what(fault))))
                    .collect();
                let near = |at: &usize| marks.iter().any(|mark| at.abs_diff(*mark) <= LINES / 2);
                for at in (0..self.trace.len()).filter(near) {
                    writeln!(text, "  {}", self.trace[at])?;
                }
            }
        }
        f.write_str(text.trim_end())
    }
}

/// What a fault is called in the trace, without when it strikes.
fn what(fault: &Fault) -> String {
    let text = fault.to_string();
    text.split(" at ").next().unwrap_or_default().to_owned()
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}
