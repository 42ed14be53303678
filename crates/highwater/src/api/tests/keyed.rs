//! `distinct` and `map_with_state` against plain sets and maps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Event, OPEN_EPOCHS, events, text};
use crate::api::test_support::{Rig, plan};
use crate::api::{StateHandle, Stream};

/// Feeds events to an operator that answers at once, which `model` is compared with row by row (as a multiset: workers have
/// no common order).
fn check<M: Clone + Default>(
    events: Vec<Event>,
    mut rig: Rig,
    feed: impl Fn(&mut Rig, u32, Vec<(u16, u32)>) -> Vec<String>,
    model: impl Fn(&mut M, u16, u32) -> Option<String>,
) {
    let mut state = M::default();
    let mut committed = state.clone();
    for event in events {
        match event {
            Event::Records(ahead, rows) => {
                let mut expected: Vec<String> =
                    rows.iter().filter_map(|(k, v)| model(&mut state, *k, *v)).collect();
                let mut out = feed(&mut rig, ahead, rows);
                expected.sort();
                out.sort();
                assert_eq!(out, expected);
            }
            Event::Complete { .. } => drop(rig.complete::<String>(false)),
            Event::Checkpoint { .. } => {
                (0..OPEN_EPOCHS).for_each(|_| drop(rig.complete::<String>(false)));
                rig.checkpoint();
                committed = state.clone();
            }
            Event::Crash(workers) => {
                rig.crash(workers);
                state = committed.clone();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn distinct_is_a_set(events in events()) {
        check(
            events,
            Rig::of(2, plan(|s: Stream<String>| s.distinct())),
            |rig, ahead, rows| {
                rig.feed(ahead, rows.into_iter().map(|(k, _)| (text(k), ())).collect())
            },
            |seen: &mut BTreeSet<u16>, key, _| seen.insert(key).then(|| text(key)),
        );
    }

    #[test]
    fn map_with_state_is_a_map(events in events()) {
        let f = |key: &String, value: u32, state: &mut StateHandle<'_, u32>| {
            let old = state.get().copied();
            match value % 4 {
                0 => state.remove(),
                1 => {
                    state.remove();
                    state.set(value);
                }
                2 => state.set(value),
                _ => {}
            }
            let new = state.get().copied();
            (value != 3).then(|| format!("{key} {old:?} {new:?}"))
        };
        check(
            events,
            Rig::new(2, |keyed| keyed.map_with_state(f)),
            |rig, ahead, rows| {
                rig.feed(ahead, rows.into_iter().map(|(k, v)| (text(k), v)).collect())
            },
            |states: &mut BTreeMap<u16, u32>, key, value| {
                let old = states.get(&key).copied();
                match value % 4 {
                    0 => drop(states.remove(&key)),
                    1 | 2 => drop(states.insert(key, value)),
                    _ => {}
                }
                let new = states.get(&key);
                (value != 3).then(|| format!("{} {old:?} {new:?}", text(key)))
            },
        );
    }
}

/// A record seen before changes nothing, and costs no checkpoint anything.
#[test]
fn repeats_are_not_written_again() {
    let mut rig = Rig::of(1, plan(|s: Stream<u64>| s.distinct()));
    assert_eq!(rig.feed::<_, _, u64>(0, vec![(1_u64, ()), (2, ()), (1, ())]), [1, 2]);
    rig.checkpoint();
    assert_eq!(rig.written("seen"), 2);
    assert!(rig.feed::<_, _, u64>(0, vec![(1_u64, ())]).is_empty());
    rig.checkpoint();
    assert_eq!(rig.written("seen"), 0);
}
