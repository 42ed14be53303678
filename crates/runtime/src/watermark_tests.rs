//! The watermark of made-up splits, epoch by epoch.

use std::sync::Arc;

use highwater_env::RealEnv;
use highwater_state::Slice;
use highwater_state::object::{self, Object};
use proptest::prelude::*;

use super::*;
use crate::alignment::{Alignment, Hold};

struct Rig {
    of: Of,
    stragglers: Stragglers,
    watermarks: Watermarks,
    alignment: Alignment,
    epoch: u32,
    interval: u32,
    clock_ms: u64,
    /// Splits that are held.
    held: BTreeSet<String>,
    /// What checkpoints have written.
    objects: Vec<Object>,
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

fn alignment(stragglers: &Stragglers) -> Alignment {
    let within = stragglers.align.as_ref().map(|align| align.within);
    Alignment::new(&[within.unwrap_or_default()])
}

impl Rig {
    fn new(of: Of, idle_after_ms: Option<u64>) -> Self {
        let idle_after = idle_after_ms.map(Duration::from_millis);
        Rig::with(of, Stragglers { idle_after, align: None })
    }

    fn with(of: Of, stragglers: Stragglers) -> Self {
        let mut watermarks = Watermarks::new(&context(), of.clone(), stragglers.clone());
        watermarks.tables().into_iter().for_each(|table| table.begin(1, true));
        Rig {
            of,
            alignment: alignment(&stragglers),
            stragglers,
            watermarks,
            epoch: 0,
            interval: 1,
            clock_ms: 1_000,
            held: BTreeSet::new(),
            objects: Vec::new(),
        }
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
        let (mut out, mut holds) = (Outputs::default(), Outputs::default());
        self.watermarks.complete(&end, &mut out).unwrap();
        let (told, aligned): (Vec<_>, Vec<_>) =
            out.batches.into_iter().partition(|(port, _)| *port == 0);
        for (_, batch) in aligned {
            self.alignment.receive(0, epoch, batch, &mut holds).unwrap();
        }
        for (_, batch) in holds.batches {
            for Hold { split, is_held } in batch.take::<Vec<Hold>>().unwrap() {
                let changed = match is_held {
                    true => self.held.insert(split),
                    false => self.held.remove(&split),
                };
                assert!(changed, "only changes are told");
            }
        }
        let told = told.into_iter().flat_map(|(_, batch)| batch.take::<Vec<Told>>().unwrap());
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
        let name = format!("object-{}", self.interval);
        let object = Object::open(&name, object::write(&sections).concat().into()).unwrap();
        self.objects.push(object);
        let image = Image::new(self.objects.clone());
        self.held.clear();
        self.alignment = alignment(&self.stragglers);
        self.watermarks = Watermarks::new(&context(), self.of.clone(), self.stragglers.clone());
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
fn a_split_ends_behind_its_rows_whichever_is_heard_of_first() {
    let mut rig = Rig::new(Of::Splits { sources: 1 }, None);
    rig.epoch(10, &[(1, "a", BEGINS), (1, "b", BEGINS), (0, "b", reached(9))]);
    assert_eq!(rig.epoch(10, &[(1, "a", News::Ends), (0, "a", reached(5))]), [reached(9)]);
}

/// A rig of splits that are aligned.
fn aligned(within_ms: u64) -> Rig {
    let align = Some(Align { within: Duration::from_millis(within_ms), group: None });
    let idle_after = Some(Duration::from_millis(100));
    Rig::with(Of::Splits { sources: 1 }, Stragglers { idle_after, align })
}

#[test]
fn splits_far_ahead_are_held_until_the_last_one_has_caught_up() {
    let mut rig = aligned(10);
    let held = |rig: &Rig| rig.held.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    rig.epoch(0, &[(1, "a", BEGINS), (1, "b", BEGINS), (1, "c", BEGINS), (0, "a", reached(50))]);
    assert_eq!(held(&rig), "", "those of which nothing was read don't count");
    rig.epoch(0, &[(0, "b", reached(40))]);
    assert_eq!(held(&rig), "");
    rig.epoch(0, &[(0, "b", reached(40)), (0, "c", reached(30))]);
    assert_eq!(held(&rig), "a");
    rig.epoch(0, &[(0, "c", reached(40))]);
    assert_eq!(held(&rig), "");
    rig.epoch(0, &[(0, "a", reached(60)), (0, "b", reached(80))]);
    assert_eq!(held(&rig), "a b");
    rig.epoch(0, &[(1, "c", News::Ends)]);
    assert_eq!(held(&rig), "b", "one at its end isn't waited for");
    rig.epoch(0, &[(1, "a", News::Rests)]);
    assert_eq!(held(&rig), "", "nor is one of which nothing more comes now");
    rig.epoch(0, &[(0, "d", reached(20))]);
    assert_eq!(held(&rig), "b");
    rig.epoch(50, &[(1, "b", News::Waits)]);
    rig.epoch(50, &[(1, "b", News::Waits)]);
    assert_eq!(held(&rig), "", "d is idle");
    rig.epoch(0, &[(0, "d", reached(21))]);
    assert_eq!(held(&rig), "b");
    rig.restart();
    rig.epoch(0, &[(1, "b", BEGINS), (1, "d", BEGINS), (0, "b", reached(80))]);
    assert_eq!(held(&rig), "", "d may wait behind b for its reader now");
    rig.epoch(0, &[(0, "d", reached(21))]);
    assert_eq!(held(&rig), "b");
}

proptest! {
    /// Readers with some splits each, which they read one after the other: none of them ever waits for good, and none gets ahead of the last one by more
    /// than is allowed and what it reads at once.
    #[test]
    fn whoever_is_held_goes_on(
        readers in proptest::collection::vec(proptest::collection::vec((0i64..500, 1i64..40), 1..4), 1..4),
        within in 0i64..60,
        turns in proptest::collection::vec((0usize..4, 0u8..40), 400),
    ) {
        const STEP: i64 = 10;
        let mut rig = aligned(within as u64);
        let workers = readers.len();
        // Which split, where it is, where it ends.
        let splits = readers.into_iter().flatten().zip(b'a'..);
        let mut splits: Vec<(String, i64, i64)> = splits
            .map(|((from, steps), id)| (char::from(id).to_string(), from, from + steps * STEP))
            .collect();
        let mut spoken = BTreeSet::new();
        // In the end everybody has a turn again and again.
        let later = (0..20_000).map(|turn| (turn, 1));
        for (turn, chance) in turns.into_iter().chain(later) {
            if chance == 0 {
                // Readers have other splits now, each of which goes on where it was.
                rig.restart();
                spoken.clear();
                splits.rotate_left(1);
            }
            let mine = splits.iter_mut().skip(turn % workers).step_by(workers);
            let Some((id, at, end)) = mine.into_iter().find(|(_, at, end)| at < end) else { continue };
            if rig.held.contains(id) {
                continue;
            }
            *at += STEP;
            let (id, at, is_over) = (id.clone(), *at, at == end);
            rig.epoch(0, &[(0, &id, reached(at))]);
            if is_over {
                spoken.remove(&id);
                rig.epoch(0, &[(1, &id, News::Ends)]);
                continue;
            }
            spoken.insert(id.clone());
            let last = splits.iter().filter(|(id, ..)| spoken.contains(id)).map(|(_, at, _)| *at).min();
            prop_assert_eq!(rig.held.contains(&id), Some(at) > last.map(|last| last + within));
        }
        prop_assert!(splits.iter().all(|(_, at, end)| at == end), "{:?}", splits);
    }
}

/// That a split is there may be told in a later epoch than the first.
#[test]
fn nobody_was_silent_while_nothing_ran() {
    let mut rig = Rig::new(Of::Splits { sources: 1 }, Some(100));
    rig.epoch(
        10,
        &[(1, "a", BEGINS), (1, "b", BEGINS), (0, "a", reached(5)), (0, "b", reached(50))],
    );
    assert_eq!(rig.restart(), Some(5));
    assert_eq!(rig.epoch(10, &[(0, "b", reached(60))]), []);
    assert_eq!(rig.epoch(10, &[(1, "a", BEGINS), (0, "b", reached(61))]), []);
    assert_eq!(rig.epoch(100, &[(0, "b", reached(70))]), [reached(70)], "now it is");
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

/// A sequence of steps that Apache Spark publishes (EventTimeWatermarkSuite, Apache-2.0): two inputs, whose watermarks are 10 and 5 seconds behind.
#[test]
fn two_inputs_as_published() {
    let mut rig = Rig::new(Of::Watermarks(2), None);
    let (mut highest, mut now) = ([None; 2], 0);
    let mut step = |rig: &mut Rig, first: &[i64], second: &[i64]| {
        let mut told = Vec::new();
        for (input, (numbers, delay)) in [(first, 10), (second, 5)].into_iter().enumerate() {
            highest[input] = highest[input].max(numbers.iter().max().copied());
            if let Some(highest) = highest[input] {
                told.push((input, "", reached((highest - delay) * 1_000)));
            }
        }
        if let Some(News::Reached(time)) = rig.epoch(10, &told).last() {
            now = *time;
        }
        now
    };
    let steps: [(&[i64], &[i64], i64); 15] = [
        (&[11], &[], 0),
        (&[], &[6], 1_000),
        (&[], &[8], 1_000),
        (&[21], &[], 3_000),
        (&[], &[17, 28, 39], 11_000),
        (&[31], &[], 21_000),
        (&[41], &[], 31_000),
        (&[51], &[], 34_000),
        (&[100], &[100], 90_000),
        (&[120], &[110], 105_000),
        (&[130], &[125], 120_000),
        (&[100], &[100], 120_000),
        (&[140], &[100], 120_000),
        (&[100], &[135], 130_000),
        (&[200], &[190], 185_000),
    ];
    for (first, second, expected) in steps {
        assert_eq!(step(&mut rig, first, second), expected, "{first:?} and {second:?}");
    }
    assert_eq!(rig.restart(), Some(185_000));
    // Spark has forgotten how far the first one had come, and is here with the next step only.
    assert_eq!(step(&mut rig, &[], &[200]), 190_000);
    assert_eq!(step(&mut rig, &[200], &[]), 190_000);
}
