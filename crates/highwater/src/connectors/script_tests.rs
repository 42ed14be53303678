use std::cell::RefCell;
use std::rc::Rc;

use super::*;

/// What an attempt was asked for, and the interval that it says is committed.
#[derive(Clone, Default)]
struct Asked(Rc<RefCell<(Vec<&'static str>, u32)>>);

impl Marks for Asked {
    fn crash(&self) {
        self.0.borrow_mut().0.push("crash");
    }

    fn request_checkpoint(&self) {
        self.0.borrow_mut().0.push("checkpoint");
    }

    fn committed_interval(&self) -> u32 {
        self.0.borrow().1
    }
}

fn source(script: Script<u64>) -> ScriptSource<u64> {
    ScriptSource { steps: Mutex::new(script.steps), crashed: Arc::default() }
}

fn begin() -> Option<SplitOffset> {
    Some(SplitOffset::default())
}

/// A poll in words.
fn poll(reader: &mut ScriptReader<u64, Asked>, interval: u32) -> String {
    match reader.poll(Epoch::new(interval, 0)).unwrap() {
        Polled::Rows(batch, _) => format!("{:?}", batch.take::<Vec<u64>>().unwrap()),
        other => format!("{other:?}"),
    }
}

#[test]
fn marks_do_what_they_say() {
    let asked = Asked::default();
    let script = Script::new().records([1, 2]).epoch().record(3).checkpoint().crash().record(4);
    let source = source(script);
    let mut reader = source.read(begin(), 4096, asked.clone());
    assert_eq!(poll(&mut reader, 5), "[1, 2]");
    assert_eq!(reader.offsets()[0].1, SplitOffset { position: 2, records: 2, ended: false });
    assert_eq!(reader.offsets(), []);
    assert_eq!(poll(&mut reader, 5), "EpochOver");
    assert_eq!(poll(&mut reader, 6), "[3]");
    for committed in [0, 5, 5] {
        asked.0.borrow_mut().1 = committed;
        assert_eq!(poll(&mut reader, 7), "Waiting");
    }
    assert_eq!(asked.0.borrow().0, ["checkpoint"]);
    let (_, offset) = reader.offsets().remove(0);
    assert_eq!(offset, SplitOffset { position: 4, records: 3, ended: false });
    asked.0.borrow_mut().1 = 6;
    assert_eq!(poll(&mut reader, 7), "Waiting");
    assert_eq!(asked.0.borrow().0, ["checkpoint", "crash"]);

    // The next attempt begins at the mark that was waited at: everything before it is committed.
    let asked = Asked::default();
    let mut reader = source.read(Some(offset), 4096, asked.clone());
    assert_eq!(poll(&mut reader, 7), "[4]");
    assert_eq!(poll(&mut reader, 7), "Ended");
    assert!(asked.0.borrow().0.is_empty());
    assert_eq!(reader.offsets()[0].1, SplitOffset { position: 7, records: 4, ended: true });
}

#[test]
fn another_worker_has_nothing_to_read() {
    let mut reader = source(Script::new().record(1)).read(None, 4096, Asked::default());
    assert_eq!(poll(&mut reader, 1), "Ended");
    assert_eq!(reader.offsets(), []);
}

#[test]
fn a_vector_is_a_source() {
    let source = vec![1_u64].into_source();
    assert_eq!(source.splits(&[]).unwrap(), ["script"]);
    let mut reader =
        self::source(Script::new().records(0..10_000)).read(begin(), 4096, Asked::default());
    let mut rows = 0;
    while let Polled::Rows(batch, bytes) = reader.poll(Epoch::new(1, 0)).unwrap() {
        assert!(batch.len() <= 4096 && bytes == batch.len() * 8);
        rows += batch.len();
    }
    assert_eq!(rows, 10_000);
}
