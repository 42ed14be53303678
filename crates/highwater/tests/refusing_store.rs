//! A store that refuses objects for a while costs nothing but checkpoints: the next one that commits has everything.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use highwater::testing::{Collect, Script, Test};
use support::{Fate, Ruled, contents, lock, memory};

#[test]
fn refused_objects_of_one_worker() {
    runs_on_while_objects_are_refused(1);
}

#[test]
fn refused_objects_of_one_of_two_workers() {
    runs_on_while_objects_are_refused(2);
}

/// A worker's object can't be stored for two checkpoints; the third has everything.
fn runs_on_while_objects_are_refused(workers: usize) {
    let inner = memory();
    let objects: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let seen = objects.clone();
    let store = Ruled::over(&inner, move |what, name, _| {
        if what != "put" || !name.ends_with("-w0000.hw") {
            return Fate::Done;
        }
        let mut objects = lock(&seen);
        objects.insert(name.to_owned());
        // The second and the third object of the first worker, however often it is tried.
        match objects.iter().skip(1).take(2).any(|refused| refused == name) {
            true => Fate::Lost,
            false => Fate::Done,
        }
    });
    let words = |from: u64| (from..from + 300).map(|word| word * word % 23).collect::<Vec<u64>>();
    let script = Script::new()
        .records(words(0))
        .checkpoint()
        .records(words(1_000))
        // Comes only when it is committed: with the fourth object.
        .checkpoint()
        .records(words(2_000))
        .crash()
        .records(words(3_000));
    let run = Test::new(workers).then(3 - workers).store(store).run(|job| {
        let words = job.read("words", script);
        words.write("all", Collect);
        words.key_by(|word| *word).count().uid("counts").write("counts-out", Collect);
    });
    let run = run.unwrap();
    assert_eq!(run.attempts(), 2, "the crash of the script is the only reason to start again");
    assert_eq!(run.outcome().recovered_from.map(|entry| entry > 1), Some(true));
    let (objects, there) = (lock(&objects), contents(&inner));
    assert!(objects.len() > 3, "{objects:?}");
    assert!(objects.iter().skip(1).take(2).all(|refused| !there.contains_key(refused)));

    let mut expected: Vec<u64> = [0, 1_000, 2_000, 3_000].map(words).concat();
    let mut all = run.committed::<u64>("all");
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    expected.iter().for_each(|word| *counts.entry(*word).or_default() += 1);
    let found = run.last_per_key::<u64, u64>("counts-out").into_iter().collect();
    assert_eq!(counts, found);
    all.sort();
    expected.sort();
    assert_eq!(all, expected);
}
