//! What must hold after a run, whatever happened during it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, TryStreamExt};
use highwater_log::{Body, CheckpointEntry, Entry, Log, Manifest, names};
use highwater_state::Image;
use highwater_state::object::Object;
use highwater_world::{Run, World};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::graph::Graph;
use crate::job::Tables;
use crate::model::{Expected, expected};

/// What the tables hold, compared with the model.
pub fn output(graph: &Graph, tables: &Tables, splits: &dyn Fn(usize) -> u32) -> Result<(), String> {
    let expected = expected(graph, splits);
    for (sink, table) in tables {
        let exactly_once = graph.nodes[*sink].op.takes_rows_once() == Some(true);
        if let Some(violation) = table.violations().first() {
            return Err(format!("sink n{sink}: {violation}"));
        }
        let mut rows = table.rows();
        match &expected[sink] {
            Expected::Rows(right) => {
                rows.sort();
                let (lost, more) = difference(right, &rows);
                if !lost.is_empty() || (exactly_once && !more.is_empty()) {
                    let counts = format!(
                        "{} of {} rows lost, {} too many",
                        lost.len(),
                        right.len(),
                        more.len()
                    );
                    return Err(format!(
                        "sink n{sink}: {counts}: lost {lost:?}, too many {more:?}"
                    ));
                }
            }
            Expected::LastOfKey(right) | Expected::LastOfSomeKeys(right) => {
                if !exactly_once {
                    rows = table.rows_by_checkpoint();
                }
                let mut last: BTreeMap<u32, i64> =
                    rows.iter().map(|row| (row.key, row.value)).collect();
                if matches!(expected[sink], Expected::LastOfSomeKeys(_)) {
                    last.retain(|key, _| right.contains_key(key));
                }
                if last != *right {
                    return Err(format!("sink n{sink}: came to {last:?}, not to {right:?}"));
                }
            }
        }
    }
    Ok(())
}

/// What the tables may show at any time, before the end too: nothing that the model hasn't.
pub fn visible(
    graph: &Graph,
    tables: &Tables,
    splits: &dyn Fn(usize) -> u32,
) -> Result<(), String> {
    let expected = expected(graph, splits);
    for (sink, table) in tables {
        if let Some(violation) = table.violations().first() {
            return Err(format!("sink n{sink}: {violation}"));
        }
        let exactly_once = graph.nodes[*sink].op.takes_rows_once() == Some(true);
        if let Expected::Rows(right) = &expected[sink] {
            let (mut right, mut rows) = (right.clone(), table.rows());
            rows.sort();
            if !exactly_once {
                right.dedup();
                rows.dedup();
            }
            let (_, more) = difference(&right, &rows);
            if !more.is_empty() {
                return Err(format!("sink n{sink}: {} rows too many: {more:?}", more.len()));
            }
        }
    }
    Ok(())
}

/// What of `right` is missing in `rows`, and what is in them besides; both sorted.
fn difference<'r, T: Ord>(right: &'r [T], rows: &'r [T]) -> (Vec<&'r T>, Vec<&'r T>) {
    let (mut lost, mut more) = (Vec::new(), Vec::new());
    let (mut left, mut found) = (right.iter().peekable(), rows.iter().peekable());
    loop {
        match (left.peek(), found.peek()) {
            (None, None) => return (lost, more),
            (Some(a), Some(b)) if a == b => {
                left.next();
                found.next();
            }
            (Some(a), Some(b)) if a < b => lost.extend(left.next()),
            (Some(_), None) => lost.extend(left.next()),
            _ => more.extend(found.next()),
        }
    }
}

/// The store after the job's last start: every entry's objects are there and whole, and nothing is there that no entry names.
pub fn store(run: &Run, job: &str) -> Result<(), String> {
    let found: BTreeSet<String> = list(&run.world)?.into_iter().collect();
    let known = entries(&run.world, job, &found)?;
    let forgotten: Vec<&String> = found.difference(&known).collect();
    if !forgotten.is_empty() {
        return Err(format!("nothing refers to {forgotten:?}"));
    }
    // What the last start itself left half written, because the disk failed, is for the next one to find.
    let last = attempts(&run.world)?.into_iter().max().unwrap_or_default();
    let log = Log::new(run.store.clone(), Path::default(), run.world.env(), job);
    match now(log.leftovers(last, &known))?.as_slice() {
        [] => Ok(()),
        files => Err(format!("half written files stay: {files:?}")),
    }
}

/// The store at any time: every entry's objects are there and whole.
pub fn standing(world: &World, job: &str) -> Result<(), String> {
    let found: BTreeSet<String> = list(world)?.into_iter().collect();
    entries(world, job, &found).map(drop)
}

/// Checks every entry among the names `found`; answers all that they know of.
fn entries(world: &World, job: &str, found: &BTreeSet<String>) -> Result<BTreeSet<String>, String> {
    let log = Log::new(world.store(), Path::default(), world.env(), job);
    let mut known: BTreeSet<String> = BTreeSet::new();
    for name in found.iter().filter(|name| names::entry_number(name).is_some()) {
        known.insert(name.clone());
        let entry = entry(world, name)?;
        let Body::Checkpoint(checkpoint) = entry.body else { continue };
        known.extend(checkpoint.garbage.iter().cloned());
        known.insert(checkpoint.manifest.name.clone());
        let staged = checkpoint.staged.iter().flat_map(|output| &output.items);
        known.extend(staged.map(|item| item.name.clone()));
        let (image, objects) =
            image(&log, &checkpoint).map_err(|error| format!("1: {name} stands, and {error}"))?;
        known.extend(objects);
        drop(image);
    }
    Ok(known)
}

/// Reads a checkpoint's objects; answers their names, too.
fn image(log: &Log, checkpoint: &CheckpointEntry) -> Result<(Image, Vec<String>), String> {
    let manifest: Manifest = now(log.get_manifest(&checkpoint.manifest))?;
    let (mut objects, mut names) = (Vec::new(), Vec::new());
    for object in &manifest.objects {
        let bytes = now(log.get_object(object))?;
        let open = Object::open(&object.name, bytes);
        objects.push(open.map_err(|error| format!("{}: {error}", object.name))?);
        names.push(object.name.clone());
    }
    Ok((Image::new(objects), names))
}

/// The newest checkpoint, and what state it holds.
pub fn newest(world: &World, job: &str) -> Result<(CheckpointEntry, Image), String> {
    let number = checkpoints(world)?.into_iter().max().ok_or("there is no checkpoint")?;
    let Body::Checkpoint(checkpoint) = entry(world, &names::entry(number))?.body else {
        return Err(format!("entry {number} is no checkpoint's"));
    };
    let log = Log::new(world.store(), Path::default(), world.env(), job);
    let (image, _) = image(&log, &checkpoint)?;
    Ok((*checkpoint, image))
}

/// The numbers of all checkpoints that are still there.
pub fn checkpoints(world: &World) -> Result<Vec<u64>, String> {
    numbers(world, |body| matches!(body, Body::Checkpoint(_)))
}

/// The numbers of all attempts.
pub fn attempts(world: &World) -> Result<Vec<u64>, String> {
    numbers(world, |body| matches!(body, Body::Attempt(_)))
}

fn numbers(world: &World, wanted: fn(&Body) -> bool) -> Result<Vec<u64>, String> {
    let mut numbers = Vec::new();
    for name in list(world)? {
        if let Some(number) = names::entry_number(&name)
            && wanted(&entry(world, &name)?.body)
        {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

fn list(world: &World) -> Result<Vec<String>, String> {
    let store = world.store();
    let listed = store.objects().list(None).try_collect::<Vec<_>>().now_or_never();
    let listed = listed.ok_or("the media doesn't answer at once")?;
    let listed = listed.map_err(|error| error.to_string())?;
    Ok(listed.into_iter().map(|meta| meta.location.to_string()).collect())
}

fn entry(world: &World, name: &str) -> Result<Entry, String> {
    let store = world.store();
    let read = async {
        let got = store.objects().get(&Path::from(name)).await?;
        got.bytes().await
    };
    let bytes = read.now_or_never().ok_or("the media doesn't answer at once")?;
    let bytes = bytes.map_err(|error| error.to_string())?;
    highwater_log::record::decode(&bytes, highwater_log::entry::FORMAT)
        .map_err(|why| format!("{name} is damaged: {why}"))
}

/// The answer of the media, which comes at once.
fn now<T, E: std::fmt::Display>(task: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    let answer = task.now_or_never().ok_or("the media doesn't answer at once")?;
    answer.map_err(|error| error.to_string())
}
