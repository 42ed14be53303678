//! What a process was doing when it was struck: the trace that it writes, and counts of strikes by phase.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use highwater::env::Phase;

/// When to strike.
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

    /// Whether every process comes there, and not only the leader.
    pub fn is_everywhere(self) -> bool {
        matches!(self, Target::Phase(Phase::Encoding | Phase::Uploading | Phase::Recovering))
    }
}

/// The whole lines of the trace that a process wrote: the phases under way after every change.
pub struct Trace(Vec<String>);

impl Trace {
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        // A kill may leave half a line.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        Trace(whole.lines().map(str::to_owned).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the process is where it is to be struck: in its `turn`-th of these phases.
    pub fn is_at(&self, target: Target, turn: usize) -> bool {
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

    /// Whether the attempt is past its recovery: whoever ran before it is fenced.
    pub fn has_recovered(&self) -> bool {
        let recovered = |two: &[String]| {
            two[0].contains(Phase::Recovering.name()) && !two[1].contains(Phase::Recovering.name())
        };
        self.0.windows(2).any(recovered)
    }
}

/// How many strikes fell in which phases; several can be under way at once.
#[derive(Default)]
pub struct Strikes {
    total: usize,
    running: usize,
    /// Before the process was in any phase.
    starting: usize,
    phases: BTreeMap<Phase, usize>,
}

impl Strikes {
    pub fn total(&self) -> usize {
        self.total
    }

    /// Counts one strike, by what the trace says.
    pub fn count(&mut self, struck_in: &Trace) {
        self.total += 1;
        match struck_in.0.last() {
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

    /// How many strikes the least hit phase has.
    pub fn least(&self) -> usize {
        Phase::ALL.map(|phase| self.of(phase)).into_iter().min().unwrap_or(0).min(self.running)
    }

    /// What was hit least.
    pub fn rarest(&self) -> Target {
        let phase = Phase::ALL.into_iter().min_by_key(|phase| self.of(*phase));
        phase.filter(|phase| self.of(*phase) <= self.running).map_or(Target::Running, Target::Phase)
    }
}

impl fmt::Display for Strikes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} running={}", self.total, self.running)?;
        for phase in Phase::ALL {
            write!(f, " {}={}", phase.name(), self.of(phase))?;
        }
        write!(f, " starting={}", self.starting)
    }
}
