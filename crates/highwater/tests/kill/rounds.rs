//! Starts the job, waits until it is in some phase, kills it, and sees in which phase it died.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use highwater::env::Phase;

use crate::input::Numbers;
use crate::job;

/// A phase that is to be hit lasts so long, in milliseconds.
const STRETCH_MS: u64 = 15;

/// A worker reads so many rows in an attempt.
const QUOTA: u64 = 400;

/// If what was waited for hasn't come after so long, the process is killed wherever it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last run may take so long on a slow machine.
const LAST_RUN: Duration = Duration::from_secs(120);

/// The trace is looked at so often.
const LOOK: Duration = Duration::from_micros(500);

/// When to kill.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Phase(Phase),
    /// In no phase, after at least one whole checkpoint.
    Running,
    /// After some random number of changes of phase.
    Any,
}

impl Target {
    pub const ALL: [Target; 8] = [
        Target::Running,
        Target::Phase(Phase::Recovering),
        Target::Phase(Phase::Encoding),
        Target::Phase(Phase::Uploading),
        Target::Any,
        Target::Phase(Phase::Committed),
        Target::Phase(Phase::Publishing),
        Target::Phase(Phase::Collecting),
    ];
}

/// How many kills fell in which phases; several can be under way at once.
#[derive(Default)]
pub struct Kills {
    total: usize,
    running: usize,
    /// Before the process was in any phase.
    starting: usize,
    phases: BTreeMap<Phase, usize>,
}

impl Kills {
    pub fn total(&self) -> usize {
        self.total
    }

    /// Counts one kill, by what the trace says.
    pub fn count(&mut self, died_in: &Trace) {
        self.total += 1;
        match died_in.0.last() {
            None => self.starting += 1,
            Some(line) if line.is_empty() => self.running += 1,
            Some(line) => {
                for phase in Phase::ALL {
                    let hit = line.split('+').any(|name| name == phase.name());
                    *self.phases.entry(phase).or_default() += usize::from(hit);
                }
            }
        }
    }

    fn of(&self, phase: Phase) -> usize {
        self.phases.get(&phase).copied().unwrap_or(0)
    }

    /// How many kills the least hit phase has.
    pub fn least(&self) -> usize {
        Phase::ALL.map(|phase| self.of(phase)).into_iter().min().unwrap_or(0).min(self.running)
    }

    /// What was hit least.
    pub fn rarest(&self) -> Target {
        let phase = Phase::ALL.into_iter().min_by_key(|phase| self.of(*phase));
        phase.filter(|phase| self.of(*phase) <= self.running).map_or(Target::Running, Target::Phase)
    }
}

impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kills={} running={}", self.total, self.running)?;
        for phase in Phase::ALL {
            write!(f, " {}={}", phase.name(), self.of(phase))?;
        }
        write!(f, " starting={}", self.starting)
    }
}

/// The whole lines of the trace that a process wrote: the phases under way after every change.
pub struct Trace(Vec<String>);

impl Trace {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        // A kill may leave half a line.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        Trace(whole.lines().map(str::to_owned).collect())
    }

    /// Whether the process is where it is to be killed: in its `turn`-th of these phases.
    fn is_at(&self, target: Target, turn: usize) -> bool {
        let Some(last) = self.0.last() else { return false };
        match target {
            Target::Any => self.0.len() >= turn * 7,
            Target::Running => {
                let collecting = |line: &&String| line.contains(Phase::Collecting.name());
                last.is_empty() && self.0.iter().filter(collecting).count() >= turn
            }
            Target::Phase(phase) => {
                let is_in = |line: &String| line.split('+').any(|name| name == phase.name());
                let entered = self.0.windows(2).filter(|two| !is_in(&two[0]) && is_in(&two[1]));
                let first = usize::from(self.0.first().is_some_and(is_in));
                is_in(last) && entered.count() + first >= turn
            }
        }
    }
}

/// Processes of one job, one after the other.
pub struct Rounds {
    folder: PathBuf,
    numbers: Numbers,
    attempt: u64,
}

impl Rounds {
    pub fn new(folder: &Path) -> Self {
        // Where exactly a kill falls can't be repeated anyway.
        let seed = u64::from(std::process::id()) << 20 | 1;
        Rounds { folder: folder.to_owned(), numbers: Numbers(seed), attempt: 0 }
    }

    fn trace(&self) -> PathBuf {
        self.folder.join("trace")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("stderr")
    }

    /// What all processes so far said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Whatever a process thought worth a warning. Kills are no reason for any.
    pub fn warnings(&self) -> Vec<String> {
        let said = self.said();
        let bad =
            |line: &&str| ["WARN", "ERROR", "panicked"].iter().any(|word| line.contains(word));
        said.lines().filter(bad).map(str::to_owned).collect()
    }

    fn start(&mut self, limits: &[(&str, String)]) -> Process {
        fs::remove_file(self.trace()).ok();
        self.attempt += 1;
        // One, two, one, two, ...
        let workers = 1 + self.attempt % 2;
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "job_process", "--nocapture", "--test-threads=1"])
            .env(job::FOLDER_VARIABLE, &self.folder)
            .env(job::WORKERS_VARIABLE, workers.to_string())
            .env(highwater_env::TRACE_VARIABLE, self.trace())
            .env("NO_COLOR", "1")
            .envs(limits.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Process(child)
    }

    /// Starts the job, and kills it there.
    pub fn kill(&mut self, target: Target) -> Trace {
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
        let mut process = self.start(&limits);
        let deadline = Instant::now() + PATIENCE;
        let mut reached = None;
        loop {
            let now = Instant::now();
            if reached.is_none() && Trace::read(&self.trace()).is_at(target, turn) {
                reached = Some(now);
            }
            // A stretched phase is hit anywhere; what passes at once, at once.
            let wait = if let Target::Phase(_) = target { into } else { Duration::ZERO };
            if reached.is_some_and(|reached| now >= reached + wait) || now > deadline {
                break;
            }
            if let Some(status) = process.0.try_wait().unwrap() {
                panic!(
                    "the job ended by itself, {status}, before it was killed at {target:?}\n{}",
                    self.said()
                );
            }
            std::thread::park_timeout(LOOK);
        }
        process.0.kill().unwrap();
        let status = process.0.wait().unwrap();
        // SIGKILL; anything else means that it came to an end of its own in the last moment.
        assert_eq!(status.signal(), Some(9), "{status}\n{}", self.said());
        assert_eq!(self.warnings(), Vec::<String>::new());
        Trace::read(&self.trace())
    }

    /// Starts the job, and leaves it alone.
    pub fn run_to_end(&mut self) -> ExitStatus {
        let mut process = self.start(&[]);
        let deadline = Instant::now() + LAST_RUN;
        loop {
            if let Some(status) = process.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the last run doesn't end\n{}", self.said());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// A process that doesn't outlive a test that fails.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
