use std::io::Write;

use highwater_runtime::connector::{Malformed, MalformedRecords};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::Files;
use super::*;
use crate::connectors::Csv;
use crate::connectors::testing::{Both, at_begin, drain, drain_with_rejects, env, no_waker, poll};

pub(super) fn reader<T: Data, F: ReadFormat<T>>(
    files: &Files<F>,
    splits: Vec<(String, SplitOffset)>,
    env: &dyn Env,
) -> ThreadedReader<T, Records<F::Parser>> {
    reader_with(files, splits, env, MalformedRecords::default(), usize::MAX)
}

/// Reads at most so many rows at once.
fn reader_with<T: Data, F: ReadFormat<T>>(
    files: &Files<F>,
    splits: Vec<(String, SplitOffset)>,
    env: &dyn Env,
    malformed: MalformedRecords,
    rows: usize,
) -> ThreadedReader<T, Records<F::Parser>> {
    let source = FileSource::<T, F> {
        place: files.place(),
        format: files.format.clone(),
        longest_record: files.longest_record,
        rate: None,
        rows: PhantomData,
    };
    let reader = source.start(env, no_waker(), ReaderProgress::default());
    let mut reader = reader.with(malformed, rows);
    reader.add(splits, 1).unwrap();
    reader
}

fn read_all<T: Data, F: ReadFormat<T>>(files: &Files<F>) -> Result<Vec<T>, BoxError> {
    let env = env();
    drain(&mut reader(files, files.place().splits(&[])?, env.as_ref()), env.as_ref())
}

pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut zipped = Vec::new();
    // Two members, as when files are put together.
    for part in [&content[..content.len() / 2], &content[content.len() / 2..]] {
        let mut member = flate2::write::GzEncoder::new(&mut zipped, flate2::Compression::fast());
        member.write_all(part).unwrap();
        member.finish().unwrap();
    }
    zipped
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flight {
    carrier: String,
    delay: i32,
}

fn text_content() -> impl Strategy<Value = String> {
    let line =
        prop_oneof![2 => "[a-zé ]{0,8}", 1 => Just(String::new()), 1 => Just("#".repeat(30))];
    let end = prop_oneof![4 => Just("\n"), 1 => Just("\r\n")];
    let lines = prop::collection::vec((line, end), 0..30);
    (lines, "[a-z]{0,5}").prop_map(|(lines, last)| {
        lines.into_iter().map(|(line, end)| line + end).collect::<String>() + &last
    })
}

fn lines_of(content: &str) -> Vec<String> {
    // `str::lines` is the judge; it strips `\n` and `\r\n`.
    content.lines().map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every line once, in order, whatever the pieces, and from wherever it goes on.
    #[test]
    fn every_line_is_read_once(content in text_content(), piece in 1..80_u64, zip in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if zip { "a.txt.gz" } else { "a.txt" });
        let bytes = if zip { gzip(content.as_bytes()) } else { content.clone().into_bytes() };
        std::fs::write(&path, bytes).unwrap();
        let files = Files::text(&path).split_bytes(piece);
        let env = env();
        let splits = files.place().splits(&[]).unwrap();
        let mut all = Vec::new();
        for (id, begin) in splits {
            let mut whole = Vec::new();
            // From the begin to its end, then from each record's offset.
            let mut offsets = vec![begin];
            let progress = |offset: &SplitOffset| vec![(id.clone(), offset.clone())];
            let mut one = reader(&files, progress(&offsets[0]), env.as_ref());
            one.limit_rows(1);
            while let Some(rows) = poll::<String>(&mut one, env.as_ref()).unwrap() {
                whole.extend(rows);
                offsets.push(one.offsets().remove(0).1);
            }
            for (read, offset) in offsets.iter().enumerate().filter(|(_, offset)| !offset.ended) {
                prop_assert_eq!(offset.records, read as u64);
                let mut rest = reader(&files, progress(offset), env.as_ref());
                prop_assert_eq!(&drain::<String>(&mut rest, env.as_ref()).unwrap(), &whole[read..]);
                let (_, end) = rest.offsets().remove(0);
                prop_assert!(end.ended);
                prop_assert_eq!(end.records, whole.len() as u64);
            }
            all.extend(whole);
        }
        prop_assert_eq!(all, lines_of(&content));
    }

    /// Quotes, line ends in quotes and records larger than a block don't matter.
    #[test]
    fn every_csv_record_is_read_once(
        fields in prop::collection::vec("[a-z\",\n]{0,6}", 0..40),
        long in 0..3_usize,
        zip in any::<bool>(),
    ) {
        let mut rows: Vec<Flight> =
            fields.into_iter().map(|carrier| Flight { carrier, delay: 3 }).collect();
        for row in rows.iter_mut().take(long) {
            row.carrier = "long\n\"line\" ".repeat(60_000);
        }
        let mut judge = ::csv::Writer::from_writer(Vec::new());
        for row in &rows {
            judge.serialize(row).unwrap();
        }
        let content = judge.into_inner().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if zip { "a.csv.gz" } else { "a.csv" });
        std::fs::write(&path, if zip { gzip(&content) } else { content }).unwrap();
        let files = Files::csv(&path);
        prop_assert_eq!(&read_all::<Flight, _>(&files).unwrap(), &rows);

        let env = env();
        let id = path.to_str().unwrap().to_owned();
        let mut one = reader::<Flight, Csv>(&files, at_begin(std::slice::from_ref(&id)), env.as_ref());
        one.limit_rows(7);
        let mut read = 0;
        while let Some(some) = poll::<Flight>(&mut one, env.as_ref()).unwrap() {
            read += some.len();
            let (_, offset) = one.offsets().remove(0);
            let mut rest = reader::<Flight, Csv>(&files, vec![(id.clone(), offset)], env.as_ref());
            prop_assert_eq!(&drain::<Flight>(&mut rest, env.as_ref()).unwrap(), &rows[read..]);
        }
    }
}

fn file(name: &str, content: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn flights(rows: &[(&str, i32)]) -> Vec<Flight> {
    rows.iter()
        .map(|(carrier, delay)| Flight { carrier: (*carrier).to_owned(), delay: *delay })
        .collect()
}

#[test]
fn csv_has_a_header_or_none() {
    let (_folder, path) = file("a.csv", "\u{feff}\r\ndelay;carrier\r\n\r\n3;AA\r\n4;\"B;B\"");
    let files = Files::csv(&path).delimiter(b';');
    assert_eq!(read_all::<Flight, _>(&files).unwrap(), flights(&[("AA", 3), ("B;B", 4)]));
    let (_folder, path) = file("a.csv", "AA,3\nBB,4\n");
    let files = Files::csv(&path).without_header();
    assert_eq!(read_all::<Flight, _>(&files).unwrap(), flights(&[("AA", 3), ("BB", 4)]));
}

#[test]
fn csv_that_is_cut_has_its_header_in_every_piece() {
    let content: String = (0..50).map(|n| format!("{n},\"C,{n}\"\n")).collect();
    let (_folder, path) = file("a.csv", &format!("delay,carrier\n{content}"));
    let expected: Vec<Flight> =
        (0..50).map(|n| Flight { carrier: format!("C,{n}"), delay: n }).collect();
    for piece in [5, 13, 100] {
        let files = Files::csv(&path).split_bytes(piece);
        assert_eq!(read_all::<Flight, _>(&files).unwrap(), expected);
    }
}

#[test]
fn empty_lines_are_no_json() {
    let (_folder, path) = file(
        "a.ndjson",
        "{\"carrier\":\"AA\",\"delay\":3}\n\n  \r\n{\"carrier\":\"BB\",\"delay\":4}",
    );
    let files = Files::ndjson(&path);
    assert_eq!(read_all::<Flight, _>(&files).unwrap(), flights(&[("AA", 3), ("BB", 4)]));
    std::fs::write(&path, "\n\n{\"carrier\":\"AA\"}\n").unwrap();
    let error = read_all::<Flight, _>(&files).unwrap_err().to_string();
    let place = format!("{}:3 (record 1): missing field `delay`", path.display());
    assert!(error.starts_with(&place), "{error}");
    assert!(error.ends_with("\n  in: {\"carrier\":\"AA\"}"), "{error}");
}

#[test]
fn empty_files_are_at_their_end() {
    for content in ["", "delay,carrier\n", "delay,carrier"] {
        let (_folder, path) = file("a.csv", content);
        let env = env();
        let id = path.to_str().unwrap().to_owned();
        let files = Files::csv(&path);
        let mut reader = reader::<Flight, Csv>(&files, at_begin(&[id]), env.as_ref());
        assert_eq!(drain::<Flight>(&mut reader, env.as_ref()).unwrap(), []);
        assert!(reader.offsets()[0].1.ended);
        assert_eq!(reader.offsets(), []);
    }
}

#[test]
fn a_bad_record_is_named() {
    let (_folder, path) = file("a.csv", "carrier,delay\n\"A\nA\",1\n\nBB,x\n");
    let files = Files::csv(&path);
    let error = read_all::<Flight, _>(&files).unwrap_err().to_string();
    let expected = format!(
        "{}:5 (record 2): column `delay`: expected a whole number (i32), found \"x\"\n  in: BB,x",
        path.display()
    );
    assert_eq!(error, expected);

    // After a restart the line is as exact as the number of records allows.
    let env = env();
    let id = path.to_str().unwrap().to_owned();
    std::fs::write(&path, "carrier,delay\nAA,1\nBB,x\n").unwrap();
    let offset = SplitOffset { position: 19, records: 1, ..SplitOffset::default() };
    let mut one = reader::<Flight, Csv>(&files, vec![(id, offset)], env.as_ref());
    let error = drain::<Flight>(&mut one, env.as_ref()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}:3 (record 2)", path.display())), "{error}");

    let cut = Files::csv(&path).split_bytes(17);
    let error = read_all::<Flight, _>(&cut).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}#17-24, at 19 (record 1): ", path.display())), "{error}");

    std::fs::write(&path, format!("carrier,delay\n{},x\n", "é".repeat(500))).unwrap();
    let error = read_all::<Flight, _>(&files).unwrap_err().to_string();
    assert!(error.ends_with(&format!("{} ...", "é".repeat(200))), "{error}");
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let env = env();
    let read = |name: &str| {
        let files = Files::text(name);
        drain::<String>(
            &mut reader(&files, at_begin(&[name.to_owned()]), env.as_ref()),
            env.as_ref(),
        )
    };
    let error = read("/no/such/file").unwrap_err().to_string();
    assert!(error.starts_with("can't read /no/such/file: "), "{error}");
    let (_folder, path) = file("a.txt.gz", "not compressed");
    let error = read(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("a.txt.gz"), "{error}");
    std::fs::write(&path, &gzip(&[b'x'; 1000])[..30]).unwrap();
    let error = read(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("a.txt.gz"), "{error}");
    let (_folder, path) = file("a.txt", "good\n");
    std::fs::write(&path, b"good\nbad \xFF\n").unwrap();
    let error = read(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("a.txt:2 (record 2): expected UTF-8 text, and byte 5 isn't"), "{error}");
}

/// Reads everything under a policy.
pub(super) fn read_under<T: Data, F: ReadFormat<T>>(
    files: &Files<F>,
    policy: Malformed,
) -> (Result<Both<T>, BoxError>, ReaderProgress) {
    let env = env();
    let splits = files.place().splits(&[]).unwrap();
    let progress = ReaderProgress::default();
    let malformed = MalformedRecords::new("in", policy, progress.clone());
    let mut one = reader_with::<T, F>(files, splits, env.as_ref(), malformed, usize::MAX);
    (drain_with_rejects(&mut one, env.as_ref()), progress)
}

#[test]
fn malformed_records_are_skipped_or_rejected() {
    let content =
        b"{\"carrier\":\"AA\",\"delay\":1}\nnonsense\n\n{\"carrier\":\"\xFF\",\"delay\":2}\r\n\
                    {\"carrier\":\"B\0B\",\"delay\":3}\n{\"carrier\":\"CC\"";
    let (_folder, path) = file("a.ndjson", "");
    std::fs::write(&path, content).unwrap();
    let files = Files::ndjson(&path);
    let id = path.to_str().unwrap();

    let (skipped, progress) = read_under::<Flight, _>(&files, Malformed::Skip);
    assert_eq!(skipped.unwrap(), (flights(&[("AA", 1)]), vec![]));
    assert_eq!(progress.malformed(), (4, 0));

    let (both, progress) = read_under::<Flight, _>(&files, Malformed::Reject);
    let (rows, rejects) = both.unwrap();
    assert_eq!((rows, progress.malformed()), (flights(&[("AA", 1)]), (0, 4)));
    let places: Vec<_> =
        rejects.iter().map(|one| (one.record, one.line, one.position, &*one.text)).collect();
    let expected = [
        (2, Some(2), 27, "nonsense"),
        (3, Some(4), 37, "{\"carrier\":\"\u{FFFD}\",\"delay\":2}"),
        (4, Some(5), 64, "{\"carrier\":\"B\0B\",\"delay\":3}"),
        (5, Some(6), 92, "{\"carrier\":\"CC\""),
    ];
    assert_eq!(places, expected);
    assert!(rejects.iter().all(|one| one.source == "in" && one.split == id));
    assert!(rejects[0].error.starts_with("expected"), "{}", rejects[0].error);
}

#[test]
fn ragged_csv_rows_are_malformed() {
    let (_folder, path) = file("a.csv", "carrier,delay\nAA,1\nBB\nCC,2,3\n\"D\nD\",4\nEE,5");
    let (both, _) = read_under::<Flight, _>(&Files::csv(&path), Malformed::Reject);
    let (rows, rejects) = both.unwrap();
    assert_eq!(rows, flights(&[("AA", 1), ("D\nD", 4), ("EE", 5)]));
    let errors: Vec<_> =
        rejects.iter().map(|one| (one.line, &*one.text, one.error.split(';').next())).collect();
    let expected = [
        (Some(3), "BB", Some("expected 2 fields, as in the header, found 1")),
        (Some(4), "CC,2,3", Some("expected 2 fields, as in the header, found 3")),
    ];
    assert_eq!(errors, expected);
}

#[test]
fn utf_16_is_known_by_its_mark_and_other_encodings_by_name() {
    let text = "carrier,delay\r\n\"Zürich\nÖ\",1\n😀,2\nBB,3";
    let rows = flights(&[("Zürich\nÖ", 1), ("😀", 2), ("BB", 3)]);
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
    };
    let (_folder, path) = file("a.csv", "");
    for content in [utf_16(u16::to_le_bytes), utf_16(u16::to_be_bytes)] {
        std::fs::write(&path, &content).unwrap();
        // Its bytes can't be cut at line ends.
        let files = Files::csv(&path).split_bytes(10);
        assert_eq!(read_all::<Flight, _>(&files).unwrap(), rows);
        // It goes on from anywhere.
        let (env, (id, begin)) = (env(), files.place().splits(&[]).unwrap().remove(0));
        let mut one = reader::<Flight, Csv>(&files, vec![(id, begin)], env.as_ref());
        one.limit_rows(2);
        poll::<Flight>(&mut one, env.as_ref()).unwrap();
        let mut rest = reader::<Flight, Csv>(&files, one.offsets(), env.as_ref());
        assert_eq!(drain::<Flight>(&mut rest, env.as_ref()).unwrap(), rows[2..]);
    }
    std::fs::write(&path, b"carrier,delay\nZ\xFCrich,1\n").unwrap();
    let files = Files::csv(&path).encoding("latin1");
    assert_eq!(read_all::<Flight, _>(&files).unwrap(), flights(&[("Zürich", 1)]));
    // The mark decides.
    std::fs::write(&path, "\u{feff}carrier,delay\nZürich,1\n").unwrap();
    assert_eq!(read_all::<Flight, _>(&files).unwrap(), flights(&[("Zürich", 1)]));
}

#[test]
fn zstd_is_read_frame_by_frame() {
    let content = "carrier,delay\nAA,1\nBB,2\n";
    let frame = |text: &str| zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
    let zipped = [frame(&content[..16]), frame(&content[16..])].concat();
    let (_folder, path) = file("a.csv.zst", "");
    std::fs::write(&path, &zipped).unwrap();
    let rows = flights(&[("AA", 1), ("BB", 2)]);
    assert_eq!(read_all::<Flight, _>(&Files::csv(&path)).unwrap(), rows);
    std::fs::write(&path, &zipped[..zipped.len() - 3]).unwrap();
    let error = read_all::<Flight, _>(&Files::csv(&path)).unwrap_err().to_string();
    assert!(error.contains("a.csv.zst"), "{error}");
}

#[test]
fn a_record_that_is_too_long_is_malformed_and_takes_no_memory() {
    let long = "x".repeat(3 << 20);
    let (_folder, path) = file("a.txt", &format!("first\n{long}\nlast\n{long}"));
    let files = Files::text(&path).longest_record(1 << 20);
    let (both, _) = read_under::<String, _>(&files, Malformed::Reject);
    let (rows, rejects) = both.unwrap();
    assert_eq!(rows, ["first", "last"]);
    let places: Vec<_> =
        rejects.iter().map(|one| (one.record, one.line, one.position, one.text.len())).collect();
    assert_eq!(places, [(2, Some(2), 6, 64 << 10), (4, Some(4), 6 + (3 << 20) + 6, 64 << 10)]);
    assert!(rejects[0].error.contains(&format!("{} bytes", (3 << 20) + 1)), "{}", rejects[0].error);
    let error = read_under::<String, _>(&files, Malformed::Fail).0.unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}:2 (record 2): longer than", path.display())), "{error}");
}

#[test]
fn a_quote_that_nobody_closes_spoils_one_line() {
    let many: String = (0..200_000).map(|n| format!("CC,{n}\n")).collect();
    for rest in ["BB,2\n", &many] {
        let content = format!("carrier,delay\n\"AA,1\n{rest}DD,4");
        let (_folder, path) = file("a.csv", &content);
        let files = Files::csv(&path).longest_record(300 << 10);
        let (both, _) = read_under::<Flight, _>(&files, Malformed::Reject);
        let (rows, rejects) = both.unwrap();
        assert_eq!(rows.len(), rest.lines().count() + 1);
        let told: Vec<_> = rejects.iter().map(|one| (one.line, &*one.text, &*one.error)).collect();
        assert_eq!(told, [(Some(2), "\"AA,1", "a quote is not closed")]);
    }
}

/// What becomes of a file that isn't what it was when it was found.
#[test]
fn a_file_that_is_another_than_was_found_is_refused() {
    let (folder, path) = file("a.txt", "one\ntwo\nthree\n");
    let files = Files::text(&path);
    let env = env();
    let found = files.place().splits(&[]).unwrap();
    let mut one = reader(&files, found, env.as_ref());
    one.limit_rows(1);
    poll::<String>(&mut one, env.as_ref()).unwrap();
    let read = one.offsets();
    let go_on = || drain::<String>(&mut reader(&files, read.clone(), env.as_ref()), env.as_ref());
    assert_eq!(go_on().unwrap(), ["two", "three"]);
    for other in ["one\ntwo\n", "one\ntwo\nthree\nfour\n", "one\nTWO\nthree\n", ""] {
        // In place, and by another file of that name.
        std::fs::write(&path, other).unwrap();
        let error = go_on().unwrap_err().to_string();
        let expected = format!("{} is not the file any more that was found", path.display());
        assert!(error.starts_with(&expected) && error.contains("1 records"), "{error}");
        let new = folder.path().join("new");
        std::fs::write(&new, other).unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert!(go_on().is_err());
    }
    // A copy is as good.
    std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
    assert_eq!(go_on().unwrap(), ["two", "three"]);
    std::fs::remove_file(&path).unwrap();
    assert!(go_on().unwrap_err().to_string().contains("a.txt"));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let line = "x".repeat(1000) + "\n";
    let (_folder, path) = file("a.txt", &line.repeat(4000));
    let files = Files::text(&path);
    let env = env();
    for change in ["append", "shrink"] {
        let found = files.place().splits(&[]).unwrap();
        // The thread can't have come to the end: only so many blocks wait for the worker.
        let mut one = reader(&files, found, env.as_ref());
        poll::<String>(&mut one, env.as_ref()).unwrap();
        let mut to_change = std::fs::File::options().append(true).open(&path).unwrap();
        match change {
            "append" => to_change.write_all(b"more\n").unwrap(),
            _ => to_change.set_len(3_900_000).unwrap(),
        }
        let error = drain::<String>(&mut one, env.as_ref()).unwrap_err().to_string();
        assert!(error.contains("was changed while it was being read"), "{error}");
    }
}
