//! What jobs have stored, looked at by the program: `checkpoint list`, `show` and `verify`, of whole logs and of damaged ones.

mod jobs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jobs::{Place, Said};

#[test]
#[ignore = "the other tests run it, as a job"]
fn job() {
    jobs::run();
}

const LIST: &str = "checkpoint list .highwater/numbers";
const SHOW: &str = "checkpoint show .highwater/numbers";
const VERIFY: &str = "checkpoint verify .highwater/numbers";

const LIMIT: u64 = 5_000;

/// A job that has ended, and has kept several checkpoints.
fn ended() -> Place {
    let place = Place::new();
    place.start("--checkpoint-interval 20ms --keep 5 --workers 2", LIMIT, 5_000).finish();
    place
}

/// Every file below `folder`, with what is in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    files
}

fn numbers(list: &Said) -> Vec<u64> {
    let list = list.json();
    let checkpoints = list["checkpoints"].as_array().unwrap();
    checkpoints.iter().map(|row| row["number"].as_u64().unwrap()).collect()
}

#[test]
fn whole_checkpoints_are_listed_shown_and_verified_and_nothing_is_touched() {
    let place = ended();
    let before = files(place.path());
    let said = place.highwater(&format!("{LIST} --json"));
    assert_eq!((said.code, said.json()["job"].as_str()), (0, Some("numbers")), "{said:?}");
    let listed = numbers(&said);
    assert!(listed.len() > 1 && listed.is_sorted(), "{listed:?}");
    let said = place.highwater(LIST);
    assert!(said.out.contains("newest, the job had ended"), "{said:?}");

    let said = place.highwater(&format!("{SHOW} --json"));
    let shown = said.json();
    assert_eq!((said.code, shown["number"].as_u64()), (0, listed.last().copied()));
    let splits = shown["sources"][0]["splits"].as_array().unwrap();
    assert!(splits.iter().all(|split| split["ended"] == true), "{shown}");
    let read: u64 = splits.iter().filter_map(|split| split["records"].as_u64()).sum();
    assert_eq!((splits.len(), read), (2, LIMIT), "{shown}");
    let said = place.highwater(&format!("{SHOW} {}", listed[0]));
    for words in ["source numbers (2 splits)", "count", "2 workers, 256 key groups", "garbage"] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }

    let said = place.highwater(&format!("{VERIFY} --json"));
    let verified = said.json();
    assert_eq!((said.code, &verified["sound"]), (0, &true.into()), "{said:?}");
    let newest = verified["checkpoints"].as_array().unwrap().last().unwrap();
    // 100 classes, and two splits.
    assert!(newest["rows"].as_u64() >= Some(102), "{newest}");
    let said = place.highwater(VERIFY);
    assert!(said.out.contains("everything is whole"), "{said:?}");
    assert!(said.out.contains(&format!("goes on from checkpoint {}", listed.last().unwrap())));
    assert!(files(place.path()) == before, "something was written");
}

/// Changes what is stored in every way that must be found, and puts it right again.
#[test]
fn what_is_broken_is_named() {
    let place = ended();
    let stored = files(&place.checkpoints());
    let newest = *numbers(&place.highwater(&format!("{LIST} --json"))).last().unwrap();
    let entry = format!("{newest:020}.json");
    let shown = place.highwater(&format!("{SHOW} --json")).json();
    let object =
        shown["objects"][0]["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let manifest =
        shown["manifest"]["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let flipped = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Some(bytes)
    };
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        Some(bytes)
    };
    type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;
    let damages: [(&str, Damage); 4] =
        [("gone", |_| None), ("flipped", flipped), ("cut", cut), ("empty", |_| Some(Vec::new()))];
    for name in [&object, &manifest, &entry] {
        let (path, content) =
            stored.iter().find(|(path, _)| path.ends_with(name)).expect("it is there");
        for (what, damage) in damages {
            match damage(content.clone()) {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            let said = place.highwater(VERIFY);
            // The last entry of all may be missing: perhaps it was never written.
            let sound = *name == entry && what == "gone";
            assert_eq!(said.code, i32::from(!sound), "{name} {what}: {said:?}");
            let named = said.out.lines().any(|line| line.contains("BROKEN") && line.contains(name));
            assert!(named || sound, "{name} {what}: {said:?}");
            assert_eq!(sound, !said.out.contains("not everything is whole"), "{said:?}");
            fs::write(path, content).unwrap();
        }
    }
    assert_eq!(place.highwater(VERIFY).code, 0, "all is put right");
}

#[test]
fn a_running_job_that_collects_is_never_called_broken() {
    let place = Place::new();
    let _job = place.start("--checkpoint-interval 10ms --keep 1", 0, 20_000);
    let newest = |list: &serde_json::Value| {
        let checkpoints = list["checkpoints"].as_array().unwrap();
        checkpoints.last().and_then(|row| row["number"].as_u64()).unwrap_or_default()
    };
    let begin = newest(&place.wait(LIST, |list| newest(list) > 0));
    let mut rounds = 0;
    // Long enough that everything of the beginning has been collected.
    while newest(&place.wait(LIST, |_| true)) < begin + 50 || rounds < 20 {
        let said = place.highwater(VERIFY);
        assert!(said.code == 0 && said.out.contains("everything is whole"), "{said:?}");
        rounds += 1;
    }
}

#[test]
fn what_is_no_log_is_refused_with_a_reason() {
    let place = Place::new();
    fs::create_dir(place.path().join("empty")).unwrap();
    for (line, why) in [
        ("checkpoint list nowhere", "no directory of that name"),
        ("checkpoint verify empty", "no job keeps its checkpoints there"),
        ("checkpoint list ftp://bucket/job", "no store `ftp`"),
        ("checkpoint show nowhere x", "invalid value 'x'"),
        ("checkpoint", "Usage"),
    ] {
        let said = place.highwater(line);
        assert!(
            said.code == 2 && said.err.contains(why) && said.out.is_empty(),
            "{line}: {said:?}"
        );
    }
    assert!(!place.path().join("nowhere").exists());
    let place = ended();
    let listed = numbers(&place.highwater(&format!("{LIST} --json")));
    let said = place.highwater(&format!("{SHOW} 99999"));
    assert!(said.code == 2 && said.err.contains("no checkpoint has the number 99999"), "{said:?}");
    assert!(said.err.contains(&listed[0].to_string()), "{said:?}");
}
