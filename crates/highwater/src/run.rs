//! Runs a job as a program: options, checkpoints in a folder, signals, words for people.

use std::fmt;
use std::panic::PanicHookInfo;
use std::sync::Arc;

use clap::{FromArgMatches, Parser};
use highwater_env::{Env, RealEnv};
use highwater_log::Store;
use highwater_runtime::cluster::Place;
use highwater_runtime::{Control, Outcome, Settings};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::front::Front;
use crate::supervise::{self, Begin, Supervisor};
use crate::voice::Voice;
use crate::{Job, Options, Restart, Result, memory};

/// Runs the job `name` with the options of the command line, until its sources end or it is stopped.
///
/// `job` builds the graph; nothing runs before it returns. The job's state is kept in `.highwater/<name>`, unless
/// `--checkpoints` says otherwise, and a job that is started again goes on from there. SIGINT and SIGTERM take a last checkpoint and
/// end the program; a second signal ends it at once.
///
/// Prints the usage and exits if the command line is wrong or asks for it.
///
/// # Errors
///
/// Everything that keeps the job from starting, and whatever made it fail.
///
/// ```no_run
/// use highwater::connectors::Files;
///
/// fn main() -> highwater::Result<()> {
///     highwater::run("lengths", |job| {
///         job.read("lines", Files::text("logs/*.log"))
///             .map(|line: String| line.len() as u64)
///             .write("lengths", Files::ndjson("out/lengths"));
///     })?;
///     Ok(())
/// }
/// ```
pub fn run<R>(name: &str, job: impl FnOnce(&Job) -> R) -> Result<Outcome> {
    /// What `run` parses: the options of every job and nothing else.
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    let command = <Alone as clap::CommandFactory>::command().name(name.to_owned());
    let matches = command.get_matches();
    let Alone { options } = Alone::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Runner::new(name).options(options).run(job)
}

/// Runs a job with options that come from elsewhere than [`run`](fn@run)'s command line.
///
/// ```no_run
/// # fn example(options: highwater::Options) -> highwater::Result<()> {
/// let outcome = highwater::Runner::new("job").options(options).run(|job| {
///     job.read("numbers", vec![1u64, 2, 3]).write("out", highwater::connectors::Stdout::new());
/// })?;
/// println!("read {} records", outcome.records_in);
/// # Ok(()) }
/// ```
pub struct Runner {
    name: String,
    options: Option<Options>,
    on_start: Option<Watch>,
}

type Watch = Box<dyn FnOnce(&Control)>;

/// How often a checkpoint is taken in an attempt that looks for the record that makes the job fail.
const CAREFUL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runner({})", self.name)
    }
}

impl Runner {
    /// A runner of the job `name`, with the default options.
    pub fn new(name: &str) -> Self {
        Runner { name: name.to_owned(), options: None, on_start: None }
    }

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = Some(options);
        self
    }

    /// Calls `watch` once the job runs, with a handle to look at it and to stop it; it must return at once.
    #[must_use]
    pub fn on_start(mut self, watch: impl FnOnce(&Control) + 'static) -> Self {
        self.on_start = Some(Box::new(watch));
        self
    }

    /// Runs the job. See [`run`](fn@run).
    ///
    /// # Errors
    ///
    /// As [`run`](fn@run).
    pub fn run<R>(mut self, job: impl FnOnce(&Job) -> R) -> Result<Outcome> {
        let options = self.options.take().unwrap_or_else(default_options);
        let voice = Voice::new(&self.name, &options);
        let env: Arc<dyn Env> = Arc::new(RealEnv::new()?);
        if let Some(supervisor) = Supervisor::of_this_process()? {
            let begin = supervisor.begin(&options, &env)?;
            supervisor.end(self.attempt(&options, voice, &env, Some((supervisor, begin)), job));
        }
        if options.is_supervised() {
            return supervise::run(&self.name, &options, &voice, &env);
        }
        self.attempt(&options, voice, &env, None, job)
    }

    /// Runs one attempt in this process.
    fn attempt<R>(
        self,
        options: &Options,
        voice: Voice,
        env: &Arc<dyn Env>,
        supervised: Option<(&'static Supervisor, (Begin, Option<Place>))>,
        job: impl FnOnce(&Job) -> R,
    ) -> Result<Outcome> {
        abort_on_panic();
        memory::keep_freed();
        let (supervisor, place, begin) = match supervised {
            Some((supervisor, (begin, place))) => (Some(supervisor), place, Some(begin)),
            None => (None, options.place(&**env)?, None),
        };
        let restarted = begin.as_ref().is_some_and(|begin| begin.restarts > 0);
        let begun = begin.as_ref().is_some_and(|begin| begin.begun);
        let care = begin.as_ref().map(|begin| begin.care.clone()).unwrap_or_default();
        let graph = Job::new();
        job(&graph);
        let plan = graph.into_plan();
        let name = &self.name;
        let location = match &options.checkpoints {
            Some(location) => location.clone(),
            None => format!(".highwater/{name}"),
        };
        let location = if options.no_checkpoints { "memory:" } else { location.as_str() };
        // What an attempt has begun in isn't made anew, should it be away.
        let store = if begun { Store::open_again(location)? } else { Store::open(location)? };
        // Process 0 speaks for all.
        let leads = place.as_ref().is_none_or(|place| place.process() == 0);
        if !restarted && leads {
            voice.say(&match location {
                _ if options.no_checkpoints => "no checkpoints".to_owned(),
                "memory:" => "checkpoints in memory".to_owned(),
                location => format!("checkpoints in {location}"),
            });
        }
        let lasting = Some(location).filter(|location| *location != "memory:");
        let mut front = match leads {
            true => Some(Front::open(name, voice.clone(), options, lasting, env)?),
            false => None,
        };
        let mut signals = None;
        let started = |control: Control| {
            if let Some(begin) = begin {
                control.observed().set_history(begin.restarts, begin.last_failure);
            }
            match supervisor {
                Some(supervisor) => supervisor.steer(&control),
                None => signals = stop_on_signals(&voice, &control),
            }
            if let Some(front) = &mut front {
                front.started(&control);
            }
            if let Some(watch) = self.on_start {
                watch(&control);
            }
        };
        // `--fresh` forgets what was before the job was started, not what its own attempts have done.
        let mut settings = Settings { fresh: options.fresh && !begun, begun, ..options.settings() };
        settings.care = care;
        if settings.care.one_at_a_time {
            // What is passed is not to be read with care again.
            settings.checkpoint_interval =
                settings.checkpoint_interval.map(|interval| interval.min(CAREFUL_INTERVAL));
        }
        let outcome = match place {
            Some(place) => {
                let env = env.clone();
                highwater_runtime::run_process(name, plan, settings, env, store, place, started)
            }
            None => highwater_runtime::run(name, plan, settings, env.clone(), store, started),
        };
        // From here on signals do what they do without a job.
        if let Some(signals) = signals {
            signals.close();
        }
        if let Some(front) = front {
            front.ended(outcome.as_ref());
        }
        Ok(outcome?)
    }
}

fn default_options() -> Options {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    // A program that says nothing of how it is started isn't started again: it may be a test.
    Options { restart: Restart::Never, ..Alone::parse_from(["highwater"]).options }
}

/// Whether a thread is a worker, one that carries data between processes, or a task of the engine.
fn is_of_the_engine(thread: &str) -> bool {
    ["timely:", "highwater-task"].iter().any(|ours| thread.starts_with(ours))
}

/// Invariant 6 in real life: a thread of the engine that panics takes the process down from the hook, before anything is unwound and any
/// capability dropped.
fn abort_on_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            before(panic);
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            if is_of_the_engine(name) {
                let payload = panic.payload();
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
                let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
                Supervisor::panicked(&format!("a panic{place}: {}", text.unwrap_or("no message")));
                eprintln!(
                    "the thread `{name}` panicked; the process ends here, and nothing committed is lost"
                );
                std::process::abort();
            }
        }));
    });
}

/// The first SIGINT or SIGTERM takes a last checkpoint, the second ends the process.
/// What is answered ends that once the job is over.
fn stop_on_signals(voice: &Voice, control: &Control) -> Option<signal_hook::iterator::Handle> {
    let mut signals = match signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "signals can't be caught; they end the job at once");
            return None;
        }
    };
    let handle = signals.handle();
    let (voice, control) = (voice.clone(), control.clone());
    let env = control.env().clone();
    let wait = move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 {
                // As a shell reports a process that a signal ended.
                std::process::exit(128 + signal);
            }
            voice.answer("stopping after a last checkpoint (again to stop at once)");
            control.stop();
        }
    };
    env.spawn_thread("signals", Box::new(wait));
    Some(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection whose thread is gone would be waited at for ever.
    #[test]
    fn threads_without_which_nothing_goes_on_take_the_process_down() {
        for name in ["timely:work-0", "timely:send-1", "timely:recv-1", "highwater-task-2"] {
            assert!(is_of_the_engine(name), "{name}");
        }
        assert!(!is_of_the_engine("read-csv"));
    }
}
