//! The engine's only door to the outside world: time, threads, tasks, randomness and other processes.
//!
//! Everything below the connectors reaches these through [`Env`], never through `std` or `tokio`
//! (`clippy.toml` forbids the ways around it). That is what makes it possible to run the whole engine,
//! unchanged, in a simulated world. [`RealEnv`] is real life. Storage is an
//! [`object_store::ObjectStore`], which is an interface already, and is handed to the engine beside the
//! environment.
//!
//! The environment is also where a test looks into a running process: the engine announces the
//! [`Phase`]s of a checkpoint as it enters and leaves them.

mod network;
mod phase;
mod real;
mod tcp;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use network::{Connection, Courier, Door, Network, SILENCE, Wire};
pub use phase::{Phase, PhaseGuard};
pub use real::{RealEnv, STRETCH_VARIABLE, TRACE_VARIABLE};

/// A task or an answer still to come, as [`Env`] takes and gives them.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Time, threads, tasks, randomness and other processes, real or simulated.
///
/// All methods may be called from any thread, and none blocks.
pub trait Env: Debug + Send + Sync + 'static {
    /// Time since some fixed instant of this process; never runs backwards.
    fn monotonic(&self) -> Duration;

    /// Milliseconds since 1970-01-01 UTC by the machine's clock, which may jump.
    fn wall_clock_ms(&self) -> u64;

    /// A random number, for names and nonces; not for secrets.
    fn random(&self) -> u64;

    /// Starts `task` beside the caller. It must not block; use [`Env::spawn_thread`] for what does.
    ///
    /// `name` is for people: it shows in logs and traces.
    fn spawn(&self, name: &str, task: BoxFuture<()>);

    /// Starts a thread of its own for `work` that may block on I/O.
    fn spawn_thread(&self, name: &str, work: Box<dyn FnOnce() + Send>);

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<()>;

    /// A place for a worker among the threads of an attempt, which the worker's thread then takes.
    ///
    /// Workers run on threads that timely starts; this is how the environment has a say in when they do what they do.
    fn seat(&self, worker: usize) -> Box<dyn Seat>;

    /// Waits for `task` on the calling thread, which must be none of the environment's tasks.
    ///
    /// For starting and ending an attempt; nothing on a worker thread calls it while records flow.
    fn block_on(&self, task: BoxFuture<()>);

    /// How this process reaches the others of an attempt.
    ///
    /// # Errors
    ///
    /// If there is no network, or the operating system refuses a thread for it.
    fn network(&self) -> std::io::Result<Arc<dyn Network>>;

    /// A phase begins (`entered`) or ends. Real life ignores it, unless a test listens.
    fn phase(&self, phase: Phase, entered: bool);
}

/// The place of a worker among the threads of an attempt; the thread drops it when it ends.
pub trait Seat: Send {
    /// Waits until it is this worker's turn; called before all else, and then before every step. A worker that has nothing to do
    /// says for how long.
    fn turn(&mut self, idle: Duration) -> Turn;
}

/// What a worker may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Take a step; if there is nothing to do, sleep for so long, or until there is.
    Step(Duration),
    /// Nothing, ever: its process has died. The thread returns at once.
    Dead,
}

/// Runs `task` to its end on the calling thread, and gives its answer: [`Env::block_on`] for any type.
///
/// # Panics
///
/// Panics if the environment drops the task without finishing it, which is a bug of the environment.
pub fn block_on<T: Send + 'static>(
    env: &dyn Env,
    task: impl Future<Output = T> + Send + 'static,
) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    env.block_on(Box::pin(async move {
        let answer = task.await;
        sender.send(answer).ok();
    }));
    receiver.try_recv().expect("the environment finishes what it blocks on")
}

/// Announces `phase` until the guard is dropped.
pub fn enter(env: &Arc<dyn Env>, phase: Phase) -> PhaseGuard {
    PhaseGuard::new(env.clone(), phase)
}
