//! A job as a supervisor and the processes that run its attempts.
//!
//! The program that a user starts runs itself once more for every attempt, and starts it again when that fails: after a panic, a kill, a
//! lost peer. The processes do the work; the supervisor reads and writes nothing of the job and holds nothing that could be lost: killed
//! itself, it takes its processes with it (their socket closes), and started anew it is as good as the old one.
//!
//! ```text
//!   supervisor ──starts──▶ process 0, process 1, ...  (the same program and arguments, HIGHWATER_SUPERVISOR names the socket)
//!              ◀──here, progress, ended, failed──  over the socket
//!              ──begin, stop──▶
//! ```
//!
//! - [`restart`](Restart): when to start again. - `suspicion`: which record makes the job fail. - `messages`: the words.
//! - `child`: the process of an attempt.
//!
//! Code before [`run`](fn@crate::run) runs in all of them; code behind it in the supervisor alone.

#![allow(clippy::disallowed_methods, reason = "a supervisor stands outside of the engine")]

mod child;
mod messages;
mod restart;
mod suspicion;

use std::io::BufReader;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use highwater_env::Env;
use highwater_runtime::careful::Span;
use highwater_runtime::{BoxError, Outcome};
use signal_hook::consts::{SIGINT, SIGKILL, SIGTERM};

use self::messages::{Order, SOCKET_VARIABLE, Sort, Word};
use self::restart::{Decision, Failure};
use self::suspicion::{Seen, Suspicion};
use crate::voice::Voice;
use crate::{Error, Options, Result};

/// What becomes of a record that makes the job fail every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FailingRecord {
    /// The job ends, and names it.
    End,
    /// The job goes on without it, and says so.
    Skip,
}

pub(crate) use child::Supervisor;
pub(crate) use messages::Begin;
pub use restart::Restart;

/// A process that hasn't introduced itself is looked at so often.
const LOOK: Duration = Duration::from_millis(5);

/// Between tries of processes that don't find together.
const NOT_TOGETHER: Duration = Duration::from_secs(1);

/// Something that a supervisor waits for.
enum Event {
    Said(usize, Word),
    Gone(usize),
    Signal(i32),
}

/// A process of the attempt.
struct Process {
    child: Child,
    stream: UnixStream,
    result: Option<Word>,
}

/// How an attempt went.
enum Attempt {
    Ended(Outcome),
    Failed(Failed),
}

/// How an attempt failed.
struct Failed {
    sort: Sort,
    why: String,
    /// A checkpoint was committed in it.
    progressed: bool,
    /// The job itself failed: nobody killed it from outside, no other process and no store was lost.
    of_the_job: bool,
}

/// Runs the job in processes of its own until it ends, or is not to be started again.
pub(crate) fn run(
    name: &str,
    options: &Options,
    voice: &Voice,
    env: &Arc<dyn Env>,
) -> Result<Outcome> {
    let (events, receiver) = channel();
    catch_signals(env, events.clone())?;
    let folder = Folder::new(env)?;
    let mut job = Job {
        name,
        voice,
        options,
        env,
        folder,
        events,
        receiver,
        stopping: false,
        begun: false,
        suspicion: Suspicion::default(),
        suspect: None,
        records_at_failure: 0,
    };
    let began = env.monotonic();
    let mut failures: Vec<Failure> = Vec::new();
    // Of all kinds, also those that are forgotten by the strategy because the record at fault was left out.
    let (mut restarts, mut last_failure) = (0, None);
    loop {
        let attempt = job.attempt(restarts, last_failure.clone())?;
        let (why, delay) = match attempt {
            Attempt::Ended(outcome) => return Ok(outcome),
            Attempt::Failed(Failed { sort: Sort::Final, why, .. }) => return Err(error(why)),
            Attempt::Failed(Failed { sort: Sort::OfTheJob, why, .. }) if !job.begun => {
                return Err(error(why));
            }
            // Nobody knows whether it was ever there: a name may be mistyped. What a job has begun with is waited for.
            Attempt::Failed(Failed { sort: Sort::Away, why, .. }) if !job.begun => {
                return Err(error(format!(
                    "{why}\n  the job has never begun, and isn't started again"
                )));
            }
            Attempt::Failed(Failed { why, .. }) if job.stopping => {
                return Err(error(format!(
                    "{why}\n  it was being stopped and isn't started again; nothing committed is lost"
                )));
            }
            Attempt::Failed(Failed { sort: Sort::NotTogether, why, .. }) => (why, NOT_TOGETHER),
            Attempt::Failed(Failed { why, progressed, of_the_job, .. }) => {
                let suspect = job.suspect.take();
                let seen = Seen { why: &why, progressed, of_the_job, suspect };
                if let Some(record) = job.suspicion.failed(&seen) {
                    job.accuse(record, &why)?;
                    failures.clear();
                }
                let at = env.monotonic() - began;
                failures.push(Failure { at, why: why.clone(), progressed, of_the_job });
                (restarts, last_failure) = (restarts + 1, Some(why.clone()));
                match options.restart.decide(&failures, (env.random() % 100) as u32) {
                    Decision::After(delay) => (why, delay),
                    Decision::GiveUp(reason) => {
                        return Err(error(format!(
                            "{why}\n  the job isn't started again: {reason}; nothing committed is lost"
                        )));
                    }
                }
            }
        };
        let again = format!("{why}; starting again in {:.2} s", delay.as_secs_f64());
        tracing::warn!(job = name, restarts, "{again}");
        if job.pause(delay) {
            return Err(error(format!(
                "{why}\n  stopped before it was started again; nothing committed is lost"
            )));
        }
    }
}

fn error(why: String) -> Error {
    Error::from(BoxError::from(why))
}

struct Job<'a> {
    name: &'a str,
    voice: &'a Voice,
    options: &'a Options,
    env: &'a Arc<dyn Env>,
    folder: Folder,
    events: Sender<Event>,
    receiver: Receiver<Event>,
    stopping: bool,
    /// The workers of an attempt have begun.
    begun: bool,
    suspicion: Suspicion,
    /// What is on its way, in a careful attempt.
    suspect: Option<Span>,
    /// How many records the last attempt had read when it failed.
    records_at_failure: u64,
}

impl Job<'_> {
    /// Starts the processes of an attempt, and waits until all are gone.
    fn attempt(&mut self, restarts: u64, last_failure: Option<String>) -> Result<Attempt> {
        let here = if self.options.hosts.is_some() { 1 } else { self.options.processes };
        let mut processes: Vec<Process> = Vec::new();
        let mut addresses = Vec::new();
        for process in 0..here {
            match self.start(process) {
                Ok((started, address)) => {
                    processes.push(started);
                    addresses.extend(address);
                }
                Err(why) => {
                    processes.iter_mut().for_each(Process::kill);
                    let (sort, progressed, of_the_job) = (Sort::Again, false, false);
                    return Ok(Attempt::Failed(Failed { sort, why, progressed, of_the_job }));
                }
            }
        }
        for (process, started) in processes.iter_mut().enumerate() {
            let hosts = (addresses.len() == here && here > 1).then(|| addresses.clone());
            let last_failure = last_failure.clone();
            let begun = self.begun;
            let care = self.suspicion.care().clone();
            let begin = Begin { process, hosts, restarts, last_failure, begun, care };
            started.tell(&Order::Begin(begin));
            self.listen(process, started)?;
        }
        Ok(self.wait(processes))
    }

    /// Starts this program once more, and waits until it is there.
    fn start(&self, process: usize) -> std::result::Result<(Process, Option<String>), String> {
        let failed = |error: std::io::Error| format!("process {process} can't be started: {error}");
        let socket = self.folder.0.join(format!("{:016x}", self.env.random()));
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(SOCKET_VARIABLE, &socket)
            .spawn()
            .map_err(failed)?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if let Some(status) = child.try_wait().map_err(failed)? {
                        return Err(format!(
                            "process {process} ended before it ran the job ({})",
                            in_words(status)
                        ));
                    }
                    std::thread::sleep(LOOK);
                }
                Err(error) => return Err(failed(error)),
            }
        };
        std::fs::remove_file(&socket).ok();
        stream.set_nonblocking(false).map_err(failed)?;
        let mut words = BufReader::new(stream.try_clone().map_err(failed)?);
        let started = Process { child, stream, result: None };
        match messages::read(&mut words) {
            Some(Word::Here { address }) => Ok((started, address)),
            _ => {
                let mut started = started;
                started.kill();
                Err(format!("process {process} ended before it ran the job"))
            }
        }
    }

    /// Has what a process says reported as events.
    fn listen(&self, process: usize, started: &Process) -> Result<()> {
        let mut words = BufReader::new(started.stream.try_clone()?);
        let events = self.events.clone();
        let listen = move || {
            while let Some(word) = messages::read(&mut words) {
                events.send(Event::Said(process, word)).ok();
            }
            events.send(Event::Gone(process)).ok();
        };
        self.env.spawn_thread("listen", Box::new(listen));
        Ok(())
    }

    /// Waits for the end of an attempt. The first failure of a process ends all the others: they would notice by themselves, but not at once.
    fn wait(&mut self, mut processes: Vec<Process>) -> Attempt {
        let mut left = processes.len();
        let mut progressed = false;
        let mut failure: Option<Failed> = None;
        self.suspect = None;
        while left > 0 {
            match self.receiver.recv() {
                Ok(Event::Said(_, Word::Begun)) => self.begun = true,
                Ok(Event::Said(_, Word::Suspect(span))) => self.suspect = Some(span),
                Ok(Event::Said(_, Word::Progress { records })) => {
                    progressed = true;
                    if self.has_passed(records) {
                        self.suspicion.relax();
                        processes.iter_mut().for_each(|process| process.tell(&Order::Relax));
                    }
                }
                Ok(Event::Said(process, word)) => processes[process].result = Some(word),
                Ok(Event::Gone(process)) => {
                    left -= 1;
                    let Some(failed) = self.gone(&mut processes, process) else { continue };
                    if failure.as_ref().is_none_or(|first| self.matters_more(&failed, first)) {
                        failure = Some(failed);
                    }
                    for other in &mut processes {
                        other.child.kill().ok();
                    }
                }
                Ok(Event::Signal(signal)) => self.signal(signal, &mut processes),
                Err(_) => unreachable!("the supervisor holds a sender itself"),
            }
        }
        if let Some(failed) = failure {
            return Attempt::Failed(Failed { progressed, ..failed });
        }
        match processes.swap_remove(0).result {
            Some(Word::Ended(outcome)) => Attempt::Ended(outcome),
            _ => unreachable!("a process that didn't end well has failed"),
        }
    }

    /// Whether a failure that comes after the first of an attempt isn't its consequence: it says that there is no use in going on. Where
    /// nothing ran yet, whoever couldn't start has told the others, which may be faster to go.
    fn matters_more(&self, failed: &Failed, first: &Failed) -> bool {
        let of_a_start = [Sort::OfTheJob, Sort::Away];
        let starts = !self.begun && of_a_start.contains(&failed.sort);
        first.sort != Sort::Final
            && (failed.sort == Sort::Final || starts && !of_a_start.contains(&first.sort))
    }

    /// How a process failed that is gone; none if it had come to its end.
    fn gone(&mut self, processes: &mut [Process], process: usize) -> Option<Failed> {
        let who = match processes.len() {
            1 => "the attempt's process".to_owned(),
            _ => format!("process {process}"),
        };
        let ended = &mut processes[process];
        ended.child.kill().ok();
        let status = ended.child.wait();
        match &ended.result {
            Some(Word::Ended(_)) => None,
            Some(Word::Failed { sort, why, records }) => {
                self.records_at_failure = *records;
                let (sort, why) = (*sort, why.clone());
                Some(Failed { sort, why, progressed: false, of_the_job: sort == Sort::OfTheJob })
            }
            _ => {
                // A function of the job may overflow the stack or crash in foreign code; kills come from elsewhere.
                let crashed = status.as_ref().is_ok_and(has_crashed);
                let how = status.map_or_else(|error| error.to_string(), in_words);
                let why = format!("{who} {how}");
                Some(Failed { sort: Sort::Again, why, progressed: false, of_the_job: crashed })
            }
        }
    }

    /// The first signal takes a last checkpoint, the second ends everything.
    fn signal(&mut self, signal: i32, processes: &mut [Process]) {
        if self.stopping {
            processes.iter_mut().for_each(Process::kill);
            std::process::exit(128 + signal);
        }
        self.stopping = true;
        self.voice.answer("stopping after a last checkpoint (again to stop at once)");
        processes.iter_mut().for_each(|process| process.tell(&Order::Stop));
    }

    /// Whether a careful attempt has come beyond what made earlier ones fail, when so many records were read up to a checkpoint.
    fn has_passed(&self, records: u64) -> bool {
        let care = self.suspicion.care();
        match (&care.suspect, &self.suspect) {
            _ if !care.one_at_a_time => false,
            (Some(suspected), Some(now)) => {
                now.split == suspected.split && now.first > suspected.last
            }
            (Some(_), None) => false,
            (None, _) => records > self.records_at_failure,
        }
    }

    /// A record makes the job fail.
    fn accuse(&mut self, record: Span, why: &str) -> Result<()> {
        let Span { source, split, first, .. } = &record;
        let name = format!(
            "record {first} of split `{split}` of the source `{source}` makes the job fail"
        );
        if self.options.failing_record == FailingRecord::End {
            return Err(error(format!(
                "{name}: {why}\n  it does so every time, so the job isn't started again; nothing committed is lost. Mend the record or the job, \
                 or leave such records out with --failing-record skip"
            )));
        }
        tracing::error!(job = self.name, why, "{name}; the job goes on without it");
        self.suspicion.leave_out(record);
        Ok(())
    }

    /// Waits; true if the job is to be stopped.
    fn pause(&mut self, delay: Duration) -> bool {
        let until = self.env.monotonic() + delay;
        loop {
            let left = until.saturating_sub(self.env.monotonic());
            match self.receiver.recv_timeout(left) {
                Ok(Event::Signal(_)) => return true,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

impl Process {
    fn tell(&mut self, order: &Order) {
        // One that is gone is noticed by the thread that listens to it.
        messages::write(&mut self.stream, order).ok();
    }

    fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A folder for sockets, with a short path, that only this user can enter.
struct Folder(PathBuf);

impl Folder {
    fn new(env: &Arc<dyn Env>) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("highwater-{}-{:08x}", std::process::id(), env.random() as u32);
        let folder = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn catch_signals(env: &Arc<dyn Env>, events: Sender<Event>) -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let wait = move || {
        for signal in signals.forever() {
            events.send(Event::Signal(signal)).ok();
        }
    };
    env.spawn_thread("signals", Box::new(wait));
    Ok(())
}

fn has_crashed(status: &ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    !matches!(status.signal(), None | Some(SIGINT | SIGKILL | SIGTERM))
}

fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}
