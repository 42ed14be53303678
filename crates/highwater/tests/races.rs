//! The races that the protocol answers, each forced on the whole engine.
//!
//! | race | answer |
//! | --- | --- |
//! | two starters at once | the higher attempt entry fences the lower one |
//! | an append whose answer is lost | reading back finds the own nonce |
//! | an append that isn't answered for long | it is repeated until it is; if the attempt ends before, the next one sees whether the entry is there |
//! | a zombie before its append, in its start, before it claims its destination | it is fenced, and touches nothing |
//! | output that is committed and not published, and fewer workers | the entry alone says what to publish |
//! | a destination that is down | sources pause; nothing is lost or doubled |
//! | staged output older than the checkpoints that are kept | it is carried forward |
//! | a stop | a last checkpoint; a restart goes on exactly there |
//! | sources end as an interval begins | every host ends every interval, up to the last one |

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use highwater::connectors::Files;
use highwater::testing::{Collect, Run, Script};
use highwater_log::{Store, record};
use support::*;

fn is_fenced(error: &highwater::Error) -> bool {
    matches!(error.engine(), Some(highwater_runtime::Error::Fenced(_)))
}

/// Two processes that start the same job at once: one finishes it, the other is told so, and nothing is doubled.
#[test]
fn two_starters_at_once() {
    for round in 0..8 {
        let folder = tempfile::tempdir().unwrap();
        let store = memory();
        let out = folder.path().join("out");
        // Each has a source of its own, as a process would.
        let starters =
            [0, 1].map(|_| start(test(2, &store), file_job(&Numbers::new(4, 400), &out)));
        let ended = starters.map(|starter| starter.join().unwrap());
        let (runs, errors): (Vec<_>, Vec<_>) = ended.into_iter().partition(Result::is_ok);
        let runs: Vec<Run> = runs.into_iter().map(Result::unwrap).collect();
        let errors: Vec<_> = errors.into_iter().map(Result::unwrap_err).collect();
        assert!(errors.iter().all(is_fenced), "round {round}: {errors:?}");
        // If one came too late to see the other at work, it found the job finished.
        let finished: Vec<&Run> =
            runs.iter().filter(|run| !run.outcome().already_finished).collect();
        assert_eq!(finished.len(), 1, "round {round}: {runs:?} {errors:?}");
        assert!(finished[0].outcome().finished);
        assert_eq!(rows(&out), (0..1600).collect::<Vec<_>>(), "round {round}");
        assert_eq!(counts(finished[0]), expected_counts(1600), "round {round}");
    }
}

/// An append takes effect and its answer is lost: the attempt finds its own entry, and goes on.
#[test]
fn an_append_whose_answer_is_lost() {
    // The attempt's own entry, the first checkpoint, a later one.
    for lost in [0, 1, 4] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let inner = memory();
        let (path, happened) = (format!("log/{lost:020}.json"), Arc::new(AtomicUsize::new(0)));
        let seen = happened.clone();
        let store = Ruled::over(&inner, move |what, name, _| match what {
            "put" if name == path && seen.fetch_add(1, SeqCst) == 0 => Fate::AnswerLost,
            _ => Fate::Done,
        });
        let numbers = Numbers::new(2, 4_000);
        numbers.allow(0);
        let run = start(test(2, &store), file_job(&numbers, &out));
        step_by_step(&numbers, &inner, 5);
        numbers.allow(u64::MAX);
        let run = run.join().unwrap().unwrap();
        assert_eq!(happened.load(SeqCst), 1, "entry {lost} was found when it was read back");
        assert_eq!(run.attempts(), 1);
        assert_eq!(rows(&out), numbers.all());
        assert_eq!(counts(&run), expected_counts(8_000));
    }
}

/// What is read back has another nonce: the number is somebody else's, though everything else in it is one's own.
#[test]
fn an_append_that_another_nonce_answers() {
    let folder = tempfile::tempdir().unwrap();
    let store = Ruled::over(&memory(), |what, name, bytes| {
        if what != "put" || name != "log/00000000000000000002.json" {
            return Fate::Done;
        }
        let mut entry: highwater_log::Entry = record::decode(bytes, 1).unwrap();
        entry.nonce = entry.nonce.chars().rev().collect();
        Fate::Other(record::encode(&entry).unwrap())
    });
    let numbers = Numbers::endless(2);
    let error = test(1, &store).run(file_job(&numbers, &folder.path().join("out"))).unwrap_err();
    assert!(is_fenced(&error), "{error}");
}

/// The store is away from the middle of an append on, before or after its effect. Once it is back, the attempt goes on; if it ends
/// before, a restart goes on from whatever is there.
#[test]
fn an_append_that_is_not_answered_for_long() {
    for (effect, back) in [(false, true), (true, true), (false, false), (true, false)] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let inner = memory();
        let away = Arc::new(AtomicBool::new(true));
        // A start looks for entries beyond the tail; nothing is lost of that.
        let (sent, still) = (AtomicBool::new(false), away.clone());
        let store = Ruled::over(&inner, move |what, name, _| match what {
            _ if !still.load(SeqCst) => Fate::Done,
            "put" | "get" if name != "log/00000000000000000003.json" => Fate::Done,
            "put" => {
                sent.store(true, SeqCst);
                if effect { Fate::AnswerLost } else { Fate::Lost }
            }
            _ if sent.load(SeqCst) => Fate::Lost,
            _ => Fate::Done,
        });
        let numbers = Numbers::new(2, 1_000);
        numbers.allow(500);
        let run = start(test(2, &store), file_job(&numbers, &out));
        let control = numbers.control();
        let trouble = || control.status().storage.trouble;
        wait_for("the trouble shows", || {
            trouble().is_some_and(|trouble| trouble.why.contains("could not write log/"))
        });
        wait_for("calls fail", || control.status().storage.failed_calls > 10);
        let newest = newest(&inner);
        assert_eq!(newest, if effect { 3 } else { 2 });
        let run = if back {
            away.store(false, SeqCst);
            wait_for("the trouble is over", || trouble().is_none());
            numbers.allow(u64::MAX);
            run.join().unwrap().unwrap()
        } else {
            control.crash();
            run.join().unwrap().unwrap_err();
            numbers.allow(u64::MAX);
            test(1, &inner).run(file_job(&numbers, &out)).unwrap()
        };
        assert_eq!(run.attempts(), 1);
        assert_eq!(run.outcome().recovered_from, (!back).then_some(newest));
        assert_eq!(rows(&out), numbers.all());
        assert_eq!(counts(&run), expected_counts(2_000));
    }
}

/// Lets the source go on in steps, each of which is covered by a checkpoint of its own.
fn step_by_step(numbers: &Numbers, store: &Store, steps: u64) {
    for step in 1..=steps {
        let before = newest(store);
        numbers.allow(step * 100);
        // The first of the two may have been under way.
        wait_for("a checkpoint is committed", || newest(store) > before + 1);
    }
}

/// An attempt stands still before its append, another takes over, commits and collects; then the first goes on.
#[test]
fn a_zombie_before_its_append() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let inner = memory();
    let gate = Gate::new();
    let held = gate.clone();
    let zombies_store = Ruled::over(&inner, move |what, name, _| match what {
        "put" if name == "log/00000000000000000005.json" => Fate::Held(held.clone()),
        _ => Fate::Done,
    });
    let (zombies, numbers) = (Numbers::endless(4), Numbers::new(4, 1_000));
    // The zombie stays away from the end of the numbers.
    zombies.allow(500);
    let zombie = start(test(2, &zombies_store), file_job(&zombies, &out));
    gate.wait_for_arrival();

    numbers.allow(600);
    let one_kept = |workers| test(workers, &inner).settings(|settings| settings.retained = 1);
    let successor = start(one_kept(3), file_job(&numbers, &out));
    let control = numbers.control();
    wait_for("everything that the zombie committed is collected", || {
        newest(&inner) > 12 && checkpoints(&inner).keys().all(|number| *number > 5)
    });
    control.stop();
    let stopped = successor.join().unwrap().unwrap();
    assert_eq!(stopped.outcome().recovered_from, Some(4));
    let (before, visible) = (contents(&inner), parts(&out));

    gate.open();
    let error = zombie.join().unwrap().unwrap_err();
    assert!(is_fenced(&error), "{error}");
    assert!(error.to_string().contains("00005.json"), "the error names the entry: {error}");
    assert_eq!(contents(&inner), before, "the zombie changed the store");
    assert_eq!(parts(&out), visible, "the zombie changed what is visible");

    numbers.allow(u64::MAX);
    let run = test(1, &inner).run(file_job(&numbers, &out)).unwrap();
    assert_eq!(rows(&out), numbers.all());
    assert_eq!(counts(&run), expected_counts(4_000));
}

/// An attempt that stands still while it reads its base, which a successor collects meanwhile, is told that it is
/// fenced, not that its checkpoints are damaged.
#[test]
fn a_zombie_that_recovers() {
    // While it reads the state, and while it claims what its base left to be published.
    for (held_at, nth) in [("data/", 0), ("log/", 0), ("log/", 2), ("log/", 4)] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let inner = memory();
        let (zombies, numbers) = (Numbers::new(4, 1_000), Numbers::new(4, 1_000));
        numbers.allow(200);
        let first = start(test(2, &inner), file_job(&numbers, &out));
        wait_for("there is a base", || newest(&inner) > 3);
        numbers.control().stop();
        first.join().unwrap().unwrap();

        let gate = Gate::new();
        let (held, seen) = (gate.clone(), AtomicUsize::new(0));
        let zombies_store = Ruled::over(&inner, move |what, name, _| match what {
            "get" if name.starts_with(held_at) && seen.fetch_add(1, SeqCst) == nth => {
                Fate::Held(held.clone())
            }
            _ => Fate::Done,
        });
        let zombie = start(test(1, &zombies_store), file_job(&zombies, &out));
        gate.wait_for_arrival();
        numbers.allow(u64::MAX);
        let run = test(2, &inner).settings(|settings| settings.retained = 1);
        let run = run.run(file_job(&numbers, &out)).unwrap();
        assert_eq!(counts(&run), expected_counts(4_000));
        let (before, visible) = (contents(&inner), parts(&out));
        gate.open();
        // Before it had a number, it simply comes later, and finds the job finished.
        match zombie.join().unwrap() {
            Ok(run) => {
                let log: Vec<_> = checkpoints(&inner)
                    .into_iter()
                    .map(|(n, c)| (n, c.interval, c.finished))
                    .collect();
                assert!(run.outcome().already_finished, "{held_at} {nth}: {run:?} {log:?}");
            }
            Err(error) => {
                assert_eq!(contents(&inner), before, "the zombie changed the store");
                assert!(is_fenced(&error), "{held_at} {nth}: {error}");
            }
        }
        assert_eq!(parts(&out), visible, "the zombie changed what is visible");
        assert_eq!(rows(&out), numbers.all());
    }
}

/// An attempt that stands still before it claims its destination, for which nothing was committed when it started,
/// doesn't take back what its successor published since.
#[test]
fn a_zombie_before_it_claims_its_destination() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let store = memory();
    let (zombies, numbers) = (Numbers::new(2, 500), Numbers::new(2, 500));
    let (gate, zombies_sink) = (Gate::new(), Faulty::over(files(&out)));
    zombies_sink.hold_prepare(gate.clone());
    let zombie = start(test(1, &store), faulty_job(&zombies, &zombies_sink));
    gate.wait_for_arrival();
    test(1, &store).run(file_job(&numbers, &out)).unwrap();
    assert_eq!(rows(&out), numbers.all());
    gate.open();
    let error = zombie.join().unwrap().unwrap_err();
    assert!(is_fenced(&error), "{error}");
    assert_eq!(rows(&out), numbers.all(), "the zombie took back what was published");
}

/// Three workers die between the entry and the publication; one publishes everything, in order, once.
#[test]
fn fewer_workers_publish_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let store = memory();
    let numbers = Numbers::new(6, 2_000);
    let recorded = Recorded::default();
    let (file_sink, row_sink) = (Faulty::over(files(&out)), Faulty::over(recorded.sink()));
    let sinks = [&file_sink, &row_sink];
    sinks.iter().for_each(|sink| sink.set_down(true));
    numbers.allow(0);
    let run = start(test(3, &store).then(1), {
        let (numbers, file_sink, row_sink) = (numbers.clone(), file_sink.clone(), row_sink.clone());
        move |graph| {
            job(graph, &numbers, file_sink.sink());
            graph.read("more", numbers.clone()).write("rows", row_sink.sink());
        }
    });
    let control = numbers.control();
    step_by_step(&numbers, &store, 5);
    wait_for("both destinations have refused", || sinks.iter().all(|sink| sink.refused() > 0));
    assert!(control.unpublished() >= 5, "{}", control.unpublished());
    assert!(parts(&out).is_empty() && recorded.calls().is_empty());
    control.crash();
    wait_for("the second attempt starts", || {
        entries(&store).values().filter(|e| e.started().is_some()).count() > 1
    });
    sinks.iter().for_each(|sink| sink.set_down(false));
    numbers.allow(u64::MAX);
    let run = run.join().unwrap().unwrap();
    assert_eq!(run.attempts(), 2);
    assert!(run.outcome().finished);
    assert_eq!(rows(&out), numbers.all());
    assert_eq!(recorded.once(), numbers.all());
    assert_eq!(counts(&run), expected_counts(12_000));
    for sink in sinks {
        let published = sink.published();
        let order: Vec<u64> = published.iter().map(|(checkpoint, _)| *checkpoint).collect();
        assert!(order.is_sorted(), "{order:?}");
        let items = published.iter().flat_map(|(_, items)| items).map(|item| item.name.as_str());
        let mut items: Vec<&str> = items.collect();
        let all = items.len();
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), all, "an item was published twice");
    }
    // Nothing is left to be published.
    assert!(checkpoints(&store).last_key_value().unwrap().1.staged.is_empty());
}

/// A destination is down for many checkpoints: the job goes on, then its sources pause, and once it is mended everything arrives
/// once.
#[test]
fn a_destination_that_is_down_for_long() {
    let store = memory();
    let recorded = Recorded::default();
    let sink = Faulty::over(recorded.sink());
    let numbers = Numbers::endless(3);
    sink.set_down(true);
    let test = test(2, &store).settings(|settings| {
        settings.unpublished = 5;
        settings.retained = 2;
        settings.checkpoint_interval = Some(Duration::from_millis(5));
    });
    let run = start(test, faulty_job(&numbers, &sink));
    let control = numbers.control();
    let read = || control.observed().records_in();
    wait_for("sources pause", || control.unpublished() > 5);
    // Epochs go on, and nothing is read in many of them; nor is anything committed, which would only be more to publish.
    let epochs = || control.status().leader.epochs;
    let mut since = (epochs(), read());
    wait_for("nothing is read any more", || {
        let now = (epochs(), read());
        if now.1 != since.1 {
            since = now;
        }
        now.0 > since.0 + 10
    });
    let committed = newest(&store);
    let paused_at = read();
    assert!(paused_at > 0 && recorded.calls().is_empty());
    assert!(sink.refused() > 0 && !run.is_finished());
    let (_, last) = checkpoints(&store).pop_last().unwrap();
    let carried = last.staged.iter().filter(|output| output.sink == "numbers-out").count();
    assert!(carried >= 6, "the output of {carried} checkpoints is carried");

    assert_eq!(newest(&store), committed);
    sink.set_down(false);
    wait_for("sources go on", || read() > paused_at);
    control.stop();
    let run = run.join().unwrap().unwrap();
    let all = recorded.once();
    assert_eq!(all.len() as u64, run.outcome().records_in);
    assert_eq!(
        all.len(),
        recorded.calls().iter().map(|(_, rows)| rows.len()).sum::<usize>(),
        "once"
    );
    // What arrived is what was read: each split's rows without a gap.
    for split in 0..3 {
        let rows: Vec<u64> = all.iter().copied().filter(|number| number % 3 == split).collect();
        let expected: Vec<u64> = (0..rows.len() as u64).map(|row| row * 3 + split).collect();
        assert_eq!(rows, expected);
    }
}

/// Output staged by checkpoints that are collected long since is published after a crash all the same.
#[test]
fn staged_output_survives_collection() {
    let store = memory();
    let recorded = Recorded::default();
    let sink = Faulty::over(recorded.sink());
    let numbers = Numbers::new(2, 2_000);
    sink.set_down(true);
    numbers.allow(0);
    let test = test(2, &store).then(2).settings(|settings| settings.retained = 1);
    let run = start(test, faulty_job(&numbers, &sink));
    let control = numbers.control();
    step_by_step(&numbers, &store, 6);
    let (newest_one, last) = checkpoints(&store).pop_last().unwrap();
    let of_sink = last.staged.iter().filter(|output| output.sink == "numbers-out");
    let oldest = of_sink.map(|output| output.checkpoint).min().expect("nothing is published");
    assert!(oldest + 6 < newest_one, "output of {oldest} is carried by {newest_one}");
    wait_for("the checkpoint that staged it is collected", || {
        !entries(&store).contains_key(&oldest)
    });
    control.crash();
    numbers.control_of(2);
    // The second attempt commits and collects too before anything is published.
    let before = newest(&store);
    wait_for("the second attempt commits", || newest(&store) > before + 3);
    assert!(recorded.calls().is_empty());
    sink.set_down(false);
    numbers.allow(u64::MAX);
    let run = run.join().unwrap().unwrap();
    assert_eq!(recorded.once(), numbers.all());
    assert_eq!(counts(&run), expected_counts(4_000));
    let left: Vec<String> =
        contents(&store).into_keys().filter(|name| name.starts_with("stage/")).collect();
    assert!(left.is_empty(), "published and never deleted: {left:?}");
}

/// A stop takes a last checkpoint without reading what is left; a restart goes on exactly there.
#[test]
fn a_stop_and_a_restart() {
    let store = memory();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let numbers = Numbers::endless(5);
    let mut read = 0;
    let mut ends: Vec<u64> = vec![0; 5];
    for (round, workers) in [2, 1, 3, 2].into_iter().enumerate() {
        // No checkpoint but the one that the stop takes.
        let test = test(workers, &store)
            .settings(|settings| settings.checkpoint_interval = Some(Duration::from_secs(3600)));
        let run = start(test, file_job(&numbers, &out));
        let control = numbers.control_of(round + 1);
        wait_for("rows are read", || control.observed().records_in() > 1_000);
        control.stop();
        let run = run.join().unwrap().unwrap();
        let outcome = run.outcome();
        assert!(!outcome.finished && !outcome.already_finished);
        assert_eq!(outcome.checkpoints, 1);
        let began: Vec<u64> = numbers.began().into_values().map(|offset| offset.position).collect();
        assert_eq!(began, ends, "round {round} goes on where the one before ended");

        read += outcome.records_in;
        let all = rows(&out);
        assert_eq!(
            all.len() as u64,
            read,
            "everything that was read is visible after round {round}"
        );
        for (split, end) in (0..).zip(&mut ends) {
            let rows: Vec<u64> = all.iter().copied().filter(|number| number % 5 == split).collect();
            let expected: Vec<u64> = (0..rows.len() as u64).map(|row| row * 5 + split).collect();
            assert_eq!(rows, expected);
            *end = rows.len() as u64;
        }
        let counted: u64 = counts(&run).into_values().sum();
        assert_eq!(counted, read);
    }
}

/// A stop doesn't wait for a destination that is down: what is committed is published by the next start.
#[test]
fn a_stop_while_the_destination_is_down() {
    let store = memory();
    let recorded = Recorded::default();
    let sink = Faulty::over(recorded.sink());
    let numbers = Numbers::new(2, 1_000);
    sink.set_down(true);
    numbers.allow(300);
    let stopped = start(test(2, &store), faulty_job(&numbers, &sink));
    let control = numbers.control();
    wait_for("the destination has refused", || sink.refused() > 0);
    control.stop();
    wait_for("the attempt has stopped", || stopped.is_finished());
    assert!(!stopped.join().unwrap().unwrap().outcome().finished);
    assert!(recorded.calls().is_empty());
    sink.set_down(false);
    numbers.allow(u64::MAX);
    test(1, &store).run(faulty_job(&numbers, &sink)).unwrap();
    assert_eq!(recorded.once(), numbers.all());
}

/// The sources end as an interval begins, so that the frontier passes from the one before to the end at once: the last entry says that
/// the job has finished, covers everything, and leaves nothing held back.
#[test]
fn sources_end_as_an_interval_begins() {
    for round in 0..24 {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let store = memory();
        // What comes after the mark is read in the first epochs of a new interval.
        let after = round % 3 * 50;
        let run = || {
            let test = test(1 + round % 4, &store)
                .settings(|settings| settings.checkpoint_interval = Some(Duration::from_millis(1)));
            let rows = Script::new().records(0..500).checkpoint().records(500..500 + after as u64);
            let files = Files::text(&out).roll_age(Duration::from_secs(3600));
            let run = test.run(|graph| {
                let numbers = graph.read("numbers", rows);
                let counts = numbers.clone().key_by(|number| number % CLASSES);
                counts.count().uid("count").write("counts", Collect);
                numbers.write("files", files);
            });
            run.unwrap()
        };
        assert!(run().outcome().finished);
        let all = 500 + after as u64;
        assert_eq!(rows(&out), (0..all).collect::<Vec<_>>(), "round {round}");
        let (last, checkpoint) = checkpoints(&store).pop_last().unwrap();
        assert!(
            checkpoint.finished && checkpoint.staged.is_empty(),
            "round {round}, checkpoint {last}"
        );
        let again = run();
        assert!(again.outcome().already_finished);
        assert_eq!(counts(&again), expected_counts(all), "round {round}");
    }
}
