//! Windows of which a record is in one only: each window of a key is an entry.
//!
//! Beside the entries the keys of each window are listed, so that the end of a window costs as much as it has keys, however many windows
//! there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec;

use highwater_codec::hash_key;
use highwater_runtime::{Data, Keyed, OperatorContext, Work};
use highwater_state::{AHEAD, KeyedTable, Kind, StateTable};

use super::grid::{Lookup, Spans};
use super::operator::{Late, Now, ToldRows, Windows};
use crate::api::changed::touch;
use crate::api::moment::{ByMoment, lookup};
use crate::api::ordered::Timed;
use crate::api::step::Step;

/// The windows of some keys.
pub(super) struct Disjoint<K, V, S: Step<V>> {
    step: Arc<S>,
    spans: Lookup,
    /// Windows are kept so much longer than they last.
    lateness: i64,
    windows: KeyedTable<(K, i64), S::Acc, ByMoment>,
    /// The keys that have each window, by its begin, with their hashes.
    keys: BTreeMap<i64, Vec<(u64, K)>>,
    /// Windows that were told of in earlier epochs, and have changed in this one.
    again: Vec<(u64, K, i64)>,
    /// How far the windows that are to be kept have been told of.
    telling: (i64, usize),
    ending: Option<Ending<K>>,
}

/// A window that is over, and the keys that are left of it.
struct Ending<K> {
    start: i64,
    keys: vec::IntoIter<(u64, K)>,
    /// It wasn't told of yet.
    tells: bool,
}

impl<K: Data + Eq, V: Data, S: Step<V>> Disjoint<K, V, S> {
    pub(super) fn new(
        context: &OperatorContext,
        step: Arc<S>,
        spans: Spans,
        lateness: i64,
    ) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        Disjoint {
            step,
            spans: Lookup::new(spans),
            lateness,
            windows: KeyedTable::new("windows", Kind::Accumulator, key_groups, groups),
            keys: BTreeMap::new(),
            again: Vec::new(),
            telling: (i64::MIN, 0),
            ending: None,
        }
    }

    fn end_of(&self, start: i64) -> i64 {
        self.spans.end_of(start)
    }

    fn tell_one(&self, hash: u64, key: &K, start: i64, told: &mut ToldRows<K, S::Out>) {
        let place = (key.clone(), start);
        if let Some(acc) = self.windows.get_hashed(hash, lookup(hash, start), &place) {
            told.push(place.0, (start, self.end_of(start)), self.step.out(acc));
        }
    }

    /// Tells of windows that end now and are kept. Answers whether that was all.
    fn tell_kept(&mut self, now: Now, told: &mut ToldRows<K, S::Out>) -> bool {
        let (from, mut index) = self.telling;
        for (&start, keys) in self.keys.range(from..) {
            let end = self.end_of(start);
            if end > now.watermark {
                break;
            }
            if start != from {
                index = 0;
            }
            if end <= now.before || end.saturating_add(self.lateness) <= now.watermark {
                continue;
            }
            while let Some((hash, key)) = keys.get(index) {
                if told.is_full() {
                    self.telling = (start, index);
                    return false;
                }
                self.tell_one(*hash, key, start, told);
                index += 1;
            }
        }
        true
    }

    /// Removes the windows of keys that are left of one that is over, and tells of them. Answers whether that was all.
    fn end_some(&mut self, ending: &mut Ending<K>, told: &mut ToldRows<K, S::Out>) -> bool {
        let start = ending.start;
        let end = self.end_of(start);
        let mut removed = 0;
        while !told.is_full() && removed < crate::api::BATCH_ROWS {
            let soon = ending.keys.as_slice();
            let soon = soon[..soon.len().min(AHEAD)].iter();
            let spots =
                self.windows.look_ahead(soon.map(|(hash, _)| (*hash, lookup(*hash, start))));
            for (spot, (hash, key)) in spots.iter().zip(&mut ending.keys) {
                removed += 1;
                let place = (key, start);
                let acc = self.windows.remove_at(*spot, hash, lookup(hash, start), &place);
                if let Some(acc) = acc.filter(|_| ending.tells) {
                    told.push(place.0, (start, end), self.step.out(&acc));
                }
            }
            if ending.keys.len() == 0 {
                return true;
            }
        }
        false
    }

    /// The next window that is over.
    fn next_ending(&mut self, now: Now) -> Option<Ending<K>> {
        let first = self.keys.first_entry()?;
        let start = *first.key();
        let end = self.spans.end_of(start);
        if end.saturating_add(self.lateness) > now.watermark {
            return None;
        }
        Some(Ending { start, keys: first.remove().into_iter(), tells: end > now.before })
    }
}

impl<K: Data + Eq, V: Data, S: Step<V>> Windows for Disjoint<K, V, S> {
    type Key = K;
    type In = V;
    type Out = S::Out;

    fn add(
        &mut self,
        (keyed, times): Timed<K, V>,
        now: Now,
        late: &mut Late<K, V>,
        _: &mut ToldRows<K, S::Out>,
    ) {
        let Keyed { hashes, rows } = keyed;
        let (mut rows, mut at) = (rows.into_iter(), 0);
        while let Some(time) = times.get(at) {
            // Neighbours are nearly always in the same window, about which all is found out once.
            let (start, end) = self.spans.span_of(*time);
            let soon = &times[at..times.len().min(at + AHEAD)];
            let within = soon.iter().take_while(|time| (start..end).contains(*time)).count();
            let run = at..at + within.max(1);
            at = run.end;
            if end.saturating_add(self.lateness) <= now.before {
                for (time, (key, value)) in times[run].iter().zip(&mut rows) {
                    late.push(key, value, *time);
                }
                continue;
            }
            let is_again = end <= now.before;
            let places = hashes[run].iter().map(|hash| (*hash, lookup(*hash, start)));
            let spots = self.windows.look_ahead(places.clone());
            for ((spot, (hash, lookup)), (key, value)) in spots.iter().zip(places).zip(&mut rows) {
                let step = &*self.step;
                let mut value = Some(value);
                let first = || step.first(value.take().expect("taken once"));
                let entry = self.windows.upsert_at(*spot, hash, lookup, (key, start), first);
                match value {
                    Some(value) => step.add(entry.value, value),
                    None => {
                        self.keys.entry(start).or_default().push((hash, entry.key.0.clone()));
                    }
                }
                if is_again && touch(entry.mark, now.epoch) {
                    self.again.push((hash, entry.key.0.clone(), start));
                }
            }
        }
    }

    fn tell(&mut self, now: Now, told: &mut ToldRows<K, S::Out>) -> Work {
        while let Some((hash, key, start)) = self.again.pop() {
            self.tell_one(hash, &key, start, told);
            if told.is_full() {
                return Work::More;
            }
        }
        if self.lateness > 0 && self.ending.is_none() && !self.tell_kept(now, told) {
            return Work::More;
        }
        self.telling = (i64::MIN, 0);
        while let Some(mut ending) = self.ending.take().or_else(|| self.next_ending(now)) {
            if !self.end_some(&mut ending, told) {
                self.ending = Some(ending);
                return Work::More;
            }
        }
        Work::Done
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.windows]
    }

    fn restored(&mut self) {
        for group in 0..self.windows.group_count() {
            for ((key, start), _) in self.windows.group_entries(group) {
                let hash = hash_key(key).expect("a key that was stored can be hashed");
                self.keys.entry(*start).or_default().push((hash, key.clone()));
            }
        }
    }
}
