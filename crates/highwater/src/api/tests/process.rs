//! A process function with a state of every kind, against plain collections.

use std::collections::BTreeMap;

use highwater_state::KeyGroups;
use proptest::prelude::*;

use super::{Event, OPEN_EPOCHS, events, text};
use crate::api::test_support::Rig;
use crate::api::{BoxError, Context, List, Map, Process, States, Value};

/// Does what the value says, and tells everything that it then knows of the key.
struct Everything {
    last: Value<u32>,
    all: List<u32>,
    by_text: Map<String, u32>,
}

impl Process for Everything {
    type Key = String;
    type In = u32;
    type Out = String;

    fn declare(states: &mut States<Self>) -> Self {
        Everything {
            last: states.value("last"),
            all: states.list("all"),
            by_text: states.map("by_text"),
        }
    }

    fn record(&mut self, value: u32, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let at = (value % 7).to_string();
        let mut told = String::new();
        match value % 8 {
            0 => self.last.clear(cx),
            1 => told = format!("{:?}", self.all.take(cx)),
            2 => self.by_text.clear(cx),
            3 => told = format!("{:?}", self.by_text.remove(cx, &at)),
            4 => told = format!("{:?}", self.last.take(cx)),
            5 => self.all.push(cx, value),
            6 => self.last.set(cx, value),
            _ => told = format!("{:?}", self.by_text.insert(cx, at.clone(), value)),
        }
        let mut entries: Vec<(String, u32)> =
            self.by_text.iter(cx).map(|(at, value)| (at.clone(), *value)).collect();
        entries.sort();
        assert_eq!(entries.len(), self.by_text.len(cx));
        assert_eq!(self.by_text.is_empty(cx), entries.is_empty());
        assert_eq!(self.by_text.contains(cx, &at), self.by_text.get(cx, &at).is_some());
        assert_eq!(self.all.len(cx), self.all.iter(cx).len());
        assert_eq!(self.all.is_empty(cx), self.all.len(cx) == 0);
        assert_eq!(self.last.get(cx).as_ref(), self.last.get_ref(cx));
        let (last, all) = (self.last.get(cx), self.all.get(cx));
        let at_value = self.by_text.get(cx, &at);
        cx.emit(format!("{} {told} {last:?} {all:?} {entries:?} {at_value:?}", cx.key()));
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Model {
    last: Option<u32>,
    all: Vec<u32>,
    by_text: BTreeMap<String, u32>,
}

impl Model {
    fn record(&mut self, key: &str, value: u32) -> String {
        let at = (value % 7).to_string();
        let mut told = String::new();
        match value % 8 {
            0 => self.last = None,
            1 => told = format!("{:?}", std::mem::take(&mut self.all)),
            2 => self.by_text.clear(),
            3 => told = format!("{:?}", self.by_text.remove(&at)),
            4 => told = format!("{:?}", self.last.take()),
            5 => self.all.push(value),
            6 => self.last = Some(value),
            _ => told = format!("{:?}", self.by_text.insert(at.clone(), value)),
        }
        let entries: Vec<_> = self.by_text.iter().collect();
        let at_value = self.by_text.get(&at);
        format!("{key} {told} {:?} {:?} {entries:?} {at_value:?}", self.last, self.all)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn states_are_plain_collections(events in events()) {
        let mut rig = Rig::new(2, |keyed| keyed.process(Everything::declare));
        let mut model: BTreeMap<u16, Model> = BTreeMap::new();
        let mut committed = model.clone();
        for event in events {
            match event {
                Event::Records(ahead, rows) => {
                    let mut expected: Vec<String> = rows
                        .iter()
                        .map(|(k, v)| model.entry(*k).or_default().record(&text(*k), *v))
                        .collect();
                    let rows: Vec<_> = rows.into_iter().map(|(k, v)| (text(k), v)).collect();
                    let mut out: Vec<String> = rig.feed(ahead, rows);
                    expected.sort();
                    out.sort();
                    assert_eq!(out, expected);
                }
                Event::Complete { .. } => drop(rig.complete::<String>(false)),
                Event::Checkpoint { .. } => {
                    (0..OPEN_EPOCHS).for_each(|_| drop(rig.complete::<String>(false)));
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

struct Stolen(Value<u32>);

impl Process for Stolen {
    type Key = String;
    type In = u32;
    type Out = u32;

    fn declare(states: &mut States<Self>) -> Self {
        let _: Value<String> = states.value("text");
        let mut others = States::<Everything>::new(KeyGroups::default(), 0..0, false);
        Stolen(Everything::declare(&mut others).last)
    }

    fn record(&mut self, _: u32, cx: &mut Context<Self>) -> Result<(), BoxError> {
        self.0.set(cx, 1);
        Ok(())
    }
}

#[test]
#[should_panic(expected = "declared by another process function")]
fn a_handle_of_another_function_is_noticed() {
    let mut rig = Rig::new(1, |keyed| keyed.process(Stolen::declare));
    rig.feed::<_, _, u32>(0, vec![("a".to_owned(), 1_u32)]);
}
