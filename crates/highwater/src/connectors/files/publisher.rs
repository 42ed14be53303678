//! Files as a sink, once a job: staged files become parts.
//!
//! ```text
//!  plan: which staged files make a part ─▶ the entry ─▶ publish: one file:  link(staged, part), remove staged
//!                                                                several: join, link(joined, part), remove all
//! ```
//!
//! # Invariants
//!
//! - 3\. Parts come from committed items only; `publish` is called with nothing else.
//! - 4\. Every step may be repeated: a part's name and content follow from the items; a part that exists is done; staged
//!   files go only after their part is durable.
//! - What becomes visible is what was written: a staged file is held against the checksum in its item first.
//! - A part is never overwritten: where something has its name, that is the same, or publishing fails.
//! - Staged files of earlier attempts are removed as leftovers only after something of this attempt was published: checkpoints are
//!   published in order, so that nothing of an earlier attempt is waited for any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater_env::{BoxFuture, Env};
use highwater_log::StagedItem;
use highwater_runtime::BoxError;
use highwater_runtime::connector::{Away, Lasting, Publisher, PublisherContext, on_thread};
use xxhash_rust::xxh3::xxh3_64;

use super::discover::cannot;
use super::layout::{Owner, Staged, joined_name, staged_name};
use super::partition;
use super::place::{self, OTHER_CONTENT, Place};
use crate::connectors::records::format::FileFormat;

/// So many staged files wait for others at the most. Every entry of the log lists them: without a bound the log would grow with the square of
/// the time that they wait.
const HELD_MAX: usize = 256;

/// A place that hasn't answered anything for so long at a start isn't tried again by it: perhaps there is none.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// When the sink begins a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roll {
    /// At this size.
    pub(crate) bytes: u64,
    /// When its first row is this old; zero: with every checkpoint.
    pub(crate) age: Duration,
}

impl Default for Roll {
    fn default() -> Self {
        Roll { bytes: 128 << 20, age: Duration::ZERO }
    }
}

/// Publishes what the writers of a file sink have staged.
pub(crate) struct FilePublisher<F> {
    place: Arc<dyn Place>,
    format: F,
    roll: Roll,
    me: Owner,
    attempt: u64,
    starts_over: bool,
    covered: Option<u32>,
    begun: bool,
    /// It was said that parts are closed before their age.
    said_early: AtomicBool,
    env: Arc<dyn Env>,
}

impl<F: FileFormat> FilePublisher<F> {
    pub(crate) fn new(
        path: &Path,
        format: F,
        roll: Roll,
        context: PublisherContext,
    ) -> Result<Self, BoxError> {
        let PublisherContext {
            uid, job, job_id, attempt, starts_over, covered, begun, env, ..
        } = context;
        let (place, me) = (place::open(path, &env)?, Owner::new(&job, &job_id, &uid));
        Ok(FilePublisher {
            place,
            format,
            roll,
            me,
            attempt,
            starts_over,
            covered,
            begun,
            said_early: AtomicBool::new(false),
            env,
        })
    }
}

impl<F: FileFormat> Publisher for FilePublisher<F> {
    fn prepare(&self) -> BoxFuture<Result<(), BoxError>> {
        let (place, me, env) = (self.place.clone(), self.me.clone(), self.env.clone());
        let (starts_over, covered, attempt) = (self.starts_over, self.covered, self.attempt);
        let begun = self.begun;
        let prepare = move || {
            if begun {
                place.check_there()?;
            }
            place.claim(&me)?;
            if let Some(covered) = covered {
                place.check_covered(attempt, covered)?;
            }
            if starts_over { place.clear(attempt) } else { Ok(()) }
        };
        let mut delays = self.place.retry().delays(env.as_ref());
        let work = {
            let env = env.clone();
            move || {
                let began = env.monotonic();
                loop {
                    let error = match prepare() {
                        Err(error) if error.is::<Away>() => error,
                        done => return done,
                    };
                    match delays.next() {
                        Some(delay) if env.monotonic() - began < FIRST_ANSWER => {
                            env.block_on(env.sleep(delay));
                        }
                        _ => return Err(error),
                    }
                }
            }
        };
        let done = on_thread(env.as_ref(), "claim-folder", work);
        Box::pin(async move { done.await? })
    }

    fn plan(&self, items: &mut [StagedItem], clock_ms: u64, last: bool) {
        let early = plan(items, self.roll, F::EXTENSION, clock_ms, last);
        if early && !self.said_early.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "highwater::sink",
                "sink `{}`: more than {HELD_MAX} staged files would wait for `roll_age` ({:.0} s), so that parts are closed before; there is one \
                 for each worker, checkpoint and folder: take checkpoints less often, or ask for a shorter age",
                self.me.sink,
                self.roll.age.as_secs_f64()
            );
        }
    }

    fn publish(&self, _: u64, items: Vec<StagedItem>) -> BoxFuture<Result<(), BoxError>> {
        let (place, format, env) = (self.place.clone(), self.format.clone(), self.env.clone());
        let attempt = self.attempt;
        Box::pin(async move {
            let published = publish(&place, &format, attempt, items, env.as_ref()).await;
            let Err(error) = published else { return Ok(()) };
            // What is missing because the place is isn't lost.
            let there = on_thread(env.as_ref(), "look-for-folder", move || place.check_there());
            Err(there.await?.err().unwrap_or(error))
        })
    }
}

/// Gives items their parts, in each partition by itself: each its own, or, with an age, all that wait in one when the first is
/// old or they are enough. If more than [`HELD_MAX`] would wait, the partitions with the most of them don't; whether that is so is
/// answered.
fn plan(items: &mut [StagedItem], roll: Roll, extension: &str, clock_ms: u64, last: bool) -> bool {
    let mut partitions: BTreeMap<String, Vec<&mut StagedItem>> = BTreeMap::new();
    for item in items.iter_mut().filter(|item| item.part.is_none()) {
        let (partition, _) = partition::split(&item.name);
        partitions.entry(partition.to_owned()).or_default().push(item);
    }
    let mut waiting = Vec::new();
    for (partition, mut items) in partitions {
        plan_partition(&partition, &mut items, roll, extension, clock_ms, last);
        items.retain(|item| item.part.is_none());
        waiting.push((partition, items));
    }
    let mut held: usize = waiting.iter().map(|(_, items)| items.len()).sum();
    waiting.sort_by_key(|(_, items)| std::cmp::Reverse(items.len()));
    let early = held > HELD_MAX;
    for (partition, mut items) in waiting {
        if held <= HELD_MAX {
            break;
        }
        held -= items.len();
        plan_partition(&partition, &mut items, roll, extension, clock_ms, true);
    }
    early
}

fn plan_partition(
    partition: &str,
    items: &mut [&mut StagedItem],
    roll: Roll,
    extension: &str,
    clock_ms: u64,
    last: bool,
) {
    let together = !roll.age.is_zero();
    let mut begin = 0;
    while begin < items.len() {
        let Some(first) = Staged::of(items[begin]) else {
            // Not made by this version's writer: it stands for itself.
            let (_, name) = partition::split(&items[begin].name);
            items[begin].part =
                Some(partition::join(partition, &format!("part-{name}.{extension}")));
            begin += 1;
            continue;
        };
        let mut end = begin;
        let mut bytes = 0;
        let fits = |item: &StagedItem| {
            Staged::of(item).is_none_or(|staged| staged.columns == first.columns)
        };
        while end < items.len() && bytes < roll.bytes && fits(items[end]) {
            bytes += items[end].bytes;
            end += 1;
            if !together {
                break;
            }
        }
        let age = u128::from(clock_ms.saturating_sub(first.time_ms));
        // Behind it there may be rows of other columns, with which it won't be put together.
        let may_grow = bytes < roll.bytes && end == items.len();
        if together && !last && may_grow && age < roll.age.as_millis() {
            return;
        }
        // Named after its last item, so that the name tells of the newest checkpoint that the part depends on.
        let newest = items[begin..end].iter().rev().find_map(|item| Staged::of(item));
        let part = partition::join(partition, &newest.unwrap_or(first).part(extension));
        for item in &mut items[begin..end] {
            item.part = Some(part.clone());
        }
        begin = end;
    }
}

/// A part that is to be made, and the items that it is made of.
#[derive(Clone)]
struct Part {
    name: String,
    items: Vec<StagedItem>,
}

/// Makes the parts that `items` are planned as.
pub(super) async fn publish(
    place: &Arc<dyn Place>,
    format: &impl FileFormat,
    attempt: u64,
    items: Vec<StagedItem>,
    env: &dyn Env,
) -> Result<(), BoxError> {
    let ours = |item| Staged::of(item).is_some_and(|staged| staged.attempt == attempt);
    let sweep = items.iter().any(ours);
    let mut parts: BTreeMap<String, Vec<StagedItem>> = BTreeMap::new();
    for item in items {
        // Without a part nothing is to be published, and the runtime asks for nothing.
        if let Some(part) = item.part.clone() {
            parts.entry(part).or_default().push(item);
        }
    }
    let parts: Vec<Part> = parts.into_iter().map(|(name, items)| Part { name, items }).collect();
    let (at, all) = (place.clone(), parts.clone());
    let made = on_thread(env, "publish-files", move || {
        at.check_there()?;
        at.make_folders(&partitions(&all))
    });
    made.await??;
    let format = format.clone();
    for_each(place, &parts, env, move |place, part| publish_part(place, &format, attempt, part))
        .await?;
    let (at, all) = (place.clone(), parts.clone());
    on_thread(env, "publish-files", move || at.make_durable(&partitions(&all))).await??;
    // Only now: what follows can't be repeated.
    for_each(place, &parts, env, move |place, part| remove_staged(place, attempt, part)).await?;
    let at = place.clone();
    let clear = move || if sweep { at.clear_staged(attempt) } else { Ok(()) };
    on_thread(env, "publish-files", clear).await?
}

fn partitions(parts: &[Part]) -> BTreeSet<&str> {
    parts.iter().map(|part| partition::split(&part.name).0).collect()
}

/// Does something with each part, with as many at once as the place bears.
async fn for_each(
    place: &Arc<dyn Place>,
    parts: &[Part],
    env: &dyn Env,
    work: impl Fn(&dyn Place, &Part) -> Result<(), BoxError> + Clone + Send + 'static,
) -> Result<(), BoxError> {
    let share = parts.len().div_ceil(place.parts_at_once()).max(1);
    let mut threads = Vec::new();
    for share in parts.chunks(share) {
        let (place, share, work) = (place.clone(), share.to_vec(), work.clone());
        threads.push(on_thread(env, "publish-files", move || {
            share.iter().try_for_each(|part| work(&*place, part))
        }));
    }
    for thread in threads {
        thread.await??;
    }
    Ok(())
}

fn publish_part(
    place: &dyn Place,
    format: &impl FileFormat,
    attempt: u64,
    part: &Part,
) -> Result<(), BoxError> {
    match &part.items[..] {
        [item] => publish_one(place, item, &part.name),
        items => publish_joined(place, format, attempt, items, &part.name),
    }
}

fn remove_staged(place: &dyn Place, attempt: u64, part: &Part) -> Result<(), BoxError> {
    let joined = (part.items.len() > 1).then(|| joined_name(attempt, &part.name));
    for name in part.items.iter().map(staged_name).chain(joined) {
        place.remove(&name).map_err(|error| cannot("remove", &place.shown(&name), &error))?;
    }
    Ok(())
}

/// A part of one staged file.
fn publish_one(place: &dyn Place, item: &StagedItem, part: &str) -> Result<(), BoxError> {
    let staged = staged_name(item);
    let shown = place.shown(&staged);
    match place.difference(&staged, item) {
        Ok(None) => {}
        Ok(Some(what)) => return Err(damaged(&shown, &what)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if exists(place, part)? { Ok(()) } else { Err(lost(&shown, place, part)) };
        }
        Err(error) => return Err(cannot("read", &shown, &error)),
    }
    link(place, &staged, part, || place.difference(part, item).map(|found| found.is_none()))
}

/// Gives what is staged the name of a part. Something of that name that is the same will do.
fn link(
    place: &dyn Place,
    staged: &str,
    part: &str,
    is_same: impl FnOnce() -> io::Result<bool>,
) -> Result<(), BoxError> {
    let target = place.shown(part);
    match place.link(staged, part) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match is_same().map_err(|error| cannot("read", &target, &error))? {
                true => Ok(()),
                false => Err(taken(&target)),
            }
        }
        linked => linked.map_err(|error| cannot("create", &target, &error)),
    }
}

fn exists(place: &dyn Place, name: &str) -> Result<bool, BoxError> {
    place.exists(name).map_err(|error| cannot("read", &place.shown(name), &error))
}

/// A part of several staged files, the header once.
fn publish_joined(
    place: &dyn Place,
    format: &impl FileFormat,
    attempt: u64,
    items: &[StagedItem],
    part: &str,
) -> Result<(), BoxError> {
    if exists(place, part)? {
        for item in items {
            // Staged files are removed only when all that they are part of is published.
            if !exists(place, &staged_name(item))? {
                return Ok(());
            }
        }
    }
    let content = |item: &StagedItem| {
        let staged = staged_name(item);
        let shown = place.shown(&staged);
        let content = place.read(&staged).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => lost(&shown, place, part),
            _ => cannot("read", &shown, &error),
        })?;
        let is_whole = format!("{:016x}", xxh3_64(&content)) == item.checksum;
        if is_whole { Ok(content) } else { Err(damaged(&shown, OTHER_CONTENT)) }
    };
    let joined = joined_name(attempt, part);
    place.write(&joined, &mut |file| format.join(&mut items.iter().map(content), file))?;
    link(place, &joined, part, || place.same(&joined, part))
}

fn lost(staged: &Path, place: &dyn Place, part: &str) -> BoxError {
    Lasting(format!(
        "neither {} nor {} is there: somebody removed committed output; put one of them back, or start over with --fresh",
        staged.display(),
        place.shown(part).display()
    ))
    .into()
}

fn damaged(staged: &Path, what: &str) -> BoxError {
    Lasting(format!(
        "the staged file {} {what}: it is damaged; put back a good copy, or start over with --fresh",
        staged.display()
    ))
    .into()
}

fn taken(target: &Path) -> BoxError {
    Lasting(format!(
        "{} exists with other content than was committed; move it away, so that it can be written",
        target.display()
    ))
    .into()
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
