//! Functions with several inputs and outputs through whole jobs, killed and gone on with other numbers of workers.

use std::time::Duration;

use highwater::testing::{self, Collect, Script, Test};
use highwater::time::{Watermark, after, before, secs};
use highwater::{
    BoxError, BroadcastContext, BroadcastProcess, BroadcastState, Context, Either, KeyedStream,
    Process, SideOutput, States, Timers, Timestamp, Tumbling, Value,
};

type Order = (u64, i64);

/// Joins an order with its payment; whichever comes first waits, for an hour.
struct Paid {
    order: Value<Order>,
    payment: Value<String>,
    expires: Timers,
    unpaid: SideOutput<u64>,
}

impl Process for Paid {
    type Key = u64;
    type In = Either<Order, (u64, i64, String)>;
    type Out = (u64, String);

    fn declare(states: &mut States<Self>) -> Self {
        Paid {
            order: states.value("order"),
            payment: states.value("payment"),
            expires: states.event_timers("expires"),
            unpaid: states.side("unpaid"),
        }
    }

    fn record(&mut self, record: Self::In, cx: &mut Context<Self>) -> Result<(), BoxError> {
        match record {
            Either::Left(order) => {
                self.expires.set(cx, order.1 + 3_600_000);
                self.order.set(cx, order);
            }
            Either::Right((_, _, payment)) => self.payment.set(cx, payment),
        }
        if let (Some(order), Some(payment)) = (self.order.get(cx), self.payment.get(cx)) {
            self.expires.delete(cx, order.1 + 3_600_000);
            self.order.clear(cx);
            cx.emit((*cx.key(), payment));
        }
        Ok(())
    }

    fn timer(&mut self, _: Timers, _: Timestamp, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let key = *cx.key();
        self.unpaid.emit(cx, key);
        self.order.clear(cx);
        Ok(())
    }
}

/// State of both sides, and a timer, are there after each crash.
#[test]
fn a_payment_finds_its_order_after_crashes() {
    let run = Test::new(2).then(3).then(1).run(|job| {
        let orders = Script::new()
            .records([(7u64, 0i64), (8, 1_000), (9, 2_000)])
            .checkpoint()
            .crash()
            .record((10, 3_000))
            .checkpoint()
            .crash()
            .record((11, 7_200_000));
        let payments = vec![(10u64, 0i64, "cash".to_owned()), (8, 0, "card".to_owned())];
        let orders =
            job.read("orders", orders).event_time(|o: &Order| o.1, Watermark::monotonous());
        let payments = job
            .read("payments", payments)
            .event_time(|payment| payment.1, Watermark::monotonous().idle_after(secs(0)));
        let paid = orders.key_by(|order| order.0).connect(&payments.key_by(|payment| payment.0));
        let paid = paid.process(Paid::declare).uid("paid");
        paid.main().write("out", Collect);
        paid.side::<u64>("unpaid").write("unpaid", Collect);
    });
    let run = run.unwrap();
    assert_eq!(run.attempts(), 3);
    let mut paid = run.committed::<(u64, String)>("out");
    paid.sort();
    assert_eq!(paid, [(8, "card".to_owned()), (10, "cash".to_owned())]);
    let mut unpaid = run.committed::<u64>("unpaid");
    unpaid.sort();
    assert_eq!(unpaid, [7, 9, 11]);
}

/// Multiplies by the factor of the hour, which all workers must know.
struct Factor {
    factors: BroadcastState<String, u64>,
}

impl Process for Factor {
    type Key = u64;
    type In = u64;
    type Out = u64;

    fn declare(states: &mut States<Self>) -> Self {
        Factor { factors: states.broadcast("factors") }
    }

    fn record(&mut self, number: u64, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let factor = self.factors.get(cx, &"now".to_owned()).ok_or("the factor isn't known")?;
        cx.emit(number * factor);
        Ok(())
    }
}

impl BroadcastProcess for Factor {
    type Broadcast = u64;

    fn broadcast(
        &mut self,
        factor: u64,
        cx: &mut BroadcastContext<'_, Self>,
    ) -> Result<(), BoxError> {
        self.factors.insert(cx, "now".to_owned(), factor);
        Ok(())
    }
}

/// Rules that were read before the first crash are known to more workers after it, and to one after the second.
#[test]
fn all_workers_know_the_rules_after_crashes() {
    let run = Test::new(1).then(4).then(2).run(|job| {
        // A mark isn't passed before everything so far is committed, the one factor with it.
        let numbers = Script::new()
            .epoch()
            .checkpoint()
            .crash()
            .records(0..50)
            .checkpoint()
            .crash()
            .records(50..100);
        let factors = job.read("factors", vec![3u64]);
        let numbers = job.read("numbers", numbers).key_by(|number: &u64| *number);
        let out = numbers.process_with_broadcast(&factors, Factor::declare).uid("factor");
        out.main().write("out", Collect);
    });
    let run = run.unwrap();
    assert_eq!(run.attempts(), 3);
    let mut out = run.committed::<u64>("out");
    out.sort();
    assert_eq!(out, (0..100).map(|number| number * 3).collect::<Vec<_>>());
}

/// Windows over two streams: what others call a window join is made of what both brought.
#[test]
fn windows_see_both_streams() {
    let run = testing::run(2, |job| {
        let time = |record: &(u64, i64)| record.1;
        let clicks = job.read("clicks", vec![(1u64, 1_000i64), (1, 2_000), (2, 1_000)]);
        let clicks = clicks.event_time(time, Watermark::monotonous()).key_by(|click| click.0);
        let buys = job.read("buys", vec![(1u64, 3_000i64), (1, 11_000)]);
        let buys = buys.event_time(time, Watermark::monotonous()).key_by(|buy| buy.0);
        let both = clicks.connect(&buys).window(Tumbling::of(secs(10))).fold(
            (0u64, 0u64),
            |acc, record| match record {
                Either::Left(_) => acc.0 += 1,
                Either::Right(_) => acc.1 += 1,
            },
            |acc, other| {
                acc.0 += other.0;
                acc.1 += other.1;
            },
        );
        both.map(|window| (window.key, window.start.as_ms(), window.value)).write("out", Collect);
    })
    .unwrap();
    let mut out = run.committed::<(u64, i64, (u64, u64))>("out");
    out.sort();
    assert_eq!(out, [(1, 0, (2, 1)), (1, 10_000, (0, 1)), (2, 0, (1, 0))]);
}

#[test]
fn what_cannot_be_is_named_with_its_place() {
    let error = testing::run(1, |job| {
        let factor = job.read("in", vec![(1u64, 2u64)]).keyed().process(Factor::declare);
        factor.main().write("out", Collect);
        factor.side::<u64>("odd").write("odd", Collect);
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("use `process_with_broadcast`"), "{error}");
    assert!(error.contains("no side output `odd`"), "{error}");
    assert!(error.contains("several_inputs.rs:"), "{error}");
}

/// Both sides wait in state at every crash, and a window behind the join finds nothing late.
#[test]
fn an_interval_join_outlives_crashes() {
    let run = Test::new(2).then(3).then(1).run(|job| {
        let order = |id: u64, at: i64| (id, at * 1000);
        let payment = |id: u64, at: i64| (id, at * 1000, format!("at {at}"));
        let orders = Script::new()
            .records([order(1, 10), order(2, 11), order(3, 12)])
            .checkpoint()
            .crash()
            .records([order(4, 40), order(1, 41)]);
        let payments = Script::new()
            .records([payment(1, 8), payment(1, 9), payment(2, 17)])
            .checkpoint()
            .epoch()
            .records([payment(1, 15), payment(1, 16), payment(4, 38)])
            .checkpoint()
            .crash()
            .record(payment(4, 45));
        let orders = job.read("orders", orders);
        let orders = orders.event_time(|order| order.1, Watermark::bounded(secs(5)));
        let payments = job.read("payments", payments);
        let payments = payments.event_time(|payment| payment.1, Watermark::bounded(secs(5)));
        let orders = orders.key_by(|order| order.0);
        let near = orders.interval_join(
            &payments.key_by(|payment| payment.0),
            before(secs(2)),
            after(secs(5)),
        );
        let paid = near.full_outer_join().uid("paid");
        paid.late().map(|(id, _)| id).write("late", Collect);
        let windows = paid.key_by(|(id, _)| *id).window(Tumbling::of(secs(10))).count();
        windows.late().map(|(id, _)| id).write("late-behind", Collect);
        windows.map(|window| window.value).write("windows", Collect);
        type Found = (Option<Order>, Option<(u64, i64, String)>);
        let shown = |(id, (order, payment)): (u64, Found)| {
            (id, order.map(|order| order.1 / 1000), payment.map(|(_, _, payment)| payment))
        };
        paid.map(shown).write("out", Collect);
    });
    let run = run.unwrap();
    assert_eq!(run.attempts(), 3);
    let mut out = run.committed::<(u64, Option<i64>, Option<String>)>("out");
    out.sort();
    let at = |at: i64| Some(format!("at {at}"));
    let expected = [
        (1, None, at(16)),
        (1, Some(10), at(15)),
        (1, Some(10), at(8)),
        (1, Some(10), at(9)),
        (1, Some(41), None),
        (2, None, at(17)),
        (2, Some(11), None),
        (3, Some(12), None),
        (4, Some(40), at(38)),
        (4, Some(40), at(45)),
    ];
    assert_eq!(out, expected);
    assert_eq!(run.committed::<u64>("windows").iter().sum::<u64>(), 10);
    assert!(run.committed::<u64>("late").is_empty());
    assert!(run.committed::<u64>("late-behind").is_empty());
}

#[test]
fn an_interval_join_that_cannot_be_is_refused_with_its_place() {
    type Orders = KeyedStream<u64, Order>;
    let refused = |join: &dyn Fn(&Orders, &Orders)| {
        let run = testing::run(1, |job| {
            let orders = job.read("in", vec![(1, 2)]);
            let timed = orders.event_time(|order: &Order| order.1, Watermark::monotonous());
            let key = |order: &Order| order.0;
            join(&timed.key_by(key), &orders.key_by(key));
        });
        let error = run.unwrap_err().to_string();
        assert!(error.contains("several_inputs.rs:"), "{error}");
        error
    };
    let untimed = refused(&|timed, untimed| {
        timed.interval_join(untimed, before(secs(1)), after(secs(1))).join().write("o", Collect);
    });
    assert!(untimed.contains("which the records of both streams must have"), "{untimed}");
    let empty = refused(&|timed, _| {
        timed.interval_join(timed, after(secs(2)), after(secs(1))).join().write("o", Collect);
    });
    assert!(empty.contains("from 2000 ms to 1000 ms ends before it begins"), "{empty}");
    let endless = refused(&|timed, _| {
        let ever = after(Duration::MAX);
        timed.interval_join(timed, after(secs(2)), ever).join().write("o", Collect);
    });
    assert!(endless.contains("bound it on both sides"), "{endless}");
}
