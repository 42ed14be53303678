//! Functions with several inputs and outputs in random jobs.

use highwater::{
    BoxError, BroadcastContext, BroadcastProcess, BroadcastState, Context, Either, List, Process,
    SideOutput, States, Stream, Timers, Timestamp, Value,
};

use crate::graph::Row;
use crate::timed::{Input, time_of, timed};

/// Numbers the rows that each key has in both inputs together.
pub fn connect(uid: &str, left: &Stream<Row>, right: &Stream<Row>) -> Stream<(u32, i64)> {
    // Of another type, so that mixing them up would be noticed.
    let right = right.map(|row| (row.key, row.value)).keyed();
    let counts = left.key_by(|row| row.key).connect(&right).process(Both::declare).uid(uid);
    counts.main().union(&counts.side::<(i64, u32)>("right").map(|(count, key)| (key, count)))
}

struct Both {
    count: Value<i64>,
    right: SideOutput<(i64, u32)>,
}

impl Process for Both {
    type Key = u32;
    type In = Either<Row, i64>;
    type Out = (u32, i64);

    fn declare(states: &mut States<Self>) -> Self {
        Both { count: states.value("count"), right: states.side("right") }
    }

    fn record(&mut self, row: Self::In, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let (key, count) = (*cx.key(), self.count.get(cx).unwrap_or_default() + 1);
        self.count.set(cx, count);
        match row {
            Either::Left(_) => cx.emit((key, count)),
            Either::Right(_) => self.right.emit(cx, (count, key)),
        }
        Ok(())
    }
}

/// Numbers the rows of each key, while all workers count the rows of all keys: at the end of every epoch both counts agree.
pub fn broadcast(uid: &str, input: &Stream<Row>) -> Stream<(u32, i64)> {
    let rows = input.key_by(|row| row.key);
    rows.process_with_broadcast(input, Known::declare).uid(uid).main()
}

struct Known {
    count: Value<i64>,
    counts: BroadcastState<u32, i64>,
    end: Timers,
}

impl Process for Known {
    type Key = u32;
    type In = Row;
    type Out = (u32, i64);

    fn declare(states: &mut States<Self>) -> Self {
        Known {
            count: states.value("count"),
            counts: states.broadcast("counts"),
            end: states.clock_timers("end"),
        }
    }

    fn record(&mut self, _: Row, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let count = self.count.get(cx).unwrap_or_default() + 1;
        self.count.set(cx, count);
        let end = cx.clock().ok_or("a function with timers knows the clock")?;
        self.end.set(cx, end);
        cx.emit((*cx.key(), count));
        Ok(())
    }

    fn timer(&mut self, _: Timers, _: Timestamp, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let (count, known) = (self.count.get(cx), self.counts.get(cx, cx.key()));
        assert_eq!(count, known, "what all workers know is what the key has had");
        Ok(())
    }
}

impl BroadcastProcess for Known {
    type Broadcast = Row;

    fn broadcast(&mut self, row: Row, cx: &mut BroadcastContext<'_, Self>) -> Result<(), BoxError> {
        let count = self.counts.get(cx, &row.key).unwrap_or_default() + 1;
        self.counts.insert(cx, row.key, count);
        Ok(())
    }
}

/// Numbers the rows of each key, and tells of the numbers when a row of the other input has all keys visited, or at some time.
pub fn visits(uid: &str, input: Input<'_>, other: &Stream<Row>, number: i64) -> Stream<(u32, i64)> {
    timed(uid, input, number).process_with_broadcast(other, Visited::declare).uid(uid).main()
}

struct Visited {
    count: Value<i64>,
    untold: List<i64>,
    /// How many visits there had been before the key had a row, and how many it has had since.
    visits: Value<(i64, i64)>,
    all_visits: BroadcastState<u32, i64>,
    soon: Timers,
}

impl Visited {
    /// How many visits there have been, which is as many as the key knows of.
    fn check(&self, cx: &Context<Self>) -> i64 {
        let all = self.all_visits.get(cx, &0).unwrap_or_default();
        if let Some((before, since)) = self.visits.get(cx) {
            assert_eq!(before + since, all, "every visit was to every key that has a row");
        }
        all
    }

    fn tell(&self, cx: &mut Context<Self>) {
        for number in self.untold.take(cx) {
            cx.emit((*cx.key(), number));
        }
    }
}

impl Process for Visited {
    type Key = u32;
    type In = Row;
    type Out = (u32, i64);

    fn declare(states: &mut States<Self>) -> Self {
        Visited {
            count: states.value("count"),
            untold: states.list("untold"),
            visits: states.value("visits"),
            all_visits: states.broadcast("all-visits"),
            soon: states.event_timers("soon"),
        }
    }

    fn record(&mut self, row: Row, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let all = self.check(cx);
        if self.visits.get(cx).is_none() {
            self.visits.set(cx, (all, 0));
        }
        let count = self.count.get(cx).unwrap_or_default() + 1;
        self.count.set(cx, count);
        self.untold.push(cx, count);
        self.soon.set(cx, time_of(&row) + 50);
        Ok(())
    }

    fn timer(&mut self, _: Timers, _: Timestamp, cx: &mut Context<Self>) -> Result<(), BoxError> {
        self.check(cx);
        self.tell(cx);
        Ok(())
    }
}

impl BroadcastProcess for Visited {
    type Broadcast = Row;

    fn broadcast(&mut self, row: Row, cx: &mut BroadcastContext<'_, Self>) -> Result<(), BoxError> {
        if row.value % 3 != 0 {
            return Ok(());
        }
        let all = self.all_visits.get(cx, &0).unwrap_or_default() + 1;
        self.all_visits.insert(cx, 0, all);
        let visits = &self.visits;
        cx.apply_to_keyed_state(visits, |cx| {
            let (before, since) = visits.get(cx).ok_or("a key without a row was visited")?;
            visits.set(cx, (before, since + 1));
            Ok(())
        })?;
        let this = &*self;
        cx.apply_to_keyed_state(&this.untold, |cx| {
            this.check(cx);
            this.tell(cx);
            Ok(())
        })
    }
}
