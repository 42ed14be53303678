//! Plans: what is refused, and where it says it is; and the operators without state.

use highwater_codec::hash_key;
use highwater_runtime::PlanError;

use crate::api::key_by::Dealer;
use crate::api::test_support::{context, plan, run_stateless};
use crate::api::{BoxError, Context, Data, Process, Side, States, Stream, Value};

/// What is wrong with a plan, apart from its having no sink; and the lines.
fn errors<T: Data, O>(build: impl FnOnce(Stream<T>) -> O) -> Vec<PlanError> {
    let mut errors = plan(build).check(true).unwrap_err();
    errors.retain(|error| !error.what.contains("writes nothing"));
    errors
}

#[test]
fn a_uid_is_refused_where_there_is_no_state() {
    let line = line!() + 1;
    let errors = errors(|s: Stream<u64>| s.map(|x| x + 1).uid("plus"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].at, format!("{}:{line}", file!()));
    assert!(errors[0].what.contains("`map` has no state"), "{}", errors[0].what);
}

#[test]
fn errors_carry_the_line_of_the_user() {
    let line = line!() + 3;
    let errors = errors(|s: Stream<u64>| {
        let first = s.key_by(|x| *x).count().uid("a");
        let second = s.key_by(|x| *x).count().uid("a");
        (first, second)
    });
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].at, format!("{}:{line}", file!()));
    let first = format!("the `count` at {}:{}", file!(), line - 1);
    assert!(errors[0].what.ends_with(&first), "{}", errors[0].what);
}

#[test]
fn every_keyed_operator_takes_a_uid() {
    let errors = errors(|s: Stream<(u64, u64)>| {
        let keyed = s.keyed();
        keyed.count().uid("count");
        keyed.sum(|v| v).every_record().uid("sum");
        keyed.map_with_state(|_, v, _: &mut crate::api::StateHandle<u64>| Some(v)).uid("map");
        keyed.update_state_by_key(|_, _, s: Option<u64>| s).uid("update");
        keyed.process(TwoOfAName::of_one).uid("process");
        s.distinct().uid("distinct");
    });
    assert!(errors.is_empty(), "{errors:?}");
}

struct TwoOfAName {
    _first: Value<u64>,
}

impl TwoOfAName {
    fn of_one(states: &mut States<Self>) -> Self {
        TwoOfAName { _first: states.value("one") }
    }
}

impl Process for TwoOfAName {
    type Key = u64;
    type In = u64;
    type Out = u64;

    fn declare(states: &mut States<Self>) -> Self {
        let _: crate::api::List<u8> = states.list("same");
        TwoOfAName { _first: states.value("same") }
    }

    fn record(&mut self, _: u64, _: &mut Context<Self>) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn states_of_one_name_are_refused() {
    let line = line!() + 1;
    let errors = errors(|s: Stream<(u64, u64)>| s.keyed().process(TwoOfAName::declare));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].at, format!("{}:{line}", file!()));
    assert!(errors[0].what.contains("2 states with the name `same`"), "{}", errors[0].what);
}

#[test]
fn streams_of_two_jobs_are_not_joined() {
    let mut other = None;
    plan(|stream: Stream<u64>| other = Some(stream));
    let errors = errors(|stream: Stream<u64>| stream.union(&other.unwrap()));
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn stateless_operators() {
    let [out] = run_stateless(vec![1_u64, 2, 3, 4], |s| {
        [s.filter(|x| x % 2 == 0).filter_map(|x| (x > 2).then_some(x)).inspect(|_| ()).rebalance()]
    });
    assert_eq!(out, [4]);
    let [even, odd] = run_stateless(vec![1_u64, 2, 3, 4], |s| {
        let (even, odd) = s.split(|x| x % 2 == 0);
        [even, odd.map(|x| x * 10)]
    });
    assert_eq!((even, odd), (vec![2, 4], vec![10, 30]));
    let [texts, numbers] = run_stateless(vec![1_u64, 2, 3], |s| {
        let (texts, numbers) = s.split_map(|x| match x {
            2 => Side::Main("two".to_owned()),
            x => Side::Side(x),
        });
        [texts, numbers.map(|x| x.to_string())]
    });
    assert_eq!(texts, ["two"]);
    assert_eq!(numbers, ["1", "3"]);
    let [parsed] = run_stateless(vec!["1".to_owned()], |s| [s.try_map(|x| x.parse::<u8>())]);
    assert_eq!(parsed, [1]);
}

#[test]
#[should_panic(expected = "InvalidDigit")]
fn an_error_of_try_map_ends_the_attempt() {
    run_stateless(vec!["x".to_owned()], |s| [s.try_map(|x| x.parse::<u8>())]);
}

#[test]
fn every_row_goes_to_the_owner_of_its_key_in_order() {
    for workers in 1..6 {
        let context = context(0, workers);
        let rows = (0..1000_u32).map(|n| (n % 50, n));
        let times = (0..1000).collect();
        let parts = Dealer::new(&context).deal(rows, times).unwrap();
        assert_eq!(parts.len(), workers);
        assert_eq!(parts.iter().map(|(part, _)| part.rows.len()).sum::<usize>(), 1000);
        for (worker, (part, times)) in parts.iter().enumerate() {
            assert!(part.rows.iter().map(|(_, n)| i64::from(*n)).eq(times.iter().copied()));
            for (hash, (key, _)) in part.hashes.iter().zip(&part.rows) {
                assert_eq!(*hash, hash_key(key).unwrap());
                let group = context.key_groups.of(*hash);
                assert_eq!(context.owners[group as usize] as usize, worker);
            }
            assert!(part.rows.is_sorted_by_key(|(_, n)| *n));
        }
    }
}
