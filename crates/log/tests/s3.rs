//! The log on real servers that speak S3, started by the tests on loopback: the one promise that everything hangs on, races, large
//! objects, wrong credentials, a server that is killed and started again.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use common::{Fault, Request, body, commit, run, whole};
use futures::future::join_all;
use highwater_env::{Env, RealEnv};
use highwater_log::{AppendError, Base, Log, LogError, ObjectRef, PutPayload, Store, names};
use highwater_test_servers::S3;
use object_store::Error;
use object_store::path::Path;

/// Starts so many attempts at once, and again.
const STARTERS: usize = 6;
const ROUNDS: usize = 3;

fn store(server: &S3, place: &str) -> Store {
    Store::open_with(&format!("s3://bucket/{place}"), server.variables()).unwrap()
}

fn log(store: &Store, env: &Arc<dyn Env>) -> Log {
    Log::new(store.clone(), Path::default(), env.clone(), "flights")
}

fn env() -> Arc<dyn Env> {
    Arc::new(RealEnv::new().unwrap())
}

#[test]
fn moto() {
    let server = S3::moto();
    all_but_restarts(&server);
    // The other one makes it.
    a_bucket_that_is_not_there_is_told(&server);
    a_store_that_ignores_conditions_is_refused(&server);
}

#[test]
fn seaweed() {
    let mut server = S3::seaweed();
    all_but_restarts(&server);
    wrong_credentials_are_told(&server);
    outlives_its_server(&mut server);
}

fn all_but_restarts(server: &S3) {
    one_starter_wins(server);
    a_history_is_kept(server);
    large_objects_are_whole(server);
    names_are_given_once(server);
}

/// Attempts that start at once get numbers of their own, and only the last of them goes on.
fn one_starter_wins(server: &S3) {
    for round in 0..ROUNDS {
        let store = store(server, &format!("race/{round}"));
        let env = env();
        run(async move {
            let logs: Vec<Log> = (0..STARTERS).map(|_| log(&store, &env)).collect();
            let started = join_all(logs.iter().map(|log| log.start(1, false))).await;
            let mut attempts: BTreeMap<u64, &Log> = BTreeMap::new();
            for (started, log) in started.into_iter().zip(&logs) {
                attempts.insert(started.unwrap().attempt, log);
            }
            // Every one has a number, and no number is there twice.
            assert_eq!(attempts.len(), STARTERS, "{attempts:?}");
            let newest = *attempts.keys().next_back().unwrap();
            for (attempt, log) in &attempts {
                let name = names::manifest(*attempt, 1);
                let entry = log.next_entry(body(None, ObjectRef::new(&name, b"")));
                let appended = log.append(&entry).await;
                match appended {
                    Ok(committed) => {
                        assert_eq!((*attempt, committed.number()), (newest, newest + 1))
                    }
                    Err(AppendError::Fenced { .. }) => assert_ne!(*attempt, newest),
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
}

/// What was committed is what a later attempt finds, without what was collected.
fn a_history_is_kept(server: &S3) {
    let (store, env) = (store(server, "history"), env());
    run(async move {
        let first = log(&store, &env);
        let attempt = first.start(2, false).await.unwrap().attempt;
        let one = commit(&first, attempt, None, |_| {}).await.unwrap().number();
        let two = commit(&first, attempt, Some(one), |_| {}).await.unwrap().number();
        let garbage = vec![names::entry(one), names::object(attempt, 1, 0)];
        assert_eq!(first.delete(&garbage).await.unwrap(), Vec::<String>::new());
        let second = log(&store, &env);
        let started = second.start(2, false).await.unwrap();
        assert_eq!(
            started.facts.entries.keys().copied().collect::<Vec<_>>(),
            [attempt, two, two + 1]
        );
        assert_eq!(started.base(&whole(), true), Base::Checkpoint(two));
        let (holdings, damages) = second.holdings(&started.facts).await.unwrap();
        assert_eq!((holdings.len(), damages), (1, Vec::new()));
        // Sent once more, it is known again; other bytes aren't.
        let name = names::object(attempt, 9, 0);
        let object = second.put_object(&name, "same".into()).await.unwrap();
        assert_eq!(second.put_object(&name, "same".into()).await.unwrap(), object);
        let other = second.put_object(&name, "other".into()).await.unwrap_err();
        assert!(
            matches!(&other, LogError::Conflict { path } if path.starts_with("s3://bucket/history/data/")),
            "{other}"
        );
        let left = second.leftovers(started.attempt, &Default::default()).await.unwrap();
        assert!(left.contains(&name), "{left:?}");
    });
}

/// In several parts, and none of them twice.
fn large_objects_are_whole(server: &S3) {
    let (store, env) = (store(server, "large"), env());
    run(async move {
        let log = log(&store, &env);
        log.start(1, false).await.unwrap();
        for (interval, lengths) in [(1, vec![33 << 20, 5, 3 << 20]), (2, vec![1; 3]), (3, vec![0])]
        {
            let piece = |length: &usize| (0..*length).map(|i| ((i * 7) >> 3) as u8).collect();
            let pieces = lengths.iter().map(piece).map(Bytes::from_owner::<Vec<u8>>);
            let content: PutPayload = pieces.collect();
            let name = names::object(0, interval, 0);
            let object = log.put_object(&name, content.clone()).await.unwrap();
            assert_eq!(log.get_object(&object).await.unwrap(), Bytes::from(content.clone()));
            assert_eq!(log.put_object(&name, content).await.unwrap(), object);
            let longer = PutPayload::from(vec![1; object.bytes as usize + 1]);
            let error = log.put_object(&name, longer).await.unwrap_err();
            assert!(matches!(error, LogError::Conflict { .. }), "{error}");
        }
    });
}

/// A copy of an object, small or large, takes only a name that is free, and needs an object.
fn names_are_given_once(server: &S3) {
    let store = store(server, "copies");
    run(async move {
        for (round, bytes) in [5, 40 << 20].into_iter().enumerate() {
            let path = |name: &str| Path::from(format!("{round}/{name}"));
            let content =
                Bytes::from((0..bytes).map(|at: u64| ((at * 7) >> 3) as u8).collect::<Vec<_>>());
            let pieces = || {
                let begins = (0..bytes).step_by(3 << 20);
                let piece = |at| content.slice(at as usize..bytes.min(at + (3 << 20)) as usize);
                begins.map(piece).map(Ok).collect::<Vec<_>>().into_iter()
            };
            store.put_new_from(&path("a"), bytes, pieces()).await.unwrap();
            let again = store.put_new_from(&path("a"), bytes, pieces()).await;
            assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
            store.copy_new(&path("a"), &path("b")).await.unwrap();
            assert_eq!(store.get_whole(&path("b")).await.unwrap().unwrap(), content);
            store.put_new(&path("c"), "c".into()).await.unwrap();
            let taken = store.copy_new(&path("c"), &path("b")).await;
            assert!(matches!(taken, Err(Error::AlreadyExists { .. })), "{taken:?}");
            let missing = store.copy_new(&path("d"), &path("e")).await;
            assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
            assert_eq!(store.get_whole(&path("b")).await.unwrap().unwrap(), content);
            let broken = [Ok(content.clone()), Err(std::io::Error::other("unreadable"))];
            let broken = store.put_new_from(&path("f"), bytes, broken.into_iter()).await;
            assert!(broken.unwrap_err().to_string().contains("unreadable"));
            assert_eq!(store.get_whole(&path("f")).await.unwrap(), None);
        }
    });
}

fn a_bucket_that_is_not_there_is_told(server: &S3) {
    let missing = Store::open_with("s3://no-such-bucket/x", server.variables()).unwrap();
    let (log, server) = (log(&missing, &env()), server.variables());
    run(async move {
        let error = log.start(1, false).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, LogError::Location { .. }), "{text} ({server:?})");
        assert!(text.contains("s3://no-such-bucket/x/probe"), "{text}");
    });
}

/// Many servers speak S3 but for the one header.
fn a_store_that_ignores_conditions_is_refused(server: &S3) {
    let store = store(server, "ignorant");
    let faulty = common::Faulty::over(&store);
    // Twice if it is there already, once more if it isn't.
    (0..2).for_each(|_| faulty.next(Request::Put, names::PROBE, Fault::Overwrites));
    let (ignorant, env) = (store.clone().wrap(|_| faulty), env());
    run(async move {
        let error = log(&ignorant, &env).start(1, false).await.unwrap_err();
        assert!(matches!(error, LogError::NotExclusive { .. }), "{error}");
        assert!(error.to_string().contains("If-None-Match"), "{error}");
        // Nothing was begun, and a store that heeds them is taken.
        assert_eq!(log(&store, &env).start(1, false).await.unwrap().attempt, 0);
    });
}

fn wrong_credentials_are_told(server: &S3) {
    let mut variables = server.variables();
    variables.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "wrong".to_owned()));
    let log = log(&Store::open_with("s3://bucket/x", variables).unwrap(), &env());
    run(async move {
        let error = log.start(1, false).await.unwrap_err();
        assert!(matches!(error, LogError::Location { .. }), "{error}");
    });
}

/// Whatever was answered is there after the server was killed and started again.
fn outlives_its_server(server: &mut S3) {
    let (place, env) = (store(server, "outlives"), env());
    let first = log(&place, &env);
    let two = run(async move {
        let attempt = first.start(2, false).await.unwrap().attempt;
        let one = commit(&first, attempt, None, |_| {}).await.unwrap().number();
        commit(&first, attempt, Some(one), |_| {}).await.unwrap().number()
    });
    server.kill();
    server.restart();
    let again = log(&place, &env);
    run(async move {
        let started = again.start(1, false).await.unwrap();
        assert_eq!(started.base(&whole(), true), Base::Checkpoint(two));
        let checkpoint = started.facts.checkpoint(two).unwrap();
        let manifest = again.get_manifest(&checkpoint.manifest).await.unwrap();
        for object in &manifest.objects {
            again.get_object(object).await.unwrap();
        }
    });
}
