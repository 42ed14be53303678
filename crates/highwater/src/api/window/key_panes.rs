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

use highwater_runtime::Data;
use highwater_state::{prefetch, prefetch_behind};
use serde::de::Error;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So many panes that are over are dropped together: the first ones are elsewhere in memory than those that are added.
const DROPPED: u32 = 4;

/// What the records of a key come to, by panes. Stored as the list of its panes.
#[derive(Clone, Debug)]
pub(super) struct KeyPanes<A> {
    /// Nearly all records are of the last pane, which is where its key is and not elsewhere in memory.
    last: Pane<A>,
    /// The panes before it. Their sums change while a window is told of, which is no change of the key's state. All but the panes themselves
    /// is where the key is, so that a window costs two waits for memory: for the first of its panes and for the last ones.
    earlier: RefCell<Earlier<A>>,
}

/// What the records within one pane come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "A: Data")]
struct Pane<A> {
    start: i64,
    acc: A,
}

/// Panes in their order, of which those of the last window are told apart by their numbers: `over <= older <= covered`.
#[derive(Clone, Debug)]
struct Earlier<A> {
    panes: VecDeque<Summed<A>>,
    /// So many are before the last window.
    over: u32,
    /// Those before this are older ones.
    older: u32,
    /// Those before this are in the window, and in `younger` if they aren't older ones.
    covered: u32,
    younger: Option<A>,
}

#[derive(Clone, Debug)]
struct Summed<A> {
    pane: Pane<A>,
    /// Of an older pane: what it and the older ones behind it come to.
    sum: Option<A>,
}

impl<A: Clone> KeyPanes<A> {
    pub(super) fn new(start: i64, acc: A) -> Self {
        KeyPanes { last: Pane { start, acc }, earlier: RefCell::default() }
    }

    /// Where the last pane begins.
    pub(super) fn last(&self) -> i64 {
        self.last.start
    }

    /// Where its panes begin.
    pub(super) fn starts(&self) -> Vec<i64> {
        let earlier = self.earlier.borrow();
        let starts = earlier.panes.iter().map(|summed| summed.pane.start);
        starts.chain([self.last.start]).collect()
    }

    /// The accumulator of the pane that begins there, if there is one.
    #[inline]
    pub(super) fn at(&mut self, start: i64) -> Option<&mut A> {
        if self.last.start == start {
            return Some(&mut self.last.acc);
        }
        if start > self.last.start {
            return None;
        }
        let earlier = self.earlier.get_mut();
        let at = earlier.panes.binary_search_by_key(&start, |summed| summed.pane.start).ok()?;
        earlier.changes(at);
        Some(&mut earlier.panes[at].pane.acc)
    }

    /// Adds a pane, which isn't there; those before `live` are dropped sooner or later.
    pub(super) fn push(&mut self, start: i64, acc: A, live: i64) {
        let mut pane = Pane { start, acc };
        let is_last = start > self.last.start;
        if is_last {
            std::mem::swap(&mut pane, &mut self.last);
        }
        let earlier = self.earlier.get_mut();
        if earlier.panes.is_empty() && pane.start < live {
            return;
        }
        if earlier.drops() {
            earlier.drop_before(live);
        }
        match is_last {
            // Without a look at the others, which would be a wait for memory.
            true => earlier.panes.push_back(Summed { pane, sum: None }),
            false => earlier.insert(pane),
        }
    }

    /// Has what [`next_window`](Self::next_window) will read first brought into the caches.
    pub(super) fn prefetch_ends(&self) {
        let earlier = self.earlier.borrow();
        let over = earlier.over as usize;
        // The one that is over next, and the one that is the first then.
        let first = [earlier.panes.get(over), earlier.panes.get(over + 1)];
        first.into_iter().chain([earlier.panes.back()]).flatten().for_each(prefetch);
    }

    /// Does so with what [`push`](Self::push) of a pane that begins there will write.
    pub(super) fn prefetch_next(&self, start: i64) {
        if start > self.last.start {
            let earlier = self.earlier.borrow();
            earlier.panes.back().into_iter().for_each(prefetch_behind);
            if earlier.drops() {
                earlier.panes.front().into_iter().for_each(prefetch);
            }
        }
    }

    /// What the panes from `start` until `end` come to; none if there are none.
    pub(super) fn window(&self, span: (i64, i64), merge: impl Fn(&mut A, A)) -> Option<A> {
        let earlier = self.earlier.borrow();
        let panes = earlier.panes.iter().map(|summed| &summed.pane);
        let mut within = panes.filter(|pane| (span.0..span.1).contains(&pane.start));
        let first = within.next().map(|first| {
            let mut sum = first.acc.clone();
            within.for_each(|pane| merge(&mut sum, pane.acc.clone()));
            sum
        });
        self.with_last(first, span, merge)
    }

    /// As [`window`](Self::window), for windows of which none begins or ends before the last one.
    pub(super) fn next_window(&self, span: (i64, i64), merge: impl Fn(&mut A, A)) -> Option<A> {
        let sum = self.earlier.borrow_mut().next_window(span, &merge);
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

impl<A> Default for Earlier<A> {
    fn default() -> Self {
        Earlier { panes: VecDeque::new(), over: 0, older: 0, covered: 0, younger: None }
    }
}

impl<A: Clone> Earlier<A> {
    /// The pane of this number is about to change, or to come: there may be a sum with it.
    fn changes(&mut self, at: usize) {
        if at < self.covered as usize {
            (self.over, self.older, self.covered) = (0, 0, 0);
        }
    }

    /// Panes that are over are to be dropped now, if there are any.
    fn drops(&self) -> bool {
        !(1..DROPPED).contains(&self.over)
    }

    fn insert(&mut self, pane: Pane<A>) {
        let before = |summed: &Summed<A>| summed.pane.start < pane.start;
        let at = self.panes.iter().rposition(before).map_or(0, |at| at + 1);
        self.changes(at);
        self.panes.insert(at, Summed { pane, sum: None });
    }

    fn drop_before(&mut self, live: i64) {
        while self.panes.pop_front_if(|summed| summed.pane.start < live).is_some() {
            for number in [&mut self.over, &mut self.older, &mut self.covered] {
                *number = number.saturating_sub(1);
            }
        }
    }

    fn next_window(&mut self, (start, end): (i64, i64), merge: impl Fn(&mut A, A)) -> Option<A> {
        let panes = &self.panes;
        let count = |from: u32, time: i64| {
            let before = |summed: &&Summed<A>| summed.pane.start < time;
            from + panes.range(from as usize..).take_while(before).count() as u32
        };
        self.over = count(self.over, start);
        let known = self.covered.max(self.over);
        self.covered = count(known, end);
        if self.over >= self.older {
            self.make_older(&merge);
        }
        for summed in self.panes.range(known.max(self.older) as usize..self.covered as usize) {
            let acc = summed.pane.acc.clone();
            match &mut self.younger {
                Some(sum) => merge(sum, acc),
                None => self.younger = Some(acc),
            }
        }
        let first = self.panes.get(self.over as usize).filter(|_| self.over < self.covered)?;
        let mut sum = first.sum.clone()?;
        self.younger.iter().for_each(|younger| merge(&mut sum, younger.clone()));
        Some(sum)
    }

    /// Makes all panes of the window older ones.
    fn make_older(&mut self, merge: impl Fn(&mut A, A)) {
        let mut sum: Option<A> = None;
        for summed in self.panes.range_mut(self.over as usize..self.covered as usize).rev() {
            let mut acc = summed.pane.acc.clone();
            sum.into_iter().for_each(|sum| merge(&mut acc, sum));
            summed.sum = Some(acc.clone());
            sum = Some(acc);
        }
        (self.older, self.younger) = (self.covered, None);
    }
}

impl<A: Data> Serialize for KeyPanes<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let earlier = self.earlier.borrow();
        let panes = earlier.panes.iter().map(|summed| &summed.pane);
        let mut list = serializer.serialize_seq(Some(earlier.panes.len() + 1))?;
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
