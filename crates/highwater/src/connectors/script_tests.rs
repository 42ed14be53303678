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

/// A reader of `script` from `offset`.
fn reader(
    script: &ScriptSource<u64>,
    offset: SplitOffset,
    asked: &Asked,
) -> ScriptReader<u64, Asked> {
    let mut reader = script.read(4096, asked.clone());
    reader.add(vec![(SPLIT.to_owned(), offset)], 1).unwrap();
    reader
}

fn offset(position: u64, records: u64, ended: bool) -> SplitOffset {
    SplitOffset { position, records, ended, ..SplitOffset::default() }
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
    let mut reader = self::reader(&source, SplitOffset::default(), &asked);
    assert_eq!(poll(&mut reader, 5), "[1, 2]");
    assert_eq!(reader.offsets()[0].1, offset(2, 2, false));
    assert_eq!(reader.offsets(), []);
    assert_eq!(poll(&mut reader, 5), "EpochOver");
    assert_eq!(poll(&mut reader, 6), "[3]");
    for committed in [0, 5, 5] {
        asked.0.borrow_mut().1 = committed;
        assert_eq!(poll(&mut reader, 7), "Waiting");
    }
    assert_eq!(asked.0.borrow().0, ["checkpoint"]);
    let (_, waited) = reader.offsets().remove(0);
    assert_eq!(waited, offset(4, 3, false));
    asked.0.borrow_mut().1 = 6;
    assert_eq!(poll(&mut reader, 7), "Waiting");
    assert_eq!(asked.0.borrow().0, ["checkpoint", "crash"]);

    // The next attempt begins at the mark that was waited at: everything before it is committed.
    let asked = Asked::default();
    let mut reader = self::reader(&source, waited, &asked);
    assert_eq!(poll(&mut reader, 7), "[4]");
    assert_eq!(poll(&mut reader, 7), "Ended");
    assert!(asked.0.borrow().0.is_empty());
    assert_eq!(reader.offsets()[0].1, offset(7, 4, true));
}

#[test]
fn another_worker_has_nothing_to_read() {
    let mut reader = source(Script::new().record(1)).read(4096, Asked::default());
    reader.add(Vec::new(), 1).unwrap();
    assert_eq!(poll(&mut reader, 1), "Ended");
    assert_eq!(reader.offsets(), []);
}

#[test]
fn a_vector_is_a_source() {
    let source = vec![1_u64].into_source();
    assert_eq!(source.splits(&[]).unwrap(), [("script".to_owned(), SplitOffset::default())]);
    let script = self::source(Script::new().records(0..10_000));
    let mut reader = self::reader(&script, SplitOffset::default(), &Asked::default());
    let mut rows = 0;
    while let Polled::Rows(batch, bytes) = reader.poll(Epoch::new(1, 0)).unwrap() {
        assert!(batch.len() <= 4096 && bytes == batch.len() * 8);
        rows += batch.len();
    }
    assert_eq!(rows, 10_000);
}
