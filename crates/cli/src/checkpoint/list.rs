//! `highwater checkpoint list`.

use highwater_log::{Found, LogError, names};
use serde::Serialize;

use super::Look;
use crate::human::{count, size, table, time};
use crate::{Answer, Error};

#[derive(Serialize)]
struct List<'a> {
    location: &'a str,
    job: &'a str,
    job_id: Option<&'a str>,
    attempts: Vec<Attempt>,
    checkpoints: Vec<Checkpoint>,
    /// Entries that can't be read.
    damaged: Vec<String>,
}

#[derive(Serialize)]
struct Attempt {
    number: u64,
    started_ms: u64,
    workers: u32,
    fresh: bool,
}

#[derive(Serialize)]
struct Checkpoint {
    number: u64,
    attempt: u64,
    interval: u64,
    clock_ms: u64,
    workers: u32,
    /// What a recovery reads; none if the manifest can't be read, and then `problem` says why.
    objects: Option<u64>,
    bytes: Option<u64>,
    /// Output not yet recorded as published.
    staged_items: u64,
    staged_bytes: u64,
    finished: bool,
    /// A newer checkpoint has listed it as garbage.
    deleting: bool,
    problem: Option<String>,
}

pub(super) async fn list(look: &Look) -> Result<Answer, Error> {
    let started = |entry: &highwater_log::Entry| {
        let started = entry.started()?;
        let (number, fresh) = (entry.number, started.fresh);
        Some(Attempt { number, started_ms: started.started_ms, workers: started.workers, fresh })
    };
    let mut checkpoints = Vec::new();
    for entry in look.facts.all_sound() {
        if let Some(checkpoint) = entry.checkpoint() {
            checkpoints.push(describe(look, entry, checkpoint).await?);
        }
    }
    let damaged = look.facts.entries.values().filter_map(|found| match found {
        Found::Damaged(damage) => Some(damage.to_string()),
        Found::Sound(_) => None,
    });
    let list = List {
        location: &look.location,
        job: &look.job,
        job_id: look.job_id.as_deref(),
        attempts: look.facts.all_sound().filter_map(started).collect(),
        checkpoints,
        damaged: damaged.collect(),
    };
    let sound = list.damaged.is_empty() && list.checkpoints.iter().all(|row| row.problem.is_none());
    Answer::new(&list, text(look, &list), sound)
}

async fn describe(
    look: &Look,
    entry: &highwater_log::Entry,
    checkpoint: &highwater_log::CheckpointEntry,
) -> Result<Checkpoint, Error> {
    let deleting = look.deleting.contains_key(&entry.number);
    let (objects, bytes, problem) = match look.log.get_manifest(&checkpoint.manifest).await {
        Ok(manifest) => {
            let bytes = manifest.objects.iter().map(|object| object.bytes).sum();
            (Some(manifest.objects.len() as u64), Some(bytes), None)
        }
        Err(LogError::Damaged(_)) if deleting => (None, None, None),
        Err(LogError::Damaged(damage)) => (None, None, Some(damage.to_string())),
        Err(error) => return Err(error.into()),
    };
    let items = || checkpoint.staged.iter().flat_map(|output| &output.items);
    Ok(Checkpoint {
        number: entry.number,
        attempt: entry.attempt,
        interval: checkpoint.interval,
        clock_ms: checkpoint.clock_ms,
        workers: checkpoint.configuration.workers,
        objects,
        bytes,
        staged_items: items().count() as u64,
        staged_bytes: items().map(|item| item.bytes).sum(),
        finished: checkpoint.finished,
        deleting,
        problem,
    })
}

fn text(look: &Look, list: &List<'_>) -> String {
    let mut text = look.headline();
    let newest = list.checkpoints.iter().rfind(|row| !row.deleting).map(|row| row.number);
    let row = |row: &Checkpoint| {
        let unknown = || "?".to_owned();
        let mut note = Vec::new();
        note.extend((Some(row.number) == newest).then(|| "newest".to_owned()));
        note.extend(row.finished.then(|| "the job had ended".to_owned()));
        note.extend(row.deleting.then(|| "being deleted".to_owned()));
        note.extend(row.problem.clone());
        vec![
            row.number.to_string(),
            row.attempt.to_string(),
            time(row.clock_ms),
            row.workers.to_string(),
            row.objects.map_or_else(unknown, |objects| objects.to_string()),
            row.bytes.map_or_else(unknown, size),
            match row.staged_items {
                0 => "-".to_owned(),
                items => format!("{}, {}", count(items, "item"), size(row.staged_bytes)),
            },
            note.join(", "),
        ]
    };
    let heads =
        [">CHECKPOINT", ">ATTEMPT", "TIME", ">WORKERS", ">OBJECTS", ">SIZE", "UNPUBLISHED", "NOTE"];
    if list.checkpoints.is_empty() {
        text += "no checkpoint is committed\n";
    } else {
        text += &table(&heads, list.checkpoints.iter().map(row));
    }
    for damage in &list.damaged {
        text += &format!("DAMAGED: {damage}\n");
    }
    text
}

/// What an entry is called in messages about one that isn't there.
pub(super) fn missing(look: &Look, number: u64) -> Error {
    let there: Vec<String> =
        look.facts.checkpoints().map(|(number, _)| number.to_string()).collect();
    let there = match there.is_empty() {
        true => "no checkpoint is committed".to_owned(),
        false => format!("there are {}", there.join(", ")),
    };
    format!("no checkpoint has the number {number} ({}); {there}", names::entry(number)).into()
}
