//! Sequences of steps that Apache Spark publishes for event time (EventTimeWatermarkSuite, StreamingSessionWindowSuite,
//! MultiStatefulOperatorsSuite, StreamingDeduplicationSuite and TransformWithStateSuite, Apache-2.0). Each step is an epoch; what is compared is what came out in all, as
//! when a batch comes out is Spark's own. At the end of the input time goes to its end here, which tells of what Spark would still hold.

mod support;

use highwater::testing::Collect;
use highwater::time::{Timestamp, Watermark, secs};
use highwater::{
    BoxError, Context, Process, Session, States, Stream, Timers, Ttl, Tumbling, Value, WindowResult,
};
use support::{Add, Crash, Step, run_steps, seconds};

/// The times of numbers are seconds; windows of five of them are counted.
fn fives(numbers: &Stream<i64>, behind: u64) -> highwater::Windowed<(), i64, u64> {
    let numbers = numbers.event_time(|n| n * 1_000, Watermark::bounded(secs(behind)));
    numbers.window_all(Tumbling::of(secs(5))).count().uid("fives")
}

/// (begin, count) of all windows, and what was late, both sorted.
fn counted(steps: Vec<Step<i64>>) -> (Vec<(i64, u64)>, Vec<i64>) {
    let run = run_steps(steps, |numbers| {
        let counts = fives(&numbers, 10);
        counts.late().map(|(_, n)| n).write("late", Collect);
        counts.map(|window| (seconds(window.start), window.value)).write("out", Collect);
    });
    let (mut counts, mut late) = (run.committed("out"), run.committed("late"));
    counts.sort_unstable();
    late.sort_unstable();
    (counts, late)
}

#[test]
fn windows_in_append_mode() {
    let metrics = vec![Add(vec![15]), Add(vec![10, 12, 14]), Add(vec![25])];
    assert_eq!(counted(metrics), (vec![(10, 3), (15, 1), (25, 1)], vec![]));
    let append = vec![Add((10..=15).collect()), Add(vec![25]), Add(vec![10])];
    assert_eq!(counted(append), (vec![(10, 5), (15, 1), (25, 1)], vec![10]));
}

#[test]
fn the_watermark_outlives_restarts() {
    let recovery = vec![
        Add((10..=15).collect()),
        Add(vec![25]),
        Crash,
        Add(vec![10, 27, 30]),
        Crash,
        Add(vec![17]),
        Add(vec![40]),
    ];
    let windows = vec![(10, 5), (15, 1), (25, 2), (30, 1), (40, 1)];
    assert_eq!(counted(recovery), (windows, vec![10, 17]));
}

#[test]
fn windows_follow_windows() {
    let steps = vec![Add((10..=21).collect()), Add((10..=29).collect()), Add(vec![30, 31])];
    let run = run_steps(steps, |numbers| {
        let tens = fives(&numbers, 0).window_all(Tumbling::of(secs(10))).fold(
            (0, 0),
            |acc: &mut (u64, u64), five: WindowResult<(), u64>| {
                acc.0 += 1;
                acc.1 += five.value;
            },
            |acc, other| {
                acc.0 += other.0;
                acc.1 += other.1;
            },
        );
        tens.late().map(|(_, five)| five.value).write("late", Collect);
        tens.uid("tens").map(|ten| (seconds(ten.start), ten.value)).write("out", Collect);
    });
    let out: Vec<(i64, (u64, u64))> = run.committed("out");
    assert_eq!(out, [(10, (2, 10)), (20, (2, 12)), (30, (1, 2))]);
    assert!(run.committed::<u64>("late").is_empty(), "what comes of windows is never late");
}

/// Lines of words, and the time of each in seconds.
fn lines() -> Vec<Step<(String, i64)>> {
    let line = |line: &str, at| (line.to_owned(), at);
    vec![
        Add(vec![
            line("hello world spark streaming", 40),
            line("world hello structured streaming", 41),
        ]),
        Add(vec![line("spark streaming", 25)]),
        Add(vec![line("spark streaming", 0)]),
        Add(vec![line("spark streaming", 30)]),
        Add(vec![line("hello apache spark", 60)]),
        Add(vec![line("structured streaming", 90)]),
    ]
}

/// (word, begin, end, count) of all sessions, and how many records were late.
fn sessions<W>(windows: impl FnOnce() -> W) -> (Vec<(String, i64, i64, u64)>, usize)
where
    W: highwater::WindowKind<(String, i64)>,
{
    let run = run_steps(lines(), |lines| {
        let lines = lines.event_time(|line| line.1 * 1_000, Watermark::bounded(secs(30)));
        let words = lines.flat_map(|(line, at)| {
            line.split(' ').map(|word| (word.to_owned(), at)).collect::<Vec<_>>()
        });
        let sessions = words.key_by(|word| word.0.clone()).window(windows()).count();
        let sessions = sessions.uid("sessions");
        sessions.late().map(|(word, _)| word).write("late", Collect);
        sessions.map(|s| (s.key, seconds(s.start), seconds(s.end), s.value)).write("out", Collect);
    });
    let mut out: Vec<(String, i64, i64, u64)> = run.committed("out");
    out.sort();
    (out, run.committed::<String>("late").len())
}

fn session(word: &str, start: i64, end: i64, count: u64) -> (String, i64, i64, u64) {
    (word.to_owned(), start, end, count)
}

#[test]
fn sessions_in_append_mode() {
    let expected = [
        session("apache", 60, 70, 1),
        session("hello", 40, 51, 2),
        session("hello", 60, 70, 1),
        session("spark", 25, 50, 3),
        session("spark", 60, 70, 1),
        session("streaming", 25, 51, 4),
        session("streaming", 90, 100, 1),
        session("structured", 41, 51, 1),
        session("structured", 90, 100, 1),
        session("world", 40, 51, 2),
    ];
    assert_eq!(sessions(|| Session::with_gap(secs(10))), (expected.into(), 2));
}

#[test]
fn sessions_with_a_gap_for_each_word() {
    let gap = |word: &(String, i64)| match &*word.0 {
        "hello" => secs(1),
        // No session at all.
        "structured" | "world" => secs(0),
        _ => secs(10),
    };
    let expected = [
        session("apache", 60, 70, 1),
        session("hello", 40, 42, 2),
        session("hello", 60, 61, 1),
        session("spark", 25, 50, 3),
        session("spark", 60, 70, 1),
        session("streaming", 25, 51, 4),
        session("streaming", 90, 100, 1),
    ];
    assert_eq!(sessions(|| Session::with_gap_of(gap)).0, expected);
}

/// The highest time of each key; when event time is five seconds further, it is told that the key is gone.
struct Highest {
    highest: Value<i64>,
    gone: Timers,
}

impl Process for Highest {
    type Key = String;
    type In = (String, i64);
    type Out = (String, i64);

    fn declare(states: &mut States<Self>) -> Self {
        Highest { highest: states.value("highest"), gone: states.event_timers("gone") }
    }

    fn record(&mut self, (_, at): Self::In, cx: &mut Context<Self>) -> Result<(), BoxError> {
        if cx.watermark().is_some_and(|watermark| at * 1_000 < watermark.as_ms()) {
            return Ok(());
        }
        if let Some(before) = self.highest.get(cx) {
            self.gone.delete(cx, (before + 5) * 1_000);
        }
        let highest = self.highest.get(cx).unwrap_or(i64::MIN).max(at);
        self.highest.set(cx, highest);
        self.gone.set(cx, (highest + 5) * 1_000);
        cx.emit((cx.key().clone(), highest));
        Ok(())
    }

    fn timer(&mut self, _: Timers, _: Timestamp, cx: &mut Context<Self>) -> Result<(), BoxError> {
        self.highest.clear(cx);
        cx.emit((cx.key().clone(), -1));
        Ok(())
    }
}

#[test]
fn time_outs_by_event_time() {
    let row = |key: &str, at| (key.to_owned(), at);
    let steps = vec![
        Add(vec![row("a", 15), row("a", 11), row("a", 13)]),
        Add(vec![row("a", 4)]),
        Crash,
        Add(vec![row("a", 10)]),
        Add(vec![row("b", 31)]),
    ];
    let run = run_steps(steps, |rows| {
        let rows = rows.event_time(|row| row.1 * 1_000, Watermark::bounded(secs(10)));
        let told = rows.key_by(|row| row.0.clone()).process(Highest::declare).uid("highest");
        told.main().write("out", Collect);
    });
    let told: Vec<(String, i64)> = run.committed("out");
    let of = |key: &str| -> Vec<i64> {
        told.iter().filter(|told| told.0 == key).map(|told| told.1).collect()
    };
    // Rows of one key and epoch are told of one by one here; the 4 is late.
    assert_eq!(of("a"), [15, 15, 15, 15, -1]);
    assert_eq!(of("b"), [31, -1]);
}

/// Counts; the third record of a key removes its state and is told as -1.
#[test]
fn a_count_that_is_removed_at_three() {
    let steps = vec![
        Add(vec!["a"]),
        Add(vec!["a", "b"]),
        Crash,
        Add(vec!["a", "b"]),
        Crash,
        Add(vec!["a", "c"]),
    ];
    let steps = steps.into_iter().map(|step| match step {
        Add(words) => Add(words.into_iter().map(str::to_owned).collect::<Vec<String>>()),
        Crash => Crash,
    });
    let run = run_steps(steps.collect(), |words| {
        let counts = words.key_by(|word| word.clone()).map_with_state(
            |word, _, count: &mut highwater::StateHandle<'_, i64>| {
                let now = count.get().copied().unwrap_or_default() + 1;
                match now {
                    3 => count.remove(),
                    now => count.set(now),
                }
                Some((word.clone(), if now == 3 { -1 } else { now }))
            },
        );
        counts.uid("counts").write("out", Collect);
    });
    let mut told: Vec<(String, i64)> = run.committed("out");
    told.sort();
    let row = |word: &str, count| (word.to_owned(), count);
    let expected = [
        row("a", -1),
        row("a", 1),
        row("a", 1),
        row("a", 2),
        row("b", 1),
        row("b", 2),
        row("c", 1),
    ];
    assert_eq!(told, expected);
}

/// Numbers whose times are seconds; equal ones within ten seconds are one.
#[test]
fn repetitions_within_the_watermark() {
    let fives = (10..=15).flat_map(|n| [n; 5]).collect();
    let steps = vec![
        Add(fives),
        Crash,
        Add(vec![13, 14, 15, 16, 17]),
        Crash,
        Add(vec![5]),
        Add(vec![35]),
        Add(vec![55]),
    ];
    let run = run_steps(steps, |numbers| {
        let numbers = numbers.event_time(|n: &i64| n * 1_000, Watermark::bounded(secs(10)));
        let within = Ttl::after_write(secs(10)).by_event_time();
        let once = numbers.key_by(|n| *n).distinct_within(within).uid("once");
        once.main().write("out", Collect);
        once.side::<i64>("late").write("late", Collect);
    });
    let mut out: Vec<i64> = run.committed("out");
    out.sort_unstable();
    assert_eq!(out, [10, 11, 12, 13, 14, 15, 16, 17, 35, 55]);
    assert_eq!(run.committed::<i64>("late"), [5]);
}

/// The records have a key of their own, and times that differ from repetition to repetition.
#[test]
fn repetitions_of_a_key_within_the_watermark() {
    let row = |name: &str, at: i64| (name.to_owned(), at);
    let steps = vec![
        Add(vec![row("a", 17)]),
        Add(vec![row("a", 16)]),
        Add(vec![row("a", 13)]),
        Add(vec![row("b", 22), row("c", 21)]),
        Crash,
        Add(vec![row("a", 21)]),
        Add(vec![row("d", 25)]),
    ];
    let run = run_steps(steps, |rows| {
        let rows =
            rows.event_time(|row: &(String, i64)| row.1 * 1_000, Watermark::bounded(secs(2)));
        let within = Ttl::after_write(secs(2)).by_event_time();
        let once = rows.key_by(|row| row.0.clone()).distinct_within(within).uid("once");
        once.main().write("out", Collect);
        once.side::<(String, i64)>("late").write("late", Collect);
    });
    let mut out: Vec<(String, i64)> = run.committed("out");
    out.sort();
    assert_eq!(out, [row("a", 17), row("a", 21), row("b", 22), row("c", 21), row("d", 25)]);
    assert_eq!(run.committed::<(String, i64)>("late"), [row("a", 13)]);
}
