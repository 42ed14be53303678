//! What a running job shows on a terminal: a bar if its sources know how much there is to read, otherwise a line of numbers.

use std::io::IsTerminal;
use std::time::Duration;

use highwater_runtime::Control;
use highwater_runtime::observe::JobStatus;
use indicatif::{ProgressBar, ProgressStyle};

use crate::voice;

/// How often it is drawn.
const EVERY: Duration = Duration::from_millis(250);

/// Shows progress on standard error, if that is a terminal, until the attempt is over.
pub(crate) fn show(job: &str, control: &Control) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let bar = ProgressBar::new_spinner().with_style(style("{prefix}: {wide_msg}"));
    bar.set_prefix(job.to_owned());
    voice::set_bar(bar.clone());
    let control = control.clone();
    let env = control.env().clone();
    let task = async move {
        let mut rate = Rate::default();
        while !control.is_over() {
            let status = control.status();
            if status.bytes_expected > 0 && bar.length() != Some(status.bytes_expected) {
                bar.set_length(status.bytes_expected);
                bar.set_style(style("{prefix}: {bar:20} {percent} %, {eta} left, {wide_msg}"));
            }
            bar.set_position(status.bytes_read.min(status.bytes_expected));
            bar.set_message(line(&status, rate.of(status.records_in, control.env().monotonic())));
            control.env().sleep(EVERY).await;
        }
    };
    env.spawn("progress", Box::pin(task));
}

/// Takes away what is shown, so that what is written next begins a line of its own.
pub(crate) fn end() {
    if let Some(bar) = voice::take_bar() {
        bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is one of ours")
}

/// Records a second between two looks.
#[derive(Default)]
struct Rate {
    before: Option<(u64, Duration)>,
}

impl Rate {
    fn of(&mut self, records: u64, now: Duration) -> f64 {
        match self.before.replace((records, now)) {
            Some((before, then)) if now > then => {
                records.saturating_sub(before) as f64 / (now - then).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

fn line(status: &JobStatus, rate: f64) -> String {
    let mut line = format!(
        "{} records, {}/s, epoch {}",
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
