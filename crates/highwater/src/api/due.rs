//! What is due when: an index by time in which looking costs as much as is due, however much is held.
//!
//! Times are gathered in buckets of some milliseconds, so that millions of different times don't need a node each. When the turn of a bucket
//! comes, it is dealt out to a list for each millisecond, once. (A timing wheel of two levels; Varghese and Lauck.) It is derived from state, and made
//! anew when that is read back.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;

/// A bucket has so many milliseconds, as a power of two.
const WIDTH_BITS: u32 = 6;

/// Things with a time each.
#[derive(Debug)]
pub(super) struct Due<T> {
    /// By their times in buckets; none is empty.
    buckets: BTreeMap<i64, Bucket<T>>,
    len: usize,
    /// The bucket with which tidying up goes on.
    tidying: i64,
}

/// Things of about the same time.
#[derive(Debug)]
enum Bucket<T> {
    Gathered(Vec<(i64, T)>),
    Dealt(Box<Dealt<T>>),
}

/// A list for each millisecond.
#[derive(Debug)]
struct Dealt<T> {
    lists: [Vec<(i64, T)>; 1 << WIDTH_BITS],
    /// A bit for each list that isn't empty.
    filled: u64,
}

impl<T> Dealt<T> {
    fn push(&mut self, time: i64, thing: T) {
        let list = time as usize % self.lists.len();
        self.lists[list].push((time, thing));
        self.filled |= 1 << list;
    }
}

impl<T> Bucket<T> {
    fn push(&mut self, time: i64, thing: T) {
        match self {
            Bucket::Gathered(things) => things.push((time, thing)),
            Bucket::Dealt(dealt) => dealt.push(time, thing),
        }
    }

    /// Its lists, into which it is dealt out if it wasn't yet.
    fn deal(&mut self) -> &mut Dealt<T> {
        if let Bucket::Gathered(things) = self {
            let lists = std::array::from_fn(|_| Vec::new());
            let mut dealt = Box::new(Dealt { lists, filled: 0 });
            things.drain(..).for_each(|(time, thing)| dealt.push(time, thing));
            *self = Bucket::Dealt(dealt);
        }
        match self {
            Bucket::Dealt(dealt) => dealt,
            Bucket::Gathered(_) => unreachable!("dealt out above"),
        }
    }

    /// Has `look` look at all that is in it, and perhaps take some of it out. Answers how much there was, and how much is left.
    fn look(&mut self, mut look: impl FnMut(&mut Vec<(i64, T)>)) -> (usize, usize) {
        match self {
            Bucket::Gathered(things) => {
                let before = things.len();
                look(things);
                (before, things.len())
            }
            Bucket::Dealt(dealt) => {
                let mut counts = (0, 0);
                for (number, list) in dealt.lists.iter_mut().enumerate() {
                    counts.0 += list.len();
                    look(list);
                    counts.1 += list.len();
                    dealt.filled &= !(u64::from(list.is_empty()) << number);
                }
                counts
            }
        }
    }
}

impl<T> Default for Due<T> {
    fn default() -> Self {
        Due { buckets: BTreeMap::new(), len: 0, tidying: i64::MIN }
    }
}

impl<T> Due<T> {
    /// Puts `thing` at a time.
    pub(super) fn push(&mut self, time: i64, thing: T) {
        self.len += 1;
        let bucket = self.buckets.entry(time >> WIDTH_BITS);
        bucket.or_insert_with(|| Bucket::Gathered(Vec::new())).push(time, thing);
    }

    /// Takes the next thing whose time isn't after `now`, in the order of their times.
    pub(super) fn pop(&mut self, now: i64) -> Option<(i64, T)> {
        let (mut bucket, list) = self.first(now)?;
        let dealt = bucket.get_mut().deal();
        let thing = dealt.lists[list].pop();
        if dealt.lists[list].is_empty() {
            dealt.lists[list] = Vec::new();
            dealt.filled &= !(1 << list);
            if dealt.filled == 0 {
                bucket.remove();
            }
        }
        self.len -= 1;
        thing
    }

    /// As [`pop`](Self::pop), and leaves it there.
    pub(super) fn next(&mut self, now: i64) -> Option<&(i64, T)> {
        let (bucket, list) = self.first(now)?;
        bucket.into_mut().deal().lists[list].last()
    }

    /// Some of what is due by then, in the order in which it will be taken: what the first bucket has.
    pub(super) fn soon(&mut self, now: i64) -> impl Iterator<Item = &(i64, T)> + Clone {
        let lists = match self.first(now) {
            Some((bucket, list)) => &bucket.into_mut().deal().lists[list..],
            None => &[],
        };
        lists.iter().flat_map(|list| list.iter().rev()).take_while(move |(time, _)| *time <= now)
    }

    /// The first bucket in which something is due, and the number of the list that has it.
    fn first(&mut self, now: i64) -> Option<(OccupiedEntry<'_, i64, Bucket<T>>, usize)> {
        let mut bucket = self.buckets.first_entry()?;
        let start = *bucket.key() << WIDTH_BITS;
        if start > now {
            return None;
        }
        let list = bucket.get_mut().deal().filled.trailing_zeros();
        (start + i64::from(list) <= now).then_some((bucket, list as usize))
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
            let (before, after) = bucket.look(&mut tidy);
            left = left.saturating_sub(before);
            self.len -= before - after;
            if after == 0 {
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
