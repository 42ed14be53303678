//! Timers of process functions against a plain set of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{OPEN_EPOCHS, text};
use crate::api::test_support::{Rig, plan};
use crate::api::{BoxError, Context, Process, States, Stream, Timers, Timestamp, Watermark};

/// Event time and the clock when tests begin.
const BEGIN: i64 = 1_000;

/// What a timer or a record tells: key, which of the timers (or none), its time, the watermark, the clock.
type Told = (String, Option<u8>, i64, i64, i64);

/// Sets and deletes timers as values say. Some timers set others.
struct Alarm {
    timers: [Timers; 3],
}

const FIRST: usize = 0;
const SECOND: usize = 1;
const CLOCK: usize = 2;

impl Alarm {
    fn told(cx: &Context<Self>, which: Option<u8>) -> Told {
        let ms = |time: Option<Timestamp>| time.unwrap().as_ms();
        (cx.key().clone(), which, ms(cx.time()), ms(cx.watermark()), ms(cx.clock()))
    }
}

impl Process for Alarm {
    type Key = String;
    type In = Command;
    type Out = Told;

    fn declare(states: &mut States<Self>) -> Self {
        let timers = [states.event_timers("a"), states.event_timers("b"), states.clock_timers("c")];
        Alarm { timers }
    }

    fn record(&mut self, command: Command, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let (which, does, after) = command;
        let timers = self.timers[which];
        let now = if which == CLOCK { cx.clock() } else { cx.time() };
        let at = now.unwrap().as_ms() + after;
        let had = timers.contains(cx, at);
        match does {
            0 => timers.set(cx, at),
            1 => assert_eq!(timers.delete(cx, at), had),
            _ => {
                timers.set(cx, at);
                timers.delete(cx, at);
                timers.set(cx, at);
            }
        }
        assert_eq!(timers.contains(cx, at), does != 1);
        cx.emit(Self::told(cx, None));
        Ok(())
    }

    fn timer(
        &mut self,
        timers: Timers,
        at: Timestamp,
        cx: &mut Context<Self>,
    ) -> Result<(), BoxError> {
        let which = self.timers.iter().position(|other| *other == timers).unwrap();
        assert!(!timers.contains(cx, at), "it is gone");
        cx.emit(Self::told(cx, Some(which as u8)));
        if let Some(next) = follows(which, at.as_ms()) {
            self.timers[next.0].set(cx, next.1);
        }
        Ok(())
    }
}

/// The timer that a timer sets.
fn follows(which: usize, at: i64) -> Option<(usize, i64)> {
    match which {
        SECOND if at % 3 == 0 => Some((FIRST, at + 4)),
        CLOCK if at % 2 == 0 => Some((CLOCK, at + 5)),
        FIRST if at % 5 == 0 => Some((CLOCK, at)),
        _ => None,
    }
}

/// Which timers, what to do, and how far from now.
type Command = (usize, u8, i64);

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
    let command = (0..3_usize, 0..3_u8, -9..60_i64);
    let records = proptest::collection::vec((0..6_u16, -20..60_i64, command), 0..12);
    let rise = || prop_oneof![Just(0), 0..12_i64, 10..80_i64];
    let event = prop_oneof![
        8 => (0..OPEN_EPOCHS, records).prop_map(|(ahead, rows)| Event::Records(ahead, rows)),
        6 => (rise(), rise()).prop_map(|(time, clock)| Event::Complete(time, clock)),
        2 => (rise(), rise()).prop_map(|(time, clock)| Event::Checkpoint(time, clock)),
        1 => (1..5_usize).prop_map(Event::Crash),
    ];
    proptest::collection::vec(event, 0..60)
}

#[derive(Clone)]
struct Model {
    watermark: i64,
    clock: i64,
    /// By key: time and which.
    timers: BTreeMap<String, BTreeSet<(i64, usize)>>,
    open: Vec<Vec<(String, i64, Command)>>,
}

impl Model {
    fn complete(&mut self, watermark: i64, clock: i64) -> Vec<Told> {
        let before = std::mem::replace(&mut self.watermark, watermark);
        self.clock = clock;
        let mut told = Vec::new();
        for (key, time, (which, does, after)) in self.open.remove(0) {
            let at = if which == CLOCK { clock } else { time } + after;
            let timers = self.timers.entry(key.clone()).or_default();
            if does == 1 {
                timers.remove(&(at, which));
            } else {
                timers.insert((at, which));
            }
            told.push((key, None, time, before, clock));
        }
        self.open.push(Vec::new());
        for (key, timers) in &mut self.timers {
            for (kinds, until) in [([FIRST, SECOND].as_slice(), watermark), (&[CLOCK], clock)] {
                let due = |timer: &&(i64, usize)| timer.0 <= until && kinds.contains(&timer.1);
                while let Some((at, which)) = timers.iter().find(due).copied() {
                    timers.remove(&(at, which));
                    told.push((key.clone(), Some(which as u8), at, watermark, clock));
                    let next = follows(which, at);
                    timers.extend(
                        next.filter(|(which, _)| *which == CLOCK || watermark < i64::MAX)
                            .map(|(which, at)| (at, which)),
                    );
                }
            }
        }
        told.sort();
        told
    }
}

fn rig() -> Rig {
    let mut rig = Rig::of(
        2,
        plan(|pairs: Stream<(String, Command)>| {
            let timed = pairs.event_time(|_| 0, Watermark::monotonous());
            timed.keyed().process(Alarm::declare)
        }),
    );
    rig.begin_at(BEGIN);
    rig
}

fn complete(rig: &mut Rig, model: &mut Model, watermark: i64, rise: i64) {
    let clock = model.clock + rise;
    let mut told: Vec<Told> = rig.complete_at(watermark, clock as u64);
    told.sort();
    assert_eq!(told, model.complete(watermark, clock));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn timers_are_called_when_they_are_due(events in events()) {
        let mut rig = rig();
        let open = vec![Vec::new(); OPEN_EPOCHS as usize];
        let mut model = Model { watermark: BEGIN, clock: BEGIN, timers: BTreeMap::new(), open };
        let mut committed = model.clone();
        for event in events {
            match event {
                Event::Records(ahead, rows) => {
                    let rows: Vec<(String, i64, Command)> = rows
                        .into_iter()
                        .map(|(key, after, command)| (text(key), model.watermark + after, command))
                        .collect();
                    model.open[ahead as usize].extend(rows.clone());
                    let times = rows.iter().map(|row| row.1).collect();
                    let pairs = rows.into_iter().map(|(key, _, command)| (key, command)).collect();
                    let out: Vec<Told> = rig.feed_timed(ahead, pairs, times);
                    assert!(out.is_empty(), "records wait for their epoch");
                }
                Event::Complete(rise, clock) => {
                    let watermark = model.watermark + rise;
                    complete(&mut rig, &mut model, watermark, clock);
                }
                Event::Checkpoint(rise, clock) => {
                    for _ in 0..OPEN_EPOCHS {
                        let watermark = model.watermark + rise;
                        complete(&mut rig, &mut model, watermark, clock);
                    }
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
        for _ in 1..OPEN_EPOCHS {
            let watermark = model.watermark;
            complete(&mut rig, &mut model, watermark, 0);
        }
        complete(&mut rig, &mut model, i64::MAX, 0);
        assert_eq!(rig.entries(0) + rig.entries(1), 0, "event time is at its end");
    }
}

/// More than are called at once, all of one time.
#[test]
fn many_timers_are_called_in_slices() {
    let mut rig = rig();
    let keys = 20_000;
    let command: Command = (FIRST, 0, 7);
    let pairs = (0..keys).map(|key| (format!("{key}"), command)).collect();
    let _: Vec<Told> = rig.feed_timed(0, pairs, vec![BEGIN; keys]);
    let records: Vec<Told> = rig.complete_at(BEGIN + 6, 0);
    assert_eq!(records.len(), keys);
    let called: Vec<Told> = rig.complete_at(BEGIN + 7, 0);
    let called: BTreeSet<String> = called.into_iter().map(|told| told.0).collect();
    assert_eq!(called.len(), keys);
}
