//! Windows with triggers and evictors, against plain lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;

use super::window::{BEGIN, Event, events};
use super::{OPEN_EPOCHS, text};
use crate::api::test_support::{Rig, plan};
use crate::api::time::millis;
use crate::{
    EarlyTrigger, KeyedStream, Purging, Stream, Timestamp, TriggerContext, Tumbling, Watermark,
    WindowResult, WindowTrigger,
};

const SIZE: i64 = 20;

#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Count(u64),
    EventTime(i64),
    Clock(i64),
}

impl When {
    pub(super) fn trigger(self) -> EarlyTrigger {
        match self {
            When::Count(records) => EarlyTrigger::count(records),
            When::EventTime(ms) => EarlyTrigger::every(millis(ms as u64)),
            When::Clock(ms) => EarlyTrigger::every_by_clock(millis(ms as u64)),
        }
    }
}

/// Key, end, count.
pub(super) type Told = (String, i64, u64);

#[derive(Clone, Default)]
struct Window {
    count: u64,
    /// Records since it was told of.
    since: u64,
    /// By event time; its end is among them until then.
    timers: BTreeSet<i64>,
    clock_timers: BTreeSet<i64>,
}

#[derive(Clone)]
struct Model {
    when: When,
    purges: bool,
    lateness: i64,
    watermark: i64,
    clock: i64,
    windows: BTreeMap<(String, i64), Window>,
    open: Vec<Vec<(String, i64)>>,
    late: u64,
}

impl Model {
    fn tell(&self, place: &(String, i64), window: &mut Window, told: &mut Vec<Told>) {
        window.since = 0;
        if window.count > 0 {
            told.push((place.0.clone(), place.1, window.count));
        }
        if self.purges {
            window.count = 0;
        }
    }

    fn complete(&mut self, watermark: i64, clock: i64) -> Vec<Told> {
        let (before, next) =
            (self.watermark, |at: i64, every: i64| (at.div_euclid(every) + 1) * every);
        let mut told = Vec::new();
        for (key, time) in self.open.remove(0) {
            let start = time.div_euclid(SIZE) * SIZE;
            let place = (key, start + SIZE);
            if place.1 + self.lateness <= before {
                self.late += 1;
                continue;
            }
            let is_new = !self.windows.contains_key(&place);
            let mut window = self.windows.remove(&place).unwrap_or_default();
            if is_new && place.1 > before {
                window.timers.insert(place.1);
            }
            window.count += 1;
            window.since += 1;
            match self.when {
                _ if place.1 <= before => self.tell(&place, &mut window, &mut told),
                When::Count(records) if window.since >= records => {
                    self.tell(&place, &mut window, &mut told);
                }
                When::Count(_) => {}
                When::EventTime(every) => {
                    let at = next(before.max(start), every);
                    if at < place.1 {
                        window.timers.insert(at);
                    }
                }
                When::Clock(every) => drop(window.clock_timers.insert(next(clock, every))),
            }
            self.windows.insert(place, window);
        }
        self.open.push(Vec::new());
        (self.watermark, self.clock) = (watermark, clock);
        for (place, mut window) in std::mem::take(&mut self.windows) {
            while let Some(at) = window.timers.first().copied().filter(|at| *at <= watermark) {
                window.timers.remove(&at);
                if at == place.1 || window.since > 0 {
                    self.tell(&place, &mut window, &mut told);
                }
            }
            if place.1.saturating_add(self.lateness) <= watermark {
                continue;
            }
            let due = window.clock_timers.iter().any(|at| *at <= clock);
            window.clock_timers.retain(|at| *at > clock);
            if due && window.since > 0 {
                self.tell(&place, &mut window, &mut told);
            }
            self.windows.insert(place, window);
        }
        told.sort();
        told
    }
}

fn complete(rig: &mut Rig, model: &mut Model, watermark: i64, rise: i64) {
    let clock = model.clock + rise;
    let told: Vec<WindowResult<String, u64>> = rig.complete_at(watermark, clock as u64);
    let mut told: Vec<Told> =
        told.into_iter().map(|row| (row.key, row.end.as_ms(), row.value)).collect();
    told.sort();
    assert_eq!(told, model.complete(watermark, clock));
}

pub(super) fn whens() -> impl Strategy<Value = When> {
    prop_oneof![
        (1..5_u64).prop_map(When::Count),
        (1..12_i64).prop_map(When::EventTime),
        (1..30_i64).prop_map(When::Clock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn windows_are_told_of_early(
        when in whens(),
        purges: bool,
        lateness in prop_oneof![Just(0), 0..30_i64],
        events in events(),
    ) {
        let build = |pairs: Stream<(String, u64)>| {
            let keyed = pairs.event_time(|_| 0, Watermark::monotonous()).keyed();
            let windows = keyed.window(Tumbling::of(millis(SIZE as u64)));
            let windows = windows.allowed_lateness(millis(lateness as u64));
            match purges {
                true => windows.trigger(when.trigger().purging()).count(),
                false => windows.trigger(when.trigger()).count(),
            };
        };
        let mut rig = Rig::of(2, plan(build));
        rig.begin_at(BEGIN);
        let open = vec![Vec::new(); OPEN_EPOCHS as usize];
        let (watermark, clock, windows, late) = (BEGIN, 0, BTreeMap::new(), 0);
        let mut model = Model { when, purges, lateness, watermark, clock, windows, open, late };
        let mut committed = model.clone();
        let mut late_before = 0;
        for event in events {
            match event {
                Event::Records(ahead, rows) => {
                    let rows: Vec<(String, i64)> =
                        rows.into_iter().map(|(key, after)| (text(key), model.watermark + after)).collect();
                    let times = rows.iter().map(|row| row.1).collect();
                    let pairs = rows.iter().map(|(key, _)| (key.clone(), 1_u64)).collect();
                    model.open[ahead as usize].extend(rows);
                    let out: Vec<Told> = rig.feed_timed(ahead, pairs, times);
                    assert!(out.is_empty());
                }
                Event::Complete(rise) => {
                    let watermark = model.watermark + rise;
                    complete(&mut rig, &mut model, watermark, 7);
                }
                Event::Checkpoint(rise) => {
                    for _ in 0..OPEN_EPOCHS {
                        let watermark = model.watermark + rise;
                        complete(&mut rig, &mut model, watermark, 7);
                    }
                    rig.checkpoint();
                    committed = model.clone();
                }
                Event::Crash(workers) => {
                    rig.crash(workers);
                    late_before += model.late - committed.late;
                    model = Model { clock: model.clock, ..committed.clone() };
                }
            }
            assert_eq!(rig.late(), model.late + late_before);
        }
        for _ in 0..OPEN_EPOCHS {
            let watermark = model.watermark;
            complete(&mut rig, &mut model, watermark, 0);
        }
        complete(&mut rig, &mut model, i64::MAX, 0);
        assert_eq!(rig.entries(0), 0, "nothing is kept of windows that are over");
    }
}

/// Runs batches of numbers of two keys, with a crash after each. Answers what is told of each key.
fn run<O: crate::Data>(
    build: impl FnOnce(KeyedStream<String, u64>) -> O2<O>,
    batches: &[std::ops::Range<u64>],
) -> BTreeMap<String, Vec<O>> {
    let mut rig = Rig::new(2, build);
    let mut told: BTreeMap<String, Vec<O>> = BTreeMap::new();
    for (number, batch) in batches.iter().enumerate() {
        let rows = batch.clone().flat_map(|n| [(text(0), n), (text(1), n * 10)]);
        let out: Vec<O> = rig.feed(0, rows.collect());
        assert!(out.is_empty());
        for (_, rows) in rig.complete_epoch(false) {
            for row in rows.take::<Vec<WindowResult<String, O>>>().unwrap() {
                told.entry(row.key).or_default().push(row.value);
            }
        }
        rig.checkpoint();
        rig.crash(1 + number % 3);
    }
    told
}

/// What an operator with windows gives.
type O2<O> = crate::Windowed<String, u64, O>;

#[test]
fn windows_of_records() {
    let batches = [0..2, 2..3, 3..10, 10..10, 10..12];
    let told = run(|keyed| keyed.count_window(3).collect(), &batches);
    assert_eq!(told[&text(0)], [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]);
    assert_eq!(told[&text(1)][3], [90, 100, 110]);
    let told = run(|keyed| keyed.sliding_count_window(3, 2).sum(|n| n), &batches);
    assert_eq!(told[&text(0)], [1, 1 + 2 + 3, 3 + 4 + 5, 5 + 6 + 7, 7 + 8 + 9, 9 + 10 + 11]);
}

/// What is told at the end of all sources comes after time is at its end.
#[test]
fn windows_of_records_take_records_after_the_end_of_time() {
    let build = |pairs: Stream<(String, u64)>| {
        let keyed = pairs.event_time(|_| 0, Watermark::monotonous()).keyed();
        keyed.count_window(2).count();
    };
    let mut rig = Rig::of(1, plan(build));
    let mut epoch = || {
        let out: Vec<WindowResult<String, u64>> =
            rig.feed_timed(0, vec![(text(0), 1_u64)], vec![5]);
        assert!(out.is_empty());
        let told: Vec<WindowResult<String, u64>> = rig.complete_at(i64::MAX, 0);
        assert_eq!(rig.late(), 0);
        told.into_iter().map(|row| row.value).collect::<Vec<_>>()
    };
    assert_eq!([epoch(), epoch()], [vec![], vec![2]]);
}

/// A trigger of one's own, which remembers something: tells when a number is twice as large as the last that was told.
struct Doubled;

impl WindowTrigger<u64> for Doubled {
    fn record(&self, number: &u64, cx: &mut TriggerContext<'_>) -> crate::Fire {
        if *number < 2 * cx.state::<u64>().unwrap_or_default() {
            return crate::Fire::No;
        }
        cx.set_state(number);
        crate::Fire::Tell
    }
}

#[test]
fn a_trigger_of_ones_own_has_a_memory() {
    let batches = [1..2, 2..4, 4..5, 5..17];
    let told = run(|keyed| keyed.window(crate::Global).trigger(Doubled).count(), &batches);
    assert_eq!(told[&text(0)], [1, 2, 4, 8, 16]);
    let build = |keyed: KeyedStream<String, u64>| {
        keyed.window(crate::Global).trigger(Purging::of(Doubled)).count()
    };
    assert_eq!(run(build, &batches)[&text(0)], [1, 1, 2, 4, 8]);
}

/// A trigger that tells of what is new again and again, as time goes on.
struct Pulse(Arc<AtomicU64>);

impl WindowTrigger<u64> for Pulse {
    fn record(&self, _: &u64, cx: &mut TriggerContext<'_>) -> crate::Fire {
        cx.event_timer(BEGIN + 10);
        crate::Fire::No
    }

    fn event_time(&self, at: Timestamp, cx: &mut TriggerContext<'_>) -> crate::Fire {
        assert!(self.0.fetch_add(1, Relaxed) < 100, "it comes to an end");
        cx.event_timer(at.as_ms() + 10);
        crate::Fire::Tell
    }
}

#[test]
fn timers_of_windows_without_end_come_to_one() {
    let calls = Arc::new(AtomicU64::new(0));
    let pulse = Pulse(calls.clone());
    let build = |pairs: Stream<(String, u64)>| {
        let keyed = pairs.event_time(|_| 0, Watermark::monotonous()).keyed();
        keyed.window(crate::Global).trigger(pulse).count()
    };
    let mut rig = Rig::of(1, plan(build));
    rig.begin_at(BEGIN);
    let _: Vec<Told> = rig.feed_timed(0, vec![(text(0), 1_u64)], vec![BEGIN]);
    let told: Vec<WindowResult<String, u64>> = rig.complete_at(BEGIN + 35, 0);
    assert_eq!(told.len(), 3);
    let told: Vec<WindowResult<String, u64>> = rig.complete_at(i64::MAX, 0);
    assert_eq!((told.len(), calls.load(Relaxed)), (1, 4));
}
