//! The races that the protocol answers, each forced by a store that fails or waits at the right moment.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{
    Fault, Faulty, Request, TestEnv, body, commit, history, memory, open, open_faulty, run, whole,
};
use highwater_log::{AppendError, Base, Log, LogError, ObjectRef, Store, names};
use object_store::path::Path;

fn manifest() -> ObjectRef {
    ObjectRef::new("data/m", b"")
}

#[test]
fn two_starters_get_two_numbers_and_the_lower_is_fenced() {
    run(async {
        let store = memory();
        let lower = Arc::new(open(&store, 1));
        let (higher, faulty) = open_faulty(&store, 2);
        // Both have seen an empty log when the first of them writes.
        let first = lower.clone();
        faulty.next(
            Request::Put,
            &names::entry(0),
            Fault::First(Box::pin(async move {
                assert_eq!(first.start(2, false).await.unwrap().attempt, 0);
            })),
        );
        let started = higher.start(2, false).await.unwrap();
        assert_eq!((started.attempt, faulty.left()), (1, 0));
        let first = lower.next_entry(body(None, manifest()));
        let error = lower.append(&first).await.unwrap_err();
        assert!(matches!(&error, AppendError::Fenced { by, .. } if by.contains("attempt 1")));
        assert!(error.to_string().contains(&names::entry(1)), "{error}");
        assert!(matches!(lower.append(&first).await, Err(AppendError::Ended)));
        assert_eq!(commit(&higher, 1, None, |_| {}).await.unwrap().number(), 2);
        // One log, one identity, whoever was first.
        let facts = higher.read().await.unwrap();
        let ids: Vec<&str> = facts
            .all_sound()
            .filter_map(|entry| entry.started())
            .map(|started| started.job_id.as_str())
            .collect();
        assert_eq!(ids, [&started.job_id, &started.job_id]);
    });
}

#[test]
fn a_starter_overtaken_before_its_look_back_stays_fenced() {
    run(async {
        let store = memory();
        let (lower, faulty) = open_faulty(&store, 1);
        let higher = Arc::new(open(&store, 2));
        // The look back reads the entry just written.
        let second = higher.clone();
        faulty.next(
            Request::Get,
            &names::entry(0),
            Fault::First(Box::pin(async move {
                assert_eq!(second.start(2, false).await.unwrap().attempt, 1);
            })),
        );
        assert_eq!(lower.start(2, false).await.unwrap().attempt, 0);
        let error = commit(&lower, 0, None, |_| {}).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
        commit(&higher, 1, None, |_| {}).await.unwrap();
    });
}

#[test]
fn lost_answers_are_successes() {
    run(async {
        let store = memory();
        let (log, faulty) = open_faulty(&store, 1);
        faulty.next(Request::Put, &names::entry(0), Fault::Answer);
        assert_eq!(log.start(2, false).await.unwrap().attempt, 0);
        faulty.next(Request::Put, &names::entry(1), Fault::Answer);
        assert_eq!(commit(&log, 0, None, |_| {}).await.unwrap().number(), 1);
        assert_eq!(faulty.sent(&names::entry(1)).len(), 1);
        // The answer is lost, and reading back fails: sent again, it is found to be there.
        faulty.next(Request::Put, &names::entry(2), Fault::Answer);
        faulty.next(Request::Get, &names::entry(2), Fault::Before);
        assert_eq!(commit(&log, 0, Some(1), |_| {}).await.unwrap().number(), 2);
        let sent = faulty.sent(&names::entry(2));
        assert!(sent.len() == 2 && sent[0] == sent[1]);
        // An object whose answer is lost.
        faulty.next(Request::Put, "data/", Fault::Answer);
        assert_eq!(commit(&log, 0, Some(2), |_| {}).await.unwrap().number(), 3);
        assert_eq!((log.read().await.unwrap().tail(), faulty.left()), (Some(3), 0));
    });
}

#[test]
fn failures_without_effect_are_retried_with_the_same_bytes() {
    run(async {
        let (log, faulty) = open_faulty(&memory(), 1);
        for number in 0..2 {
            faulty.next(Request::Put, &names::entry(number), Fault::Before);
            faulty.next(Request::Put, &names::entry(number), Fault::Before);
        }
        history(&log, 1).await;
        for number in 0..2 {
            let sent = faulty.sent(&names::entry(number));
            assert_eq!(sent.len(), 3);
            assert!(sent.iter().all(|bytes| *bytes == sent[0]));
        }
    });
}

/// A log whose store fails, and the clock that it goes by.
fn log_and_clock(store: &Store) -> (Log, Arc<Faulty>, Arc<TestEnv>) {
    let (env, faulty) = (TestEnv::new(1), Faulty::over(store));
    let (through, root) = (faulty.clone(), Path::from("jobs/flights"));
    (Log::new(store.clone().wrap(move |_| through), root, env.clone(), "flights"), faulty, env)
}

#[test]
fn an_append_is_repeated_until_it_is_answered() {
    run(async {
        let (log, faulty, env) = log_and_clock(&memory());
        log.start(2, false).await.unwrap();
        for _ in 0..100 {
            faulty.next(Request::Put, &names::entry(1), Fault::Before);
            faulty.next(Request::Get, &names::entry(1), Fault::Before);
        }
        // Whether another attempt has taken over is asked in the end, and isn't given up either.
        for _ in 0..25 {
            faulty.next(Request::List, "log", Fault::Before);
        }
        let entry = log.next_entry(body(None, manifest()));
        assert_eq!(log.append(&entry).await.unwrap().number(), 1);
        let sent = faulty.sent(&names::entry(1));
        assert!(sent.len() == 101 && sent.iter().all(|bytes| *bytes == sent[0]));
        let slept = env.slept_ms();
        assert!((80_000..300_000).contains(&slept), "{slept}");
        assert_eq!(log.health().trouble(), None);
        // Anything else is given up after some seconds.
        for _ in 0..10 {
            faulty.next(Request::List, "", Fault::Before);
        }
        let error = log.read().await.unwrap_err();
        assert!(matches!(error, LogError::Unavailable { doing: "list", .. }), "{error}");
        let trouble = log.health().trouble().unwrap();
        assert!(trouble.why.contains("could not list jobs/flights/log"), "{trouble:?}");
        assert!(trouble.lasts >= Duration::from_secs(4), "{trouble:?}");
        log.read().await.unwrap();
        assert_eq!(log.health().trouble(), None);
    });
}

#[test]
fn an_attempt_whose_store_is_away_is_fenced_when_it_is_back() {
    run(async {
        let store = memory();
        let (log, faulty, _) = log_and_clock(&store);
        log.start(2, false).await.unwrap();
        for _ in 0..30 {
            faulty.next(Request::Put, &names::entry(1), Fault::Before);
        }
        let successor = open(&store, 2);
        faulty.next(
            Request::Put,
            &names::entry(1),
            Fault::First(Box::pin(async move {
                assert_eq!(successor.start(2, false).await.unwrap().attempt, 1);
            })),
        );
        let error = log.append(&log.next_entry(body(None, manifest()))).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
    });
}

/// A call that isn't answered in time may have its effect later: when the entry has been collected, that would bring it back.
#[test]
fn what_may_come_late_is_not_collected_before() {
    run(async {
        let store = memory();
        let (log, faulty, env) = log_and_clock(&store);
        log.start(2, false).await.unwrap();
        env.be_impatient();
        let (late, moment) = tokio::sync::oneshot::channel();
        faulty.next(Request::Put, &names::entry(1), Fault::Late(moment));
        assert_eq!(commit(&log, 0, None, |_| {}).await.unwrap().number(), 1);
        assert_eq!(commit(&log, 0, Some(1), |_| {}).await.unwrap().number(), 2);
        let garbage = [names::entry(1), names::object(0, 1, 0)];
        assert_eq!(log.delete(&garbage).await.unwrap(), garbage);
        late.send(()).unwrap();
        for task in env.spawned() {
            task.await;
        }
        assert_eq!(log.delete(&garbage).await.unwrap(), Vec::<String>::new());
        assert_eq!(faulty.sent(&names::entry(1)).len(), 2);
        let left: Vec<u64> = log.read().await.unwrap().entries.into_keys().collect();
        assert_eq!(left, [0, 2]);
    });
}

#[test]
fn an_append_that_was_dropped_has_no_known_outcome() {
    run(async {
        let (log, faulty) = open_faulty(&memory(), 1);
        log.start(2, false).await.unwrap();
        let entry = log.next_entry(body(None, manifest()));
        faulty.next(Request::Put, &names::entry(1), Fault::Hang);
        {
            let mut append = std::pin::pin!(log.append(&entry));
            assert!(futures::poll!(append.as_mut()).is_pending());
        }
        assert!(matches!(log.append(&entry).await, Err(AppendError::Ended)));
    });
}

#[test]
fn a_zombie_finds_no_free_number_after_collection() {
    run(async {
        let store = memory();
        let zombie = open(&store, 1);
        history(&zombie, 3).await;
        let log = open(&store, 2);
        let started = log.start(2, false).await.unwrap();
        assert_eq!(started.base(&whole(), true), Base::Checkpoint(3));
        let mut previous = 3;
        for _ in 0..3 {
            let garbage: Vec<String> = (0..=previous).map(names::entry).collect();
            let change = |entry: &mut highwater_log::CheckpointEntry| {
                entry.garbage = garbage.clone();
            };
            previous = commit(&log, 4, Some(previous), change).await.unwrap().number();
            // Even a list that names the attempts' entries takes only checkpoints.
            assert_eq!(log.delete(&garbage).await.unwrap(), Vec::<String>::new());
        }
        let left: Vec<u64> = log.read().await.unwrap().entries.into_keys().collect();
        assert_eq!(left, [0, 4, 7]);
        let error = commit(&zombie, 0, Some(3), |_| {}).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
    });
}

#[test]
fn a_starter_that_slept_through_a_collection_does_not_settle_in_the_hole() {
    run(async {
        let store = memory();
        let running = Arc::new(open(&store, 1));
        history(&running, 1).await;
        let (late, faulty) = open_faulty(&store, 2);
        // It has seen 1 as the tail and is about to write 2. Meanwhile 2 to 4 commit and 1 to 3 go.
        let other = running.clone();
        faulty.next(
            Request::Put,
            &names::entry(2),
            Fault::First(Box::pin(async move {
                for previous in 1..4 {
                    commit(&other, 0, Some(previous), |_| {}).await.unwrap();
                }
                let garbage = [1, 2, 3].map(names::entry);
                assert!(other.delete(&garbage).await.unwrap().is_empty());
            })),
        );
        let started = late.start(2, false).await.unwrap();
        assert_eq!((started.attempt, faulty.left()), (5, 0));
        assert_eq!(started.base(&whole(), true), Base::Checkpoint(4));
        let error = commit(&running, 0, Some(4), |_| {}).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
        assert_eq!(commit(&late, 5, Some(4), |_| {}).await.unwrap().number(), 6);
    });
}

#[test]
fn stale_and_failed_lists_are_seen_through() {
    run(async {
        let store = memory();
        history(&open(&store, 1), 3).await;
        let (log, faulty) = open_faulty(&store, 2);
        faulty.next(Request::List, "log", Fault::Before);
        // The first list that succeeds shows neither of the newest two.
        faulty.next(Request::List, &names::entry(2), Fault::Hidden);
        faulty.next(Request::List, &names::entry(3), Fault::Hidden);
        let started = log.start(2, false).await.unwrap();
        assert_eq!(started.attempt, 4);
        assert_eq!(started.base(&whole(), true), Base::Checkpoint(3));
        // The list after writing doesn't show the newest checkpoint.
        let (log, faulty) = open_faulty(&store, 3);
        let hide = faulty.clone();
        let hidden = async move {
            hide.next(Request::List, &names::entry(4), Fault::Hidden);
            hide.next(Request::List, &names::entry(3), Fault::Hidden);
        };
        faulty.next(Request::Put, &names::entry(5), Fault::First(Box::pin(hidden)));
        let started = log.start(2, false).await.unwrap();
        assert_eq!((started.attempt, faulty.left()), (5, 0));
        assert_eq!(started.base(&whole(), true), Base::Checkpoint(3));
    });
}

#[test]
fn an_append_repeated_after_its_collection_is_not_taken_for_committed() {
    run(async {
        let store = memory();
        let (log, faulty) = open_faulty(&store, 1);
        log.start(2, false).await.unwrap();
        // It arrives, but that isn't seen. Before it is sent again a successor has gone on from it, and collected it.
        faulty.next(Request::Put, &names::entry(1), Fault::Answer);
        faulty.next(Request::Get, &names::entry(1), Fault::Before);
        let successor = open(&store, 2);
        let overtake = async move {
            assert_eq!(successor.start(2, false).await.unwrap().attempt, 2);
            commit(&successor, 2, Some(1), |_| {}).await.unwrap();
            assert!(successor.delete(&[names::entry(1)]).await.unwrap().is_empty());
        };
        faulty.next(Request::Put, &names::entry(1), Fault::First(Box::pin(overtake)));
        let error = commit(&log, 0, None, |_| {}).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
        let left: Vec<u64> = log.read().await.unwrap().entries.into_keys().collect();
        // It is back, for the successor to collect once more.
        assert_eq!((left, faulty.left()), (vec![0, 1, 2, 3], 0));
    });
}

#[test]
fn an_append_that_a_successor_goes_on_from_stays() {
    run(async {
        let store = memory();
        let (log, faulty) = open_faulty(&store, 1);
        log.start(2, false).await.unwrap();
        // As above, but the successor has only started when it is sent again.
        faulty.next(Request::Put, &names::entry(1), Fault::Answer);
        faulty.next(Request::Get, &names::entry(1), Fault::Before);
        let successor = open(&store, 2);
        let overtake = async move {
            let started = successor.start(2, false).await.unwrap();
            assert_eq!(started.base(&whole(), true), Base::Checkpoint(1));
        };
        faulty.next(Request::Put, &names::entry(1), Fault::First(Box::pin(overtake)));
        let error = commit(&log, 0, None, |_| {}).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
        let left: Vec<u64> = log.read().await.unwrap().entries.into_keys().collect();
        assert_eq!((left, faulty.left()), (vec![0, 1, 2], 0));
    });
}

#[test]
fn an_append_that_was_overtaken_when_it_had_succeeded_stays() {
    run(async {
        let store = memory();
        let (log, faulty) = open_faulty(&store, 1);
        log.start(2, false).await.unwrap();
        // The first one doesn't arrive, the second does, and then a successor goes on from it.
        faulty.next(Request::Put, &names::entry(1), Fault::Before);
        let successor = open(&store, 2);
        let overtake = async move {
            let started = successor.start(2, false).await.unwrap();
            assert_eq!(started.base(&whole(), true), Base::Checkpoint(1));
        };
        faulty.next(Request::Get, &names::entry(2), Fault::First(Box::pin(overtake)));
        let error = commit(&log, 0, None, |_| {}).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
        let left: Vec<u64> = log.read().await.unwrap().entries.into_keys().collect();
        assert_eq!((left, faulty.left()), (vec![0, 1, 2], 0));
    });
}

#[test]
fn a_stale_list_does_not_hide_who_has_taken_over() {
    run(async {
        let store = memory();
        history(&open(&store, 1), 1).await;
        let successor = open(&store, 2);
        successor.start(2, false).await.unwrap();
        commit(&successor, 2, Some(1), |_| {}).await.unwrap();
        let (log, faulty) = open_faulty(&store, 3);
        faulty.next(Request::List, &names::entry(2), Fault::Hidden);
        faulty.next(Request::List, &names::entry(3), Fault::Hidden);
        let by = log.taken_over(0).await.unwrap();
        assert!(by.as_ref().is_some_and(|by| by.contains(&names::entry(3))), "{by:?}");
        assert_eq!(log.taken_over(2).await.unwrap(), None);
    });
}

#[test]
fn an_entry_collected_while_it_is_read_is_no_reason_to_fail() {
    let directory = tempfile::tempdir().unwrap();
    let store = highwater_log::Store::open(directory.path().to_str().unwrap()).unwrap();
    let mut race = Box::pin(async move {
        history(&open(&store, 1), 3).await;
        let (log, faulty) = open_faulty(&store, 2);
        let newest = directory.path().join("jobs/flights").join(names::entry(3));
        let collect = async move {
            // The others are read first.
            let mut polled = false;
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                match std::mem::replace(&mut polled, true) {
                    false => std::task::Poll::Pending,
                    true => std::task::Poll::Ready(()),
                }
            })
            .await;
            std::fs::remove_file(newest).unwrap();
        };
        faulty.next(Request::Get, &names::entry(0), Fault::First(Box::pin(collect)));
        assert_eq!(log.read().await.unwrap().tail(), Some(3));
    });
    // Without threads for files everything happens in order.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while race.as_mut().poll(&mut context).is_pending() {}
}

#[test]
fn a_local_directory_serves_several_attempts() {
    let directory = tempfile::tempdir().unwrap();
    let store = highwater_log::Store::open(directory.path().to_str().unwrap()).unwrap();
    run(async move {
        let zombie = open(&store, 1);
        history(&zombie, 2).await;
        let (log, faulty) = open_faulty(&store, 2);
        faulty.next(Request::Put, &names::entry(3), Fault::Answer);
        let started = log.start(2, false).await.unwrap();
        assert_eq!(started.attempt, 3);
        assert_eq!(started.base(&whole(), true), Base::Checkpoint(2));
        faulty.next(Request::Put, &names::entry(4), Fault::Answer);
        commit(&log, 3, Some(2), |_| {}).await.unwrap();
        assert_eq!(log.committed(4).await.unwrap().number(), 4);
        let error = commit(&zombie, 0, Some(2), |_| {}).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
        // An attempt that starts over, and the one after it.
        let over = open(&store, 3).start(2, true).await.unwrap();
        assert_eq!(over.base(&whole(), true), Base::Fresh);
        let after = open(&store, 4).start(2, false).await.unwrap();
        assert_eq!((after.attempt, after.base(&whole(), true)), (6, Base::Fresh));
        assert_eq!(after.job_id, started.job_id);
    });
}
