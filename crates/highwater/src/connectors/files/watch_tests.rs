use std::path::PathBuf;
use std::time::SystemTime;

use highwater_runtime::connector::SplitOffset;

use super::super::Files;
use super::*;
use crate::connectors::testing::{env, no_waker};

/// Between two looks; no file of these tests is as young as this but for those that are said to be new.
const INTERVAL: Duration = Duration::from_secs(100);

fn write(folder: &Path, name: &str, is_new: bool) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, name).unwrap();
    if !is_new {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + INTERVAL).unwrap();
    }
    path
}

fn look(folder: &Path, in_order: bool, known: &[(String, SplitOffset)]) -> Look {
    let files = Files::text(folder);
    let place = match in_order {
        true => files.watch_in_order(INTERVAL).place(),
        false => files.watch(INTERVAL).place(),
    };
    let ids: Vec<String> = known.iter().map(|(id, _)| id.clone()).collect();
    Look { known: KnownFiles::of(&ids), ids, place, in_order }
}

/// The names of what a look finds and releases.
fn names(found: &Found) -> (Vec<String>, Vec<String>) {
    let name = |id: &String| Path::new(id).file_name().unwrap().to_str().unwrap().to_owned();
    let splits = found.splits.iter().map(|(id, _)| name(id)).collect();
    (splits, found.released.iter().map(name).collect())
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_file_is_taken_once_when_nobody_writes_to_it_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut looking = look(root, false, &[]);
    assert_eq!(looking.look(), Found::default());
    write(root, "b", false);
    write(root, "c", true);
    assert_eq!(names(&looking.look()), (strings(&["b"]), vec![]));
    write(root, "a", false);
    write(root, "c", false);
    let found = looking.look();
    assert_eq!(names(&found), (strings(&["a", "c"]), vec![]));
    assert!(found.splits.iter().all(|(_, offset)| offset.check != 0));
    assert_eq!(looking.look(), Found::default());
    // Also at the next start.
    assert_eq!(look(root, false, &found.splits).look().splits.len(), 1);
}

#[test]
fn in_order_only_the_last_file_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["a", "b", "d"] {
        write(root, name, false);
    }
    let mut looking = look(root, true, &[]);
    let first = looking.look();
    assert_eq!(names(&first), (strings(&["a", "b", "d"]), strings(&["a", "b"])));
    write(root, "c", false); // too late
    write(root, "e", true);
    write(root, "f", false);
    // `f` would shut `e` out.
    assert_eq!(looking.look(), Found::default());
    write(root, "e", false);
    assert_eq!(names(&looking.look()), (strings(&["e", "f"]), strings(&["d", "e"])));

    // The next start knows nothing but the last one.
    let mut looking = look(root, true, &first.splits[2..]);
    assert_eq!(names(&looking.look()), (strings(&["e", "f"]), strings(&["d", "e"])));
}

#[test]
fn what_cannot_be_read_yet_is_left_for_later() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "a#0-1", false);
    write(root, "b", false);
    assert_eq!(names(&look(root, false, &[]).look()), (strings(&["b"]), vec![]));
    assert_eq!(look(root, true, &[]).look(), Found::default());
    let missing = look(&root.join("missing"), false, &[]).look();
    assert_eq!(missing, Found::default());
}

#[test]
fn the_task_hands_over_what_it_finds_and_ends_with_the_finder() {
    let folder = tempfile::tempdir().unwrap();
    let interval = Duration::from_millis(1);
    let (place, env) = (Files::text(folder.path()).watch(interval).place(), env());
    let known = Vec::new();
    let context =
        FinderContext { uid: "in".to_owned(), known, env: env.clone(), waker: no_waker() };
    let mut finder = FileFinder::start(place, Watch { interval, in_order: false }, context);
    for name in ["a", "b"] {
        write(folder.path(), name, false);
        let found = loop {
            let found = finder.poll().unwrap();
            if found != Found::default() {
                break found;
            }
            crate::connectors::testing::nap(env.as_ref());
        };
        assert_eq!(names(&found), (strings(&[name]), vec![]));
    }
}

/// A job that would never find anything any more doesn't run on as if nothing were.
#[test]
fn a_look_that_panics_ends_the_attempt() {
    let (sender, found) = unbounded_channel();
    let mut finder = FileFinder { found };
    assert_eq!(finder.poll().unwrap(), Found::default());
    drop(sender);
    let error = finder.poll().unwrap_err().to_string();
    assert!(error.contains("looking for new files has panicked"), "{error}");
}
