//! What a running job shows on a terminal: one line, twice a second.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use highwater_runtime::Control;

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
            let read = control.counters().records_in.load(Relaxed);
            let rate = (read - records) as f64 / (now - at).as_secs_f64();
            (records, at) = (read, now);
            let line = line(&job, &control, rate, now);
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

fn line(job: &str, control: &Control, rate: f64, now: Duration) -> String {
    let counters = control.counters();
    let read = counters.records_in.load(Relaxed);
    let epoch = counters.epoch.load(Relaxed);
    let mut line = format!(
        "{job}: {} records, {}/s, epoch {}.{}",
        count(read as f64),
        count(rate),
        epoch >> 32,
        epoch & 0xFFFF_FFFF
    );
    if counters.checkpoints.load(Relaxed) > 0 {
        let age = now.as_millis() as u64
            - counters.last_checkpoint_ms.load(Relaxed).min(now.as_millis() as u64);
        let size = count(counters.last_checkpoint_bytes.load(Relaxed) as f64);
        line += &format!(", checkpoint {:.1} s ago, {size}B", age as f64 / 1000.0);
    }
    // One or two are on their way at any time.
    if control.unpublished() > 2 {
        line += &format!(", {} not yet published", control.unpublished());
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
