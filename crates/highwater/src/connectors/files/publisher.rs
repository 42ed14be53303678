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
//! - A part is never overwritten: it gets its name by a hard link, which fails where something is.
//! - Staged files of earlier attempts are removed as leftovers only after something of this attempt was published: checkpoints are
//!   published in order, so that nothing of an earlier attempt is waited for any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use highwater_env::{BoxFuture, Env};
use highwater_log::StagedItem;
use highwater_runtime::BoxError;
use highwater_runtime::connector::{Lasting, Publisher, PublisherContext, on_thread};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::discover::cannot;
use super::folder::{Folder, Owner, Staged, link, remove, sync_folder};
use super::partition;
use crate::connectors::records::format::FileFormat;

/// So much of a file is read at once.
const BUFFER: usize = 256 << 10;

/// So many staged files wait for others at the most. Every entry of the log lists them: without a bound the log would grow with the square of
/// the time that they wait.
const HELD_MAX: usize = 256;

/// What is wrong with a file whose checksum is another than the entry's.
const OTHER_CONTENT: &str = "doesn't have the content that was written";

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
    folder: Folder,
    format: F,
    roll: Roll,
    me: Owner,
    attempt: u64,
    starts_over: bool,
    covered: Option<u32>,
    begun: bool,
    env: Arc<dyn Env>,
}

impl<F: FileFormat> FilePublisher<F> {
    pub(crate) fn new(path: &Path, format: F, roll: Roll, context: PublisherContext) -> Self {
        let PublisherContext {
            uid, job, job_id, attempt, starts_over, covered, begun, env, ..
        } = context;
        let (folder, me) = (Folder::new(path), Owner::new(&job, &job_id, &uid));
        FilePublisher { folder, format, roll, me, attempt, starts_over, covered, begun, env }
    }
}

impl<F: FileFormat> Publisher for FilePublisher<F> {
    fn prepare(&self) -> BoxFuture<Result<(), BoxError>> {
        let (folder, me) = (self.folder.clone(), self.me.clone());
        let (starts_over, covered, attempt) = (self.starts_over, self.covered, self.attempt);
        let begun = self.begun;
        let work = move || {
            if begun {
                folder.check_there()?;
            }
            folder.claim(&me)?;
            if let Some(covered) = covered {
                folder.check_covered(attempt, covered)?;
            }
            if starts_over {
                folder.clear(attempt).map_err(|error| cannot("clear", &folder.path, &error))?;
            }
            Ok(())
        };
        let done = on_thread(self.env.as_ref(), "claim-folder", work);
        Box::pin(async move { done.await? })
    }

    fn plan(&self, items: &mut [StagedItem], clock_ms: u64, last: bool) {
        plan(items, self.roll, F::EXTENSION, clock_ms, last);
    }

    fn publish(&self, _: u64, items: Vec<StagedItem>) -> BoxFuture<Result<(), BoxError>> {
        let (folder, format, attempt) = (self.folder.clone(), self.format.clone(), self.attempt);
        let work = move || {
            folder.check_there()?;
            let published = publish(&folder, &format, attempt, &items);
            // What is missing because the folder is isn't lost.
            published.map_err(|error| folder.check_there().err().unwrap_or(error))
        };
        let done = on_thread(self.env.as_ref(), "publish-files", work);
        Box::pin(async move { done.await? })
    }
}

/// Gives items their parts, in each partition by itself: each its own, or, with an age, all that wait in one when the first is
/// old or they are enough. If more than [`HELD_MAX`] would wait, the partitions with the most of them don't.
fn plan(items: &mut [StagedItem], roll: Roll, extension: &str, clock_ms: u64, last: bool) {
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
    for (partition, mut items) in waiting {
        if held <= HELD_MAX {
            return;
        }
        held -= items.len();
        plan_partition(&partition, &mut items, roll, extension, clock_ms, true);
    }
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

/// Makes the parts that `items` are planned as.
fn publish(
    folder: &Folder,
    format: &impl FileFormat,
    attempt: u64,
    items: &[StagedItem],
) -> Result<(), BoxError> {
    let mut parts: BTreeMap<&str, Vec<&StagedItem>> = BTreeMap::new();
    for item in items {
        // Without a part nothing is to be published, and the runtime asks for nothing.
        if let Some(part) = &item.part {
            parts.entry(part).or_default().push(item);
        }
    }
    let mut partitions = BTreeSet::new();
    for (part, items) in parts {
        let target = folder.path.join(part);
        let (partition, _) = partition::split(part);
        if partitions.insert(partition) {
            let path = folder.path.join(partition);
            fs::create_dir_all(&path).map_err(|error| cannot("create", &path, &error))?;
        }
        if let [item] = items[..] {
            publish_one(&folder.staged_file(item), item, &target)?;
        } else {
            publish_joined(folder, format, attempt, &items, &target)?;
        }
    }
    sync_partitions(folder, &partitions)?;
    // Only now: what follows can't be repeated.
    for item in items.iter().filter(|item| item.part.is_some()) {
        let staged = folder.staged_file(item);
        remove(&staged).map_err(|error| cannot("remove", &staged, &error))?;
    }
    let joined = folder.joined(attempt);
    remove(&joined).map_err(|error| cannot("remove", &joined, &error))?;
    let ours = |item| Staged::of(item).is_some_and(|staged| staged.attempt == attempt);
    if items.iter().any(ours) {
        let cleared = folder.clear_before(attempt);
        cleared.map_err(|error| cannot("clear", &folder.staged(), &error))?;
    }
    Ok(())
}

/// Makes the names of parts durable, and those of the folders that they are in.
fn sync_partitions(folder: &Folder, partitions: &BTreeSet<&str>) -> Result<(), BoxError> {
    let mut folders = BTreeSet::from([folder.path.as_path()]);
    let partitions: Vec<PathBuf> = partitions.iter().map(|name| folder.path.join(name)).collect();
    for partition in &partitions {
        folders.extend(partition.ancestors().take_while(|above| *above != folder.path));
    }
    for path in folders {
        sync_folder(path).map_err(|error| cannot("sync", path, &error))?;
    }
    Ok(())
}

/// A part of one staged file.
fn publish_one(staged: &Path, item: &StagedItem, target: &Path) -> Result<(), BoxError> {
    match difference(staged, item) {
        Ok(None) => {}
        Ok(Some(what)) => return Err(damaged(staged, &what)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if target.exists() { Ok(()) } else { Err(lost(staged, target)) };
        }
        Err(error) => return Err(cannot("read", staged, &error)),
    }
    match link(staged, target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match difference(target, item).map_err(|error| cannot("read", target, &error))? {
                None => Ok(()),
                Some(_) => Err(taken(target)),
            }
        }
        linked => linked.map_err(|error| cannot("create", target, &error)),
    }
}

/// How a file differs from what was written as `item`; none if it doesn't.
fn difference(path: &Path, item: &StagedItem) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length != item.bytes {
        return Ok(Some(format!("has {length} bytes instead of {}", item.bytes)));
    }
    let (mut checksum, mut buffer) = (Xxh3Default::new(), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => checksum.update(&buffer[..read]),
        }
    }
    let same = format!("{:016x}", checksum.digest()) == item.checksum;
    Ok((!same).then(|| OTHER_CONTENT.to_owned()))
}

/// A part of several staged files, the header once.
fn publish_joined(
    folder: &Folder,
    format: &impl FileFormat,
    attempt: u64,
    items: &[&StagedItem],
    target: &Path,
) -> Result<(), BoxError> {
    if target.exists() && !items.iter().all(|item| folder.staged_file(item).exists()) {
        // Staged files are removed only when all that they are part of is published.
        return Ok(());
    }
    let joined = folder.joined(attempt);
    let cannot_write = |error| cannot("write", &joined, &error);
    // What is there may be a published part by another name.
    remove(&joined).map_err(cannot_write)?;
    let mut file = File::create_new(&joined).map_err(cannot_write)?;
    let content = |item: &&StagedItem| {
        let staged = folder.staged_file(item);
        let content = fs::read(&staged).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => lost(&staged, target),
            _ => cannot("read", &staged, &error),
        })?;
        let is_whole = format!("{:016x}", xxh3_64(&content)) == item.checksum;
        if is_whole { Ok(content) } else { Err(damaged(&staged, OTHER_CONTENT)) }
    };
    format.join(&mut items.iter().map(content), &mut file).map_err(|error| {
        match error.downcast::<io::Error>() {
            Ok(error) => cannot_write(*error),
            Err(error) => error,
        }
    })?;
    file.sync_all().map_err(cannot_write)?;
    match link(&joined, target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let same = same_content(&joined, target);
            match same.map_err(|error| cannot("read", target, &error))? {
                true => Ok(()),
                false => Err(taken(target)),
            }
        }
        linked => linked.map_err(|error| cannot("create", target, &error)),
    }
}

fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let read = one.read(&mut ours)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut theirs[..read])?;
        if ours[..read] != theirs[..read] {
            return Ok(false);
        }
    }
}

fn lost(staged: &Path, target: &Path) -> BoxError {
    Lasting(format!(
        "neither {} nor {} is there: somebody removed committed output; put one of them back, or start over with --fresh",
        staged.display(),
        target.display()
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
