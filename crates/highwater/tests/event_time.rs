//! Event time through whole jobs: windows, several sources, silent ones, crashes and other numbers of workers.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use highwater::connectors::{Files, Generator};
use highwater::testing::{self, Collect, Run, Script, Test};
use highwater::time::{WatermarkGenerator, hours, millis, secs};
use highwater::{
    Batches, BoxError, Context, CountTrigger, Global, Job, Process, Session, Sliding, States,
    Stream, Timers, Timestamp, Trigger, Ttl, Tumbling, Value, Watermark, WindowResult,
};
use highwater_log::Store;
use object_store::memory::InMemory;

/// (key, time in seconds)
type Reading = (String, i64);

fn reading(key: &str, at: i64) -> Reading {
    (key.to_owned(), at * 1000)
}

fn timed(readings: &Stream<Reading>, disorder: Duration) -> Stream<Reading> {
    readings.event_time(|reading| reading.1, Watermark::bounded(disorder))
}

/// Counts in windows of ten seconds, written to `out`, and what was late to `late`.
fn count_tens(readings: &Stream<Reading>) {
    let tens = readings.key_by(|reading| reading.0.clone()).window(Tumbling::of(secs(10)));
    let tens = tens.count().uid("tens");
    tens.late().write("late", Collect);
    tens.write("out", Collect);
}

/// (key, begin in seconds, count), sorted.
fn counts(run: &Run) -> Vec<(String, i64, u64)> {
    let rows = run.committed::<WindowResult<String, u64>>("out").into_iter();
    let mut rows: Vec<_> = rows.map(|row| (row.key, row.start.as_ms() / 1000, row.value)).collect();
    rows.sort();
    rows
}

fn late(run: &Run) -> Vec<i64> {
    run.committed::<(String, Reading)>("late").into_iter().map(|(_, (_, at))| at / 1000).collect()
}

fn row(key: &str, start: i64, count: u64) -> (String, i64, u64) {
    (key.to_owned(), start, count)
}

/// Windows are under way at every crash, and the watermark, too: the record at 3 is late after the crash as it would be before.
#[test]
fn windows_and_watermarks_outlive_crashes() {
    let run = Test::new(2).then(3).then(1).run(|job| {
        let script = Script::new()
            .records([reading("a", 1), reading("b", 12), reading("a", 8)])
            .epoch()
            .record(reading("a", 21))
            .checkpoint()
            .crash()
            .records([reading("a", 3), reading("b", 13), reading("b", 22)])
            .checkpoint()
            .crash()
            .records([reading("a", 23), reading("b", 41)]);
        count_tens(&timed(&job.read("in", script), secs(5)));
    });
    let run = run.unwrap();
    assert_eq!(run.attempts(), 3);
    assert_eq!(late(&run), [3]);
    let all = [row("a", 0, 2), row("a", 20, 2), row("b", 10, 2), row("b", 20, 1), row("b", 40, 1)];
    assert_eq!(counts(&run), all);
}

#[test]
fn a_split_far_ahead_waits() {
    waits(|fast, slow| {
        let watermark = Watermark::monotonous().align_within(secs(20));
        fast.union(slow).event_time(|reading| reading.1, watermark)
    });
}

#[test]
fn a_stream_far_ahead_waits_for_another_of_its_group() {
    waits(|fast, slow| {
        let [fast, slow] = [fast, slow].map(|stream| {
            let watermark = Watermark::monotonous().align_group("both", secs(20));
            stream.event_time(|reading| reading.1, watermark)
        });
        fast.union(&slow)
    });
}

/// A source that goes on ten times as fast waits for the other one, across a crash too, and isn't waited for when that one is at its end.
fn waits(time: impl Fn(&Stream<Reading>, &Stream<Reading>) -> Stream<Reading>) {
    const SLOW: i64 = 300;
    let slow_at = Arc::new(AtomicI64::new(0));
    let ahead = Arc::new(AtomicI64::new(0));
    let run = Test::new(3).then(1).run(|job| {
        let steps = |by: i64| (0..SLOW).map(move |step| reading("a", step * by));
        let one_an_epoch = |script: Script<Reading>, row| script.record(row).epoch();
        let fast = steps(10).fold(Script::new(), one_an_epoch);
        let begin = steps(1).take(100).fold(Script::new(), one_an_epoch).checkpoint().crash();
        let slow = steps(1).skip(100).fold(begin, one_an_epoch);
        let (at, most) = (slow_at.clone(), ahead.clone());
        let fast = job.read("fast", fast).inspect(move |(_, time)| {
            let slow = at.load(Ordering::Relaxed);
            if slow < (SLOW - 1) * 1000 {
                most.fetch_max(time - slow, Ordering::Relaxed);
            }
        });
        let at = slow_at.clone();
        let slow =
            job.read("slow", slow).inspect(move |(_, time)| at.store(*time, Ordering::Relaxed));
        count_tens(&time(&fast, &slow));
    });
    let run = run.unwrap();
    assert_eq!(run.attempts(), 2);
    let used: u64 = counts(&run).iter().map(|(_, _, count)| count).sum();
    assert_eq!((used, late(&run).len()), (2 * SLOW as u64, 0));
    // Some epochs may be under way before it is told to wait; otherwise it would be ahead by nearly ten times as much.
    let ahead = ahead.load(Ordering::Relaxed) / 1000;
    assert!(ahead <= SLOW, "it was ahead by {ahead} s");
}

/// A source that is far ahead, and one that takes its time.
fn fast_and_slow(job: &Job) -> [Stream<Reading>; 2] {
    let fast = Script::new().records((0..100).map(|at| reading("a", at * 10)));
    let slow =
        (0..20).fold(Script::new(), |script, at| script.record(reading("a", at * 10)).epoch());
    [job.read("fast", fast), job.read("slow", slow)]
}

#[test]
fn nothing_is_late_behind_several_sources() {
    // The watermark by split of both, that of two watermarks, and that of rows that were regrouped.
    let by_split = |job: &Job| {
        let [fast, slow] = fast_and_slow(job);
        count_tens(&timed(&fast.union(&slow), secs(0)));
    };
    let of_two = |job: &Job| {
        let [fast, slow] = fast_and_slow(job);
        count_tens(&timed(&fast, secs(0)).union(&timed(&slow, secs(0))));
    };
    let rebalanced = |job: &Job| {
        let [fast, slow] = fast_and_slow(job);
        count_tens(&timed(&fast.union(&slow).rebalance(), secs(0)));
    };
    let jobs: [&dyn Fn(&Job); 3] = [&by_split, &of_two, &rebalanced];
    for job in jobs {
        for bytes in [false, true] {
            let test = Test::new(2).settings(|settings| settings.exchange_bytes = bytes);
            let run = test.run(|graph| job(graph)).unwrap();
            assert_eq!(late(&run), Vec::<i64>::new());
            let expected: Vec<_> =
                (0..100).map(|at| row("a", at * 10, if at < 20 { 2 } else { 1 })).collect();
            assert_eq!(counts(&run), expected);
        }
    }
}

/// One record now, and one of a silent source a second later.
fn with_silence(job: &Job, watermark: Watermark<Reading>) {
    let now = Script::new().record(reading("a", 100));
    let later = Generator::new(|_| reading("a", 1)).rate(1).limit(1).splits(1);
    let both = job.read("now", now).union(&job.read("later", later));
    count_tens(&both.event_time(|reading| reading.1, watermark));
}

#[test]
fn a_silent_source_is_waited_for_until_it_is_idle() {
    let waiting = Test::new(2).run(|job| with_silence(job, Watermark::monotonous())).unwrap();
    assert_eq!(late(&waiting), Vec::<i64>::new());
    let idle = Watermark::monotonous().idle_after(millis(100));
    let idle = Test::new(2).run(|job| with_silence(job, idle)).unwrap();
    assert_eq!(late(&idle), [1]);
}

/// Times go on from run to run; they don't come to an end with what happens to be there.
#[test]
fn available_now_leaves_windows_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::from_objects(Arc::new(InMemory::new()));
    let write = |name: &str, times: &[i64]| {
        let lines: String = times.iter().map(|at| format!("{at}\n")).collect();
        fs::write(folder.path().join(name), lines).unwrap();
    };
    let run = || {
        let test = Test::new(2).store(store.clone());
        let test = test.settings(|settings| settings.trigger = Trigger::AVAILABLE_NOW);
        let run = test.run(|job| {
            let lines = job.read("lines", Files::text(folder.path()));
            let readings = lines.map(|line: String| reading("a", line.parse().unwrap()));
            count_tens(&timed(&readings, secs(2)));
        });
        run.unwrap()
    };
    write("1", &[1, 12, 9, 13]);
    assert_eq!(counts(&run()), [row("a", 0, 2)]);
    write("2", &[14, 25, 2]);
    let run = run();
    assert_eq!((counts(&run), late(&run)), (vec![row("a", 0, 2), row("a", 10, 3)], vec![2]));
}

/// Windows of windows: the highest count of ten seconds in each minute.
#[test]
fn windows_follow_windows() {
    let run = Test::new(2).run(|job| {
        let times = [1, 2, 11, 12, 13, 65, 70, 71].map(|at| reading("a", at));
        let readings = timed(&job.read("in", Script::new().records(times)), secs(0));
        let tens =
            readings.key_by(|reading| reading.0.clone()).window(Tumbling::of(secs(10))).count();
        let minutes =
            tens.map(|ten| (ten.key, ten.value)).keyed().window(Tumbling::of(secs(60))).max();
        minutes.write("out", Collect);
    });
    assert_eq!(counts(&run.unwrap()), [row("a", 0, 3), row("a", 60, 2)]);
}

/// Waits for five seconds of silence of each key; tells how long somebody spoke, and a moment by the clock later that it did.
struct Silence {
    since: Value<i64>,
    last: Value<i64>,
    silent: Timers,
    told: Timers,
}

impl Process for Silence {
    type Key = String;
    type In = Reading;
    type Out = WindowResult<String, u64>;

    fn declare(states: &mut States<Self>) -> Self {
        let (silent, told) = (states.event_timers("silent"), states.clock_timers("told"));
        Silence { since: states.value("since"), last: states.value("last"), silent, told }
    }

    fn record(&mut self, (_, at): Reading, cx: &mut Context<Self>) -> Result<(), BoxError> {
        if let Some(last) = self.last.get(cx) {
            self.silent.delete(cx, last + 5_000);
        }
        if self.since.get(cx).is_none() {
            self.since.set(cx, at);
        }
        self.last.set(cx, at);
        self.silent.set(cx, at + 5_000);
        Ok(())
    }

    fn timer(
        &mut self,
        timers: Timers,
        at: Timestamp,
        cx: &mut Context<Self>,
    ) -> Result<(), BoxError> {
        if timers == self.silent {
            let start = self.since.take(cx).ok_or("nobody spoke")?;
            self.last.clear(cx);
            let (key, value) = (cx.key().clone(), ((at.as_ms() - start) / 1000) as u64);
            cx.emit(WindowResult { key, start: start.into(), end: at, value });
            self.told.set(cx, cx.clock().ok_or("no clock")?);
        } else {
            cx.emit(WindowResult { key: "told".to_owned(), start: 0.into(), end: at, value: 0 });
        }
        Ok(())
    }
}

#[test]
fn timers_outlive_crashes() {
    let run = Test::new(1).then(3).then(2).run(|job| {
        let script = Script::new()
            .records([reading("a", 1), reading("b", 2), reading("a", 4)])
            .checkpoint()
            .crash()
            .records([reading("b", 8), reading("c", 11)])
            .checkpoint()
            .crash()
            .record(reading("a", 13));
        let readings = timed(&job.read("in", script), secs(2));
        let silences = readings.key_by(|reading| reading.0.clone()).process(Silence::declare);
        let silences = silences.uid("silences").main();
        silences.write("out", Collect);
        // What timers tell has their time: windows can follow.
        let silences = silences.filter(|silence| silence.value > 0).map(|_| ("all".to_owned(), 0));
        silences.keyed().window(Tumbling::of(secs(10))).count().write("tens", Collect);
    });
    let run = run.unwrap();
    let mut told = counts(&run);
    let spoken = told.split_off(told.iter().position(|row| row.0 == "told").unwrap());
    // When `c` spoke the watermark went to 9, by when `a` had been silent for 5 s; `b` had just spoken again.
    assert_eq!(told, [row("a", 1, 8), row("a", 13, 5), row("b", 2, 11), row("c", 11, 5)]);
    assert_eq!(spoken.len(), 4);
    let tens = run.committed::<WindowResult<String, u64>>("tens");
    let tens: Vec<_> = tens.into_iter().map(|ten| (ten.start.as_ms() / 1000, ten.value)).collect();
    assert_eq!(tens, [(0, 1), (10, 3)]);
}

#[test]
fn windows_that_cannot_be_are_refused_with_their_place() {
    let refused = |build: &dyn Fn(&Job, Stream<Reading>)| {
        let run = Test::new(1).run(|job| {
            let readings = job.read("in", vec![reading("a", 1)]);
            build(job, readings);
        });
        run.unwrap_err().to_string()
    };
    let untimed = refused(&|_, readings| {
        readings.keyed().window(Tumbling::of(secs(1))).count().write("out", Collect);
    });
    assert!(untimed.contains("event_time.rs") && untimed.contains(".event_time("), "{untimed}");
    // A running aggregate has no times.
    let dropped = refused(&|_, readings| {
        let counts = timed(&readings, secs(0)).keyed().count();
        counts.keyed().window(Tumbling::of(secs(1))).count().write("out", Collect);
    });
    assert!(dropped.contains(".event_time("), "{dropped}");
    let timed = |readings: Stream<Reading>| timed(&readings, secs(0)).keyed();
    let empty = refused(&|_, readings| {
        timed(readings).window(Sliding::of(secs(1), secs(0))).count().write("out", Collect);
    });
    assert!(empty.contains("the slide of windows must be a millisecond or more"), "{empty}");
    let gapless = refused(&|_, readings| {
        timed(readings).window(Session::with_gap(secs(0))).count().write("out", Collect);
    });
    assert!(gapless.contains("must be a millisecond or more"), "{gapless}");
    let none = refused(&|_, readings| {
        readings.keyed().window(Batches::last(3).every(0)).count().write("out", Collect);
    });
    assert!(none.contains("end after every one or more"), "{none}");
    let odd = refused(&|_, readings| {
        let windows = highwater::Cumulating::of(secs(10), secs(3));
        timed(readings).window(windows).count().write("out", Collect);
    });
    assert!(odd.contains("let the step divide the length"), "{odd}");
    let endless = refused(&|_, readings| {
        let windows = Session::with_gap(hours(u64::MAX / 3600));
        timed(readings).window(windows).count().write("out", Collect);
    });
    assert!(endless.contains("longer than windows can be"), "{endless}");
    let unwatched = refused(&|_, readings| {
        let silences = readings.key_by(|reading| reading.0.clone()).process(Silence::declare);
        silences.main().write("out", Collect);
    });
    assert!(unwatched.contains("event timers go by the watermark"), "{unwatched}");
    fn aligned<T: 'static>() -> Watermark<T> {
        Watermark::bounded(secs(1)).align_within(secs(9))
    }
    let regrouped = refused(&|_, readings| {
        let counts = readings.key_by(|reading| reading.0.clone()).count();
        counts.event_time(|count| count.1 as i64, aligned()).write("out", Collect);
    });
    assert!(regrouped.contains("nothing is known here of the splits"), "{regrouped}");
    let twice = refused(&|_, readings| {
        readings.event_time(|reading| reading.1, aligned()).write("out", Collect);
        readings.event_time(|reading| -reading.1, aligned()).write("again", Collect);
    });
    assert!(twice.contains("aligned already, by the event time given at"), "{twice}");
}

/// As far behind as the largest disorder so far.
#[derive(Default)]
struct Adaptive {
    highest: i64,
    disorder: i64,
}

impl WatermarkGenerator<Reading> for Adaptive {
    fn record(&mut self, _: &Reading, at: Timestamp) -> Option<Timestamp> {
        self.disorder = self.disorder.max(self.highest - at.as_ms());
        self.highest = self.highest.max(at.as_ms());
        Some(Timestamp::from_ms(self.highest - self.disorder))
    }
}

#[test]
fn a_generator_remembers_what_came_before() {
    let run = testing::run(1, |job| {
        let steps = [1, 8, 12, 6, 22, 13];
        let steps = steps.map(|at| reading("a", at)).into_iter();
        let script = steps.fold(Script::new(), |script, reading| script.record(reading).epoch());
        let readings = job.read("in", script);
        count_tens(
            &readings.event_time(|reading| reading.1, Watermark::generated(Adaptive::default)),
        );
    });
    let run = run.unwrap();
    // The 6 is late, since nothing had been out of order before. The 13 isn't any more: at 22 the watermark is at 16.
    assert_eq!(late(&run), [6]);
    assert_eq!(counts(&run), [row("a", 0, 2), row("a", 10, 2), row("a", 20, 1)]);
}

/// Of sums nothing is lost, of the largest it is.
#[test]
fn an_inverse_function_that_does_not_invert_is_found_out() {
    testing::assert_inverts(|a, b| a + b, |a, b| a - b, &[-3_i64, 0, 7]);
    let wrong = || testing::assert_inverts(i64::max, |a, b| a - b, &[-3, 0, 7]);
    let panic = std::panic::catch_unwind(wrong).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("the inverse function doesn't invert: -3 and -3 come to -3"), "{text}");
}

#[test]
fn state_that_grows_for_ever_is_warned_of() {
    let plan = testing::plan(|job| {
        let readings = job.read("in", vec![reading("a", 1)]);
        readings.distinct().uid("once").write("a", Collect);
        let windows = readings.key_by(|reading| reading.0.clone()).window(Global);
        windows.trigger(CountTrigger::of(2)).count().uid("growing").write("b", Collect);
        let keyed = readings.key_by(|reading| reading.0.clone());
        keyed.count_window(3).count().uid("threes").write("c", Collect);
        keyed.sliding_count_window(3, 1).count().uid("last").write("d", Collect);
        let forever = keyed.distinct_within(Ttl::never()).uid("forever");
        forever.main().write("e", Collect);
        let for_a_while = keyed.distinct_within(Ttl::after_write(secs(1))).uid("for-a-while");
        for_a_while.main().write("f", Collect);
        let tens = timed(&readings, secs(1)).keyed().window(Tumbling::of(secs(10)));
        tens.allowed_lateness(Duration::MAX).count().uid("kept").write("g", Collect);
    });
    let warnings = plan.check(true).unwrap().warnings();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings[2].starts_with("`forever` ("), "{warnings:?}");
    assert!(warnings[3].starts_with("`kept` ("), "{warnings:?}");
    assert!(warnings[0].starts_with("`once` (") && warnings[0].contains("event_time.rs:"));
    assert!(warnings[1].starts_with("`growing` ("), "{warnings:?}");
}
