//! A column is read by the type that its own has become since.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Date32Array, Decimal256Array, Int64Array};
use arrow_schema::{DataType, Field};
use highwater_codec::{CodecError, ColumnReader, Tier, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct V1 {
    id: u32,
    count: i32,
    ratio: f32,
    name: String,
    place: (u16, bool),
}

fn v1() -> V1 {
    V1 { id: u32::MAX, count: -7, ratio: 0.5, name: "ada".into(), place: (9, true) }
}

/// What the only row reads as, the same from every tier.
fn read_as<T: DeserializeOwned + PartialEq + std::fmt::Debug>() -> Result<T, String> {
    let read = [Tier::Flat, Tier::General, Tier::Opaque].map(|start| {
        let mut tier = start;
        let (field, array) = encode("state", [Some(&v1())].into_iter(), &mut tier)?;
        assert_eq!(tier, start);
        ColumnReader::<T>::new(&field, &array)?.get(0)
    });
    let [flat, general, opaque] = read.map(|read| read.map_err(|error| error.to_string()));
    assert_eq!(flat, general);
    assert_eq!(flat.as_ref().ok(), opaque.as_ref().ok());
    flat
}

#[test]
fn fields_are_found_by_name() {
    fn seven() -> u8 {
        7
    }
    #[derive(Deserialize, PartialEq, Debug)]
    struct V2 {
        name: Option<String>,
        #[serde(default = "seven")]
        added: u8,
        added_too: Option<String>,
        #[serde(alias = "id")]
        number: u64,
        count: i128,
        ratio: f64,
    }
    let expected = V2 {
        name: Some("ada".into()),
        added: 7,
        added_too: None,
        number: u64::from(u32::MAX),
        count: -7,
        ratio: 0.5,
    };
    assert_eq!(read_as::<V2>(), Ok(expected));
}

#[test]
fn columns_without_a_field_are_left_even_if_unknown_fields_are_denied() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct V2 {
        count: i64,
    }
    let mut tier = Tier::Flat;
    let (field, array) = encode("state", [Some(&v1())].into_iter(), &mut tier).expect("encodes");
    let reader = ColumnReader::<V2>::new(&field, &array).expect("opens");
    assert_eq!(reader.get(0).expect("reads"), V2 { count: -7 });
}

#[test]
fn a_field_that_has_no_default_is_named() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct V2 {
        id: u32,
        surname: String,
    }
    let error = read_as::<V2>().expect_err("there is no such field");
    assert!(error.contains("surname") && error.contains("`state`"), "{error}");
}

#[test]
fn a_field_of_another_type_is_named_with_its_path() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct V2 {
        place: (u16, String),
    }
    let error = read_as::<V2>().expect_err("a bool isn't a string");
    assert!(error.contains("place.1") && error.contains("expected a string"), "{error}");

    #[derive(Deserialize, PartialEq, Debug)]
    struct Narrow {
        id: u8,
    }
    let error = read_as::<Narrow>().expect_err("it doesn't fit");
    assert!(error.contains("`id`") && error.contains("4294967295"), "{error}");
}

#[test]
fn a_tuple_is_not_cut_short() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct V2 {
        place: (u16,),
    }
    assert!(read_as::<V2>().is_err());
}

#[test]
fn a_value_becomes_optional() {
    let (field, array) = encode("n", [1u32, 2].iter().map(Some), &mut Tier::Flat).expect("encodes");
    let reader = ColumnReader::<Option<u64>>::new(&field, &array).expect("opens");
    assert_eq!(reader.get(1).expect("reads"), Some(2));
}

#[test]
fn fields_inside_of_lists_and_variants_evolve_too() {
    #[derive(Serialize, Deserialize)]
    enum E1 {
        Items(Vec<V1>),
        Record { a: u8 },
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Item {
        id: u64,
        #[serde(default)]
        new: bool,
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum E2 {
        Record { b: Option<u8>, a: u64 },
        Items(Vec<Item>),
        Other,
    }
    let rows = [E1::Items(vec![v1()]), E1::Record { a: 3 }];
    let mut tier = Tier::Flat;
    let (field, array) = encode("e", rows.iter().map(Some), &mut tier).expect("encodes");
    assert_eq!(tier, Tier::General);
    let reader = ColumnReader::<E2>::new(&field, &array).expect("opens");
    let items = vec![Item { id: u64::from(u32::MAX), new: false }];
    assert_eq!(reader.get(0).expect("reads"), E2::Items(items));
    assert_eq!(reader.get(1).expect("reads"), E2::Record { b: None, a: 3 });
}

#[test]
fn a_wrong_array_is_refused() {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![1]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let decimals = Decimal256Array::from(vec![None]).with_precision_and_scale(10, 2);
    let decimals: ArrayRef = Arc::new(decimals.expect("a decimal"));
    let field = |data_type, metadata: &[(&str, &str)]| {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        Field::new("key", data_type, true).with_metadata(metadata)
    };
    for (field, array) in [
        (field(DataType::Int64, &[]), &days),
        (field(DataType::Decimal256(10, 2), &[]), &decimals),
        (field(DataType::Int64, &[("highwater.tier", "opaque")]), &numbers),
        (field(DataType::Int64, &[("highwater.tier", "of another version")]), &numbers),
    ] {
        let error = ColumnReader::<i64>::new(&field, array).expect_err("it can't be read");
        assert!(matches!(&error, CodecError::Column { column, .. } if column == "key"), "{error}");
    }
    // Without metadata, as another tool may have left it, plain columns read.
    let plain = field(DataType::Int64, &[]);
    let reader = ColumnReader::<i64>::new(&plain, &numbers).expect("opens");
    assert_eq!(reader.get(0).expect("reads"), 1);
}
