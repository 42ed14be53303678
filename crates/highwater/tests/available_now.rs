//! The trigger available-now: what is there is read, in several triggers, and the next start goes on with what is new.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use highwater::connectors::{Files, Generator};
use highwater::testing::{Collect, Run, Script, Test};
use highwater::{Job, Trigger};
use highwater_log::Store;
use object_store::memory::InMemory;

fn in_triggers_of(rows: u64) -> Test {
    Test::new(2).settings(|settings| settings.trigger = Trigger::AvailableNow { rows })
}

fn write(folder: &Path, name: &str, words: &[&str]) {
    fs::write(folder.join(name), words.join("\n") + "\n").unwrap();
}

/// Counts words of a folder, and the one word of a script beside it, which crashes once if so asked.
fn count(job: &Job, folder: &Path, crash: bool) {
    let words = job.read("words", Files::text(folder));
    let beside = match crash {
        true => Script::new().record("beside".to_owned()).checkpoint().crash(),
        false => Script::new().record("beside".to_owned()),
    };
    let words = words.union(&job.read("beside", beside));
    let counts = words.key_by(|word: &String| word.clone()).update_state_by_key(
        |_, new: Vec<String>, old: Option<u64>| Some(old.unwrap_or(0) + new.len() as u64),
    );
    counts.uid("counts").write("out", Collect);
}

fn counted(run: &Run) -> Vec<(String, u64)> {
    let mut counted: Vec<_> = run.last_per_key::<String, u64>("out").into_iter().collect();
    counted.sort();
    counted
}

fn expected(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

#[test]
fn each_start_reads_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::from_objects(Arc::new(InMemory::new()));
    let run = |crash| {
        let test = in_triggers_of(10).store(store.clone()).then(3);
        test.run(|job| count(job, folder.path(), crash)).unwrap()
    };
    write(folder.path(), "a", &["tea", "tea", "cocoa"]);
    let first = run(false);
    assert!(first.outcome().finished && !first.outcome().already_finished);
    assert_eq!(counted(&first), expected(&[("beside", 1), ("cocoa", 1), ("tea", 2)]));

    // Nothing is new: that's no reason to read anything again, or to wait.
    let nothing = run(false);
    assert_eq!(nothing.outcome().records_in, 0);
    assert!(nothing.outcome().recovered_from.is_some() && !nothing.outcome().already_finished);

    write(folder.path(), "b", &["tea", "milk"]);
    let second = run(false);
    assert_eq!(second.outcome().records_in, 2);
    let all = [("beside", 1), ("cocoa", 1), ("milk", 1), ("tea", 3)];
    assert_eq!(counted(&second), expected(&all));
}

#[test]
fn a_crash_in_the_middle_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        write(folder.path(), name, &["tea"; 1000]);
    }
    let run = in_triggers_of(100).then(1).run(|job| count(job, folder.path(), true)).unwrap();
    assert_eq!(run.attempts(), 2);
    assert_eq!(counted(&run), expected(&[("beside", 1), ("tea", 3000)]));
}

/// A trigger of one row each, and one more at the end, at which every key is told again.
#[test]
fn triggers_are_of_bounded_size() {
    let words = |job: &Job| {
        let mut script = Script::new();
        for _ in 0..5 {
            script = script.record("tea".to_owned()).epoch();
        }
        let keyed = job.read("in", script).key_by(|word| word.clone());
        let sums = keyed.update_state_by_key(|_, new: Vec<String>, old: Option<u64>| {
            Some(old.unwrap_or(0) + new.len() as u64)
        });
        sums.uid("sums").write("out", Collect);
    };
    let told = |rows| {
        let run = in_triggers_of(rows).run(words).unwrap();
        let told = run.committed::<(String, u64)>("out");
        told.into_iter().map(|(_, count)| count).collect::<Vec<_>>()
    };
    assert_eq!(told(1), [1, 2, 3, 4, 5, 5]);
    assert_eq!(told(3), [3, 5]);
    assert_eq!(told(100), [5]);
}

#[test]
fn a_generator_needs_a_limit_and_goes_on_behind_it() {
    let store = Store::from_objects(Arc::new(InMemory::new()));
    let run = |generator: Generator<_>| {
        let test = in_triggers_of(100).store(store.clone());
        test.run(|job| job.read("numbers", generator).write("out", Collect))
    };
    let generator = Generator::new(|index: u64| index);
    let error = run(generator.clone()).unwrap_err().to_string();
    assert!(error.contains("numbers") && error.contains("`.limit(rows)`"), "{error}");
    for limit in [1_000, 1_500] {
        let mut rows = run(generator.clone().limit(limit)).unwrap().committed::<u64>("out");
        rows.sort_unstable();
        assert_eq!(rows, (0..limit).collect::<Vec<_>>());
    }
}
