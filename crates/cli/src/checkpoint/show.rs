//! `highwater checkpoint show`.

use highwater_log::{CheckpointEntry, Entry, LogError, ObjectRef};
use highwater_state::object::Object;
use highwater_state::{Image, KeyGroups, KeyedTable, Kind, StateTable};
use serde::{Deserialize, Serialize};

use super::{Look, list};
use crate::human::{count, size, table, time};
use crate::{Answer, Error};

#[derive(Serialize)]
struct Shown<'a> {
    location: &'a str,
    job: &'a str,
    number: u64,
    attempt: u64,
    /// The entry as it is in the log: configuration, graph, staged output, garbage.
    #[serde(flatten)]
    checkpoint: &'a CheckpointEntry,
    /// What a recovery reads.
    objects: Vec<ObjectRef>,
    sources: Vec<Source>,
    /// Why objects and sources are missing here, if they are.
    problem: Option<String>,
}

/// How far a source was read.
#[derive(Serialize)]
struct Source {
    uid: String,
    splits: Vec<Split>,
}

#[derive(Serialize)]
struct Split {
    split: String,
    #[serde(flatten)]
    offset: Offset,
}

/// The offset of a split, as checkpoints hold it.
#[derive(Clone, Serialize, Deserialize)]
struct Offset {
    position: u64,
    records: u64,
    ended: bool,
}

pub(super) async fn show(look: &Look, number: Option<u64>) -> Result<Answer, Error> {
    let newest = || {
        let mut kept = look.facts.checkpoints().map(|(number, _)| number).rev();
        kept.find(|number| look.is_kept(*number)).ok_or("no checkpoint is committed")
    };
    let number = number.map_or_else(newest, Ok)?;
    let Some((entry, checkpoint)) =
        look.facts.sound(number).and_then(|entry| Some((entry, entry.checkpoint()?)))
    else {
        return Err(list::missing(look, number));
    };
    let mut shown = Shown {
        location: &look.location,
        job: &look.job,
        number,
        attempt: entry.attempt,
        checkpoint,
        objects: Vec::new(),
        sources: Vec::new(),
        problem: None,
    };
    match look.log.get_manifest(&checkpoint.manifest).await {
        Ok(manifest) => {
            shown.objects = manifest.objects;
            match sources(look, checkpoint, &shown.objects).await {
                Ok(sources) => shown.sources = sources,
                Err(error) => shown.problem = Some(error.to_string()),
            }
        }
        Err(LogError::Damaged(damage)) => shown.problem = Some(damage.to_string()),
        Err(error) => return Err(error.into()),
    }
    let (text, sound) = (text(entry, &shown), shown.problem.is_none());
    Answer::new(&shown, text, sound)
}

/// The offsets of all splits of all sources.
async fn sources(
    look: &Look,
    checkpoint: &CheckpointEntry,
    objects: &[ObjectRef],
) -> Result<Vec<Source>, Error> {
    let mut with_splits = Vec::new();
    for object in objects {
        let bytes = look.log.get_object(object).await?;
        let object = Object::open(&object.name, bytes)?;
        if object.sections().iter().any(|section| section.head.kind == Kind::Split) {
            with_splits.push(object);
        }
    }
    let image = Image::new(with_splits);
    let groups = KeyGroups::new(checkpoint.configuration.key_groups.max(1));
    let mut sources = Vec::new();
    for operator in &checkpoint.graph {
        for state in operator.states.iter().filter(|state| state.kind == Kind::Split.name()) {
            let mut table: KeyedTable<String, Offset> =
                KeyedTable::new(&state.name, Kind::Split, groups, 0..groups.count());
            table.restore(&operator.uid, &image)?;
            let entries = (0..table.group_count()).flat_map(|group| table.group_entries(group));
            let mut splits: Vec<Split> = entries
                .map(|(split, offset)| Split { split: split.clone(), offset: offset.clone() })
                .collect();
            splits.sort_by(|a, b| a.split.cmp(&b.split));
            sources.push(Source { uid: operator.uid.clone(), splits });
        }
    }
    Ok(sources)
}

fn text(entry: &Entry, shown: &Shown<'_>) -> String {
    let checkpoint = shown.checkpoint;
    let configuration = &checkpoint.configuration;
    let previous = match checkpoint.previous {
        Some(previous) => format!("checkpoint {previous}"),
        None => "nothing: the job began before it".to_owned(),
    };
    let ended = if checkpoint.finished { "; all sources had ended" } else { "" };
    let mut text = format!(
        "checkpoint {} of attempt {}, job {}\n  time      {}\n  progress  interval {}, trigger {}{ended}\n  \
         builds on {previous}\n\nconfiguration\n  {}, {} key groups, hash version {}\n",
        shown.number,
        entry.attempt,
        shown.job,
        time(checkpoint.clock_ms),
        checkpoint.interval,
        checkpoint.trigger,
        count(configuration.workers.into(), "worker"),
        configuration.key_groups,
        configuration.hash_version,
    );
    text += "\ngraph\n";
    text += &table(&["UID", "KIND", "STATE", "STATE KIND", "COLUMNS"], graph(checkpoint));
    if let Some(problem) = &shown.problem {
        text += &format!("\nBROKEN: {problem}\n");
    }
    for source in &shown.sources {
        text +=
            &format!("\nsource {} ({})\n", source.uid, count(source.splits.len() as u64, "split"));
        let heads = ["SPLIT", ">OFFSET", ">RECORDS", ""];
        text += &table(&heads, source.splits.iter().map(split));
    }
    let bytes = shown.objects.iter().map(|object| object.bytes).sum();
    text +=
        &format!("\nobjects ({}, {})\n", count(shown.objects.len() as u64, "object"), size(bytes));
    text += &table(&["NAME", ">SIZE", "CHECKSUM"], shown.objects.iter().map(object));
    text += "\noutput not yet recorded as published\n";
    if checkpoint.staged.is_empty() {
        text += "  none\n";
    } else {
        let heads = ["SINK", ">STAGED BY", "ITEM", ">ROWS", ">SIZE", "PUBLISHED AS"];
        text += &table(&heads, staged(checkpoint));
    }
    text += &format!("\ngarbage ({})\n", count(checkpoint.garbage.len() as u64, "name"));
    checkpoint.garbage.iter().for_each(|name| text += &format!("  {name}\n"));
    text
}

fn graph(checkpoint: &CheckpointEntry) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for operator in &checkpoint.graph {
        let (uid, kind) = (operator.uid.clone(), operator.kind.clone());
        if operator.states.is_empty() {
            rows.push(vec![uid.clone(), kind.clone(), "-".to_owned()]);
        }
        for state in &operator.states {
            let columns = columns(&state.schema);
            rows.push(vec![
                uid.clone(),
                kind.clone(),
                state.name.clone(),
                state.kind.clone(),
                columns,
            ]);
        }
    }
    rows
}

/// `key: Utf8, value: UInt64`.
fn columns(schema: &serde_json::Value) -> String {
    let Some(columns) = schema.as_object() else { return "never written".to_owned() };
    let shown = columns.iter().map(|(name, kind)| match kind.as_str() {
        Some(kind) => format!("{name}: {kind}"),
        None => format!("{name}: {kind}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn split(split: &Split) -> Vec<String> {
    let Offset { position, records, ended } = split.offset;
    let end = if ended { "at its end" } else { "" };
    vec![split.split.clone(), position.to_string(), records.to_string(), end.to_owned()]
}

fn object(object: &ObjectRef) -> Vec<String> {
    vec![object.name.clone(), size(object.bytes), object.checksum.clone()]
}

fn staged(checkpoint: &CheckpointEntry) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for output in &checkpoint.staged {
        for item in &output.items {
            rows.push(vec![
                output.sink.clone(),
                output.checkpoint.to_string(),
                item.name.clone(),
                item.rows.to_string(),
                size(item.bytes),
                item.part.clone().unwrap_or_else(|| "held back".to_owned()),
            ]);
        }
    }
    rows
}
