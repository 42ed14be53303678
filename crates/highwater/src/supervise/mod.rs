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
//! - [`restart`](Restart): when to start again. - `messages`: the words. - `child`: the process of an attempt.
//!
//! Code before [`run`](fn@crate::run) runs in all of them; code behind it in the supervisor alone.

#![allow(clippy::disallowed_methods, reason = "a supervisor stands outside of the engine")]

mod child;
mod messages;
mod restart;

use std::io::BufReader;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use highwater_env::Env;
use highwater_runtime::{BoxError, Outcome};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::messages::{Order, SOCKET_VARIABLE, Sort, Word};
use self::restart::{Decision, Failure};
use crate::voice::Voice;
use crate::{Error, Options, Result};

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
    Failed { sort: Sort, why: String, progressed: bool },
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
    let mut job =
        Job { voice, options, env, folder, events, receiver, stopping: false, begun: false };
    let began = env.monotonic();
    let mut failures: Vec<Failure> = Vec::new();
    loop {
        let last = failures.last().map(|failure| failure.why.clone());
        let attempt = job.attempt(failures.len() as u64, last)?;
        let (why, delay) = match attempt {
            Attempt::Ended(outcome) => return Ok(outcome),
            Attempt::Failed { sort: Sort::Final, why, .. } => return Err(error(why)),
            Attempt::Failed { sort: Sort::OfTheJob, why, .. } if !job.begun => {
                return Err(error(why));
            }
            Attempt::Failed { why, .. } if job.stopping => {
                return Err(error(format!(
                    "{why}\n  it was being stopped and isn't started again; nothing committed is lost"
                )));
            }
            Attempt::Failed { sort: Sort::NotTogether, why, .. } => (why, NOT_TOGETHER),
            Attempt::Failed { sort: Sort::Again | Sort::OfTheJob, why, progressed } => {
                let at = env.monotonic() - began;
                failures.push(Failure { at, why: why.clone(), progressed });
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
        tracing::warn!(job = name, restarts = failures.len(), "{again}");
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
    voice: &'a Voice,
    options: &'a Options,
    env: &'a Arc<dyn Env>,
    folder: Folder,
    events: Sender<Event>,
    receiver: Receiver<Event>,
    stopping: bool,
    /// The workers of an attempt have begun.
    begun: bool,
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
                    let (sort, progressed) = (Sort::Again, false);
                    return Ok(Attempt::Failed { sort, why, progressed });
                }
            }
        }
        for (process, started) in processes.iter_mut().enumerate() {
            let hosts = (addresses.len() == here && here > 1).then(|| addresses.clone());
            let last_failure = last_failure.clone();
            let begun = self.begun;
            let begin = Begin { process, hosts, restarts, last_failure, begun };
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
        let mut failure: Option<(Sort, String)> = None;
        while left > 0 {
            match self.receiver.recv() {
                Ok(Event::Said(_, Word::Begun)) => self.begun = true,
                Ok(Event::Said(_, Word::Progress)) => progressed = true,
                Ok(Event::Said(process, word)) => processes[process].result = Some(word),
                Ok(Event::Gone(process)) => {
                    left -= 1;
                    let many = processes.len() > 1;
                    let ended = &mut processes[process];
                    ended.child.kill().ok();
                    let status = ended.child.wait();
                    let failed = match &ended.result {
                        Some(Word::Ended(_)) => None,
                        Some(Word::Failed { sort, why }) => Some((*sort, why.clone())),
                        _ => {
                            let how = status.map_or_else(|error| error.to_string(), in_words);
                            let who = if many {
                                format!("process {process}")
                            } else {
                                "the attempt's process".to_owned()
                            };
                            Some((Sort::Again, format!("{who} {how}")))
                        }
                    };
                    let Some(failed) = failed else { continue };
                    // What comes after the first is its consequence, unless it says that there is no use in going on.
                    if failure
                        .as_ref()
                        .is_none_or(|(sort, _)| *sort != Sort::Final && failed.0 == Sort::Final)
                    {
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
        if let Some((sort, why)) = failure {
            return Attempt::Failed { sort, why, progressed };
        }
        match processes.swap_remove(0).result {
            Some(Word::Ended(outcome)) => Attempt::Ended(outcome),
            _ => unreachable!("a process that didn't end well has failed"),
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

fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}
