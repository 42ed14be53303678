//! Interval joins against a model that compares every row with every other and forgets nothing, under random disorder, in the middle of which the job
//! dies and goes on with other numbers of workers.

use proptest::prelude::*;

use super::window::{BEGIN, Event, events};
use super::{OPEN_EPOCHS, text};
use crate::api::test_support::{Rig, plan};
use crate::api::time::{RelativeTime, after, before, millis};
use crate::{Either, Stream, Watermark};

/// Key, and the numbers of the rows of either side.
type Told = (String, (Option<u64>, Option<u64>));

#[derive(Clone, Debug)]
struct Row {
    key: String,
    time: i64,
    number: u64,
    is_matched: bool,
    is_told: bool,
}

#[derive(Clone)]
struct Model {
    bounds: (i64, i64),
    /// Whether rows of either side that match none are told of.
    alone: (bool, bool),
    watermark: i64,
    left: Vec<Row>,
    right: Vec<Row>,
    open: Vec<Vec<Either<Row, Row>>>,
    late: u64,
}

impl Model {
    fn complete(&mut self, watermark: i64) -> Vec<Told> {
        let (lower, upper) = self.bounds;
        let mut told = Vec::new();
        let mut meet = |left: &mut Row, right: &mut Row| {
            let apart = right.time - left.time;
            if left.key == right.key && lower <= apart && apart <= upper {
                (left.is_matched, right.is_matched) = (true, true);
                told.push((left.key.clone(), (Some(left.number), Some(right.number))));
            }
        };
        for row in self.open.remove(0) {
            let (Either::Left(Row { time, .. }) | Either::Right(Row { time, .. })) = row;
            if time < self.watermark {
                self.late += 1;
                continue;
            }
            match row {
                Either::Left(mut row) => {
                    self.right.iter_mut().for_each(|other| meet(&mut row, other));
                    self.left.push(row);
                }
                Either::Right(mut row) => {
                    self.left.iter_mut().for_each(|other| meet(other, &mut row));
                    self.right.push(row);
                }
            }
        }
        self.open.push(Vec::new());
        self.watermark = watermark;
        let is_alone = |row: &Row, last: i64| {
            !row.is_matched && !row.is_told && row.time + last.max(0) < watermark
        };
        for row in self.left.iter_mut().filter(|row| is_alone(row, upper)) {
            row.is_told = true;
            if self.alone.0 {
                told.push((row.key.clone(), (Some(row.number), None)));
            }
        }
        for row in self.right.iter_mut().filter(|row| is_alone(row, -lower)) {
            row.is_told = true;
            if self.alone.1 {
                told.push((row.key.clone(), (None, Some(row.number))));
            }
        }
        told.sort();
        told
    }
}

fn bound(ms: i64) -> RelativeTime {
    let length = millis(ms.unsigned_abs());
    if ms < 0 { before(length) } else { after(length) }
}

fn rig((lower, upper): (i64, i64), alone: (bool, bool)) -> Rig {
    let build = |pairs: Stream<(String, u64)>| {
        let keyed = pairs.event_time(|_| 0, Watermark::monotonous()).keyed();
        let near = keyed.interval_join(&keyed, bound(lower), bound(upper));
        match alone {
            (false, false) => drop(near.join()),
            (true, false) => drop(near.left_outer_join()),
            (false, true) => drop(near.right_outer_join()),
            (true, true) => drop(near.full_outer_join()),
        }
    };
    let mut rig = Rig::of(2, plan(build));
    rig.begin_at(BEGIN);
    rig
}

/// What the operator tells, in the form that all joins have in common.
fn told(rig: &mut Rig, watermark: i64, alone: (bool, bool)) -> Vec<Told> {
    let clock = 0;
    let mut told: Vec<Told> = match alone {
        (false, false) => {
            let rows: Vec<(String, (u64, u64))> = rig.complete_at(watermark, clock);
            rows.into_iter().map(|(key, (l, r))| (key, (Some(l), Some(r)))).collect()
        }
        (true, false) => {
            let rows: Vec<(String, (u64, Option<u64>))> = rig.complete_at(watermark, clock);
            rows.into_iter().map(|(key, (l, r))| (key, (Some(l), r))).collect()
        }
        (false, true) => {
            let rows: Vec<(String, (Option<u64>, u64))> = rig.complete_at(watermark, clock);
            rows.into_iter().map(|(key, (l, r))| (key, (l, Some(r)))).collect()
        }
        (true, true) => rig.complete_at(watermark, clock),
    };
    told.sort();
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_joined_with_all_that_are_near(
        lower in -40..30_i64,
        length in prop_oneof![Just(0), 0..10_i64, 0..60_i64],
        alone: (bool, bool),
        events in events(),
    ) {
        let bounds = (lower, lower + length);
        let mut rig = rig(bounds, alone);
        let open = vec![Vec::new(); OPEN_EPOCHS as usize];
        let (watermark, left, right, late) = (BEGIN, Vec::new(), Vec::new(), 0);
        let mut model = Model { bounds, alone, watermark, left, right, open, late };
        let mut committed = model.clone();
        let (mut number, mut late_before) = (0, 0);
        for event in events {
            match event {
                Event::Records(ahead, rows) => {
                    let (mut records, mut times) = (Vec::new(), Vec::new());
                    for (key, after) in rows {
                        number += 1;
                        let (key, time) = (text(key / 2), model.watermark + after);
                        let row = Row { key: key.clone(), time, number, is_matched: false, is_told: false };
                        let (row, record) = match number % 2 {
                            0 => (Either::Left(row), Either::Left(number)),
                            _ => (Either::Right(row), Either::Right(number)),
                        };
                        model.open[ahead as usize].push(row);
                        records.push((key, record));
                        times.push(time);
                    }
                    let out: Vec<Told> = rig.feed_timed::<_, Either<u64, u64>, _>(ahead, records, times);
                    assert!(out.is_empty());
                }
                Event::Complete(rise) => {
                    let watermark = model.watermark + rise;
                    prop_assert_eq!(told(&mut rig, watermark, alone), model.complete(watermark));
                }
                Event::Checkpoint(rise) => {
                    for _ in 0..OPEN_EPOCHS {
                        let watermark = model.watermark + rise;
                        prop_assert_eq!(told(&mut rig, watermark, alone), model.complete(watermark));
                    }
                    rig.checkpoint();
                    committed = model.clone();
                }
                Event::Crash(workers) => {
                    rig.crash(workers);
                    late_before += model.late - committed.late;
                    model = committed.clone();
                }
            }
        }
        // At the end of time everything is told of, and nothing is kept.
        for _ in 0..OPEN_EPOCHS {
            let watermark = model.watermark + 1_000;
            prop_assert_eq!(told(&mut rig, watermark, alone), model.complete(watermark));
        }
        prop_assert_eq!(rig.late(), model.late + late_before);
        prop_assert_eq!((rig.entries(0), rig.entries(1)), (0, 0));
    }
}

#[test]
fn rows_are_kept_hardly_longer_than_they_can_match() {
    let mut rig = rig((-10, 30), (false, false));
    for time in 0..1_000_i64 {
        let record = match time % 2 {
            0 => Either::Left(time as u64),
            _ => Either::Right(time as u64),
        };
        let _: Vec<Told> = rig.feed_timed(0, vec![("a".to_owned(), record)], vec![time]);
        told(&mut rig, time, (false, false));
        // A left row is needed for 30 ms, a right one for 10 ms; buckets are 10 ms long.
        assert!(rig.entries(0) <= 5 && rig.entries(1) <= 3, "at {time}");
    }
    // A checkpoint writes what is there.
    rig.checkpoint();
    assert_eq!((rig.written("left"), rig.written("right")), (rig.entries(0), rig.entries(1)));
}
