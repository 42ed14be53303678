//! What all workers, tasks and connectors of one attempt share on a process.
//!
//! # Invariant
//!
//! 6. A failing operator neither returns nor drops capabilities: it reports here ([`Attempt::fail`]) and does nothing more; every
//!    worker sees the flag before its next step and steps no more, so that no completeness is claimed that isn't there.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures::future::{Either, select};
use highwater_env::Env;
use tokio::sync::Notify;

use crate::careful::Span;
use crate::cluster::{Signal, Watch};
use crate::connector::Waker;
use crate::observe::{JobStatus, Leads, Observed, ProcessStatus, State};
use crate::{Error, Settings};

/// Is told what is on its way.
type OnSuspect = Box<dyn Fn(&Span) + Send + Sync>;

/// One attempt at running a job, on one process.
pub struct Attempt {
    /// The number of its entry in the log; 0 if checkpoints are off.
    pub number: u64,
    /// How it runs.
    pub settings: Settings,
    /// This process among those of the attempt.
    pub process: usize,
    /// Time, threads and tasks.
    pub env: Arc<dyn Env>,
    /// What is noted for people.
    pub observed: Observed,
    over: AtomicBool,
    failure: Mutex<Option<Error>>,
    ended: Notify,
    workers_running: AtomicUsize,
    /// Wakes the pacer.
    pacer: Mutex<Option<Waker>>,
    stop_requested: AtomicBool,
    finished: AtomicBool,
    checkpoint_requested: AtomicBool,
    settled_interval: AtomicU32,
    committed_interval: AtomicU32,
    /// Entries with output that isn't published yet.
    unpublished: AtomicUsize,
    /// Since when a checkpoint has been due, if none was committed since, in microseconds of the monotonic clock and one more; 0 if
    /// none is due.
    due_since_us: AtomicU64,
    /// No more care is needed.
    relaxed: AtomicBool,
    /// Is told what is on its way, in a careful attempt.
    suspected: OnceLock<OnSuspect>,
    /// The other processes, if there are any.
    others: OnceLock<Weak<Watch>>,
}

impl Attempt {
    pub(crate) fn new(
        job: &str,
        number: u64,
        process: usize,
        settings: Settings,
        env: Arc<dyn Env>,
    ) -> Self {
        Attempt {
            number,
            process,
            observed: Observed::new(job, &settings, env.monotonic()),
            workers_running: AtomicUsize::new(settings.workers),
            settings,
            env,
            over: AtomicBool::new(false),
            failure: Mutex::new(None),
            ended: Notify::new(),
            pacer: Mutex::new(None),
            stop_requested: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            checkpoint_requested: AtomicBool::new(false),
            settled_interval: AtomicU32::new(0),
            committed_interval: AtomicU32::new(0),
            unpublished: AtomicUsize::new(0),
            due_since_us: AtomicU64::new(0),
            relaxed: AtomicBool::new(false),
            suspected: OnceLock::new(),
            others: OnceLock::new(),
        }
    }

    /// Ends the attempt with this error, unless it has ended already.
    pub fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        *failure = Some(error);
        drop(failure);
        self.ended.notify_waiters();
    }

    /// The attempt has come to its regular end.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.ended.notify_waiters();
    }

    /// Whether the attempt has ended; nobody may act for it any more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The error with which it ended.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }

    /// A worker's thread does nothing more, whether its dataflow has come to its end or the attempt has.
    pub(crate) fn worker_left(&self) {
        self.workers_running.fetch_sub(1, Ordering::SeqCst);
        self.ended.notify_waiters();
    }

    pub(crate) fn workers_running(&self) -> usize {
        self.workers_running.load(Ordering::SeqCst)
    }

    /// What it is about to do.
    fn state(&self) -> State {
        if self.is_over() {
            State::Over
        } else if self.is_finished() {
            State::Finishing
        } else if self.stop_requested() {
            State::Stopping
        } else {
            State::Running
        }
    }

    /// Waits until every worker has left, or the attempt is over.
    pub(crate) async fn ended(&self) {
        self.wait_until(|| self.workers_running() == 0 || self.is_over()).await;
    }

    /// Waits until every worker has left.
    pub(crate) async fn all_left(&self) {
        self.wait_until(|| self.workers_running() == 0).await;
    }

    /// Something that somebody may wait for has happened.
    pub(crate) fn notify(&self) {
        self.ended.notify_waiters();
    }

    pub(crate) fn set_others(&self, others: &Arc<Watch>) {
        self.others.set(Arc::downgrade(others)).ok();
    }

    /// Passes on to process 0 what only it can do; false if this is process 0.
    fn pass_on(&self, signal: Signal) -> bool {
        if self.process == 0 {
            return false;
        }
        if let Some(others) = self.others.get().and_then(Weak::upgrade) {
            others.tell_zero(signal);
        }
        true
    }

    /// Waits until `reached`, which is asked again after every [`Attempt::notify`].
    pub(crate) async fn wait_until(&self, reached: impl Fn() -> bool) {
        loop {
            let mut told = std::pin::pin!(self.ended.notified());
            // What happens between the look and the wait counts, too.
            told.as_mut().enable();
            if reached() {
                return;
            }
            told.await;
        }
    }

    pub(crate) fn set_pacer(&self, waker: Waker) {
        *lock(&self.pacer) = Some(waker);
    }

    pub(crate) fn wake_pacer(&self) {
        if let Some(waker) = &*lock(&self.pacer) {
            waker.wake();
        }
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.stop_requested.load(Ordering::SeqCst)
    }

    /// The last tick was sent because all sources are at their end.
    pub(crate) fn set_finished(&self) {
        self.finished.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst)
    }

    pub(crate) fn take_checkpoint_request(&self) -> bool {
        self.checkpoint_requested.swap(false, Ordering::SeqCst)
    }

    /// An interval has ended, and its checkpoint is due.
    pub(crate) fn checkpoint_is_due(&self, now: Duration) {
        let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        // One that failed stays due.
        self.due_since_us.compare_exchange(0, now_us, Ordering::SeqCst, Ordering::SeqCst).ok();
    }

    /// The checkpoint of this interval is decided, and the next may begin.
    pub(crate) fn settle(&self, interval: u32, committed: bool) {
        if committed {
            self.committed_interval.fetch_max(interval, Ordering::SeqCst);
            self.due_since_us.store(0, Ordering::SeqCst);
        }
        self.settled_interval.fetch_max(interval, Ordering::SeqCst);
        self.wake_pacer();
    }

    /// The interval whose checkpoint was decided last.
    pub(crate) fn settled_interval(&self) -> u32 {
        self.settled_interval.load(Ordering::SeqCst)
    }

    /// Whether only one batch may be on its way.
    pub(crate) fn is_careful(&self) -> bool {
        self.settings.care.one_at_a_time && !self.relaxed.load(Ordering::Relaxed)
    }

    /// These records are on their way, alone.
    pub(crate) fn suspect(&self, span: &Span) {
        if let Some(suspected) = self.suspected.get() {
            suspected(span);
        }
    }

    /// An entry with output was committed: it counts as unpublished until the last copy of what this gives is dropped.
    pub(crate) fn unpublished(self: &Arc<Self>) -> Arc<Unpublished> {
        self.unpublished.fetch_add(1, Ordering::SeqCst);
        Arc::new(Unpublished(self.clone()))
    }

    /// Too much is committed and not yet published: nothing more is to be committed, since operators make output at every trigger, also
    /// while sources pause.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.unpublished.load(Ordering::Relaxed) > self.settings.unpublished
    }

    /// Sources pause: too much is committed and not yet published, or nothing could be committed for too long.
    pub(crate) fn is_held_back(&self, now: Duration) -> bool {
        self.is_backed_up() || self.is_overdue(now, self.settings.uncommitted)
    }

    /// A checkpoint has been due for longer than `time`, and none was committed since.
    pub(crate) fn is_overdue(&self, now: Duration, time: Duration) -> bool {
        let due_us = self.due_since_us.load(Ordering::Relaxed);
        due_us > 0 && now.saturating_sub(Duration::from_micros(due_us - 1)) > time
    }

    /// What `task` comes to, unless the attempt is over before.
    pub(crate) async fn unless_over<T>(&self, task: impl Future<Output = T>) -> Option<T> {
        let over = self.wait_until(|| self.is_over());
        match select(pin!(task), pin!(over)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }
}

/// Output of a committed entry that isn't published everywhere.
pub(crate) struct Unpublished(Arc<Attempt>);

impl Drop for Unpublished {
    fn drop(&mut self) {
        self.0.unpublished.fetch_sub(1, Ordering::SeqCst);
        // Sources that pause for it go on now, not with the next checkpoint.
        self.0.wake_pacer();
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attempt({}, over: {})", self.number, self.is_over())
    }
}

/// A handle with which a running attempt is looked at and steered from outside: by signals, by a progress line, by the script
/// of a test.
#[derive(Clone, Debug)]
pub struct Control(pub(crate) Arc<Attempt>);

impl Control {
    /// The number of the attempt's entry in the log; 0 if checkpoints are off.
    pub fn attempt(&self) -> u64 {
        self.0.number
    }

    /// How the attempt runs on this process.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Takes a last checkpoint, without reading what is left, and ends the attempt.
    pub fn stop(&self) {
        if self.0.pass_on(Signal::Stop) {
            return;
        }
        self.0.stop_requested.store(true, Ordering::SeqCst);
        self.0.wake_pacer();
    }

    /// Takes a checkpoint as soon as the one under way is decided.
    pub fn request_checkpoint(&self) {
        if self.0.pass_on(Signal::CheckpointNow) {
            return;
        }
        self.0.checkpoint_requested.store(true, Ordering::SeqCst);
        self.0.wake_pacer();
    }

    /// In a careful attempt, has `told` called with what is on its way, before anything is done with it; on a worker's thread. Only the first
    /// call counts.
    pub fn on_suspect(&self, told: impl Fn(&Span) + Send + Sync + 'static) {
        self.0.suspected.set(Box::new(told)).ok();
    }

    /// Ends the care with which the attempt reads.
    pub fn relax(&self) {
        self.0.relaxed.store(true, Ordering::Relaxed);
    }

    /// The highest interval that a committed checkpoint covers; 0 before the first.
    pub fn committed_interval(&self) -> u32 {
        self.0.committed_interval.load(Ordering::SeqCst)
    }

    /// Ends the attempt here and now, as a crash would: for scripts of tests.
    pub fn crash(&self) {
        self.0.fail(Error::ScriptedCrash);
    }

    /// What has been noted of the attempt on this process.
    pub fn observed(&self) -> &Observed {
        &self.0.observed
    }

    /// What this process of the attempt does.
    pub fn report(&self) -> ProcessStatus {
        let Control(attempt) = self;
        let leads = (attempt.process == 0).then(|| self.leads());
        attempt.observed.report(attempt.process, leads, attempt.env.monotonic())
    }

    /// What the whole job does, as far as this process knows: one that isn't process 0 knows of itself only.
    pub fn status(&self) -> JobStatus {
        let Control(attempt) = self;
        let now = attempt.env.monotonic();
        let own = attempt.observed.report(attempt.process, Some(self.leads()), now);
        attempt.observed.job(own).expect("a report that leads is among them")
    }

    fn leads(&self) -> Leads {
        let Control(attempt) = self;
        Leads {
            attempt: attempt.number,
            state: attempt.state(),
            unpublished: attempt.unpublished.load(Ordering::Relaxed),
        }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }

    /// How many checkpoints are committed and not yet published.
    pub fn unpublished(&self) -> usize {
        self.0.unpublished.load(Ordering::Relaxed)
    }

    /// The environment that the attempt runs in.
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.0.env
    }
}

/// What a panic of another thread left behind is still good: every critical section here writes one value.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
