//! Running aggregates against a fold over a list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use proptest::prelude::*;

use super::{Event, OPEN_EPOCHS, events, text};
use crate::api::test_support::Rig;
use crate::api::{Aggregate, Data, Key, KeyedStream, Running};

/// Drives one aggregate through events. `model` says what the values of a key come to.
fn check<K, O>(
    events: &[Event],
    every_record: bool,
    key_of: impl Fn(u16) -> K,
    build: impl FnOnce(KeyedStream<K, u32>) -> Running<K, O>,
    model: impl Fn(&[u32]) -> O,
) where
    K: Key + Ord + Debug,
    O: Data + PartialEq + Debug,
{
    let mut rig = Rig::new(2, |keyed| {
        let running = build(keyed);
        if every_record { running.every_record() } else { running }
    });
    let mut values: BTreeMap<K, Vec<u32>> = BTreeMap::new();
    let mut last: BTreeMap<K, O> = BTreeMap::new();
    let mut committed = (values.clone(), last.clone());
    // By epoch, the keys that it touched.
    let mut touched: Vec<BTreeSet<K>> = vec![BTreeSet::new(); OPEN_EPOCHS as usize];
    let complete = |rig: &mut Rig, touched: &mut Vec<BTreeSet<K>>, last: &mut BTreeMap<K, O>| {
        let keys = touched.remove(0);
        touched.push(BTreeSet::new());
        let rows = rig.complete::<(K, O)>(false);
        let emitted: BTreeSet<K> = rows.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(emitted.len(), rows.len(), "one row a key and epoch");
        assert!(emitted.is_subset(&keys), "{emitted:?} {keys:?}");
        if !every_record {
            // A key that isn't told now is told by a later epoch that touched it as well.
            let later: BTreeSet<K> = touched.iter().flatten().cloned().collect();
            let untold: BTreeSet<K> = keys.difference(&emitted).cloned().collect();
            assert!(untold.is_subset(&later), "{untold:?} {later:?}");
        } else {
            assert!(rows.is_empty());
        }
        last.extend(rows);
    };
    for event in events.iter().cloned() {
        match event {
            Event::Records(ahead, rows) => {
                let rows: Vec<(K, u32)> = rows.into_iter().map(|(k, v)| (key_of(k), v)).collect();
                for (key, value) in &rows {
                    values.entry(key.clone()).or_default().push(*value);
                    touched[ahead as usize].insert(key.clone());
                }
                let count = rows.len();
                let out: Vec<(K, O)> = rig.feed(ahead, rows);
                assert_eq!(out.len(), if every_record { count } else { 0 });
                last.extend(out);
            }
            Event::Complete { .. } => complete(&mut rig, &mut touched, &mut last),
            Event::Checkpoint { .. } => {
                (0..OPEN_EPOCHS).for_each(|_| complete(&mut rig, &mut touched, &mut last));
                assert_eq!(last.len(), values.len());
                for (key, values) in &values {
                    assert_eq!(last[key], model(values), "{key:?}");
                }
                rig.checkpoint();
                committed = (values.clone(), last.clone());
            }
            Event::Crash(workers) => {
                rig.crash(workers);
                (values, last) = committed.clone();
                touched.iter_mut().for_each(BTreeSet::clear);
            }
        }
    }
}

/// The last value and how many there were: depends on the order.
struct LastAndCount;

impl Aggregate for LastAndCount {
    type In = u32;
    type Acc = (Option<u32>, u64);
    type Out = String;
    fn create(&self) -> (Option<u32>, u64) {
        (None, 0)
    }
    fn add(&self, acc: &mut (Option<u32>, u64), value: u32) {
        *acc = (Some(value), acc.1 + 1);
    }
    fn result(&self, acc: &(Option<u32>, u64)) -> String {
        format!("{acc:?}")
    }
}

fn join(values: &[u32]) -> String {
    values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn running_aggregates_are_folds(events in events(), every in any::<bool>()) {
        check(&events, every, text, |k| k.count(), |v| v.len() as u64);
        check(&events, every, u64::from, |k| k.sum(u64::from), |v| {
            v.iter().copied().map(u64::from).sum()
        });
        check(&events, every, text, |k| k.sum(f64::from), |v| v.iter().copied().map(f64::from).sum());
        check(&events, every, u64::from, |k| k.reduce(|a, b| a.wrapping_mul(31) ^ b), |v| {
            v.iter().copied().reduce(|a, b| a.wrapping_mul(31) ^ b).unwrap()
        });
        check(&events, every, text, |k| k.aggregate(LastAndCount), |v| {
            format!("{:?}", (v.last(), v.len()))
        });
        check(&events, every, text, |k| k.min(), |v| *v.iter().min().unwrap());
        check(&events, every, u64::from, |k| k.max(), |v| *v.iter().max().unwrap());
        // Of equals, the first.
        let first = |v: &[u32], beats: fn(u32, u32) -> bool| {
            v.iter().copied().reduce(|held, new| if beats(held % 5, new % 5) { new } else { held })
        };
        check(&events, every, text, |k| k.min_by_key(|v| v % 5), |v| {
            first(v, |held, new| new < held).unwrap()
        });
        check(&events, every, text, |k| k.max_by_key(|v| v % 5), |v| {
            first(v, |held, new| new > held).unwrap()
        });
        let append = |acc: &mut String, value: u32| {
            let comma = if acc.is_empty() { "" } else { "," };
            *acc += &format!("{comma}{value}");
        };
        check(&events, every, text, |k| k.fold(String::new(), append), join);
    }
}

#[test]
fn a_large_epoch_comes_out_in_slices() {
    let mut rig = Rig::new(1, |keyed: KeyedStream<u64, u32>| keyed.count());
    let rows: Vec<(u64, u32)> = (0..30_000).map(|n| (n % 20_000, 0)).collect();
    rig.feed::<_, _, (u64, u64)>(0, rows);
    let out: Vec<(u64, u64)> = rig.complete(false);
    assert_eq!(out.len(), 20_000);
    assert!(out.iter().all(|(key, count)| *count == if *key < 10_000 { 2 } else { 1 }));
    assert!(rig.complete::<(u64, u64)>(false).is_empty());
}

/// The stored column is the accumulator, without what the operator adds to it.
#[test]
fn only_changed_accumulators_are_written() {
    let mut rig = Rig::new(1, |keyed: KeyedStream<u64, u32>| keyed.count());
    rig.feed::<_, _, (u64, u64)>(0, (0..20_000_u64).map(|n| (n, 0_u32)).collect());
    rig.complete::<(u64, u64)>(false);
    rig.checkpoint();
    assert_eq!(rig.written("accumulator"), 20_000);
    rig.feed::<_, _, (u64, u64)>(0, vec![(7_u64, 0_u32)]);
    rig.complete::<(u64, u64)>(false);
    rig.checkpoint();
    assert_eq!(rig.written("accumulator"), 1);
}
