//! Where each kind of type lands: a flat struct that silently became opaque would be as slow and as closed as the worst.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::Array;
use arrow_schema::DataType;
use chrono::{DateTime, NaiveDate};
use common::*;
use highwater_codec::{ColumnReader, Tier, encode};
use serde_json::json;

/// The tier of rows with these values, with and without a row of no value among them.
fn tier<T>(values: impl IntoIterator<Item = T>) -> Tier
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut rows: Vec<Option<T>> = values.into_iter().map(Some).collect();
    let without = comes_back(&rows);
    rows.push(None);
    rows.insert(0, None);
    assert_eq!(comes_back(&rows), without, "a row without a value needs another tier");
    without
}

fn inner(text: Option<&str>) -> Inner {
    Inner { number: -1, text: text.map(Into::into) }
}

fn flat(color: Option<Color>) -> Flat {
    Flat {
        flag: true,
        letter: 'ü',
        double: Double(f64::NAN),
        single: Single(-0.0),
        color,
        inner: color.map(|_| inner(None)),
        pair: (1, String::new()),
        skipped: 0,
    }
}

#[test]
fn flat_types() {
    assert_eq!(tier([true, false]), Tier::Flat);
    assert_eq!(tier([i64::MIN, i64::MAX]), Tier::Flat);
    assert_eq!(tier([u64::MAX, 0]), Tier::Flat);
    assert_eq!(tier(["".to_owned(), "a".to_owned()]), Tier::Flat);
    assert_eq!(tier(['a', '\0']), Tier::Flat);
    assert_eq!(tier([(1u64, (2u64, -3i64))]), Tier::Flat);
    assert_eq!(tier([[1u8, 2], [3, 4]]), Tier::Flat);
    assert_eq!(tier([Color::Red, Color::Green]), Tier::Flat);
    assert_eq!(tier([Empty {}]), Tier::Flat);
    assert_eq!(tier([flat(None), flat(Some(Color::Green)), flat(None)]), Tier::Flat);
    assert_eq!(tier([DateTime::from_timestamp(1, 5).expect("in range")]), Tier::Flat);
    assert_eq!(tier([NaiveDate::from_ymd_opt(2024, 2, 29).expect("a date")]), Tier::Flat);
    assert_eq!(tier([json!("a"), json!("b")]), Tier::Flat);
    assert_eq!(tier([Untagged::Number(1), Untagged::Number(-2)]), Tier::Flat);
    assert_eq!(tier([Internal::Start { at: 1 }, Internal::Stop { at: 2 }]), Tier::Flat);
    assert_eq!(tier([Some(Some(1u8)), Some(Some(2))]), Tier::Flat);
}

#[test]
fn general_types() {
    assert_eq!(tier([vec![1u8, 2], vec![]]), Tier::General);
    assert_eq!(tier([vec![Some(vec![1i32]), None]]), Tier::General);
    assert_eq!(tier([vec![flat(None)], vec![]]), Tier::General);
    assert_eq!(tier([HashMap::from([("a".to_owned(), 1u64)]), HashMap::new()]), Tier::General);
    assert_eq!(tier([BTreeMap::from([(1u32, "a".to_owned())])]), Tier::General);
    assert_eq!(tier([BTreeMap::from([((1i32, "a".to_owned()), 1i64)])]), Tier::General);
    let flatten = |id| FlattenStruct { id, inner: inner(Some("x")) };
    assert_eq!(tier([flatten(1), flatten(2)]), Tier::General);
    let skipping = |list: &[u16], text: Option<&str>| {
        let text = text.map(Into::into);
        Skipping { id: 1, list: list.to_vec(), text, count: 2 }
    };
    assert_eq!(tier([skipping(&[1], Some("a")), skipping(&[], None)]), Tier::General);
    assert_eq!(tier([json!({"a": 1, "b": [true]}), json!({"b": [false]})]), Tier::General);
}

#[test]
fn general_enums() {
    assert_eq!(
        tier([
            External::Newtype(1),
            External::Unit,
            External::Tuple(-1, "a".into()),
            External::Record { items: vec![1], name: None },
        ]),
        Tier::General
    );
    assert_eq!(tier([vec![External::Newtype(1)], vec![]]), Tier::General);
    assert_eq!(tier([vec![Color::Red], vec![Color::Green]]), Tier::General);
    assert_eq!(tier([vec![flat(Some(Color::Red)), flat(None)], vec![]]), Tier::General);
    assert_eq!(tier([Adjacent::Number(1), Adjacent::Nothing]), Tier::General);
    assert_eq!(tier([Internal::Start { at: 1 }, Internal::Pause]), Tier::General);
    let node = Tree::Node { left: Tree::Leaf(1).into(), right: Tree::Leaf(2).into() };
    assert_eq!(tier([Tree::Leaf(1), node]), Tier::General);
}

#[test]
fn general_oddities() {
    assert_eq!(tier([vec![(), ()]]), Tier::General);
    assert_eq!(tier([()]), Tier::General);
    assert_eq!(tier([UnitStruct]), Tier::General);
    assert_eq!(tier([HashMap::<String, u8>::new()]), Tier::General);
    assert_eq!(tier([Vec::<u8>::new()]), Tier::General);
    assert_eq!(tier([json!([1, -1])]), Tier::General);
    let rest = |key: &str| HashMap::from([(key.to_owned(), "v".to_owned())]);
    let map = |key| FlattenMap { id: 1, rest: rest(key) };
    assert_eq!(tier([map("a"), map("b")]), Tier::General);
}

#[test]
fn opaque_types() {
    let rows = [Some(Some(External::Newtype(1))), Some(None)];
    assert_eq!(comes_back(&rows), Tier::Opaque);
    assert_eq!(tier([1u128]), Tier::Opaque);
    assert_eq!(tier([-1i128]), Tier::Opaque);
    assert_eq!(comes_back(&[Some(None), Some(Some(None)), Some(Some(Some(1u8)))]), Tier::Opaque);
    assert_eq!(comes_back(&[Some(Some(())), Some(None)]), Tier::Opaque);
    assert_eq!(tier([Untagged::Number(1), Untagged::Text("a".into())]), Tier::Opaque);
    assert_eq!(tier([Adjacent::Number(1), Adjacent::Pair(1, "a".into())]), Tier::Opaque);
    assert_eq!(tier([json!(1), json!("a")]), Tier::Opaque);
    assert_eq!(tier([json!(1), json!(1.5)]), Tier::Opaque);
}

#[test]
fn recursion_has_columns_only_so_deep() {
    let chain = |links: u8| {
        let link = |next: Option<Chain>, value| Some(Chain { value, next: next.map(Box::new) });
        (0..links).fold(None, link).expect("at least one link")
    };
    assert_eq!(tier([chain(1), chain(3)]), Tier::Flat);
    assert_eq!(tier([chain(1), chain(100)]), Tier::Opaque);
    let tree = (0..60).fold(Tree::Leaf(0), |tree, leaf| Tree::Node {
        left: tree.into(),
        right: Tree::Leaf(leaf).into(),
    });
    assert_eq!(tier([tree]), Tier::Opaque);
}

#[test]
fn columns_are_the_ones_to_expect() {
    let rows = [flat(None), flat(Some(Color::Red))];
    let (field, array) = encode("v", rows.iter().map(Some), &mut Tier::Flat).expect("encodes");
    assert_eq!(field.metadata()["highwater.tier"], "flat");
    let DataType::Struct(fields) = array.data_type() else { panic!("{:?}", array.data_type()) };
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let expected = ["flag", "letter", "renamed to this", "single", "color", "inner", "pair"];
    assert_eq!(names, expected);
    assert_eq!(fields[4].data_type(), &DataType::Utf8);
    let DataType::Struct(pair) = fields[6].data_type() else { panic!("a tuple is a struct") };
    assert_eq!((pair[0].name().as_str(), pair[1].name().as_str()), ("0", "1"));
}

#[test]
fn a_value_of_none_is_not_a_row_without_a_value() {
    let read = |rows: &[Option<Option<u8>>]| {
        let mut tier = Tier::Flat;
        let (field, array) =
            encode("v", rows.iter().map(Option::as_ref), &mut tier).expect("encodes");
        let reader = ColumnReader::<Option<u8>>::new(&field, &array).expect("opens");
        for (row, value) in rows.iter().enumerate() {
            assert_eq!(reader.get(row).ok(), *value);
            assert_eq!(reader.is_absent(row), value.is_none());
        }
        tier
    };
    assert_eq!(read(&[Some(None), Some(Some(1))]), Tier::Flat);
    assert_eq!(read(&[Some(None), Some(None)]), Tier::Flat);
    assert_eq!(read(&[None, Some(Some(1))]), Tier::Flat);
    assert_eq!(read(&[None, None]), Tier::Flat);
    // Both in one column need more than one kind of null.
    assert_eq!(read(&[None, Some(None)]), Tier::General);
    assert_eq!(read(&[None, Some(None), Some(Some(1))]), Tier::General);
}

#[test]
fn a_tier_is_kept() {
    let mut tier = Tier::Flat;
    let mut written = |rows: &[serde_json::Value]| {
        let (_, array) = encode("v", rows.iter().map(Some), &mut tier).expect("encodes");
        (tier, array)
    };
    assert_eq!(written(&[json!(1)]).0, Tier::Flat);
    assert_eq!(written(&[json!([1])]).0, Tier::General);
    assert_eq!(written(&[json!(1)]).0, Tier::General);
    assert_eq!(written(&[json!(1), json!("a")]).0, Tier::Opaque);
    let (tier, array) = written(&[json!(1)]);
    assert_eq!((tier, array.data_type()), (Tier::Opaque, &DataType::Binary));
}

#[test]
fn what_changes_between_rows_is_not_flat() {
    // The same number of fields under other names, and the same text from a character and a string.
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    #[serde(untagged)]
    enum Either {
        A { x: u8 },
        B { y: u8 },
        C(char),
        D(String),
    }
    assert!(tier([Either::A { x: 1 }, Either::B { y: 1 }]) > Tier::Flat);
    assert!(tier([Either::C('a'), Either::D("bc".into())]) > Tier::Flat);
    // A struct whose fields look like a tuple's.
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Numbered {
        #[serde(rename = "0")]
        zero: u8,
    }
    assert!(tier([Numbered { zero: 1 }]) > Tier::Flat);
}

#[test]
fn what_serde_itself_loses_is_an_error() {
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    #[serde(untagged)]
    enum Lossy {
        A(Option<Option<u8>>),
    }
    let rows = [Lossy::A(Some(None))];
    let error = encode("v", rows.iter().map(Some), &mut Tier::Flat).expect_err("it is lost");
    assert!(error.to_string().contains("Lossy"), "{error}");
}

#[test]
fn arrays_are_shared_not_copied() {
    let (field, array) = encode("v", [1u64, 2].iter().map(Some), &mut Tier::Flat).expect("encodes");
    let strong = Arc::strong_count(&array);
    let reader = ColumnReader::<u64>::new(&field, &array).expect("opens");
    assert_eq!((reader.len(), Arc::strong_count(&array)), (2, strong));
}
