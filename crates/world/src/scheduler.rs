//! Who goes next: one decision at a time, by whichever thread has the baton.
//!
//! Threads (the controller, processes' main threads, workers) run one at a time. The one that has come to a point where it would wait
//! decides, by the seed, what happens next: a task is polled right there, the clock moves on, a fault strikes, or the baton goes
//! to another thread. Nothing else ever runs, so a run is a function of the seed and the faults.
//!
//! # Invariant
//!
//! 9. The same seed gives the same run: every choice here is drawn from `State::random`, from candidates in an order that doesn't depend
//!    on the machine.

mod choose;
mod clock;
mod habits;
mod rules;
mod strike;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use highwater_env::{BoxFuture, Phase};
use highwater_runtime::Control;

use crate::fault::Fault;
use crate::random::{Random, mix};
use crate::world::{Counts, Moment};
use choose::Decision;
use habits::Habits;
use rules::Begun;

/// A process's number; the network's, which outlives every process, is 0.
pub(crate) type ProcessId = usize;
pub(crate) type ThreadId = usize;
pub(crate) type TaskId = usize;

pub(crate) const NETWORK: ProcessId = 0;
pub(crate) const CONTROLLER: ThreadId = 0;

thread_local! {
    /// Which of the world's threads this one is.
    static ME: Cell<Option<ThreadId>> = const { Cell::new(None) };
}

pub(crate) fn me() -> ThreadId {
    ME.get().expect("only the world's own threads wait for it")
}

pub(crate) fn become_thread(id: ThreadId) {
    ME.set(Some(id));
}

/// The world, as all its threads see it.
pub(crate) struct Shared {
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) random: Random,
    pub(crate) names: Random,
    pub(crate) habits: Habits,
    pub(crate) clock_us: u64,
    pub(crate) wall_offset_ms: i64,
    pub(crate) steps: u64,
    pub(crate) step_limit: u64,
    pub(crate) processes: Vec<Process>,
    pub(crate) threads: Vec<Slot>,
    /// Workers that haven't left, in the order in which they came.
    pub(crate) workers: Vec<ThreadId>,
    tasks: Vec<Option<Task>>,
    /// Tasks to be polled, in the order in which they were woken.
    woken: Vec<TaskId>,
    /// Main threads that can go on.
    pub(crate) ready: Vec<ThreadId>,
    /// How many threads are to end and haven't yet.
    dying: usize,
    timers: BinaryHeap<Reverse<(u64, u64)>>,
    sleepers: BTreeMap<u64, Waker>,
    next_timer: u64,
    /// Faults that haven't struck yet.
    pub(crate) faults: Vec<Fault>,
    /// The first step at which one of them may strike.
    next_strike: u64,
    phases_entered: [u64; Phase::ALL.len()],
    pub(crate) events: VecDeque<Event>,
    /// Futures of the dead, to be dropped when the state isn't locked.
    dropped: Vec<BoxFuture<()>>,
    /// Who is to be asked to stop then.
    stopped: Vec<Control>,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    /// What a process has done while it ran that must never be.
    pub(crate) broken_rule: Option<String>,
    /// Where processes died.
    pub(crate) deaths: Vec<Moment>,
    /// Where the last fault could strike, once the job is done.
    pub(crate) done: Option<Moment>,
    pub(crate) store: crate::store::Condition,
    pub(crate) links: crate::network::Links,
    media: Arc<crate::store::Media>,
}

pub(crate) struct Process {
    pub(crate) alive: bool,
    /// Those that have the same number were started to run an attempt together.
    pub(crate) team: usize,
    /// It will go on at this step, and not before this time.
    pub(crate) paused_until: Option<u64>,
    pub(crate) paused_until_us: u64,
    pub(crate) main: ThreadId,
    /// A call of it to the store has failed.
    pub(crate) store_failed: bool,
    /// By which it is asked to stop, once its workers run.
    pub(crate) control: Option<Control>,
    /// How it was started, if its workers run, or have run.
    pub(crate) begun: Option<Begun>,
    /// An entry was committed, and nothing of it is published yet.
    committed: bool,
    /// How often each phase is under way now.
    under_way: [u32; Phase::ALL.len()],
}

impl Process {
    pub(crate) fn new(main: ThreadId, team: usize) -> Self {
        Process {
            alive: true,
            team,
            paused_until: None,
            paused_until_us: 0,
            main,
            control: None,
            begun: None,
            committed: false,
            store_failed: false,
            under_way: [0; Phase::ALL.len()],
        }
    }
}

/// What the controller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process has come to its end, one way or another.
    Ended(ProcessId),
    /// A process stands still.
    Paused(ProcessId),
    /// The step limit is reached, or nothing can ever happen again.
    Stuck,
    /// A process has done what must never be.
    BrokenRule,
}

/// A thread of the world.
pub(crate) struct Slot {
    pub(crate) process: ProcessId,
    pub(crate) handle: Option<Thread>,
    /// It has been given the baton.
    go: bool,
    pub(crate) gone: bool,
    pub(crate) dying: bool,
    /// The task that it waits for.
    waits_for: Option<TaskId>,
    /// When a worker has something to do again.
    pub(crate) due_us: u64,
    /// A worker doesn't get to run before this step.
    stalled_until: u64,
}

impl Slot {
    pub(crate) fn new(process: ProcessId) -> Self {
        Slot {
            process,
            handle: None,
            go: false,
            gone: false,
            dying: false,
            waits_for: None,
            due_us: 0,
            stalled_until: 0,
        }
    }
}

pub(crate) struct Task {
    process: ProcessId,
    /// None while it is polled.
    future: Option<BoxFuture<()>>,
    woken: bool,
    waker: Waker,
}

struct TaskWaker {
    shared: Weak<Shared>,
    task: TaskId,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().wake(self.task);
        }
    }
}

/// What has happened: a hash of all of it, and its text if somebody wants to read it.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn add(&mut self, code: u64) {
        self.hash = mix(self.hash ^ code.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
}

impl Shared {
    pub(crate) fn new(
        seed: u64,
        faults: Vec<Fault>,
        media: Arc<crate::store::Media>,
        step_limit: u64,
        record: bool,
    ) -> Arc<Self> {
        let mut random = Random::new(seed, "schedule");
        let habits = Habits::draw(&mut random);
        let mut state = State {
            random,
            names: Random::new(seed, "names"),
            habits,
            clock_us: 1_000_000,
            wall_offset_ms: 0,
            steps: 0,
            step_limit,
            processes: vec![Process::new(CONTROLLER, 0)],
            threads: vec![Slot::new(NETWORK)],
            workers: Vec::new(),
            tasks: Vec::new(),
            woken: Vec::new(),
            ready: Vec::new(),
            dying: 0,
            timers: BinaryHeap::new(),
            sleepers: BTreeMap::new(),
            next_timer: 0,
            faults,
            next_strike: 0,
            phases_entered: [0; 6],
            events: VecDeque::new(),
            dropped: Vec::new(),
            stopped: Vec::new(),
            trace: Trace { hash: seed, lines: record.then(Vec::new) },
            counts: Counts::default(),
            broken_rule: None,
            deaths: Vec::new(),
            done: None,
            store: crate::store::Condition::default(),
            links: crate::network::Links::default(),
            media,
        };
        state.find_next_strike();
        Arc::new(Shared { state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a task.
    pub(crate) fn spawn(self: &Arc<Self>, process: ProcessId, task: BoxFuture<()>) -> TaskId {
        let mut state = self.lock();
        let id = state.tasks.len();
        let waker = Waker::from(Arc::new(TaskWaker { shared: Arc::downgrade(self), task: id }));
        if !state.processes[process].alive {
            state.dropped.push(task);
            state.tasks.push(None);
            return id;
        }
        state.tasks.push(Some(Task { process, future: Some(task), woken: true, waker }));
        state.woken.push(id);
        id
    }

    /// Gives the baton away until this thread may go on. Once `leaving`, it never will, and this returns as soon as
    /// another has the baton.
    pub(crate) fn schedule(self: &Arc<Self>, me: ThreadId, leaving: bool) {
        loop {
            let (decision, dropped, stopped) = {
                let mut state = self.lock();
                let decision = state.decide();
                let state = &mut *state;
                (decision, std::mem::take(&mut state.dropped), std::mem::take(&mut state.stopped))
            };
            drop(dropped);
            stopped.iter().for_each(Control::stop);
            match decision {
                Decision::Wake(wakers) => wakers.into_iter().for_each(Waker::wake),
                Decision::Task(id, future, waker) => self.poll(id, future, &waker),
                Decision::Thread(next) if next == me => return,
                Decision::Thread(next) => {
                    self.hand_over(next);
                    if !leaving {
                        self.wait_for_baton(me);
                    }
                    return;
                }
            }
        }
    }

    fn poll(&self, id: TaskId, mut future: BoxFuture<()>, waker: &Waker) {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            future.as_mut().poll(&mut Context::from_waker(waker))
        }));
        let mut state = self.lock();
        match polled {
            Ok(Poll::Pending) => match &mut state.tasks[id] {
                Some(task) => task.future = Some(future),
                // Its process died while it was polled: by its own doing.
                None => state.dropped.push(future),
            },
            Ok(Poll::Ready(())) => {
                state.tasks[id] = None;
                let waits = |slot: &Slot| slot.waits_for == Some(id);
                if let Some(thread) = state.threads.iter().position(waits) {
                    state.threads[thread].waits_for = None;
                    state.ready.push(thread);
                }
                drop(state);
                drop(future);
            }
            Err(panic) => {
                let text = panic_text(&*panic);
                state.counts.panics.push(format!("a task panicked: {text}"));
                let process = state.tasks[id].take().map_or(NETWORK, |task| task.process);
                state.dropped.push(future);
                state.kill(process, "its task panicked");
            }
        }
    }

    fn hand_over(&self, next: ThreadId) {
        let mut state = self.lock();
        let slot = &mut state.threads[next];
        slot.go = true;
        if let Some(handle) = &slot.handle {
            handle.unpark();
        }
    }

    /// Waits until this thread has the baton.
    pub(crate) fn wait_for_baton(&self, me: ThreadId) {
        loop {
            {
                let slot = &mut self.lock().threads[me];
                slot.handle.get_or_insert_with(std::thread::current);
                if std::mem::take(&mut slot.go) {
                    return;
                }
            }
            std::thread::park();
        }
    }

    /// Has this thread wait for a task. False if its process died meanwhile.
    pub(crate) fn wait_for_task(self: &Arc<Self>, me: ThreadId, task: TaskId) -> bool {
        self.lock().threads[me].waits_for = Some(task);
        self.schedule(me, false);
        !self.lock().threads[me].dying
    }

    /// This thread does nothing any more.
    pub(crate) fn leave(self: &Arc<Self>, me: ThreadId) {
        self.lock().forget(me);
        self.schedule(me, true);
    }
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

impl State {
    fn wake(&mut self, id: TaskId) {
        if let Some(task) = &mut self.tasks[id]
            && !std::mem::replace(&mut task.woken, true)
        {
            self.woken.push(id);
        }
    }

    /// Everything that waits for something.
    pub(crate) fn take_tasks(&mut self) -> (Vec<Option<Task>>, BTreeMap<u64, Waker>) {
        self.woken.clear();
        // Places stay: wakers know their tasks by number.
        let tasks = self.tasks.iter_mut().map(Option::take).collect();
        (tasks, std::mem::take(&mut self.sleepers))
    }

    /// Writes a line into the trace, if somebody wants to read it.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.lines.is_some() {
            let line = format!("{:>7} {:>9} us  {}", self.steps, self.clock_us, line());
            if let Some(lines) = &mut self.trace.lines {
                lines.push(line);
            }
        }
    }
}
