//! What a job says about itself, on standard error: words for people, or lines of JSON for machines. Standard output is for data.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Options;

/// The progress bar that is on the terminal now; whatever else is written goes above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// How a job speaks.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    job: String,
    quiet: bool,
    json: bool,
}

impl Voice {
    /// The voice of the job `name`. Sets up logging, too; a program that has set up its own keeps it.
    ///
    /// Warnings are logged, and more with `RUST_LOG`; where there is no terminal to show progress on, also a line for every
    /// checkpoint.
    pub(crate) fn new(name: &str, options: &Options) -> Self {
        let filter = match (options.quiet, options.json_logs || !io::stderr().is_terminal()) {
            (true, _) => "error",
            (false, false) => "warn",
            (false, true) => "warn,highwater::checkpoint=info,highwater::job=info",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
        let plain = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| AboveBar);
        match options.json_logs {
            true => plain.json().flatten_event(true).finish().try_init().ok(),
            false => plain.with_ansi(io::stderr().is_terminal()).finish().try_init().ok(),
        };
        Voice { job: name.to_owned(), quiet: options.quiet, json: options.json_logs }
    }

    /// Whether the job shows what it does.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether it speaks to machines.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Says something that isn't asked for.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            self.answer(text);
        }
    }

    /// Says something in answer to what the user did, which isn't kept back.
    pub(crate) fn answer(&self, text: &str) {
        match self.json {
            true => tracing::info!(target: "highwater::job", job = self.job, "{text}"),
            false => {
                // Whoever closed standard error doesn't want to know.
                writeln!(AboveBar, "{}: {text}", self.job).ok();
            }
        }
    }
}

/// Puts a progress bar below whatever is written from now on.
pub(crate) fn set_bar(bar: ProgressBar) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
}

/// Nothing is above the bar any more.
pub(crate) fn take_bar() -> Option<ProgressBar> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Standard error, above the progress bar if there is one.
struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let write = || io::stderr().write(bytes);
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
