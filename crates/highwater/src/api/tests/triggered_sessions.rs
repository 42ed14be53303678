//! Sessions with triggers, against plain lists: what becomes of counts and timers when sessions become one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::triggered::{Told, When, whens};
use super::window::{BEGIN, Event, events};
use super::{OPEN_EPOCHS, text};
use crate::api::test_support::{Rig, plan};
use crate::api::time::millis;
use crate::{Session, Stream, Watermark, WindowResult};

#[derive(Clone, Default)]
struct Visit {
    start: i64,
    end: i64,
    count: u64,
    /// Records since it was told of.
    since: u64,
    timers: BTreeSet<i64>,
    clock_timers: BTreeSet<i64>,
    /// Its end has come.
    is_over: bool,
}

#[derive(Clone)]
struct Model {
    when: When,
    purges: bool,
    gap: i64,
    lateness: i64,
    watermark: i64,
    clock: i64,
    visits: BTreeMap<String, Vec<Visit>>,
    open: Vec<Vec<(String, i64)>>,
    late: u64,
}

impl Model {
    fn tell(&self, key: &str, visit: &mut Visit, told: &mut Vec<Told>) {
        visit.since = 0;
        if visit.count > 0 {
            told.push((key.to_owned(), visit.end, visit.count));
        }
        if self.purges {
            visit.count = 0;
        }
    }

    fn add(&mut self, key: String, time: i64, told: &mut Vec<Told>) {
        let next = |at: i64, every: i64| (at.div_euclid(every) + 1) * every;
        let (before, end) = (self.watermark, time + self.gap);
        let mut visits = self.visits.remove(&key).unwrap_or_default();
        let meets = |visit: &mut Visit| visit.start <= end && time <= visit.end;
        let met: Vec<Visit> = visits.extract_if(.., meets).collect();
        if met.is_empty() && end + self.lateness <= before {
            self.late += 1;
        } else {
            let mut visit = Visit { start: time, end, count: 1, since: 1, ..Visit::default() };
            for other in met {
                visit.start = visit.start.min(other.start);
                visit.end = visit.end.max(other.end);
                visit.count += other.count;
                visit.since += other.since;
                visit.timers.extend(other.timers);
                visit.clock_timers.extend(other.clock_timers);
            }
            visit.is_over = visit.end <= before;
            match self.when {
                _ if visit.is_over => self.tell(&key, &mut visit, told),
                When::Count(records) if visit.since >= records => {
                    self.tell(&key, &mut visit, told);
                }
                When::Count(_) => {}
                When::EventTime(every) => {
                    let at = next(before.max(visit.start), every);
                    if at < visit.end {
                        visit.timers.insert(at);
                    }
                }
                When::Clock(every) => drop(visit.clock_timers.insert(next(self.clock, every))),
            }
            visits.push(visit);
        }
        self.visits.insert(key, visits);
    }

    fn complete(&mut self, watermark: i64, clock: i64) -> Vec<Told> {
        let mut told = Vec::new();
        self.clock = clock;
        for (key, time) in self.open.remove(0) {
            self.add(key, time, &mut told);
        }
        self.open.push(Vec::new());
        self.watermark = watermark;
        for (key, visits) in std::mem::take(&mut self.visits) {
            let mut left = Vec::new();
            for mut visit in visits {
                let end = visit.end;
                while let Some(at) = visit.timers.pop_first() {
                    if at > watermark {
                        visit.timers.insert(at);
                        break;
                    }
                    if at < end && visit.since > 0 {
                        self.tell(&key, &mut visit, &mut told);
                    }
                }
                if !visit.is_over && end <= watermark {
                    visit.is_over = true;
                    self.tell(&key, &mut visit, &mut told);
                }
                if end + self.lateness <= watermark {
                    continue;
                }
                let due = visit.clock_timers.iter().any(|at| *at <= clock);
                visit.clock_timers.retain(|at| *at > clock);
                if due && visit.since > 0 {
                    self.tell(&key, &mut visit, &mut told);
                }
                left.push(visit);
            }
            self.visits.insert(key, left);
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn sessions_are_told_of_early(
        when in whens(),
        purges: bool,
        gap in 1..15_i64,
        lateness in prop_oneof![Just(0), 0..30_i64],
        events in events(),
    ) {
        let build = |pairs: Stream<(String, u64)>| {
            let keyed = pairs.event_time(|_| 0, Watermark::monotonous()).keyed();
            let windows = keyed.window(Session::with_gap(millis(gap as u64)));
            let windows = windows.allowed_lateness(millis(lateness as u64));
            match purges {
                true => windows.trigger(when.trigger().purging()).count(),
                false => windows.trigger(when.trigger()).count(),
            };
        };
        let mut rig = Rig::of(2, plan(build));
        rig.begin_at(BEGIN);
        let open = vec![Vec::new(); OPEN_EPOCHS as usize];
        let (watermark, clock, visits, late) = (BEGIN, 0, BTreeMap::new(), 0);
        let mut model = Model { when, purges, gap, lateness, watermark, clock, visits, open, late };
        let mut committed = model.clone();
        let mut late_before = 0;
        for event in events {
            match event {
                Event::Records(ahead, rows) => {
                    let rows: Vec<(String, i64)> =
                        rows.into_iter().map(|(key, after)| (text(key / 2), model.watermark + after)).collect();
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
        }
        for _ in 0..OPEN_EPOCHS {
            let watermark = model.watermark + 1_000;
            complete(&mut rig, &mut model, watermark, 7);
        }
        prop_assert_eq!(rig.late(), model.late + late_before);
        prop_assert_eq!(rig.entries(0), 0, "nothing is kept of sessions that are over");
    }
}
