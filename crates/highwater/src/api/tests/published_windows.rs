//! Cases that Apache Spark publishes for windows of batches, joins of batches and states with all that they can have
//! (WindowOperationsSuite, BasicOperationsSuite and MapWithStateSuite, Apache-2.0), one batch an epoch and trigger.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::api::test_support::{Rig, plan};
use crate::api::time::secs;
use crate::{Batches, Data, Either, KeyedStream, StateHandle, StateSpec, Stream, WindowResult};

type Ones = KeyedStream<String, u64>;

fn own(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

fn all(batches: &[&[(&str, u64)]]) -> Vec<Vec<(String, u64)>> {
    batches.iter().map(|batch| own(batch)).collect()
}

/// Runs batches, one a trigger, with a crash and another number of workers after each. Answers the windows that end with each.
fn run<K: crate::Key, V: Data, O: Data>(
    mut rig: Rig,
    input: Vec<Vec<(K, V)>>,
) -> Vec<Vec<WindowResult<K, O>>> {
    let mut told = Vec::new();
    for (number, batch) in input.into_iter().enumerate() {
        let early: Vec<WindowResult<K, O>> = rig.feed(0, batch);
        assert!(early.is_empty());
        told.push(rig.complete(true));
        rig.checkpoint();
        rig.crash(1 + number % 3);
    }
    told
}

/// Compares the windows that end after every so many batches with what they must be, as sets.
fn check<O: Data + Ord + Debug>(
    rig: Rig,
    every: usize,
    input: &[&[(&str, u64)]],
    expected: Vec<Vec<(String, O)>>,
) {
    let mut expected = expected.into_iter();
    for (number, told) in run::<_, _, O>(rig, all(input)).into_iter().enumerate() {
        let mut told: Vec<(String, O)> =
            told.into_iter().map(|window| (window.key, window.value)).collect();
        told.sort();
        if (number + 1) % every != 0 {
            assert!(told.is_empty(), "no window ends with batch {number}: {told:?}");
            continue;
        }
        let mut right = expected.next().unwrap();
        right.sort();
        assert_eq!(told, right, "batch {number}");
    }
    assert_eq!(expected.next(), None);
}

const BIG: [&[(&str, u64)]; 12] = [
    &[("a", 1)],
    &[("a", 1), ("b", 1)],
    &[("a", 1), ("b", 1), ("c", 1)],
    &[("a", 1), ("b", 1)],
    &[("a", 1)],
    &[],
    &[("a", 1)],
    &[("a", 1), ("b", 1)],
    &[("a", 1), ("b", 1), ("c", 1)],
    &[("a", 1), ("b", 1)],
    &[("a", 1)],
    &[],
];

const BIG_OUT: [&[(&str, u64)]; 12] = [
    &[("a", 1)],
    &[("a", 2), ("b", 1)],
    &[("a", 2), ("b", 2), ("c", 1)],
    &[("a", 2), ("b", 2), ("c", 1)],
    &[("a", 2), ("b", 1)],
    &[("a", 1)],
    &[("a", 1)],
    &[("a", 2), ("b", 1)],
    &[("a", 2), ("b", 2), ("c", 1)],
    &[("a", 2), ("b", 2), ("c", 1)],
    &[("a", 2), ("b", 1)],
    &[("a", 1)],
];

/// What comes out if no key is ever dropped.
const BIG_KEPT: [&[(&str, u64)]; 12] = [
    &[("a", 1)],
    &[("a", 2), ("b", 1)],
    &[("a", 2), ("b", 2), ("c", 1)],
    &[("a", 2), ("b", 2), ("c", 1)],
    &[("a", 2), ("b", 1), ("c", 0)],
    &[("a", 1), ("b", 0), ("c", 0)],
    &[("a", 1), ("b", 0), ("c", 0)],
    &[("a", 2), ("b", 1), ("c", 0)],
    &[("a", 2), ("b", 2), ("c", 1)],
    &[("a", 2), ("b", 2), ("c", 1)],
    &[("a", 2), ("b", 1), ("c", 0)],
    &[("a", 1), ("b", 0), ("c", 0)],
];

fn plain(length: u32, every: u32) -> Rig {
    Rig::new(2, move |keyed: Ones| {
        keyed.window(Batches::last(length).every(every)).reduce(|a, b| a + b)
    })
}

fn inverse(length: u32, every: u32, drops: bool) -> Rig {
    Rig::new(2, move |keyed: Ones| {
        let windows = keyed.window(Batches::last(length).every(every));
        windows.reduce_with_inverse(|a, b| a + b, |a, b| a - b, move |_, sum| !drops || *sum > 0)
    })
}

#[test]
fn reduce_by_key_and_window() {
    let leaves: [&[(&str, u64)]; 4] = [&[("a", 1)], &[("a", 1)], &[], &[]];
    check(plain(2, 1), 1, &[&[("a", 1), ("a", 3)]], all(&[&[("a", 4)]]));
    check(plain(2, 1), 1, &leaves, all(&[&[("a", 1)], &[("a", 2)], &[("a", 1)], &[]]));
    let kept = all(&[&[("a", 1)], &[("a", 2)], &[("a", 1)], &[("a", 0)]]);
    check(inverse(2, 1, false), 1, &leaves, kept);
    check(plain(2, 1), 1, &BIG, all(&BIG_OUT));
    check(inverse(2, 1, true), 1, &BIG, all(&BIG_OUT));
    check(inverse(2, 1, false), 1, &BIG, all(&BIG_KEPT));
    let input: [&[(&str, u64)]; 8] =
        [&[("a", 1)], &[("a", 2)], &[("a", 3)], &[("a", 4)], &[("a", 5)], &[("a", 6)], &[], &[]];
    let expected = || all(&[&[("a", 3)], &[("a", 10)], &[("a", 18)], &[("a", 11)]]);
    check(plain(4, 2), 2, &input, expected());
    check(inverse(4, 2, false), 2, &input, expected());
    // Windows that leave gaps.
    let gaps = || all(&[&[("a", 5)], &[("a", 11)]]);
    check(plain(2, 3), 3, &input, gaps());
    check(inverse(2, 3, false), 3, &input, gaps());
}

#[test]
fn group_by_key_and_window() {
    let rig = Rig::new(2, |keyed: Ones| keyed.window(Batches::last(2)).collect());
    let ones = |batch: &[(&str, u64)]| -> Vec<(String, Vec<u64>)> {
        own(batch).into_iter().map(|(key, count)| (key, vec![1; count as usize])).collect()
    };
    check(rig, 1, &BIG, BIG_OUT.map(ones).into());
    let rig = Rig::new(2, |keyed: Ones| keyed.window(Batches::each()).collect());
    let batches: [&[(&str, u64)]; 3] = [&[("a", 1), ("a", 1), ("b", 1)], &[("", 1), ("", 1)], &[]];
    let expected: [&[(&str, u64)]; 3] = [&[("a", 2), ("b", 1)], &[("", 2)], &[]];
    check(rig, 1, &batches, expected.map(ones).into());
}

#[test]
fn count_by_value_and_window() {
    let rig = Rig::new(2, |keyed: Ones| keyed.window(Batches::last(2)).count());
    let input: [&[(&str, u64)]; 3] = [&[("a", 1)], &[("b", 1), ("b", 1)], &[("a", 1), ("b", 1)]];
    let expected = all(&[&[("a", 1)], &[("a", 1), ("b", 2)], &[("a", 1), ("b", 3)]]);
    check(rig, 1, &input, expected);
}

/// Batches of numbers, as `batches` has them: with the mark that a trigger has ended.
fn marked(input: &[&[u64]]) -> Vec<Vec<((), Option<u64>)>> {
    let records = |batch: &&[u64]| batch.iter().map(|n| ((), Some(*n))).collect::<Vec<_>>();
    input.iter().map(|batch| [records(batch), vec![((), None)]].concat()).collect()
}

/// The values of all windows that end, in order.
fn values<O: Data>(rig: Rig, input: &[&[u64]]) -> Vec<O> {
    run(rig, marked(input)).into_iter().flatten().map(|window| window.value).collect()
}

#[test]
fn windows_of_all_records() {
    let input: [&[u64]; 8] = [&[0], &[1], &[2], &[3], &[4], &[5], &[], &[]];
    let window = |length: u32, every: u32| {
        let build = |numbers: Stream<u64>| {
            numbers.batches(Batches::last(length).every(every)).collect();
        };
        let mut told: Vec<Vec<u64>> = values(Rig::of(2, plan(build)), &input);
        told.iter_mut().for_each(|window| window.sort());
        told
    };
    let expected: [&[u64]; 8] = [&[0], &[0, 1], &[1, 2], &[2, 3], &[3, 4], &[4, 5], &[5], &[]];
    assert_eq!(window(2, 1), expected);
    let expected: [&[u64]; 4] = [&[0, 1], &[2, 3], &[4, 5], &[]];
    assert_eq!(window(2, 2), expected);
    let expected: [&[u64]; 4] = [&[0, 1], &[0, 1, 2, 3], &[2, 3, 4, 5], &[4, 5]];
    assert_eq!(window(4, 2), expected);
    let expected: [&[u64]; 2] = [&[1, 2], &[4, 5]];
    assert_eq!(window(2, 3), expected);
}

#[test]
fn counts_and_sums_of_all_records() {
    let count = |length: u32| {
        Rig::of(2, plan(move |n: Stream<u64>| drop(n.batches(Batches::last(length)).count())))
    };
    let input: [&[u64]; 6] = [&[1], &[1], &[1, 2], &[0], &[], &[]];
    assert_eq!(values::<u64>(count(2), &input), [1, 2, 3, 3, 1, 0]);
    let input: [&[u64]; 5] = [&[], &[1], &[1, 2], &[1, 2, 3], &[1, 2, 3, 4]];
    assert_eq!(values::<u64>(count(1), &input), [0, 1, 2, 3, 4]);
    let input: [&[u64]; 3] = [&[1, 2, 3, 4], &[5, 6, 7, 8], &[9, 10, 11, 12]];
    let build = |numbers: Stream<u64>| drop(numbers.batches(Batches::each()).reduce(|a, b| a + b));
    assert_eq!(values::<Option<u64>>(Rig::of(2, plan(build)), &input), [10, 26, 42].map(Some));
    let build = |numbers: Stream<u64>| {
        numbers.batches(Batches::each()).transform(|batch| vec![batch.len() as u64, 7]);
    };
    let told: Vec<Vec<u64>> = values(Rig::of(2, plan(build)), &[&[1], &[]]);
    assert_eq!(told, [[1, 7], [0, 7]]);
}

#[test]
fn windows_of_nothing_are_refused() {
    for batches in [Batches::last(0), Batches::each().every(0)] {
        let plan = plan(|pairs: Stream<(String, u64)>| drop(pairs.keyed().window(batches).count()));
        let errors = plan.check(true).unwrap_err();
        assert!(errors[0].what.contains("one trigger long or more"), "{errors:?}");
    }
    let build = |pairs: Stream<(String, u64)>| {
        let windows = pairs.keyed().window(crate::Tumbling::of(secs(1)).by_clock());
        drop(windows.reduce_with_inverse(|a, b| a + b, |a, b| a - b, |_, _| true));
    };
    let errors = plan(build).check(true).unwrap_err();
    assert!(errors[0].what.contains("use `Batches`"), "{errors:?}");
}

#[test]
fn what_both_streams_bring_with_a_batch() {
    type Both = Either<u64, String>;
    let build = |pairs: Stream<(String, Both)>| {
        pairs.keyed().window(Batches::each()).cogroup();
    };
    let batch = |left: &[&str], right: &[&str]| -> Vec<(String, Both)> {
        let left = left.iter().map(|key| ((*key).to_owned(), Either::Left(1)));
        let right = right.iter().map(|key| ((*key).to_owned(), Either::Right("x".to_owned())));
        left.chain(right).collect()
    };
    let input = vec![
        batch(&["a", "a", "b"], &["a", "a", "b"]),
        batch(&["a", ""], &["b", ""]),
        batch(&[""], &[]),
        batch(&[], &[]),
    ];
    let told = run::<_, _, (Vec<u64>, Vec<String>)>(Rig::of(2, plan(build)), input);
    let told: Vec<BTreeMap<String, (usize, usize)>> = told
        .into_iter()
        .map(|batch| {
            let sides = |window: WindowResult<String, (Vec<u64>, Vec<String>)>| {
                (window.key, (window.value.0.len(), window.value.1.len()))
            };
            batch.into_iter().map(sides).collect()
        })
        .collect();
    let sides = |rows: &[(&str, usize, usize)]| -> BTreeMap<String, (usize, usize)> {
        rows.iter().map(|(key, left, right)| ((*key).to_owned(), (*left, *right))).collect()
    };
    let expected = [
        sides(&[("a", 2, 2), ("b", 1, 1)]),
        sides(&[("a", 1, 0), ("b", 0, 1), ("", 1, 1)]),
        sides(&[("", 1, 0)]),
        sides(&[]),
    ];
    assert_eq!(told, expected);
}

const KEYS_COME_AND_GO: [&[(&str, u64)]; 6] = [
    &[("a", 1)],
    &[("a", 1), ("b", 1)],
    &[("a", 1), ("b", 1), ("c", 1)],
    &[("a", 1), ("b", 1)],
    &[("a", 1)],
    &[],
];

#[test]
fn usbk_initial() {
    let initial = own(&[("a", 1), ("c", 2)]);
    let mut rig = Rig::new(2, |keyed: Ones| {
        keyed.update_state_by_key_from(initial, |_, values: Vec<u64>, sum| {
            Some(sum.unwrap_or(0) + values.iter().sum::<u64>())
        })
    });
    let expected = all(&[
        &[("a", 2), ("c", 2)],
        &[("a", 3), ("b", 1), ("c", 2)],
        &[("a", 4), ("b", 2), ("c", 3)],
        &[("a", 5), ("b", 3), ("c", 3)],
        &[("a", 6), ("b", 3), ("c", 3)],
        &[("a", 6), ("b", 3), ("c", 3)],
    ]);
    for (number, (batch, expected)) in KEYS_COME_AND_GO.iter().zip(expected).enumerate() {
        let early: Vec<(String, u64)> = rig.feed(0, own(batch));
        assert!(early.is_empty());
        let mut told: Vec<(String, u64)> = rig.complete(true);
        told.sort();
        assert_eq!(told, expected, "batch {number}");
        rig.checkpoint();
        rig.crash(1 + number % 3);
    }
}

/// What is mapped, and all states, with a batch of every second.
fn with_spec<U: Data + Ord>(
    spec: StateSpec<String, u64>,
    f: impl Fn(&String, Option<u64>, &mut StateHandle<'_, u64>) -> Option<U> + Send + Sync + 'static,
    input: &[&[(&str, u64)]],
) -> Vec<(Vec<U>, BTreeMap<String, u64>)> {
    let mut rig = Rig::new(2, move |keyed: Ones| {
        keyed.map_with_state_spec(spec, f).snapshots();
    });
    let mut told = Vec::new();
    for (number, batch) in input.iter().enumerate() {
        let early: Vec<U> = rig.feed(0, own(batch));
        assert!(early.is_empty(), "records wait for their epoch");
        rig.set_clock(number as u64 * 1_000);
        let (mut mapped, mut states) = (Vec::new(), BTreeMap::new());
        for (port, rows) in rig.complete_epoch(true) {
            match port {
                0 => mapped.extend(rows.take::<Vec<U>>().unwrap()),
                _ => states.extend(rows.take::<Vec<(String, u64)>>().unwrap()),
            }
        }
        mapped.sort();
        told.push((mapped, states));
        rig.checkpoint();
        rig.crash(1 + number % 3);
    }
    told
}

#[test]
fn mws_running_count_with_snapshots() {
    let count = |_: &String, one: Option<u64>, count: &mut StateHandle<'_, u64>| {
        let new = count.get().copied().unwrap_or(0) + one?;
        count.set(new);
        Some(new)
    };
    let told = with_spec(StateSpec::new(), count, &KEYS_COME_AND_GO);
    let mapped: [&[u64]; 6] = [&[1], &[1, 2], &[1, 2, 3], &[3, 4], &[5], &[]];
    let states = all(&[
        &[("a", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 3), ("b", 2), ("c", 1)],
        &[("a", 4), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
    ]);
    for ((told, mapped), states) in told.into_iter().zip(mapped).zip(states) {
        assert_eq!(told, (mapped.to_vec(), states.into_iter().collect()));
    }
}

#[test]
fn mws_initial() {
    let initial = own(&[("a", 5), ("b", 10), ("c", 20), ("d", 0)]);
    let add = |_: &String, one: Option<u64>, count: &mut StateHandle<'_, u64>| {
        count.set(count.get().copied().unwrap_or(0) + one?);
        None::<u64>
    };
    let mut input: Vec<&[(&str, u64)]> = vec![&[]];
    input.extend(KEYS_COME_AND_GO);
    let told = with_spec(StateSpec::new().initial(initial), add, &input);
    assert!(told.iter().all(|(mapped, _)| mapped.is_empty()));
    let states = |a, b, c| -> BTreeMap<String, u64> {
        own(&[("a", a), ("b", b), ("c", c), ("d", 0)]).into_iter().collect()
    };
    let told: Vec<BTreeMap<String, u64>> = told.into_iter().map(|(_, states)| states).collect();
    let expected = [(5, 10, 20), (6, 10, 20), (7, 11, 20), (8, 12, 21), (9, 13, 21), (10, 13, 21)];
    let mut expected: Vec<_> = expected.into_iter().map(|(a, b, c)| states(a, b, c)).collect();
    expected.push(states(10, 13, 21));
    assert_eq!(told, expected);
}

#[test]
fn mws_timeout() {
    let one = |key: &String, one: Option<u64>, state: &mut StateHandle<'_, u64>| match one {
        Some(one) => {
            assert!(!state.is_timing_out());
            state.set(one);
            None
        }
        None => {
            assert!(state.is_timing_out() && state.exists());
            Some(key.clone())
        }
    };
    let a: &[(&str, u64)] = &[("a", 1)];
    let mut input: Vec<&[(&str, u64)]> =
        vec![&[("a", 1), ("b", 1), ("c", 1)], &[("a", 1), ("b", 1)], a, &[], &[], a];
    input.extend([a; 20]);
    let told = with_spec(StateSpec::new().timeout(secs(3)), one, &input);
    let mut gone: Vec<String> = told.iter().flat_map(|(mapped, _)| mapped.clone()).collect();
    gone.sort();
    assert_eq!(gone, ["b", "c"]);
    let states =
        |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> { own(pairs).into_iter().collect() };
    assert!(told.iter().any(|(_, all)| *all == states(&[("a", 1), ("b", 1), ("c", 1)])));
    assert_eq!(told.last().unwrap().1, states(a));
}

#[test]
#[should_panic(expected = "can't be changed any more")]
fn the_state_of_a_key_that_times_out_is_read_only() {
    StateHandle::timing_out(&7).set(8);
}

/// Of many keys that time out at once, some have to wait for their turn. A record that comes meanwhile begins anew all the same.
#[test]
fn a_key_that_waits_to_time_out_begins_anew() {
    let sum = |_: &u64, one: Option<u64>, sum: &mut StateHandle<'_, u64>| match one {
        Some(one) => {
            sum.set(sum.get().copied().unwrap_or_default() + one);
            Some((sum.get().copied(), false))
        }
        None => Some((sum.get().copied(), true)),
    };
    let mut rig = Rig::new(1, move |keyed: KeyedStream<u64, u64>| {
        keyed.map_with_state_spec(StateSpec::new().timeout(secs(10)), sum)
    });
    let keys = 10_000;
    let mut told: Vec<(Option<u64>, bool)> = Vec::new();
    for (clock, has_records) in [(0, true), (10_000, false), (10_010, true)] {
        if has_records {
            let early: Vec<(Option<u64>, bool)> =
                rig.feed(0, (0..keys).map(|n| (n, 1_u64)).collect());
            assert!(early.is_empty());
        }
        rig.set_clock(clock);
        told.extend(rig.complete::<(Option<u64>, bool)>(false));
    }
    let timed_out = told.iter().filter(|(_, times_out)| *times_out).count();
    assert_eq!((timed_out as u64, told.len() as u64), (keys, 3 * keys));
    assert!(told.iter().all(|(sum, _)| *sum == Some(1)), "no sum goes on");
}
