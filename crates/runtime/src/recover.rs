//! The start of an attempt: take a number in the log, choose a base, read it.
//!
//! # Invariant
//!
//! 4. (of the log's) Recovery never goes behind an entry whose output may be visible; the decision is
//!    [`highwater_log::next_base`], this module only brings it facts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use highwater_env::{Env, Phase};
use highwater_log::{
    Base, CheckpointEntry, Facts, Log, LogError, ObjectRef, OperatorEntry, Started,
};
use highwater_state::object::Object;
use highwater_state::{Image, KeyGroups};

use crate::attempt::Attempt;
use crate::cluster::Welcome;
use crate::connector::{Delivery, SplitOffset};
use crate::dataflow::read_splits;
use crate::graph;
use crate::plan::{Checked, Role};
use crate::{Error, Settings};

/// An attempt whose checkpoint is due for so long looks whether another has taken over, and so often.
const WATCH: Duration = Duration::from_secs(5);

/// So many objects are read at once.
const READS: usize = 8;

/// What an attempt starts from.
pub(crate) struct Recovered {
    pub(crate) log: Arc<Log>,
    pub(crate) attempt: u64,
    pub(crate) job_id: String,
    /// The log up to the attempt's own entry; empty if checkpoints are off.
    pub(crate) facts: Facts,
    pub(crate) base: Option<(u64, CheckpointEntry)>,
    /// The job's operators and states, with the schemas that the base has for them; empty if checkpoints are off.
    pub(crate) graph: Vec<OperatorEntry>,
    pub(crate) progress: Progress,
    pub(crate) key_groups: KeyGroups,
    /// The objects of the base, in the order of the image's.
    pub(crate) objects: Vec<ObjectRef>,
    pub(crate) image: Image,
    /// The splits of each source, on the process that looked for them.
    pub(crate) splits: BTreeMap<String, SplitsAtStart>,
}

/// The splits of a source when an attempt starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct SplitsAtStart {
    /// Those that the base knows, with how far they were read.
    pub(crate) known: Vec<(String, SplitOffset)>,
    /// The others, with where they begin.
    pub(crate) new: Vec<(String, SplitOffset)>,
}

impl SplitsAtStart {
    /// What is left to be read, sorted.
    pub(crate) fn to_read(&self) -> Vec<(String, SplitOffset)> {
        let all = self.known.iter().chain(&self.new);
        let mut to_read: Vec<_> = all.filter(|(_, offset)| !offset.ended).cloned().collect();
        to_read.sort_by(|a, b| a.0.cmp(&b.0));
        to_read
    }
}

/// How far the base had come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) interval: u32,
    pub(crate) clock_ms: u64,
    pub(crate) trigger: u64,
}

impl Progress {
    fn of(checkpoint: &CheckpointEntry) -> Result<Self, Error> {
        let CheckpointEntry { interval, clock_ms, trigger, .. } = *checkpoint;
        let interval = u32::try_from(interval).map_err(|_| Error::Refused {
            why: format!("the checkpoint has the interval {interval}"),
            what_to_do: "no job comes that far; start over with --fresh".to_owned(),
        })?;
        Ok(Progress { interval, clock_ms, trigger })
    }
}

impl Recovered {
    /// The first interval of this attempt.
    pub(crate) fn first_interval(&self) -> u32 {
        self.progress.interval + 1
    }

    /// The start of a job that keeps nothing.
    pub(crate) fn without_checkpoints(log: Log, settings: &Settings) -> Self {
        Recovered {
            log: Arc::new(log),
            attempt: 0,
            job_id: String::new(),
            facts: Facts::default(),
            base: None,
            graph: Vec::new(),
            progress: Progress::default(),
            key_groups: KeyGroups::new(settings.key_groups),
            objects: Vec::new(),
            image: Image::default(),
            splits: BTreeMap::new(),
        }
    }
}

/// What a process starts from that another one has chosen a base for.
pub(crate) async fn follow(
    log: Log,
    welcome: Welcome,
    settings: Settings,
    env: Arc<dyn Env>,
) -> Result<Recovered, Error> {
    let _phase = highwater_env::enter(&env, Phase::Recovering);
    let mut recovered = Recovered::without_checkpoints(log, &settings);
    recovered.attempt = welcome.attempt;
    recovered.job_id = welcome.job_id;
    if let Some((_, checkpoint)) = &welcome.base {
        (recovered.objects, recovered.image) = match load(&recovered.log, checkpoint).await {
            Err(error) => {
                return Err(or_fenced(&recovered.log, welcome.attempt, error.into()).await);
            }
            Ok(loaded) => loaded,
        };
        recovered.progress = Progress::of(checkpoint)?;
        recovered.key_groups = KeyGroups::new(checkpoint.configuration.key_groups.max(1));
    }
    recovered.base = welcome.base;
    Ok(recovered)
}

/// Takes a number in the log and reads the state of the newest checkpoint that can be recovered to.
pub(crate) async fn recover(
    log: Log,
    plan: Checked,
    settings: Settings,
    env: Arc<dyn Env>,
) -> Result<Recovered, Error> {
    let _phase = highwater_env::enter(&env, Phase::Recovering);
    let workers = u32::try_from(settings.all_workers()).unwrap_or(u32::MAX);
    let log = Arc::new(log);
    let started = log.start(workers, settings.fresh).await?;
    let attempt = started.attempt;
    let graph = graph::of(&plan, KeyGroups::new(settings.key_groups), &env);
    match choose(log.clone(), started, plan, settings, graph).await {
        Err(error) => Err(or_fenced(&log, attempt, error).await),
        recovered => recovered,
    }
}

/// What really ended an attempt that came upon `error`: once another has taken over it may delete what this one wants to read, and
/// that is no damage.
pub(crate) async fn or_fenced(log: &Log, attempt: u64, error: Error) -> Error {
    let may_be = match &error {
        Error::Log(error) => !matches!(error, LogError::Unavailable { .. }),
        Error::Refused { .. } | Error::Operator { .. } | Error::State { .. } => true,
        _ => false,
    };
    if !may_be {
        return error;
    }
    match log.taken_over(attempt).await {
        Ok(Some(by)) => {
            tracing::info!(%error, by, "another attempt has taken over");
            Error::Fenced(format!("{by} has taken over"))
        }
        Ok(None) => error,
        // Whether it is damage can't be said now, and nobody should act as if it were.
        Err(unknown) => {
            tracing::warn!(%error, "whether another attempt has taken over isn't known");
            Error::Log(unknown)
        }
    }
}

/// Ends an attempt that another one has taken over from, while it can't commit and so doesn't find out by itself.
pub(crate) async fn watch_for_successor(log: Arc<Log>, attempt: Arc<Attempt>) {
    while !attempt.is_over() {
        attempt.env.sleep(WATCH).await;
        if attempt.is_overdue(attempt.env.monotonic(), WATCH)
            && let Ok(Some(by)) = log.taken_over(attempt.number).await
        {
            attempt.fail(Error::Fenced(format!("{by} has taken over")));
        }
    }
}

async fn choose(
    log: Arc<Log>,
    started: Started,
    plan: Checked,
    settings: Settings,
    mut graph: Vec<OperatorEntry>,
) -> Result<Recovered, Error> {
    let Started { attempt, job_id, facts } = started;
    let exactly_once = plan.nodes().iter().any(|node| match &node.role {
        Role::Sink(sink) => sink.delivery() == Delivery::ExactlyOnce,
        _ => false,
    });
    let mut broken: BTreeMap<u64, String> = BTreeMap::new();
    loop {
        let number = match highwater_log::next_base(&facts, attempt, &broken, exactly_once) {
            Base::Refuse { why, what_to_do } => return Err(Error::Refused { why, what_to_do }),
            Base::Fresh => None,
            Base::Checkpoint(number) => Some(number),
        };
        let Some(number) = number else {
            let key_groups = KeyGroups::new(settings.key_groups);
            return Ok(Recovered {
                log,
                attempt,
                job_id,
                facts,
                base: None,
                graph,
                progress: Progress::default(),
                key_groups,
                objects: Vec::new(),
                image: Image::default(),
                splits: BTreeMap::new(),
            });
        };
        let checkpoint =
            facts.checkpoint(number).expect("a base is a checkpoint among the facts").clone();
        graph::check_fits(number, &checkpoint, &graph)?;
        let loaded = load(&log, &checkpoint).await;
        let (objects, image) = match loaded {
            Ok(loaded) => loaded,
            Err(error @ (LogError::Damaged(_) | LogError::Conflict { .. })) => {
                tracing::warn!(checkpoint = number, %error, "a checkpoint is damaged");
                broken.insert(number, error.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let progress = Progress::of(&checkpoint)?;
        graph::carry_schemas(&mut graph, &checkpoint);
        return Ok(Recovered {
            log,
            attempt,
            job_id,
            facts,
            graph,
            progress,
            key_groups: KeyGroups::new(checkpoint.configuration.key_groups.max(1)),
            base: Some((number, checkpoint)),
            objects,
            image,
            splits: BTreeMap::new(),
        });
    }
}

/// Reads every object of a checkpoint, each verified by its checksum.
async fn load(
    log: &Log,
    checkpoint: &CheckpointEntry,
) -> Result<(Vec<ObjectRef>, Image), LogError> {
    let manifest = log.get_manifest(&checkpoint.manifest).await?;
    let names = manifest.objects.clone();
    let reads = stream::iter(names).map(|object| read(log, object)).buffered(READS);
    let objects: Vec<Object> = reads.try_collect().await?;
    Ok((manifest.objects, Image::new(objects)))
}

async fn read(log: &Log, object: ObjectRef) -> Result<Object, LogError> {
    let bytes: Bytes = log.get_object(&object).await?;
    Object::open(&object.name, bytes).map_err(|error| {
        LogError::Damaged(highwater_log::Damage {
            path: object.name.clone(),
            why: highwater_log::Why::Malformed(error.to_string()),
            kind: None,
        })
    })
}

/// Asks every source for its splits, and where each begins.
pub(crate) fn find_splits(plan: &Checked, recovered: &mut Recovered) -> Result<(), Error> {
    for (id, node) in plan.nodes().iter().enumerate() {
        let Role::Source(source, _) = &node.role else { continue };
        let uid = plan.uid(id);
        let known = read_splits(uid, &recovered.image, recovered.key_groups)
            .map_err(|source| Error::State { uid: uid.to_owned(), source })?;
        let found = source.splits(&known).map_err(|source| Error::Operator {
            kind: "source",
            uid: uid.to_owned(),
            source,
        })?;
        let mut new: BTreeMap<String, SplitOffset> = found.into_iter().collect();
        known.iter().for_each(|(split, _)| {
            new.remove(split);
        });
        let new = new.into_iter().collect();
        recovered.splits.insert(uid.to_owned(), SplitsAtStart { known, new });
    }
    Ok(())
}
