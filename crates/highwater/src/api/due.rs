//! What is due when: an index by time in which looking costs as much as is due, however much is held.
//!
//! Times are gathered in buckets of some milliseconds, so that millions of different times don't need a node each. A bucket is sorted when
//! its turn comes. It is derived from state, and made anew when that is read back.

use std::collections::BTreeMap;

/// A bucket has so many milliseconds, as a power of two.
const WIDTH_BITS: u32 = 6;

/// Things with a time each.
#[derive(Debug)]
pub(super) struct Due<T> {
    /// None is empty.
    buckets: BTreeMap<i64, Vec<(i64, T)>>,
    /// Of the bucket whose turn it is, what is due, latest first.
    present: Vec<(i64, T)>,
    len: usize,
    /// The bucket with which tidying up goes on.
    tidying: i64,
}

impl<T> Default for Due<T> {
    fn default() -> Self {
        Due { buckets: BTreeMap::new(), present: Vec::new(), len: 0, tidying: i64::MIN }
    }
}

impl<T> Due<T> {
    /// Puts `thing` at a time.
    pub(super) fn push(&mut self, time: i64, thing: T) {
        self.len += 1;
        // What comes before the last one that is due now takes its place among these.
        if self.present.first().is_some_and(|(last, _)| time < *last) {
            let place = self.present.partition_point(|(other, _)| *other > time);
            self.present.insert(place, (time, thing));
        } else {
            self.buckets.entry(time >> WIDTH_BITS).or_default().push((time, thing));
        }
    }

    /// Takes the next thing whose time isn't after `now`, in the order of their times.
    pub(super) fn pop(&mut self, now: i64) -> Option<(i64, T)> {
        self.next(now)?;
        self.len -= 1;
        self.present.pop()
    }

    /// As [`pop`](Self::pop), and leaves it there.
    pub(super) fn next(&mut self, now: i64) -> Option<&(i64, T)> {
        if self.present.is_empty() {
            self.turn(now);
        }
        let next = self.present.last();
        debug_assert!(next.is_none_or(|(time, _)| *time <= now), "time doesn't run back");
        next
    }

    /// Finds the first bucket in which something is due.
    fn turn(&mut self, now: i64) {
        let Some(first) = self.buckets.first_entry() else { return };
        let bucket = *first.key();
        if bucket > now >> WIDTH_BITS {
            return;
        }
        let (mut due, rest): (Vec<_>, Vec<_>) =
            first.remove().into_iter().partition(|(time, _)| *time <= now);
        if !rest.is_empty() {
            self.buckets.insert(bucket, rest);
        }
        due.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        self.present = due;
    }

    /// How many things there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Has `tidy` look at some buckets with at least so many things, if there are as many: others than last time, all in their turn. It
    /// may take things out.
    pub(super) fn tidy(&mut self, things: usize, mut tidy: impl FnMut(&mut Vec<(i64, T)>)) {
        let (mut left, mut empty) = (things, Vec::new());
        let mut buckets = self.buckets.range_mut(self.tidying..);
        while left > 0 {
            let Some((number, bucket)) = buckets.next() else { break };
            left = left.saturating_sub(bucket.len());
            let before = bucket.len();
            tidy(bucket);
            self.len -= before - bucket.len();
            if bucket.is_empty() {
                empty.push(*number);
            }
        }
        self.tidying = buckets.next().map_or(i64::MIN, |(bucket, _)| *bucket);
        for bucket in empty {
            self.buckets.remove(&bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Things are pushed and popped in turn; some are pushed while others are due.
        #[test]
        fn everything_is_due_in_its_time(steps in proptest::collection::vec((-300i64..300, 0i64..40, 0usize..9), 0..60)) {
            let (mut due, mut model) = (Due::default(), Vec::new());
            let mut now = -300;
            for (number, (time, later, pops)) in steps.into_iter().enumerate() {
                due.push(time, number);
                model.push((time, number));
                now += later;
                if pops == 8 {
                    // Takes things out as if they had never been there.
                    let mut gone = Vec::new();
                    due.tidy(4, |bucket| {
                        let is_even = |(_, number): &(i64, usize)| number % 2 == 0;
                        gone.extend(bucket.extract_if(.., |thing| is_even(thing)));
                    });
                    model.retain(|thing| !gone.contains(thing));
                }
                prop_assert_eq!(due.len(), model.len());
                for _ in 0..pops {
                    let popped = due.pop(now);
                    let first = model.iter().filter(|(time, _)| *time <= now).map(|(time, _)| *time).min();
                    prop_assert_eq!(popped.map(|(time, _)| time), first);
                    if let Some(popped) = popped {
                        let at = model.iter().position(|other| *other == popped);
                        prop_assert!(at.is_some());
                        model.remove(at.unwrap_or_default());
                    }
                }
            }
        }
    }
}
