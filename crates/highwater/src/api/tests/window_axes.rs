//! Windows by the clock, by triggers and of the calendar, against the model of windows by event time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::window::{BEGIN, Event, Kind, Model, Row, events, kinds};
use super::{OPEN_EPOCHS, text};
use crate::api::test_support::{Rig, plan};
use crate::api::time::{FARTHEST_MS, millis};
use crate::{
    Batches, Calendar, Cumulating, KeyedStream, Session, Sliding, Stream, Tumbling, Watermark,
    WindowResult, WindowedStream,
};

/// What windows go by.
#[derive(Clone, Copy, Debug)]
enum Along {
    Clock,
    /// So many triggers, every so many.
    Triggers(u32, u32),
}

fn windows(
    kind: Kind,
    along: Along,
    keyed: &KeyedStream<String, u64>,
) -> WindowedStream<String, u64> {
    let ms = |n: i64| millis(n as u64);
    match (along, kind) {
        (Along::Triggers(last, every), _) => keyed.window(Batches::last(last).every(every)),
        (_, Kind::Tumbling { size, offset }) => {
            keyed.window(Tumbling::of(ms(size)).offset(ms(offset)).by_clock())
        }
        (_, Kind::Sliding { size, slide, offset }) => {
            keyed.window(Sliding::of(ms(size), ms(slide)).offset(ms(offset)).by_clock())
        }
        (_, Kind::Cumulating { max, step }) => {
            keyed.window(Cumulating::of(ms(max), ms(step)).by_clock())
        }
        (_, Kind::Session { gap }) => keyed.window(Session::with_gap(ms(gap)).by_clock()),
    }
}

/// Time, as the rig and the model know it.
#[derive(Clone, Copy, Default)]
struct Time {
    clock: i64,
    /// Triggers that have ended.
    triggers: i64,
}

fn complete(rig: &mut Rig, model: &mut Model, along: Along, time: &mut Time, rise: i64) {
    time.clock += rise;
    let trigger_ends = rise % 3 == 0;
    rig.set_clock(time.clock as u64);
    let rows = rig.complete_epoch(trigger_ends).into_iter();
    let rows = rows.flat_map(|(_, batch)| {
        assert!(batch.times().is_empty(), "they have no event times");
        batch.take::<Vec<WindowResult<String, (u64, u64)>>>().unwrap()
    });
    let mut rows: Vec<Row> =
        rows.map(|row| (row.key, row.start.as_ms(), row.end.as_ms(), row.value)).collect();
    rows.sort();
    let now = match along {
        Along::Clock => time.clock,
        Along::Triggers(..) => time.triggers,
    };
    time.triggers += i64::from(trigger_ends);
    model.open[0].iter_mut().for_each(|row| row.1 = now);
    let watermark = match along {
        Along::Clock => time.clock,
        Along::Triggers(..) => time.triggers,
    };
    assert_eq!(rows, model.complete(watermark));
}

fn along() -> impl Strategy<Value = Along> {
    let triggers = (1..5_u32, 1..5_u32).prop_map(|(last, every)| Along::Triggers(last, every));
    prop_oneof![Just(Along::Clock), triggers]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn windows_go_by_the_clock_or_by_triggers(kind in kinds(), along in along(), events in events()) {
        let kind = match along {
            Along::Clock => kind,
            Along::Triggers(last, every) => {
                let (size, slide) = (i64::from(last), i64::from(every));
                Kind::Sliding { size, slide, offset: -size }
            }
        };
        let mut rig = Rig::new(2, |keyed: KeyedStream<String, u64>| {
            windows(kind, along, &keyed).fold(
                (0u64, 0u64),
                |acc, value| {
                    acc.0 += 1;
                    acc.1 += value;
                },
                |acc, other| {
                    acc.0 += other.0;
                    acc.1 += other.1;
                },
            )
        });
        let open = vec![Vec::new(); OPEN_EPOCHS as usize];
        let mut model = Model { kind, lateness: 0, watermark: 0, windows: BTreeMap::new(), open, late: 0 };
        let mut time = Time::default();
        let mut committed = (model.clone(), time);
        let mut value = 0;
        for event in events {
            match event {
                Event::Records(ahead, rows) => {
                    let rows: Vec<(String, i64, u64)> = rows
                        .into_iter()
                        .map(|(key, _)| {
                            value += 1;
                            (text(key), BEGIN, value)
                        })
                        .collect();
                    model.open[ahead as usize].extend(rows.clone());
                    let pairs = rows.into_iter().map(|(key, _, value)| (key, value)).collect();
                    let out: Vec<Row> = rig.feed(ahead, pairs);
                    assert!(out.is_empty());
                }
                Event::Complete(rise) => complete(&mut rig, &mut model, along, &mut time, rise),
                Event::Checkpoint(rise) => {
                    for _ in 0..OPEN_EPOCHS {
                        complete(&mut rig, &mut model, along, &mut time, rise);
                    }
                    rig.checkpoint();
                    committed = (model.clone(), time);
                }
                Event::Crash(workers) => {
                    rig.crash(workers);
                    let clock = time.clock;
                    (model, time) = committed.clone();
                    // The clock doesn't run back.
                    time.clock = clock;
                }
            }
            assert_eq!(rig.late(), 0);
        }
        for _ in 0..OPEN_EPOCHS {
            complete(&mut rig, &mut model, along, &mut time, 0);
        }
        if let Along::Clock = along {
            complete(&mut rig, &mut model, along, &mut time, 1_000);
            assert!(model.windows.is_empty());
            assert_eq!(rig.entries(0), 0, "nothing is kept of windows that are over");
        }
    }
}

/// How many hours Berlin is ahead of UTC, in 2024 and 2025.
fn ahead_of_utc(at: i64) -> i64 {
    // From the last Sunday of March to that of October, at 1:00 UTC.
    let summers = [(1_711_846_800_000, 1_729_990_800_000), (1_743_296_400_000, 1_761_440_400_000)];
    if summers.iter().any(|(from, to)| (*from..*to).contains(&at)) { 2 } else { 1 }
}

const HOUR: i64 = 3_600_000;

/// The first moment of the day of a moment, in Berlin.
fn begin_of_day(at: i64) -> i64 {
    let day = (at + ahead_of_utc(at) * HOUR).div_euclid(24 * HOUR) * 24 * HOUR;
    // Clocks are never changed at midnight there.
    [day - HOUR, day - 2 * HOUR]
        .into_iter()
        .find(|at| at + ahead_of_utc(*at) * HOUR == day)
        .unwrap()
}

fn counted(times: &[i64], calendar: Calendar) -> Vec<(i64, i64, u64)> {
    let mut rig = Rig::of(
        2,
        plan(|pairs: Stream<(String, u64)>| {
            let keyed = pairs.event_time(|_| 0, Watermark::monotonous()).keyed();
            keyed.window(calendar).count()
        }),
    );
    rig.begin_at(i64::MIN + 1);
    let pairs = times.iter().map(|_| ("a".to_owned(), 1_u64)).collect();
    let _: Vec<Row> = rig.feed_timed(0, pairs, times.to_vec());
    let rows: Vec<WindowResult<String, u64>> = rig.complete_at(i64::MAX, 0);
    let mut rows: Vec<_> =
        rows.into_iter().map(|row| (row.start.as_ms(), row.end.as_ms(), row.value)).collect();
    rows.sort_unstable();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    #[test]
    fn days_are_as_people_count_them(times in proptest::collection::vec(1_706_000_000_000..1_765_000_000_000_i64, 1..200)) {
        let mut days: BTreeMap<i64, u64> = BTreeMap::new();
        for at in &times {
            *days.entry(begin_of_day(*at)).or_default() += 1;
        }
        let expected: Vec<_> = days
            .into_iter()
            .map(|(start, count)| (start, begin_of_day(start + 30 * HOUR), count))
            .collect();
        prop_assert_eq!(counted(&times, Calendar::days("Europe/Berlin")), expected);
    }
}

#[test]
fn weeks_months_and_years() {
    // 2024-02-29T12:00Z, a Thursday.
    let at = 1_709_208_000_000;
    let day = 24 * HOUR;
    let midnight = at - 12 * HOUR;
    let week = (midnight - 3 * day, midnight + 4 * day, 1);
    assert_eq!(counted(&[at], Calendar::weeks("UTC")), [week]);
    assert_eq!(counted(&[at], Calendar::months("UTC")), [(midnight - 28 * day, midnight + day, 1)]);
    assert_eq!(
        counted(&[at], Calendar::years("UTC")),
        [(midnight - 59 * day, midnight + 307 * day, 1)]
    );
    // In Auckland it is March already, thirteen hours ahead.
    let month = (midnight + day - 13 * HOUR, midnight + 32 * day - 13 * HOUR, 1);
    assert_eq!(counted(&[at], Calendar::months("Pacific/Auckland")), [month]);
}

/// The day that Samoa left out, the day that begins at 1:00, and times that no calendar has.
#[test]
fn odd_days() {
    // 2011-12-29T12:00 and 2011-12-31T12:00 in Apia; between them there is midnight once.
    let (before, after) = (1_325_196_000_000, 1_325_282_400_000);
    let days = counted(&[before, after], Calendar::days("Pacific/Apia"));
    assert_eq!(days.len(), 2, "{days:?}");
    assert_eq!(days[0].1, days[1].0, "{days:?}");
    // 2018-11-04 in São Paulo began at 1:00 (3:00 UTC), and had 23 hours.
    let begin = 1_541_300_400_000;
    assert_eq!(
        counted(&[begin], Calendar::days("America/Sao_Paulo")),
        [(begin, begin + 23 * HOUR, 1)]
    );
    let ends = counted(&[-FARTHEST_MS + 2, FARTHEST_MS - 2], Calendar::days("UTC"));
    assert_eq!((ends.len(), ends[0].0), (2, -FARTHEST_MS));
}
