//! Functions with several inputs and outputs against plain collections.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{OPEN_EPOCHS, text};
use crate::api::test_support::{Rig, plan};
use crate::{
    BoxError, BroadcastContext, BroadcastProcess, BroadcastState, Context, Either, Process,
    SideOutput, States, Stream, Value,
};

/// Counts both kinds of records of each key, and what all rules for them say; even answers go to the side.
struct Both {
    left: Value<u64>,
    right: Value<u64>,
    rules: BroadcastState<u16, String>,
    even: SideOutput<(String, u64)>,
}

/// Key, records of either kind, all rules.
type Told = (String, u64, u64, String);

impl Process for Both {
    type Key = String;
    type In = Either<u64, String>;
    type Out = Told;

    fn declare(states: &mut States<Self>) -> Self {
        Both {
            left: states.value("left"),
            right: states.value("right"),
            rules: states.broadcast("rules"),
            even: states.side("even"),
        }
    }

    fn record(&mut self, value: Self::In, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let counted = match value {
            Either::Left(_) => &self.left,
            Either::Right(_) => &self.right,
        };
        let count = counted.get(cx).unwrap_or_default() + 1;
        counted.set(cx, count);
        let rules: BTreeMap<&u16, &String> = self.rules.iter(cx).collect();
        assert_eq!(rules.len(), self.rules.len(cx));
        assert_eq!(rules.get(&3).copied(), self.rules.get_ref(cx, &3));
        let rules = format!("{rules:?}");
        let [left, right] =
            [&self.left, &self.right].map(|count| count.get(cx).unwrap_or_default());
        if (left + right) % 2 == 0 {
            let key = cx.key().clone();
            self.even.emit(cx, (key, left + right));
        }
        cx.emit((cx.key().clone(), left, right, rules));
        Ok(())
    }
}

/// A rule is replaced by a text, extended by one that begins with `+`, or removed by none.
fn change(old: Option<String>, rule: &str) -> Option<String> {
    match rule.strip_prefix('+') {
        _ if rule.is_empty() => None,
        Some(more) => Some(old.unwrap_or_default() + more),
        None => Some(rule.to_owned()),
    }
}

impl BroadcastProcess for Both {
    type Broadcast = (u16, String);

    fn broadcast(
        &mut self,
        (at, rule): Self::Broadcast,
        cx: &mut BroadcastContext<'_, Self>,
    ) -> Result<(), BoxError> {
        match change(self.rules.get(cx, &at), &rule) {
            Some(rule) => self.rules.insert(cx, at, rule),
            None => drop(self.rules.remove(cx, &at)),
        }
        // Every key that has had a left record is told one more, whichever worker has it.
        if rule == "+c" {
            let left = &self.left;
            cx.apply_to_keyed_state(left, |cx| {
                let count = left.get(cx).ok_or("only keys that have the state are visited")?;
                left.set(cx, count + 1);
                cx.emit((cx.key().clone(), count + 1, 0, "applied".to_owned()));
                Ok(())
            })?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// Keys, and which kind, of an epoch so many ahead.
    Records(u32, Vec<(u16, bool)>),
    /// Rules of an epoch so many ahead, from two workers.
    Rules(u32, [Vec<(u16, String)>; 2]),
    Complete,
    Checkpoint,
    Crash(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let records = proptest::collection::vec((0..6_u16, any::<bool>()), 0..12);
    let rule = prop_oneof![Just(String::new()), "[a-c]", "\\+[a-c]"];
    let rules = || proptest::collection::vec((0..5_u16, rule.clone()), 0..4);
    let event = prop_oneof![
        8 => (0..OPEN_EPOCHS, records).prop_map(|(ahead, rows)| Event::Records(ahead, rows)),
        5 => (0..OPEN_EPOCHS, [rules(), rules()]).prop_map(|(ahead, rules)| Event::Rules(ahead, rules)),
        6 => Just(Event::Complete),
        2 => Just(Event::Checkpoint),
        1 => (1..12_usize).prop_map(Event::Crash),
    ];
    proptest::collection::vec(event, 0..60)
}

#[derive(Clone, Default)]
struct OpenEpoch {
    records: Vec<(u16, bool)>,
    /// By the worker that sent them.
    rules: [Vec<(u16, String)>; 2],
}

#[derive(Clone, Default)]
struct Model {
    counts: BTreeMap<u16, [u64; 2]>,
    rules: BTreeMap<u16, String>,
    open: Vec<OpenEpoch>,
}

impl Model {
    fn new() -> Self {
        Model { open: vec![OpenEpoch::default(); OPEN_EPOCHS as usize], ..Model::default() }
    }

    /// What is told at both outputs, sorted.
    fn complete(&mut self) -> (Vec<Told>, Vec<(String, u64)>) {
        let OpenEpoch { records, rules } = self.open.remove(0);
        self.open.push(OpenEpoch::default());
        let (mut told, mut even) = (Vec::new(), Vec::new());
        for (at, rule) in rules.into_iter().flatten() {
            if let Some(rule) = change(self.rules.remove(&at), &rule) {
                self.rules.insert(at, rule);
            }
            if rule == "+c" {
                for (key, counts) in self.counts.iter_mut().filter(|(_, counts)| counts[0] > 0) {
                    counts[0] += 1;
                    told.push((text(*key), counts[0], 0, "applied".to_owned()));
                }
            }
        }
        for (key, is_right) in records {
            let counts = self.counts.entry(key).or_default();
            counts[usize::from(is_right)] += 1;
            let [left, right] = *counts;
            told.push((text(key), left, right, format!("{:?}", self.rules)));
            if (left + right) % 2 == 0 {
                even.push((text(key), left + right));
            }
        }
        told.sort();
        even.sort();
        (told, even)
    }
}

fn complete(rig: &mut Rig, model: &mut Model) {
    let (mut told, mut even): (Vec<Told>, Vec<(String, u64)>) = Default::default();
    for (port, batch) in rig.complete_epoch(false) {
        match port {
            0 => told.append(&mut batch.take().unwrap()),
            _ => even.append(&mut batch.take().unwrap()),
        }
    }
    told.sort();
    even.sort();
    assert_eq!((told, even), model.complete());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn all_inputs_are_seen_in_the_order_of_epochs(events in events()) {
        let build = |rows: Stream<(String, Either<u64, String>)>| {
            let rules = rows.map(|_| (0_u16, String::new()));
            rows.keyed().process_with_broadcast(&rules, Both::declare)
        };
        let mut rig = Rig::of(2, plan(build));
        let mut model = Model::new();
        let mut committed = model.clone();
        for event in events {
            match event {
                Event::Records(ahead, rows) => {
                    model.open[ahead as usize].records.extend(rows.clone());
                    let rows = rows.into_iter().map(|(key, is_right)| match is_right {
                        false => (text(key), Either::Left::<u64, String>(7)),
                        true => (text(key), Either::Right("r".to_owned())),
                    });
                    let out: Vec<Told> = rig.feed(ahead, rows.collect());
                    assert!(out.is_empty(), "records wait for their epoch");
                }
                Event::Rules(ahead, rules) => {
                    let open = &mut model.open[ahead as usize].rules;
                    for (open, rules) in open.iter_mut().zip(&rules) {
                        open.extend(rules.clone());
                    }
                    let sent = |(worker, rules): (u32, Vec<(u16, String)>)| {
                        rules.into_iter().map(|rule| (worker, rule)).collect()
                    };
                    rig.feed_all(ahead, (0..).zip(rules).map(sent).collect());
                }
                Event::Complete => complete(&mut rig, &mut model),
                Event::Checkpoint => {
                    (0..OPEN_EPOCHS).for_each(|_| complete(&mut rig, &mut model));
                    rig.checkpoint();
                    committed = model.clone();
                }
                Event::Crash(workers) => {
                    rig.crash(workers);
                    model = committed.clone();
                }
            }
        }
        (0..OPEN_EPOCHS).for_each(|_| complete(&mut rig, &mut model));
    }
}

/// A copy is written once, by whichever worker, and found by all.
#[test]
fn one_copy_of_a_rule_is_written() {
    let build = |rows: Stream<(String, Either<u64, String>)>| {
        let rules = rows.map(|_| (0_u16, String::new()));
        rows.keyed().process_with_broadcast(&rules, Both::declare)
    };
    let mut rig = Rig::of(3, plan(build));
    rig.feed_all(0, vec![vec![(0, (1_u16, "a".to_owned())), (0, (2, "b".to_owned()))]]);
    rig.complete_epoch(false);
    rig.checkpoint();
    assert_eq!(rig.written("rules"), 2);
}
