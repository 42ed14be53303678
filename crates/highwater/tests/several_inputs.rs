//! Functions with several inputs and outputs through whole jobs, killed and gone on with other numbers of workers.

use highwater::testing::{self, Collect, Script, Test};
use highwater::time::{Watermark, secs};
use highwater::{
    BoxError, BroadcastContext, BroadcastProcess, BroadcastState, Context, Either, Process,
    SideOutput, States, Timers, Timestamp, Tumbling, Value,
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
