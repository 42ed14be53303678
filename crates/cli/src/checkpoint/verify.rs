//! `highwater checkpoint verify`: reads everything that the log refers to, down to the rows of every section.
//!
//! What checkpoints share is read once, one object at a time. A job that runs meanwhile may collect what has just been listed: what
//! looks broken counts only if the job still wants it afterwards.

use std::collections::{BTreeMap, BTreeSet};

use highwater_log::{
    Base, CheckpointEntry, Found, LogError, ObjectRef, StagedItem, decide, names, next_base,
};
use highwater_state::object::Object;
use serde::Serialize;

use super::Look;
use crate::human::{count, size, table};
use crate::{Answer, Error};

#[derive(Serialize)]
struct Verified {
    location: String,
    job: String,
    /// Nothing is broken.
    sound: bool,
    checkpoints: Vec<Checkpoint>,
    /// What is wrong with the log itself.
    problems: Vec<String>,
    /// What a start would do now.
    next_start: String,
    /// How much was read.
    bytes: u64,
}

/// What was found out about a checkpoint.
#[derive(Default, Serialize)]
struct Checkpoint {
    number: u64,
    #[serde(flatten)]
    whole: Whole,
    staged_items: u64,
    /// Staged by sinks in places of their own, and not looked at.
    staged_elsewhere: u64,
    problems: Vec<String>,
}

/// What is whole.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Whole {
    objects: u64,
    sections: u64,
    rows: u64,
    bytes: u64,
}

pub(super) async fn verify(look: Look) -> Result<Answer, Error> {
    let mut reads = Reads::default();
    let mut checkpoints = Vec::new();
    for (number, checkpoint) in look.facts.checkpoints() {
        if look.is_kept(number) {
            checkpoints.push(reads.checkpoint(&look, number, checkpoint).await?);
        }
    }
    let before: BTreeSet<u64> = look.facts.entries.keys().copied().collect();
    let look = look.again().await?;
    // Collected meanwhile, or about to be.
    checkpoints.retain(|checkpoint| look.is_kept(checkpoint.number));

    let mut problems: Vec<String> = Vec::new();
    if let Err(error) = decide::identity(&look.facts, false) {
        problems.push(error.to_string());
    }
    let other = look.facts.all_sound().find(|entry| entry.job != look.job);
    problems.extend(other.map(|entry| {
        let (path, job) = (look.log.shown(&names::entry(entry.number)), &entry.job);
        format!("{path} belongs to the job `{job}`, and the newest entry to `{}`", look.job)
    }));
    problems.extend(look.facts.entries.iter().filter_map(|(number, found)| match found {
        Found::Damaged(damage) if look.is_kept(*number) => Some(damage.to_string()),
        _ => None,
    }));
    let broken: BTreeMap<u64, String> = checkpoints
        .iter()
        .filter_map(|checkpoint| Some((checkpoint.number, checkpoint.problems.first()?.clone())))
        .collect();
    // A start takes the number after the last one. That a sink promises exactly once is the safe guess.
    let own = look.facts.tail().map_or(0, |tail| tail.saturating_add(1));
    let next_start = match next_base(&look.facts, own, &broken, true) {
        Base::Fresh => "begins from nothing: there is no checkpoint yet".to_owned(),
        Base::Checkpoint(number) => format!("goes on from checkpoint {number}"),
        Base::Refuse { why, what_to_do } => {
            // What just appeared hasn't been read.
            if look.facts.entries.keys().all(|number| before.contains(number)) {
                problems.push(format!("{why}; {what_to_do}"));
            }
            "is refused".to_owned()
        }
    };
    let sound = problems.is_empty() && broken.is_empty();
    let (location, job) = (look.location.clone(), look.job.clone());
    let bytes = reads.bytes;
    let verified = Verified { location, job, sound, checkpoints, problems, next_start, bytes };
    Answer::new(&verified, text(&look, &verified), sound)
}

/// What has been read.
#[derive(Default)]
struct Reads {
    /// Objects, each with what is in it or why it is broken.
    objects: BTreeMap<ObjectRef, Result<Whole, String>>,
    bytes: u64,
}

impl Reads {
    async fn checkpoint(
        &mut self,
        look: &Look,
        number: u64,
        checkpoint: &CheckpointEntry,
    ) -> Result<Checkpoint, Error> {
        let mut found = Checkpoint { number, ..Checkpoint::default() };
        match look.log.get_manifest(&checkpoint.manifest).await {
            Ok(manifest) => {
                self.bytes += checkpoint.manifest.bytes;
                for object in &manifest.objects {
                    match self.object(look, object, true).await? {
                        Ok(whole) => found.whole.add(whole),
                        Err(why) => found.problems.push(why),
                    }
                }
            }
            Err(LogError::Damaged(damage)) => found.problems.push(damage.to_string()),
            Err(error) => return Err(error.into()),
        }
        for item in checkpoint.staged.iter().flat_map(|output| &output.items) {
            if names::parse(&item.name).is_none() {
                found.staged_elsewhere += 1;
                continue;
            }
            match self.object(look, &staged(item), false).await? {
                Ok(_) => found.staged_items += 1,
                Err(why) => found.problems.push(why),
            }
        }
        Ok(found)
    }

    /// Reads an object, unless that was done already; `sections` says whether it is one of state.
    async fn object(
        &mut self,
        look: &Look,
        object: &ObjectRef,
        sections: bool,
    ) -> Result<Result<Whole, String>, Error> {
        if let Some(known) = self.objects.get(object) {
            return Ok(known.clone());
        }
        let read = match look.log.get_object(object).await {
            Ok(bytes) => {
                self.bytes += object.bytes;
                let whole = Whole { objects: 1, bytes: object.bytes, ..Whole::default() };
                match sections {
                    true => rows(&object.name, bytes, whole).map_err(|error| error.to_string()),
                    false => Ok(whole),
                }
            }
            Err(LogError::Damaged(damage)) => Err(damage.to_string()),
            Err(error) => return Err(error.into()),
        };
        self.objects.insert(object.clone(), read.clone());
        Ok(read)
    }
}

/// Reads every row of an object of state.
fn rows(
    name: &str,
    bytes: highwater_log::Bytes,
    mut whole: Whole,
) -> Result<Whole, highwater_state::StateError> {
    let object = Object::open(name, bytes)?;
    for section in object.sections() {
        whole.rows += object.check_section(section)?;
        whole.sections += 1;
    }
    Ok(whole)
}

impl Whole {
    fn add(&mut self, other: Whole) {
        self.objects += other.objects;
        self.sections += other.sections;
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

fn staged(item: &StagedItem) -> ObjectRef {
    let (name, checksum) = (item.name.clone(), item.checksum.clone());
    ObjectRef { name, bytes: item.bytes, checksum }
}

fn text(look: &Look, verified: &Verified) -> String {
    let mut text = look.headline();
    let row = |checkpoint: &Checkpoint| {
        let Whole { objects, sections, rows, bytes } = checkpoint.whole;
        vec![
            checkpoint.number.to_string(),
            objects.to_string(),
            sections.to_string(),
            rows.to_string(),
            size(bytes),
            checkpoint.staged_items.to_string(),
            if checkpoint.problems.is_empty() { "whole" } else { "BROKEN" }.to_owned(),
        ]
    };
    let heads =
        [">CHECKPOINT", ">OBJECTS", ">SECTIONS", ">ROWS", ">SIZE", ">STAGED ITEMS", "STATE"];
    text += &table(&heads, verified.checkpoints.iter().map(row));
    for checkpoint in &verified.checkpoints {
        for problem in &checkpoint.problems {
            text += &format!("BROKEN: checkpoint {}: {problem}\n", checkpoint.number);
        }
    }
    verified.problems.iter().for_each(|problem| text += &format!("BROKEN: {problem}\n"));
    let elsewhere: u64 =
        verified.checkpoints.iter().map(|it| it.staged_elsewhere).max().unwrap_or(0);
    if elsewhere > 0 {
        let items = count(elsewhere, "item");
        text +=
            &format!("not looked at: {items} of output staged by sinks in places of their own\n");
    }
    let state = if verified.sound { "everything is whole" } else { "not everything is whole" };
    text += &format!("{state} ({} read); a start {}\n", size(verified.bytes), verified.next_start);
    text
}
