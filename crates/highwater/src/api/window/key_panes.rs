//! The panes of a key, and sums of them, so that a window of many panes costs three merges.
//!
//! Windows that end one behind the other have nearly all panes in common. So the panes before the last one are summed up in two parts, as in a queue
//! that is made of two stacks: the older panes from each one on, of which a window takes the sum that begins with it, and the younger ones together.
//!
//! ```text
//! panes     1   2   3   4   5   6   7   8
//! older         2-5 3-5 4-5  5              a window that begins with 2 and ends with 8: (2-5), (6-7) and 8
//! younger                       6-7
//! ```
//!
//! When nothing is left of the older ones, all become older ones. So each pane is merged about twice in its life. (Tangwongsan, Hirzel, Schneider:
//! "In-order sliding-window aggregation in worst-case constant time" has this and its kin.)
//!
//! Sums are derived from panes: a checkpoint doesn't have them, and a record that comes to a pane of which there is a sum has them made anew.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;

use highwater_runtime::Data;
use serde::de::Error;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the records of a key come to, by panes. Stored as the list of its panes.
#[derive(Clone, Debug)]
pub(super) struct KeyPanes<A> {
    /// Nearly all records are of the last pane, which is where its key is and not elsewhere in memory.
    last: Pane<A>,
    /// The panes before it. Their sums change while a window is told of, which is no change of the key's state.
    earlier: Option<Box<RefCell<Earlier<A>>>>,
}

/// What the records within one pane come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "A: Data")]
struct Pane<A> {
    start: i64,
    acc: A,
}

/// Panes in their order. Some of the first may be over.
#[derive(Clone, Debug)]
struct Earlier<A> {
    panes: VecDeque<Summed<A>>,
    /// Panes before this are older ones.
    older_until: i64,
    /// What the younger ones come to, which are before `until`.
    younger: Option<A>,
    until: i64,
}

#[derive(Clone, Debug)]
struct Summed<A> {
    pane: Pane<A>,
    /// Of an older pane: what it and the older ones behind it come to.
    sum: Option<A>,
}

impl<A: Clone> KeyPanes<A> {
    pub(super) fn new(start: i64, acc: A) -> Self {
        KeyPanes { last: Pane { start, acc }, earlier: None }
    }

    /// Where the last pane begins.
    pub(super) fn last(&self) -> i64 {
        self.last.start
    }

    /// Where its panes begin.
    pub(super) fn starts(&self) -> Vec<i64> {
        let earlier = self.earlier.as_ref().map(|earlier| earlier.borrow());
        let starts = earlier.iter().flat_map(|earlier| &earlier.panes);
        starts.map(|summed| summed.pane.start).chain([self.last.start]).collect()
    }

    /// The accumulator of the pane that begins there, if there is one.
    #[inline]
    pub(super) fn at(&mut self, start: i64) -> Option<&mut A> {
        if self.last.start == start {
            return Some(&mut self.last.acc);
        }
        let earlier = self.earlier.as_mut().filter(|_| start < self.last.start)?.get_mut();
        let at = earlier.panes.binary_search_by_key(&start, |summed| summed.pane.start).ok()?;
        earlier.changes(start);
        Some(&mut earlier.panes[at].pane.acc)
    }

    /// Adds a pane, which isn't there; those before `live` are dropped.
    pub(super) fn push(&mut self, start: i64, acc: A, live: i64) {
        let mut pane = Pane { start, acc };
        if start > self.last.start {
            std::mem::swap(&mut pane, &mut self.last);
        }
        if self.earlier.is_none() && pane.start < live {
            return;
        }
        let earlier =
            self.earlier.get_or_insert_with(|| Box::new(RefCell::new(Earlier::new()))).get_mut();
        while earlier.panes.pop_front_if(|summed| summed.pane.start < live).is_some() {}
        if pane.start >= live {
            earlier.changes(pane.start);
            let before = |summed: &Summed<A>| summed.pane.start < pane.start;
            let at = earlier.panes.iter().rposition(before).map_or(0, |at| at + 1);
            earlier.panes.insert(at, Summed { pane, sum: None });
        }
    }

    /// Reads what [`next_window`](Self::next_window) will read first; for nothing but time, as [`KeyedTable::warm`](highwater_state::KeyedTable::warm).
    pub(super) fn touch(&self) -> i64 {
        let first = self.earlier.as_ref().map(|earlier| earlier.borrow());
        let first = first.as_ref().and_then(|earlier| earlier.panes.front());
        first.map_or(0, |summed| summed.pane.start)
    }

    /// What the panes from `start` until `end` come to; none if there are none.
    pub(super) fn window(&self, span: (i64, i64), merge: impl Fn(&mut A, A)) -> Option<A> {
        let earlier = self.earlier.as_ref().map(|earlier| earlier.borrow());
        let mut panes = earlier.iter().flat_map(|earlier| earlier.within(span));
        let first = panes.next().map(|summed| {
            let mut sum = summed.pane.acc.clone();
            panes.for_each(|summed| merge(&mut sum, summed.pane.acc.clone()));
            sum
        });
        self.with_last(first, span, merge)
    }

    /// As [`window`](Self::window), for windows of which none begins or ends before the last one.
    pub(super) fn next_window(&self, span: (i64, i64), merge: impl Fn(&mut A, A)) -> Option<A> {
        let earlier = self.earlier.as_ref().map(|earlier| earlier.borrow_mut());
        let sum = earlier.and_then(|mut earlier| earlier.next_window(span, &merge));
        self.with_last(sum, span, merge)
    }

    fn with_last(
        &self,
        sum: Option<A>,
        (start, end): (i64, i64),
        merge: impl Fn(&mut A, A),
    ) -> Option<A> {
        let last = &self.last;
        if !(start..end).contains(&last.start) {
            return sum;
        }
        Some(match sum {
            Some(mut sum) => {
                merge(&mut sum, last.acc.clone());
                sum
            }
            None => last.acc.clone(),
        })
    }
}

impl<A: Clone> Earlier<A> {
    fn new() -> Self {
        Earlier { panes: VecDeque::new(), older_until: i64::MIN, younger: None, until: i64::MIN }
    }

    /// A pane that begins there is about to change.
    fn changes(&mut self, start: i64) {
        if start < self.until {
            (self.older_until, self.until) = (i64::MIN, i64::MIN);
        }
    }

    /// Those from `start` until `end`.
    fn within(&self, (start, end): (i64, i64)) -> impl DoubleEndedIterator<Item = &Summed<A>> {
        self.panes.range(self.indexes(start, end))
    }

    fn indexes(&self, start: i64, end: i64) -> Range<usize> {
        let before = |time: i64| self.panes.partition_point(|summed| summed.pane.start < time);
        // Most often all panes are wanted, but for one or two.
        let early = self.panes.iter().take(3).position(|summed| summed.pane.start >= start);
        let first = early.unwrap_or_else(|| before(start));
        let behind = match self.panes.back() {
            Some(last) if last.pane.start >= end => before(end),
            _ => self.panes.len(),
        };
        first..behind.max(first)
    }

    fn next_window(&mut self, (start, end): (i64, i64), merge: impl Fn(&mut A, A)) -> Option<A> {
        let indexes = self.indexes(start, end);
        let first = self.panes.get(indexes.start).filter(|_| !indexes.is_empty())?;
        if first.pane.start >= self.older_until {
            let mut sum: Option<A> = None;
            for summed in self.panes.range_mut(indexes.clone()).rev() {
                let mut acc = summed.pane.acc.clone();
                sum.into_iter().for_each(|sum| merge(&mut acc, sum));
                summed.sum = Some(acc.clone());
                sum = Some(acc);
            }
            self.older_until = self.panes[indexes.end - 1].pane.start + 1;
            (self.younger, self.until) = (None, self.older_until);
            return sum;
        }
        let covered = |summed: &Summed<A>| summed.pane.start < self.until;
        let known = self.panes.range(indexes.clone()).rposition(covered).map_or(0, |at| at + 1);
        for summed in self.panes.range(indexes.start + known..indexes.end) {
            let acc = summed.pane.acc.clone();
            match &mut self.younger {
                Some(sum) => merge(sum, acc),
                None => self.younger = Some(acc),
            }
            self.until = summed.pane.start + 1;
        }
        let mut sum = self.panes[indexes.start].sum.clone()?;
        self.younger.iter().for_each(|younger| merge(&mut sum, younger.clone()));
        Some(sum)
    }
}

impl<A: Data> Serialize for KeyPanes<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let earlier = self.earlier.as_ref().map(|earlier| earlier.borrow());
        let panes = earlier.iter().flat_map(|earlier| &earlier.panes).map(|summed| &summed.pane);
        let before = earlier.as_ref().map_or(0, |earlier| earlier.panes.len());
        let mut list = serializer.serialize_seq(Some(before + 1))?;
        for pane in panes.chain([&self.last]) {
            list.serialize_element(pane)?;
        }
        list.end()
    }
}

impl<'de, A: Data> Deserialize<'de> for KeyPanes<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut panes = Vec::<Pane<A>>::deserialize(deserializer)?.into_iter();
        let none = || D::Error::custom("a key with windows has a pane");
        let Pane { start, acc } = panes.next().ok_or_else(none)?;
        let mut all = KeyPanes::new(start, acc);
        panes.for_each(|pane| all.push(pane.start, pane.acc, i64::MIN));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Joining texts is associative and no more than that: it tells the order in which panes were merged.
        #[test]
        fn sums_come_to_what_panes_come_to(size in 1..12_i64, steps in proptest::collection::vec((-9..4_i64, 0..5_usize, 0..4_i64), 0..80)) {
            let value = |start: i64| format!("{start} ");
            let mut panes = KeyPanes::new(-5, value(-5));
            let mut model = vec![(-5, value(-5))];
            let merge = |sum: &mut String, other: String| sum.push_str(&other);
            let mut end = 0;
            for (after, records, rise) in steps {
                for record in 0..records as i64 {
                    // Mostly behind the last window's end, and now and then before it.
                    let start = (end + after + record).max(end - size);
                    match panes.at(start) {
                        Some(acc) => acc.push_str(&value(start)),
                        None => panes.push(start, value(start), end - size),
                    }
                    model.push((start, value(start)));
                }
                end += rise;
                model.retain(|(start, _)| *start >= end - size);
                // Records of a pane in the order in which they came.
                model.sort_by_key(|(start, _)| *start);
                let within = model.iter().filter(|(start, _)| *start < end);
                let expected = within.map(|(_, value)| value.as_str()).collect::<String>();
                let expected = Some(expected).filter(|sum| !sum.is_empty());
                prop_assert_eq!(&panes.window((end - size, end), merge), &expected);
                prop_assert_eq!(&panes.next_window((end - size, end), merge), &expected);
            }
        }
    }

    /// However many panes a window has.
    #[test]
    fn a_window_costs_three_merges() {
        let (mut panes, merges, size) = (KeyPanes::new(-1, 1), std::cell::Cell::new(0), 1000);
        for end in 1..=10 * size {
            panes.push(end - 1, 1, end - size);
            let count = panes.next_window((end - size, end), |acc, other| {
                merges.set(merges.get() + 1);
                *acc += other;
            });
            assert_eq!(count, Some((end + 1).min(size)));
        }
        let each = merges.get() as f64 / (10 * size) as f64;
        assert!(each < 4.0, "{each} merges a window");
    }
}
