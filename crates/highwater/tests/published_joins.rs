//! Joins of two streams that Apache Spark publishes as sequences of steps (StreamingJoinSuite and MultiStatefulOperatorsSuite, Apache-2.0). Each step is an
//! epoch; what is compared is what came out in all, as when a batch comes out is Spark's own. At the end of the input time goes to its end here, which
//! tells of what Spark would still hold.
//!
//! In Spark a record at the watermark is late, here it is one below it: so watermarks are a millisecond less behind here.

mod support;

use highwater::testing::{Collect, Run};
use highwater::time::{RelativeTime, after, before, days, millis, secs};
use highwater::{
    BoxError, Context, Data, Either, IntervalJoin, Key, KeyedStream, List, Process, States, Stream,
    Tumbling, Watermark, WindowResult,
};
use support::{Add, Crash, Step, run_steps, seconds, sorted_rows};

/// A record of either stream.
type Side<T> = Either<T, T>;

fn left<T>(records: impl IntoIterator<Item = T>) -> Step<Side<T>> {
    Add(records.into_iter().map(Either::Left).collect())
}

fn right<T>(records: impl IntoIterator<Item = T>) -> Step<Side<T>> {
    Add(records.into_iter().map(Either::Right).collect())
}

/// Both in one batch.
fn both<T>(left: impl IntoIterator<Item = T>, right: impl IntoIterator<Item = T>) -> Step<Side<T>> {
    let left = left.into_iter().map(Either::Left);
    Add(left.chain(right.into_iter().map(Either::Right)).collect())
}

fn sides<T: Data>(records: &Stream<Side<T>>) -> (Stream<T>, Stream<T>) {
    let left = records.filter_map(|record| match record {
        Either::Left(record) => Some(record),
        Either::Right(_) => None,
    });
    let right = records.filter_map(|record| match record {
        Either::Left(_) => None,
        Either::Right(record) => Some(record),
    });
    (left, right)
}

/// So many seconds behind.
fn behind<T: 'static>(seconds: u64) -> Watermark<T> {
    Watermark::bounded(secs(seconds) - millis(1))
}

/// Keeps everything: a join without time.
struct Everything {
    left: List<i64>,
    right: List<i64>,
}

impl Process for Everything {
    type Key = i64;
    type In = Side<i64>;
    type Out = (i64, i64, i64);

    fn declare(states: &mut States<Self>) -> Self {
        Everything { left: states.list("left"), right: states.list("right") }
    }

    fn record(&mut self, record: Self::In, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let key = *cx.key();
        let pairs: Vec<(i64, i64)> = match record {
            Either::Left(left) => {
                self.left.push(cx, left);
                self.right.iter(cx).map(|right| (left, *right)).collect()
            }
            Either::Right(right) => {
                self.right.push(cx, right);
                self.left.iter(cx).map(|left| (*left, right)).collect()
            }
        };
        pairs.into_iter().for_each(|(left, right)| cx.emit((key, left, right)));
        Ok(())
    }
}

#[test]
fn inner_without_time() {
    let steps = vec![
        left([1]),
        right([1, 10]),
        left([10]),
        right([1]),
        Crash,
        left([1]),
        Crash,
        left([100]),
        right([100]),
    ];
    let run = run_steps(steps, |records| {
        let (left, right) = sides(&records);
        let left = left.map(|n: i64| (n, 2 * n)).keyed();
        let right = right.map(|n| (n, 3 * n)).keyed();
        left.connect(&right).process(Everything::declare).uid("all").main().write("out", Collect);
    });
    let once = (1, 2, 3);
    let expected = [once, once, once, once, (10, 20, 30), (100, 200, 300)];
    assert_eq!(sorted_rows::<(i64, i64, i64)>(&run, "out"), expected);
}

/// (key, end of the window, left, right); times are the numbers.
type InWindow = (i64, i64, Option<i64>, Option<i64>);

/// Joins records of a key that are in the same ten seconds. `watermarks` gives both streams their times.
fn in_windows(
    steps: Vec<Step<Side<i64>>>,
    timed: impl Fn(&Stream<Side<i64>>) -> (Stream<i64>, Stream<i64>),
) -> (Vec<InWindow>, usize) {
    let run = run_steps(steps, |records| {
        let (left, right) = timed(&records);
        let key = |n: &i64| *n;
        let windows = left.key_by(key).connect(&right.key_by(key)).window(Tumbling::of(secs(10)));
        let windows = windows.cogroup().uid("windows");
        windows.late().map(|(n, _)| n).write("late", Collect);
        let rows = windows.flat_map(|window| {
            let (end, (left, right)) = (seconds(window.end), window.value);
            let row = |l: Option<&i64>, r: Option<&i64>| {
                (window.key, end, l.map(|l| 2 * l), r.map(|r| 3 * r))
            };
            let pairs: Vec<InWindow> = match (left.is_empty(), right.is_empty()) {
                (false, true) => left.iter().map(|l| row(Some(l), None)).collect(),
                (true, _) => right.iter().map(|r| row(None, Some(r))).collect(),
                _ => {
                    let of = |l| right.iter().map(move |r| (l, r));
                    left.iter().flat_map(of).map(|(l, r)| row(Some(l), Some(r))).collect()
                }
            };
            pairs
        });
        rows.write("out", Collect);
    });
    (sorted_rows(&run, "out"), run.committed::<i64>("late").len())
}

/// Each stream has a watermark of its own.
fn each_behind(seconds: u64) -> impl Fn(&Stream<Side<i64>>) -> (Stream<i64>, Stream<i64>) {
    move |records| {
        let (left, right) = sides(records);
        let time = |n: &i64| n * 1_000;
        (left.event_time(time, behind(seconds)), right.event_time(time, behind(seconds)))
    }
}

/// The rows that have both sides.
fn inner(rows: &[InWindow]) -> Vec<(i64, i64, i64, i64)> {
    rows.iter()
        .filter_map(|(key, end, left, right)| Some((*key, *end, (*left)?, (*right)?)))
        .collect()
}

/// The rows that have a left side.
fn left_outer(rows: &[InWindow]) -> Vec<InWindow> {
    rows.iter().filter(|row| row.2.is_some()).copied().collect()
}

/// The rows that have a right side.
fn right_outer(rows: &[InWindow]) -> Vec<InWindow> {
    rows.iter().filter(|row| row.3.is_some()).copied().collect()
}

#[test]
fn inner_in_windows() {
    let steps = vec![
        left([1]),
        right([1]),
        Crash,
        left([25]),
        Crash,
        right([25]),
        left([1]),
        left([5]),
        right([5]),
    ];
    // Without a watermark nothing is late, and all is told of at the end.
    let (rows, late) = in_windows(steps, each_behind(1_000_000));
    let expected = [(1, 10, 2, 3), (1, 10, 2, 3), (5, 10, 10, 15), (25, 30, 50, 75)];
    assert_eq!((inner(&rows), late), (expected.into(), 0));
}

#[test]
fn inner_in_windows_by_the_watermark_of_one_side() {
    let steps =
        vec![left([1]), right([1]), Crash, left([25]), right([25]), Crash, right([1]), left([5])];
    let (rows, late) = in_windows(steps, |records| {
        // Only left records say how far time is.
        let watermark = Watermark::told(|record: &Side<i64>, at| match record {
            Either::Left(_) => Some(at - (secs(10) - millis(1))),
            Either::Right(_) => None,
        });
        let time = |record: &Side<i64>| match record {
            Either::Left(n) | Either::Right(n) => n * 1_000,
        };
        sides(&records.event_time(time, watermark))
    });
    assert_eq!((inner(&rows), late), (vec![(1, 10, 2, 3), (25, 30, 50, 75)], 2));
}

#[test]
fn outer_in_windows() {
    let steps = || vec![both(1..=5, 3..=7), both([21], [22]), Crash, left([22])];
    let matched = |key: i64, end| (key, end, Some(2 * key), Some(3 * key));
    let (rows, late) = in_windows(steps(), each_behind(10));
    assert_eq!(late, 0);
    let expected = [
        (1, 10, Some(2), None),
        (2, 10, Some(4), None),
        matched(3, 10),
        matched(4, 10),
        matched(5, 10),
        // Held by Spark.
        (21, 30, Some(42), None),
        matched(22, 30),
    ];
    assert_eq!(left_outer(&rows), expected);
    let expected = [
        matched(3, 10),
        matched(4, 10),
        matched(5, 10),
        (6, 10, None, Some(18)),
        (7, 10, None, Some(21)),
        matched(22, 30),
    ];
    assert_eq!(right_outer(&rows), expected);
}

/// A left record that fails a condition of its own matches none; what fails one of the right side isn't there. Such conditions are filters before the join.
#[test]
fn outer_in_windows_with_conditions() {
    let with = |steps, of_left: fn(i64) -> bool, of_right: fn(i64) -> bool| {
        let (rows, late) = in_windows(steps, move |records| {
            let (left, right) = each_behind(10)(records);
            (left, right.filter(move |n| of_right(*n)))
        });
        assert_eq!(late, 0);
        // A right record that a left one fails to match is none, too.
        let rows = rows.into_iter().map(move |(key, end, left, right)| {
            (key, end, left, right.filter(|_| left.is_some_and(of_left)))
        });
        left_outer(&rows.collect::<Vec<_>>())
    };
    let steps = vec![both([1, 2, 3], [3, 4, 5]), both([20], [21]), Crash, right([20])];
    let expected = [
        (1, 10, Some(2), None),
        (2, 10, Some(4), None),
        (3, 10, Some(6), Some(9)),
        (20, 30, Some(40), Some(60)),
    ];
    assert_eq!(with(steps, |left| left > 4, |_| true), expected);
    let steps = vec![
        both([1, 2, 3], [1, 2, 3]),
        both([20], [21]),
        right([20]),
        both([40, 41], [40, 41]),
        both([70], [71]),
        right([70]),
        both([101, 102, 103], [101, 102, 103]),
        both([1_000], [1_001]),
    ];
    let pair = |key: i64, end| (key, end, Some(2 * key), Some(3 * key));
    let alone = |key: i64, end| (key, end, Some(2 * key), None);
    let expected = [
        alone(1, 10),
        alone(2, 10),
        alone(3, 10),
        pair(20, 30),
        pair(40, 50),
        pair(41, 50),
        pair(70, 80),
        alone(101, 110),
        alone(102, 110),
        alone(103, 110),
        // Held by Spark.
        alone(1_000, 1_010),
    ];
    let of_right = |n: i64| 3 * n < 300 || 3 * n > 1_000;
    assert_eq!(with(steps, |left| left > 10, of_right), expected);
}

/// (key, seconds)
type Event = (i64, i64);

/// Joins events of a key by their times, and writes what `write` makes of it.
fn in_intervals(
    steps: Vec<Step<Side<Event>>>,
    delays: (u64, u64),
    (lower, upper): (RelativeTime, RelativeTime),
    write: impl Fn(&IntervalJoin<i64, Event, Event>),
) -> Run {
    run_steps(steps, |records| {
        let (left, right) = sides(&records);
        let time = |event: &Event| event.1 * 1_000;
        let left = left.event_time(time, behind(delays.0)).key_by(|event| event.0);
        let right = right.event_time(time, behind(delays.1)).key_by(|event| event.0);
        write(&left.interval_join(&right, lower, upper));
    })
}

/// (key, left time, right time), and how many were late.
fn pairs(
    steps: Vec<Step<Side<Event>>>,
    delays: (u64, u64),
    bounds: (RelativeTime, RelativeTime),
) -> (Vec<(i64, i64, i64)>, usize) {
    let run = in_intervals(steps, delays, bounds, |near| {
        let joined = near.join().uid("near");
        joined.late().map(|(key, _)| key).write("late", Collect);
        joined.map(|(key, (left, right))| (key, left.1, right.1)).write("out", Collect);
    });
    (sorted_rows(&run, "out"), run.committed::<i64>("late").len())
}

/// With a bound on one side only, all left records are kept for ever: so the other bound is very far here.
#[test]
fn inner_with_a_bound_on_one_side() {
    let steps = vec![
        left([(1, 5)]),
        right([(1, 11)]),
        right([(1, 10)]),
        left([(1, 3), (1, 30)]),
        Crash,
        right([(0, 30)]),
        right([(1, 20), (1, 21), (1, 28)]),
        Crash,
        left([(1, 20), (1, 21)]),
    ];
    let bounds = (after(secs(5) + millis(1)), after(days(10_000)));
    let expected = vec![
        (1, 3, 10),
        (1, 3, 11),
        (1, 3, 21),
        (1, 3, 28),
        (1, 5, 11),
        (1, 5, 21),
        (1, 5, 28),
        (1, 21, 28),
    ];
    assert_eq!(pairs(steps, (10, 10), bounds), (expected, 2));
}

#[test]
fn inner_with_bounds_on_both_sides() {
    let steps = vec![
        left([(1, 20)]),
        right([(1, 14), (1, 15), (1, 25), (1, 26), (1, 30), (1, 31)]),
        right([(1, 60)]),
        Crash,
        left([(1, 49), (1, 50), (1, 65), (1, 66)]),
        left([(1, 30), (1, 31)]),
        Crash,
        right([(1, 80)]),
        right([(1, 46), (1, 50)]),
    ];
    let expected = vec![
        (1, 20, 15),
        (1, 20, 25),
        (1, 20, 26),
        (1, 20, 30),
        (1, 31, 26),
        (1, 31, 30),
        (1, 31, 31),
        (1, 49, 50),
        (1, 50, 50),
        (1, 50, 60),
        (1, 65, 60),
    ];
    let bounds = (before(secs(5)), after(secs(10)));
    assert_eq!(pairs(steps, (20, 30), bounds), (expected, 2));
}

#[test]
fn outer_with_bounds() {
    let steps = vec![
        left([(1, 5), (3, 5)]),
        right([(1, 10), (2, 5)]),
        Crash,
        right([(1, 11)]),
        left([(1, 7), (1, 30)]),
        Crash,
        right([(0, 30)]),
    ];
    let bounds = (before(secs(5)), after(secs(5)));
    let run = in_intervals(steps, (10, 10), bounds, |near| {
        let time = |event: Option<Event>| event.map(|event| event.1);
        near.left_outer_join()
            .uid("left")
            .map(move |(key, (left, right))| (key, Some(left.1), time(right)))
            .write("left-out", Collect);
        near.right_outer_join()
            .uid("right")
            .map(move |(key, (left, right))| (key, time(left), Some(right.1)))
            .write("right-out", Collect);
    });
    type Row = (i64, Option<i64>, Option<i64>);
    let pairs = [(1, Some(5), Some(10)), (1, Some(7), Some(10)), (1, Some(7), Some(11))];
    let expected: Vec<Row> = [
        &pairs[..],
        // The second of these is held by Spark.
        &[(1, Some(30), None), (3, Some(5), None)],
    ]
    .concat();
    assert_eq!(sorted_rows::<Row>(&run, "left-out"), expected);
    let expected: Vec<Row> = [&[(0, None, Some(30))], &pairs[..], &[(2, None, Some(5))]].concat();
    assert_eq!(sorted_rows::<Row>(&run, "right-out"), expected);
}

#[test]
fn a_stream_with_itself() {
    let rows = |ids: std::ops::RangeInclusive<i64>| Add(ids.map(|id| (id, id)).collect());
    let steps = vec![rows(1..=5), rows(6..=10), Crash, rows(11..=15)];
    let run = run_steps(steps, |rows: Stream<Event>| {
        let rows = rows.event_time(|row| row.1 * 1_000, behind(5));
        let even = rows.filter(|row| row.0 % 2 == 0).key_by(|row| row.0);
        let all = rows.key_by(|row| row.0);
        let joined = all.interval_join(&even, after(secs(0)), after(secs(5))).left_outer_join();
        joined.map(|(id, (_, even))| (id, even.map(|even| even.0))).write("out", Collect);
    });
    // Those from 5 on are held by Spark.
    let expected: Vec<(i64, Option<i64>)> =
        (1..=15).map(|id| (id, Some(id).filter(|id| id % 2 == 0))).collect();
    assert_eq!(sorted_rows::<(i64, Option<i64>)>(&run, "out"), expected);
}

/// The sum of the numbers in every window of ten seconds.
fn tens(numbers: &Stream<i64>) -> KeyedStream<i64, i64> {
    let numbers = numbers.event_time(|n| n * 1_000, behind(1));
    let sums = numbers.window_all(Tumbling::of(secs(10))).sum(|n| n);
    sums.map(|window: WindowResult<(), i64>| (seconds(window.end), window.value)).keyed()
}

fn joined_windows<K: Key + Ord, L: Data, R: Data>(
    left: &KeyedStream<K, L>,
    right: &KeyedStream<K, R>,
) -> Stream<(K, (L, R))> {
    left.interval_join(right, after(secs(0)), after(secs(0))).join().into()
}

#[test]
fn windows_behind_a_join() {
    let steps = vec![both(1..=4, 1..=4), Crash, both([5], [5])];
    let run = run_steps(steps, |records| {
        let (left, right) = sides(&records);
        let time = |n: &i64| n * 1_000;
        let left = left.event_time(time, behind(1)).key_by(|n| *n);
        let right = right.event_time(time, behind(1)).key_by(|n| *n);
        let fives = joined_windows(&left, &right).window_all(Tumbling::of(secs(5))).count();
        fives.late().map(|_| ()).write("late", Collect);
        fives.map(|five| (seconds(five.start), five.value)).write("out", Collect);
    });
    // The second is held by Spark.
    assert_eq!(sorted_rows::<(i64, u64)>(&run, "out"), [(0, 4), (5, 1)]);
    assert!(run.committed::<()>("late").is_empty());
}

#[test]
fn a_join_behind_windows() {
    let steps = vec![both(1..=5, 5..=9), both(11..=15, 15..=19), Crash, both([100], [101])];
    let run = run_steps(steps, |records| {
        let (left, right) = sides(&records);
        let joined = joined_windows(&tens(&left), &tens(&right));
        joined.map(|(end, (left, right))| (end, left, right)).write("out", Collect);
    });
    // The last is held by Spark.
    let expected = [(10, 15, 35), (20, 65, 85), (110, 100, 101)];
    assert_eq!(sorted_rows::<(i64, i64, i64)>(&run, "out"), expected);
}
