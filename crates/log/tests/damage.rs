//! Damage is found and named, and every rule of falling back or refusing holds on a real directory.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use common::{Fault, Request, commit, history, memory, open, open_faulty, run, staged};
use highwater_log::{
    Base, CheckpointEntry, Facts, Found, Log, LogError, Manifest, ObjectRef, Started, Store, Why,
    names,
};
use object_store::ObjectStoreExt;
use object_store::path::Path;

/// A job in a directory.
struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        Place { directory, store }
    }

    fn log(&self) -> Log {
        open(&self.store, 1)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("jobs/flights").join(name)
    }

    fn base(&self, broken: &[u64], exactly_once: bool) -> Base {
        let broken = broken.iter().map(|number| (*number, "broken".to_owned())).collect();
        start(&self.store).base(&broken, exactly_once)
    }
}

fn start(store: &Store) -> Started {
    let log = open(store, 99);
    run(async move { log.start(2, false).await.unwrap() })
}

fn read(store: &Store) -> Facts {
    let log = open(store, 99);
    run(async move { log.read().await.unwrap() })
}

type Damaging = fn(&FilePath);

/// The ways to damage a file, and what each is to be called.
fn damages() -> [(&'static str, Damaging); 5] {
    [
        ("missing", |file| fs::remove_file(file).unwrap()),
        ("truncated", |file| fs::write(file, "").unwrap()),
        ("truncated", |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("checksum", |file| flip(file, 0)),
        ("checksum", |file| flip(file, fs::metadata(file).unwrap().len() as usize / 2)),
    ]
}

fn flip(file: &FilePath, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn refused(base: Base, path: &str) {
    match base {
        Base::Refuse { why, what_to_do } => {
            assert!(why.contains(path), "{why}");
            assert!(what_to_do.contains("--fresh"), "{what_to_do}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_of_entries_manifests_and_objects_is_named() {
    for (what, damage) in damages() {
        for name in [names::entry(1), names::manifest(0, 1), names::object(0, 1, 0)] {
            let place = Place::new();
            let log = place.log();
            let error = run(async move {
                history(&log, 1).await;
                let facts = log.read().await.unwrap();
                let manifest = facts.checkpoint(1).unwrap().manifest.clone();
                let object = log.get_manifest(&manifest).await.unwrap().objects[0].clone();
                assert_eq!(log.get_object(&object).await.unwrap(), "state 0 1");
                (log, manifest, object)
            });
            let (log, manifest, object) = error;
            damage(&place.file(&name));
            let entry = name.starts_with("log");
            let result = run(async move {
                if entry {
                    log.committed(1).await.map(|_| ())
                } else {
                    log.get_manifest(&manifest).await?;
                    log.get_object(&object).await.map(|_| ())
                }
            });
            let error = result.unwrap_err();
            assert!(matches!(error, LogError::Damaged(_)), "{error}");
            let text = error.to_string();
            let path = place.file(&name).display().to_string();
            assert!(text.contains(&path) && text.contains(what), "{text}");
        }
    }
}

#[test]
fn objects_of_another_length_say_so() {
    let place = Place::new();
    let log = place.log();
    run(async move {
        let object = log.put_object("data/x", "12345".into()).await.unwrap();
        for (content, what) in [("1234", "has 4 of 5"), ("123456", "6 bytes instead of 5")] {
            fs::write(place.file("data/x"), content).unwrap();
            let text = log.get_object(&object).await.unwrap_err().to_string();
            assert!(text.contains(what), "{text}");
        }
    });
}

#[test]
fn damaged_checkpoints_fall_back_or_refuse() {
    for (_, damage) in damages() {
        let place = Place::new();
        let log = place.log();
        run(async move { history(&log, 2).await });
        damage(&place.file(&names::entry(2)));
        let path = place.file(&names::entry(2)).display().to_string();
        let empty = fs::read(&path).is_ok_and(|bytes| bytes.is_empty());
        let gone = !place.file(&names::entry(2)).exists();
        // The number of a file that is gone is free, and the next attempt takes it: nobody can know that
        // the newest entry is missing. One that is merely damaged is taken.
        let base = place.base(&[], true);
        if gone {
            assert_eq!(base, Base::Checkpoint(1));
        } else {
            refused(base, &path);
            match empty {
                // It may have been anything.
                true => refused(place.base(&[], false), &path),
                false => assert_eq!(place.base(&[], false), Base::Checkpoint(1)),
            }
        }
    }
}

#[test]
fn a_vanished_checkpoint_below_an_attempt_is_missed() {
    let place = Place::new();
    let log = place.log();
    run(async move { history(&log, 2).await });
    start(&place.store);
    fs::remove_file(place.file(&names::entry(2))).unwrap();
    refused(place.base(&[], true), &names::entry(2));
    assert_eq!(place.base(&[], false), Base::Checkpoint(1));
    fs::remove_file(place.file(&names::entry(1))).unwrap();
    refused(place.base(&[], false), &names::entry(2));
}

#[test]
fn damaged_attempts_are_not_gone_behind() {
    let place = Place::new();
    let log = place.log();
    run(async move { history(&log, 2).await });
    start(&place.store);
    flip(&place.file(&names::entry(3)), 9);
    for exactly_once in [false, true] {
        refused(place.base(&[], exactly_once), &names::entry(3));
    }
    // All attempts' entries damaged: who the job is can't be read, and no attempt is added.
    let before = read(&place.store).tail().unwrap();
    for number in (0..=before).filter(|number| *number != 3) {
        if fs::read_to_string(place.file(&names::entry(number))).unwrap().contains("\"fresh\"") {
            flip(&place.file(&names::entry(number)), 9);
        }
    }
    let log = place.log();
    let error = run(async move { log.start(2, false).await.unwrap_err() });
    assert!(error.to_string().contains(&names::entry(0)), "{error}");
    assert_eq!(read(&place.store).tail(), Some(before));
}

#[test]
fn what_was_skipped_once_is_never_chosen_again() {
    let place = Place::new();
    let log = place.log();
    run(async move { history(&log, 3).await });
    // Not exactly-once: 3 is broken, so 2 is the base, and 5 builds upon that.
    let second = place.log();
    run(async move {
        let started = second.start(2, false).await.unwrap();
        let broken = BTreeMap::from([(3, "broken".to_owned())]);
        assert_eq!(started.base(&broken, false), Base::Checkpoint(2));
        commit(&second, 4, Some(2), |_| {}).await.unwrap();
    });
    for exactly_once in [false, true] {
        assert_eq!(place.base(&[], exactly_once), Base::Checkpoint(5));
        // 3 is whole again, but history went on without it.
        assert_eq!(place.base(&[5], exactly_once), Base::Checkpoint(2));
        assert_eq!(place.base(&[5, 2], exactly_once), Base::Checkpoint(1));
        refused(place.base(&[5, 2, 1], exactly_once), "broken");
    }
}

#[test]
fn published_output_is_not_gone_behind() {
    let place = Place::new();
    let log = place.log();
    run(async move {
        history(&log, 1).await;
        let held = |entry: &mut CheckpointEntry| entry.staged = vec![staged(1, None)];
        commit(&log, 0, Some(1), held).await.unwrap();
        let own = |entry: &mut CheckpointEntry| entry.staged = vec![staged(3, Some("p"))];
        commit(&log, 0, Some(2), own).await.unwrap();
    });
    assert_eq!(place.base(&[3], false), Base::Checkpoint(2));
    refused(place.base(&[3], true), "published");
    fs::remove_file(place.file(&names::entry(3))).unwrap();
    assert_eq!(place.base(&[2, 3], false), Base::Checkpoint(1));
}

#[test]
fn entries_that_are_not_of_this_log_are_no_entries_of_it() {
    let place = Place::new();
    let log = place.log();
    run(async move { history(&log, 1).await });
    // A copy under another number.
    fs::copy(place.file(&names::entry(1)), place.file(&names::entry(2))).unwrap();
    let facts = read(&place.store);
    let Some(Found::Damaged(damage)) = facts.entries.get(&2) else { panic!("{facts:?}") };
    assert!(damage.to_string().contains(&names::entry(1)), "{damage}");
    fs::remove_file(place.file(&names::entry(2))).unwrap();
    // A stray file is left alone.
    fs::write(place.file("log/notes.txt"), "x").unwrap();
    assert_eq!(read(&place.store).entries.len(), 2);
    // Another job's log.
    let other = Log::new(
        place.store.clone(),
        Path::from("jobs/flights"),
        common::TestEnv::new(5),
        "trains",
    );
    let error = run(async move { other.start(2, false).await.unwrap_err() });
    assert!(matches!(error, LogError::OtherJob { .. }), "{error}");
    assert!(error.to_string().contains("flights"), "{error}");
}

#[test]
fn names_hold_one_content() {
    run(async {
        let (log, faulty) = open_faulty(&memory(), 1);
        let one = log.put_object("data/x", "one".into()).await.unwrap();
        assert_eq!(log.put_object("data/x", "one".into()).await.unwrap(), one);
        let error = log.put_object("data/x", "two".into()).await.unwrap_err();
        assert!(matches!(error, LogError::Conflict { .. }), "{error}");
        let error = log.put_object("data//x", "two".into()).await.unwrap_err();
        assert!(matches!(error, LogError::Name { .. }), "{error}");
        for _ in 0..10 {
            faulty.next(Request::Put, "data/y", Fault::Before);
        }
        let error = log.put_object("data/y", "one".into()).await.unwrap_err();
        assert!(matches!(error, LogError::Unavailable { tries: 10, .. }), "{error}");
        let missing = log.get_object(&ObjectRef::new("data/y", b"one")).await.unwrap_err();
        assert!(matches!(missing, LogError::Damaged(damage) if damage.why == Why::Missing));
    });
}

#[test]
fn what_cannot_be_deleted_is_given_back() {
    run(async {
        let store = memory();
        let (log, faulty) = open_faulty(&store, 1);
        history(&log, 1).await;
        let object = names::object(0, 1, 0);
        let all = [object.clone(), names::entry(1), names::entry(7), names::object(0, 9, 0)];
        // The entry withstands: what it names stays as well.
        faulty.next(Request::Delete, "", Fault::Before);
        let left: BTreeSet<String> = log.delete(&all).await.unwrap().into_iter().collect();
        assert_eq!(left, [all[0].clone(), all[1].clone(), all[3].clone()].into());
        let path = Path::from(format!("jobs/flights/{object}"));
        store.objects().head(&path).await.unwrap();
        assert!(log.delete(&all).await.unwrap().is_empty());
        assert!(store.objects().head(&path).await.is_err());
        faulty.next(Request::Delete, "", Fault::Before);
        assert_eq!(log.delete(std::slice::from_ref(&object)).await.unwrap(), [object]);
    });
}

#[test]
fn leftovers_are_of_older_attempts_only() {
    let place = Place::new();
    let log = place.log();
    run(async move {
        history(&log, 1).await;
        let mut manifest = Manifest { format: 1, objects: vec![] };
        for attempt in [0, 5, 6] {
            for name in [names::object(attempt, 3, 1), names::staged(attempt, 3, 1, "my/sink", 2)] {
                manifest.objects.push(log.put_object(&name, "x".into()).await.unwrap());
            }
        }
        log.put_object("data/stray", "x".into()).await.unwrap();
        let half = ["data/.tmp-a0000000000-i0000000003-w0001.hw-9-9", "data/.tmp-other"];
        for name in half {
            fs::write(place.file(name), "x").unwrap();
        }
        let referenced = [names::object(0, 1, 0), names::manifest(0, 1), names::object(0, 3, 1)];
        let left = log.leftovers(6, &referenced.into()).await.unwrap();
        let mut expected = vec![
            half[0].to_owned(),
            names::object(5, 3, 1),
            names::staged(0, 3, 1, "my/sink", 2),
            names::staged(5, 3, 1, "my/sink", 2),
        ];
        expected.sort();
        assert_eq!(left, expected);
        assert!(log.delete(&left).await.unwrap().is_empty());
        assert!(!place.file(half[0]).exists());
        let again = log.leftovers(6, &BTreeSet::new()).await.unwrap();
        assert_eq!(again, [names::manifest(0, 1), names::object(0, 1, 0), names::object(0, 3, 1)]);
    });
}
