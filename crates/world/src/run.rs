//! A job from its first attempt to its end, through everything that goes wrong on the way.

mod ended;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use highwater_log::Store;
use highwater_runtime::cluster::Place;
use highwater_runtime::{Error, Outcome, Plan, Settings};

use crate::fault::{Fault, What};
use crate::random::Random;
use crate::scheduler::{Event, ProcessId};
use crate::store::Media;
use crate::world::{Body, Counts, World};
use ended::Next;
pub use ended::{Attempt, Ended};

/// More attempts than this, and the job gets nowhere.
const ATTEMPTS_MAX: usize = 400;

/// So long after its caller's death nothing that was asked of the store still takes effect.
const LATEST_CALL: Duration = Duration::from_secs(1);

/// So long a supervisor waits for processes that could come to their end by themselves.
const FAREWELL: Duration = Duration::from_secs(5);

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
    /// Makes the job's plan, anew for each process of an attempt, as a new process would.
    pub plan: &'j dyn Fn(&World) -> Plan,
    /// How the n-th attempt runs, counted from zero, and in how many processes.
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

/// What became of a job.
#[derive(Debug)]
pub struct Run {
    /// What went wrong that must not; the job has come to its end if nothing did.
    pub violation: Option<Violation>,
    /// How the job ended; none if it refused to go on after damage.
    pub outcome: Option<Outcome>,
    /// Every process of every attempt.
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
        stragglers: Random::new(seed, "stragglers"),
        world: world.clone(),
        name,
        plan,
        settings,
        done,
        alive: BTreeMap::new(),
        teams: Vec::new(),
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
            Event::Paused(_) | Event::Stuck | Event::BrokenRule => {}
        }
    }
    world.close();
    let counts = world.counts();
    let (outcome, mut violation) = match ended {
        Ok(outcome) => (outcome, None),
        Err(violation) => (None, Some(violation)),
    };
    if let Some(broken) = world.broken_rule().or_else(|| counts.panics.first().cloned()) {
        violation = Some(Violation(broken));
    }
    let store = world.store();
    let Controller { attempts, .. } = controller;
    Run { violation, outcome, attempts, world, counts, store }
}

struct Controller<'j> {
    random: Random,
    /// Decides which processes are started the old way once more.
    stragglers: Random,
    world: World,
    name: String,
    plan: &'j dyn Fn(&World) -> Plan,
    settings: &'j dyn Fn(usize) -> Settings,
    done: &'j dyn Fn(),
    alive: BTreeMap<ProcessId, Alive>,
    teams: Vec<Team>,
    attempts: Vec<Attempt>,
    /// An attempt has refused to go on because of damage. Before the next one starts, the others come to their end.
    damaged: bool,
    flips: bool,
    stops: bool,
}

/// Processes that run attempts together: as many as the settings say, each of which is started again when it has ended, until none is left.
struct Team {
    settings: Settings,
    /// One supervisor has started all of them, and ends the others when one has failed.
    supervised: bool,
    /// One has come to its end, and nobody is started again.
    over: bool,
    /// Something has happened to it that may well end all.
    troubled: bool,
    /// What those said that were lost by others. There must have been trouble.
    lost: Option<String>,
}

struct Alive {
    process: ProcessId,
    body: Body<Result<Outcome, Error>>,
    attempt: usize,
    team: usize,
    /// Which process of the team it is.
    place: usize,
    /// Another team ran at the same time.
    overlapped: bool,
    paused: bool,
}

impl Controller<'_> {
    /// The job's outcome, or none if it refuses to go on after a bit has flipped.
    fn run(&mut self) -> Result<Option<Outcome>, Violation> {
        self.start_team()?;
        loop {
            match self.world.next_event() {
                Event::Stuck => {
                    self.world.note_standings();
                    let why = "the job makes no progress: the limit of steps is reached";
                    return Err(Violation(why.to_owned()));
                }
                Event::BrokenRule => return Err(self.broken_rule()),
                Event::Paused(process) => {
                    if let Some(alive) = self.alive.get_mut(&process) {
                        alive.paused = true;
                        let team = alive.team;
                        self.teams[team].troubled = true;
                        if self.is_absent(team) && team + 1 == self.teams.len() {
                            self.next_team()?;
                        }
                    }
                }
                Event::Ended(process) => {
                    let Some(alive) = self.alive.remove(&process) else { continue };
                    let team = alive.team;
                    match self.ended(alive)? {
                        Next::Done(outcome) => {
                            (self.done)();
                            return self.finish(outcome).map(Some);
                        }
                        Next::GiveUp => return Ok(None),
                        Next::GoOn => {}
                    }
                    self.go_on(team)?;
                }
            }
        }
    }

    fn broken_rule(&self) -> Violation {
        Violation(self.world.broken_rule().unwrap_or_default())
    }

    /// Nobody of a team is there but for those that stand still.
    fn is_absent(&self, team: usize) -> bool {
        let members = self.alive.values().filter(|alive| alive.team == team);
        members.into_iter().all(|alive| alive.paused || !self.world.is_alive(alive.process))
    }

    /// Somebody is there who runs the job, or will: whoever waits for others needs all of them, and of a team that isn't the newest nobody
    /// is started again.
    fn goes_on(&self) -> bool {
        self.alive.values().any(|alive| {
            let begins = || alive.place == 0 && self.free_places(alive.team).is_empty();
            self.world.is_alive(alive.process) && (self.world.has_begun(alive.process) || begins())
        })
    }

    /// The places of a team at which nobody is.
    fn free_places(&self, team: usize) -> Vec<usize> {
        let taken = |place: &usize| {
            let mut members = self.alive.values().filter(|alive| alive.team == team);
            members.any(|alive| alive.place == *place && self.world.is_alive(alive.process))
        };
        (0..self.teams[team].settings.processes).filter(|place| !taken(place)).collect()
    }

    /// A process of a team has ended, and the job isn't done.
    fn go_on(&mut self, team: usize) -> Result<(), Violation> {
        let newest = self.teams.len() - 1;
        // What is damaged won't be mended: those that are still there go on or come to their end.
        if self.damaged && self.goes_on() {
            return Ok(());
        }
        if team == newest && self.teams[team].supervised && !self.teams[team].over {
            self.world.end_team(team);
        }
        if self.free_places(newest).is_empty() {
            return Ok(());
        }
        let pause = match self.is_absent(newest) {
            true => self.random.below(5_000),
            // Some are quick, others slower than what the rest needs to find out.
            false => {
                let most = 1 << self.random.within(12..=21);
                self.random.below(most)
            }
        };
        self.world.wait(Duration::from_micros(pause));
        if self.is_absent(newest) {
            return self.next_team();
        }
        if !self.teams[newest].over {
            let free = self.free_places(newest);
            return free.into_iter().try_for_each(|place| self.start(newest, place));
        }
        // Those that run come to their end by themselves; those that wait for others needn't.
        self.world.wait(FAREWELL);
        self.end_those_that_wait();
        if self.is_absent(newest) { self.next_team() } else { Ok(()) }
    }

    /// Nobody is left of a team, and the next one is started. Who starts processes at another host may not have heard of it yet, and starts one the old
    /// way once more.
    fn next_team(&mut self) -> Result<(), Violation> {
        let team = self.teams.len() - 1;
        if self.stragglers.chance(300)
            && let Some(place) = self.free_places(team).into_iter().rfind(|place| *place > 0)
        {
            self.start(team, place)?;
        }
        self.start_team()
    }

    /// Starts as many processes as the next settings say.
    fn start_team(&mut self) -> Result<(), Violation> {
        let team = self.teams.len();
        if team >= ATTEMPTS_MAX {
            return Err(Violation(format!("{team} attempts, and the job isn't done")));
        }
        let settings = (self.settings)(team);
        let processes = settings.processes;
        let supervised = processes > 1 && self.random.chance(400);
        let (over, troubled, lost) = (false, false, None);
        self.teams.push(Team { settings, supervised, over, troubled, lost });
        let mut places: Vec<usize> = (0..processes).collect();
        if processes > 1 {
            self.random.shuffle(&mut places);
        }
        for place in places {
            self.start(team, place)?;
        }
        Ok(())
    }

    /// Starts one process of a team.
    fn start(&mut self, team: usize, place: usize) -> Result<(), Violation> {
        let settings = self.teams[team].settings.clone();
        let (workers, processes) = (settings.workers, settings.processes);
        let attempt = self.attempts.len();
        self.attempts.push(Attempt { workers, processes, ended: Ended::Killed });
        let (job, plan) = (self.name.clone(), (self.plan)(&self.world));
        let mut name = format!("attempt {team} with {workers} workers");
        if processes > 1 {
            name = format!("{name}, as process {place} of {processes}");
        }
        let world = self.world.clone();
        let (process, body) = self.world.start(&name, team, move |env, store| {
            let started = |control| world.steer(control);
            if processes == 1 {
                return highwater_runtime::run(&job, plan, settings, env, store, started);
            }
            let hosts = (0..processes).map(|place| format!("host-{place}")).collect();
            let open = Place::open(&*env, place, hosts)?;
            let ended =
                highwater_runtime::run_process(&job, plan, settings, env, store, open, started);
            if place == 0 && ended.is_ok() {
                world.note_end();
            }
            ended
        });
        let body = body.map_err(Violation)?;
        let mut overlapped = false;
        for other in self.alive.values_mut().filter(|other| other.team != team) {
            other.overlapped = true;
            overlapped = true;
        }
        let paused = false;
        self.alive
            .insert(process, Alive { process, body, attempt, team, place, overlapped, paused });
        Ok(())
    }

    /// Ends teams of which nobody runs the job, and nobody will: somebody is missing who isn't started again.
    fn end_those_that_wait(&self) {
        let waits = |team: &usize| {
            let mut members = self.alive.values().filter(|alive| alive.team == *team);
            !self.free_places(*team).is_empty()
                && !members.any(|alive| self.world.has_begun(alive.process))
        };
        (0..self.teams.len()).filter(waits).for_each(|team| self.world.end_team(team));
    }

    /// The job is done. Zombies must see that, and a last start puts things in order.
    fn finish(&mut self, outcome: Outcome) -> Result<Outcome, Violation> {
        self.world.no_more_faults();
        while !self.alive.is_empty() {
            self.end_those_that_wait();
            match self.world.next_event() {
                Event::Ended(process) => {
                    if let Some(alive) = self.alive.remove(&process) {
                        self.ended(alive)?;
                    }
                }
                Event::Paused(_) => {}
                Event::BrokenRule => return Err(self.broken_rule()),
                Event::Stuck => {
                    return Err(Violation("a zombie doesn't see that it is one".to_owned()));
                }
            }
        }
        self.world.wait(LATEST_CALL);
        self.start_team()?;
        let mut found = false;
        while !self.alive.is_empty() {
            match self.world.next_event() {
                Event::Ended(process) => {
                    let Some(alive) = self.alive.remove(&process) else { continue };
                    match self.ended(alive)? {
                        Next::Done(last) if last.already_finished => found = true,
                        // The damage is to the last checkpoint: without exactly-once sinks the job goes on from an older one.
                        _ if self.flips => return Ok(outcome),
                        _ => {
                            let why = "a finished job isn't finished any more";
                            return Err(Violation(why.to_owned()));
                        }
                    }
                }
                Event::Paused(_) => {}
                Event::BrokenRule => return Err(self.broken_rule()),
                Event::Stuck => {
                    return Err(Violation("a finished job doesn't start".to_owned()));
                }
            }
        }
        match found {
            true => Ok(outcome),
            false => Err(Violation("nobody found the finished job".to_owned())),
        }
    }
}
