//! Runs a job as a program: options, checkpoints in a folder, signals, words for people.

use std::fmt;
use std::panic::PanicHookInfo;
use std::sync::Arc;

use clap::{FromArgMatches, Parser};
use highwater_env::{Env, RealEnv};
use highwater_log::Store;
use highwater_runtime::{Control, Outcome};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::front::Front;
use crate::voice::Voice;
use crate::{Job, Options, Result};

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
    pub fn run<R>(self, job: impl FnOnce(&Job) -> R) -> Result<Outcome> {
        let options = self.options.unwrap_or_else(default_options);
        let name = &self.name;
        let voice = Voice::new(name, &options);
        abort_on_panic();
        let graph = Job::new();
        job(&graph);
        let plan = graph.into_plan();
        let env: Arc<dyn Env> = Arc::new(RealEnv::new()?);
        let location = match &options.checkpoints {
            Some(location) => location.clone(),
            None => format!(".highwater/{name}"),
        };
        let location = if options.no_checkpoints { "memory:" } else { location.as_str() };
        let store = Store::open(location)?;
        voice.say(&match location {
            _ if options.no_checkpoints => "no checkpoints".to_owned(),
            "memory:" => "checkpoints in memory".to_owned(),
            location => format!("checkpoints in {location}"),
        });
        let lasting = Some(location).filter(|location| *location != "memory:");
        let mut front = Front::open(name, voice, &options, lasting, &env)?;
        let mut signals = None;
        let started = |control: Control| {
            signals = stop_on_signals(&front.voice, &control);
            front.started(&control);
            if let Some(watch) = self.on_start {
                watch(&control);
            }
        };
        let outcome =
            highwater_runtime::run(name, plan, options.settings(), env.clone(), store, started);
        // From here on signals do what they do without a job.
        if let Some(signals) = signals {
            signals.close();
        }
        front.ended(outcome.as_ref());
        Ok(outcome?)
    }
}

fn default_options() -> Options {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }
    Alone::parse_from(["highwater"]).options
}

/// Invariant 6 in real life: a worker or a task of the engine that panics takes the process down from the hook, before anything is
/// unwound and any capability dropped.
fn abort_on_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            before(panic);
            let thread = std::thread::current();
            let ours = ["timely:work", "highwater-task"];
            let name = thread.name().unwrap_or_default();
            if ours.iter().any(|ours| name.starts_with(ours)) {
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
