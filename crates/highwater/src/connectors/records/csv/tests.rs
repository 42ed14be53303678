//! Crate `csv` is the judge of what is read and written.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::de::{CsvError, Layout};
use super::ser;
use super::tokens::{Tokens, last_record_end, record_end, without_line_end};

/// All records of a text, as lists of fields.
fn split(text: &[u8], delimiter: u8) -> Vec<Vec<Vec<u8>>> {
    let mut tokens = Tokens::default();
    let mut records = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let length = tokens.split(&text[at..], delimiter, text.contains(&b'"'));
        if !without_line_end(&text[at..at + length]).is_empty() {
            records.push(tokens.record(&text[at..]).iter().map(<[u8]>::to_vec).collect());
        }
        at += length;
    }
    records
}

fn judge(text: &[u8], delimiter: u8) -> Vec<Vec<Vec<u8>>> {
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text);
    let fields = |record: ::csv::ByteRecord| record.iter().map(<[u8]>::to_vec).collect();
    reader.byte_records().map(|record| fields(record.unwrap())).collect()
}

fn read<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, CsvError> {
    let (header, records) = text.split_once('\n').unwrap();
    let mut layout = Layout::new(Some(header.split(',').map(String::from).collect()));
    read_with(records, &mut layout)
}

fn read_with<T: DeserializeOwned>(text: &str, layout: &mut Layout) -> Result<Vec<T>, CsvError> {
    let mut tokens = Tokens::default();
    let mut rows = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let data = &text.as_bytes()[at..];
        at += tokens.split(data, b',', true);
        rows.push(layout.row(tokens.record(data))?);
    }
    Ok(rows)
}

/// Text in which quotes, delimiters and line ends meet in all ways; a `\r` only before `\n`, since elsewhere crate `csv` ends a
/// record there.
fn wild() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just("a"), 3 => Just("\""), 3 => Just(","), 2 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\"\""),
        1 => Just("bc"), 1 => Just(",\""), 1 => Just("\","),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Small,
    #[serde(rename = "very large")]
    Large,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wide {
    small: i8,
    signed: i64,
    unsigned: u64,
    huge: i128,
    float: f64,
    yes: bool,
    letter: char,
    text: String,
    maybe: Option<u32>,
    kind: Kind,
}

fn wides() -> impl Strategy<Value = Wide> {
    let numbers = (any::<i8>(), any::<i64>(), any::<u64>(), any::<i128>(), -1e300..1e300_f64);
    let text = "[a-z,;\"\n\r é]{0,12}";
    (numbers, any::<bool>(), any::<char>(), text, any::<Option<u32>>(), any::<bool>()).prop_map(
        |((small, signed, unsigned, huge, float), yes, letter, text, maybe, large)| {
            let kind = if large { Kind::Large } else { Kind::Small };
            Wide { small, signed, unsigned, huge, float, yes, letter, text, maybe, kind }
        },
    )
}

proptest! {
    /// Where no quote is left open, which that crate takes for one that is closed at the end.
    #[test]
    fn records_are_split_as_crate_csv_does(text in wild(), semicolon in any::<bool>()) {
        let delimiter = if semicolon { b';' } else { b',' };
        let ended = [&text[..], b"\n"].concat();
        prop_assume!(last_record_end(&ended, delimiter) == Some(ended.len()));
        prop_assert_eq!(split(&text, delimiter), judge(&text, delimiter));
    }

    /// What `last_record_end` calls whole is whole whatever follows.
    #[test]
    fn a_block_ends_where_a_record_does(text in wild(), more in wild()) {
        let Some(end) = last_record_end(&text, b',') else { return Ok(()) };
        let whole = [&text[..], &more].concat();
        let mut apart = judge(&whole[..end], b',');
        apart.extend(judge(&whole[end..], b','));
        prop_assert_eq!(apart, judge(&whole, b','));
        prop_assert!(record_end(&text[end..], b',').is_none(), "it is the last");
    }

    #[test]
    fn rows_are_written_as_crate_csv_does_and_come_back(rows in prop::collection::vec(wides(), 1..5)) {
        let mut text = ser::header(&rows[0], b',').unwrap();
        let mut judge = ::csv::Writer::from_writer(Vec::new());
        for row in &rows {
            ser::write_row(row, b',', &mut text).unwrap();
            judge.serialize(row).unwrap();
        }
        // Floats are written in other, as good, words.
        let of = |text: &[u8]| {
            let mut reader = ::csv::Reader::from_reader(text);
            reader.deserialize().collect::<Result<Vec<Wide>, _>>().unwrap()
        };
        prop_assert_eq!(&of(&text), &rows);
        prop_assert_eq!(of(&judge.into_inner().unwrap()), of(&text));
        let (text, begin) = (std::str::from_utf8(&text).unwrap(), record_end(&text, b',').unwrap());
        let header = text[..begin].trim_end().split(',').map(String::from).collect();
        prop_assert_eq!(read_with::<Wide>(&text[begin..], &mut Layout::new(Some(header))).unwrap(), rows);
    }

    #[test]
    fn numbers_are_what_the_standard_library_reads(text in "[-+]?[0-9]{0,21}") {
        let mut layout = Layout::new(None);
        prop_assert_eq!(read_with::<i64>(&text, &mut layout).ok(), if text.is_empty() { Some(vec![]) } else { text.parse().ok().map(|n| vec![n]) });
        prop_assert_eq!(read_with::<u64>(&text, &mut layout).ok(), if text.is_empty() { Some(vec![]) } else { text.parse().ok().map(|n| vec![n]) });
        prop_assert_eq!(read_with::<i16>(&text, &mut layout).ok(), if text.is_empty() { Some(vec![]) } else { text.parse().ok().map(|n| vec![n]) });
    }
}

#[derive(Debug, PartialEq, Deserialize)]
struct Flight {
    carrier: String,
    delay: Option<i32>,
    #[serde(default)]
    gate: u8,
}

#[test]
fn columns_are_found_by_name() {
    let flight = |carrier: &str, delay, gate| Flight { carrier: carrier.to_owned(), delay, gate };
    assert_eq!(
        read::<Flight>("gate,x,delay,carrier\n7,,12,AA\n8,,,\"B,B\"\n").unwrap(),
        [flight("AA", Some(12), 7), flight("B,B", None, 8)]
    );
    assert_eq!(read::<Flight>("carrier,delay\nAA,-3\n").unwrap(), [flight("AA", Some(-3), 0)]);
    assert_eq!(read::<(String, i32)>("a,b\nAA,-3\n").unwrap(), [("AA".to_owned(), -3)]);
    assert_eq!(read::<Vec<String>>("a,b\nAA,-3\n").unwrap(), [["AA", "-3"]]);
    let map = BTreeMap::from([("a".to_owned(), "x".to_owned()), ("b".to_owned(), "1".to_owned())]);
    assert_eq!(read::<BTreeMap<String, String>>("a,b\nx,1\n").unwrap(), [map]);
    let mut nameless = Layout::new(None);
    assert_eq!(
        read_with::<Flight>("AA,-3,5\n", &mut nameless).unwrap(),
        [flight("AA", Some(-3), 5)]
    );
}

#[test]
fn flattened_structs_are_read() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        name: String,
        #[serde(flatten)]
        inner: Inner,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        count: u32,
        part: f64,
    }
    let expected = Outer { name: "a".to_owned(), inner: Inner { count: 3, part: 0.5 } };
    assert_eq!(read::<Outer>("part,name,count\n0.5,a,3\n").unwrap(), [expected]);
}

#[test]
fn what_is_wrong_is_said() {
    let error = |text: &str| read::<Flight>(text).unwrap_err().to_string();
    assert_eq!(
        error("carrier,delay\nAA,x1\n"),
        "column `delay`: expected a whole number (i32), found \"x1\""
    );
    assert_eq!(error("delay,gate\n1,2\n"), "missing field `carrier` (the header has: delay, gate)");
    assert_eq!(
        error("carrier;delay\nAA;2\n"),
        "missing field `carrier` (the header has: carrier;delay)"
    );
    assert_eq!(
        error("carrier,delay\nAA\n"),
        "expected 2 fields, as in the header, found 1; is the delimiter right?"
    );
    assert_eq!(error("carrier,delay\nAA,1,2\n"), "expected 2 fields, as in the header, found 3");
    assert_eq!(
        error("carrier,gate\nAA,\n"),
        "column `gate`: expected a whole number (u8), found nothing (an `Option` takes empty fields)"
    );
    assert_eq!(
        error("carrier,gate\nAA,256\n"),
        "column `gate`: expected a whole number (u8), found \"256\""
    );
    let nameless = read_with::<(u8, u8)>("1,a\n", &mut Layout::new(None)).unwrap_err().to_string();
    assert_eq!(nameless, "column 2: expected a whole number (u8), found \"a\"");
    let nested = read::<(u8, (u8, u8))>("a,b\n1,2\n").unwrap_err().to_string();
    assert!(nested.contains("column `b`: a CSV field can't be read as a tuple"), "{nested}");
}

#[test]
fn rows_that_are_no_lines_are_refused() {
    let mut out = Vec::new();
    let nested = ser::write_row(&(1, (2, 3)), b',', &mut out).unwrap_err().to_string();
    assert!(nested.contains("this one is a tuple"), "{nested}");
    let map = ser::write_row(&BTreeMap::from([(1, 2)]), b',', &mut out).unwrap_err().to_string();
    assert!(map.contains("NDJSON"), "{map}");
}

#[test]
fn single_values_are_rows() {
    let mut out = Vec::new();
    for row in ["a", "", "b\"c"] {
        ser::write_row(&row, b',', &mut out).unwrap();
    }
    assert_eq!(out, b"a\n\"\"\n\"b\"\"c\"\n");
    assert!(ser::header(&"a", b',').unwrap().is_empty());
}
