//! Everything of a running job that faces people: what it says and shows, and what it answers when it is asked.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_runtime::observe::{JobStatus, OperatorStatus};
use highwater_runtime::{Control, Outcome, Trigger};

use crate::control::Ended;
use crate::desk::Desk;
use crate::progress::{self, count};
use crate::voice::Voice;
use crate::{Options, Result};

/// The front of one job, from before it starts until it has ended.
pub(crate) struct Front {
    pub(crate) voice: Voice,
    job: String,
    trigger: Trigger,
    desk: Desk,
    env: Arc<dyn Env>,
    began: Duration,
    control: Option<Control>,
}

impl Front {
    /// Opens it; `location` is where the checkpoints are, if the job keeps any.
    ///
    /// # Errors
    ///
    /// If an address was asked for that can't be used.
    pub(crate) fn open(
        name: &str,
        voice: Voice,
        options: &Options,
        location: Option<&str>,
        env: &Arc<dyn Env>,
    ) -> Result<Self> {
        Ok(Front {
            voice,
            job: name.to_owned(),
            trigger: options.trigger,
            desk: Desk::open(&**env, name, location, options.metrics.as_deref())?,
            env: env.clone(),
            began: env.monotonic(),
            control: None,
        })
    }

    /// The job runs.
    pub(crate) fn started(&mut self, control: &Control) {
        let took = (self.env.monotonic() - self.began).as_secs_f64();
        tracing::info!(job = self.job, took, "workers start");
        self.desk.started(control);
        if !self.voice.is_quiet() && !self.voice.is_json() {
            progress::show(&self.job, control);
        }
        self.control = Some(control.clone());
    }

    /// The job has ended: sums up what it did, and tells those who wait for that.
    pub(crate) fn ended(self, outcome: Result<&Outcome, &highwater_runtime::Error>) {
        progress::end();
        let status = self.control.map(|control| control.status());
        if let (Ok(outcome), false) = (&outcome, self.voice.is_quiet()) {
            let seconds = (self.env.monotonic() - self.began).as_secs_f64();
            match self.voice.is_json() {
                true => log_summary(&self.job, outcome, status.as_ref(), seconds),
                false => {
                    self.voice.say(&summary(outcome, self.trigger, status.as_ref(), seconds));
                }
            }
        }
        let newest = status.as_ref().and_then(|status| status.leader.checkpoints.last.first());
        self.desk.close(Ended {
            finished: outcome.as_ref().is_ok_and(|outcome| outcome.finished),
            checkpoint: newest.map(|newest| newest.checkpoint),
            records_in: status.as_ref().map_or(0, |status| status.records_in),
            error: outcome.err().map(ToString::to_string),
        });
    }
}

fn summary(
    outcome: &Outcome,
    trigger: Trigger,
    status: Option<&JobStatus>,
    seconds: f64,
) -> String {
    if outcome.already_finished {
        return "finished already; nothing to do (--fresh starts over)".to_owned();
    }
    let how = match (outcome.finished, trigger) {
        (true, Trigger::Every(_)) => "finished",
        (true, Trigger::AvailableNow { .. }) => {
            "read what was there; started again, it goes on with what is new"
        }
        (false, _) => "stopped; started again, it goes on from here",
    };
    let rate = count(outcome.records_in as f64 / seconds.max(1e-9));
    let mut text = format!(
        "{how}: {} records in {seconds:.1} s ({rate}/s), {}, {}",
        outcome.records_in,
        some(outcome.records_out, "row out", "rows out"),
        some(outcome.checkpoints, "checkpoint", "checkpoints"),
    );
    if let Some(status) = status {
        let leader = &status.leader;
        for (number, one, more) in [
            (leader.restarts, "restart", "restarts"),
            (leader.checkpoints.failed, "failed checkpoint", "failed checkpoints"),
            (status.skipped, "bad record skipped", "bad records skipped"),
            (status.rejected, "bad record set aside", "bad records set aside"),
        ] {
            if number > 0 {
                text += &format!(", {}", some(number, one, more));
            }
        }
        for OperatorStatus { operator, records_in, late, .. } in &status.operators {
            if *late > 0 {
                text += &format!(", {late} of {records_in} records too late for `{operator}`");
            }
        }
    }
    if let Some(checkpoint) = outcome.recovered_from {
        text += &format!(", went on from checkpoint {checkpoint}");
    }
    text
}

fn some(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

fn log_summary(job: &str, outcome: &Outcome, status: Option<&JobStatus>, seconds: f64) {
    tracing::info!(
        target: "highwater::job",
        job,
        attempt = outcome.attempt,
        finished = outcome.finished,
        already_finished = outcome.already_finished,
        recovered_from = outcome.recovered_from,
        records_in = outcome.records_in,
        records_out = outcome.records_out,
        checkpoints = outcome.checkpoints,
        checkpoints_failed = status.map_or(0, |status| status.leader.checkpoints.failed),
        restarts = status.map_or(0, |status| status.leader.restarts),
        skipped = status.map_or(0, |status| status.skipped),
        rejected = status.map_or(0, |status| status.rejected),
        late = status.map_or(0, |status| status.late),
        duration_ms = (seconds * 1000.0) as u64,
        "ended"
    );
}
