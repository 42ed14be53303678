//! What is wrong with a job is said before anything runs: all that is wrong with its graph, with its places in the job's code.

use std::sync::Arc;

use highwater::Job;
use highwater::connectors::{
    Collect, Discard, Files, IntoSource, Stdout, at_least_once, foreach_batch,
};
use highwater::testing::{Script, Test};
use highwater_runtime::BoxError;
use highwater_runtime::connector::{Reader, ReaderContext, Source, SplitOffset};

/// What a job is refused with. Its source would crash it, so a job that ran anyway would not get through.
fn refusal<R>(test: Test, job: impl FnOnce(&Job) -> R) -> String {
    test.run(job).expect_err("the graph is wrong").to_string()
}

fn input() -> Script<u64> {
    Script::new().record(1)
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    let text = refusal(Test::new(1), |job| {
        let numbers = job.read("in", input());
        numbers.map(|n| n + 1).uid("next").write("out", Collect);
        numbers.key_by(|n| *n).count().uid("in");
        numbers.key_by(|n| *n).count().uid("no good");
    });
    assert!(text.contains("`map` has no state, so it takes no uid"), "{text}");
    assert!(text.contains("the uid `in` is taken by the `source`"), "{text}");
    assert!(text.contains("the uid \"no good\" can't be used"), "{text}");
    assert_eq!(text.matches("graph_errors.rs:").count(), 4, "{text}");
}

#[test]
fn a_job_that_writes_nothing_is_refused() {
    let text = refusal(Test::new(1), |job| {
        job.read("in", input()).map(|n| n + 1);
    });
    assert!(text.contains("the job writes nothing"), "{text}");
}

#[test]
fn a_sink_that_cannot_deliver_rows_as_they_come_is_refused_with_its_place() {
    let text = refusal(Test::new(1), |job| {
        let numbers = job.read("in", input());
        numbers.write("soon", at_least_once(Stdout::new()));
        numbers.write("files", at_least_once(Files::ndjson("out")));
        numbers.write("batches", at_least_once(foreach_batch(|_, _: Vec<u64>| Ok(()))));
        numbers.write("seen", at_least_once(Collect));
    });
    assert!(text.contains("a file appears whole"), "{text}");
    assert!(text.contains("use `foreach`"), "{text}");
    assert!(text.contains("only by the checkpoint"), "{text}");
    assert_eq!(text.matches("graph_errors.rs:").count(), 3, "{text}");
}

#[test]
fn exactly_once_needs_checkpoints() {
    let off = || Test::new(1).settings(|settings| settings.checkpoint_interval = None);
    let text = refusal(off(), |job| job.read("in", input()).write("out", Collect));
    assert!(text.contains("`out` promises exactly once, which needs checkpoints"), "{text}");
    // A sink that doesn't promise it is fine.
    off().run(|job| job.read("in", input()).write("out", Discard::new())).unwrap();
}

/// What is to be read is looked for before anything is made where output is to go.
#[test]
fn a_missing_input_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = refusal(Test::new(1), |job| {
        let lines = job.read::<String>("in", Files::text(path("missing.txt")));
        lines.write("out", Files::text(path("out")));
    });
    assert!(text.contains("missing.txt") && text.contains("`in`"), "{text}");
    assert!(!path("out").exists());
}

/// A source whose splits can be found and can't be read.
struct Shut;

impl IntoSource<u64> for Shut {
    fn into_source(self) -> Arc<dyn Source> {
        Arc::new(self)
    }
}

impl Source for Shut {
    fn splits(&self, _: &[(String, SplitOffset)]) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        Ok(vec![("all".to_owned(), SplitOffset::default())])
    }

    fn reader(&self, _: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        Err("the door is shut".into())
    }
}

/// The dataflow is half built by then, which must not hide the reason.
#[test]
fn a_reader_that_cannot_be_made_says_why() {
    for workers in [1, 2] {
        let text = refusal(Test::new(workers), |job| job.read("in", Shut).write("out", Collect));
        assert!(text.contains("source `in`") && text.contains("the door is shut"), "{text}");
    }
}
