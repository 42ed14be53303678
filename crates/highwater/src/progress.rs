//! What a running job shows on a terminal: one line, twice a second.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use highwater_runtime::Control;
use highwater_runtime::observe::JobStatus;

/// How often the line is written.
const EVERY: Duration = Duration::from_millis(500);

/// Writes the progress line to standard error, if that is a terminal, until the attempt is over.
pub(crate) fn show(job: &str, control: &Control) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let (job, control) = (job.to_owned(), control.clone());
    let env = control.env().clone();
    let task = async move {
        let mut records = 0;
        let mut at = control.env().monotonic();
        while !control.is_over() {
            control.env().sleep(EVERY).await;
            if control.is_over() {
                break;
            }
            let now = control.env().monotonic();
            let status = control.status();
            let rate = (status.records_in - records) as f64 / (now - at).as_secs_f64();
            (records, at) = (status.records_in, now);
            let line = line(&job, &status, rate);
            // Back to the line's start and clear what is longer than the new one.
            write!(std::io::stderr(), "\r{line}\x1b[K").ok();
        }
    };
    env.spawn("progress", Box::pin(task));
}

/// Ends the progress line, so that what is written next begins a line of its own.
pub(crate) fn end() {
    if std::io::stderr().is_terminal() {
        write!(std::io::stderr(), "\r\x1b[K").ok();
    }
}

fn line(job: &str, status: &JobStatus, rate: f64) -> String {
    let mut line = format!(
        "{job}: {} records, {}/s, epoch {}",
        count(status.records_in as f64),
        count(rate),
        status.leader.epoch
    );
    let checkpoints = &status.leader.checkpoints;
    if let Some(last) = checkpoints.last.first() {
        let (age, size) = (last.age_ms as f64 / 1000.0, count(last.bytes as f64));
        line += &format!(", checkpoint {age:.1} s ago, {size}B");
    }
    // One or two are on their way at any time.
    if checkpoints.unpublished > 2 {
        line += &format!(", {} not yet published", checkpoints.unpublished);
    }
    line
}

/// 950, 12.3k, 4.5M.
pub(crate) fn count(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.1}G", n / 1e9),
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e4 => format!("{:.1}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}
