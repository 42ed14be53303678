//! Bytes that are almost an object: whatever is wrong with them, there is an error and neither a panic nor a flood of memory.
//!
//! A disk that fails is found by checksums; an index whose checksum is right and whose numbers are not is what somebody's own tool
//! might write.

use std::alloc::System;

use bytes::Bytes;
use cap::Cap;
use highwater_state::object::{self, Object};
use highwater_state::{Image, KeyGroups, KeyedTable, Kind, Slice, StateTable};
use proptest::prelude::*;

/// An allocation beyond this fails, which ends the test.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 512 << 20);

type Value = (String, Option<i64>, Vec<u8>);

fn table() -> KeyedTable<u32, Value> {
    KeyedTable::new("state", Kind::Value, KeyGroups::new(8), 0..8)
}

/// A real object: some keys, changed and removed in two intervals.
fn real() -> Vec<u8> {
    let mut table = table();
    table.begin(1, true);
    for key in 0..50_u32 {
        table.set(
            key,
            (format!("value {key}"), (key % 3 > 0).then_some(-1), vec![7; key as usize % 5]),
        );
    }
    let mut sections = Vec::new();
    let mut encode = |table: &mut KeyedTable<u32, Value>, next| {
        table.freeze(next, None);
        loop {
            if let Slice::Done(done) = table.encode(1000).unwrap() {
                sections.extend(done.into_iter().map(|section| ("operator".to_owned(), section)));
                return;
            }
        }
    };
    encode(&mut table, 2);
    (0..10).for_each(|key| drop(table.remove(&key)));
    encode(&mut table, 3);
    object::write(&sections).concat()
}

/// What may be wrong with bytes.
#[derive(Clone, Debug)]
enum Wrong {
    Flip(usize, u8),
    Write(usize, Vec<u8>),
    Cut(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
    /// Another number in the index at the end.
    Number(usize, u64),
}

fn wrong() -> impl Strategy<Value = Wrong> {
    let at = any::<usize>();
    prop_oneof![
        4 => (at, 0..8_u8).prop_map(|(at, bit)| Wrong::Flip(at, bit)),
        2 => (at, proptest::collection::vec(any::<u8>(), 1..16)).prop_map(|(at, b)| Wrong::Write(at, b)),
        1 => at.prop_map(Wrong::Cut),
        1 => (at, 1..64_usize).prop_map(|(at, count)| Wrong::Remove(at, count)),
        1 => (at, 1..64_usize).prop_map(|(at, count)| Wrong::Repeat(at, count)),
        4 => (at, prop_oneof![any::<u64>(), 0..100_u64, Just(u64::MAX), Just(1 << 40)])
            .prop_map(|(at, number)| Wrong::Number(at, number)),
    ]
}

impl Wrong {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        let range = |at: usize, count: usize, bytes: &[u8]| {
            let at = at % length;
            at.min(bytes.len())..(at + count).min(bytes.len())
        };
        match self {
            Wrong::Flip(at, bit) => {
                if let Some(byte) = bytes.get_mut(at % length) {
                    *byte ^= 1 << bit;
                }
            }
            Wrong::Write(at, with) => {
                let range = range(*at, with.len(), bytes);
                let count = range.len();
                bytes[range].copy_from_slice(&with[..count]);
            }
            Wrong::Cut(at) => bytes.truncate(at % length),
            Wrong::Remove(at, count) => drop(bytes.drain(range(*at, *count, bytes))),
            Wrong::Repeat(at, count) => {
                let range = range(*at, *count, bytes);
                let copy = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, copy);
            }
            Wrong::Number(at, number) => change_index(bytes, *at, *number),
        }
    }
}

/// Puts another number into the index, and keeps the object well-formed around it.
fn change_index(bytes: &mut Vec<u8>, at: usize, number: u64) {
    let Some(rest) = bytes.len().checked_sub(24) else { return };
    let length = u64::from_le_bytes(bytes[rest + 8..rest + 16].try_into().unwrap()) as usize;
    let Some(start) = rest.checked_sub(length) else { return };
    let Ok(mut index) = serde_json::from_slice::<serde_json::Value>(&bytes[start..rest]) else {
        return;
    };
    let mut numbers = Vec::new();
    collect(&mut index, &mut numbers);
    if numbers.is_empty() {
        return;
    }
    let which = at % numbers.len();
    *numbers.swap_remove(which) = number.into();
    bytes.truncate(start);
    let index = index.to_string();
    bytes.extend_from_slice(index.as_bytes());
    bytes.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(index.as_bytes()).to_le_bytes());
    bytes.extend_from_slice(&(index.len() as u64).to_le_bytes());
    bytes.extend_from_slice(object::MAGIC);
}

fn collect<'v>(value: &'v mut serde_json::Value, numbers: &mut Vec<&'v mut serde_json::Value>) {
    match value {
        serde_json::Value::Number(_) => numbers.push(value),
        serde_json::Value::Array(all) => all.iter_mut().for_each(|value| collect(value, numbers)),
        serde_json::Value::Object(all) => {
            all.values_mut().for_each(|value| collect(value, numbers));
        }
        _ => {}
    }
}

fn restore(bytes: Vec<u8>) -> bool {
    let Ok(object) = Object::open("object", Bytes::from(bytes)) else { return false };
    let image = Image::new(vec![object]);
    table().restore("operator", &image).is_ok()
}

#[test]
fn the_real_one_is_restored() {
    assert!(restore(real()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_with_something_wrong(all in proptest::collection::vec(wrong(), 1..4)) {
        let mut bytes = real();
        all.iter().for_each(|wrong| wrong.apply(&mut bytes));
        restore(bytes);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic {
            bytes.extend_from_slice(object::MAGIC);
        }
        restore(bytes);
    }
}
