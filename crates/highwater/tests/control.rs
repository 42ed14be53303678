//! A job as a program that is looked at and steered from another process: the socket, metrics, and what it says by itself.

mod asked;
#[path = "support/program.rs"]
mod program;
mod support;

fn main() -> highwater::Result<()> {
    if let Some(job) = asked::job() {
        return job;
    }
    program::main(&[
        ("a_running_job_says_what_it_does", asked::steering::a_running_job_says_what_it_does),
        ("a_checkpoint_is_taken_when_asked_for", asked::steering::a_checkpoint_when_asked_for),
        ("a_job_without_checkpoints_takes_none", asked::steering::a_job_without_checkpoints),
        ("a_stop_takes_a_last_checkpoint", asked::steering::a_stop_takes_a_last_checkpoint),
        ("a_killed_job_is_not_running", asked::steering::a_killed_job_is_not_running),
        ("a_paused_process_is_silent", asked::steering::a_paused_process_is_silent),
        ("wrong_requests_are_refused", asked::steering::wrong_requests_are_refused),
        ("a_hanging_split_holds_the_epoch", asked::stuck::a_hanging_split_holds_the_epoch),
        ("a_stuck_sink_holds_the_epoch", asked::stuck::a_stuck_sink_holds_the_epoch),
        ("metrics_are_served", asked::shown::metrics_are_served),
        ("a_metrics_address_that_is_taken", asked::shown::a_metrics_address_that_is_taken),
        ("a_line_for_every_checkpoint", asked::shown::a_line_for_every_checkpoint),
        ("late_records_are_accounted_for", asked::shown::late_records_are_accounted_for),
        ("logs_are_json_if_asked_for", asked::shown::logs_are_json_if_asked_for),
        ("a_bar_on_a_terminal", asked::shown::a_bar_on_a_terminal),
    ])
}
