//! Finding the record that makes a job fail, and going on without it.
//!
//! A job that fails again and again at the same place is run *carefully*: only one batch of the whole job is on its way at any time, and what it
//! is gets known before anything is done with it. When the attempt fails, that batch is the suspect. The next careful attempt takes the suspect
//! apart and has single records on their way, so that the one at fault is known by its split and number; whoever supervises the
//! job then ends it with that name, or has it go on without the record.
//!
//! ```text
//!   epoch          16        17        18        19        20        21
//!   reader 0       ·         batch     ·         ·         ·         batch
//!   reader 1       ·         ·         ·         batch     ·         ·
//! ```
//!
//! Readers take turns in the odd epochs of an interval, one batch each. The pacer ticks when all that is before its last tick has left the dataflow, so
//! whoever sees an odd epoch begin has the dataflow for itself, and whose turn it is follows from the epoch's number: workers and processes needn't agree on
//! anything. None of this changes results: epochs are short and readers take turns, that is all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Epoch;
use crate::connector::SplitOffset;

/// Some records of a split, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The source's uid.
    pub source: String,
    /// The split.
    pub split: String,
    /// The number of the first one; the split's first is 1.
    pub first: u64,
    /// The number of the last one.
    pub last: u64,
}

impl Span {
    /// Whether it is one record.
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }
}

/// How carefully an attempt reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Care {
    /// One batch of the whole job at a time.
    pub one_at_a_time: bool,
    /// Records in which the one at fault was found to be: they are read one by one.
    pub suspect: Option<Span>,
    /// Records that make the job fail: they are left out, each a span of its own.
    pub left_out: Vec<Span>,
}

impl Care {
    /// Whether it is of no consequence.
    pub fn is_none(&self) -> bool {
        *self == Care::default()
    }
}

/// Whether a reader may read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// One batch.
    Now,
    /// In this epoch, once all earlier batches have left the dataflow.
    Soon,
    /// Not in this epoch, or not any more.
    Over,
}

/// What a reader does with the care that is asked for.
pub(crate) struct CarefulReader {
    source: String,
    /// Its turn comes in every `of`-th odd epoch.
    turn: u64,
    of: u64,
    /// Of this source: what is read one by one, with whether it is then left out.
    single: Vec<(Span, bool)>,
    /// How far each split has been read.
    at: BTreeMap<String, SplitOffset>,
    read_in: Option<Epoch>,
}

/// Rows that were read just now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) span: Span,
    /// Where in the split they begin, as the source counts.
    pub(crate) position: u64,
    /// They make the job fail, and it goes on without them.
    pub(crate) is_left_out: bool,
}

impl CarefulReader {
    /// The care of the reader that is number `turn` of `of` in the whole job; none if it is of no consequence.
    pub(crate) fn new(care: &Care, source: &str, (turn, of): (usize, usize)) -> Option<Self> {
        let suspects = care.suspect.iter().map(|span| (span.clone(), false));
        let left_out = care.left_out.iter().map(|span| (span.clone(), true));
        let single = left_out.chain(suspects).filter(|(span, _)| span.source == source);
        (!care.is_none()).then(|| CarefulReader {
            source: source.to_owned(),
            turn: turn as u64,
            of: of.max(1) as u64,
            single: single.collect(),
            at: BTreeMap::new(),
            read_in: None,
        })
    }

    /// Splits begin, at these offsets.
    pub(crate) fn added(&mut self, splits: &[(String, SplitOffset)]) {
        self.at.extend(splits.iter().cloned());
    }

    /// Whether this reader may read one batch in `epoch` now, when all epochs below `complete` have left the dataflow.
    pub(crate) fn turn(&mut self, epoch: Epoch, complete: u64) -> Turn {
        let number = u64::from(epoch.number());
        let mine = number % 2 == 1 && number / 2 % self.of == self.turn;
        if !mine || self.read_in == Some(epoch) {
            return Turn::Over;
        }
        // The epoch before this one is of the same interval, and nothing was read in it.
        if complete < epoch.timestamp() - 1 {
            return Turn::Soon;
        }
        self.read_in = Some(epoch);
        Turn::Now
    }

    /// So many rows may be read at once, for no batch to hold anything beside a record that is read by itself.
    pub(crate) fn rows(&self) -> usize {
        let left = self.single.iter().filter_map(|(span, _)| {
            let at = self.at.get(&span.split).map_or(0, |offset| offset.records);
            (at < span.last).then(|| span.first.saturating_sub(at + 1).max(1))
        });
        left.min().map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX))
    }

    /// What the `rows` rows are that were read just now from `split`, which has come to `offset` with them. Records that couldn't be read may be
    /// among them.
    pub(crate) fn read(&mut self, split: &str, rows: usize, offset: SplitOffset) -> Read {
        let last = offset.records;
        let before = self.at.insert(split.to_owned(), offset).unwrap_or_default();
        let first = if rows == 1 { last } else { (before.records + 1).min(last) };
        let (source, split) = (self.source.clone(), split.to_owned());
        let span = Span { source, split, first, last };
        let is_left_out = self.single.iter().any(|(single, left_out)| *left_out && *single == span);
        Read { span, position: before.position, is_left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(split: &str, first: u64, last: u64) -> Span {
        Span { source: "in".to_owned(), split: split.to_owned(), first, last }
    }

    fn reader(care: &Care, turn: (usize, usize)) -> CarefulReader {
        CarefulReader::new(care, "in", turn).expect("the care is of consequence")
    }

    fn offset(records: u64) -> SplitOffset {
        SplitOffset { records, position: records * 10, ..SplitOffset::default() }
    }

    #[test]
    fn readers_take_turns_and_wait_for_each_other() {
        let care = Care { one_at_a_time: true, ..Care::default() };
        let (mut one, mut two) = (reader(&care, (0, 2)), reader(&care, (1, 2)));
        let epoch = |number| Epoch::new(3, number);
        let (three, four) = (epoch(3).timestamp(), epoch(4).timestamp());
        assert_eq!(two.turn(epoch(5), four), Turn::Over, "the other one's");
        assert_eq!(one.turn(epoch(5), three), Turn::Soon, "something is on its way");
        assert_eq!(one.turn(epoch(5), four), Turn::Now);
        assert_eq!(one.turn(epoch(5), four), Turn::Over, "one batch an epoch");
        assert_eq!(two.turn(epoch(6), epoch(6).timestamp()), Turn::Over, "nobody reads in it");
        assert_eq!(two.turn(epoch(7), epoch(6).timestamp()), Turn::Now);
        assert!(CarefulReader::new(&Care::default(), "in", (0, 1)).is_none());
    }

    #[test]
    fn suspects_are_read_one_by_one_and_others_are_not() {
        let care = Care {
            one_at_a_time: true,
            suspect: Some(span("a", 101, 103)),
            left_out: vec![span("b", 5, 5)],
        };
        let mut reader = reader(&care, (0, 1));
        reader.added(&[("a".to_owned(), offset(20)), ("b".to_owned(), offset(4))]);
        assert_eq!(reader.rows(), 1, "the next one of b is left out");
        let left_out = Read { span: span("b", 5, 5), position: 40, is_left_out: true };
        assert_eq!(reader.read("b", 1, offset(5)), left_out);
        assert_eq!(reader.rows(), 80, "up to the suspects of a");
        let read = reader.read("a", 79, offset(100));
        assert_eq!(read.span, span("a", 21, 100), "one of them couldn't be read");
        for record in 101..=103 {
            assert_eq!(reader.rows(), 1);
            let read = reader.read("a", 1, offset(record));
            assert_eq!((read.span, read.is_left_out), (span("a", record, record), false));
        }
        assert_eq!(reader.rows(), usize::MAX);
        let other = CarefulReader::new(&care, "elsewhere", (0, 1)).unwrap();
        assert_eq!(other.rows(), usize::MAX, "another source's");
    }
}
