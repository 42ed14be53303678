//! Every field of a checkpoint's entry matters: each is changed in turn, with a checksum that fits, and a restart fails or differs
//! as the table below says. A field that no restart looks at is in the table as well, with the reason why it exists.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use highwater::Job;
use highwater::testing::Run;
use highwater_log::{Entry, record};
use serde_json::{Value, json};
use support::*;

/// What a changed field comes to.
enum Effect {
    /// The job doesn't start, and says so in these words.
    Refused(&'static str),
    /// The restart is refused in these words, or differs in this.
    RefusedOrDiffers(&'static str, &'static str),
    /// The restart differs in this.
    Differs(&'static str),
    /// The job doesn't start, whatever else the field says.
    AlwaysRefused,
    /// Nothing: it exists for this reason.
    None(&'static str),
}

use Effect::{AlwaysRefused, Differs, None as NoEffect, Refused, RefusedOrDiffers};

/// Every field, by its path; `[]` stands for any element.
const FIELDS: &[(&str, Effect)] = &[
    ("format", Refused("in format version")),
    ("number", Refused("its content is that of")),
    (
        "nonce",
        NoEffect(
            "a running append knows its own entry by it: races::an_append_that_another_nonce_answers",
        ),
    ),
    ("attempt", AlwaysRefused),
    ("job", Refused("belongs to the job")),
    ("body.checkpoint.previous", Differs("garbage")),
    ("body.checkpoint.interval", Differs("interval")),
    (
        "body.checkpoint.epoch",
        NoEffect("for people: an attempt begins its epochs anew at the next interval"),
    ),
    ("body.checkpoint.clock_ms", Differs("clock_ms")),
    ("body.checkpoint.trigger", Differs("trigger")),
    (
        "body.checkpoint.configuration.workers",
        NoEffect("for people: a restart may have another number of workers"),
    ),
    ("body.checkpoint.configuration.key_groups", Refused("hashes into group")),
    ("body.checkpoint.configuration.hash_version", Refused("of the hash")),
    ("body.checkpoint.graph[].uid", RefusedOrDiffers("which this job doesn't have", "-")),
    ("body.checkpoint.graph[].kind", Refused("in this job it is a")),
    ("body.checkpoint.graph[].states[].name", Refused("doesn't declare")),
    ("body.checkpoint.graph[].states[].kind", Refused("in this job it is a")),
    // The sections themselves hold it, so that this is for people and tools, and carried forward.
    ("body.checkpoint.graph[].states[].schema", Differs("graph")),
    ("body.checkpoint.manifest.name", Refused("missing")),
    ("body.checkpoint.manifest.bytes", Refused("manifest.json is t")),
    ("body.checkpoint.manifest.checksum", Refused("its checksum does not match")),
    ("body.checkpoint.staged[].sink", Refused("holds output for the sink")),
    ("body.checkpoint.staged[].checkpoint", Differs("delivered")),
    ("body.checkpoint.staged[].items[].name", Refused("missing")),
    ("body.checkpoint.staged[].items[].bytes", Refused(" bytes)")),
    ("body.checkpoint.staged[].items[].rows", NoEffect("for people")),
    ("body.checkpoint.staged[].items[].checksum", Refused("its checksum does not match")),
    ("body.checkpoint.staged[].items[].part", Differs("parts")),
    ("body.checkpoint.garbage[]", Differs("garbage")),
    ("body.checkpoint.finished", Differs("finished")),
];

/// A run that takes longer hangs.
const LONG: Duration = Duration::from_secs(20);

/// The store of a job that was ended in its middle, with output that isn't published and garbage that isn't deleted.
fn half_way(out: &Path) -> (BTreeMap<String, Bytes>, Numbers) {
    let store = memory();
    let numbers = Numbers::new(3, 500);
    numbers.allow(0);
    let sinks = [Recorded::default().sink(), files(out)].map(Faulty::over);
    sinks.iter().for_each(|sink| sink.set_down(true));
    let test = test(2, &store).then(2).settings(|settings| settings.retained = 2);
    let run = start(test, graph(&numbers, &sinks));
    let go_to = |rows| {
        let before = newest(&store);
        numbers.allow(rows);
        wait_for("a checkpoint is committed", || newest(&store) > before + 1);
    };
    numbers.control().crash();
    // Of the second attempt, so that there is a lower one.
    numbers.control_of(2);
    [50, 100, 150].into_iter().for_each(go_to);
    // Its last entry lists garbage, some of which is there: as if it had died before it was deleted.
    numbers.fail(true);
    run.join().unwrap().unwrap_err();
    let mut contents = contents(&store);
    let newest = newest(&store);
    let entry = entries(&store)[&newest].clone();
    let garbage = &entry.checkpoint().unwrap().garbage;
    assert!(!garbage.is_empty());
    for name in garbage.iter().filter(|name| !name.starts_with("log/")) {
        contents.entry(name.clone()).or_insert(Bytes::from_static(b"garbage"));
    }
    numbers.fail(false);
    (contents, numbers)
}

fn graph(numbers: &Numbers, sinks: &[Faulty; 2]) -> impl FnOnce(&Job) + Send + 'static + use<> {
    let (numbers, [rows, files]) = (numbers.clone(), sinks.clone());
    move |graph: &Job| {
        let numbers = graph.read("numbers", numbers);
        numbers.clone().write("files", files.sink());
        let counts = numbers.key_by(|number| number % CLASSES).count().every_record().uid("count");
        counts.map(|(class, count)| class + CLASSES * count).write("rows", rows.sink());
    }
}

/// What can be seen of a restart that reads nothing, publishes nothing and is stopped at once, and of another that
/// runs to the end.
type Seen = BTreeMap<&'static str, String>;

/// Restarts the job from this log; its error, or what is seen.
fn restart(
    contents: &BTreeMap<String, Bytes>,
    out: &Path,
    numbers: &Numbers,
) -> Result<Seen, String> {
    let store = copy(contents);
    let folder = tempfile::tempdir().unwrap();
    copy_folder(out, folder.path());
    let recorded = Recorded::default();
    let sinks = [recorded.sink(), files(folder.path())].map(Faulty::over);
    let set_down = |down| sinks.iter().for_each(|sink| sink.set_down(down));
    let before = newest(&store);
    let mut seen = Seen::new();
    let mut see = |what, value: String| {
        seen.insert(what, value);
    };

    set_down(true);
    numbers.allow(0);
    let attempts = numbers.attempts();
    let quiet = test(1, &store).settings(|settings| {
        settings.retained = 3;
        settings.checkpoint_interval = Some(Duration::from_secs(3600));
        settings.trigger = Duration::from_secs(3600).into();
    });
    let run = start(quiet, graph(numbers, &sinks));
    let finished = checkpoints(&store).last_key_value().is_some_and(|(_, newest)| newest.finished);
    if finished {
        // It isn't run, and waits for its destination.
        set_down(false);
    }
    // It may be refused before it runs.
    if wait_at_most(LONG, || run.is_finished() || numbers.reads(attempts + 1))
        && numbers.reads(attempts + 1)
    {
        see("began", format!("{:?}", numbers.began()));
        numbers.control().stop();
    }
    let run = end(run)?;
    see(
        "finished",
        format!("{} {:?}", run.outcome().already_finished, run.outcome().recovered_from),
    );
    let entries: Vec<Entry> =
        entries(&store).into_values().filter(|entry| entry.number > before).collect();
    if let Some(next) = entries.iter().find_map(Entry::checkpoint) {
        see("interval", next.interval.to_string());
        // The machine's clock moves on; what is far away from it doesn't come from there.
        see("clock_ms", (next.clock_ms > 10_000_000_000_000).to_string());
        see("trigger", next.trigger.to_string());
        see("key_groups", next.configuration.key_groups.to_string());
        see("previous", format!("{:?}", next.previous));
        see("garbage", format!("{:?}", next.garbage));
        see("graph", serde_json::to_string(&next.graph).unwrap());
    }
    let files: BTreeSet<String> = support::contents(&store).into_keys().collect();
    see("files", format!("{files:?}"));

    set_down(false);
    numbers.allow(u64::MAX);
    end(start(test(1, &store), graph(numbers, &sinks)))?;
    let early: Vec<_> =
        recorded.calls().into_iter().filter(|(checkpoint, _)| *checkpoint <= before + 1).collect();
    see("delivered", format!("{early:?}"));
    let published =
        sinks[1].published().into_iter().filter(|(checkpoint, _)| *checkpoint <= before + 1);
    let names = published.flat_map(|(_, items)| items).filter_map(|item| item.part);
    see("parts", format!("{:?}", names.collect::<BTreeSet<_>>()));
    see("rows in files", format!("{:?}", rows(folder.path())));
    see(
        "result",
        format!("{:?}", sorted(recorded.calls().into_iter().flat_map(|(_, rows)| rows).collect())),
    );
    Ok(seen)
}

/// The end of a run that must not take long.
fn end(run: JoinHandle<highwater::Result<Run>>) -> Result<Run, String> {
    if !wait_at_most(LONG, || run.is_finished()) {
        return Err("it hangs".to_owned());
    }
    match run.join() {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// Other values for a field, of the kind that the entry can hold.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![json!("x"), json!(1), json!({ "x": 1 })],
        Value::Bool(value) => vec![json!(!value)],
        Value::Number(number) => {
            let number = number.as_u64().unwrap();
            let mut others =
                vec![json!(number + 1), json!(number + 100), json!(number + 20_000_000_000_000)];
            others.extend(number.checked_sub(1).map(|less| json!(less)));
            others.push(Value::Null);
            others
        }
        Value::String(text) => {
            // Another last digit or letter, so that names stay names.
            let (head, last) = text.split_at(text.len() - 1);
            let last = if last == "7" { "8" } else { "7" };
            vec![json!(format!("{head}{last}")), Value::Null]
        }
        Value::Array(_) | Value::Object(_) => Vec::new(),
    }
}

/// Every leaf of `value`, as a JSON pointer and as the path of the table.
fn leaves(value: &Value, pointer: &str, path: &str, found: &mut Vec<(String, String)>) {
    let join =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        // Opaque to the log: one field.
        _ if path.ends_with(".schema") => found.push((pointer.to_owned(), path.to_owned())),
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(value, &format!("{pointer}/{name}"), &join(name), found);
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                leaves(value, &format!("{pointer}/{index}"), &format!("{path}[]"), found);
            }
        }
        _ => found.push((pointer.to_owned(), path.to_owned())),
    }
}

#[test]
fn every_field_of_an_entry_matters() {
    let out = tempfile::tempdir().unwrap();
    let (contents, numbers) = half_way(out.path());
    let out = freeze(out.path());
    let out = out.path();
    let store = copy(&contents);
    let name = format!("log/{:020}.json", newest(&store));
    let entry: Entry = record::decode(&contents[&name], 1).unwrap();
    let whole = serde_json::to_value(&entry).unwrap();
    let usual = restart(&contents, out, &numbers).unwrap();
    let again = restart(&contents, out, &numbers).unwrap();
    assert_eq!(usual, again, "a restart from the same entry is the same");

    let mut found = Vec::new();
    leaves(&whole, "", "", &mut found);
    let mut effects: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (pointer, path) in &found {
        let Some((known, _)) = FIELDS.iter().find(|(field, _)| field == path) else {
            wrong.push(format!("{path} is a field that the table doesn't have"));
            continue;
        };
        let value = whole.pointer(pointer).unwrap();
        let values =
            if path.ends_with(".schema") { vec![json!({ "other": 1 })] } else { others(value) };
        for other in values {
            let mut changed = whole.clone();
            *changed.pointer_mut(pointer).unwrap() = other.clone();
            // What isn't an entry at all is damage, and the subject of another test.
            let Ok(changed) = serde_json::from_value::<Entry>(changed) else { continue };
            let mut contents = contents.clone();
            contents.insert(name.clone(), record::encode(&changed).unwrap().into());
            let effects = effects.entry(known).or_default();
            match restart(&contents, out, &numbers) {
                Err(error) if error.starts_with("it ") => {
                    wrong.push(format!("{pointer} = {other}: {error}"));
                }
                Err(error) => {
                    effects.insert(format!("! {error}"));
                }
                Ok(seen) => {
                    let differ =
                        seen.iter().filter(|(what, value)| usual.get(*what) != Some(value));
                    effects.extend(differ.map(|(what, _)| (*what).to_owned()));
                }
            }
        }
    }
    for (field, effect) in FIELDS {
        let Some(effects) = effects.get(field) else {
            wrong.push(format!("{field} isn't in this entry"));
            continue;
        };
        let refused = |words: &str| {
            effects.iter().any(|effect| effect.starts_with('!') && effect.contains(words))
        };
        let as_it_should = match effect {
            Refused(words) => refused(words),
            Differs(what) => effects.contains(*what),
            RefusedOrDiffers(words, what) => refused(words) || effects.contains(*what),
            AlwaysRefused => {
                !effects.is_empty() && effects.iter().all(|effect| effect.starts_with('!'))
            }
            NoEffect(why) => !why.is_empty() && effects.is_empty(),
        };
        if !as_it_should {
            wrong.push(format!("{field}: {effects:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
