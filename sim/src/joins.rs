//! Joins in random jobs, and what they come to.

use std::collections::{BTreeMap, BTreeSet};

use highwater::time::{after, before, millis};
use highwater::{Batches, Either, IntervalJoin, Stream, Tumbling};

use crate::graph::Row;
use crate::timed::{Input, NEVER_LATE, time_of, timed_within};

/// Numbers the rows that each key has in both of two inputs together, from the batches of triggers.
pub fn cogroup(uid: &str, left: &Stream<Row>, right: &Stream<Row>) -> Stream<(u32, i64)> {
    let right = right.map(|row| (row.key, row.value)).keyed();
    let both = left.key_by(|row| row.key).connect(&right).window(Batches::each()).cogroup();
    let counts = both.uid(uid).map(|window| {
        let (left, right) = window.value;
        (window.key, (left.len() + right.len()) as i64)
    });
    counts.keyed().sum(|count| count).uid(&format!("{uid}-sum"))
}

/// Rows are joined if the right one happened so long before or after the left one, in milliseconds.
pub fn bounds(number: i64) -> (i64, i64) {
    (-10 * number, 20)
}

/// How many pairs each key has in two inputs, and rows that are alone, if none of their rows can be late. Otherwise how many different rows: each is joined,
/// alone or late.
pub fn interval_join(
    uid: &str,
    left: Input<'_>,
    right: Input<'_>,
    number: i64,
) -> Stream<(u32, i64)> {
    let disorder = if number == 3 { millis(10 * number as u64) } else { NEVER_LATE };
    let key = |row: &Row| row.key;
    let left = timed_within(&format!("{uid}-left"), left, number, disorder).key_by(key);
    let right = timed_within(&format!("{uid}-right"), right, number, disorder).key_by(key);
    let (lower, upper) = bounds(number);
    let near = left.interval_join(
        &right,
        before(millis(lower.unsigned_abs())),
        after(millis(upper.unsigned_abs())),
    );
    let counts = match number {
        2 => near.join().uid(uid).map(|(key, _)| (key, 1)),
        4 => near.left_outer_join().uid(uid).map(|(key, _)| (key, 1)),
        5 => near.right_outer_join().uid(uid).map(|(key, _)| (key, 1)),
        _ => every_row_once(uid, &near, (lower, upper)),
    };
    counts.keyed().sum(|count| count).uid(&format!("{uid}-sum"))
}

/// Every row of either side once, joined, alone or late.
fn every_row_once(
    uid: &str,
    near: &IntervalJoin<u32, Row, Row>,
    (lower, upper): (i64, i64),
) -> Stream<(u32, i64)> {
    let joined = near.full_outer_join().uid(uid);
    let late = joined.late().map(|(key, row)| match row {
        Either::Left(row) => (key, (0_u8, row)),
        Either::Right(row) => (key, (1, row)),
    });
    let used = joined.flat_map(move |(key, (left, right))| {
        if let (Some(left), Some(right)) = (&left, &right) {
            let apart = time_of(right) - time_of(left);
            assert!(lower <= apart && apart <= upper, "they are near each other");
        }
        let left = left.map(|row| (key, (0, row)));
        left.into_iter().chain(right.map(|row| (key, (1, row)))).collect::<Vec<_>>()
    });
    used.union(&late).distinct().uid(&format!("{uid}-once")).map(|(key, _)| (key, 1))
}

/// What [`interval_join`] comes to.
pub fn near(left: &[Row], right: &[Row], number: i64) -> BTreeMap<u32, i64> {
    let (lower, upper) = bounds(number);
    let mut counts: BTreeMap<u32, i64> = BTreeMap::new();
    let mut add = |key: u32, count: usize| {
        if count > 0 {
            *counts.entry(key).or_default() += count as i64;
        }
    };
    let is_near = |left: &Row, right: &Row| {
        let apart = time_of(right) - time_of(left);
        left.key == right.key && lower <= apart && apart <= upper
    };
    match number {
        5 => right.iter().for_each(|row| {
            let near = left.iter().filter(|other| is_near(other, row)).count();
            add(row.key, near.max(1));
        }),
        3 => [left, right].into_iter().for_each(|side| {
            side.iter().collect::<BTreeSet<_>>().iter().for_each(|row| add(row.key, 1));
        }),
        _ => left.iter().for_each(|row| {
            let near = right.iter().filter(|other| is_near(row, other)).count();
            add(row.key, if number == 4 { near.max(1) } else { near });
        }),
    }
    counts
}

/// How many pairs each key has in windows of two inputs, and rows that are alone where the join has them; none is late.
pub fn window_join(
    uid: &str,
    left: Input<'_>,
    right: Input<'_>,
    number: i64,
) -> Stream<(u32, i64)> {
    let key = |row: &Row| row.key;
    let left = timed_within(&format!("{uid}-left"), left, number, NEVER_LATE).key_by(key);
    let right = timed_within(&format!("{uid}-right"), right, number, NEVER_LATE);
    let right = right.map(|row| (row.key, row.value)).keyed();
    let both = left.connect(&right).window(Tumbling::of(millis(LENGTH_MS as u64))).cogroup();
    let both = both.uid(uid);
    let counts = match number {
        2 => both.join().map(|(key, _)| (key, 1)),
        3 => both.left_outer_join().map(|(key, _)| (key, 1)),
        4 => both.right_outer_join().map(|(key, _)| (key, 1)),
        _ => both.full_outer_join().map(|(key, _)| (key, 1)),
    };
    counts.keyed().sum(|count| count).uid(&format!("{uid}-sum"))
}

/// The length of windows that are joined.
const LENGTH_MS: i64 = 60;

/// What [`window_join`] comes to.
pub fn in_windows(left: &[Row], right: &[Row], number: i64) -> BTreeMap<u32, i64> {
    let mut windows: BTreeMap<(u32, i64), [i64; 2]> = BTreeMap::new();
    for (side, rows) in [left, right].into_iter().enumerate() {
        for row in rows {
            let window = (row.key, time_of(row).div_euclid(LENGTH_MS));
            windows.entry(window).or_default()[side] += 1;
        }
    }
    let mut counts: BTreeMap<u32, i64> = BTreeMap::new();
    for ((key, _), [left, right]) in windows {
        let pairs = match number {
            2 => left * right,
            3 => left * right.max(1),
            4 => left.max(1) * right,
            _ => left.max(1) * right.max(1),
        };
        if pairs > 0 {
            *counts.entry(key).or_default() += pairs;
        }
    }
    counts
}
