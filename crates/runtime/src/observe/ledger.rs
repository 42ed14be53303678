//! The checkpoints of an attempt and how far sinks are published, as process 0 notes them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::{CheckpointStatus, CheckpointsStatus, SinkStatus, UnderWay};
use super::{micros, millis};
use crate::attempt::lock;

/// So many checkpoints are remembered.
const REMEMBERED: usize = 10;

/// How long a worker took for each phase of its part, by its own clock, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerPhases {
    /// From the end of the interval until its last operator was frozen.
    pub(crate) wait_us: u64,
    /// From there until everything was encoded and staged.
    pub(crate) encode_us: u64,
    /// From there until the object was durable.
    pub(crate) upload_us: u64,
}

impl WorkerPhases {
    /// Each phase as long as in the one of the two that took longer.
    pub(crate) fn longest(self, other: Self) -> Self {
        WorkerPhases {
            wait_us: self.wait_us.max(other.wait_us),
            encode_us: self.encode_us.max(other.encode_us),
            upload_us: self.upload_us.max(other.upload_us),
        }
    }
}

/// What is noted of checkpoints and publishing.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// How often a checkpoint is taken.
    interval: Option<Duration>,
    committed: AtomicU64,
    bytes: AtomicU64,
    last_bytes: AtomicU64,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// Oldest first. There are two only at the end: the last interval may begin while the checkpoint before is under way.
    under_way: VecDeque<Begun>,
    failed: u64,
    last_failure: Option<String>,
    /// Newest last.
    remembered: VecDeque<Remembered>,
    /// For each entry with output under way, how many sinks have some.
    publishing: BTreeMap<u64, usize>,
    sinks: BTreeMap<String, SinkStatus>,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    interval: u32,
    at: Duration,
    /// When the report of the last worker was in.
    reported: Option<Duration>,
}

#[derive(Debug)]
struct Remembered {
    status: CheckpointStatus,
    at: Duration,
}

impl Ledger {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Ledger {
            interval,
            committed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last_bytes: AtomicU64::new(0),
            books: Mutex::default(),
        }
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Relaxed)
    }

    pub(super) fn last_bytes(&self) -> u64 {
        self.last_bytes.load(Relaxed)
    }

    /// An interval has ended; its checkpoint is under way.
    pub(crate) fn interval_ended(&self, interval: u32, now: Duration) {
        lock(&self.books).under_way.push_back(Begun { interval, at: now, reported: None });
    }

    /// All workers have reported an interval.
    pub(crate) fn reported(&self, interval: u32, now: Duration) {
        let mut books = lock(&self.books);
        for begun in books.under_way.iter_mut().filter(|begun| begun.interval == interval) {
            begun.reported = Some(now);
        }
    }

    /// The checkpoint under way won't be committed; the next one covers what it would have.
    pub(crate) fn failed(&self, interval: u32, why: &str) {
        let mut books = lock(&self.books);
        books.failed += 1;
        books.last_failure = Some(why.to_owned());
        books.end(interval);
    }

    /// The entry of an interval's checkpoint is in the log. Said before its output is sent to publishers.
    pub(crate) fn entered(
        &self,
        checkpoint: u64,
        interval: u32,
        bytes: u64,
        phases: WorkerPhases,
        now: Duration,
    ) -> CheckpointStatus {
        let mut books = lock(&self.books);
        let begun = books.under_way.iter().find(|begun| begun.interval == interval).copied();
        let since = |moment: Option<Duration>| moment.map_or(0, |moment| micros(now - moment));
        let WorkerPhases { wait_us, encode_us, upload_us } = phases;
        let status = CheckpointStatus {
            checkpoint,
            interval,
            bytes,
            age_ms: 0,
            duration_us: since(begun.map(|begun| begun.at)),
            wait_us,
            encode_us,
            upload_us,
            commit_us: since(begun.and_then(|begun| begun.reported)),
            publish_us: None,
            collect_us: None,
        };
        if books.remembered.len() == REMEMBERED {
            books.remembered.pop_front();
        }
        books.remembered.push_back(Remembered { status: status.clone(), at: now });
        books.end(interval);
        self.committed.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.last_bytes.store(bytes, Relaxed);
        status
    }

    /// The output that an entry decided has been sent to so many sinks.
    pub(crate) fn sent(&self, entry: u64, sinks: &[&str], now: Duration) {
        let mut books = lock(&self.books);
        for sink in sinks {
            books.sink(sink).unpublished += 1;
        }
        match sinks.len() {
            0 => books.published(entry, now),
            count => drop(books.publishing.insert(entry, count)),
        }
    }

    /// A sink has published everything up to an entry.
    pub(crate) fn published(&self, sink: &str, entry: u64, now: Duration) {
        let mut books = lock(&self.books);
        let status = books.sink(sink);
        status.unpublished = status.unpublished.saturating_sub(1);
        status.published = entry;
        let Some(count) = books.publishing.get_mut(&entry) else { return };
        *count -= 1;
        if *count == 0 {
            books.publishing.remove(&entry);
            books.published(entry, now);
        }
    }

    /// The last try of a sink to publish went like this.
    pub(crate) fn tried(&self, sink: &str, failure: Option<String>) {
        lock(&self.books).sink(sink).failing = failure;
    }

    /// The garbage of an entry is deleted, which took so long.
    pub(crate) fn collected(&self, entry: u64, took: Duration) {
        if let Some(remembered) = lock(&self.books).remembered(entry) {
            remembered.status.collect_us = Some(micros(took));
        }
    }

    pub(super) fn status(
        &self,
        unpublished: usize,
        now: Duration,
    ) -> (CheckpointsStatus, Vec<SinkStatus>) {
        let books = lock(&self.books);
        let under_way = |begun: Begun| UnderWay {
            interval: begun.interval,
            for_ms: millis(now.saturating_sub(begun.at)),
            committing: begun.reported.is_some(),
        };
        let with_age = |remembered: &Remembered| CheckpointStatus {
            age_ms: millis(now.saturating_sub(remembered.at)),
            ..remembered.status.clone()
        };
        let checkpoints = CheckpointsStatus {
            interval_ms: self.interval.map(millis),
            committed: self.committed(),
            bytes: self.bytes.load(Relaxed),
            failed: books.failed,
            last_failure: books.last_failure.clone(),
            unpublished,
            under_way: books.under_way.front().copied().map(under_way),
            last: books.remembered.iter().rev().map(with_age).collect(),
        };
        (checkpoints, books.sinks.values().cloned().collect())
    }
}

impl Books {
    fn end(&mut self, interval: u32) {
        self.under_way.retain(|begun| begun.interval != interval);
    }

    fn sink(&mut self, uid: &str) -> &mut SinkStatus {
        let new = || SinkStatus { sink: uid.to_owned(), ..SinkStatus::default() };
        self.sinks.entry(uid.to_owned()).or_insert_with(new)
    }

    fn remembered(&mut self, entry: u64) -> Option<&mut Remembered> {
        self.remembered.iter_mut().find(|remembered| remembered.status.checkpoint == entry)
    }

    fn published(&mut self, entry: u64, now: Duration) {
        if let Some(remembered) = self.remembered(entry) {
            remembered.status.publish_us = Some(micros(now.saturating_sub(remembered.at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_checkpoint_is_timed_from_its_interval_s_end_to_the_last_sink() {
        let ledger = Ledger::new(Some(at(1000)));
        ledger.interval_ended(7, at(10));
        let (status, _) = ledger.status(0, at(12));
        assert_eq!(status.under_way, Some(UnderWay { interval: 7, for_ms: 2, committing: false }));
        ledger.reported(7, at(20));
        assert!(ledger.status(0, at(20)).0.under_way.unwrap().committing);
        let one = WorkerPhases { wait_us: 1, encode_us: 9, upload_us: 2 };
        let other = WorkerPhases { wait_us: 3, encode_us: 4, upload_us: 5 };
        ledger.entered(40, 7, 99, one.longest(other), at(25));
        ledger.sent(40, &["a", "b"], at(25));
        ledger.published("a", 40, at(30));
        assert_eq!(ledger.status(1, at(31)).0.last[0].publish_us, None);
        ledger.published("b", 40, at(35));
        ledger.collected(40, at(4));
        let (status, sinks) = ledger.status(0, at(45));
        assert_eq!(status.under_way, None);
        assert_eq!((status.committed, status.interval_ms), (1, Some(1000)));
        let expected = CheckpointStatus {
            checkpoint: 40,
            interval: 7,
            bytes: 99,
            age_ms: 20,
            duration_us: 15_000,
            wait_us: 3,
            encode_us: 9,
            upload_us: 5,
            commit_us: 5_000,
            publish_us: Some(10_000),
            collect_us: Some(4_000),
        };
        assert_eq!(status.last, [expected]);
        let sinks: Vec<_> = sinks.iter().map(|s| (&*s.sink, s.published, s.unpublished)).collect();
        assert_eq!(sinks, [("a", 40, 0), ("b", 40, 0)]);
    }

    #[test]
    fn a_checkpoint_without_output_is_published_at_once() {
        let ledger = Ledger::new(None);
        ledger.entered(3, 1, 0, WorkerPhases::default(), at(5));
        ledger.sent(3, &[], at(5));
        assert_eq!(ledger.status(0, at(5)).0.last[0].publish_us, Some(0));
    }

    #[test]
    fn failures_are_counted_and_old_checkpoints_forgotten() {
        let ledger = Ledger::new(None);
        ledger.interval_ended(1, at(0));
        ledger.failed(1, "the disk is full");
        ledger.tried("a", Some("down".to_owned()));
        for number in 2..30 {
            ledger.entered(number, number as u32, number, WorkerPhases::default(), at(number));
        }
        let (status, sinks) = ledger.status(0, at(30));
        assert_eq!((status.failed, status.last_failure.as_deref()), (1, Some("the disk is full")));
        assert_eq!(status.last.len(), REMEMBERED);
        assert_eq!((status.last[0].checkpoint, ledger.last_bytes()), (29, 29));
        assert_eq!(status.bytes, (2..30).sum::<u64>());
        assert_eq!(sinks[0].failing.as_deref(), Some("down"));
    }
}
