//! Functions with several inputs and outputs in random jobs.

use highwater::{
    BoxError, BroadcastContext, BroadcastProcess, BroadcastState, Context, Either, Process,
    SideOutput, States, Stream, Timers, Timestamp, Value,
};

use crate::graph::Row;

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
