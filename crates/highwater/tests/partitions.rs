//! Files in folders by the values of columns: every row is there once, in its folder, whatever happens.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use highwater::connectors::Files;
use highwater::testing::{Script, Test};

/// The rows in a folder, by the name of the folder that they are in.
fn rows(out: &Path) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for folder in out.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        if name == ".highwater" {
            assert_eq!(folder.join("staged").read_dir().unwrap().count(), 0, "all is published");
            continue;
        }
        for part in folder.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            let text = std::fs::read_to_string(part).unwrap();
            let numbers = text.lines().map(|line| line.parse::<u64>().unwrap());
            found.entry(name.clone()).or_default().extend(numbers);
        }
    }
    found.values_mut().for_each(|rows| rows.sort_unstable());
    found
}

#[test]
fn every_row_is_in_its_folder_once() {
    for age in [Duration::ZERO, Duration::from_secs(3600)] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let script = Script::new()
            .records(0..3000)
            .checkpoint()
            .records(3000..4000)
            .crash()
            .records(4000..5000)
            .checkpoint()
            .crash()
            .records(5000..6000);
        let run = Test::new(2).then(3).then(1).run(|job| {
            let files = Files::ndjson(&out).roll_age(age);
            let files = files.partition_by(["last"], |n: &u64| [n % 10]);
            job.read("in", script).rebalance().write("out", files);
        });
        assert_eq!(run.unwrap().attempts(), 3);
        let found = rows(&out);
        assert_eq!(found.len(), 10);
        for last in 0..10 {
            let expected: Vec<u64> = (0..600).map(|k| 10 * k + last).collect();
            assert_eq!(found[&format!("last={last}")], expected);
        }
    }
}
