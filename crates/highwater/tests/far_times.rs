//! Times as far away as a number can say: nothing is lost, nothing stops.

use highwater::testing::{self, Collect, Run, Script};
use highwater::time::{Timestamp, Watermark, after, before, hours, millis};
use highwater::{
    AtEnd, BoxError, Calendar, Context, Cumulating, Fire, Global, Job, Process, Session, Sliding,
    States, Stream, Timers, TriggerContext, Tumbling, WindowKind, WindowResult, WindowTrigger,
    Windowed,
};

/// In no order, with the ends of time and what is around them.
const TIMES: [i64; 13] = [
    i64::MIN + 5,
    i64::MIN,
    i64::MIN + 10,
    i64::MIN / 2,
    -11,
    -1,
    0,
    7,
    i64::MAX / 2,
    i64::MAX - 11,
    i64::MAX - 1,
    i64::MAX - 10,
    i64::MAX,
];

/// As far as event times go.
const FARTHEST: i64 = i64::MAX / 4;

/// Every record is an epoch of its own, and none is late.
fn times(job: &Job) -> Stream<i64> {
    let script = TIMES.into_iter().fold(Script::new(), |script, at| script.record(at).epoch());
    // It never says how far time is.
    job.read("in", script).event_time(|at| *at, Watermark::told(|_: &i64, _| None))
}

fn write(windows: Windowed<(), i64, Vec<i64>>) {
    windows.late().write("late", Collect);
    windows.write("out", Collect);
}

/// Each record is in `each` windows that reach around its time, none is late, and no window is told of twice.
fn check(run: &Run, each: usize, what: &str) {
    let windows = run.committed::<WindowResult<(), Vec<i64>>>("out");
    assert_eq!(run.committed::<((), i64)>("late"), [], "{what}");
    let mut all: Vec<i64> = Vec::new();
    for WindowResult { start, end, value, .. } in &windows {
        for at in value {
            let time = (*at).clamp(-FARTHEST, FARTHEST);
            assert!(
                (start.as_ms()..end.as_ms()).contains(&time),
                "{what}: {at} from {start} to {end}"
            );
        }
        all.extend(value);
    }
    all.sort_unstable();
    let mut expected: Vec<i64> = TIMES.into_iter().flat_map(|at| vec![at; each]).collect();
    expected.sort_unstable();
    assert_eq!(all, expected, "{what}");
    let mut spans: Vec<_> = windows.iter().map(|window| (window.start, window.end)).collect();
    spans.sort();
    spans.dedup();
    assert_eq!(spans.len(), windows.len(), "{what}");
}

fn windows<W: WindowKind<i64>>(each: usize, make: impl Fn() -> W, what: &str) {
    for lateness in [0, 5] {
        let input = |job: &Job| times(job).window_all(make()).allowed_lateness(millis(lateness));
        check(&testing::run(1, |job| write(input(job).collect())).unwrap(), each, what);
        let run = testing::run(1, |job| write(input(job).trigger(AtEnd).collect()));
        check(&run.unwrap(), each, &format!("{what} with a trigger"));
    }
}

#[test]
fn every_record_is_in_its_windows() {
    windows(1, || Tumbling::of(millis(1)), "one millisecond");
    windows(1, || Tumbling::of(millis(7)).offset(hours(u64::MAX / 3_600)), "tumbling");
    windows(2, || Sliding::of(millis(10), millis(5)), "sliding");
    windows(1, || Session::with_gap(millis(4)), "sessions");
    windows(1, || Calendar::days("Europe/Berlin"), "days");
    windows(1, || Session::with_gap_of(|_| std::time::Duration::MAX), "one session");
    let run = testing::run(1, |job| {
        write(times(job).window_all(Cumulating::of(millis(10), millis(10))).collect());
    });
    check(&run.unwrap(), 1, "cumulating");
}

/// Windows behind windows: the last one of the calendar has no end.
#[test]
fn windows_follow_windows() {
    let run = testing::run(1, |job| {
        let days = times(job).window_all(Calendar::days("UTC")).collect();
        let sizes = days.map(|day| day.value.len() as u64);
        sizes.window_all(Sliding::of(millis(10), millis(5))).sum(|n| n).write("out", Collect);
    });
    let told = run.unwrap().committed::<WindowResult<(), u64>>("out");
    assert_eq!(told.iter().map(|window| window.value).sum::<u64>(), 2 * TIMES.len() as u64);
}

#[test]
fn joins_by_time_reach_to_the_ends() {
    let run = testing::run(1, |job| {
        let times = times(job).key_by(|_| ());
        let join = times.interval_join(&times, before(millis(1)), after(millis(1)));
        join.full_outer_join().write("out", Collect);
    });
    let pairs = run.unwrap().committed::<((), (Option<i64>, Option<i64>))>("out");
    let clamped = TIMES.map(|at| at.clamp(-FARTHEST, FARTHEST));
    let near = |at: &i64| clamped.iter().filter(|other| at.abs_diff(**other) <= 1).count();
    assert_eq!(pairs.len(), clamped.iter().map(near).sum::<usize>());
}

/// Tells of a window that has no end when time is at its end.
struct InTheEnd;

impl WindowTrigger<i64> for InTheEnd {
    fn record(&self, _: &i64, cx: &mut TriggerContext<'_>) -> Fire {
        cx.event_timer(Timestamp::MAX);
        Fire::No
    }
}

#[test]
fn a_trigger_may_wait_for_the_end_of_time() {
    let run = testing::run(1, |job| {
        let all = times(job).window_all(Global).trigger(InTheEnd).count();
        all.map(|window| window.value).write("out", Collect);
    });
    assert_eq!(run.unwrap().committed::<u64>("out"), [TIMES.len() as u64]);
}

/// At the end of all sources the clock's timers that are due emit at the end of time.
struct Later {
    later: Timers,
}

impl Process for Later {
    type Key = ();
    type In = i64;
    type Out = i64;

    fn declare(states: &mut States<Self>) -> Self {
        Later { later: states.clock_timers("later") }
    }

    fn record(&mut self, at: i64, cx: &mut Context<Self>) -> Result<(), BoxError> {
        self.later.set(cx, at);
        Ok(())
    }

    fn timer(&mut self, _: Timers, at: Timestamp, cx: &mut Context<Self>) -> Result<(), BoxError> {
        cx.emit(at.as_ms());
        Ok(())
    }
}

#[test]
fn what_a_timer_emits_at_the_end_of_time_is_in_windows() {
    let run = testing::run(1, |job| {
        let times = job.read("in", vec![1i64, 2, 3]);
        let times = times.event_time(|at| *at, Watermark::monotonous());
        let later = times.key_by(|_| ()).process(Later::declare).main();
        later.window_all(Sliding::of(millis(10), millis(5))).count().write("out", Collect);
    });
    let told = run.unwrap().committed::<WindowResult<(), u64>>("out");
    assert_eq!(told.iter().map(|window| window.value).sum::<u64>(), 6);
}
