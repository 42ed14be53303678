//! Windows of triggers whose value is carried on: what comes in is added, what falls out is taken away again.
//!
//! ```text
//! last(4).every(2), +, -      triggers  1   2   3   4   5   6
//!                             values    1   2   3   4   5   6
//!                             told          3      10      18     10 + (5 + 6) - (1 + 2)
//! ```
//!
//! However long windows are, each costs what has changed. Every key that ever had a record is told of with every window, unless a filter
//! lets it go.

use std::marker::PhantomData;
use std::sync::Arc;

use highwater_runtime::{Data, Keyed, OperatorContext, Work};
use highwater_state::{KeyedTable, Kind, StateTable, Verdict};
use serde::{Deserialize, Serialize};

use super::operator::{Late, Now, ToldRows, Windows};
use crate::api::SLICE_ROWS;
use crate::api::ordered::Timed;

/// What the value of a window is made with.
pub(super) struct Functions<F, G, P> {
    /// Adds.
    pub(super) reduce: F,
    /// Takes away.
    pub(super) inverse: G,
    /// Whether a key with this value is kept.
    pub(super) keep: P,
}

/// What is known of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "V: Data")]
struct Carried<V> {
    /// Of the last window; none before the first.
    value: Option<V>,
    /// It is made of triggers before this one.
    up_to: i64,
    /// What the records of each trigger come to, of those in the last window and later, in their order.
    triggers: Vec<(i64, V)>,
}

/// The windows of some keys.
pub(super) struct Inverting<K, V, F, G, P> {
    functions: Arc<Functions<F, G, P>>,
    length: i64,
    every: i64,
    carried: KeyedTable<K, Carried<V>>,
    /// The first window that isn't told of, by its end, and its first key group that isn't.
    telling: Option<(i64, usize)>,
    values: PhantomData<fn(V)>,
}

impl<V> Carried<V> {
    /// Whether the window that ends there, and begins at `start`, comes to anything else than the last one.
    fn changes(&self, start: i64, end: i64) -> bool {
        let new = |trigger: i64| (self.up_to..end).contains(&trigger);
        self.triggers.iter().any(|(trigger, _)| *trigger < start || new(*trigger))
    }
}

impl<K, V, F, G, P> Inverting<K, V, F, G, P>
where
    K: Data + Eq,
    V: Data,
    F: Fn(V, V) -> V,
    G: Fn(V, V) -> V,
    P: Fn(&K, &V) -> bool,
{
    pub(super) fn new(
        context: &OperatorContext,
        functions: Arc<Functions<F, G, P>>,
        (length, every): (i64, i64),
    ) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        Inverting {
            functions,
            length,
            every,
            carried: KeyedTable::new("carried", Kind::Accumulator, key_groups, groups),
            telling: None,
            values: PhantomData,
        }
    }

    /// The value of the window of a key that ends there; changes what is known of the key accordingly.
    fn value_at(&self, carried: &mut Carried<V>, end: i64) -> Option<V> {
        let Functions { reduce, inverse, .. } = &*self.functions;
        let (start, known) = (end - self.length, carried.up_to);
        let mut value = carried.value.take();
        let left = carried.triggers.partition_point(|(trigger, _)| *trigger < start);
        for (trigger, gone) in carried.triggers.drain(..left) {
            // What fell between two windows was never in one.
            if trigger < known {
                value = value.map(|value| inverse(value, gone));
            }
        }
        for (trigger, new) in &carried.triggers {
            if *trigger >= known && *trigger < end {
                value = Some(match value {
                    Some(value) => reduce(value, new.clone()),
                    None => new.clone(),
                });
            }
        }
        carried.up_to = end;
        carried.value.clone_from(&value);
        value
    }

    /// Tells of the windows that end there, of key groups from `group` on; nothing is kept behind the last ones of all. Answers how far it
    /// got, if that wasn't all.
    fn tell_some(
        &mut self,
        end: i64,
        is_last: bool,
        group: usize,
        told: &mut ToldRows<K, V>,
    ) -> Option<usize> {
        let mut seen = 0;
        for index in group..self.carried.group_count() {
            if told.is_full() || seen >= SLICE_ROWS {
                return Some(index);
            }
            let mut verdicts = Vec::new();
            for (key, carried) in self.carried.group_entries(index) {
                seen += 1;
                let changes = carried.changes(end - self.length, end);
                let mut carried = carried.clone();
                let value = self.value_at(&mut carried, end);
                let keeps = value.as_ref().is_none_or(|value| (self.functions.keep)(key, value));
                if let Some(value) = value.filter(|_| keeps) {
                    told.push(key.clone(), (end - self.length, end), value);
                }
                let is_empty = carried.value.is_none() && carried.triggers.is_empty();
                // A key that isn't kept begins anew with what is still in later windows.
                if !keeps {
                    carried.triggers.retain(|(trigger, _)| *trigger >= end);
                    carried.value = None;
                }
                let goes = is_last || is_empty || (!keeps && carried.triggers.is_empty());
                // What hasn't changed needn't be written to the next checkpoint again.
                verdicts.push(match (goes, changes || !keeps) {
                    (true, _) => Verdict::Remove,
                    (false, true) => Verdict::Set(carried),
                    (false, false) => Verdict::Keep,
                });
            }
            let mut verdicts = verdicts.into_iter();
            let visited = self.carried.visit_group(index, |_, _| {
                Ok::<_, std::convert::Infallible>(verdicts.next().unwrap_or(Verdict::Keep))
            });
            let Ok(()) = visited;
        }
        None
    }
}

impl<K, V, F, G, P> Windows for Inverting<K, V, F, G, P>
where
    K: Data + Eq,
    V: Data,
    F: Fn(V, V) -> V,
    G: Fn(V, V) -> V,
    P: Fn(&K, &V) -> bool,
{
    type Key = K;
    type In = V;
    type Out = V;

    fn add(
        &mut self,
        (keyed, times): Timed<K, V>,
        _: Now,
        _: &mut Late<K, V>,
        _: &mut ToldRows<K, V>,
    ) {
        let Keyed { hashes, rows } = keyed;
        for ((hash, (key, value)), trigger) in hashes.into_iter().zip(rows).zip(times) {
            let new = || Carried { value: None, up_to: i64::MIN, triggers: Vec::new() };
            let carried = self.carried.upsert_hashed(hash, hash, key, new).value;
            let value = match carried.triggers.pop_if(|(last, _)| *last == trigger) {
                Some((_, last)) => (self.functions.reduce)(last, value),
                None => value,
            };
            carried.triggers.push((trigger, value));
        }
    }

    fn tell(&mut self, now: Now, told: &mut ToldRows<K, V>) -> Work {
        // At the end of all sources those are told of that have any of the triggers so far.
        let watermark = now.watermark.min(now.before.saturating_add(self.length));
        let every = self.every;
        let next = |from: i64| from.div_euclid(every).saturating_add(1) * every;
        let (mut end, mut group) = self.telling.take().unwrap_or((next(now.before), 0));
        while end <= watermark {
            let is_last = now.watermark == i64::MAX && next(end) > watermark;
            if let Some(group) = self.tell_some(end, is_last, group, told) {
                self.telling = Some((end, group));
                return Work::More;
            }
            (end, group) = (next(end), 0);
        }
        Work::Done
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.carried]
    }

    fn restored(&mut self) {}
}
