//! Real life: the machine's clocks, threads of the operating system, tasks on a small tokio runtime.

#![allow(
    clippy::disallowed_methods,
    reason = "this is the one place that may reach the real world"
)]

use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::tcp::TcpNetwork;
use crate::{BoxFuture, Env, Network, Phase, Seat, Turn};

/// Names a file to which the phases under way are written, one line a change. For tests that kill.
pub const TRACE_VARIABLE: &str = "HIGHWATER_TEST_PHASES";

/// Makes phases longer, as `publishing=200,encoding=50` (milliseconds). For tests that kill.
pub const STRETCH_VARIABLE: &str = "HIGHWATER_TEST_STRETCH";

/// The environment of a real process.
#[derive(Debug)]
pub struct RealEnv {
    start: Instant,
    random: AtomicU64,
    // Some until drop: a runtime must be shut down without waiting for tasks that hang.
    runtime: Option<tokio::runtime::Runtime>,
    /// Once it is asked for: most jobs have one process.
    network: Mutex<Option<Arc<TcpNetwork>>>,
    hook: Option<TestHook>,
}

/// What a test that kills this process asked for by variables of the environment.
#[derive(Debug)]
struct TestHook {
    trace: Option<File>,
    stretch_ms: [u64; Phase::ALL.len()],
    under_way: [AtomicUsize; Phase::ALL.len()],
}

impl RealEnv {
    /// Starts the threads that run tasks.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a thread, or a test hook names a file that can't be written.
    pub fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("highwater-task")
            // Time, and the network for whoever brings connections along.
            .enable_all()
            .build()?;
        // The standard library's hash maps are seeded by the operating system, once a process.
        let seed = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = seed ^ (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 40);
        Ok(RealEnv {
            start: Instant::now(),
            random: AtomicU64::new(seed),
            runtime: Some(runtime),
            network: Mutex::default(),
            hook: TestHook::from_variables()?,
        })
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("the runtime is there until drop")
    }
}

impl Drop for RealEnv {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Env for RealEnv {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_clock_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
        let mut z = self
            .random
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
            .wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn spawn(&self, name: &str, task: BoxFuture<()>) {
        tracing::trace!(task = name, "spawned");
        self.runtime().spawn(task);
    }

    fn spawn_thread(&self, name: &str, work: Box<dyn FnOnce() + Send>) {
        let thread = std::thread::Builder::new().name(name.to_owned());
        if let Err(error) = thread.spawn(work) {
            // Whoever waits for the thread sees its channel closed and reports that in its own words.
            tracing::error!(thread = name, %error, "the operating system refused a thread");
        }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        // The timer registers with the runtime when it is made, which may be outside of a task.
        let _inside = self.runtime().enter();
        Box::pin(tokio::time::sleep(duration))
    }

    fn seat(&self, _: usize) -> Box<dyn Seat> {
        Box::new(Free)
    }

    fn block_on(&self, task: BoxFuture<()>) {
        self.runtime().block_on(task);
    }

    fn network(&self) -> std::io::Result<Arc<dyn Network>> {
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = &*network {
            return Ok(network.clone());
        }
        let new = Arc::new(TcpNetwork::new()?);
        *network = Some(new.clone());
        Ok(new)
    }

    fn phase(&self, phase: Phase, entered: bool) {
        if let Some(hook) = &self.hook {
            hook.phase(phase, entered);
        }
    }
}

/// The seat of a worker whose turn it always is: the operating system shares out the processors.
struct Free;

impl Seat for Free {
    fn turn(&mut self, idle: Duration) -> Turn {
        Turn::Step(idle)
    }
}

impl TestHook {
    fn from_variables() -> std::io::Result<Option<Self>> {
        let trace = match std::env::var_os(TRACE_VARIABLE) {
            Some(path) => Some(File::options().create(true).append(true).open(path)?),
            None => None,
        };
        let stretch = std::env::var(STRETCH_VARIABLE).unwrap_or_default();
        if trace.is_none() && stretch.is_empty() {
            return Ok(None);
        }
        let mut stretch_ms = [0; Phase::ALL.len()];
        for part in stretch.split(',').filter(|part| !part.is_empty()) {
            let bad = || {
                let text = format!("{STRETCH_VARIABLE}: `{part}` is not `phase=milliseconds`");
                std::io::Error::new(std::io::ErrorKind::InvalidInput, text)
            };
            let (name, ms) = part.split_once('=').ok_or_else(bad)?;
            let phase =
                Phase::ALL.into_iter().find(|phase| phase.name() == name).ok_or_else(bad)?;
            stretch_ms[phase as usize] = ms.parse().map_err(|_| bad())?;
        }
        Ok(Some(TestHook { trace, stretch_ms, under_way: Default::default() }))
    }

    fn phase(&self, phase: Phase, entered: bool) {
        let count = &self.under_way[phase as usize];
        if entered {
            count.fetch_add(1, Ordering::SeqCst);
        } else {
            count.fetch_sub(1, Ordering::SeqCst);
        }
        if let Some(mut trace) = self.trace.as_ref() {
            let under_way: Vec<&str> = Phase::ALL
                .into_iter()
                .filter(|phase| self.under_way[*phase as usize].load(Ordering::SeqCst) > 0)
                .map(Phase::name)
                .collect();
            // One write a line: a kill between two lines leaves whole lines.
            trace.write_all(format!("{}\n", under_way.join("+")).as_bytes()).ok();
        }
        let stretch_ms = self.stretch_ms[phase as usize];
        if entered && stretch_ms > 0 {
            std::thread::sleep(Duration::from_millis(stretch_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;

    #[test]
    fn tasks_answer_and_time_passes() {
        let env = RealEnv::new().unwrap();
        let before = env.monotonic();
        let sleep = env.sleep(Duration::from_millis(5));
        assert_eq!(
            block_on(&env, async move {
                sleep.await;
                7
            }),
            7
        );
        assert!(env.monotonic() - before >= Duration::from_millis(5));
        assert_ne!(env.random(), env.random());
    }
}
