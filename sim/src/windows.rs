//! Windows in random jobs, and what the model must know of them.

use std::collections::BTreeMap;

use highwater::time::millis;
use highwater::{
    Batches, Calendar, Cumulating, EarlyTrigger, Fire, MergedStates, Session, Sliding, Stream,
    Timestamp, TriggerContext, Tumbling, Watermark, WindowTrigger, Windowed,
};

use crate::graph::Row;
use crate::timed::{Input, NEVER_LATE, time_of, timed, timed_within};

/// How many rows of each key windows told of, and how many were late.
fn used_and_late(uid: &str, counts: Windowed<u32, Row, u64>) -> Stream<(u32, i64)> {
    let counts = counts.uid(uid);
    let late = counts.late().map(|(key, _)| (key, 1));
    let used = counts.map(|window| (window.key, window.value as i64));
    used.union(&late).keyed().sum(|count| count).uid(&format!("{uid}-sum"))
}

/// The number of rows of each key, from what windows count and what is late.
pub fn windows(uid: &str, input: Input<'_>, number: i64) -> Stream<(u32, i64)> {
    let rows = timed(uid, input, number);
    let length = millis(20 * number as u64);
    let counts = match number {
        // Told of early, too, and forgetting what was told: all that is told of a session together is all of it.
        3 => {
            let sessions = rows.window(Session::with_gap(length));
            sessions.trigger(EarlyTrigger::count(2).purging()).count()
        }
        5 => rows.window(Session::with_gap(length)).count(),
        _ => rows.window(Tumbling::of(length)).count(),
    };
    used_and_late(uid, counts)
}

/// The same, from windows by the clock, by triggers, and such that are told of early and forget.
pub fn windows_otherwise(uid: &str, input: Input<'_>, number: i64) -> Stream<(u32, i64)> {
    let rows = input.rows.key_by(|row| row.key);
    let length = millis(number as u64);
    let counts = match number {
        2 => rows.window(Tumbling::of(length).by_clock()).count(),
        3 => rows.window(Session::with_gap(length).by_clock()).count(),
        4 => rows.window(Batches::last(2).every(2)).count(),
        _ => {
            let windows = timed(uid, input, number).window(Tumbling::of(10 * length));
            windows.trigger(EarlyTrigger::count(2).purging()).count()
        }
    };
    used_and_late(uid, counts)
}

/// How many rows each key has had in the last two triggers that it had any in, carried on by an inverse function: in the end, with all that
/// fell out, as many as there are.
pub fn carried(uid: &str, input: &Stream<Row>, number: i64) -> Stream<(u32, i64)> {
    let ones = input.map(|row| (row.key, 1_i64)).keyed();
    // Windows that leave no gaps and don't overlap: all rows are in one.
    let windows = ones.window(Batches::last(number as u32).every(number as u32));
    let counts = windows.reduce_with_inverse(|a, b| a + b, |a, b| a - b, |_, count| *count != 0);
    let counts = counts.uid(uid).map(|window| (window.key, window.value));
    counts.keyed().sum(|count| count).uid(&format!("{uid}-sum"))
}

/// How many of the last rows of each key there are, of at most so many.
pub fn last_rows(uid: &str, input: &Stream<Row>, number: i64) -> Stream<(u32, i64)> {
    let last = input.key_by(|row| row.key).sliding_count_window(number as u64, 1).collect();
    last.uid(uid).map(|window| (window.key, window.value.len() as i64))
}

/// The number of rows of each key, from windows that are told of early and forget what was told; whenever they are full, what doesn't fill one
/// isn't told.
pub fn early(uid: &str, input: Input<'_>, number: i64) -> Stream<(u32, i64)> {
    if number == 5 {
        let rows = input.rows.key_by(|row| row.key);
        return used_and_late(uid, rows.count_window(FULL).count());
    }
    let rows = timed(uid, input, number);
    let length = millis(20 * number as u64);
    let counts = match number {
        2 => rows
            .window(Tumbling::of(length))
            .trigger(EarlyTrigger::every(length / 5).purging())
            .count(),
        3 => {
            let by_clock = EarlyTrigger::every_by_clock(millis(2));
            rows.window(Tumbling::of(length)).trigger(by_clock.purging()).count()
        }
        _ => rows.window(Session::with_gap(length)).trigger(EveryThird).count(),
    };
    used_and_late(uid, counts)
}

/// So many rows fill a window.
pub const FULL: u64 = 2;

/// Counts by itself.
struct EveryThird;

impl WindowTrigger<Row> for EveryThird {
    fn is_purging(&self) -> bool {
        true
    }

    fn record(&self, _: &Row, cx: &mut TriggerContext<'_>) -> Fire {
        let count = cx.state().unwrap_or(0_u64) + 1;
        assert_eq!(count, cx.records(), "what it noted is what has come since it last told");
        let full = count >= 3 || cx.is_over();
        cx.set_state(&if full { 0 } else { count });
        if full { Fire::TellAndPurge } else { Fire::No }
    }

    fn event_time(&self, at: Timestamp, cx: &mut TriggerContext<'_>) -> Fire {
        if at == cx.end() { Fire::TellAndPurge } else { Fire::No }
    }

    fn merge(&self, others: &MergedStates, cx: &mut TriggerContext<'_>) {
        let count = cx.state().unwrap_or(0_u64) + others.states::<u64>().sum::<u64>();
        cx.set_state(&count);
    }
}

/// How often windows that overlap told of rows of each key, none of which is late.
pub fn overlapping(uid: &str, input: Input<'_>, number: i64) -> Stream<(u32, i64)> {
    let rows = timed_within(uid, input, number, NEVER_LATE).key_by(|row| row.key);
    let pane = millis(10 * number as u64);
    let windows = match number % 2 {
        0 => rows.window(Sliding::of(3 * pane, pane).offset(millis(5))),
        _ => rows.window(Cumulating::of(3 * pane, pane)),
    };
    let counts = windows.fold(0, |count, _| *count += 1, |count, other: i64| *count += other);
    let counts = counts.uid(uid).map(|window| (window.key, window.value));
    counts.keyed().sum(|count| count).uid(&format!("{uid}-sum"))
}

/// In how many windows of [`overlapping`] a row is.
pub fn windows_of(row: &Row, number: i64) -> i64 {
    let pane = 10 * number;
    match number % 2 {
        0 => 3,
        _ => 3 - time_of(row).rem_euclid(3 * pane) / pane,
    }
}

/// How many rows of each key are left in windows of other kinds, none of which is late.
pub fn other_kinds(uid: &str, input: Input<'_>, number: i64) -> Stream<(u32, i64)> {
    let rows = timed_within(uid, input, number, NEVER_LATE).key_by(|row| row.key);
    let counts = match number {
        2 => {
            let windows = rows.window(Tumbling::of(millis(LENGTH_MS as u64)));
            windows.evict(|rows| rows.retain(|(_, row)| row.value % 2 == 0)).count()
        }
        3 => {
            let windows = rows.window(Tumbling::of(millis(LENGTH_MS as u64)));
            windows.keep_within(millis(WITHIN_MS as u64)).count()
        }
        4 => {
            let gap = |row: &Row| millis(10 + u64::from(row.seq % 5) * 10);
            rows.window(Session::with_gap_of(gap)).count()
        }
        _ => rows.window(Calendar::days("Europe/Berlin")).count(),
    };
    let counts = counts.uid(uid);
    counts.late().inspect(|(_, row)| panic!("{row:?} is late"));
    let counts = counts.map(|window| (window.key, window.value as i64));
    let counts = counts.filter(|(_, count)| *count > 0);
    counts.keyed().sum(|count| count).uid(&format!("{uid}-sum"))
}

/// The length of a window, and of what is kept of it.
const LENGTH_MS: i64 = 60;
const WITHIN_MS: i64 = 25;

/// How many of a key's rows [`other_kinds`] keeps.
pub fn kept(rows: &[Row], number: i64) -> i64 {
    let kept = match number {
        2 => rows.iter().filter(|row| row.value % 2 == 0).count(),
        3 => {
            let mut windows: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            for time in rows.iter().map(time_of) {
                windows.entry(time.div_euclid(LENGTH_MS)).or_default().push(time);
            }
            let last = |times: &Vec<i64>| {
                let latest = times.iter().max().copied().unwrap_or_default();
                times.iter().filter(|time| **time >= latest - WITHIN_MS).count()
            };
            windows.values().map(last).sum()
        }
        _ => rows.len(),
    };
    kept as i64
}

/// How many rows each window of each key has, from windows that are told of again for every late row.
pub fn allowed_lateness(uid: &str, input: Input<'_>, number: i64) -> Stream<(u32, i64)> {
    let disorder = Watermark::bounded(millis(10 * number as u64));
    let rows = input.rows.event_time(|row: &Row| window_of(row).1, disorder);
    let rows = rows.uid(&format!("{uid}-time")).key_by(|row| row.key);
    let windows = rows.window(Tumbling::of(millis(LENGTH_MS as u64)));
    let counts = windows.allowed_lateness(NEVER_LATE).count().uid(uid);
    counts.late().inspect(|(_, row)| panic!("{row:?} is late"));
    counts.map(|window| {
        (window.key * 1_000 + (window.start.as_ms() / LENGTH_MS) as u32, window.value as i64)
    })
}

/// The key under which [`allowed_lateness`] tells of a row's window, and when the row happened: soon, whatever its value.
pub fn window_of(row: &Row) -> (u32, i64) {
    let time = i64::from(row.seq) * 10 + row.value.rem_euclid(40);
    (row.key * 1_000 + (time / LENGTH_MS) as u32, time)
}

/// All rows, from windows that have all keys, and those that are late.
pub fn all_windows(uid: &str, input: Input<'_>, number: i64) -> Stream<Row> {
    let disorder = millis(10 * number as u64);
    let windows = timed_within(uid, input, number, disorder).window_all(Tumbling::of(millis(50)));
    let all = windows.collect().uid(uid);
    let late = all.late().map(|(_, row)| row);
    all.flat_map(|window| window.value).union(&late)
}

/// All rows, from batches.
pub fn batches(uid: &str, input: &Stream<Row>, number: i64) -> Stream<Row> {
    match number {
        2 => {
            let all = input.batches(Batches::each()).transform(|batch| batch);
            all.uid(uid).flat_map(|batch| batch.value)
        }
        3 => {
            // Each row is in one.
            let all = input.batches(Batches::last(3).every(3)).collect();
            all.uid(uid).flat_map(|batch| batch.value)
        }
        _ => {
            let lists = input.map(|row| vec![row]).batches(Batches::each());
            let all = lists.reduce(|a, b| [a, b].concat());
            all.uid(uid).flat_map(|batch| batch.value.unwrap_or_default())
        }
    }
}

/// All rows of two inputs, from their batches.
pub fn transform_with(
    uid: &str,
    left: &Stream<Row>,
    right: &Stream<Row>,
    number: i64,
) -> Stream<Row> {
    // Of another type, so that mixing them up would be noticed.
    let right = right.map(|row| (row.key, row.value, (row.split, row.seq)));
    let batches = Batches::last(number as u32).every(number as u32);
    let both = left.transform_with(&right, batches, |left, right| {
        let row = |(key, value, (split, seq))| Row { key, value, split, seq };
        left.into_iter().chain(right.into_iter().map(row)).collect()
    });
    both.uid(uid).flat_map(|batch| batch.value)
}
