//! The world as its controller sees it: processes to start, a store to look into, events to wait for.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, TryStreamExt};
use highwater_env::{BoxFuture, Env, Phase};
use highwater_log::Store;
use highwater_runtime::Control;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::env::SimEnv;
use crate::fault::{Fault, What, When};
use crate::scheduler::{
    CONTROLLER, Event, NETWORK, Process, ProcessId, Shared, Slot, become_thread, me, panic_text,
};
use crate::store::{Media, NetworkStore, is_checkpoint};

/// What a run went through.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Deaths of processes, by kill or loss of power.
    pub crashes: u64,
    /// Of these, by what the process was doing; several at once are possible. In the order of [`Phase::ALL`].
    pub by_phase: [u64; Phase::ALL.len()],
    /// Those in no phase.
    pub running: u64,
    /// Losses of power.
    pub power_losses: u64,
    /// Processes that stood still.
    pub pauses: u64,
    /// Faults of the store that struck.
    pub store_faults: u64,
    /// Connections that broke or fell silent.
    pub network_faults: u64,
    /// Deaths of one of several processes of an attempt.
    pub of_several: u64,
    /// Others that struck.
    pub other_faults: u64,
    /// Calls of the store.
    pub calls: u64,
    /// Deliveries to sinks.
    pub deliveries: u64,
    /// Bits that flipped.
    pub bit_flips: u64,
    /// What panicked that shouldn't have.
    pub panics: Vec<String>,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Counts) {
        self.crashes += other.crashes;
        self.by_phase.iter_mut().zip(other.by_phase).for_each(|(sum, count)| *sum += count);
        self.running += other.running;
        self.power_losses += other.power_losses;
        self.pauses += other.pauses;
        self.store_faults += other.store_faults;
        self.network_faults += other.network_faults;
        self.of_several += other.of_several;
        self.other_faults += other.other_faults;
        self.calls += other.calls;
        self.deliveries += other.deliveries;
        self.bit_flips += other.bit_flips;
        self.panics.extend(other.panics.iter().cloned());
    }
}

/// A point in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The step of the scheduler.
    pub step: u64,
    /// How many calls of the store there had been.
    pub calls: u64,
}

/// A simulated world. The thread that makes it is its controller.
#[derive(Clone)]
pub struct World {
    pub(crate) shared: Arc<Shared>,
    media: Arc<Media>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.lock();
        write!(f, "World(step {}, {} us)", state.steps, state.clock_us)
    }
}

/// The panic by which the main thread of a process that was killed ends.
struct Killed;

impl World {
    /// A world in which `faults` strike, and which gives up at `step_limit`. What happens is written down if `record` says so.
    ///
    /// The calling thread becomes its controller.
    pub fn new(seed: u64, faults: Vec<Fault>, media: Media, step_limit: u64, record: bool) -> Self {
        become_thread(CONTROLLER);
        let media = Arc::new(media);
        let shared = Shared::new(seed, faults, media.clone(), step_limit, record);
        World { shared, media }
    }

    /// Where checkpoints are kept, as the controller sees it: without faults.
    pub fn store(&self) -> Store {
        self.media.open()
    }

    /// The environment of the controller.
    pub fn env(&self) -> Arc<dyn Env> {
        Arc::new(SimEnv::new(self.shared.clone(), NETWORK))
    }

    /// The steps so far.
    pub fn steps(&self) -> u64 {
        self.shared.lock().steps
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts.clone()
    }

    /// A hash of everything that has happened.
    pub fn trace_hash(&self) -> u64 {
        let state = self.shared.lock();
        crate::random::mix(state.trace.hash ^ state.steps ^ (state.clock_us << 20))
    }

    /// What was written down.
    pub fn trace(&self) -> Vec<String> {
        self.shared.lock().trace.lines.clone().unwrap_or_default()
    }

    /// Writes a line down.
    pub fn note(&self, line: impl FnOnce() -> String) {
        self.shared.lock().note(line);
    }

    /// Rows are about to be delivered to a sink: what goes wrong with that.
    ///
    /// `content` is a hash of the rows, so that two runs that deliver others are told apart.
    pub fn deliver(&self, sink: &str, checkpoint: u64, rows: usize, content: u64) -> Option<What> {
        let mut state = self.shared.lock();
        state.counts.deliveries += 1;
        let number = state.counts.deliveries;
        state.trace.add(checkpoint);
        state.trace.add(content);
        state.note(|| {
            format!("delivery {number}: {rows} rows of checkpoint {checkpoint} to {sink}")
        });
        let fault = state.take_fault(When::Delivery(number))?;
        state.counts.other_faults += 1;
        Some(fault.what)
    }

    /// Whether a checkpoint is committed, as the media has it now: its entry stands, or has been collected because there are newer
    /// ones.
    pub fn is_committed(&self, checkpoint: u64) -> bool {
        let name = Path::from(highwater_log::names::entry(checkpoint));
        let store = self.store();
        let read = async { store.objects().get(&name).await?.bytes().await };
        match read.now_or_never() {
            Some(Ok(entry)) if is_checkpoint(&entry) => true,
            // A start that looked before it was collected may have taken its number since, and chosen again.
            Some(Ok(_)) if !self.was_committed(checkpoint) => false,
            _ => self.newest_entry().is_some_and(|newest| newest > checkpoint),
        }
    }

    /// Whether the entry of a checkpoint has ever been there in this world.
    pub fn was_committed(&self, checkpoint: u64) -> bool {
        self.shared.lock().store.committed.contains(&checkpoint)
    }

    /// Whether the store has failed a call of a process of this team.
    pub(crate) fn store_failed(&self, team: usize) -> bool {
        let state = self.shared.lock();
        state.processes.iter().any(|process| process.team == team && process.store_failed)
    }

    /// The number of the newest entry in the commit log, as it is on the media now.
    fn newest_entry(&self) -> Option<u64> {
        let store = self.store();
        let listed = store.objects().list(None).try_collect::<Vec<_>>().now_or_never()?.ok()?;
        let numbers = listed.iter().filter_map(|meta| {
            let name = meta.location.as_ref().rsplit_once("log/")?.1;
            highwater_log::names::entry_number(&format!("log/{name}"))
        });
        numbers.max()
    }

    /// How many faults haven't struck.
    pub fn faults_left(&self) -> usize {
        self.shared.lock().faults.len()
    }

    /// Where processes died, one after the other.
    pub fn deaths(&self) -> Vec<Moment> {
        self.shared.lock().deaths.clone()
    }

    /// When the job was done, behind which no fault strikes; now if it isn't.
    pub fn done(&self) -> Moment {
        let state = self.shared.lock();
        state.done.unwrap_or_else(|| state.now())
    }

    /// Nothing goes wrong any more.
    pub fn no_more_faults(&self) {
        let mut state = self.shared.lock();
        state.faults.clear();
        state.done = Some(state.now());
        state.store.heal();
        state.step_limit = state.steps + 200_000;
        for process in &mut state.processes {
            process.paused_until = None;
        }
        state.links.heal();
        state.end_stalls();
    }

    /// Starts a process of a team, whose main thread runs `body`; its result is what `body` gives, none if the process was killed, and the text of
    /// the panic if there was one.
    pub(crate) fn start<R: Send + 'static>(
        &self,
        name: &str,
        team: usize,
        body: impl FnOnce(Arc<dyn Env>, Store) -> R + Send + 'static,
    ) -> (ProcessId, Result<Body<R>, String>) {
        let (process, main) = {
            let mut state = self.shared.lock();
            let (process, main) = (state.processes.len(), state.threads.len());
            state.processes.push(Process::new(main, team));
            state.threads.push(Slot::new(process));
            state.ready.push(main);
            state.note(|| format!("process {process} starts: {name}"));
            (process, main)
        };
        let env: Arc<dyn Env> = Arc::new(SimEnv::new(self.shared.clone(), process));
        let network = NetworkStore::new(self.shared.clone(), process, self.media.clone());
        let store = self.media.open().wrap(|inner| Arc::new(network.over(inner)));
        let shared = self.shared.clone();
        let work = move || {
            become_thread(main);
            shared.wait_for_baton(main);
            let alive = !shared.lock().threads[main].dying;
            let result = match alive {
                true => catch_unwind(AssertUnwindSafe(|| body(env, store))),
                false => Err(Box::new(Killed) as _),
            };
            let result = match result {
                Ok(result) => Ok(Some(result)),
                Err(panic) if panic.is::<Killed>() => Ok(None),
                Err(panic) => Err(panic_text(&*panic).to_owned()),
            };
            let process_ended = |result: &Result<Option<R>, String>| {
                let mut state = shared.lock();
                state.bury(process, false);
                state.note(|| match result {
                    Ok(None) => format!("process {process} is gone"),
                    Ok(Some(_)) => format!("process {process} ends"),
                    Err(panic) => format!("process {process} panicked: {panic}"),
                });
                // Workers that hang on end with their process.
                state.end_workers(process);
                state.events.push_back(Event::Ended(process));
            };
            process_ended(&result);
            shared.leave(main);
            result
        };
        #[allow(clippy::disallowed_methods, reason = "this is the thread of a simulated process")]
        let thread = std::thread::Builder::new().name(format!("process-{process}")).spawn(work);
        let thread = thread.map_err(|error| format!("the machine has no more threads: {error}"));
        (process, thread)
    }

    /// The process that runs on this thread can be asked to stop from now on.
    pub(crate) fn steer(&self, control: Control) {
        let mut state = self.shared.lock();
        let process = state.threads[me()].process;
        state.begins(process, control);
    }

    /// The process that runs on this thread is the first of its attempt, which has come to its end.
    pub(crate) fn note_end(&self) {
        let mut state = self.shared.lock();
        let process = state.threads[me()].process;
        state.all_is_over(process);
    }

    /// What a process has done while it ran that must never be.
    pub(crate) fn broken_rule(&self) -> Option<String> {
        self.shared.lock().broken_rule.clone()
    }

    /// Notes what everybody does who runs the job: why nothing comes of it.
    pub(crate) fn note_standings(&self) {
        let processes: Vec<_> = {
            let state = self.shared.lock();
            let alive = state.processes.iter().enumerate().filter(|(_, process)| process.alive);
            alive.filter_map(|(id, process)| Some((id, process.control.clone()?))).collect()
        };
        for (process, control) in processes {
            let report = control.report();
            let leader = report.leader.as_ref().map(|_| control.status());
            let mut state = self.shared.lock();
            for worker in &report.workers {
                state.note(|| format!("process {process} has {worker:?}"));
            }
            if let Some(status) = leader {
                let (leader, held) = (&status.leader, &status.checkpoint_held);
                state.note(|| {
                    format!(
                        "process {process} leads: {} rows read, {leader:?}, epoch held: {:?}, checkpoint held: {held:?}",
                        status.records_in, status.epoch_held
                    )
                });
            }
        }
    }

    /// Waits until something happens that the controller has to deal with, at the longest until `deadline`.
    pub(crate) fn next_event(&self) -> Event {
        loop {
            if let Some(event) = self.shared.lock().events.pop_front() {
                return event;
            }
            self.shared.schedule(CONTROLLER, false);
        }
    }

    /// Lets time pass.
    pub(crate) fn wait(&self, duration: Duration) {
        let env = self.env();
        let sleep = env.sleep(duration);
        env.block_on(sleep);
    }

    /// Drops what still waits for something. Tasks hold on to the world, and the world to them.
    pub(crate) fn close(&self) {
        let tasks = self.shared.lock().take_tasks();
        drop(tasks);
    }

    /// Ends every process that is still there.
    pub(crate) fn kill_all(&self) -> Vec<ProcessId> {
        let mut state = self.shared.lock();
        let alive: Vec<ProcessId> =
            (1..state.processes.len()).filter(|id| state.processes[*id].alive).collect();
        alive.iter().for_each(|process| state.end_process(*process, "ended with the world"));
        alive
    }

    /// Ends what is left of a team, as whoever has started it does.
    pub(crate) fn end_team(&self, team: usize) {
        let mut state = self.shared.lock();
        for process in 1..state.processes.len() {
            if state.processes[process].team == team {
                state.end_process(process, "ended by its supervisor");
            }
        }
    }

    /// Whether a process hasn't come to its end.
    pub(crate) fn is_alive(&self, process: ProcessId) -> bool {
        self.shared.lock().processes[process].alive
    }

    /// Whether the workers of a process run, or have run.
    pub(crate) fn has_begun(&self, process: ProcessId) -> bool {
        self.shared.lock().processes[process].begun.is_some()
    }
}

/// A process's main thread.
pub(crate) type Body<R> = std::thread::JoinHandle<Result<Option<R>, String>>;

/// Runs a task of a process on its main thread, or of the controller on its own.
///
/// # Panics
///
/// Ends the thread if its process is killed meanwhile.
pub(crate) fn block_on(shared: &Arc<Shared>, process: ProcessId, task: BoxFuture<()>) {
    let me = crate::scheduler::me();
    let task = shared.spawn(process, task);
    if !shared.wait_for_task(me, task) {
        resume_unwind(Box::new(Killed));
    }
}
