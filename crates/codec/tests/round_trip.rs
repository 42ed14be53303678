//! Any value comes back equal, through whatever tier its rows land in, with rows of no value among them.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use chrono::{DateTime, NaiveDate, Utc};
use common::*;
use proptest::collection::{btree_map, hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Rows of one strategy, some of them without a value.
fn rows<S: Strategy>(values: S) -> impl Strategy<Value = Vec<Option<S::Value>>> {
    vec(option::weighted(0.8, values), 0..12)
}

fn check<S>(values: S)
where
    S: Strategy,
    S::Value: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let config = ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() };
    proptest!(config, |(rows in rows(values))| { comes_back(&rows); });
}

macro_rules! come_back {
    ($($name:ident: $values:expr;)*) => { $( #[test] fn $name() { check($values); } )* };
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), ".{0,8}"]
}

fn double() -> impl Strategy<Value = Double> {
    prop_oneof![any::<f64>(), any::<u64>().prop_map(f64::from_bits), Just(-0.0)].prop_map(Double)
}

fn single() -> impl Strategy<Value = Single> {
    any::<u32>().prop_map(f32::from_bits).prop_map(Single)
}

fn color() -> impl Strategy<Value = Color> {
    prop_oneof![Just(Color::Red), Just(Color::Green)]
}

fn inner() -> impl Strategy<Value = Inner> {
    (any::<i16>(), option::of(text())).prop_map(|(number, text)| Inner { number, text })
}

fn flat() -> impl Strategy<Value = Flat> {
    let scalars = (any::<bool>(), any::<char>(), double(), single());
    (scalars, option::of(color()), option::of(inner()), (any::<u8>(), text())).prop_map(
        |((flag, letter, double, single), color, inner, pair)| Flat {
            flag,
            letter,
            double,
            single,
            color,
            inner,
            pair,
            skipped: 0,
        },
    )
}

fn untagged() -> impl Strategy<Value = Untagged> {
    prop_oneof![
        any::<i64>().prop_map(Untagged::Number),
        text().prop_map(Untagged::Text),
        (any::<u8>(), any::<Option<u8>>()).prop_map(|(x, y)| Untagged::Record { x, y }),
    ]
}

fn internal() -> impl Strategy<Value = Internal> {
    prop_oneof![
        any::<u64>().prop_map(|at| Internal::Start { at }),
        any::<u64>().prop_map(|at| Internal::Stop { at }),
        Just(Internal::Pause),
    ]
}

fn adjacent() -> impl Strategy<Value = Adjacent> {
    prop_oneof![
        any::<u32>().prop_map(Adjacent::Number),
        (any::<u8>(), text()).prop_map(|(number, text)| Adjacent::Pair(number, text)),
        Just(Adjacent::Nothing),
    ]
}

fn external() -> impl Strategy<Value = External> {
    prop_oneof![
        Just(External::Unit),
        any::<u64>().prop_map(External::Newtype),
        (any::<i8>(), text()).prop_map(|(number, text)| External::Tuple(number, text)),
        (vec(any::<u8>(), 0..3), option::of(text()))
            .prop_map(|(items, name)| External::Record { items, name }),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    any::<i32>().prop_map(Tree::Leaf).prop_recursive(4, 16, 2, |tree| {
        (tree.clone(), tree)
            .prop_map(|(left, right)| Tree::Node { left: left.into(), right: right.into() })
    })
}

fn chain() -> impl Strategy<Value = Chain> {
    vec(any::<u8>(), 1..5).prop_map(|values| {
        let link = |next: Option<Chain>, value| Some(Chain { value, next: next.map(Box::new) });
        values.into_iter().fold(None, link).expect("at least one link")
    })
}

fn skipping() -> impl Strategy<Value = Skipping> {
    (any::<u8>(), vec(any::<u16>(), 0..3), option::of(text()), any::<u64>())
        .prop_map(|(id, list, text, count)| Skipping { id, list, text, count })
}

fn patch() -> impl Strategy<Value = Patch> {
    let tags = btree_map((any::<i32>(), text()), any::<Option<()>>(), 0..3);
    (any::<u8>(), option::of(option::of(text())), tags).prop_map(|(id, change, tags)| Patch {
        id,
        change,
        tags,
    })
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i32>().prop_map(|number| (f64::from(number) / 8.0).into()),
        text().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 12, 3, |value| {
        prop_oneof![
            vec(value.clone(), 0..3).prop_map(Into::into),
            btree_map(text(), value, 0..3).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn date() -> impl Strategy<Value = NaiveDate> {
    (-700_000..700_000).prop_map(|day| NaiveDate::from_num_days_from_ce_opt(day).expect("in range"))
}

fn instant() -> impl Strategy<Value = DateTime<Utc>> {
    (-(1i64 << 40)..1 << 40, 0..1_000_000_000u32)
        .prop_map(|(second, ns)| DateTime::from_timestamp(second / 16, ns).expect("in range"))
}

come_back! {
    bools: any::<bool>();
    i8s: any::<i8>();
    i16s: any::<i16>();
    i32s: any::<i32>();
    i64s: prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX)];
    i128s: any::<i128>();
    u8s: any::<u8>();
    u16s: any::<u16>();
    u32s: any::<u32>();
    u64s: prop_oneof![any::<u64>(), Just(u64::MAX)];
    u128s: any::<u128>();
    doubles: double();
    singles: single();
    chars: any::<char>();
    strings: text();
    units: any::<()>();
    unit_structs: Just(UnitStruct);
    empty_structs: Just(Empty {});
    optional_empty_structs: option::of(Just(Empty {}));
    colors: color();
    options: any::<Option<u32>>();
    nested_options: any::<Option<Option<u8>>>();
    options_of_unit: any::<Option<()>>();
    options_of_unit_structs: option::of(Just(UnitStruct));
    tuples: (any::<u64>(), (any::<i8>(), text()), any::<Option<bool>>());
    arrays: any::<[u16; 3]>();
    empty_arrays: Just([0u8; 0]);
    flat_structs: flat();
    flattened_structs: (any::<u32>(), inner()).prop_map(|(id, inner)| FlattenStruct { id, inner });
    flattened_maps: (any::<u32>(), hash_map("[a-c]{2}", text(), 0..4)).prop_map(|(id, rest)| FlattenMap { id, rest });
    untagged_enums: untagged();
    internal_enums: internal();
    adjacent_enums: adjacent();
    external_enums: external();
    options_of_enums: option::of(external());
    lists_of_enums: vec(external(), 0..3);
    trees: tree();
    chains: chain();
    skipping_structs: skipping();
    patches: patch();
    instants: instant();
    dates: date();
    maps_by_number: btree_map(any::<u32>(), text(), 0..4);
    maps_by_tuple: btree_map((any::<i32>(), text()), any::<i64>(), 0..4);
    maps_by_option: btree_map(any::<Option<i32>>(), any::<i64>(), 0..4);
    hash_maps: hash_map(text(), any::<u64>(), 0..6);
    nested_maps: btree_map(text(), hash_map(text(), vec(inner(), 0..2), 0..3), 0..3);
    byte_lists: vec(any::<u8>(), 0..9);
    lists_of_lists: vec(option::of(vec(any::<i32>(), 0..3)), 0..3);
    lists_of_structs: vec(flat(), 0..3);
    options_of_lists: option::of(vec(text(), 0..3));
    pairs_with_u128: (any::<u128>(), any::<i128>(), option::of(any::<u128>()));
    json_values: json();
}

#[test]
fn no_rows_at_all() {
    let mut tiers = vec![comes_back::<u64>(&[]), comes_back::<External>(&[])];
    tiers.push(comes_back::<HashMap<String, u64>>(&[None, None]));
    tiers.push(comes_back::<BTreeMap<u8, ()>>(&[]));
    assert!(tiers.iter().all(|&tier| tier == highwater_codec::Tier::Flat));
}
