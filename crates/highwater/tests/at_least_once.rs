//! Rows delivered as they come: none is lost, whatever the destination does, with checkpoints and without; those behind the last
//! checkpoint may come again after a crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::BoxError;
use highwater::connectors::{Foreach, foreach, foreach_batch};
use highwater::testing::{Script, Test};

/// What a destination was given: how often each row.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<u64, usize>>>);

impl Seen {
    /// A destination that refuses so many calls before it takes anything.
    fn sink(
        &self,
        mut refusals: usize,
    ) -> Foreach<u64, impl FnMut(&[u64]) -> Result<(), BoxError> + Send + 'static> {
        let seen = self.0.clone();
        foreach(move |rows: &[u64]| {
            if refusals > 0 {
                refusals -= 1;
                return Err("the destination is away".into());
            }
            let mut seen = seen.lock().unwrap();
            rows.iter().for_each(|row| *seen.entry(*row).or_default() += 1);
            Ok(())
        })
    }

    fn counts(&self) -> BTreeMap<u64, usize> {
        self.0.lock().unwrap().clone()
    }
}

/// Only what is asked for is a checkpoint.
fn rarely(workers: usize) -> Test {
    Test::new(workers)
        .settings(|settings| settings.checkpoint_interval = Some(Duration::from_secs(3600)))
}

#[test]
fn a_checkpoint_waits_until_the_destination_has_accepted_its_rows() {
    let seen = Seen::default();
    let script =
        Script::new().records(0..100).checkpoint().records(100..200).crash().records(200..300);
    let run = rarely(2).then(1).run(|job| {
        job.read("in", script).rebalance().write("out", seen.sink(3));
    });
    assert_eq!(run.unwrap().attempts(), 2);
    let counts = seen.counts();
    assert!(counts.keys().copied().eq(0..300), "{counts:?}");
    // What the checkpoint covers doesn't come again.
    assert!((0..100).chain(200..300).all(|row| counts[&row] == 1), "{counts:?}");
}

#[test]
fn without_checkpoints_the_job_waits_for_its_destination_at_the_end() {
    let seen = Seen::default();
    let off = rarely(2).settings(|settings| settings.checkpoint_interval = None);
    let run = off.run(|job| {
        job.read("in", Script::new().records(0..100)).rebalance().write("out", seen.sink(2));
    });
    run.unwrap();
    let counts = seen.counts();
    assert!(counts.keys().copied().eq(0..100) && counts.values().all(|count| *count == 1));
}

/// What was staged under exactly once is delivered by the sink that the job has been changed to.
#[test]
fn a_sink_may_be_changed_to_deliver_as_rows_come() {
    let down = foreach_batch(|_, _: Vec<u64>| Err("down".into()));
    let store = highwater_log::Store::open("memory:").unwrap();
    let test = || rarely(1).store(store.clone());
    let rows = || Script::new().records(0..10).checkpoint().crash().records(10..20);
    let error = test().run(|job| {
        let numbers = job.read("in", rows());
        numbers.write("out", down);
        // The second attempt ends here.
        let bad = numbers.try_map(|n| if n < 10 { Ok(n) } else { Err("no good") });
        bad.write("bad", Seen::default().sink(0));
    });
    assert!(error.unwrap_err().to_string().contains("no good"));
    let (first, second) = (Seen::default(), Seen::default());
    let run = test().run(|job| {
        let numbers = job.read("in", rows());
        numbers.write("out", first.sink(1));
        numbers.write("bad", second.sink(0));
    });
    run.unwrap();
    assert!(first.counts().keys().copied().eq(0..20), "{:?}", first.counts());
    assert!(second.counts().keys().copied().eq(10..20), "{:?}", second.counts());
}
