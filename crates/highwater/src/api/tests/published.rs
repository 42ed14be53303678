//! Cases that Apache Spark publishes for its streams of batches (BasicOperationsSuite and MapWithStateSuite, Apache-2.0),
//! one batch an epoch and trigger.

use std::fmt::Debug;

use crate::api::test_support::{Rig, run_stateless};
use crate::api::{Data, KeyedStream, StateHandle};

/// Each string is a key, with the value 1.
fn ones(batch: &[&str]) -> Vec<(String, u64)> {
    batch.iter().map(|key| ((*key).to_owned(), 1)).collect()
}

/// Runs batches, one a trigger, with a crash and another number of workers after each; compares what comes out of each as sets.
fn check<O: Data + Ord + Debug>(mut rig: Rig, input: &[&[&str]], expected: Vec<Vec<O>>) {
    assert_eq!(input.len(), expected.len());
    for (number, (batch, mut expected)) in input.iter().zip(expected).enumerate() {
        let mut out: Vec<O> = rig.feed(0, ones(batch));
        out.extend(rig.complete(true));
        out.sort();
        expected.sort();
        assert_eq!(out, expected, "batch {number}");
        rig.checkpoint();
        rig.crash(1 + number % 3);
    }
}

fn pairs(batches: &[&[(&str, u64)]]) -> Vec<Vec<(String, u64)>> {
    let owned = |(key, value): &(&str, u64)| ((*key).to_owned(), *value);
    batches.iter().map(|batch| batch.iter().map(owned).collect()).collect()
}

#[test]
fn map_flat_map_filter_union() {
    for batch in [[1_u64, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]] {
        let batch = batch.to_vec();
        let [out] = run_stateless(batch.clone(), |s| [s.map(|x| x.to_string())]);
        assert_eq!(out, batch.iter().map(u64::to_string).collect::<Vec<_>>());
        let [out] = run_stateless(batch.clone(), |s| [s.flat_map(|x| [x, 2 * x])]);
        assert_eq!(out, batch.iter().flat_map(|x| [*x, 2 * x]).collect::<Vec<_>>());
        let [out] = run_stateless(batch.clone(), |s| [s.filter(|x| x % 2 == 0)]);
        assert_eq!(out, [batch[1], batch[3]]);
    }
    let [out] = run_stateless(vec![1_u64, 2, 3, 4], |s| [s.union(&s.map(|x| x + 4))]);
    assert_eq!(out, (1..=8).collect::<Vec<_>>());
    let [out] = run_stateless(vec![1_u64, 2, 3, 4], |s| {
        [s.union_all([&s.map(|x| x + 4), &s.map(|x| x + 8)])]
    });
    assert_eq!(out, (1..=12).collect::<Vec<_>>());
}

const KEYS_COME_AND_GO: [&[&str]; 6] =
    [&["a"], &["a", "b"], &["a", "b", "c"], &["a", "b"], &["a"], &[]];

#[test]
fn usbk_basic() {
    let rig = Rig::new(2, |keyed| {
        keyed.update_state_by_key(|_: &String, values: Vec<u64>, sum: Option<u64>| {
            Some(sum.unwrap_or(0) + values.iter().sum::<u64>())
        })
    });
    let expected = pairs(&[
        &[("a", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 3), ("b", 2), ("c", 1)],
        &[("a", 4), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
    ]);
    check(rig, &KEYS_COME_AND_GO, expected);
}

#[test]
fn usbk_expire() {
    // The count, and in how many batches in a row the key has not been seen.
    let rig = Rig::new(2, |keyed| {
        keyed.update_state_by_key(|_: &String, values: Vec<u64>, old: Option<(u64, u64)>| {
            let (count, absent) = old.unwrap_or_default();
            match (values.len() as u64, absent) {
                (0, 0) => Some((count, 1)),
                (0, _) => None,
                (new, _) => Some((count + new, 0)),
            }
        })
    });
    let input: [&[&str]; 6] = [&["a", "b"], &[], &["a", "c", "a"], &["c"], &[], &[]];
    let row = |key: &str, count: u64, absent: u64| (key.to_owned(), (count, absent));
    let expected = vec![
        vec![row("a", 1, 0), row("b", 1, 0)],
        vec![row("a", 1, 1), row("b", 1, 1)],
        vec![row("a", 3, 0), row("c", 1, 0)],
        vec![row("a", 3, 1), row("c", 2, 0)],
        vec![row("c", 2, 1)],
        vec![],
    ];
    check(rig, &input, expected);
}

#[test]
fn mws_running_count() {
    let rig = Rig::new(2, |keyed| {
        keyed.map_with_state(|_: &String, one: u64, count: &mut StateHandle<'_, u64>| {
            let new = count.get().copied().unwrap_or(0) + one;
            count.set(new);
            count.get().copied()
        })
    });
    let expected: Vec<Vec<u64>> =
        vec![vec![1], vec![2, 1], vec![3, 2, 1], vec![4, 3], vec![5], vec![]];
    check(rig, &KEYS_COME_AND_GO, expected);
}

#[test]
fn mws_remove() {
    let rig = Rig::new(2, |keyed| {
        keyed.map_with_state(|key: &String, one: u64, state: &mut StateHandle<'_, u64>| {
            if state.exists() {
                state.remove();
                assert!(!state.exists(), "a change is seen at once");
                return Some(key.clone());
            }
            state.set(one);
            None
        })
    });
    let input: [&[&str]; 8] =
        [&[], &["a"], &["a", "b"], &["a", "b", "c"], &["a", "b", "c"], &["a", "b"], &["a"], &[]];
    let expected: [&[&str]; 8] = [&[], &[], &["a"], &["b"], &["a", "c"], &["b"], &["a"], &[]];
    let owned = expected.map(|batch| batch.iter().map(|key| (*key).to_owned()).collect());
    check::<String>(rig, &input, owned.into());
}

/// The last row of each key is what `reduceByKey` and `countByValue` give for all batches together.
#[test]
fn reduce_by_key_and_count_by_value() {
    let input: [&[&str]; 3] = [&["a", "a", "b"], &["", ""], &[]];
    let expected = pairs(&[&[("a", 2), ("b", 1)], &[("", 2)], &[]]);
    type Ones = KeyedStream<String, u64>;
    check(Rig::new(2, |keyed: Ones| keyed.reduce(|a, b| a + b)), &input, expected.clone());
    check(Rig::new(2, |keyed: Ones| keyed.sum(|one| one)), &input, expected.clone());
    check(Rig::new(2, |keyed: Ones| keyed.count()), &input, expected);
}
