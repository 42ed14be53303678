//! Starts the job, waits until one of its processes is in some phase, kills or pauses that one, and sees in which phase it was struck.
//!
//! A paused process is a zombie of the next attempt: it wakes up when that one has recovered, and must end without any effect. One that
//! was paused before it had taken its number in the log is a late starter instead, which may take over: it wakes up when the next
//! attempt is struck, and is killed in turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use highwater::env::Phase;

use crate::input::Numbers;
use crate::job;
use crate::members::{self, Process, Start};
use crate::trace::{Target, Trace};

/// A phase that is to be hit lasts so long, in milliseconds.
const STRETCH_MS: u64 = 15;

/// A worker reads so many rows in an attempt.
const QUOTA: u64 = 120;

/// If what was waited for hasn't come after so long, the process is struck wherever it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// A late starter has so long to begin; one of several processes waits for the others.
const LATE: Duration = Duration::from_millis(500);

/// The last run may take so long on a slow machine.
const LAST_RUN: Duration = Duration::from_secs(120);

/// The trace is looked at so often.
const LOOK: Duration = Duration::from_micros(500);

/// There are one, two or three processes, in turn.
const PROCESSES: u64 = 3;

/// Of all processes of an attempt: up to two in each.
pub const WORKERS_MAX: usize = 2 * PROCESSES as usize;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blow {
    Kill,
    Pause,
}

/// Attempts of one job, one after the other.
pub struct Rounds {
    folder: PathBuf,
    numbers: Numbers,
    attempt: u64,
    zombies: Vec<Process>,
    late: Vec<Process>,
    /// How long the others took to notice a kill and a pause, in milliseconds.
    noticed_ms: [Vec<u64>; 2],
}

impl Rounds {
    pub fn new(folder: &Path) -> Self {
        // Where exactly a blow falls can't be repeated anyway.
        let seed = u64::from(std::process::id()) << 20 | 1;
        let numbers = Numbers(seed);
        let noticed_ms = [Vec::new(), Vec::new()];
        let (zombies, late) = (Vec::new(), Vec::new());
        Rounds { folder: folder.to_owned(), numbers, attempt: 0, zombies, late, noticed_ms }
    }

    /// What processes wrote that were alone and killed, or ended well; and what all others wrote.
    fn logs(&self) -> [PathBuf; 2] {
        ["stderr-alone", "stderr"].map(|name| self.folder.join(name))
    }

    /// What all processes so far said.
    pub fn said(&self) -> String {
        self.logs().map(|log| fs::read_to_string(log).unwrap_or_default()).concat()
    }

    /// Whatever a process thought worth a warning that had no reason for any: a kill is none to the next attempt.
    pub fn warnings(&self) -> Vec<String> {
        let said = fs::read_to_string(&self.logs()[0]).unwrap_or_default();
        let bad =
            |line: &&str| ["WARN", "ERROR", "panicked"].iter().any(|word| line.contains(word));
        said.lines().filter(bad).map(str::to_owned).collect()
    }

    /// How long it took to notice that a process was gone, and that one was silent: the median, and the longest time.
    pub fn noticed(&mut self) -> String {
        let [killed, paused] = &mut self.noticed_ms;
        let of = |times: &mut Vec<u64>| {
            times.sort_unstable();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            format!("{median}/{}", times.last().copied().unwrap_or_default())
        };
        format!("noticed_ms killed={} paused={} (median/longest)", of(killed), of(paused))
    }

    fn start(&mut self, blow: Option<Blow>, limits: &[(&'static str, String)]) -> Vec<Process> {
        self.attempt += 1;
        let processes = 1 + (self.attempt % PROCESSES) as usize;
        // One worker in each for three attempts, two in each for three, ...
        let workers = 1 + (self.attempt / PROCESSES % 2) as usize;
        let [alone, others] = self.logs();
        let log = if processes == 1 && blow != Some(Blow::Pause) { alone } else { others };
        members::start(&Start { folder: &self.folder, log: &log, processes, workers, limits })
    }

    /// Starts the job, and strikes one of its processes there.
    pub fn strike(&mut self, blow: Blow, target: Target) -> Trace {
        let mut limits = vec![(job::QUOTA_VARIABLE, QUOTA.to_string())];
        if let Target::Phase(phase) = target {
            limits
                .push((highwater_env::STRETCH_VARIABLE, format!("{}={STRETCH_MS}", phase.name())));
        }
        let turn = match target {
            Target::Phase(Phase::Recovering) => 1,
            Target::Phase(_) | Target::Running => 1 + self.numbers.below(3) as usize,
            Target::Any => self.numbers.below(8) as usize,
        };
        let into = Duration::from_micros(self.numbers.below(STRETCH_MS * 1_000));
        let mut members = self.start(Some(blow), &limits);
        let victim = match target.is_everywhere() {
            true => self.numbers.below(members.len() as u64) as usize,
            false => 0,
        };
        let deadline = Instant::now() + PATIENCE;
        let mut reached = None;
        let mut awake = false;
        loop {
            let now = Instant::now();
            if reached.is_none() && members[victim].trace().is_at(target, turn) {
                reached = Some(now);
            }
            // A stretched phase is hit anywhere; what passes at once, at once.
            let wait = if let Target::Phase(_) = target { into } else { Duration::ZERO };
            if reached.is_some_and(|reached| now >= reached + wait) || now > deadline {
                break;
            }
            if !awake && !self.zombies.is_empty() && members[0].trace().has_recovered() {
                self.zombies.iter().for_each(Process::wake);
                awake = true;
            }
            for (number, member) in members.iter_mut().enumerate() {
                if let Some(status) = member.ended() {
                    panic!(
                        "process {number} of the job ended by itself, {status}, before {target:?}\n{}",
                        self.said()
                    );
                }
            }
            std::thread::park_timeout(LOOK);
        }
        let mut victim = members.remove(victim);
        match blow {
            Blow::Kill => {
                let status = victim.kill();
                // Anything else means that it came to an end of its own in the last moment.
                assert!(killed(status), "{status}\n{}", self.said());
            }
            Blow::Pause => victim.pause(),
        }
        let struck = Instant::now();
        let said = || self.said();
        // Those that were still waiting for process 0 may wait on: nothing has begun for them.
        let (mut begun, waiting): (Vec<Process>, Vec<Process>) =
            members.into_iter().partition(|other| !other.trace().is_empty());
        drop(waiting);
        begun.iter_mut().for_each(|other| other.must_fail("a process was struck", said));
        if !begun.is_empty() {
            let noticed = struck.elapsed().as_millis() as u64;
            self.noticed_ms[usize::from(blow == Blow::Pause)].push(noticed);
        }
        if awake {
            self.bury();
        }
        self.late_start();
        let trace = victim.trace();
        if blow == Blow::Pause {
            let zombies = if trace.has_recovered() { &mut self.zombies } else { &mut self.late };
            zombies.push(victim);
        }
        assert_eq!(self.warnings(), Vec::<String>::new());
        trace
    }

    /// Whether a paused process is still to be woken.
    pub fn has_zombies(&self) -> bool {
        !self.zombies.is_empty()
    }

    /// All zombies, which are awake, come to their ends.
    fn bury(&mut self) {
        let mut zombies = std::mem::take(&mut self.zombies);
        let said = || self.said();
        zombies.iter_mut().for_each(|zombie| zombie.must_fail("it was replaced", said));
    }

    /// Wakes those that had not begun when they were paused, and kills them when they have, or wait for others.
    fn late_start(&mut self) {
        for mut late in std::mem::take(&mut self.late) {
            late.wake();
            let deadline = Instant::now() + LATE;
            while late.ended().is_none()
                && !late.trace().has_recovered()
                && Instant::now() < deadline
            {
                std::thread::park_timeout(LOOK);
            }
            late.kill();
        }
    }

    /// Starts the job, and leaves it alone.
    pub fn run_to_end(&mut self) -> Vec<ExitStatus> {
        let mut members = self.start(None, &[]);
        let deadline = Instant::now() + LAST_RUN;
        loop {
            let ended: Vec<_> = members.iter_mut().map(Process::ended).collect();
            if let Some(statuses) = ended.into_iter().collect::<Option<Vec<_>>>() {
                return statuses;
            }
            assert!(Instant::now() < deadline, "the last run doesn't end\n{}", self.said());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// By SIGKILL.
fn killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}
