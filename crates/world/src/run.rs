//! A job from its first attempt to its end, through everything that goes wrong on the way.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use highwater_log::{LogError, Store};
use highwater_runtime::{Error, Outcome, Plan, Settings, Trigger};

use crate::fault::{Fault, What};
use crate::random::Random;
use crate::scheduler::{Event, ProcessId};
use crate::store::Media;
use crate::world::{Body, Counts, World};

/// More attempts than this, and the job gets nowhere.
const ATTEMPTS_MAX: usize = 400;

/// A job and what happens to it.
pub struct Scenario<'j> {
    /// Every choice follows from it.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What checkpoints are kept on.
    pub media: Media,
    /// Beyond so many steps the job is taken to be stuck.
    pub step_limit: u64,
    /// What happens is written down.
    pub record: bool,
    /// The job's name. Names what a process keeps for the job outside of the world, so it should be used once.
    pub name: String,
    /// Makes the job's plan, anew for each attempt, as a new process would.
    pub plan: &'j dyn Fn(&World) -> Plan,
    /// How the n-th attempt runs, counted from zero.
    pub settings: &'j dyn Fn(usize) -> Settings,
    /// Called once an attempt says that the job is done, before anything else happens.
    pub done: &'j dyn Fn(),
}

impl fmt::Debug for Scenario<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How many workers it had.
    pub workers: usize,
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

/// What became of a job.
#[derive(Debug)]
pub struct Run {
    /// What went wrong that must not; the job has come to its end if nothing did.
    pub violation: Option<Violation>,
    /// How the job ended; none if it refused to go on after damage.
    pub outcome: Option<Outcome>,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
    /// The world, at its end.
    pub world: World,
    /// What it went through.
    pub counts: Counts,
    /// Its checkpoints.
    pub store: Store,
}

/// Runs a job until it is done.
pub fn run(scenario: Scenario<'_>) -> Run {
    let Scenario { seed, faults, media, step_limit, record, name, plan, settings, done } = scenario;
    let flips = faults.iter().any(|fault| fault.what == What::BitFlip);
    let stops = faults.iter().any(|fault| fault.what == What::Stop);
    let world = World::new(seed, faults, media, step_limit, record);
    let mut controller = Controller {
        random: Random::new(seed, "controller"),
        world: world.clone(),
        name,
        plan,
        settings,
        done,
        alive: BTreeMap::new(),
        attempts: Vec::new(),
        damaged: false,
        flips,
        stops,
    };
    let ended = controller.run();
    controller.world.kill_all();
    while !controller.alive.is_empty() {
        match controller.world.next_event() {
            Event::Ended(process) => drop(controller.alive.remove(&process)),
            Event::Paused(_) | Event::Stuck => {}
        }
    }
    world.close();
    let counts = world.counts();
    let (outcome, mut violation) = match ended {
        Ok(outcome) => (outcome, None),
        Err(violation) => (None, Some(violation)),
    };
    if let Some(panic) = counts.panics.first() {
        violation = Some(Violation(panic.clone()));
    }
    let store = world.store();
    let Controller { attempts, .. } = controller;
    Run { violation, outcome, attempts, world, counts, store }
}

struct Controller<'j> {
    random: Random,
    world: World,
    name: String,
    plan: &'j dyn Fn(&World) -> Plan,
    settings: &'j dyn Fn(usize) -> Settings,
    done: &'j dyn Fn(),
    alive: BTreeMap<ProcessId, Alive>,
    attempts: Vec<Attempt>,
    /// An attempt has refused to go on because of damage. Before the next one starts, the others come to their end.
    damaged: bool,
    flips: bool,
    stops: bool,
}

struct Alive {
    process: ProcessId,
    body: Body<Result<Outcome, Error>>,
    attempt: usize,
    /// Another process ran at the same time.
    overlapped: bool,
    paused: bool,
    /// It reads what is there, and ends.
    drains: bool,
}

impl Controller<'_> {
    /// The job's outcome, or none if it refuses to go on after a bit has flipped.
    fn run(&mut self) -> Result<Option<Outcome>, Violation> {
        self.start()?;
        loop {
            match self.world.next_event() {
                Event::Stuck => {
                    let why = "the job makes no progress: the limit of steps is reached";
                    return Err(Violation(why.to_owned()));
                }
                Event::Paused(process) => {
                    if let Some(alive) = self.alive.get_mut(&process) {
                        alive.paused = true;
                        self.start()?;
                    }
                }
                Event::Ended(process) => {
                    let Some(alive) = self.alive.remove(&process) else { continue };
                    match self.ended(alive)? {
                        Next::Done(outcome) => {
                            (self.done)();
                            return self.finish(outcome).map(Some);
                        }
                        Next::GiveUp => return Ok(None),
                        Next::GoOn => {}
                    }
                    let wait = !self.alive.is_empty() && self.damaged;
                    if !wait && self.alive.values().all(|alive| alive.paused) {
                        let pause = Duration::from_micros(self.random.below(5_000));
                        self.world.wait(pause);
                        self.start()?;
                    }
                }
            }
        }
    }

    fn start(&mut self) -> Result<(), Violation> {
        let attempt = self.attempts.len();
        if attempt >= ATTEMPTS_MAX {
            return Err(Violation(format!("{attempt} attempts, and the job isn't done")));
        }
        let settings = (self.settings)(attempt);
        let drains = matches!(settings.trigger, Trigger::AvailableNow { .. });
        self.attempts.push(Attempt { workers: settings.workers, ended: Ended::Killed });
        let (job, plan) = (self.name.clone(), (self.plan)(&self.world));
        let name = format!("attempt {attempt} with {} workers", settings.workers);
        let world = self.world.clone();
        let (process, body) = self.world.start(&name, move |env, store| {
            highwater_runtime::run(&job, plan, settings, env, store, |control| world.steer(control))
        });
        let body = body.map_err(Violation)?;
        let overlapped = !self.alive.is_empty();
        self.alive.values_mut().for_each(|other| other.overlapped = true);
        let alive = Alive { process, body, attempt, overlapped, paused: false, drains };
        self.alive.insert(process, alive);
        Ok(())
    }

    fn ended(&mut self, alive: Alive) -> Result<Next, Violation> {
        let result = alive.body.join().unwrap_or_else(|_| Err("its thread panicked".to_owned()));
        let ended = &mut self.attempts[alive.attempt].ended;
        match result {
            Err(panic) => Err(Violation(format!("a process panicked: {panic}"))),
            Ok(None) => Ok(Next::GoOn),
            Ok(Some(Ok(outcome))) => {
                *ended = match (outcome.finished, outcome.already_finished) {
                    (false, _) => Ended::Stopped,
                    (true, true) => Ended::FoundFinished,
                    (true, false) if alive.drains => Ended::Drained,
                    (true, false) => Ended::Finished,
                };
                match ended {
                    Ended::Finished | Ended::FoundFinished => Ok(Next::Done(outcome)),
                    Ended::Stopped if !self.stops => {
                        Err(Violation("the job stopped, and nobody asked it to".to_owned()))
                    }
                    _ => Ok(Next::GoOn),
                }
            }
            Ok(Some(Err(error))) => {
                *ended = Ended::Failed(error.to_string());
                let store_failed = self.world.store_failed(alive.process);
                let sort = sort(&error);
                let allowed = match sort {
                    // What a flipped bit has made of one's own entry, whose answer was lost, isn't one's own.
                    Sort::Fenced => alive.overlapped || self.flips,
                    Sort::Unavailable => store_failed,
                    Sort::Damage => self.flips,
                    Sort::Bug => false,
                };
                if !allowed {
                    return Err(Violation(format!(
                        "an attempt ended, and shouldn't have: {error}"
                    )));
                }
                // What is damaged stays so, unless another attempt that still runs goes on from what it has.
                self.damaged = sort == Sort::Damage;
                let again = self.damaged && self.alive.is_empty();
                Ok(if again { Next::GiveUp } else { Next::GoOn })
            }
        }
    }

    /// The job is done. Zombies must see that, and a last start puts things in order.
    fn finish(&mut self, outcome: Outcome) -> Result<Outcome, Violation> {
        self.world.no_more_faults();
        while !self.alive.is_empty() {
            match self.world.next_event() {
                Event::Ended(process) => {
                    if let Some(alive) = self.alive.remove(&process) {
                        self.ended(alive)?;
                    }
                }
                Event::Paused(_) => {}
                Event::Stuck => {
                    return Err(Violation("a zombie doesn't see that it is one".to_owned()));
                }
            }
        }
        self.start()?;
        loop {
            match self.world.next_event() {
                Event::Ended(process) => {
                    let Some(alive) = self.alive.remove(&process) else { continue };
                    return match self.ended(alive)? {
                        Next::Done(last) if last.already_finished => Ok(outcome),
                        // The damage is to the last checkpoint: without exactly-once sinks the job goes on from an older one.
                        Next::GiveUp | Next::Done(_) if self.flips => Ok(outcome),
                        _ => Err(Violation("a finished job isn't finished any more".to_owned())),
                    };
                }
                Event::Paused(_) => {}
                Event::Stuck => {
                    return Err(Violation("a finished job doesn't start".to_owned()));
                }
            }
        }
    }
}

enum Next {
    GoOn,
    Done(Outcome),
    GiveUp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Fenced,
    Unavailable,
    Damage,
    Bug,
}

/// Whether an attempt may end with this error, depending on what happened to it.
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
        Error::Operator { source, .. } => {
            source.downcast_ref::<LogError>().map_or(Sort::Bug, of_the_log)
        }
        _ => Sort::Bug,
    }
}
