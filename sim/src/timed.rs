//! Event time in random jobs, and process functions by it.
//!
//! Which rows are late depends on timing. But every row is used or late, and that once: so what is told and what is late come together to the number
//! of rows of each key. Or nothing is late, because the watermark is far behind, and then what is told is known.

use std::time::Duration;

use highwater::time::{WatermarkGenerator, hours, millis};
use highwater::{
    BoxError, Context, KeyedStream, Process, StateHandle, StateSpec, States, Stream, Timers,
    Timestamp, Ttl, Value, Watermark,
};

use crate::graph::Row;

/// So much disorder that no row is late.
pub const NEVER_LATE: Duration = hours(1_000_000);

/// When a row happened, in milliseconds: rows of a split are somewhat out of order.
pub fn time_of(row: &Row) -> i64 {
    i64::from(row.seq) * 10 + row.value
}

/// A stream of rows whose splits may be aligned, with each other or with those of other streams, or may not.
#[derive(Clone, Copy)]
pub struct Input<'s> {
    /// The rows.
    pub rows: &'s Stream<Row>,
    /// Nobody else aligns the splits that they are read from.
    pub may_align: bool,
}

/// Gives rows their times. Some are more out of order than is allowed for, silent splits aren't always waited for, and some splits aren't to be far
/// ahead of the others.
pub fn timed(uid: &str, input: Input<'_>, number: i64) -> KeyedStream<u32, Row> {
    timed_within(uid, input, number, millis(10 * number as u64)).key_by(|row| row.key)
}

/// The same, with this much disorder, and watermarks that are made in one way or another.
pub fn timed_within(uid: &str, input: Input<'_>, number: i64, disorder: Duration) -> Stream<Row> {
    let behind = disorder.as_millis() as i64;
    let mut watermark = match number {
        4 => Watermark::told(move |row: &Row, at: Timestamp| {
            row.seq.is_multiple_of(2).then(|| Timestamp::from_ms(at.as_ms() - behind))
        }),
        5 => Watermark::generated(move || Behind { highest: i64::MIN, behind }),
        _ => Watermark::bounded(disorder),
    };
    if input.may_align {
        let ahead = millis(20 * number as u64);
        watermark = match number % 2 {
            0 => watermark.align_group("even", ahead),
            _ => watermark.align_within(ahead),
        };
    }
    if number % 3 == 0 && disorder < NEVER_LATE {
        watermark = watermark.idle_after(millis(5));
    }
    input.rows.event_time(time_of, watermark).uid(&format!("{uid}-time"))
}

/// Tells nothing of the first record that it sees after a start.
struct Behind {
    highest: i64,
    behind: i64,
}

impl WatermarkGenerator<Row> for Behind {
    fn record(&mut self, _: &Row, at: Timestamp) -> Option<Timestamp> {
        let highest = self.highest;
        self.highest = highest.max(at.as_ms());
        (highest > i64::MIN).then(|| Timestamp::from_ms(self.highest - self.behind))
    }
}

/// The distinct (key, value)s, by `distinct_within` a time that is longer than any job.
pub fn distinct_within(uid: &str, input: Input<'_>, number: i64) -> Stream<(u32, i64)> {
    let ttl = Ttl::after_write(NEVER_LATE);
    let ttl = if number % 2 == 0 { ttl.by_event_time() } else { ttl };
    let rows = timed_within(uid, input, number, NEVER_LATE);
    let once = rows.key_by(|row| (row.key, row.value)).distinct_within(ttl).uid(uid);
    once.side::<Row>("late").inspect(|row| panic!("{row:?} is late"));
    once.main().map(|row| (row.key, row.value))
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
    /// It is looked at for every row, and written for the first one that doesn't find it.
    by_access: Value<i64>,
    /// What was written there.
    written: Value<i64>,
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
            by_access: states.ttl(Ttl::after_access(millis(length as u64))).value("by-access"),
            written: states.value("written"),
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
        let by_access = by_clock.and(self.written.get(cx));
        assert_eq!(self.by_access.get(cx), by_access, "it lives as long as somebody looks at it");
        if by_access.is_none() {
            self.by_access.set(cx, count + 1);
            self.written.set(cx, count + 1);
        }
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
