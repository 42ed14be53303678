//! Windows and timers in random jobs.
//!
//! Which rows are late depends on timing. But every row is used or late, and that once: so what windows or timers tell and what is late come
//! together to the number of rows of each key.

use std::time::Duration;

use highwater::time::{after, before, hours, millis};
use highwater::{
    Batches, BoxError, Context, EarlyTrigger, Either, KeyedStream, Process, Session, StateHandle,
    StateSpec, States, Stream, Timers, Timestamp, Ttl, Tumbling, Value, Watermark,
};

use crate::graph::Row;

/// When a row happened, in milliseconds: rows of a split are somewhat out of order.
pub fn time_of(row: &Row) -> i64 {
    i64::from(row.seq) * 10 + row.value
}

/// A stream of rows whose splits may be aligned, or may not.
#[derive(Clone, Copy)]
pub struct Input<'s> {
    /// The rows.
    pub rows: &'s Stream<Row>,
    /// Nobody else aligns the splits that they are read from.
    pub may_align: bool,
}

/// Gives rows their times. Some are more out of order than is allowed for, silent splits aren't always waited for, and some splits aren't to be far
/// ahead of the others.
fn timed(uid: &str, input: Input<'_>, number: i64) -> KeyedStream<u32, Row> {
    timed_within(uid, input, number, millis(10 * number as u64))
}

/// The same, with this much disorder.
fn timed_within(
    uid: &str,
    input: Input<'_>,
    number: i64,
    disorder: Duration,
) -> KeyedStream<u32, Row> {
    let mut watermark = Watermark::bounded(disorder);
    if input.may_align {
        watermark = watermark.align_within(millis(20 * number as u64));
    }
    if number % 3 == 0 {
        watermark = watermark.idle_after(millis(5));
    }
    let timed = input.rows.event_time(time_of, watermark).uid(&format!("{uid}-time"));
    timed.key_by(|row| row.key)
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
    let counts = counts.uid(uid);
    let late = counts.late().map(|(key, _)| (key, 1));
    let used = counts.map(|window| (window.key, window.value as i64));
    used.union(&late).keyed().sum(|count| count).uid(&format!("{uid}-sum"))
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
    let counts = counts.uid(uid);
    let late = counts.late().map(|(key, _)| (key, 1));
    let used = counts.map(|window| (window.key, window.value as i64));
    used.union(&late).keyed().sum(|count| count).uid(&format!("{uid}-sum"))
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

/// How many pairs each key has in two inputs, if none of their rows can be late. Otherwise how many different rows: each is joined, alone or late.
pub fn interval_join(
    uid: &str,
    left: Input<'_>,
    right: Input<'_>,
    number: i64,
) -> Stream<(u32, i64)> {
    let is_exact = number % 2 == 0;
    let disorder = if is_exact { hours(1) } else { millis(10 * number as u64) };
    let left = timed_within(&format!("{uid}-left"), left, number, disorder);
    let right = timed_within(&format!("{uid}-right"), right, number, disorder);
    let (lower, upper) = bounds(number);
    let near = left.interval_join(
        &right,
        before(millis(lower.unsigned_abs())),
        after(millis(upper.unsigned_abs())),
    );
    let counts = if is_exact {
        near.join().uid(uid).map(|(key, _)| (key, 1))
    } else {
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
    };
    counts.keyed().sum(|count| count).uid(&format!("{uid}-sum"))
}

/// Numbers the rows of each key by `map_with_state`, where some keys have a state to begin with; none ever times out.
pub fn from_initial(uid: &str, input: &Stream<Row>) -> Stream<(u32, i64)> {
    const BEGIN: i64 = 1_000;
    let begins = |key: &u32| if *key < 6 { BEGIN } else { 0 };
    let spec = StateSpec::new().initial((0..6).map(|key| (key, BEGIN))).timeout(hours(24));
    let count = move |key: &u32, row: Option<Row>, count: &mut StateHandle<'_, i64>| {
        row?;
        let now = count.get().copied().unwrap_or_default() + 1;
        count.set(now);
        Some((*key, now - begins(key)))
    };
    let counts = input.key_by(|row| row.key).map_with_state_spec(spec, count).uid(uid);
    counts.snapshots().inspect(move |(key, count)| assert!(*count >= begins(key), "it began so"));
    counts.main()
}

/// How many of the last rows of each key there are, of at most so many.
pub fn last_rows(uid: &str, input: &Stream<Row>, number: i64) -> Stream<(u32, i64)> {
    let last = input.key_by(|row| row.key).sliding_count_window(number as u64, 1).collect();
    last.uid(uid).map(|window| (window.key, window.value.len() as i64))
}

/// The number of rows of each key, from what timers tell.
pub fn timers(uid: &str, input: Input<'_>, number: i64) -> Stream<(u32, i64)> {
    let counts = timed(uid, input, number).process(Now::declare).uid(uid).main();
    counts.keyed().sum(|count| count).uid(&format!("{uid}-sum"))
}

/// Counts rows, and tells how many there have been when event time has gone on for a while, or the clock.
struct Now {
    count: Value<i64>,
    /// The present event timer, which is put off when a row comes.
    at: Value<i64>,
    soon: Timers,
    clock: Timers,
}

impl Process for Now {
    type Key = u32;
    type In = Row;
    type Out = (u32, i64);

    fn declare(states: &mut States<Self>) -> Self {
        Now {
            count: states.value("count"),
            at: states.value("at"),
            soon: states.event_timers("soon"),
            clock: states.clock_timers("clock"),
        }
    }

    fn record(&mut self, row: Row, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let count = self.count.get(cx).unwrap_or_default() + 1;
        self.count.set(cx, count);
        let mut next = (time_of(&row) / 50 + 1) * 50;
        if let Some(at) = self.at.get(cx) {
            assert!(self.soon.delete(cx, at), "the timer is there until it is due");
            next = next.max(at);
        }
        self.at.set(cx, next);
        self.soon.set(cx, next);
        if count % 7 == 0 {
            let clock = cx.clock().ok_or("a function with timers knows the clock")?;
            self.clock.set(cx, clock + millis(3));
        }
        Ok(())
    }

    fn timer(
        &mut self,
        timers: Timers,
        _: Timestamp,
        cx: &mut Context<Self>,
    ) -> Result<(), BoxError> {
        if timers == self.soon {
            self.at.clear(cx);
        }
        if let Some(count) = self.count.take(cx) {
            cx.emit((*cx.key(), count));
        }
        Ok(())
    }
}

/// Numbers the rows of each key, and holds states with a lifetime against when they were touched.
pub fn lifetimes(uid: &str, input: Input<'_>, number: i64) -> Stream<(u32, i64)> {
    let rows = timed(uid, input, number);
    rows.process(move |states| Mortal::declare_with(states, 4 * number)).uid(uid).main()
}

/// Lets a key have a value for some milliseconds, by either time, and knows itself how long.
struct Mortal {
    count: Value<i64>,
    length: i64,
    by_clock: Value<i64>,
    by_event_time: Value<i64>,
    /// When either was touched.
    touched: Value<(i64, i64)>,
}

impl Mortal {
    fn declare_with(states: &mut States<Self>, length: i64) -> Self {
        let ttl = Ttl::after_write(millis(length as u64));
        Mortal {
            count: states.value("count"),
            length,
            by_clock: states.ttl(ttl).value("by-clock"),
            by_event_time: states.ttl(ttl.by_event_time()).value("by-event-time"),
            touched: states.value("known"),
        }
    }
}

impl Process for Mortal {
    type Key = u32;
    type In = Row;
    type Out = (u32, i64);

    fn declare(states: &mut States<Self>) -> Self {
        Mortal::declare_with(states, 10)
    }

    fn record(&mut self, row: Row, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let clock = cx.clock().ok_or("a function with lifetimes knows the clock")?.as_ms();
        let watermark = cx.watermark().map_or(i64::MIN, Timestamp::as_ms);
        let count = self.count.get(cx).unwrap_or_default();
        let touched = self.touched.get(cx);
        let lives = |touched: i64, now: i64| touched.saturating_add(self.length) > now;
        let last = |lives: bool| lives.then_some(count);
        let by_clock = touched.and_then(|touched| last(lives(touched.0, clock)));
        assert_eq!(self.by_clock.get(cx), by_clock, "it lives by the clock");
        let by_event_time = touched.and_then(|touched| last(lives(touched.1, watermark)));
        assert_eq!(self.by_event_time.get(cx), by_event_time, "it lives by event time");
        let happened = time_of(&row).max(match by_event_time {
            Some(_) => touched.map_or(i64::MIN, |touched| touched.1),
            None => i64::MIN,
        });
        self.count.set(cx, count + 1);
        self.by_clock.set(cx, count + 1);
        self.by_event_time.set(cx, count + 1);
        self.touched.set(cx, (clock, happened));
        cx.emit((*cx.key(), count + 1));
        Ok(())
    }
}
