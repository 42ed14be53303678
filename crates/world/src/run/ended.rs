//! How processes end, and whether they may, after what has happened to them.

use highwater_log::LogError;
use highwater_runtime::{Error, Outcome, Trigger};

use super::{Alive, Controller, Violation};

/// How one process of an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How many workers it had.
    pub workers: usize,
    /// Of how many processes it was one.
    pub processes: usize,
    /// How it ended.
    pub ended: Ended,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It died.
    Killed,
    /// It gave up, for this reason.
    Failed(String),
    /// It brought the job to its end.
    Finished,
    /// It was asked to stop, and did.
    Stopped,
    /// It read what was there, and a later one reads on.
    Drained,
    /// It found the job at its end.
    FoundFinished,
}

/// What becomes of the job then.
pub(super) enum Next {
    /// Others go on, or are started.
    GoOn,
    /// It is at its end.
    Done(Outcome),
    /// It refuses to go on after damage.
    GiveUp,
}

impl Controller<'_> {
    /// Takes note of a process that has ended.
    pub(super) fn ended(&mut self, alive: Alive) -> Result<Next, Violation> {
        let result = alive.body.join().unwrap_or_else(|_| Err("its thread panicked".to_owned()));
        let last = !self.alive.values().any(|other| other.team == alive.team);
        let ended = &mut self.attempts[alive.attempt].ended;
        let team = &mut self.teams[alive.team];
        let next = match result {
            Err(panic) => return Err(Violation(format!("a process panicked: {panic}"))),
            Ok(None) => {
                team.troubled = true;
                Next::GoOn
            }
            Ok(Some(Ok(outcome))) => {
                let drains = matches!(team.settings.trigger, Trigger::AvailableNow { .. });
                *ended = match (outcome.finished, outcome.already_finished) {
                    (false, _) => Ended::Stopped,
                    (true, true) => Ended::FoundFinished,
                    (true, false) if drains => Ended::Drained,
                    (true, false) => Ended::Finished,
                };
                // What it said to others in the end may be lost.
                (team.over, team.troubled) = (true, true);
                match ended {
                    Ended::Finished | Ended::FoundFinished => Next::Done(outcome),
                    Ended::Stopped if !self.stops => {
                        let why = "the job stopped, and nobody asked it to";
                        return Err(Violation(why.to_owned()));
                    }
                    _ => Next::GoOn,
                }
            }
            Ok(Some(Err(error))) => {
                *ended = Ended::Failed(error.to_string());
                let store_failed = self.world.store_failed(alive.team);
                let sort = sort(&error);
                let several = team.settings.processes > 1;
                let allowed = match sort {
                    // What a flipped bit has made of one's own entry, whose answer was lost, isn't one's own. Of several processes, one
                    // that was left behind finds that the others have begun anew.
                    Sort::Fenced => alive.overlapped || self.flips || several,
                    Sort::Unavailable => store_failed,
                    Sort::Damage => self.flips,
                    Sort::Lost => several,
                    Sort::Bug => false,
                };
                if !allowed {
                    return Err(Violation(format!(
                        "an attempt ended, and shouldn't have: {error}"
                    )));
                }
                match sort {
                    Sort::Lost | Sort::Fenced if several && !alive.overlapped => {
                        team.lost.get_or_insert_with(|| error.to_string());
                    }
                    _ => team.troubled = true,
                }
                // What is damaged stays so, unless another attempt that still runs goes on from what it has.
                self.damaged = sort == Sort::Damage;
                if sort == Sort::Damage { Next::GiveUp } else { Next::GoOn }
            }
        };
        let troubled = team.troubled || self.world.counts().network_faults > 0;
        if let (Some(why), true, false) = (&team.lost, last, troubled) {
            let text = format!("processes lost each other without a reason: {why}");
            return Err(Violation(text));
        }
        if matches!(next, Next::GiveUp) {
            self.world.end_team(alive.team);
            return Ok(if self.goes_on() { Next::GoOn } else { Next::GiveUp });
        }
        Ok(next)
    }
}

/// Why a process gave up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Fenced,
    Unavailable,
    Damage,
    /// Another process was.
    Lost,
    Bug,
}

fn sort(error: &Error) -> Sort {
    let of_the_log = |error: &LogError| match error {
        LogError::Unavailable { .. } => Sort::Unavailable,
        LogError::Damaged(_) | LogError::Conflict { .. } => Sort::Damage,
        _ => Sort::Bug,
    };
    match error {
        Error::Fenced(_) => Sort::Fenced,
        Error::Log(error) => of_the_log(error),
        Error::InDoubt(_) | Error::LastCheckpoint(_) => Sort::Unavailable,
        Error::Refused { .. } => Sort::Damage,
        Error::Peer { .. } | Error::Handshake(_) => Sort::Lost,
        Error::Operator { source, .. } => {
            source.downcast_ref::<LogError>().map_or(Sort::Bug, of_the_log)
        }
        _ => Sort::Bug,
    }
}
