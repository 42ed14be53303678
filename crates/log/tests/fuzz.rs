//! Bytes that are almost an entry or a manifest: whatever is wrong with them, it is said, and there is neither a panic nor a flood of
//! memory; and whatever decisions are made from what was read, they are made.

use std::alloc::System;
use std::collections::BTreeMap;

use cap::Cap;
use highwater_log::entry::FORMAT;
use highwater_log::facts::{Facts, examine};
use highwater_log::{Manifest, names, next_base, record};
use proptest::prelude::*;
use serde_json::Value;

/// An allocation beyond this fails, which ends the test.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 256 << 20);

const FIXTURES: [&str; 3] = [
    include_str!("fixtures/attempt-v1.json"),
    include_str!("fixtures/checkpoint-v1.json"),
    include_str!("fixtures/manifest-v1.json"),
];

/// Something wrong with a record: bytes, or a value in it.
#[derive(Clone, Debug)]
enum Wrong {
    Byte(usize, u8),
    Cut(usize),
    Repeat(usize, usize),
    /// Another value at some place, under a checksum that is right.
    Value(usize, Value),
    /// A field less, under a checksum that is right.
    Less(usize),
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..9_u64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(Value::Array(Vec::new())),
        Just(serde_json::json!({})),
        // As deep as a reader may be asked to go, and deeper.
        (0..300_usize)
            .prop_map(|depth| (0..depth).fold(Value::Null, |inner, _| vec![inner].into())),
    ]
}

fn wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        2 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Wrong::Byte(at, byte)),
        1 => any::<usize>().prop_map(Wrong::Cut),
        1 => (any::<usize>(), 1..200_usize).prop_map(|(at, count)| Wrong::Repeat(at, count)),
        5 => (any::<usize>(), value()).prop_map(|(at, value)| Wrong::Value(at, value)),
        2 => any::<usize>().prop_map(Wrong::Less),
    ]
}

impl Wrong {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        match self {
            Wrong::Byte(at, byte) => {
                bytes.iter_mut().skip(at % length).take(1).for_each(|b| *b = *byte)
            }
            Wrong::Cut(at) => bytes.truncate(at % length),
            Wrong::Repeat(at, count) => {
                let at = (at % length).min(bytes.len());
                let end = (at + count).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(end..end, copy);
            }
            Wrong::Value(at, value) => change(bytes, |all| {
                let count = all.len();
                *all.swap_remove(at % count) = value.clone();
            }),
            Wrong::Less(at) => change(bytes, |all| {
                let objects = all.iter_mut().filter_map(|value| value.as_object_mut());
                let mut objects: Vec<_> = objects.filter(|object| !object.is_empty()).collect();
                let count = objects.len();
                if count > 0 {
                    let object = objects.swap_remove(at % count);
                    let name = object.keys().nth((at >> 8) % object.len()).cloned();
                    name.and_then(|name| object.remove(&name));
                }
            }),
        }
    }
}

/// Changes the values of a record, and puts the right checksum under it.
fn change(bytes: &mut Vec<u8>, with: impl FnOnce(&mut Vec<&mut Value>)) {
    let json = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(mut record) = serde_json::from_slice::<Value>(json) else { return };
    // One place at a time: places within each other can't be borrowed together.
    let mut places = Vec::new();
    walk(&mut record, &mut places);
    with(&mut places);
    if let Ok(changed) = record::encode(&record) {
        *bytes = changed;
    }
}

/// Every value that holds no other, and every object right above such.
fn walk<'v>(value: &'v mut Value, places: &mut Vec<&'v mut Value>) {
    let leaf = |value: &Value| !value.is_array() && !value.is_object();
    let inner = match value {
        Value::Object(fields) => !fields.values().all(leaf),
        Value::Array(elements) => !elements.is_empty(),
        _ => false,
    };
    if !inner {
        return places.push(value);
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|value| walk(value, places)),
        Value::Array(elements) => elements.iter_mut().for_each(|value| walk(value, places)),
        _ => unreachable!("it holds others"),
    }
}

fn look(bytes: &[u8]) {
    drop(record::decode::<Manifest>(bytes, FORMAT));
    let mut facts = Facts::default();
    for number in [0, 4, 5, u64::MAX] {
        let found = examine(bytes, number, "log/some");
        facts.entries.insert(number, found);
    }
    for own in [0, 6, u64::MAX] {
        drop(next_base(&facts, own, &BTreeMap::new(), true));
        drop(next_base(&facts, own, &BTreeMap::new(), false));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_with_something_wrong(
        which in 0..FIXTURES.len(),
        all in proptest::collection::vec(wrong(), 1..4),
    ) {
        let mut bytes = FIXTURES[which].as_bytes().to_vec();
        all.iter().for_each(|wrong| wrong.apply(&mut bytes));
        look(&bytes);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        look(&bytes);
    }

    #[test]
    fn any_names(name in ".{0,60}") {
        drop(names::parse(&name));
        let _ = names::entry_number(&name);
    }
}
