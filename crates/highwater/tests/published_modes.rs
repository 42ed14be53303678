//! Sequences of steps that Apache Spark publishes for update and complete mode, plain aggregates and deduplication (EventTimeWatermarkSuite,
//! StreamingAggregationSuite, StreamingDeduplicationSuite, StreamingSessionWindowSuite and FlatMapGroupsWithStateSuite, Apache-2.0). Each step is an epoch.
//!
//! There are no output modes here. What update mode emits are the rows of running aggregates, and of windows that are told of early; the table of
//! complete mode is the last row of each key, of aggregates that nothing is ever late for.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater::testing::{Collect, Run, Script, Test};
use highwater::time::{Watermark, days, millis, secs};
use highwater::{
    Data, EarlyTrigger, Session, StateHandle, Stream, Trigger, Ttl, Tumbling, WindowResult,
};
use highwater_log::Store;
use object_store::memory::InMemory;
use support::{Add, Crash, Step, run_steps, seconds, sorted_rows};

/// The last row of each window: its begin and its count.
fn last_counts(run: &Run) -> BTreeMap<i64, u64> {
    run.committed::<(i64, u64)>("out").into_iter().collect()
}

#[test]
fn windows_in_update_mode() {
    let steps = vec![
        Add((10..=15).collect()),
        Crash,
        Add(vec![25]),
        Add(vec![10, 25]),
        Crash,
        Add(vec![10]),
    ];
    let run = run_steps(steps, |numbers| {
        let numbers = numbers.event_time(|n: &i64| n * 1_000, Watermark::bounded(secs(10)));
        let fives = numbers.window_all(Tumbling::of(secs(5)));
        let counts = fives.trigger(EarlyTrigger::count(1)).count().uid("fives");
        counts.late().map(|(_, n)| n).write("late", Collect);
        counts.map(|window| (seconds(window.start), window.value)).write("out", Collect);
    });
    assert_eq!(last_counts(&run), [(10, 5), (15, 1), (25, 2)].into());
    assert_eq!(run.committed::<i64>("late"), [10, 10]);
    // Every record is told of, which is finer than a batch.
    let told: BTreeSet<(i64, u64)> = run.committed("out").into_iter().collect();
    assert!(told.contains(&(25, 1)) && told.contains(&(10, 3)), "{told:?}");
}

#[test]
fn windows_in_complete_mode() {
    let steps = vec![
        Add(vec![10, 11, 12]),
        Add(vec![25]),
        Crash,
        Add(vec![25]),
        Add(vec![10]),
        Crash,
        Add(vec![25]),
    ];
    let run = run_steps(steps, |numbers: Stream<i64>| {
        // A table of all windows is a running count by window.
        let counts = numbers.key_by(|n| n.div_euclid(5) * 5).count().uid("windows");
        counts.write("out", Collect);
    });
    assert_eq!(last_counts(&run), [(10, 4), (25, 3)].into());
}

#[test]
fn groups_by_event_time_itself() {
    let run = run_steps(vec![Add(vec![10_i64]), Crash, Add(vec![25])], |numbers| {
        let numbers = numbers.event_time(|n: &i64| n * 1_000, Watermark::bounded(secs(10)));
        let moments = numbers.window_all(Tumbling::of(millis(1))).count().uid("moments");
        moments.map(|window| (seconds(window.start), window.value)).write("out", Collect);
    });
    // The second is held by Spark.
    assert_eq!(sorted_rows::<(i64, u64)>(&run, "out"), [(10, 1), (25, 1)]);
}

#[test]
fn a_batch_for_each_start() {
    let steps = vec![
        Add(vec![15_i64]),
        Crash,
        Add(vec![10, 12, 14]),
        Crash,
        Add(vec![25]),
        Crash,
        Add(vec![50]),
        Crash,
        Add(vec![50]),
    ];
    let run = run_steps(steps, |numbers| {
        let numbers = numbers.event_time(|n: &i64| n * 1_000, Watermark::bounded(secs(10)));
        let fives = numbers.window_all(Tumbling::of(secs(5))).count().uid("fives");
        fives.map(|window| (seconds(window.start), window.value)).write("out", Collect);
    });
    // The last is held by Spark.
    assert_eq!(sorted_rows::<(i64, u64)>(&run, "out"), [(10, 3), (15, 1), (25, 1), (50, 2)]);
}

fn counted(steps: Vec<Step<i64>>) -> BTreeMap<i64, u64> {
    let run = run_steps(steps, |numbers| {
        numbers.key_by(|n| *n).count().uid("counts").write("out", Collect);
    });
    last_counts(&run)
}

#[test]
fn counts_in_update_and_complete_mode() {
    let update = vec![
        Add(vec![3]),
        Add(vec![3, 2]),
        Crash,
        Add(vec![3, 2, 1]),
        Crash,
        Add(vec![4, 4, 4, 4]),
    ];
    assert_eq!(counted(update), [(1, 1), (2, 2), (3, 3), (4, 4)].into());
    let complete =
        vec![Add(vec![3]), Add(vec![2]), Crash, Add(vec![3, 2, 1]), Add(vec![4, 4, 4, 4])];
    assert_eq!(counted(complete), [(1, 1), (2, 2), (3, 2), (4, 4)].into());
}

#[test]
fn counts_by_two_keys() {
    let run = run_steps(vec![Add(vec![1_u64, 2]), Crash, Add(vec![1, 2])], |numbers| {
        let counts = numbers.key_by(|n| (*n, n + 1)).count().uid("counts");
        counts.write("out", Collect);
    });
    let last = run.last_per_key::<(u64, u64), u64>("out");
    assert_eq!(last, [((1, 2), 2), ((2, 3), 2)].into());
}

#[test]
fn repetitions() {
    let words = |words: &[&str]| Add(words.iter().map(|word| (*word).to_owned()).collect());
    let steps = vec![words(&["a"]), Crash, words(&["a"]), Crash, words(&["b"])];
    let run = run_steps(steps, |words: Stream<String>| {
        words.distinct().uid("once").write("out", Collect);
    });
    assert_eq!(sorted_rows::<String>(&run, "out"), ["a", "b"]);
    let row = |name: &str, number: u64| (name.to_owned(), number);
    let steps = vec![Add(vec![row("a", 1)]), Crash, Add(vec![row("a", 2)]), Add(vec![row("b", 1)])];
    let run = run_steps(steps, |rows: Stream<(String, u64)>| {
        let once = rows.key_by(|row| row.0.clone()).distinct_within(Ttl::never());
        once.uid("once").main().write("out", Collect);
    });
    assert_eq!(sorted_rows::<(String, u64)>(&run, "out"), [row("a", 1), row("b", 1)]);
}

/// A repetition has the time of the first record, so that it is late when that could be forgotten.
fn once<T: highwater::Key>(
    rows: &Stream<T>,
    at: impl Fn(&T) -> i64 + Send + Sync + 'static,
    delay: u64,
) -> highwater::Processed<T> {
    // What is at the watermark is late in Spark, here what is below it.
    let watermark = Watermark::bounded(secs(delay) - millis(1));
    let rows = rows.event_time(move |row| at(row) * 1_000, watermark);
    let within = Ttl::after_write(millis(1)).by_event_time();
    rows.key_by(|row| row.clone()).distinct_within(within).uid("once")
}

#[test]
fn repetitions_up_to_the_watermark() {
    let fives: Vec<i64> = (10..=15).flat_map(|n| [n; 5]).collect();
    let steps = vec![Add(fives.clone()), Crash, Add(vec![25]), Add(vec![10]), Crash, Add(vec![45])];
    let run = run_steps(steps, |numbers| {
        let once = once(&numbers, |n| *n, 10);
        once.main().write("out", Collect);
        once.side::<i64>("late").write("late", Collect);
    });
    assert_eq!(sorted_rows::<i64>(&run, "out"), [10, 11, 12, 13, 14, 15, 25, 45]);
    assert_eq!(run.committed::<i64>("late"), [10]);

    let steps = vec![Add(fives), Add(vec![25]), Crash, Add(vec![10]), Add(vec![40])];
    let run = run_steps(steps, |numbers| {
        let fives = once(&numbers, |n| *n, 10).main().window_all(Tumbling::of(secs(5))).count();
        fives.late().map(|_| ()).write("late", Collect);
        fives.map(|window| (seconds(window.start), window.value)).write("out", Collect);
    });
    // The last is held by Spark.
    assert_eq!(sorted_rows::<(i64, u64)>(&run, "out"), [(10, 5), (15, 1), (25, 1), (40, 1)]);
    assert!(run.committed::<()>("late").is_empty());

    // (seconds, id)
    let steps = vec![
        Add(vec![(1, 1), (1, 1), (1, 2)]),
        Add(vec![(1, 1), (2, 3), (2, 4)]),
        Crash,
        Add(vec![(1, 0), (1, 1), (3, 5), (3, 6)]),
        Add(vec![(1, 0), (4, 7)]),
    ];
    let run = run_steps(steps, |rows: Stream<(i64, i64)>| {
        once(&rows, |row| row.0, 1).main().map(|row| row.1).write("out", Collect);
    });
    assert_eq!(sorted_rows::<i64>(&run, "out"), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn windows_behind_what_is_there_once() {
    let run = run_steps(vec![Add((1..=15_i64).collect())], |numbers| {
        let fives = once(&numbers, |n| *n, 10).main().window_all(Tumbling::of(secs(5))).count();
        fives.map(|window| (seconds(window.start), window.value)).write("out", Collect);
    });
    // All but the first are held by Spark.
    assert_eq!(sorted_rows::<(i64, u64)>(&run, "out"), [(0, 4), (5, 5), (10, 5), (15, 1)]);
}

/// Windows of five, ten and twenty seconds, each of those before: how many, and of how many numbers.
#[test]
fn windows_behind_windows_behind_windows() {
    let steps = vec![Add((0..=37_i64).collect()), Crash, Add((30..=60).collect())];
    let run = run_steps(steps, |numbers| {
        let numbers = numbers.event_time(|n: &i64| n * 1_000, Watermark::monotonous());
        let fives = numbers.window_all(Tumbling::of(secs(5))).count().uid("fives");
        let tens = fives.window_all(Tumbling::of(secs(10))).sum(|five| five.value).uid("tens");
        let twenties = tens.window_all(Tumbling::of(secs(20))).fold(
            (0_u64, 0_u64),
            |acc, ten: WindowResult<(), u64>| *acc = (acc.0 + 1, acc.1 + ten.value),
            |acc, other| *acc = (acc.0 + other.0, acc.1 + other.1),
        );
        let shown = |window: WindowResult<(), (u64, u64)>| {
            (seconds(window.start), seconds(window.end), window.value)
        };
        twenties.uid("twenties").map(shown).write("out", Collect);
        fives.late().map(|(_, n)| n).write("late", Collect);
    });
    let expected = [(0, 20, (2, 20)), (20, 40, (2, 23)), (40, 60, (2, 20)), (60, 80, (1, 1))];
    assert_eq!(sorted_rows::<(i64, i64, (u64, u64))>(&run, "out"), expected);
    // 30 to 34 are in a window that was over.
    assert_eq!(sorted_rows::<i64>(&run, "late"), [30, 31, 32, 33, 34]);
}

/// Sessions of the words of each line, of which none is ever late: told of whenever they change, the last row of each is right.
#[test]
fn sessions_in_complete_mode() {
    let line = |line: &str, at| (line.to_owned(), at);
    let steps = vec![
        Add(vec![
            line("hello world spark streaming", 40),
            line("world hello structured streaming", 41),
        ]),
        Add(vec![line("spark streaming", 25)]),
        Crash,
        Add(vec![line("spark streaming", 30)]),
        Crash,
        Add(vec![line("hello apache spark", 60)]),
        Add(vec![line("structured streaming", 90)]),
    ];
    let run = run_steps(steps, |lines: Stream<(String, i64)>| {
        let lines = lines.event_time(|line| line.1 * 1_000, Watermark::bounded(days(1)));
        let words =
            lines.flat_map(|(line, _)| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let sessions = words.key_by(|word| word.clone()).window(Session::with_gap(secs(10)));
        let counts = sessions.trigger(EarlyTrigger::count(1)).count().uid("sessions");
        counts.map(|s| (s.key, seconds(s.start), seconds(s.end), s.value)).write("out", Collect);
    });
    type Row = (String, i64, i64, u64);
    let told: Vec<Row> = run.committed("out");
    let row = |word: &str, start, end, count| (word.to_owned(), start, end, count);
    // On the way: two sessions of their own, which the next line makes one.
    assert!(told.contains(&row("spark", 25, 35, 1)) && told.contains(&row("spark", 40, 50, 1)));
    // At the end all that there are are told of, of which none is part of another.
    let is_part = |row: &Row| {
        let holds = |other: &&Row| other.0 == row.0 && other.1 <= row.1 && row.2 <= other.2;
        told.iter().filter(holds).any(|other| other.3 > row.3)
    };
    let table: BTreeSet<Row> = told.iter().filter(|row| !is_part(row)).cloned().collect();
    let expected = [
        row("spark", 25, 50, 3),
        row("streaming", 25, 51, 4),
        row("hello", 40, 51, 2),
        row("world", 40, 51, 2),
        row("structured", 41, 51, 1),
        row("hello", 60, 70, 1),
        row("apache", 60, 70, 1),
        row("spark", 60, 70, 1),
        row("structured", 90, 100, 1),
        row("streaming", 90, 100, 1),
    ];
    assert_eq!(table, expected.into());
}

/// Counts, in text; the third record of a key removes its state and nothing is told.
#[test]
fn a_count_that_is_silent_at_three() {
    let words = |words: &[&str]| Add(words.iter().map(|word| (*word).to_owned()).collect());
    let steps = vec![
        words(&["a"]),
        words(&["a", "b"]),
        Crash,
        words(&["a", "b"]),
        Crash,
        words(&["a", "c"]),
    ];
    let run = run_steps(steps, |words: Stream<String>| {
        let count = |word: &String, _, count: &mut StateHandle<'_, u64>| {
            let now = count.get().copied().unwrap_or_default() + 1;
            if now == 3 {
                count.remove();
                return None;
            }
            count.set(now);
            Some((word.clone(), now.to_string()))
        };
        words.key_by(|word| word.clone()).map_with_state(count).uid("counts").write("out", Collect);
    });
    let row = |word: &str, count: &str| (word.to_owned(), count.to_owned());
    let expected =
        [row("a", "1"), row("a", "1"), row("a", "2"), row("b", "1"), row("b", "2"), row("c", "1")];
    assert_eq!(sorted_rows::<(String, String)>(&run, "out"), expected);
}

#[test]
fn a_function_that_fails_once() {
    let store = Store::from_objects(Arc::new(InMemory::new()));
    let fails = Arc::new(AtomicBool::new(true));
    let run = || {
        let fails = fails.clone();
        Test::new(2).store(store.clone()).run(move |job| {
            let numbers = job.read("in", vec![1_i64, 2, 3, 4]).try_map(move |n| {
                match n == 3 && fails.swap(false, Ordering::Relaxed) {
                    true => Err("it fails on the first run"),
                    false => Ok(n),
                }
            });
            numbers.key_by(|n| *n).count().uid("counts").write("out", Collect);
        })
    };
    assert!(run().unwrap_err().to_string().contains("it fails on the first run"));
    assert_eq!(last_counts(&run().unwrap()), [(1, 1), (2, 1), (3, 1), (4, 1)].into());
}

/// The records have a field more when the job is started again; what is remembered is their key.
#[test]
fn repetitions_across_a_restart_with_a_field_more() {
    fn names<T: Data>(
        test: Test,
        script: Script<T>,
        name: fn(&T) -> String,
        time: fn(&T) -> i64,
    ) -> Vec<String> {
        let run = test.run(move |job| {
            let rows = job.read("in", script);
            let rows = rows.event_time(move |row| time(row) * 1_000, Watermark::bounded(secs(10)));
            let within = Ttl::after_write(secs(10)).by_event_time();
            let once = rows.key_by(name).distinct_within(within).uid("once");
            once.main().map(move |row| name(&row)).write("out", Collect);
        });
        sorted_rows(&run.unwrap(), "out")
    }
    let store = Store::from_objects(Arc::new(InMemory::new()));
    let test = |workers| {
        let test = Test::new(workers).store(store.clone());
        test.settings(|settings| settings.trigger = Trigger::AvailableNow { rows: 100 })
    };
    let row = |name: &str, time: i64| (name.to_owned(), time);
    let script = Script::new().record(row("a", 1)).epoch().records([row("a", 2), row("b", 3)]);
    assert_eq!(names(test(2), script, |row| row.0.clone(), |row| row.1), ["a", "b"]);
    let row = |name: &str, time: i64| (name.to_owned(), time, format!("more of {name}"));
    // What was there before, and what is new.
    let script = Script::new().record(row("a", 1)).epoch().records([row("a", 2), row("b", 3)]);
    let script = script.records([row("a", 5), row("b", 2), row("c", 9)]);
    let names = names(test(3), script, |row| row.0.clone(), |row| row.1);
    assert_eq!(names.iter().filter(|name| *name == "c").count(), 1);
    assert!(names.iter().filter(|name| *name == "a" || *name == "b").count() <= 2, "{names:?}");
}
