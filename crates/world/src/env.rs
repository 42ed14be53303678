//! The environment of a simulated process.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use highwater_env::{BoxFuture, Env, Network, Phase, Seat, Turn};

use crate::network::SimNetwork;
use crate::scheduler::{ProcessId, Shared, Slot, ThreadId, become_thread};
use crate::world;

/// When the world began by its own clock: 2024-01-01 UTC.
const WALL_CLOCK_START_MS: u64 = 1_704_067_200_000;

/// Time, tasks and randomness of one process.
pub(crate) struct SimEnv {
    shared: Arc<Shared>,
    process: ProcessId,
}

impl std::fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimEnv(process {})", self.process)
    }
}

impl SimEnv {
    pub(crate) fn new(shared: Arc<Shared>, process: ProcessId) -> Self {
        SimEnv { shared, process }
    }
}

impl Env for SimEnv {
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.shared.lock().look_at_clock())
    }

    fn wall_clock_ms(&self) -> u64 {
        let mut state = self.shared.lock();
        let now = WALL_CLOCK_START_MS + state.look_at_clock() / 1_000;
        now.saturating_add_signed(state.wall_offset_ms)
    }

    fn random(&self) -> u64 {
        self.shared.lock().names.next()
    }

    fn spawn(&self, _: &str, task: BoxFuture<()>) {
        self.shared.spawn(self.process, task);
    }

    /// What would have a thread of its own is done at once when its turn comes, so it must not wait for anything but I/O.
    fn spawn_thread(&self, _: &str, work: Box<dyn FnOnce() + Send>) {
        self.shared.spawn(self.process, Box::pin(async move { work() }));
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        Box::pin(sleep(&self.shared, duration))
    }

    fn seat(&self, worker: usize) -> Box<dyn Seat> {
        let mut state = self.shared.lock();
        let id = state.threads.len();
        state.threads.push(Slot::new(self.process));
        state.workers.push(id);
        drop(state);
        Box::new(SimSeat { shared: self.shared.clone(), id, worker, taken: false })
    }

    fn block_on(&self, task: BoxFuture<()>) {
        world::block_on(&self.shared, self.process, task);
    }

    fn network(&self) -> std::io::Result<Arc<dyn Network>> {
        Ok(Arc::new(SimNetwork::new(self.shared.clone(), self.process)))
    }

    fn phase(&self, phase: Phase, entered: bool) {
        self.shared.lock().phase(self.process, phase, entered);
    }
}

/// Waits until the world's clock has moved on by `duration`.
pub(crate) fn sleep(shared: &Arc<Shared>, duration: Duration) -> Sleep {
    let due_us = shared.lock().clock_us + duration.as_micros() as u64;
    Sleep { shared: shared.clone(), due_us, timer: None }
}

pub(crate) struct Sleep {
    shared: Arc<Shared>,
    due_us: u64,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if state.clock_us >= self.due_us {
            return Poll::Ready(());
        }
        let set = self.timer.is_some_and(|timer| state.has_timer(timer));
        if !set {
            let timer = state.set_timer(self.due_us, context.waker().clone());
            drop(state);
            self.timer = Some(timer);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.shared.lock().cancel_timer(timer);
        }
    }
}

struct SimSeat {
    shared: Arc<Shared>,
    id: ThreadId,
    worker: usize,
    /// The worker's thread has come.
    taken: bool,
}

impl Seat for SimSeat {
    fn turn(&mut self, idle: Duration) -> Turn {
        if self.taken {
            let mut state = self.shared.lock();
            state.threads[self.id].due_us = state.clock_us + idle.as_micros() as u64;
            drop(state);
            self.shared.schedule(self.id, false);
        } else {
            self.taken = true;
            become_thread(self.id);
            self.shared.wait_for_baton(self.id);
        }
        let mut state = self.shared.lock();
        if state.threads[self.id].dying {
            return Turn::Dead;
        }
        state.trace.add(self.worker as u64);
        Turn::Step(Duration::ZERO)
    }
}

impl Drop for SimSeat {
    fn drop(&mut self) {
        if self.taken {
            self.shared.leave(self.id);
        } else {
            // The thread was never started.
            self.shared.lock().forget(self.id);
        }
    }
}
