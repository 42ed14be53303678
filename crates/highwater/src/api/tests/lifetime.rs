//! States that come to an end, against plain collections with times.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{OPEN_EPOCHS, text};
use crate::api::test_support::{Rig, plan};
use crate::api::time::millis;
use crate::{BoxError, Context, List, Map, Process, States, Stream, Ttl, Value, Watermark};

/// Event time and the clock when tests begin.
const BEGIN: i64 = 1_000;

/// What to do, and the key within a map.
type Command = (u8, u16);

/// Does what it is told, and tells what it sees.
struct Mortal {
    value: Value<u8>,
    list: List<u8>,
    map: Map<u16, u8>,
}

impl Mortal {
    fn declare_with(states: &mut States<Self>, ttl: Ttl) -> Self {
        Mortal {
            value: states.ttl(ttl).value("value"),
            list: states.ttl(ttl).list("list"),
            map: states.ttl(ttl).map("map"),
        }
    }
}

impl Process for Mortal {
    type Key = String;
    type In = Command;
    type Out = String;

    fn declare(states: &mut States<Self>) -> Self {
        Mortal { value: states.value("value"), list: states.list("list"), map: states.map("map") }
    }

    fn record(&mut self, (does, at): Command, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let seen = match does {
            0 => format!("{:?}", self.value.set(cx, does)),
            1 => format!("{:?}", self.value.get(cx)),
            2 => format!("{:?}", self.value.take(cx)),
            3 => format!("{:?}", self.list.push(cx, at as u8)),
            4 => format!("{:?}", self.list.get(cx)),
            5 => format!("{:?}", self.list.take(cx)),
            6 => format!("{:?}", self.map.insert(cx, at, does)),
            7 => format!("{:?}", self.map.get(cx, &at)),
            8 => format!("{:?}", self.map.remove(cx, &at)),
            9 => format!("{:?}", self.map.iter(cx).collect::<BTreeMap<_, _>>()),
            // These two look without reading.
            10 => format!("{} {}", self.list.len(cx), self.map.len(cx)),
            _ => format!("{}", self.map.contains(cx, &at)),
        };
        cx.emit(format!("{} {does} {seen}", cx.key()));
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// Keys, times (relative to the watermark) and commands, of an epoch so many ahead.
    Records(u32, Vec<(u16, i64, Command)>),
    /// An epoch completes; the watermark and the clock rise by so much.
    Complete(i64, i64),
    Checkpoint(i64, i64),
    Crash(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let records = proptest::collection::vec((0..3_u16, -20..30_i64, (0..12_u8, 0..3_u16)), 0..12);
    let rise = || prop_oneof![Just(0), 0..9_i64, 10..40_i64];
    let event = prop_oneof![
        8 => (0..OPEN_EPOCHS, records).prop_map(|(ahead, rows)| Event::Records(ahead, rows)),
        6 => (rise(), rise()).prop_map(|(time, clock)| Event::Complete(time, clock)),
        2 => (rise(), rise()).prop_map(|(time, clock)| Event::Checkpoint(time, clock)),
        1 => (1..5_usize).prop_map(Event::Crash),
    ];
    proptest::collection::vec(event, 0..60)
}

/// Something, and when it was touched.
type Touched<T> = (T, i64);

#[derive(Clone, Default)]
struct OfKey {
    value: Option<Touched<u8>>,
    list: Option<Touched<Vec<u8>>>,
    map: BTreeMap<u16, Touched<u8>>,
}

#[derive(Clone)]
struct Model {
    length: i64,
    on_read: bool,
    by_event_time: bool,
    watermark: i64,
    clock: i64,
    keys: BTreeMap<u16, OfKey>,
    open: Vec<Vec<(u16, i64, Command)>>,
}

impl Model {
    fn complete(&mut self, watermark: i64, clock: i64) -> Vec<String> {
        self.clock = clock;
        let (length, on_read) = (self.length, self.on_read);
        let mut told = Vec::new();
        for (key, time, (does, at)) in self.open.remove(0) {
            let (now, touch) = match self.by_event_time {
                true => (self.watermark, time),
                false => (clock, clock),
            };
            let OfKey { value, list, map } = self.keys.entry(key).or_default();
            // Forgets what is over.
            value.take_if(|(_, touched)| *touched + length <= now);
            list.take_if(|(_, touched)| *touched + length <= now);
            map.retain(|_, (_, touched)| *touched + length > now);
            let read = |touched: &mut i64| {
                if on_read {
                    *touched = touch.max(*touched);
                }
            };
            let seen = match does {
                0 => {
                    let touched = value.map_or(touch, |(_, touched)| touched.max(touch));
                    *value = Some((does, touched));
                    "()".to_owned()
                }
                1 => {
                    value.iter_mut().for_each(|(_, touched)| read(touched));
                    format!("{:?}", value.map(|(value, _)| value))
                }
                2 => format!("{:?}", value.take().map(|(value, _)| value)),
                3 => {
                    let (list, touched) = list.get_or_insert_with(|| (Vec::new(), touch));
                    list.push(at as u8);
                    *touched = touch.max(*touched);
                    "()".to_owned()
                }
                4 => {
                    list.iter_mut().for_each(|(_, touched)| read(touched));
                    let list = list.clone().map(|(list, _)| list);
                    format!("{:?}", list.unwrap_or_default())
                }
                5 => format!("{:?}", list.take().map(|(list, _)| list).unwrap_or_default()),
                6 => {
                    let old = map.get(&at).copied();
                    let touched = old.map_or(touch, |(_, touched)| touched.max(touch));
                    map.insert(at, (does, touched));
                    format!("{:?}", old.map(|(value, _)| value))
                }
                7 => {
                    map.get_mut(&at).into_iter().for_each(|(_, touched)| read(touched));
                    format!("{:?}", map.get(&at).map(|(value, _)| value))
                }
                8 => format!("{:?}", map.remove(&at).map(|(value, _)| value)),
                9 => {
                    map.values_mut().for_each(|(_, touched)| read(touched));
                    let map: BTreeMap<_, _> = map.iter().map(|(at, (v, _))| (at, v)).collect();
                    format!("{map:?}")
                }
                10 => format!("{} {}", list.as_ref().map_or(0, |(list, _)| list.len()), map.len()),
                _ => format!("{}", map.contains_key(&at)),
            };
            told.push(format!("{} {does} {seen}", text(key)));
        }
        self.open.push(Vec::new());
        self.watermark = watermark;
        told.sort();
        told
    }
}

fn ttl(length: i64, on_read: bool, by_event_time: bool) -> Ttl {
    let length = millis(length as u64);
    let ttl = if on_read { Ttl::after_access(length) } else { Ttl::after_write(length) };
    if by_event_time { ttl.by_event_time() } else { ttl }
}

fn rig(declare: impl Fn(&mut States<Mortal>) -> Mortal + Send + Sync + 'static) -> Rig {
    let mut rig = Rig::of(2, mortal(declare));
    rig.begin_at(BEGIN);
    rig
}

fn mortal(
    declare: impl Fn(&mut States<Mortal>) -> Mortal + Send + Sync + 'static,
) -> highwater_runtime::Plan {
    plan(|pairs: Stream<(String, Command)>| {
        let timed = pairs.event_time(|_| 0, Watermark::monotonous());
        timed.keyed().process(declare)
    })
}

fn complete(rig: &mut Rig, model: &mut Model, rise: i64, clock: i64) {
    let (watermark, clock) = (model.watermark + rise, model.clock + clock);
    let mut told: Vec<String> = rig.complete_at(watermark, clock as u64);
    told.sort();
    assert_eq!(told, model.complete(watermark, clock));
}

fn feed(rig: &mut Rig, ahead: u32, rows: &[(u16, i64, Command)]) {
    let times = rows.iter().map(|row| row.1).collect();
    let pairs = rows.iter().map(|(key, _, command)| (text(*key), *command)).collect();
    let out: Vec<String> = rig.feed_timed(ahead, pairs, times);
    assert!(out.is_empty(), "records wait for their epoch");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_over_is_never_seen(
        events in events(),
        length in 1..60_i64,
        on_read: bool,
        by_event_time: bool,
    ) {
        let lives = ttl(length, on_read, by_event_time);
        let mut rig = rig(move |states| Mortal::declare_with(states, lives));
        let open = vec![Vec::new(); OPEN_EPOCHS as usize];
        let (watermark, clock, keys) = (BEGIN, BEGIN, BTreeMap::new());
        let mut model = Model { length, on_read, by_event_time, watermark, clock, keys, open };
        let mut committed = model.clone();
        for event in events {
            match event {
                Event::Records(ahead, mut rows) => {
                    rows.iter_mut().for_each(|row| row.1 += model.watermark);
                    feed(&mut rig, ahead, &rows);
                    model.open[ahead as usize].extend(rows);
                }
                Event::Complete(rise, clock) => complete(&mut rig, &mut model, rise, clock),
                Event::Checkpoint(rise, clock) => {
                    (0..OPEN_EPOCHS).for_each(|_| complete(&mut rig, &mut model, rise, clock));
                    rig.checkpoint();
                    committed = model.clone();
                }
                Event::Crash(workers) => {
                    rig.crash(workers);
                    // The clock doesn't run back.
                    model = Model { clock: model.clock, ..committed.clone() };
                }
            }
        }
        (0..OPEN_EPOCHS).for_each(|_| complete(&mut rig, &mut model, 0, 0));
        complete(&mut rig, &mut model, 1_000, 1_000);
        for table in 0..6 {
            prop_assert_eq!(rig.entries(table), 0, "nothing is left, nor when it was touched");
        }
    }
}

/// Much that ends at once is gone at once, and removed little by little.
#[test]
fn an_epoch_removes_a_part_of_what_is_over() {
    let lives = ttl(10, false, false);
    let mut rig = rig(move |states| Mortal::declare_with(states, lives));
    let keys = 10_000;
    let rows: Vec<(u16, i64, Command)> = (0..keys).map(|key| (key, BEGIN, (0, 0))).collect();
    feed(&mut rig, 0, &rows);
    let _: Vec<String> = rig.complete_at(BEGIN, 0);
    assert_eq!(rig.entries(0), u64::from(keys));
    let rows: Vec<(u16, i64, Command)> = (0..keys).map(|key| (key, BEGIN, (1, 0))).collect();
    feed(&mut rig, 0, &rows);
    let told: Vec<String> = rig.complete_at(BEGIN, 10);
    assert!(told.iter().all(|told| told.ends_with("1 None")), "nothing is seen any more");
    let left = rig.entries(0);
    assert!(left > 0 && left < u64::from(keys), "{left} are left");
    let _: Vec<String> = rig.complete_at(BEGIN, 10);
    assert_eq!(rig.entries(0), 0);
}

/// A lifetime is given, changed and taken away.
#[test]
fn lifetimes_may_change_from_version_to_version() {
    let see = |rig: &mut Rig, command: u8, clock: u64| -> String {
        // At once, if there are no lifetimes.
        let at_once: Vec<String> =
            rig.feed_timed(0, vec![(text(1), (command, 0_u16))], vec![BEGIN]);
        let at_the_end: Vec<String> = rig.complete_at(BEGIN, clock);
        at_once.into_iter().chain(at_the_end).collect::<String>()
    };
    let with = |length| {
        let lives = ttl(length, false, false);
        mortal(move |states| Mortal::declare_with(states, lives))
    };
    let restart = |rig: &mut Rig, plan| {
        rig.checkpoint();
        rig.change(plan);
        rig.crash(3);
    };
    let mut rig = rig(Mortal::declare);
    see(&mut rig, 0, 100);
    // What had none is touched when the job begins.
    restart(&mut rig, with(10));
    assert_eq!(see(&mut rig, 1, 200), "key 1 1 Some(0)");
    assert_eq!(see(&mut rig, 1, 209), "key 1 1 Some(0)");
    // A longer one counts from then, too.
    restart(&mut rig, with(20));
    assert_eq!(see(&mut rig, 1, 219), "key 1 1 Some(0)");
    let for_ever = || mortal(|states| Mortal::declare_with(states, Ttl::never()));
    restart(&mut rig, for_ever());
    assert_eq!(see(&mut rig, 1, 1_000), "key 1 1 Some(0)");
    see(&mut rig, 0, 1_000);
    // Times were noted all the same.
    restart(&mut rig, with(15));
    assert_eq!(see(&mut rig, 1, 1_014), "key 1 1 Some(0)");
    assert_eq!(see(&mut rig, 1, 1_015), "key 1 1 None");
}
