//! The watermark of made-up splits, epoch by epoch.

use std::sync::Arc;

use highwater_env::RealEnv;
use highwater_state::Slice;
use highwater_state::object::{self, Object};

use super::*;

struct Rig {
    of: Of,
    idle_after: Option<Duration>,
    watermarks: Watermarks,
    epoch: u32,
    interval: u32,
    clock_ms: u64,
}

fn context() -> OperatorContext {
    let key_groups = KeyGroups::default();
    OperatorContext {
        uid: "time".to_owned(),
        worker: 0,
        workers: 1,
        key_groups,
        groups: key_groups.range(0, 1),
        owners: key_groups.owners(1).into(),
        env: Arc::new(RealEnv::new().unwrap()),
    }
}

impl Rig {
    fn new(of: Of, idle_after_ms: Option<u64>) -> Self {
        let idle_after = idle_after_ms.map(Duration::from_millis);
        let mut watermarks = Watermarks::new(&context(), of.clone(), idle_after);
        watermarks.tables().into_iter().for_each(|table| table.begin(1, true));
        Rig { of, idle_after, watermarks, epoch: 0, interval: 1, clock_ms: 1_000 }
    }

    /// An epoch in which this is told at these inputs, `ms` after the one before. Answers what it tells.
    fn epoch(&mut self, ms: u64, told: &[(usize, &str, News)]) -> Vec<News> {
        self.complete(ms, told, false)
    }

    fn complete(&mut self, ms: u64, told: &[(usize, &str, News)], finished: bool) -> Vec<News> {
        self.clock_ms += ms;
        let epoch = Epoch::new(self.interval, self.epoch);
        self.epoch += 1;
        for (port, split, news) in told {
            let told = Told { split: (*split).to_owned(), news: *news };
            let batch = One::of(&context()).tell(vec![told]);
            self.watermarks.receive(*port, epoch, batch, &mut Outputs::default()).unwrap();
        }
        let end = EpochEnd {
            epoch,
            clock_ms: self.clock_ms,
            clock_before_ms: self.clock_ms,
            watermark: None,
            late_below: None,
            trigger: 0,
            trigger_ends: false,
            finished,
        };
        let mut out = Outputs::default();
        self.watermarks.complete(&end, &mut out).unwrap();
        let told =
            out.batches.into_iter().flat_map(|(_, batch)| batch.take::<Vec<Told>>().unwrap());
        told.map(|told| told.news).collect()
    }

    /// A checkpoint, an hour of nothing, and another attempt; answers the watermark with which it begins.
    fn restart(&mut self) -> Option<i64> {
        let mut sections = Vec::new();
        for table in self.watermarks.tables() {
            table.freeze(self.interval + 1, None);
            let done = loop {
                if let Slice::Done(done) = table.encode(100).unwrap() {
                    break done;
                }
            };
            sections.extend(done.into_iter().map(|section| ("time".to_owned(), section)));
        }
        self.interval += 1;
        self.epoch = 0;
        self.clock_ms += 3_600_000;
        let object = Object::open("object", object::write(&sections).concat().into()).unwrap();
        let image = Image::new(vec![object]);
        self.watermarks = Watermarks::new(&context(), self.of.clone(), self.idle_after);
        for table in self.watermarks.tables() {
            table.restore("time", &image).unwrap();
            table.begin(self.interval, true);
        }
        self.watermarks.restored();
        read("time", &image, KeyGroups::default()).unwrap()
    }
}

const BEGINS: News = News::Begins;

fn reached(time: i64) -> News {
    News::Reached(time)
}

#[test]
fn the_least_of_all_splits_counts_and_is_told_when_it_changes() {
    let mut rig = Rig::new(Of::Splits { sources: 1 }, None);
    assert_eq!(rig.epoch(10, &[(1, "a", BEGINS), (1, "b", BEGINS)]), []);
    assert_eq!(rig.epoch(10, &[(0, "a", reached(7)), (0, "a", reached(5))]), [], "b is waited for");
    assert_eq!(rig.epoch(10, &[(0, "b", reached(3))]), [reached(3)]);
    assert_eq!(rig.epoch(10, &[(0, "a", reached(8))]), []);
    assert_eq!(rig.epoch(10, &[(0, "b", reached(30))]), [reached(8)]);
    // One that is found later is waited for, and doesn't lower it.
    assert_eq!(rig.epoch(10, &[(1, "c", BEGINS), (0, "a", reached(40))]), []);
    assert_eq!(rig.epoch(10, &[(0, "c", reached(2))]), []);
    assert_eq!(rig.epoch(10, &[(0, "c", reached(20))]), [reached(20)]);
    assert_eq!(rig.epoch(10, &[(1, "c", News::Ends)]), [reached(30)]);
    assert_eq!(rig.epoch(10, &[(1, "b", News::Ends)]), [reached(40)]);
    assert_eq!(rig.epoch(10, &[(1, "s", News::SourceEnds { worker: 0 })]), [reached(END_OF_TIME)]);
    assert_eq!(rig.complete(10, &[], true), []);
}

#[test]
fn silent_splits_are_idle_until_they_speak() {
    let mut rig = Rig::new(Of::Splits { sources: 1 }, Some(100));
    rig.epoch(0, &[(1, "a", BEGINS), (1, "never", BEGINS)]);
    assert_eq!(rig.epoch(60, &[(0, "a", reached(5))]), []);
    assert_eq!(rig.epoch(40, &[]), [reached(5)], "100 ms without a word");
    assert_eq!(rig.epoch(50, &[(0, "a", reached(6))]), [reached(6)]);
    assert_eq!(rig.epoch(0, &[(0, "never", reached(1))]), []);
    assert_eq!(rig.epoch(0, &[(0, "a", reached(9))]), [], "it counts again");
    // Who can't be read isn't silent.
    let waits = [(1, "a", News::Waits), (1, "never", News::Waits)];
    assert_eq!(rig.epoch(90, &waits), []);
    assert_eq!(rig.epoch(90, &[]), []);
    assert_eq!(rig.epoch(10, &[]), [reached(9), News::Idle], "there's nobody left to wait for");
    assert_eq!(rig.epoch(10, &[(0, "a", reached(8))]), [reached(9)]);
}

#[test]
fn everything_is_state() {
    let mut rig = Rig::new(Of::Splits { sources: 1 }, Some(100));
    rig.epoch(0, &[(1, "a", BEGINS), (1, "b", BEGINS), (1, "c", BEGINS)]);
    rig.epoch(99, &[(0, "a", reached(5)), (0, "b", reached(7))]);
    assert_eq!(rig.epoch(1, &[]), [reached(5)], "c is idle");
    assert_eq!(rig.restart(), Some(5));
    let again = [(1, "a", BEGINS), (1, "b", BEGINS), (1, "c", BEGINS)];
    assert_eq!(
        rig.epoch(0, &again),
        [],
        "c still is, and the hour between the attempts was no silence"
    );
    assert_eq!(rig.epoch(50, &[(0, "a", reached(6))]), [reached(6)]);
    assert_eq!(rig.epoch(60, &[(0, "a", reached(9))]), [reached(9)], "now b is, too");
}

#[test]
fn what_was_idle_before_a_restart_and_speaks_with_it_counts_again() {
    let mut rig = Rig::new(Of::Splits { sources: 1 }, Some(100));
    rig.epoch(0, &[(1, "a", BEGINS), (0, "a", reached(5))]);
    assert_eq!(rig.epoch(100, &[]), [News::Idle]);
    rig.restart();
    // What it brings is below the watermark; those who listen learn that it is waited for.
    assert_eq!(rig.epoch(0, &[(1, "a", BEGINS), (0, "a", reached(3))]), [reached(5)]);
}

#[test]
fn rows_without_splits_are_waited_for_from_the_start_on() {
    let mut rig = Rig::new(Of::Rows, None);
    assert_eq!(rig.epoch(10, &[]), []);
    assert_eq!(rig.epoch(10, &[(0, "", reached(5))]), [reached(5)]);
    assert_eq!(rig.complete(10, &[], true), [reached(END_OF_TIME)]);
}

#[test]
fn a_watermark_of_watermarks_never_falls() {
    let mut rig = Rig::new(Of::Watermarks(2), None);
    assert_eq!(rig.epoch(10, &[(1, "", reached(100))]), []);
    assert_eq!(rig.epoch(10, &[(0, "", reached(5))]), [reached(5)]);
    assert_eq!(rig.epoch(10, &[(0, "", News::Idle)]), [reached(100)]);
    assert_eq!(rig.restart(), Some(100));
    assert_eq!(rig.epoch(10, &[(0, "", reached(6))]), []);
    assert_eq!(rig.epoch(10, &[(1, "", reached(200))]), []);
    assert_eq!(rig.epoch(10, &[(0, "", reached(150))]), [reached(150)]);
    assert_eq!(rig.epoch(10, &[(0, "", reached(END_OF_TIME))]), [reached(200)]);
}
