//! Sequences of steps that Apache Spark publishes for time-outs and timers by processing time (FlatMapGroupsWithStateSuite and TransformWithStateSuite,
//! Apache-2.0). Each step is an epoch, with the clock that Spark's tests set.

use crate::api::test_support::{Rig, plan};
use crate::api::time::{millis, secs};
use crate::{
    BoxError, Context, Process, StateHandle, StateSpec, States, Stream, Timers, Timestamp, Value,
};

/// Key, and a count or -1.
type Told = (String, i64);

/// What happens in an epoch: keys with a record, and by how many seconds the clock goes on.
enum Step {
    Add(&'static [&'static str], u64),
    Restart,
}

use Step::{Add, Restart};

/// What every step tells, sorted.
fn told(mut rig: Rig, steps: &[Step]) -> Vec<Vec<Told>> {
    let (mut clock_ms, mut told) = (0, Vec::new());
    for step in steps {
        match step {
            Add(keys, seconds) => {
                let rows = keys.iter().map(|key| ((*key).to_owned(), 1_u64)).collect();
                let out: Vec<Told> = rig.feed(0, rows);
                assert!(out.is_empty(), "records wait for their epoch");
                clock_ms += seconds * 1_000;
                let mut out: Vec<Told> = rig.complete_at(0, clock_ms);
                out.sort();
                told.push(out);
            }
            Restart => {
                rig.checkpoint();
                rig.crash(3);
            }
        }
    }
    told
}

fn row(key: &str, count: i64) -> Told {
    (key.to_owned(), count)
}

#[test]
fn time_outs() {
    let count = |key: &String, one: Option<u64>, count: &mut StateHandle<'_, i64>| {
        if one.is_none() {
            return Some((key.clone(), -1));
        }
        let now = count.get().copied().unwrap_or_default() + 1;
        count.set(now);
        Some((key.clone(), now))
    };
    let rig = Rig::new(2, move |keyed: crate::KeyedStream<String, u64>| {
        keyed.map_with_state_spec(StateSpec::new().timeout(secs(10)), count)
    });
    let steps =
        [Add(&["a"], 1), Add(&["b"], 1), Add(&["b"], 10), Restart, Add(&["c"], 11), Add(&[], 12)];
    let expected = [
        vec![row("a", 1)],
        vec![row("b", 1)],
        vec![row("a", -1), row("b", 2)],
        vec![row("b", -1), row("c", 1)],
        vec![row("c", -1)],
    ];
    assert_eq!(told(rig, &steps), expected);
}

/// When timers are set, and what they tell.
#[derive(Clone, Copy)]
enum Rule {
    /// The first record of `a` and `c` sets one for five seconds later, which removes the state; so does the third record, without a word.
    Removes,
    /// The second record puts it off to seven and a half seconds later.
    PutsOff,
    /// The first record sets three, each of which tells the count; records tell nothing.
    Repeats,
}

struct Counter {
    rule: Rule,
    count: Value<i64>,
    /// When the present timer is due.
    due: Value<Timestamp>,
    timers: Timers,
}

impl Counter {
    fn with(states: &mut States<Self>, rule: Rule) -> Self {
        let (count, due) = (states.value("count"), states.value("due"));
        Counter { rule, count, due, timers: states.clock_timers("timers") }
    }
}

impl Process for Counter {
    type Key = String;
    type In = u64;
    type Out = Told;

    fn declare(states: &mut States<Self>) -> Self {
        Counter::with(states, Rule::Removes)
    }

    fn record(&mut self, _: u64, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let clock = cx.clock().ok_or("a function with timers knows the clock")?;
        let count = self.count.get(cx).unwrap_or_default() + 1;
        self.count.set(cx, count);
        match (self.rule, count) {
            (Rule::Repeats, 1) => {
                for later in [5, 10, 15] {
                    self.timers.set(cx, clock + secs(later));
                }
            }
            (Rule::Removes, 3) => {
                self.count.clear(cx);
                return Ok(());
            }
            (Rule::Removes | Rule::PutsOff, 1) if ["a", "c"].contains(&cx.key().as_str()) => {
                self.due.set(cx, clock + secs(5));
                self.timers.set(cx, clock + secs(5));
            }
            (Rule::PutsOff, 2) => {
                if let Some(due) = self.due.take(cx) {
                    assert!(self.timers.delete(cx, due));
                }
                self.timers.set(cx, clock + millis(7_500));
            }
            _ => {}
        }
        if !matches!(self.rule, Rule::Repeats) {
            cx.emit((cx.key().clone(), count));
        }
        Ok(())
    }

    fn timer(&mut self, _: Timers, _: Timestamp, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let told = match self.rule {
            Rule::Repeats => self.count.get(cx).unwrap_or_default(),
            _ => -1,
        };
        if told == -1 {
            self.count.clear(cx);
        }
        cx.emit((cx.key().clone(), told));
        Ok(())
    }
}

fn counter(rule: Rule) -> Rig {
    Rig::of(
        2,
        plan(move |pairs: Stream<(String, u64)>| {
            pairs.keyed().process(move |states| Counter::with(states, rule))
        }),
    )
}

#[test]
fn timers() {
    let steps = [
        Add(&["a"], 1),
        Add(&["b"], 1),
        Add(&["b"], 10),
        Restart,
        Add(&["b"], 0),
        Add(&["c"], 1),
        Add(&["d"], 10),
    ];
    let expected = [
        vec![row("a", 1)],
        vec![row("b", 1)],
        vec![row("a", -1), row("b", 2)],
        vec![],
        vec![row("c", 1)],
        vec![row("c", -1), row("d", 1)],
    ];
    assert_eq!(told(counter(Rule::Removes), &steps), expected);

    let steps = [Add(&["a"], 1), Add(&["a"], 2), Restart, Add(&["d"], 10)];
    let expected = [vec![row("a", 1)], vec![row("a", 2)], vec![row("a", -1), row("d", 1)]];
    assert_eq!(told(counter(Rule::PutsOff), &steps), expected);

    let steps = [Add(&["a"], 1), Add(&["a"], 6), Add(&["a"], 5), Restart, Add(&["a"], 5)];
    let expected = [vec![], vec![row("a", 2)], vec![row("a", 3)], vec![row("a", 4)]];
    assert_eq!(told(counter(Rule::Repeats), &steps), expected);
}
