use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow_array::types::Int32Type;
use arrow_array::{
    Date32Array, Decimal128Array, Decimal256Array, DictionaryArray, FixedSizeBinaryArray,
    LargeStringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use highwater_runtime::connector::Malformed;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::super::Files;
use super::super::{Compression, Parquet};
use super::*;
use crate::connectors::files::discover::Cut;
use crate::connectors::records::format::{Encoder, FileFormat, WriteFormat};
use crate::connectors::testing::{Both, drain, drain_with_rejects, env, no_waker, poll};
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Local,
    Abroad,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Place {
    city: Option<String>,
    lat: f64,
}

/// A row with a field of each sort.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flight {
    id: u64,
    small: i8,
    delay: Option<i32>,
    carrier: String,
    note: Option<String>,
    ratio: f32,
    late: bool,
    kind: Kind,
    letter: char,
    at: Timestamp,
    price: String,
    stops: Vec<u16>,
    tags: BTreeMap<String, Option<i64>>,
    place: Place,
    other: Option<Place>,
    raw: Option<Vec<u8>>,
}

fn flights() -> impl Strategy<Value = Vec<Flight>> {
    let place = || {
        ("[a-zé]{0,4}".prop_map(Some).boxed(), -90.0..90.0_f64)
            .prop_map(|(city, lat)| Place { city, lat })
    };
    let numbers = (any::<u64>(), any::<i8>(), any::<Option<i32>>(), -1e9..1e9_f32, any::<bool>());
    let texts = (".{0,6}", prop::option::of(".{0,3}"), any::<char>(), 0..100_000_u32);
    let nested = (
        prop::collection::vec(any::<u16>(), 0..4),
        prop::collection::btree_map("[a-z]{1,3}", any::<Option<i64>>(), 0..3),
        place(),
        prop::option::of(place()),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..4)),
    );
    let flight = (numbers, texts, nested, -4_000_000_000_000..4_000_000_000_000_i64).prop_map(
        |((id, small, delay, ratio, late), (carrier, note, letter, cents), nested, at)| {
            let (stops, tags, place, other, raw) = nested;
            let kind = if late { Kind::Local } else { Kind::Abroad };
            let price = format!("{}.{:02}", cents / 100, cents % 100);
            let at = Timestamp::from_ms(at);
            Flight {
                id,
                small,
                delay,
                carrier,
                note,
                ratio,
                late,
                kind,
                letter,
                at,
                price,
                stops,
                tags,
                place,
                other,
                raw,
            }
        },
    );
    prop::collection::vec(flight, 0..24)
}

/// A file of these rows, each inner list a row group.
fn file<T: Data>(path: &Path, format: &Parquet, groups: &[&[T]]) {
    let mut encoder = WriteFormat::<T>::encoder(format);
    let mut bytes = Vec::new();
    for rows in groups {
        encoder.encode(rows.to_vec(), &mut bytes).unwrap();
        Encoder::<Vec<T>>::flush(&mut encoder, &mut bytes).unwrap();
    }
    Encoder::<Vec<T>>::finish(&mut encoder, &mut bytes).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn source<T>(files: &Files<Parquet>) -> ParquetSource<T> {
    let place = super::super::super::Place { cut: Cut::RowGroups, ..files.place() };
    ParquetSource { place, rate: None, rows: PhantomData }
}

fn splits(files: &Files<Parquet>) -> Result<Vec<(String, SplitOffset)>, BoxError> {
    source::<Flight>(files).place.splits(&[])
}

fn reader<T: Data>(
    files: &Files<Parquet>,
    splits: Vec<(String, SplitOffset)>,
    rows: usize,
    env: &dyn Env,
) -> ThreadedReader<T, Rows<T>> {
    let progress = ReaderProgress::default();
    let malformed = MalformedRecords::new("in", Malformed::Reject, progress.clone());
    let reader = source::<T>(files).start(env, no_waker(), progress).unwrap();
    let mut reader = reader.with(malformed, rows);
    reader.add(splits, 1).unwrap();
    reader
}

fn read_all<T: Data>(files: &Files<Parquet>) -> Result<Both<T>, BoxError> {
    let env = env();
    drain_with_rejects(&mut reader::<T>(files, splits(files)?, usize::MAX, &*env), &*env)
}

fn place(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What is written is what is read: from the begin, and from every row on.
    #[test]
    fn rows_come_back(rows in flights(), group in 1..12_usize, at_once in 1..9_usize, compression in 0..3) {
        let (_folder, path) = place("a.parquet");
        let compression = [Compression::None, Compression::Snappy, Compression::Zstd][compression as usize];
        let files = Files::parquet(&path).compression(compression).timestamps(["at"]).decimal("price", 9, 2);
        let groups: Vec<&[Flight]> = rows.chunks(group).collect();
        let empty: &[Flight] = &[];
        file(&path, &files.format, if groups.is_empty() { std::slice::from_ref(&empty) } else { &groups });
        let env = env();
        let splits = splits(&files).unwrap();
        prop_assert_eq!(splits.len(), groups.len().max(1));
        let mut all = Vec::new();
        for (number, (id, begin)) in splits.into_iter().enumerate() {
            let expected = groups.get(number).copied().unwrap_or_default();
            let mut offset = begin;
            let mut one = reader::<Flight>(&files, vec![(id.clone(), offset.clone())], at_once, &*env);
            let mut read = 0;
            while let Some(some) = poll::<Flight>(&mut one, &*env).unwrap() {
                prop_assert!(some.len() <= at_once);
                read += some.len();
                all.extend(some);
                offset = one.offsets().remove(0).1;
                prop_assert_eq!((offset.position, offset.records), (read as u64, read as u64));
                let mut rest = reader::<Flight>(&files, vec![(id.clone(), offset.clone())], usize::MAX, &*env);
                prop_assert_eq!(&drain::<Flight>(&mut rest, &*env).unwrap(), &expected[read..]);
                prop_assert!(rest.offsets().remove(0).1.ended);
            }
        }
        prop_assert_eq!(all, rows);
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Written {
    a: i64,
    b: Option<String>,
    c: f64,
}

fn written() -> Vec<Written> {
    (0..10)
        .map(|n| Written { a: n, b: (n != 3).then(|| n.to_string()), c: n as f64 / 2.0 })
        .collect()
}

#[test]
fn rows_take_the_columns_that_they_want() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Other {
        c: f32,
        #[serde(alias = "a")]
        number: i8,
        #[serde(default)]
        new: u8,
    }
    let (_folder, path) = place("a.parquet");
    let files = Files::parquet(&path);
    file(&path, &files.format, &[&written()]);
    let (rows, rejects) = read_all::<Other>(&files).unwrap();
    assert_eq!(rejects, []);
    let expected = |n: i8| Other { c: f32::from(n) / 2.0, number: n, new: 0 };
    assert_eq!(rows, (0..10).map(expected).collect::<Vec<_>>());
    // A tuple goes by position, and needn't take all.
    let (rows, _) = read_all::<(u64, Option<String>)>(&files).unwrap();
    assert_eq!(rows[2..4], [(2, Some("2".to_owned())), (3, None)]);
    // A map takes all.
    let (rows, _) = read_all::<serde_json::Value>(&files).unwrap();
    assert_eq!(rows[3], serde_json::json!({"a": 3, "b": null, "c": 1.5}));
}

#[test]
fn rows_that_cannot_be_read_are_malformed() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Strict {
        a: i64,
        b: String,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct More {
        a: i64,
        d: u8,
    }
    let (_folder, path) = place("a.parquet");
    let files = Files::parquet(&path);
    file(&path, &files.format, &[&written()]);
    let (rows, rejects) = read_all::<Strict>(&files).unwrap();
    assert_eq!((rows.len(), rejects.len()), (9, 1));
    let shown = rejects[0].to_string();
    let expected = format!(
        "{}, at 3 (record 4): in `b`: invalid type: unit value, expected a string\n  in: {{\"a\":3,\"b\":null}}",
        path.display()
    );
    assert_eq!(shown, expected);
    let (rows, rejects) = read_all::<More>(&files).unwrap();
    assert_eq!((rows.len(), rejects.len()), (0, 10));
    assert_eq!(rejects[9].error, "missing field `d` (columns that are there: a)");
}

#[test]
fn row_groups_are_splits_and_may_be_gathered() {
    let (_folder, path) = place("a.parquet");
    let files = Files::parquet(&path);
    let rows = written();
    file(&path, &files.format, &rows.chunks(2).collect::<Vec<_>>());
    let found = splits(&files).unwrap();
    assert_eq!(found.len(), 5);
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(found[0].0.starts_with(&format!("{}#4-", path.display())), "{}", found[0].0);
    assert!(found[4].0.ends_with(&format!("-{length}")), "{}", found[4].0);
    let whole = files.clone().split_bytes(1 << 20);
    assert_eq!(splits(&whole).unwrap().len(), 1);
    assert_eq!(read_all::<Written>(&whole).unwrap().0, rows);
    // What a checkpoint knows is read as it was cut, whatever is said now.
    let env = env();
    let mut one = reader::<Written>(&whole, vec![found[3].clone()], usize::MAX, &*env);
    assert_eq!(drain::<Written>(&mut one, &*env).unwrap(), rows[6..8]);
}

/// Wide rows are decoded a few at a time: what waits for the worker is little, also of texts that are stored once and repeated.
#[test]
fn wide_rows_take_no_more_memory() {
    let (_folder, path) = place("a.parquet");
    let files = Files::parquet(&path);
    for repeated in [false, true] {
        let text = |n: i64| if repeated { "x".repeat(50_000) } else { format!("{n:050000}") };
        let rows: Vec<Written> =
            (0..500).map(|a| Written { a, b: Some(text(a)), c: 0.0 }).collect();
        file(&path, &files.format, &[&rows]);
        let env = env();
        let mut one = reader::<Written>(&files, splits(&files).unwrap(), usize::MAX, &*env);
        let mut all = Vec::new();
        while let Some(some) = poll::<Written>(&mut one, &*env).unwrap() {
            assert!(some.len() <= 2 * BYTES as usize / 50_000, "{} rows at once", some.len());
            all.extend(some);
        }
        assert_eq!(all, rows);
    }
}

#[test]
fn damaged_files_are_named_with_their_row_group() {
    let (_folder, path) = place("a.parquet");
    let files = Files::parquet(&path);
    let rows: Vec<Written> = (0..5000)
        .map(|n| Written { a: n * 7919 % 5000, b: Some(format!("text {}", n * n)), c: 0.0 })
        .collect();
    file(&path, &files.format, &rows.chunks(1000).collect::<Vec<_>>());
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 3, 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = splits(&files).unwrap_err().to_string();
        let expected = format!("can't read {} as Parquet: ", path.display());
        assert!(error.starts_with(&expected), "{error}");
    }
    std::fs::write(&path, &whole).unwrap();
    let found = splits(&files).unwrap();
    let begin = Split::parse(&found[2].0).piece.unwrap().0 as usize;
    let mut damaged = whole.clone();
    damaged[begin + 20..begin + 2000].fill(0xAA);
    std::fs::write(&path, &damaged).unwrap();
    let error = read_all::<Written>(&files).unwrap_err().to_string();
    assert!(error.starts_with(&format!("can't read {}, row group 2: ", path.display())), "{error}");
    // Another file than was found.
    std::fs::write(&path, &whole[1..]).unwrap();
    let env = env();
    let mut one = reader::<Written>(&files, found, usize::MAX, &*env);
    let error = drain::<Written>(&mut one, &*env).unwrap_err().to_string();
    assert!(error.contains("is not the file any more that was found"), "{error}");
}

#[test]
fn rows_that_are_no_columns_are_refused() {
    #[derive(Clone, Serialize, Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    enum Event {
        Began,
        Took { ms: u64 },
    }
    #[derive(Clone, Serialize, Deserialize)]
    struct Row {
        event: Event,
    }
    #[derive(Clone, Serialize, Deserialize)]
    struct Empty {}
    #[derive(Clone, Serialize, Deserialize)]
    struct Holds {
        empty: Empty,
    }
    fn check<T: Data>(files: &Files<Parquet>) -> String {
        WriteFormat::<T>::check(&files.format).unwrap_err()
    }
    let files = Files::parquet("out");
    assert!(check::<u64>(&files).contains("`u64` is none; map it to one"));
    // Whose columns are those of the first rows, so that no two files need have the same.
    #[derive(Clone, Serialize, Deserialize)]
    struct Flat {
        a: u64,
        #[serde(flatten)]
        rest: BTreeMap<String, u64>,
    }
    for error in [
        check::<Flat>(&files),
        check::<BTreeMap<String, u64>>(&files),
        check::<serde_json::Value>(&files),
    ] {
        assert!(error.contains("map it to a struct that names its columns"), "{error}");
    }
    assert!(check::<(u64, u64)>(&files).contains("the columns of a tuple have no names"));
    assert!(check::<Row>(&files).contains("column `event` is an enum with data"));
    assert!(check::<Holds>(&files).contains("column `empty` is a struct without fields"));
    let error = check::<Written>(&files.clone().timestamps(["a", "at"]));
    assert_eq!(error, "there is no column `at`; the columns are: a, b, c");
    let error = check::<Written>(&files.clone().decimal("a", 9, 2));
    assert_eq!(error, "column `a` is of type Int64, which can't be written as a decimal");
    assert_eq!(WriteFormat::<Written>::check(&files.format), Ok(()));
    let source = crate::connectors::IntoSource::<u64>::into_source(files);
    assert!(source.splits(&[]).is_err());
}

/// Only the rows tell what is in such a column.
#[test]
fn values_of_several_types_in_a_column_say_what_to_do() {
    #[derive(Clone, Serialize, Deserialize)]
    struct Row {
        value: serde_json::Value,
    }
    let rows = |values: [&str; 2]| values.map(|text| Row { value: text.parse().unwrap() }).to_vec();
    let files = Files::parquet("out");
    assert_eq!(WriteFormat::<Row>::check(&files.format), Ok(()));
    let encode = |rows| {
        let mut encoder = WriteFormat::<Row>::encoder(&files.format);
        encoder.encode(rows, &mut Vec::new())
    };
    encode(rows(["1", "null"])).unwrap();
    let error = encode(rows(["1", "\"x\""])).unwrap_err().to_string();
    assert!(error.contains("has values of one type"), "{error}");
}

/// A number that is text outside, and refuses any other.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Even(u32);
impl Serialize for Even {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string())
    }
}
impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Even).map_err(serde::de::Error::custom)
    }
}

/// Types that read themselves from text don't tell what they are; their first rows do.
#[test]
fn types_of_other_crates_are_columns_too() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        on: Even,
        maybe: Option<Even>,
        n: u8,
    }
    let (_folder, path) = place("a.parquet");
    let files = Files::parquet(&path);
    let row = |n: u8| Row { on: Even(n.into()), maybe: (n > 2).then_some(Even(7)), n };
    let rows: Vec<Row> = (0..6).map(row).collect();
    // The first group has no value of `maybe`.
    file(&path, &files.format, &rows.chunks(2).collect::<Vec<_>>());
    assert_eq!(read_all::<Row>(&files).unwrap().0, rows);
}

/// The row groups of several files, in one.
#[test]
fn files_are_put_together() {
    let (folder, path) = place("a.parquet");
    let files = Files::parquet(&path).compression(Compression::Zstd);
    let rows = written();
    let mut contents = Vec::new();
    for rows in rows.chunks(4) {
        file(&path, &files.format, &rows.chunks(3).collect::<Vec<_>>());
        contents.push(std::fs::read(&path).unwrap());
    }
    let join = |path: &Path| {
        let mut out = std::fs::File::create(path).unwrap();
        let mut contents = contents.iter().cloned().map(Ok);
        files.format.join(&mut contents, &mut out).unwrap();
        std::fs::read(path).unwrap()
    };
    let joined = join(&path);
    assert_eq!(splits(&files).unwrap().len(), 5);
    assert_eq!(read_all::<Written>(&files).unwrap().0, rows);
    // As a repetition of it must be.
    assert_eq!(join(&folder.path().join("again")), joined);
    let damaged = contents[0][..50].to_vec();
    let mut out = std::fs::File::create(&path).unwrap();
    assert!(files.format.join(&mut [Ok(damaged)].into_iter(), &mut out).is_err());
}

/// Files of other tools have types that rows of ours are never written as.
#[test]
fn columns_of_other_tools_are_read() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        at: Timestamp,
        on: String,
        time: String,
        price: String,
        amount: f64,
        kind: Kind,
        id: Vec<u8>,
        text: Option<String>,
    }
    let kinds: DictionaryArray<Int32Type> = ["Local", "Abroad", "Local"].into_iter().collect();
    let decimals = |scale| {
        let values = Decimal128Array::from(vec![12_345, -5, 0]);
        values.with_precision_and_scale(12, scale).unwrap()
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_500_999, 0, -1]))),
        ("on", Arc::new(Date32Array::from(vec![19_860, 0, -1]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![3_723_000_004, 0, 1_000_000]))),
        ("price", Arc::new(decimals(2))),
        ("amount", Arc::new(decimals(3))),
        ("kind", Arc::new(kinds)),
        (
            "id",
            Arc::new(
                FixedSizeBinaryArray::try_from_iter([[1, 2], [3, 4], [5, 6]].into_iter()).unwrap(),
            ),
        ),
        ("text", Arc::new(LargeStringArray::from(vec![Some("a"), None, Some("")]))),
        ("long", Arc::new(Decimal256Array::from(vec![None, None, None]))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    );
    let batch = batch.unwrap();
    let (_folder, path) = place("a.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let files = Files::parquet(&path);
    let (rows, rejects) = read_all::<Row>(&files).unwrap();
    assert_eq!(rejects, []);
    let expected =
        |at, on: &str, time: &str, price: &str, amount, kind, id: [u8; 2], text: Option<&str>| {
            Row {
                at: Timestamp::from_ms(at),
                on: on.to_owned(),
                time: time.to_owned(),
                price: price.to_owned(),
                amount,
                kind,
                id: id.to_vec(),
                text: text.map(str::to_owned),
            }
        };
    let expected = [
        expected(
            1500,
            "2024-05-17",
            "01:02:03.000004",
            "123.45",
            12.345,
            Kind::Local,
            [1, 2],
            Some("a"),
        ),
        expected(0, "1970-01-01", "00:00:00", "-0.05", -0.005, Kind::Abroad, [3, 4], None),
        expected(-1, "1969-12-31", "00:00:01", "0.00", 0.0, Kind::Local, [5, 6], Some("")),
    ];
    assert_eq!(rows, expected);
    // What can't be read is an error only if it is wanted.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Long {
        long: Option<String>,
    }
    let error = read_all::<Long>(&files).unwrap_err().to_string();
    let expected = format!(
        "can't read {}: column `long` can't be read: its Arrow type Decimal256(76, 10)",
        path.display()
    );
    assert!(error.starts_with(&expected), "{error}");
}

/// Of such a type the other fields tell what they are, whether or not the first rows have something there.
#[test]
fn columns_do_not_depend_on_the_first_rows() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        on: Even,
        #[serde(alias = "late")]
        delay: Option<i32>,
        stops: Vec<u16>,
        place: Option<Place>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }
    let (_folder, path) = place("a.parquet");
    let files = Files::parquet(&path);
    let row = |n: u8| {
        let some = n > 2;
        let at = Place { city: None, lat: 1.5 };
        Row {
            on: Even(n.into()),
            delay: some.then_some(-1),
            stops: if some { vec![7] } else { Vec::new() },
            place: some.then_some(at),
            note: some.then(|| "x".to_owned()),
        }
    };
    let rows: Vec<Row> = (0..6).map(row).collect();
    file(&path, &files.format, &rows.chunks(2).collect::<Vec<_>>());
    assert_eq!(read_all::<Row>(&files).unwrap().0, rows);
    let shown = read_all::<serde_json::Value>(&files).unwrap().0.remove(0);
    let names: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(names, ["delay", "note", "on", "place", "stops"]);
}
