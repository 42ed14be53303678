//! Kept examples of every format version, and what each field of an entry is for.

mod common;

use std::collections::BTreeMap;

use common::{memory, open, run};
use highwater_log::{
    AttemptEntry, Base, Body, CheckpointEntry, Configuration, Entry, Found, LogError, Manifest,
    ObjectRef, OperatorEntry, StagedItem, StagedOutput, StateEntry, Store, Why, names, record,
};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::{Value, json};

const ATTEMPT_1: &[u8] = include_bytes!("fixtures/attempt-v1.json");
const CHECKPOINT_1: &[u8] = include_bytes!("fixtures/checkpoint-v1.json");
const MANIFEST_1: &[u8] = include_bytes!("fixtures/manifest-v1.json");

fn attempt() -> Entry {
    Entry {
        format: 1,
        number: 4,
        nonce: "00112233445566778899aabbccddeeff".to_owned(),
        attempt: 4,
        job: "flights".to_owned(),
        body: Body::Attempt(AttemptEntry {
            job_id: "ffeeddccbbaa99887766554433221100".to_owned(),
            started_ms: 1_700_000_000_000,
            workers: 2,
            fresh: false,
        }),
    }
}

fn checkpoint() -> Entry {
    let schema = json!({ "fields": [{ "name": "carrier", "type": "Utf8" }] });
    let state = StateEntry { name: "last".to_owned(), kind: "value".to_owned(), schema };
    let item = |n: u64, part: Option<&str>| StagedItem {
        name: names::staged(4, 8, 1, "worst", n),
        bytes: 120,
        rows: 3,
        checksum: "0123456789abcdef".to_owned(),
        part: part.map(str::to_owned),
    };
    let body = CheckpointEntry {
        previous: Some(3),
        interval: 8,
        epoch: 812,
        clock_ms: 1_700_000_001_000,
        trigger: 9,
        configuration: Configuration { workers: 2, key_groups: 256, hash_version: 1 },
        graph: vec![OperatorEntry {
            uid: "silent".to_owned(),
            kind: "process".to_owned(),
            states: vec![state],
        }],
        manifest: ObjectRef::new(&names::manifest(4, 8), MANIFEST_1),
        staged: vec![StagedOutput {
            sink: "worst".to_owned(),
            checkpoint: 5,
            items: vec![item(0, Some("part-5-1-0")), item(1, None)],
        }],
        garbage: vec![names::entry(1), names::object(0, 1, 0)],
        finished: false,
    };
    Entry { number: 5, body: Body::Checkpoint(Box::new(body)), ..attempt() }
}

fn manifest() -> Manifest {
    let objects = [(0, 2, 0), (4, 8, 0), (4, 8, 1)];
    let object = |(a, i, w)| ObjectRef::new(&names::object(a, i, w), b"an example");
    Manifest { format: 1, objects: objects.map(object).into() }
}

#[test]
fn kept_examples_of_version_1_are_read() {
    assert_eq!(record::decode::<Entry>(ATTEMPT_1, 1).unwrap(), attempt());
    assert_eq!(record::decode::<Entry>(CHECKPOINT_1, 1).unwrap(), checkpoint());
    assert_eq!(record::decode::<Manifest>(MANIFEST_1, 1).unwrap(), manifest());
    // It is also what is written; when a later version is, these three lines go.
    assert_eq!(record::encode(&attempt()).unwrap(), ATTEMPT_1);
    assert_eq!(record::encode(&checkpoint()).unwrap(), CHECKPOINT_1);
    assert_eq!(record::encode(&manifest()).unwrap(), MANIFEST_1);
}

/// Every path to a field within a value, leaving out what is opaque.
fn fields(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                let path = format!("{path}/{name}");
                found.push(path.clone());
                if name != "schema" {
                    fields(inner, &path, found);
                }
            }
        }
        Value::Array(array) => {
            for (at, inner) in array.iter().enumerate() {
                fields(inner, &format!("{path}/{at}"), found);
            }
        }
        _ => {}
    }
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes.split(|byte| *byte == b'\n').next().unwrap()).unwrap()
}

#[test]
fn every_field_is_read_and_none_is_optional_or_ignored() {
    for example in [ATTEMPT_1, CHECKPOINT_1] {
        let value = parse(example);
        let whole = record::decode::<Entry>(example, 1).unwrap();
        let mut paths = Vec::new();
        fields(&value, "", &mut paths);
        assert!(paths.len() > 8);
        for path in paths {
            let (parent, name) = path.rsplit_once('/').unwrap();
            let mut without = value.clone();
            let object = without.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            let field = object.remove(name).unwrap();
            let read = record::decode::<Entry>(&record::encode(&without).unwrap(), 1);
            assert!(matches!(read, Err(Why::Malformed(_))), "{path}: {read:?}");
            let object = without.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            object.insert(name.to_owned(), field.clone());
            object.insert("unknown".to_owned(), field.clone());
            let read = record::decode::<Entry>(&record::encode(&without).unwrap(), 1);
            assert!(matches!(read, Err(Why::Malformed(_))), "{path}: {read:?}");

            let mut changed = value.clone();
            *changed.pointer_mut(&path).unwrap() = match field {
                Value::Number(number) => json!(number.as_u64().unwrap() + 1),
                Value::String(text) => json!(format!("{text}x")),
                Value::Bool(flag) => json!(!flag),
                Value::Array(_) => json!([]),
                // Objects and options: no value of another type will do.
                _ => json!(true),
            };
            let read = record::decode::<Entry>(&record::encode(&changed).unwrap(), 1);
            assert_ne!(read.as_ref(), Ok(&whole), "{path}");
        }
    }
}

async fn put(store: &Store, number: u64, value: &Value) {
    let path = Path::from(format!("jobs/flights/{}", names::entry(number)));
    store.objects().put(&path, record::encode(value).unwrap().into()).await.unwrap();
}

/// What the log makes of a history of three whole entries (an attempt, a checkpoint that staged output,
/// an older checkpoint below) in which one field was changed.
async fn outcome(entries: &BTreeMap<u64, Value>, exactly_once: bool) -> String {
    let store = memory();
    for (number, value) in entries {
        put(&store, *number, value).await;
    }
    let log = open(&store, 9);
    let facts = match log.read().await {
        Ok(facts) => facts,
        Err(error) => return error.to_string(),
    };
    let damaged = facts.entries.values().any(|found| matches!(found, Found::Damaged(_)));
    let started = match log.start(2, false).await {
        Ok(started) => started,
        Err(error) => return error.to_string(),
    };
    let mut broken = BTreeMap::new();
    loop {
        let base = started.base(&broken, exactly_once);
        let Base::Checkpoint(number) = base else {
            return format!("{damaged} {} {base:?} {broken:?}", started.job_id);
        };
        let checkpoint = facts.checkpoint(number).unwrap();
        if let Err(error) = log.get_manifest(&checkpoint.manifest).await {
            assert!(matches!(error, LogError::Damaged(_)), "{error}");
            broken.insert(number, error.to_string());
            continue;
        }
        return format!("{damaged} {} {base:?} {broken:?}", started.job_id);
    }
}

#[test]
fn every_field_that_the_log_interprets_matters() {
    run(async {
        // Two checkpoints, of which the newer's chain is broken (no manifest exists), so that its links and
        // its output decide.
        let mut older = checkpoint();
        let mut newer = checkpoint();
        older.number = 2;
        newer.number = 3;
        for entry in [&mut older, &mut newer] {
            entry.attempt = 1;
            let Body::Checkpoint(body) = &mut entry.body else { unreachable!() };
            (body.previous, body.staged, body.garbage) = (None, Vec::new(), Vec::new());
        }
        let Body::Checkpoint(body) = &mut newer.body else { unreachable!() };
        body.previous = Some(2);
        body.garbage = vec!["data/nothing".to_owned()];
        body.staged = vec![checkpoint().checkpoint().unwrap().staged[0].clone()];
        body.staged[0].checkpoint = 2;
        body.staged[0].items.remove(0);
        let value = |entry: &Entry| serde_json::to_value(entry).unwrap();
        let start = |number: u64| {
            let mut entry = attempt();
            (entry.number, entry.attempt) = (number, number);
            value(&entry)
        };
        let history =
            BTreeMap::from([(0, start(0)), (1, start(1)), (2, value(&older)), (3, value(&newer))]);
        let normal = outcome(&history, true).await;
        assert!(normal.contains("Refuse") && normal.contains("missing"), "{normal}");

        let body = "/body/checkpoint";
        for (number, path, changed) in [
            (3, "/format".to_owned(), json!(2)),
            (3, "/number".to_owned(), json!(4)),
            (3, "/attempt".to_owned(), json!(3)),
            (3, "/job".to_owned(), json!("trains")),
            (3, format!("{body}/previous"), json!(null)),
            (3, format!("{body}/previous"), json!(3)),
            (3, format!("{body}/manifest/name"), json!("data/elsewhere")),
            (3, format!("{body}/staged/0/checkpoint"), json!(3)),
            (3, format!("{body}/staged/0/items/0/part"), json!("part")),
            (3, format!("{body}/garbage/0"), json!(names::entry(2))),
            (1, "/attempt".to_owned(), json!(0)),
            (1, "/body/attempt/job_id".to_owned(), json!("another")),
        ] {
            let mut history = history.clone();
            *history.get_mut(&number).unwrap().pointer_mut(&path).unwrap() = changed;
            // The chain of the older checkpoint is broken too, unless nobody comes to it.
            assert_ne!(outcome(&history, true).await, normal, "{number} {path}");
        }
        // An attempt that started over hides what is below it.
        let over = BTreeMap::from([(0, start(0)), (1, value(&older).clone()), (2, start(2))]);
        let mut fresh = over.clone();
        *fresh.get_mut(&2).unwrap().pointer_mut("/body/attempt/fresh").unwrap() = json!(true);
        assert_ne!(outcome(&over, true).await, outcome(&fresh, true).await);
    });
}

#[test]
fn every_field_of_an_object_reference_matters() {
    run(async {
        let log = open(&memory(), 1);
        let whole = log.put_manifest(4, 8, &manifest()).await.unwrap();
        assert_eq!(whole, ObjectRef::new(&names::manifest(4, 8), MANIFEST_1));
        assert_eq!(log.get_manifest(&whole).await.unwrap(), manifest());
        let name = ObjectRef { name: names::manifest(4, 9), ..whole.clone() };
        let bytes = ObjectRef { bytes: whole.bytes - 1, ..whole.clone() };
        let checksum = ObjectRef { checksum: "0".repeat(16), ..whole.clone() };
        for changed in [name, bytes, checksum] {
            let error = log.get_manifest(&changed).await.unwrap_err();
            assert!(matches!(error, LogError::Damaged(_)), "{error}");
        }
        // An object that is whole, but no manifest.
        let other = log.put_object("data/other", "{}".into()).await.unwrap();
        assert!(matches!(log.get_manifest(&other).await, Err(LogError::Damaged(_))));
        let later = record::encode(&json!({ "format": 2 })).unwrap();
        let later = log.put_object("data/later", later.into()).await.unwrap();
        let error = log.get_manifest(&later).await.unwrap_err();
        assert!(error.to_string().contains("format version 2"), "{error}");
    });
}
