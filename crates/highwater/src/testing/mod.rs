//! Runs a job in a test: in this process, on a script of records, epochs and crashes.
//!
//! ```
//! use highwater::testing::{self, Collect, Script};
//!
//! let run = testing::run(2, |job| {
//!     let input = Script::new().records(["a", "b"].map(str::to_owned)).checkpoint().crash().record("a".to_owned());
//!     job.read("in", input).key_by(|word| word.clone()).count().uid("count").write("counts", Collect);
//! })?;
//! assert_eq!(run.last_per_key::<String, u64>("counts")["a"], 2);
//! assert_eq!(run.attempts(), 2);
//! # Ok::<(), highwater::Error>(())
//! ```
//!
//! A script crashes where its author thought of it. [`Crashes`] runs a job in a simulated world and crashes it everywhere.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Env, RealEnv};
use highwater_log::Store;
use highwater_runtime::{Data, Outcome, Plan, Settings};
use object_store::memory::InMemory;

pub use crate::connectors::{Collect, Script};

use crate::connectors::collect;
use crate::{Error, Job, Result};

#[cfg(feature = "simulation")]
mod crashes;

#[cfg(feature = "simulation")]
pub use crashes::{Crashes, Failure, Simulated, Survived};

/// What a job is called here.
const JOB: &str = "test";

/// Runs a job with so many workers until its sources end, starting it again after every crash that its script asks for.
///
/// Checkpoints are kept in memory, every epoch ends a trigger.
///
/// # Errors
///
/// Whatever keeps the job from starting or makes it fail, other than the scripted crashes.
pub fn run<R>(workers: usize, job: impl FnOnce(&Job) -> R) -> Result<Run> {
    Test::new(workers).run(job)
}

/// Checks on these values that `inverse` takes away what `reduce` added, as windows with an inverse function demand.
///
/// ```
/// highwater::testing::assert_inverts(|a, b| a + b, |a, b| a - b, &[-7i64, 0, 3, 40]);
/// ```
///
/// # Panics
///
/// Panics with the values for which it doesn't.
pub fn assert_inverts<V: Clone + PartialEq + std::fmt::Debug>(
    reduce: impl Fn(V, V) -> V,
    inverse: impl Fn(V, V) -> V,
    values: &[V],
) {
    for a in values {
        for b in values {
            let both = reduce(a.clone(), b.clone());
            let left = inverse(both.clone(), b.clone());
            assert!(
                left == *a,
                "the inverse function doesn't invert: {a:?} and {b:?} come to {both:?}, and that without {b:?} to {left:?}"
            );
        }
    }
}

/// The plan that a job function builds, for tools that run plans themselves.
#[doc(hidden)]
pub fn plan<R>(job: impl FnOnce(&Job) -> R) -> Plan {
    let graph = Job::new();
    job(&graph);
    graph.into_plan()
}

/// A test run with settings of its own.
///
/// ```
/// use highwater::testing::{Collect, Script, Test};
///
/// // Two workers, then three, then one.
/// let run = Test::new(2).then(3).then(1).run(|job| {
///     let input = Script::new().record(1_u64).checkpoint().crash().record(2).checkpoint().crash().record(3);
///     job.read("in", input).write("out", Collect);
/// })?;
/// assert_eq!(run.committed::<u64>("out"), [1, 2, 3]);
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Test {
    /// For the first attempt, the second, ...; the last number stays.
    workers: Vec<usize>,
    settings: Settings,
    store: Store,
}

impl Test {
    /// A test that begins with so many workers.
    pub fn new(workers: usize) -> Self {
        let settings = Settings {
            epoch: Duration::from_millis(1),
            trigger: Duration::ZERO.into(),
            checkpoint_interval: Some(Duration::from_millis(20)),
            ..Settings::default()
        };
        Test {
            workers: vec![workers],
            settings,
            store: Store::from_objects(Arc::new(InMemory::new())),
        }
    }

    /// After the next crash there are so many workers.
    #[must_use]
    pub fn then(mut self, workers: usize) -> Self {
        self.workers.push(workers);
        self
    }

    /// Changes the settings of all attempts; the number of workers is set by [`new`](Self::new) and [`then`](Self::then).
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Keeps checkpoints in `store`.
    #[must_use]
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// Runs the job until its sources end, starting it again after every scripted crash.
    ///
    /// # Errors
    ///
    /// Whatever keeps the job from starting or makes it fail, other than the scripted crashes.
    pub fn run<R>(self, job: impl FnOnce(&Job) -> R) -> Result<Run> {
        self.run_plan(&plan(job))
    }

    fn run_plan(self, plan: &Plan) -> Result<Run> {
        let mut attempts = 0;
        loop {
            let workers = self.workers[attempts.min(self.workers.len() - 1)];
            attempts += 1;
            let fresh = self.settings.fresh && attempts == 1;
            let settings = Settings { workers, fresh, ..self.settings.clone() };
            // Each attempt has threads of its own, as a process would; what a crash leaves behind can't act for the next one.
            let env: Arc<dyn Env> = Arc::new(RealEnv::new()?);
            let store = self.store.clone();
            match highwater_runtime::run(JOB, plan.clone(), settings, env, store, |_| ()) {
                Err(highwater_runtime::Error::ScriptedCrash) => {}
                Err(error) => return Err(Error::from(error)),
                Ok(outcome) => return Ok(Run { outcome, attempts }),
            }
        }
    }
}

/// What a test run has committed.
#[derive(Clone, Debug)]
pub struct Run {
    outcome: Outcome,
    attempts: usize,
}

impl Run {
    /// Every row that the [`Collect`] sink `uid` was given by committed checkpoints, in the order of checkpoints.
    ///
    /// # Panics
    ///
    /// Panics if the sink's rows are of another type.
    pub fn committed<T: Data>(&self, uid: &str) -> Vec<T> {
        collect::rows(JOB, &self.outcome.job_id, uid)
    }

    /// The last row of each key that the sink `uid` was given: what a running aggregate came to.
    ///
    /// # Panics
    ///
    /// Panics if the sink's rows are of another type.
    pub fn last_per_key<K: Data + Hash + Eq, V: Data>(&self, uid: &str) -> HashMap<K, V> {
        self.committed::<(K, V)>(uid).into_iter().collect()
    }

    /// How often the job was started.
    pub fn attempts(&self) -> usize {
        self.attempts
    }

    /// How the last attempt ended.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}
