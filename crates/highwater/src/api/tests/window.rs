//! Windows against a plain model, under random disorder, in the middle of which the job dies and goes on with other numbers of workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::{OPEN_EPOCHS, text};
use crate::api::test_support::{Rig, plan};
use crate::api::time::millis;
use crate::{
    Cumulating, KeyedStream, Session, Sliding, Stream, Tumbling, Watermark, WindowResult,
    WindowedStream,
};

/// How far event time is when the job begins.
pub(super) const BEGIN: i64 = -1000;

/// Key, begin, end, and (count, sum) of the values.
pub(super) type Row = (String, i64, i64, (u64, u64));

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Tumbling { size: i64, offset: i64 },
    Sliding { size: i64, slide: i64, offset: i64 },
    Cumulating { max: i64, step: i64 },
    Session { gap: i64 },
}

impl Kind {
    /// All windows (begin, end) of a moment, found by trying.
    fn windows_of(self, time: i64) -> Vec<(i64, i64)> {
        let ends = time + 1..=time + 100;
        match self {
            Kind::Tumbling { size, offset } => {
                Kind::Sliding { size, slide: size, offset }.windows_of(time)
            }
            Kind::Sliding { size, slide, offset } => ends
                .filter(|end| (end - offset - size).rem_euclid(slide) == 0 && end - size <= time)
                .map(|end| (end - size, end))
                .collect(),
            Kind::Cumulating { max, step } => ends
                .filter(|end| end.rem_euclid(step) == 0)
                .map(|end| ((end - 1).div_euclid(max) * max, end))
                .filter(|(start, _)| *start <= time)
                .collect(),
            Kind::Session { gap } => vec![(time, time + gap)],
        }
    }

    fn of(self, keyed: KeyedStream<String, u64>) -> WindowedStream<String, u64> {
        let ms = |n: i64| millis(n as u64);
        match self {
            Kind::Tumbling { size, offset } => {
                keyed.window(Tumbling::of(ms(size)).offset(ms(offset)))
            }
            Kind::Sliding { size, slide, offset } => {
                keyed.window(Sliding::of(ms(size), ms(slide)).offset(ms(offset)))
            }
            Kind::Cumulating { max, step } => keyed.window(Cumulating::of(ms(max), ms(step))),
            Kind::Session { gap } => keyed.window(Session::with_gap(ms(gap))),
        }
    }
}

pub(super) fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (1..25i64, 0..9i64).prop_map(|(size, offset)| Kind::Tumbling { size, offset }),
        // Slides that divide the size, that don't, and that are longer.
        (1..25i64, 1..30i64, 0..9i64).prop_map(|(size, slide, offset)| Kind::Sliding {
            size,
            slide,
            offset
        }),
        (1..12i64, 1..8i64).prop_map(|(steps, step)| Kind::Cumulating { max: steps * step, step }),
        (1..15i64).prop_map(|gap| Kind::Session { gap }),
    ]
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Keys and times (relative to the watermark) of an epoch so many ahead.
    Records(u32, Vec<(u16, i64)>),
    /// An epoch completes, and the watermark rises by so much.
    Complete(i64),
    Checkpoint(i64),
    Crash(usize),
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let records = proptest::collection::vec((0..6_u16, -40..60_i64), 0..15);
    let rise = prop_oneof![Just(0), 0..12_i64, 10..60_i64];
    let event = prop_oneof![
        8 => (0..OPEN_EPOCHS, records).prop_map(|(ahead, rows)| Event::Records(ahead, rows)),
        6 => rise.clone().prop_map(Event::Complete),
        2 => rise.prop_map(Event::Checkpoint),
        1 => (1..5_usize).prop_map(Event::Crash),
    ];
    proptest::collection::vec(event, 0..60)
}

/// A window of a key.
#[derive(Clone, Debug)]
pub(super) struct Window {
    start: i64,
    end: i64,
    values: Vec<u64>,
    /// It is to be told of when it has ended.
    tells: bool,
}

#[derive(Clone)]
pub(super) struct Model {
    pub(super) kind: Kind,
    pub(super) lateness: i64,
    pub(super) watermark: i64,
    pub(super) windows: BTreeMap<String, Vec<Window>>,
    pub(super) open: Vec<Vec<(String, i64, u64)>>,
    pub(super) late: u64,
}

impl Model {
    fn add(&mut self, key: String, time: i64, value: u64) {
        let kept = |end: i64| end + self.lateness > self.watermark;
        let windows = self.windows.entry(key).or_default();
        let of_record = self.kind.windows_of(time);
        if let Kind::Session { .. } = self.kind {
            let (mut start, mut end) = of_record[0];
            let meets = |window: &Window| window.start <= end && start <= window.end;
            let (met, others): (Vec<Window>, Vec<Window>) = windows.drain(..).partition(meets);
            *windows = others;
            if met.is_empty() && !kept(end) {
                self.late += 1;
                return;
            }
            let mut values = vec![value];
            for window in met {
                (start, end) = (start.min(window.start), end.max(window.end));
                values.extend(window.values);
            }
            windows.push(Window { start, end, values, tells: true });
            return;
        }
        if !of_record.is_empty() && !of_record.iter().any(|(_, end)| kept(*end)) {
            self.late += 1;
            return;
        }
        for (start, end) in of_record {
            if !kept(end) {
                continue;
            }
            match windows.iter_mut().find(|window| (window.start, window.end) == (start, end)) {
                Some(window) => {
                    window.values.push(value);
                    window.tells = true;
                }
                None => windows.push(Window { start, end, values: vec![value], tells: true }),
            }
        }
    }

    /// An epoch completes; answers what is told.
    pub(super) fn complete(&mut self, watermark: i64) -> Vec<Row> {
        for (key, time, value) in self.open.remove(0) {
            self.add(key, time, value);
        }
        self.open.push(Vec::new());
        self.watermark = watermark;
        let mut told = Vec::new();
        for (key, windows) in &mut self.windows {
            for window in windows.iter_mut().filter(|window| window.end <= watermark) {
                if std::mem::take(&mut window.tells) {
                    let result = (window.values.len() as u64, window.values.iter().sum());
                    told.push((key.clone(), window.start, window.end, result));
                }
            }
            windows.retain(|window| window.end.saturating_add(self.lateness) > watermark);
        }
        self.windows.retain(|_, windows| !windows.is_empty());
        told.sort();
        told
    }
}

fn rig(kind: Kind, lateness: Duration) -> Rig {
    let plan = plan(|pairs: Stream<(String, u64)>| {
        let keyed = pairs.event_time(|_| 0, Watermark::monotonous()).keyed();
        let windows = kind.of(keyed).allowed_lateness(lateness);
        let windows = windows.fold(
            (0u64, 0u64),
            |acc, value| {
                acc.0 += 1;
                acc.1 += value;
            },
            |acc, other| {
                acc.0 += other.0;
                acc.1 += other.1;
            },
        );
        windows.late();
    });
    let mut rig = Rig::of(2, plan);
    rig.begin_at(BEGIN);
    rig
}

fn complete(rig: &mut Rig, model: &mut Model, watermark: i64) {
    let rows: Vec<WindowResult<String, (u64, u64)>> = rig.complete_at(watermark, 0);
    let mut rows: Vec<Row> = rows
        .into_iter()
        .map(|row| (row.key, row.start.as_ms(), row.end.as_ms(), row.value))
        .collect();
    rows.sort();
    assert_eq!(rows, model.complete(watermark));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn windows_are_told_of_when_they_end(kind in kinds(), lateness in prop_oneof![Just(0), 0..30_i64], events in events()) {
        let mut rig = rig(kind, millis(lateness as u64));
        let open = vec![Vec::new(); OPEN_EPOCHS as usize];
        let mut model = Model { kind, lateness, watermark: BEGIN, windows: BTreeMap::new(), open, late: 0 };
        let mut committed = model.clone();
        let mut late_before = 0;
        let mut value = 0;
        for event in events {
            match event {
                Event::Records(ahead, rows) => {
                    let rows: Vec<(String, i64, u64)> = rows
                        .into_iter()
                        .map(|(key, after)| {
                            value += 1;
                            (text(key), model.watermark + after, value)
                        })
                        .collect();
                    model.open[ahead as usize].extend(rows.clone());
                    let times = rows.iter().map(|row| row.1).collect();
                    let pairs = rows.into_iter().map(|(key, _, value)| (key, value)).collect();
                    let out: Vec<Row> = rig.feed_timed(ahead, pairs, times);
                    assert!(out.is_empty());
                }
                Event::Complete(rise) => {
                    let watermark = model.watermark + rise;
                    complete(&mut rig, &mut model, watermark);
                }
                Event::Checkpoint(rise) => {
                    for _ in 0..OPEN_EPOCHS {
                        let watermark = model.watermark + rise;
                        complete(&mut rig, &mut model, watermark);
                    }
                    rig.checkpoint();
                    committed = model.clone();
                }
                Event::Crash(workers) => {
                    rig.crash(workers);
                    // What was late before the crash comes again.
                    late_before += model.late - committed.late;
                    model = committed.clone();
                }
            }
            assert_eq!(rig.late(), model.late + late_before);
        }
        for _ in 1..OPEN_EPOCHS {
            let watermark = model.watermark;
            complete(&mut rig, &mut model, watermark);
        }
        complete(&mut rig, &mut model, i64::MAX);
        assert!(model.windows.is_empty());
        assert_eq!(rig.entries(0), 0, "nothing is kept of windows that are over");
    }
}

/// A window of every key, more than are dealt with at once, and none of them twice.
#[test]
fn many_keys_are_told_of_in_slices() {
    for kind in [
        Kind::Tumbling { size: 10, offset: 0 },
        Kind::Sliding { size: 10, slide: 5, offset: 0 },
        Kind::Session { gap: 10 },
    ] {
        for lateness in [0, 100] {
            let mut rig = rig(kind, millis(lateness));
            let keys = 30_000;
            let pairs: Vec<(String, u64)> = (0..keys).map(|key| (format!("{key}"), 1)).collect();
            let times = pairs.iter().map(|_| 7).collect();
            let _: Vec<Row> = rig.feed_timed(0, pairs, times);
            let rows: Vec<WindowResult<String, (u64, u64)>> = rig.complete_at(12, 0);
            let told: BTreeSet<(String, i64)> =
                rows.iter().map(|row| (row.key.clone(), row.end.as_ms())).collect();
            let ended = if let Kind::Session { .. } = kind { 0 } else { keys };
            assert_eq!((rows.len(), told.len()), (ended, ended), "{kind:?}");
            let rows: Vec<WindowResult<String, (u64, u64)>> = rig.complete_at(i64::MAX, 0);
            let left = if let Kind::Tumbling { .. } = kind { 0 } else { keys };
            assert_eq!(rows.len(), left, "{kind:?}");
            assert_eq!(rig.entries(0), 0);
        }
    }
}
