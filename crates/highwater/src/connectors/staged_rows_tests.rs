use std::time::Duration;

use super::super::testing::{Place, cut, nap};
use super::super::{Collect, Discard, IntoSink, Stdout, collect, foreach_batch};
use super::*;

type Row = (u64, String);
type Delivered = (u64, Vec<Row>);

fn rows(numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(|number| (number, format!("row {number}"))).collect()
}

#[test]
fn rows_come_back_in_order_and_the_same_again() {
    let place = Place::new();
    let seen: Arc<Mutex<Vec<Delivered>>> = Arc::default();
    let sink = {
        let seen = seen.clone();
        foreach_batch(move |checkpoint, rows: Vec<Row>| {
            seen.lock().unwrap().push((checkpoint, rows));
            Ok(())
        })
        .into_sink()
    };
    assert_eq!(sink.delivery(), Delivery::ExactlyOnce);
    let mut writer = sink.writer(place.writer(1, 0)).unwrap();
    // More than one object.
    let many = 2 * ROWS as u64 + 10;
    for begin in (0..many).step_by(1000) {
        writer.write(Batch::new(rows(begin..many.min(begin + 1000)))).unwrap();
    }
    let mut items = cut(writer.as_mut(), 4, place.env.as_ref());
    assert!(items.len() >= 2);
    assert_eq!(items.iter().map(|item| item.rows).sum::<u64>(), many);
    assert_eq!(writer.queued_bytes(), 0);
    assert_eq!(cut(writer.as_mut(), 5, place.env.as_ref()), []);
    writer.write(Batch::new(rows(0..3))).unwrap();
    let mut more = cut(writer.as_mut(), 6, place.env.as_ref());
    let names: std::collections::BTreeSet<&str> =
        items.iter().chain(&more).map(|item| item.name.as_str()).collect();
    assert_eq!(names.len(), items.len() + 1);
    for name in names {
        assert!(
            matches!(names::parse(name), Some(names::Name::Staged { attempt: 1, .. })),
            "{name}"
        );
    }

    for attempt in [1, 2] {
        let publisher = sink.publisher(place.publisher("job", attempt)).unwrap();
        place.wait(publisher.prepare()).unwrap();
        publisher.plan(&mut items, 0, false);
        publisher.plan(&mut more, 0, false);
        place.wait(publisher.publish(7, items.clone())).unwrap();
        place.wait(publisher.publish(8, more.clone())).unwrap();
        place.wait(publisher.publish(9, Vec::new())).unwrap();
    }
    let expected = [(7, rows(0..many)), (8, rows(0..3))];
    assert!(*seen.lock().unwrap() == [&expected[..], &expected[..]].concat());
}

#[test]
fn a_damaged_object_is_an_error() {
    let place = Place::new();
    let sink = IntoSink::<u64>::into_sink(Collect);
    let mut writer = sink.writer(place.writer(1, 0)).unwrap();
    writer.write(Batch::new(vec![1_u64, 2])).unwrap();
    let mut items = cut(writer.as_mut(), 1, place.env.as_ref());
    items[0].checksum = "0".repeat(16);
    let publisher = sink.publisher(place.publisher("damaged", 1)).unwrap();
    let error = place.wait(publisher.publish(1, items.clone())).unwrap_err().to_string();
    assert!(error.contains(&items[0].name), "{error}");
    assert!(collect::rows::<u64>("test", "damaged", "out").is_empty());
}

#[test]
fn an_error_or_panic_of_the_function_is_told() {
    let place = Place::new();
    let sink = foreach_batch(|_, rows: Vec<u64>| match rows[0] {
        1 => Err("not today".into()),
        _ => panic!("a bug"),
    });
    let sink = sink.into_sink();
    let mut writer = sink.writer(place.writer(1, 0)).unwrap();
    let publisher = sink.publisher(place.publisher("job", 1)).unwrap();
    for (interval, expected) in [(1, "not today"), (2, "deliver-rows"), (3, "panicked")] {
        writer.write(Batch::new(vec![u64::from(interval)])).unwrap();
        let items = cut(writer.as_mut(), interval, place.env.as_ref());
        let error = place.wait(publisher.publish(1, items)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn collected_rows_are_by_checkpoint() {
    let place = Place::new();
    let sink = IntoSink::<u64>::into_sink(Collect);
    let mut context = place.publisher("collected", 1);
    let publisher = sink.publisher(context.clone()).unwrap();
    let mut writer = sink.writer(place.writer(1, 0)).unwrap();
    for (checkpoint, row) in [(9, 3_u64), (8, 1), (8, 2)] {
        writer.write(Batch::new(vec![row, row * 10])).unwrap();
        let items = cut(writer.as_mut(), checkpoint, place.env.as_ref());
        place.wait(publisher.publish(u64::from(checkpoint), items)).unwrap();
    }
    assert_eq!(collect::rows::<u64>("test", "collected", "out"), [2, 20, 3, 30]);
    place.wait(publisher.prepare()).unwrap();
    assert_eq!(
        collect::take::<u64>("test", "collected", "out"),
        [(8, vec![2, 20]), (9, vec![3, 30])].into()
    );
    assert!(collect::rows::<u64>("test", "collected", "out").is_empty());

    writer.write(Batch::new(vec![1_u64])).unwrap();
    let items = cut(writer.as_mut(), 10, place.env.as_ref());
    place.wait(publisher.publish(1, items)).unwrap();
    context.starts_over = true;
    place.wait(sink.publisher(context).unwrap().prepare()).unwrap();
    assert!(collect::rows::<u64>("test", "collected", "out").is_empty());
}

#[test]
fn without_checkpoints_rows_go_at_once_or_not_at_all() {
    let place = Place::new();
    let mut context = place.writer(0, 0);
    context.direct = true;
    let mut writer = IntoSink::<Row>::into_sink(Stdout::new()).writer(context.clone()).unwrap();
    writer.write(Batch::new(rows(0..2))).unwrap();
    assert_eq!(cut(writer.as_mut(), 1, place.env.as_ref()), []);
    let mut writer = IntoSink::<Row>::into_sink(Collect).writer(context.clone()).unwrap();
    writer.write(Batch::new(rows(0..2))).unwrap();
    // Whoever is asked first says so.
    let error = match writer.cut(1) {
        Err(error) => error.to_string(),
        Ok(()) => loop {
            match writer.staged() {
                Ok(items) => assert!(items.is_none()),
                Err(error) => break error.to_string(),
            }
            nap(place.env.as_ref());
        },
    };
    assert!(error.contains("needs checkpoints"), "{error}");
    let count = Arc::default();
    let sink = IntoSink::<Row>::into_sink(Discard::counting(Arc::clone(&count)));
    let mut writer = sink.writer(context).unwrap();
    writer.write(Batch::new(rows(0..2))).unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 2);
    assert_eq!(cut(writer.as_mut(), 1, place.env.as_ref()), []);
}

#[test]
fn what_gathers_is_bounded_by_its_bytes() {
    let place = Place::new();
    let sink = IntoSink::<String>::into_sink(Collect);
    let mut writer = sink.writer(place.writer(1, 0)).unwrap();
    let row = "x".repeat(BYTES / 10);
    for written in 1..=25 {
        writer.write(Batch::new(vec![row.clone()])).unwrap();
        // Every tenth makes an object, which may be stored before anybody looks.
        assert!(written % 10 == 0 || writer.queued_bytes() >= row.len());
    }
    // The rest is too little for an object, and counts all the same.
    let rest = loop {
        match writer.queued_bytes() {
            queued if queued < BYTES => break queued,
            _ => nap(place.env.as_ref()),
        }
    };
    assert!(rest >= 4 * row.len(), "{rest}");
    assert_eq!(cut(writer.as_mut(), 1, place.env.as_ref()).len(), 3);
    assert_eq!(writer.queued_bytes(), 0);
}

/// A store that is away for a while delays the answer, and is no error.
#[test]
fn staging_waits_for_a_store_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut place = Place::new();
    // A store whose folder is a file can't be written.
    let root = folder.path().join("store");
    std::fs::create_dir(&root).unwrap();
    let store = highwater_log::Store::open(root.to_str().unwrap()).unwrap();
    let retry = highwater_log::Retry {
        tries: 2,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(1),
    };
    let log = Log::new(store, "job".into(), place.env.clone(), "test").with_retry(retry);
    place.log = Arc::new(log);
    std::fs::write(root.join("job"), "in the way").unwrap();
    let sink = IntoSink::<u64>::into_sink(Collect);
    let mut writer = sink.writer(place.writer(1, 0)).unwrap();
    writer.write(Batch::new(vec![1_u64, 2])).unwrap();
    writer.cut(1).unwrap();
    for _ in 0..100 {
        assert!(writer.staged().unwrap().is_none());
        nap(place.env.as_ref());
    }
    assert!(writer.queued_bytes() > 0);
    std::fs::remove_file(root.join("job")).unwrap();
    let items = loop {
        if let Some(items) = writer.staged().unwrap() {
            break items;
        }
        nap(place.env.as_ref());
    };
    assert_eq!(items[0].rows, 2);
}
