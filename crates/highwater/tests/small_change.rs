//! A checkpoint costs what has changed since the last one, not what there is.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::connectors::Discard;
use highwater::testing::{Script, Test};
use support::{Fate, Ruled, lock, memory};

const KEYS: u64 = 5_000_000;

/// What one changed key may cost, with the manifest and the entry in the log.
const SMALL: usize = 100_000;

#[test]
fn one_changed_key_of_five_millions_makes_a_small_checkpoint() {
    // What was put, with its size.
    let puts: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let seen = puts.clone();
    let store = Ruled::over(&memory(), move |what, name, bytes| {
        if what == "put" {
            lock(&seen).push((name.to_owned(), bytes.len()));
        }
        Fate::Done
    });
    let script = Script::new().records(0..KEYS).checkpoint().record(KEYS / 2).checkpoint();
    // Only those checkpoints that the script asks for.
    let hour = Duration::from_secs(3_600);
    let test = Test::new(2).settings(|settings| settings.checkpoint_interval = Some(hour));
    let run = test.store(store).run(|job| {
        job.read("keys", script)
            .key_by(|key| *key)
            .count()
            .uid("counts")
            .write("nowhere", Discard::new());
    });
    assert_eq!(run.unwrap().outcome().records_in, KEYS + 1);

    // Every checkpoint ends with its entry; the first entry is that of the attempt.
    let mut checkpoints = vec![0];
    for (name, bytes) in &*lock(&puts) {
        *checkpoints.last_mut().unwrap() += *bytes;
        if name.starts_with("log/") {
            checkpoints.push(0);
        }
    }
    eprintln!("bytes of the attempt and of each checkpoint: {checkpoints:?}");
    let [_, whole, one_key, ..] = checkpoints[..] else { panic!("{checkpoints:?}") };
    assert!(whole as u64 > KEYS * 4, "{whole} bytes are too few for all keys");
    assert!(one_key < SMALL, "one changed key took {one_key} bytes");
}
