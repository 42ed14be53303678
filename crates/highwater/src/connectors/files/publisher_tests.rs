use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use highwater_log::StagedItem;
use highwater_runtime::Batch;
use highwater_runtime::connector::{Away, Sink, Writer};

use super::super::Files;
use super::super::place::{Folder, Place as _};
use super::*;
use crate::connectors::Csv;
use crate::connectors::IntoSink;
use crate::connectors::testing::{Place, cut};

type Row = (String, u64);

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Worst {
    carrier: String,
    delay: u64,
}

/// A place, and a sink in it.
struct Bench {
    place: Place,
    files: Files<Csv>,
    starts_over: bool,
}

impl Bench {
    fn new() -> Self {
        let place = Place::new();
        let files = Files::csv(place.folder.path().join("out/worst"));
        Bench { place, files, starts_over: false }
    }

    fn folder(&self) -> Folder {
        Folder::new(&self.files.path)
    }

    fn writer(&self, attempt: u64, worker: usize) -> Box<dyn Writer> {
        let sink = IntoSink::<Worst>::into_sink(self.files.clone());
        sink.writer(self.place.writer(attempt, worker)).unwrap()
    }

    fn publisher(&self, job_id: &str, attempt: u64) -> Box<dyn Publisher> {
        let sink = IntoSink::<Worst>::into_sink(self.files.clone());
        let mut context = self.place.publisher(job_id, attempt);
        context.starts_over = self.starts_over;
        sink.publisher(context).unwrap()
    }

    fn prepare(&self, job_id: &str, attempt: u64) -> Result<(), BoxError> {
        self.place.wait(self.publisher(job_id, attempt).prepare())
    }

    fn publish(&self, attempt: u64, items: &[StagedItem]) -> Result<(), BoxError> {
        self.place.wait(self.publisher("job", attempt).publish(9, items.to_vec()))
    }

    fn stage(
        &self,
        writer: &mut dyn Writer,
        interval: u32,
        rows: &[(&str, u64)],
    ) -> Vec<StagedItem> {
        let row = |(carrier, delay): &(&str, u64)| Worst {
            carrier: (*carrier).to_owned(),
            delay: *delay,
        };
        writer.write(Batch::new::<Vec<Worst>>(rows.iter().map(row).collect())).unwrap();
        cut(writer, interval, self.place.env.as_ref())
    }

    /// One planned item.
    fn planned(&self, attempt: u64, interval: u32, rows: &[(&str, u64)]) -> Vec<StagedItem> {
        self.prepare("job", attempt).unwrap();
        let mut writer = self.writer(attempt, 0);
        let mut items = self.stage(writer.as_mut(), interval, rows);
        self.publisher("job", attempt).plan(&mut items, 0, false);
        items
    }

    fn parts(&self) -> BTreeMap<String, String> {
        files_in(&self.files.path)
    }

    fn staged(&self) -> Vec<String> {
        files_in(&self.folder().staged()).into_keys().collect()
    }
}

fn files_in(folder: &Path) -> BTreeMap<String, String> {
    let entries = folder.read_dir().unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let named = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    files.map(|entry| named(entry.path())).collect()
}

fn parts<const N: usize>(parts: [(&str, &str); N]) -> BTreeMap<String, String> {
    parts.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

const PART: &str = "part-a0000000001-i0000000004-w0000-n0000.csv";
const TEXT: &str = "carrier,delay\nAA,1\n\"B,B\",2\n";
const ROWS: &[(&str, u64)] = &[("AA", 1), ("B,B", 2)];

#[test]
fn a_part_appears_when_it_is_published_and_again_is_the_same() {
    let bench = Bench::new();
    bench.prepare("job", 1).unwrap();
    let items = bench.planned(1, 4, ROWS);
    assert_eq!(items.len(), 1);
    assert_eq!((items[0].rows, items[0].bytes), (2, TEXT.len() as u64));
    assert_eq!(items[0].checksum, format!("{:016x}", xxh3_64(TEXT.as_bytes())));
    assert_eq!(items[0].part.as_deref(), Some(PART));
    assert_eq!(bench.parts(), parts([]));
    assert_eq!(bench.staged().len(), 1);
    for attempt in [1, 1, 2] {
        bench.publish(attempt, &items).unwrap();
        assert_eq!(bench.parts(), parts([(PART, TEXT)]));
        assert_eq!(bench.staged(), [""; 0]);
    }
}

#[test]
fn an_interval_without_rows_stages_nothing() {
    let bench = Bench::new();
    bench.prepare("job", 1).unwrap();
    let mut writer = bench.writer(1, 0);
    let env = bench.place.env.clone();
    assert_eq!(cut(writer.as_mut(), 1, env.as_ref()), []);
    assert_eq!(bench.stage(writer.as_mut(), 2, ROWS).len(), 1);
    assert_eq!(cut(writer.as_mut(), 3, env.as_ref()), []);
    assert_eq!(writer.queued_bytes(), 0);
}

#[test]
fn a_crash_between_link_and_removal_is_made_good() {
    let bench = Bench::new();
    let items = bench.planned(1, 4, ROWS);
    let staged = bench.folder().staged().join(&items[0].name);
    std::fs::hard_link(&staged, bench.files.path.join(PART)).unwrap();
    bench.publish(2, &items).unwrap();
    assert_eq!(bench.parts(), parts([(PART, TEXT)]));
    assert_eq!(bench.staged(), [""; 0]);
}

#[test]
fn committed_output_that_is_gone_or_damaged_is_an_error() {
    let bench = Bench::new();
    let items = bench.planned(1, 4, ROWS);
    let staged = bench.folder().staged().join(&items[0].name);
    std::fs::write(&staged, "short").unwrap();
    let error = bench.publish(1, &items).unwrap_err().to_string();
    assert!(error.contains(&items[0].name) && error.contains("5 bytes instead of 27"), "{error}");
    // One bit, in a file whose length is right.
    std::fs::write(&staged, TEXT.replace("AA", "AC")).unwrap();
    let error = bench.publish(1, &items).unwrap_err();
    assert!(error.is::<Lasting>() && error.to_string().contains(&items[0].name), "{error}");
    assert!(error.to_string().contains("doesn't have the content that was written"), "{error}");
    assert_eq!(bench.parts(), parts([]), "nothing of it is visible");
    std::fs::remove_file(&staged).unwrap();
    let error = bench.publish(1, &items).unwrap_err().to_string();
    assert!(error.contains(&items[0].name) && error.contains(PART), "{error}");
    assert_eq!(bench.parts(), parts([]));
}

#[test]
fn a_part_is_never_overwritten() {
    let bench = Bench::new();
    let items = bench.planned(1, 4, ROWS);
    std::fs::write(bench.files.path.join(PART), "mine").unwrap();
    let error = bench.publish(1, &items).unwrap_err().to_string();
    assert!(error.contains("exists with other content"), "{error}");
    assert_eq!(bench.parts(), parts([(PART, "mine")]));
    assert_eq!(bench.staged().len(), 1);
    // Nor taken for the right one because it is as long.
    let mine = TEXT.replace("AA", "AC");
    std::fs::write(bench.files.path.join(PART), &mine).unwrap();
    bench.publish(1, &items).unwrap_err();
    assert_eq!(bench.parts(), parts([(PART, &mine)]));
}

#[test]
fn foreign_folders_are_refused() {
    let bench = Bench::new();
    std::fs::create_dir_all(&bench.files.path).unwrap();
    std::fs::write(bench.files.path.join("mine.csv"), "").unwrap();
    let error = bench.prepare("job", 1).unwrap_err().to_string();
    assert!(error.contains("mine.csv") && error.contains("choose an empty folder"), "{error}");
    assert!(!bench.files.path.join(".highwater").exists(), "nothing was touched");
    std::fs::remove_file(bench.files.path.join("mine.csv")).unwrap();
    bench.prepare("job", 1).unwrap();
    bench.prepare("job", 2).unwrap();
    let error = bench.prepare("another", 1).unwrap_err().to_string();
    assert!(
        error.contains("belongs to the sink `out` of the job `test` with the log job"),
        "{error}"
    );
}

#[test]
fn a_claim_survives_a_crash_in_the_middle() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.folder().staged()).unwrap();
    std::fs::write(bench.files.path.join(".highwater/owner.json.new"), "{").unwrap();
    bench.prepare("job", 1).unwrap();
    assert!(bench.prepare("another", 1).is_err());
}

#[test]
fn starting_over_takes_back_what_is_ours() {
    let mut bench = Bench::new();
    bench.prepare("job", 1).unwrap();
    let items = bench.planned(1, 4, ROWS);
    bench.publish(1, &items).unwrap();
    bench.planned(1, 5, ROWS);
    std::fs::write(bench.files.path.join("mine.csv"), "mine").unwrap();
    bench.prepare("job", 2).unwrap();
    assert_eq!((bench.parts().len(), bench.staged().len()), (2, 1));
    bench.starts_over = true;
    bench.prepare("job", 2).unwrap();
    assert_eq!(bench.parts(), parts([("mine.csv", "mine")]));
    assert_eq!(bench.staged(), [""; 0]);
}

#[test]
fn leftovers_go_when_nothing_older_is_waited_for() {
    let bench = Bench::new();
    bench.prepare("job", 1).unwrap();
    let carried = bench.planned(1, 4, ROWS);
    bench.planned(1, 5, ROWS);
    std::fs::write(bench.folder().staged().join(Staged::open_name(1, 0, 0)), "x").unwrap();
    let own = bench.planned(2, 5, ROWS);
    let newer = bench.planned(3, 6, ROWS);
    assert_eq!(bench.staged().len(), 5);
    bench.publish(2, &carried).unwrap();
    assert_eq!(bench.staged().len(), 4);
    bench.publish(2, &own).unwrap();
    assert_eq!(bench.staged(), [newer[0].name.clone()]);
    assert_eq!(bench.parts().len(), 2);
}

#[test]
fn large_output_of_an_interval_is_several_items() {
    let mut bench = Bench::new();
    bench.files = bench.files.clone().roll_bytes(300 << 10);
    let row = ("x".repeat(1000), 1);
    let rows: Vec<(&str, u64)> = vec![(row.0.as_str(), row.1); 1000];
    bench.prepare("job", 1).unwrap();
    let mut writer = bench.writer(1, 2);
    let mut items = bench.stage(writer.as_mut(), 7, &rows);
    assert_eq!(items.len(), 2);
    bench.publisher("job", 1).plan(&mut items, 0, false);
    bench.publish(1, &items).unwrap();
    let found = bench.parts();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "part-a0000000001-i0000000007-w0002-n0000.csv",
            "part-a0000000001-i0000000007-w0002-n0001.csv"
        ]
    );
    let lines = |text: &String| {
        assert!(text.starts_with("carrier,delay\nxxx"));
        text.lines().count() - 1
    };
    assert_eq!(found.values().map(lines).sum::<usize>(), 1000);
}

fn item(interval: u64, worker: u64, time_ms: u64, bytes: u64) -> StagedItem {
    let staged = Staged { attempt: 1, interval, worker, number: 0, time_ms, columns: None };
    StagedItem { name: staged.name(), bytes, rows: 1, checksum: String::new(), part: None }
}

fn planned(items: &mut [StagedItem], roll: Roll, clock_ms: u64, last: bool) -> Vec<Option<String>> {
    plan(items, roll, "csv", clock_ms, last);
    items.iter().map(|item| item.part.clone()).collect()
}

#[test]
fn items_wait_until_they_are_old_or_enough() {
    let roll = Roll { bytes: 100, age: Duration::from_secs(10) };
    let part = |interval: u64| Some(format!("part-a0000000001-i{interval:010}-w0000-n0000.csv"));
    let waiting = || vec![item(4, 0, 1000, 10), item(4, 1, 1500, 10), item(5, 0, 9000, 10)];
    assert_eq!(planned(&mut waiting(), roll, 10_999, false), [None, None, None]);
    // Named after the newest.
    assert_eq!(planned(&mut waiting(), roll, 11_000, false), [part(5), part(5), part(5)]);
    assert_eq!(planned(&mut waiting(), roll, 2_000, true), [part(5), part(5), part(5)]);
    // A clock that went back makes nothing old.
    assert_eq!(planned(&mut waiting(), roll, 0, false), [None, None, None]);
    let mut enough = waiting();
    enough[1].bytes = 90;
    let second = Some("part-a0000000001-i0000000004-w0001-n0000.csv".to_owned());
    assert_eq!(planned(&mut enough, roll, 9_000, false), [second.clone(), second.clone(), None]);
    // What is decided stays, whatever is decided next.
    let mut again = enough.clone();
    assert_eq!(planned(&mut again, roll, 19_000, false), [second.clone(), second, part(5)]);
    let each = Roll { age: Duration::ZERO, ..roll };
    let own = "part-a0000000001-i0000000004-w0001-n0000.csv".to_owned();
    assert_eq!(planned(&mut waiting(), each, 0, false), [part(4), Some(own), part(5)]);
}

/// Files of other columns, since the job was changed in between, can't become one.
#[test]
fn items_of_other_columns_are_parts_of_their_own() {
    let roll = Roll { bytes: 100, age: Duration::from_secs(10) };
    let of = |interval, columns| {
        let staged = Staged {
            attempt: 1,
            interval,
            worker: 0,
            number: 0,
            time_ms: 1000,
            columns: Some(columns),
        };
        StagedItem { name: staged.name(), ..item(interval, 0, 1000, 10) }
    };
    let part = |interval: u64| Some(format!("part-a0000000001-i{interval:010}-w0000-n0000.csv"));
    let mut items = vec![of(1, 7), of(2, 7), of(3, 8), of(4, 8)];
    // The first can't grow any more, so that there is nothing to wait for.
    assert_eq!(planned(&mut items, roll, 1_000, false), [part(2), part(2), None, None]);
    assert_eq!(planned(&mut items, roll, 11_000, false), [part(2), part(2), part(4), part(4)]);
}

#[test]
fn only_so_many_items_wait() {
    let roll = Roll { bytes: u64::MAX, age: Duration::from_secs(3600) };
    let of = |partition: &str, interval| {
        let item = item(interval, 0, 0, 1);
        StagedItem { name: partition::join(partition, &item.name), ..item }
    };
    let (few, most) = (10, HELD_MAX as u64);
    let mut items: Vec<StagedItem> = (0..few).map(|interval| of("x=1", interval)).collect();
    items.extend((few..most).map(|interval| of("x=2", interval)));
    assert!(!plan(&mut items, roll, "csv", 1000, false));
    assert!(items.iter().all(|item| item.part.is_none()));
    items.push(of("x=1", most));
    assert!(plan(&mut items.clone(), roll, "csv", 1000, false), "it is said");
    let parts = planned(&mut items, roll, 1000, false);
    let waiting: Vec<usize> = (0..items.len()).filter(|at| parts[*at].is_none()).collect();
    let expected: Vec<usize> = (0..few as usize).chain([HELD_MAX]).collect();
    assert_eq!(waiting, expected, "the larger partition becomes a part");
}

#[test]
fn a_part_of_several_items_has_one_header_and_survives_crashes() {
    let mut bench = Bench::new();
    bench.files = bench.files.clone().roll_age(Duration::from_secs(3600));
    bench.prepare("job", 1).unwrap();
    let (mut first, mut second) = (bench.writer(1, 0), bench.writer(1, 1));
    let mut items = bench.stage(first.as_mut(), 4, &[("AA", 1)]);
    items.extend(bench.stage(second.as_mut(), 4, &[("BB", 2)]));
    items.extend(bench.stage(first.as_mut(), 5, &[("CC", 3)]));
    let publisher = bench.publisher("job", 1);
    publisher.plan(&mut items, 0, false);
    assert!(items.iter().all(|item| item.part.is_none()));
    publisher.plan(&mut items, 0, true);
    let part = "part-a0000000001-i0000000005-w0000-n0000.csv";
    let joined = parts([(part, "carrier,delay\nAA,1\nBB,2\nCC,3\n")]);

    // A crash while it was put together, then one between link and removal, then one in the middle of removal.
    std::fs::write(bench.files.path.join(joined_name(1, part)), "carr").unwrap();
    let keep = |item: &StagedItem| {
        let path = bench.folder().staged().join(&item.name);
        (path.clone(), std::fs::read(path).unwrap())
    };
    let kept: Vec<_> = items.iter().map(keep).collect();
    for there in [3, 3, 1, 0] {
        for (path, content) in &kept[3 - there..] {
            std::fs::write(path, content).unwrap();
        }
        bench.publish(1, &items).unwrap();
        assert_eq!(bench.parts(), joined);
        assert_eq!(bench.staged(), [""; 0]);
        assert!(!bench.files.path.join(joined_name(1, part)).exists());
    }

    // Whoever goes on from the checkpoint before the last doubles it.
    assert!(bench.folder().check_covered(2, 4).is_err());
    bench.folder().check_covered(2, 5).unwrap();
    // Other content under that name is nobody's but somebody else's.
    for (path, content) in &kept {
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(bench.files.path.join(part), "carrier,delay\nAA,1\n").unwrap();
    let error = bench.publish(1, &items).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");

    std::fs::remove_file(bench.files.path.join(part)).unwrap();
    for (path, _) in &kept {
        std::fs::remove_file(path).unwrap();
    }
    let error = bench.publish(1, &items).unwrap_err().to_string();
    assert!(error.contains("neither"), "{error}");
    for (path, content) in &kept {
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(&kept[1].0, "carrier,delay\nBB,3\n").unwrap();
    let error = bench.publish(1, &items).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
    assert_eq!(bench.parts(), parts([]));
}

#[test]
fn text_and_json_are_written_as_lines() {
    let place = Place::new();
    let write = |sink: Arc<dyn highwater_runtime::connector::Sink>, batch: Batch| {
        let publisher = sink.publisher(place.publisher("job", 1)).unwrap();
        place.wait(publisher.prepare()).unwrap();
        let mut writer = sink.writer(place.writer(1, 0)).unwrap();
        writer.write(batch).unwrap();
        let mut items = cut(writer.as_mut(), 1, place.env.as_ref());
        publisher.plan(&mut items, 0, false);
        place.wait(publisher.publish(1, items)).unwrap();
    };
    let (text, json) = (place.folder.path().join("text"), place.folder.path().join("json"));
    write(IntoSink::<u64>::into_sink(Files::text(&text)), Batch::new(vec![1_u64, 2]));
    let rows: Vec<Row> = vec![("a\nb".to_owned(), 1)];
    write(IntoSink::<Row>::into_sink(Files::ndjson(&json)), Batch::new(rows));
    assert_eq!(
        files_in(&text),
        parts([("part-a0000000001-i0000000001-w0000-n0000.txt", "1\n2\n")])
    );
    assert_eq!(
        files_in(&json),
        parts([("part-a0000000001-i0000000001-w0000-n0000.ndjson", "[\"a\\nb\",1]\n")])
    );
}

#[test]
fn places_that_can_never_be_are_refused_with_the_graph() {
    let check = |files: Files<Csv>| IntoSink::<Row>::into_sink(files).check();
    for (path, words) in [
        ("gs://bucket/out", "output location `gs://bucket/out`: there is no store `gs`"),
        ("file:///out", "write `/out`"),
        ("s3:///out", "names no bucket"),
    ] {
        let error = check(Files::csv(path)).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    if cfg!(feature = "s3") {
        let large = |bytes| check(Files::csv("s3://bucket/out").roll_bytes(bytes));
        large(2 << 30).unwrap();
        assert!(large(3 << 30).unwrap_err().contains("2.5 GB at the most"));
    }
    check(Files::csv("out").roll_bytes(3 << 30)).unwrap();
}

#[test]
fn a_destination_that_cannot_be_is_an_error() {
    let bench = Bench::new();
    // A file where the folder should be.
    std::fs::write(bench.place.folder.path().join("out"), "").unwrap();
    let error = bench.prepare("job", 1).unwrap_err().to_string();
    assert!(error.contains("out/worst"), "{error}");
}

#[test]
fn a_folder_that_is_gone_is_waited_for_and_never_made_anew() {
    let bench = Bench::new();
    bench.prepare("job", 1).unwrap();
    let mut writer = bench.writer(1, 0);
    let items = bench.stage(writer.as_mut(), 1, &[("AA", 1)]);
    let (there, away) = (bench.folder().path, bench.place.folder.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    let error = bench.publish(1, &items).unwrap_err();
    assert!(error.is::<Away>(), "{error}");
    writer.write(Batch::new(vec![Worst { carrier: "BB".to_owned(), delay: 2 }])).unwrap();
    writer.cut(2).unwrap();
    for _ in 0..50 {
        assert_eq!(writer.staged().unwrap(), None);
        crate::connectors::testing::nap(bench.place.env.as_ref());
    }
    // The next attempt of the same run doesn't claim another one either.
    let mut context = bench.place.publisher("job", 2);
    context.begun = true;
    let sink = IntoSink::<Worst>::into_sink(bench.files.clone());
    let publisher = sink.publisher(context).unwrap();
    let error = bench.place.wait(publisher.prepare()).unwrap_err();
    assert!(error.is::<Away>() && error.to_string().contains("put it back"), "{error}");
    assert!(!there.exists());
    std::fs::rename(&away, &there).unwrap();
    bench.publish(1, &items).unwrap();
    let more = loop {
        if let Some(items) = writer.staged().unwrap() {
            break items;
        }
        crate::connectors::testing::nap(bench.place.env.as_ref());
    };
    assert_eq!((more.len(), more[0].rows), (1, 1));
    bench.place.wait(publisher.prepare()).unwrap();
}

#[test]
fn parts_that_are_put_together_one_after_the_other_are_files_of_their_own() {
    let bench = Bench::new();
    bench.prepare("job", 1).unwrap();
    let mut writer = bench.writer(1, 0);
    let mut items = Vec::new();
    for delay in 0..4_u32 {
        items.extend(bench.stage(writer.as_mut(), delay + 1, &[("AA", delay.into())]));
    }
    for (item, part) in
        items.iter_mut().zip(["part-1.csv", "part-1.csv", "part-2.csv", "part-2.csv"])
    {
        item.part = Some(part.to_owned());
    }
    bench.publish(1, &items).unwrap();
    let texts: Vec<String> = parts_in(&bench, "").into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["carrier,delay\nAA,0\nAA,1\n", "carrier,delay\nAA,2\nAA,3\n"]);
}

/// Rows whose partition is the carrier.
fn partitioned(bench: &Bench) -> Arc<dyn Sink> {
    let files = bench.files.clone();
    files.partition_by(["carrier"], |row: &Worst| [row.carrier.clone()]).into_sink()
}

fn parts_in(bench: &Bench, folder: &str) -> Vec<(String, String)> {
    let folder = bench.folder().path.join(folder);
    let mut parts: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    parts.sort();
    parts
}

#[test]
fn each_partition_gets_parts_of_its_own_in_its_folder() {
    let bench = Bench::new();
    bench.prepare("job", 1).unwrap();
    let sink = partitioned(&bench);
    let mut writer = sink.writer(bench.place.writer(1, 0)).unwrap();
    let rows = [("A/A", 1), ("", 2), ("A/A", 3)];
    let mut items = bench.stage(writer.as_mut(), 1, &rows);
    let publisher = sink.publisher(bench.place.publisher("job", 1)).unwrap();
    publisher.plan(&mut items, 0, false);
    // Again, as after a crash at any point.
    for _ in 0..2 {
        bench.place.wait(publisher.publish(9, items.clone())).unwrap();
    }
    let header = "carrier,delay\n";
    let found = parts_in(&bench, "carrier=A%2FA");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1, format!("{header}A/A,1\nA/A,3\n"));
    let name = |number| format!("part-a0000000001-i0000000001-w0000-n{number:04}.csv");
    assert!([name(0), name(1)].contains(&found[0].0), "{}", found[0].0);
    let empty = parts_in(&bench, "carrier=__HIVE_DEFAULT_PARTITION__");
    assert_eq!(empty[0].1, format!("{header},2\n"));
    assert!(parts_in(&bench, "").is_empty() && parts_in(&bench, ".highwater/staged").is_empty());
    // What no log covers is found there, too, and taken back when the job starts over.
    let error = bench.folder().check_covered(2, 0).unwrap_err().to_string();
    assert!(error.contains("carrier=") && error.contains("part-a"), "{error}");
    bench.folder().clear(2).unwrap();
    assert!(!bench.folder().path.join("carrier=A%2FA").exists());
}

#[test]
fn many_partitions_need_few_open_files() {
    let bench = Bench::new();
    bench.prepare("job", 1).unwrap();
    let sink = partitioned(&bench);
    let mut writer = sink.writer(bench.place.writer(1, 0)).unwrap();
    let open = || {
        let ours = bench.folder().staged().canonicalize().unwrap();
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        links
            .filter(|link| fs::read_link(link.path()).is_ok_and(|to| to.starts_with(&ours)))
            .count()
    };
    let padding = "x".repeat(100);
    let mut most = 0;
    // Each round is more than what is gathered, so that every file is written to several times.
    for round in 0..3 {
        let row = |n: u64| Worst {
            carrier: format!("{}-{padding}", n % 200),
            delay: round * 100_000 + n,
        };
        writer.write(Batch::new::<Vec<Worst>>((0..30_000).map(row).collect())).unwrap();
        // As many as may be stay open until the cut.
        while most < 64 {
            crate::connectors::testing::nap(bench.place.env.as_ref());
            most = open();
        }
        most = most.max(open());
    }
    let mut items = cut(writer.as_mut(), 1, bench.place.env.as_ref());
    assert_eq!(most, 64, "files were open");
    assert_eq!(items.len(), 200);
    let publisher = sink.publisher(bench.place.publisher("job", 1)).unwrap();
    publisher.plan(&mut items, 0, false);
    bench.place.wait(publisher.publish(9, items)).unwrap();
    for n in [0, 77, 199] {
        let found = parts_in(&bench, &format!("carrier={n}-{padding}"));
        let delays: Vec<u64> = found[0]
            .1
            .lines()
            .skip(1)
            .map(|line| line.rsplit(',').next().unwrap().parse().unwrap())
            .collect();
        let expected =
            (0..3).flat_map(|round| (0..150).map(move |k| round * 100_000 + n + 200 * k));
        assert_eq!(delays, expected.collect::<Vec<u64>>());
    }
}

#[test]
fn partitions_wait_for_their_age_by_themselves() {
    let roll = Roll { bytes: 1 << 30, age: Duration::from_secs(10) };
    let item = |partition: &str, interval, time_ms| {
        let staged = Staged { attempt: 1, interval, worker: 0, number: 0, time_ms, columns: None };
        let name = partition::join(partition, &staged.name());
        StagedItem { name, bytes: 10, rows: 1, checksum: String::new(), part: None }
    };
    let mut items = vec![item("d=1", 1, 1_000), item("d=2", 1, 9_000), item("d=1", 2, 9_000)];
    plan(&mut items, roll, "csv", 11_000, false);
    let part = "d=1/part-a0000000001-i0000000002-w0000-n0000.csv";
    let parts: Vec<_> = items.iter().map(|item| item.part.as_deref()).collect();
    assert_eq!(parts, [Some(part), None, Some(part)]);
}
