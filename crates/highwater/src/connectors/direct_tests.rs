use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use highwater_runtime::connector::Sink;

use super::super::testing::{Place, cut, nap};
use super::super::{IntoSink, foreach};
use super::*;

/// What a function was given, and whether it takes anything.
#[derive(Clone, Default)]
struct Seen {
    rows: Arc<Mutex<Vec<u64>>>,
    refuses: Arc<AtomicBool>,
}

impl Seen {
    fn sink(&self) -> Arc<dyn Sink> {
        let Seen { rows, refuses } = self.clone();
        let function = move |new: &[u64]| {
            if refuses.load(Ordering::SeqCst) {
                return Err("not today".into());
            }
            rows.lock().unwrap().extend(new);
            Ok(())
        };
        foreach(function).into_sink()
    }

    fn rows(&self) -> Vec<u64> {
        self.rows.lock().unwrap().clone()
    }
}

#[test]
fn rows_arrive_before_any_checkpoint() {
    let (place, seen) = (Place::new(), Seen::default());
    let mut writer = seen.sink().writer(place.writer(1, 0)).unwrap();
    writer.write(Batch::new(vec![1_u64, 2])).unwrap();
    while seen.rows() != [1, 2] {
        nap(place.env.as_ref());
    }
    assert!(writer.staged().unwrap().is_none(), "nothing was cut");
    writer.write(Batch::new(vec![3_u64])).unwrap();
    assert_eq!(cut(writer.as_mut(), 1, place.env.as_ref()), []);
    assert_eq!(seen.rows(), [1, 2, 3]);
    assert_eq!(writer.queued_bytes(), 0);
}

#[test]
fn a_cut_waits_until_the_destination_has_accepted_all_before_it() {
    let (place, seen) = (Place::new(), Seen::default());
    let mut writer = seen.sink().writer(place.writer(1, 0)).unwrap();
    seen.refuses.store(true, Ordering::SeqCst);
    for row in 0..1000_u64 {
        writer.write(Batch::new(vec![row])).unwrap();
    }
    writer.cut(1).unwrap();
    for _ in 0..100 {
        assert!(writer.staged().unwrap().is_none());
        nap(place.env.as_ref());
    }
    assert_eq!(writer.queued_bytes(), 8000);
    assert!(seen.rows().is_empty());
    seen.refuses.store(false, Ordering::SeqCst);
    while writer.staged().unwrap().is_none() {
        nap(place.env.as_ref());
    }
    assert_eq!(seen.rows(), (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_panic_and_a_lasting_error_are_told() {
    let place = Place::new();
    let sink = foreach(|rows: &[u64]| match rows[0] {
        1 => Err(Lasting("the table is gone".to_owned()).into()),
        _ => panic!("a bug"),
    });
    let sink = sink.into_sink();
    for (row, expected) in [(1_u64, "the table is gone"), (2, "deliver-rows"), (3, "panicked")] {
        let mut writer = sink.writer(place.writer(1, 0)).unwrap();
        writer.write(Batch::new(vec![row])).unwrap();
        let error = loop {
            match writer.staged() {
                Ok(None) => nap(place.env.as_ref()),
                Ok(Some(items)) => panic!("staged {items:?}"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains(expected), "{error}");
        assert!(writer.write(Batch::new(vec![row])).is_err());
    }
}

/// A task that nobody waits for any more ends.
#[test]
fn a_delivery_ends_with_its_writer() {
    let (place, seen) = (Place::new(), Seen::default());
    seen.refuses.store(true, Ordering::SeqCst);
    let mut writer = seen.sink().writer(place.writer(1, 0)).unwrap();
    writer.write(Batch::new(vec![1_u64])).unwrap();
    nap(place.env.as_ref());
    drop(writer);
    while Arc::strong_count(&seen.rows) > 1 {
        nap(place.env.as_ref());
    }
}
