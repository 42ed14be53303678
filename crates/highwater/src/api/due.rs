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
    buckets: BTreeMap<i64, Vec<(i64, T)>>,
    /// Of the bucket whose turn it is, what is due, latest first.
    present: Vec<(i64, T)>,
}

impl<T> Default for Due<T> {
    fn default() -> Self {
        Due { buckets: BTreeMap::new(), present: Vec::new() }
    }
}

impl<T> Due<T> {
    /// Puts `thing` at a time.
    pub(super) fn push(&mut self, time: i64, thing: T) {
        // What comes before the last one that is due now takes its place among these.
        if self.present.first().is_some_and(|(last, _)| time < *last) {
            let place = self.present.partition_point(|(other, _)| *other > time);
            self.present.insert(place, (time, thing));
        } else {
            self.buckets.entry(time >> WIDTH_BITS).or_default().push((time, thing));
        }
    }

    /// The next thing whose time isn't after `now`, in the order of their times.
    pub(super) fn pop(&mut self, now: i64) -> Option<(i64, T)> {
        while self.present.is_empty() {
            let first =
                self.buckets.first_entry().filter(|bucket| *bucket.key() <= now >> WIDTH_BITS)?;
            let bucket = *first.key();
            let (mut due, rest): (Vec<_>, Vec<_>) =
                first.remove().into_iter().partition(|(time, _)| *time <= now);
            let is_over = rest.is_empty();
            if !is_over {
                self.buckets.insert(bucket, rest);
            }
            due.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
            self.present = due;
            if !is_over && self.present.is_empty() {
                return None;
            }
        }
        debug_assert!(
            self.present.last().is_some_and(|(time, _)| *time <= now),
            "time doesn't run back"
        );
        self.present.pop()
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
