//! `update_state_by_key` against a plain model of Spark's.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Event, OPEN_EPOCHS, events, text};
use crate::Tumbling;
use crate::api::test_support::Rig;
use crate::testing::{self, Collect, Script};
use crate::time::{Watermark, hours};

/// Depends on the order of values, and removes now and then.
fn update(key: &str, values: &[u32], old: Option<u32>) -> Option<u32> {
    let start = old.map_or(key.len() as u32, |old| old.wrapping_add(1));
    let new = values.iter().fold(start, |new, value| new.wrapping_mul(31).wrapping_add(*value));
    (!new.is_multiple_of(5)).then_some(new)
}

#[derive(Clone, Default)]
struct Model {
    state: BTreeMap<String, u32>,
    /// Of each open epoch; the first is the next to complete.
    open: Vec<Vec<(String, u32)>>,
    /// Of complete epochs, since the last trigger.
    values: BTreeMap<String, Vec<u32>>,
}

impl Model {
    fn new() -> Self {
        Model { open: vec![Vec::new(); OPEN_EPOCHS as usize], ..Model::default() }
    }

    /// Completes an epoch; answers what is emitted.
    fn complete(&mut self, trigger_ends: bool) -> BTreeMap<String, u32> {
        for (key, value) in self.open.remove(0) {
            self.values.entry(key).or_default().push(value);
        }
        self.open.push(Vec::new());
        if !trigger_ends {
            return BTreeMap::new();
        }
        let values = std::mem::take(&mut self.values);
        let mut keys: Vec<String> = values.keys().chain(self.state.keys()).cloned().collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let new = values.get(&key).map_or(&[][..], Vec::as_slice);
            if let Some(state) = update(&key, new, self.state.remove(&key)) {
                self.state.insert(key, state);
            }
        }
        self.state.clone()
    }
}

fn complete(rig: &mut Rig, model: &mut Model, trigger_ends: bool) {
    let mut rows: Vec<(String, u32)> = rig.complete(trigger_ends);
    rows.sort();
    assert_eq!(rows, model.complete(trigger_ends).into_iter().collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_trigger_is_as_sparks(events in events()) {
        let mut rig = Rig::new(2, |keyed| {
            keyed.update_state_by_key(|key: &String, values: Vec<u32>, old: Option<u32>| {
                update(key, &values, old)
            })
        });
        let mut model = Model::new();
        let mut committed = model.clone();
        for event in events {
            match event {
                Event::Records(ahead, rows) => {
                    let rows: Vec<_> = rows.into_iter().map(|(k, v)| (text(k), v)).collect();
                    model.open[ahead as usize].extend(rows.clone());
                    let out: Vec<(String, u32)> = rig.feed(ahead, rows);
                    assert!(out.is_empty());
                }
                Event::Complete { trigger_ends } => complete(&mut rig, &mut model, trigger_ends),
                Event::Checkpoint { trigger_ends } => {
                    for left in (0..OPEN_EPOCHS).rev() {
                        complete(&mut rig, &mut model, trigger_ends && left == 0);
                    }
                    rig.checkpoint();
                    committed = model.clone();
                }
                Event::Crash(workers) => {
                    rig.crash(workers);
                    model = committed.clone();
                }
            }
        }
    }
}

#[test]
fn a_state_that_stays_the_same_is_not_written_again() {
    let mut rig = Rig::new(1, |keyed| {
        keyed.update_state_by_key(|_: &u64, values: Vec<u32>, old: Option<u32>| {
            Some(old.unwrap_or(0) + values.len() as u32)
        })
    });
    rig.feed::<_, _, (u64, u32)>(0, (0..20_000_u64).map(|n| (n, 0_u32)).collect());
    assert_eq!(rig.complete::<(u64, u32)>(true).len(), 20_000);
    rig.checkpoint();
    assert_eq!(rig.written("state"), 20_000);
    assert_eq!(rig.entries(1), 0, "values that were taken are no state");
    rig.feed::<_, _, (u64, u32)>(0, vec![(7_u64, 0_u32)]);
    assert_eq!(rig.complete::<(u64, u32)>(true).len(), 20_000);
    rig.checkpoint();
    assert_eq!(rig.written("state"), 1);
}

/// Windows are told of at the end of all sources, when the last trigger that read anything is over.
#[test]
fn what_operators_tell_at_the_end_is_in_the_last_trigger() {
    let run = testing::run(2, |job| {
        let rows =
            Script::new().record(("a".to_owned(), 1_i64)).epoch().record(("a".to_owned(), 2));
        let rows = job.read("in", rows).event_time(|row| row.1, Watermark::bounded(hours(1)));
        let counts = rows.keyed().window(Tumbling::of(hours(1))).count().uid("windows");
        let counts = counts.map(|window| (window.key, window.value)).keyed();
        let sums = counts.update_state_by_key(|_, new: Vec<u64>, old: Option<u64>| {
            Some(old.unwrap_or(0) + new.iter().sum::<u64>())
        });
        sums.uid("sums").write("out", Collect);
    });
    let run = run.expect("nothing goes wrong");
    assert_eq!(run.last_per_key::<String, u64>("out")["a"], 2);
}
