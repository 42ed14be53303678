//! A job that is started again after its code has changed: what still fits the checkpoint goes on, what doesn't is refused by name.

mod support;

use std::marker::PhantomData;

use highwater::testing::{Collect, Run};
use highwater::{BoxError, Context, Data, Job, Key, List, Process, States, Stream, Value};
use highwater_log::Store;
use serde::{Deserialize, Serialize};
use support::*;

const LAST: &str = "last";

/// Adds up the numbers of a key in the state `last`, and emits the sums.
struct Sums<K, V>(Value<V>, PhantomData<fn(K)>);

/// What a value of the state can be.
trait Sum: Data + From<u64> {
    fn get(&self) -> u64;
}

impl<K: Key, V: Sum> Process for Sums<K, V> {
    type Key = K;
    type In = u64;
    type Out = u64;

    fn declare(states: &mut States<Self>) -> Self {
        Sums(states.value(LAST), PhantomData)
    }

    fn record(&mut self, number: u64, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let sum = number + self.0.get_ref(cx).map_or(0, Sum::get);
        self.0.set(cx, V::from(sum));
        cx.emit(sum);
        Ok(())
    }
}

impl Sum for u64 {
    fn get(&self) -> u64 {
        *self
    }
}

/// A key or a value: as it was at first, with a field more, and with one that has no default.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct V1 {
    number: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct V2 {
    #[serde(default)]
    label: String,
    number: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct V3 {
    number: u64,
    necessary: String,
}

macro_rules! sums {
    ($($type:ident { $($field:ident),* }),*) => {$(
        impl From<u64> for $type {
            fn from(number: u64) -> Self {
                $type { number, $($field: String::new()),* }
            }
        }
        impl Sum for $type {
            fn get(&self) -> u64 {
                self.number
            }
        }
    )*};
}

sums!(V1 {}, V2 { label }, V3 { necessary });

fn process<K: Key + From<u64>, V: Sum>(numbers: &Stream<u64>, uid: &str) -> Stream<u64> {
    let keyed = numbers.key_by(|_| K::from(7));
    keyed.process(Sums::<K, V>::declare).uid(uid).main()
}

/// Runs a job to its middle: it has added up 0 to 9.
fn half_way(store: &Store, change: impl FnOnce(&Stream<u64>) -> Stream<u64> + Send + 'static) {
    let numbers = Numbers::endless(1);
    numbers.allow(10);
    let run = start(test(2, store), job(&numbers, change));
    let committed = || checkpoints(store).values().any(|checkpoint| !checkpoint.staged.is_empty());
    wait_for("the sums are committed", committed);
    numbers.control().stop();
    run.join().unwrap().unwrap();
}

fn job(
    numbers: &Numbers,
    change: impl FnOnce(&Stream<u64>) -> Stream<u64> + Send + 'static,
) -> impl FnOnce(&Job) + Send + 'static {
    let numbers = numbers.clone();
    move |graph| change(&graph.read("in", numbers)).write("out", Collect)
}

/// What comes of a job that was started as `before` and goes on, up to the number 19, as `after`.
fn change(
    before: impl FnOnce(&Stream<u64>) -> Stream<u64> + Send + 'static,
    after: impl FnOnce(&Stream<u64>) -> Stream<u64> + Send + 'static,
) -> Result<u64, String> {
    let store = memory();
    half_way(&store, before);
    let run = test(1, &store).run(job(&Numbers::new(1, 20), after));
    let sums = |run: Run| *run.committed::<u64>("out").last().unwrap();
    run.map(sums).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_refused(came: Result<u64, String>, words: &[&str]) {
    let error = came.expect_err("the state doesn't fit");
    for word in words.iter().chain(&["--fresh"]) {
        assert!(error.contains(word), "{word}: {error}");
    }
}

const ALL: u64 = 190;

#[test]
fn an_operator_that_is_gone_is_refused() {
    let came = change(|s| process::<u64, u64>(s, "old"), |s| process::<u64, u64>(s, "new"));
    assert_refused(came, &["`old`, which this job doesn't have", "its old uid"]);
}

#[test]
fn an_operator_of_another_kind_is_refused() {
    let count = |s: &Stream<u64>| s.key_by(|n| *n).count().uid("op").map(|(_, count)| count);
    let came = change(|s| process::<u64, u64>(s, "op"), count);
    assert_refused(came, &["`op` is a process, in this job it is a count"]);
}

/// Has the states that a test says, and no other.
struct Other<S>(PhantomData<fn(S)>);

/// Declares states.
trait Declare: 'static {
    fn declare<P: Process>(states: &mut States<P>);
}

impl<S: Declare> Process for Other<S> {
    type Key = u64;
    type In = u64;
    type Out = u64;

    fn declare(states: &mut States<Self>) -> Self {
        S::declare(states);
        Other(PhantomData)
    }

    fn record(&mut self, _: u64, _: &mut Context<Self>) -> Result<(), BoxError> {
        Ok(())
    }
}

fn other<S: Declare>(numbers: &Stream<u64>) -> Stream<u64> {
    numbers.key_by(|_| 7).process(Other::<S>::declare).uid("sums").main()
}

#[test]
fn a_state_that_is_gone_is_refused() {
    struct Renamed;
    impl Declare for Renamed {
        fn declare<P: Process>(states: &mut States<P>) {
            let _: Value<u64> = states.value("latest");
        }
    }
    let came = change(|s| process::<u64, u64>(s, "sums"), other::<Renamed>);
    assert_refused(came, &["`last` (value) of the process `sums`", "declare it again"]);
}

#[test]
fn a_state_of_another_kind_is_refused() {
    struct AsList;
    impl Declare for AsList {
        fn declare<P: Process>(states: &mut States<P>) {
            let _: List<u64> = states.list(LAST);
        }
    }
    let came = change(|s| process::<u64, u64>(s, "sums"), other::<AsList>);
    assert_refused(came, &["`last` of the process `sums` is a value, in this job it is a list"]);
}

#[test]
fn values_evolve_by_the_names_of_their_fields() {
    let came = change(|s| process::<u64, V1>(s, "sums"), |s| process::<u64, V2>(s, "sums"));
    assert_eq!(came, Ok(ALL));
    let came = change(|s| process::<u64, V2>(s, "sums"), |s| process::<u64, V1>(s, "sums"));
    assert_eq!(came, Ok(ALL));
}

#[test]
fn values_that_cannot_be_read_are_refused() {
    let came = change(|s| process::<u64, V1>(s, "sums"), |s| process::<u64, V3>(s, "sums"));
    assert_refused(came, &["process `sums`: state `last`", "`necessary`", "#[serde(default)]"]);
    let came = change(|s| process::<u64, V1>(s, "sums"), |s| process::<u64, u64>(s, "sums"));
    assert_refused(came, &["process `sums`: state `last`", "`value`"]);
}

/// A key with a field more is another key, though it can be read: its sums would be looked for elsewhere.
#[test]
fn keys_that_have_become_others_are_refused() {
    let came = change(|s| process::<V1, u64>(s, "sums"), |s| process::<V2, u64>(s, "sums"));
    assert_refused(came, &["process `sums`: state `last`", "the type of the keys has changed"]);
    // One that is the same after all. And a uid and a state may have the same name.
    let came = change(|s| process::<u64, u64>(s, LAST), |s| process::<u128, u64>(s, LAST));
    assert_eq!(came, Ok(ALL));
}
