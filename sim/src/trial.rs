//! One trial: a job, a list of faults, and the verdict.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use highwater::testing;
use highwater_runtime::connector::Delivery;
use highwater_runtime::{Settings, Trigger};
use highwater_world::{Counts, Fault, Media, Mix, Moment, Random, Run, Scenario, World};

use crate::graph::Graph;
use crate::job::Tables;
use crate::op::Op;
use crate::source::{Found, splits};
use crate::{check, job, replay, state};

/// What is looked at, if so many splits of each source were there.
type Check<'c> = &'c dyn Fn(&dyn Fn(usize) -> u32) -> Result<(), String>;

/// Jobs of one process must not share a name: see [`Scenario::name`].
static JOBS: AtomicU64 = AtomicU64::new(0);

/// Every so many seeds the job goes on once more from each retained checkpoint.
const REPLAYED: u64 = 4;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Decides everything that isn't said here.
    pub seed: u64,
    /// The job.
    pub graph: Graph,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Checkpoints are kept on a disk of this machine.
    pub disk: bool,
    /// How the n-th attempt runs, by the seed.
    pub settings: fn(u64, usize) -> Settings,
    /// What happens is written down.
    pub record: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Verdict {
    /// What must not have happened, if anything.
    pub violation: Option<String>,
    /// What the run went through.
    pub counts: Counts,
    /// Where processes died.
    pub deaths: Vec<Moment>,
    /// When the job was done, behind which nothing went wrong any more.
    pub done: Moment,
    /// How many attempts there were.
    pub attempts: usize,
    /// A hash of everything that happened.
    pub trace_hash: u64,
    /// What happened, if it was written down.
    pub trace: Vec<String>,
    /// The job refused to go on, because a bit had flipped.
    pub refused: bool,
}

impl Trial {
    /// A random job and random faults.
    pub fn draw(seed: u64, mix: &Mix) -> Self {
        let graph = Graph::draw(seed, 8);
        let mut random = Random::new(seed, "trial");
        let disk = random.chance(400);
        let mut mix = *mix;
        if random.chance(50) {
            mix = Mix::NONE;
        } else if random.chance(150) {
            mix.bit_flips *= 2;
        } else {
            // What nobody can recover from isn't asked of every job.
            mix.bit_flips = 0;
        }
        let steps = 200 + 60 * graph.nodes.len() as u64;
        let faults = mix.draw(&mut random, steps);
        Trial { seed, graph, faults, disk, settings: drawn, record: false }
    }

    /// Runs it.
    pub fn run(&self) -> Verdict {
        let Trial { seed, graph, faults, disk, settings, record } = self.clone();
        let tables = job::tables(&graph);
        let attempts = Arc::new(AtomicUsize::new(0));
        // The attempt that came to the end may have found the splits that show up late, or not.
        let either = |check: Check<'_>| {
            check(&splits(&graph, true)).or_else(|found| {
                check(&splits(&graph, false)).map_err(|other| match other == found {
                    true => found,
                    false => format!("{found}; or, without late splits: {other}"),
                })
            })
        };
        let name = format!("sim-{:012}", JOBS.fetch_add(1, Ordering::Relaxed));
        // What stands must be whole whenever an attempt starts, too. A bit may have flipped; and what was deleted may be back after
        // a loss of power, which nobody minds, since somebody had listed it as garbage.
        let standing: OnceCell<String> = OnceCell::new();
        let look = |world: &World| {
            let counts = world.counts();
            if counts.bit_flips + counts.power_losses == 0
                && let Err(found) = check::standing(world, &name)
            {
                standing.get_or_init(|| found);
            }
        };
        // Whoever says that a job is done has published everything. Which splits that was is looked at below.
        let unpublished: OnceCell<String> = OnceCell::new();
        let done = || {
            if let Err(found) = either(&|splits| check::output(&graph, &tables, splits)) {
                unpublished.get_or_init(|| format!("the job isn't done: {found}"));
            }
        };
        let run = highwater_world::run(Scenario {
            seed,
            faults,
            media: if disk { Media::disk(seed) } else { Media::remote() },
            step_limit: 400_000,
            record,
            name: name.clone(),
            plan: &|world| {
                attempts.fetch_add(1, Ordering::Relaxed);
                look(world);
                let (found, promise) = (Found::after(&attempts), Delivery::ExactlyOnce);
                testing::plan(|job| job::build(&graph, job, world, &tables, &found, promise))
            },
            settings: &|attempt| settings(seed, attempt),
            done: &done,
        });
        let whole = run.counts.bit_flips == 0;
        let violation = match (&run.violation, &run.outcome) {
            (Some(violation), _) => Some(violation.to_string()),
            _ if standing.get().is_some() => standing.get().cloned(),
            _ if unpublished.get().is_some() => unpublished.get().cloned(),
            (None, Some(_)) => either(&|splits| {
                check::output(&graph, &tables, splits)?;
                if whole { state::check(&graph, &run, &name, splits) } else { Ok(()) }
            })
            .and_then(|()| check::visible(&graph, &tables, &splits(&graph, true)))
            .and_then(|()| if whole { check::store(&run, &name) } else { Ok(()) })
            .and_then(|()| match seed.is_multiple_of(REPLAYED) && whole {
                true => self.replay(&run, &name, &tables),
                false => Ok(()),
            })
            .err(),
            (None, None) => check::visible(&graph, &tables, &splits(&graph, true)).err(),
        };
        let Run { world, counts, attempts, outcome, .. } = run;
        Verdict {
            violation,
            counts,
            deaths: world.deaths(),
            done: world.done(),
            attempts: attempts.len(),
            trace_hash: world.trace_hash(),
            trace: world.trace(),
            refused: outcome.is_none(),
        }
    }
}

impl Trial {
    /// Goes on from every checkpoint that is still there.
    fn replay(&self, run: &Run, name: &str, tables: &Tables) -> Result<(), String> {
        // Splits that show up late may not have been found by the run.
        if self.graph.nodes.iter().any(|node| matches!(node.op, Op::Read { late: 1.., .. })) {
            return Ok(());
        }
        let settings = |attempt| Settings {
            trigger: Duration::ZERO.into(),
            ..(self.settings)(self.seed ^ 1, attempt)
        };
        replay::from_every_checkpoint(&self.graph, run, name, tables, true, &settings)
    }
}

/// How an attempt runs: fast, so that much happens in few steps, and each time otherwise.
pub fn drawn(seed: u64, attempt: usize) -> Settings {
    let mut random = Random::new(seed ^ ((attempt as u64) << 40), "settings");
    let of_job = Random::new(seed, "settings of all attempts").next();
    // Some jobs read what is there, a few times, now and then with an attempt in between that reads on, and then all the rest.
    let drains = (of_job >> 16).is_multiple_of(4) && attempt < 8 && random.chance(750);
    let trigger = match drains {
        true => Trigger::AvailableNow { rows: random.within(1..=40) },
        false => Duration::from_micros(random.below(20_000)).into(),
    };
    let processes = *random.pick(&[1, 1, 1, 1, 1, 2, 2, 3]);
    let workers = match processes {
        1 => *random.pick(&[1, 2, 2, 2, 3, 3, 4]),
        _ => *random.pick(&[1, 1, 2]),
    };
    Settings {
        processes,
        workers,
        epoch: Duration::from_micros(random.within(200..=5_000)),
        trigger,
        checkpoint_interval: Some(Duration::from_micros(random.within(1_000..=20_000))),
        in_flight_bytes: if random.chance(200) { 256 } else { 32 << 20 },
        batch_rows: 4096,
        key_groups: [1, 4, 16, 256][(of_job % 4) as usize],
        retained: 1 + (of_job >> 8) as usize % 3,
        unpublished: if random.chance(400) { 1 } else { 30 },
        uncommitted: Duration::from_millis(if random.chance(200) { 100 } else { 60_000 }),
        fresh: false,
        begun: attempt > 0,
        care: Default::default(),
        exchange_bytes: true,
    }
}
