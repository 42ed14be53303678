//! Windows that overlap: each key keeps the panes that they share, and a window is put together from them when it ends.
//!
//! A record changes one pane, whatever the number of windows that it is in. Every window end costs as much as there are keys with records in
//! the last windows, which is as many rows as it tells, and for each the panes that it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_runtime::{Data, Keyed, OperatorContext, Work};
use highwater_state::{KeyedTable, Kind, StateTable, Verdict, WARM};
use serde::{Deserialize, Serialize};

use super::grid::Grid;
use super::operator::{Late, Now, ToldRows, Windows};
use crate::api::SLICE_ROWS;
use crate::api::ordered::Timed;
use crate::api::step::Merge;

/// What the records of a key within one pane come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "A: Data")]
struct Pane<A> {
    start: i64,
    acc: A,
}

/// The windows of some keys.
pub(super) struct Panes<K, V, S: Merge<V>> {
    step: Arc<S>,
    grid: Grid,
    /// Panes are kept so much longer than their last window lasts.
    lateness: i64,
    /// Each key's, in their order. Some may be over.
    panes: KeyedTable<K, Vec<Pane<S::Acc>>>,
    /// The panes that any key has and that aren't over.
    live: BTreeSet<i64>,
    /// Windows that were told of in earlier epochs and have changed in this one, by end and the key's hash.
    again: BTreeMap<(i64, u64), Vec<K>>,
    stage: Stage,
}

/// How far the end of an epoch has got.
#[derive(Clone, Copy)]
enum Stage {
    /// Of the windows that end there, those of the key groups before this one are told of.
    Telling {
        end: i64,
        group: usize,
    },
    /// Keys without any live pane are removed; the key groups before this one are done.
    Removing {
        group: usize,
    },
    Idle,
}

impl<K: Data + Eq, V: Data, S: Merge<V>> Panes<K, V, S> {
    pub(super) fn new(context: &OperatorContext, step: Arc<S>, grid: Grid, lateness: i64) -> Self {
        let (key_groups, groups) = (context.key_groups, context.groups.clone());
        Panes {
            step,
            grid,
            lateness,
            panes: KeyedTable::new("panes", Kind::Accumulator, key_groups, groups),
            live: BTreeSet::new(),
            again: BTreeMap::new(),
            stage: Stage::Idle,
        }
    }

    /// Whether nothing of a pane is wanted any more.
    fn is_over(&self, pane: i64, watermark: i64) -> bool {
        is_over(&self.grid, self.lateness, pane, watermark)
    }

    /// The next window end after `after` of which there may be anything to tell.
    fn next_end(&self, after: i64) -> Option<i64> {
        self.live.iter().find_map(|pane| self.grid.next_end(*pane, after))
    }

    /// Notes which windows of a record have been told of already.
    fn note_again(&mut self, hash: u64, key: &K, pane: i64, now: Now) {
        let mut after = now.before.saturating_sub(self.lateness);
        while let Some(end) = self.grid.next_end(pane, after).filter(|end| *end <= now.before) {
            let keys = self.again.entry((end, hash)).or_default();
            if !keys.contains(key) {
                keys.push(key.clone());
            }
            after = end;
        }
    }

    fn tell_again(&mut self, told: &mut ToldRows<K, S::Out>) -> Work {
        while let Some(((end, hash), keys)) = self.again.pop_first() {
            for key in keys {
                if let Some(panes) = self.panes.get_hashed(hash, hash, &key) {
                    tell_one(&*self.step, &self.grid, &key, panes, end, told);
                }
            }
            if told.is_full() {
                return Work::More;
            }
        }
        Work::Done
    }

    /// Tells of the windows that end there, of some key groups from `group` on. Answers whether those were all.
    fn tell_some(&mut self, end: i64, group: usize, told: &mut ToldRows<K, S::Out>) -> bool {
        let mut seen = 0;
        for index in group..self.panes.group_count() {
            if told.is_full() || seen >= SLICE_ROWS {
                self.stage = Stage::Telling { end, group: index };
                return false;
            }
            for (key, panes) in self.panes.group_entries(index) {
                seen += 1;
                tell_one(&*self.step, &self.grid, key, panes, end, told);
            }
        }
        true
    }

    /// Removes keys that have nothing but panes that are over, of some key groups from `group` on. Answers whether those were all.
    fn remove_some(&mut self, group: usize, watermark: i64) -> bool {
        let (grid, lateness) = (self.grid, self.lateness);
        let mut seen = 0;
        for index in group..self.panes.group_count() {
            if seen >= SLICE_ROWS {
                self.stage = Stage::Removing { group: index };
                return false;
            }
            let visited = self.panes.visit_group(index, |_, panes| {
                seen += 1;
                let all = panes.iter().all(|pane| is_over(&grid, lateness, pane.start, watermark));
                Ok::<_, std::convert::Infallible>(if all { Verdict::Remove } else { Verdict::Keep })
            });
            let Ok(()) = visited;
        }
        true
    }
}

/// Whether no window with a pane is kept any more.
fn is_over(grid: &Grid, lateness: i64, pane: i64, watermark: i64) -> bool {
    grid.last_end(pane).is_none_or(|last| last.saturating_add(lateness) <= watermark)
}

/// Tells of the window of a key that ends there, if it has any records.
fn tell_one<K: Data, V: Data, S: Merge<V>>(
    step: &S,
    grid: &Grid,
    key: &K,
    panes: &[Pane<S::Acc>],
    end: i64,
    told: &mut ToldRows<K, S::Out>,
) {
    let start = grid.start_of(end);
    // Most often all that there are, and never many that aren't.
    let first = panes.iter().position(|pane| pane.start >= start).unwrap_or(panes.len());
    let behind = panes.iter().rposition(|pane| pane.start < end).map_or(0, |last| last + 1);
    let Some((oldest, others)) = panes.get(first..behind).and_then(<[_]>::split_first) else {
        return;
    };
    let mut acc = oldest.acc.clone();
    others.iter().for_each(|pane| step.merge(&mut acc, pane.acc.clone()));
    told.push(key.clone(), (start, end), step.out(&acc));
}

impl<K: Data + Eq, V: Data, S: Merge<V>> Windows for Panes<K, V, S> {
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
        for (index, (key, value)) in rows.into_iter().enumerate() {
            if index % WARM == 0 {
                let soon = &hashes[index..hashes.len().min(index + WARM)];
                self.panes.warm(soon.iter().map(|hash| (*hash, *hash)));
            }
            let (hash, time) = (hashes[index], times[index]);
            let start = self.grid.pane_of(time);
            // Between windows that leave gaps.
            let Some(last) = self.grid.last_end(start) else { continue };
            if last.saturating_add(self.lateness) <= now.before {
                late.push(key, value, time);
                continue;
            }
            if self.lateness > 0 {
                self.note_again(hash, &key, start, now);
            }
            let (step, grid, lateness) = (&*self.step, &self.grid, self.lateness);
            let panes = self.panes.upsert_hashed(hash, hash, key, Vec::new).value;
            // Nearly all records are of the youngest pane.
            let behind = panes.iter().rposition(|pane| pane.start <= start).map_or(0, |at| at + 1);
            match behind.checked_sub(1).map(|at| &mut panes[at]) {
                Some(pane) if pane.start == start => step.add(&mut pane.acc, value),
                _ => {
                    panes.insert(behind, Pane { start, acc: step.first(value) });
                    // The oldest go first.
                    let is_over = |pane: &&Pane<_>| is_over(grid, lateness, pane.start, now.before);
                    let over = panes.iter().take_while(is_over).count();
                    panes.drain(..over);
                    self.live.insert(start);
                }
            }
        }
    }

    fn tell(&mut self, now: Now, told: &mut ToldRows<K, S::Out>) -> Work {
        if self.tell_again(told) == Work::More {
            return Work::More;
        }
        if let Stage::Idle = self.stage {
            self.stage = match self.next_end(now.before) {
                Some(end) => Stage::Telling { end, group: 0 },
                None => Stage::Removing { group: 0 },
            };
        }
        while let Stage::Telling { end, group } = self.stage {
            if end > now.watermark {
                self.stage = Stage::Removing { group: 0 };
            } else if !self.tell_some(end, group, told) {
                return Work::More;
            } else {
                self.stage = match self.next_end(end) {
                    Some(end) => Stage::Telling { end, group: 0 },
                    None => Stage::Removing { group: 0 },
                };
            }
        }
        if let Stage::Removing { group } = self.stage {
            let ends = self.live.first().is_some_and(|pane| self.is_over(*pane, now.watermark));
            if ends && !self.remove_some(group, now.watermark) {
                return Work::More;
            }
            while self.live.first().is_some_and(|pane| self.is_over(*pane, now.watermark)) {
                self.live.pop_first();
            }
        }
        self.stage = Stage::Idle;
        Work::Done
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.panes]
    }

    fn restored(&mut self) {
        let groups = 0..self.panes.group_count();
        let panes =
            groups.flat_map(|group| self.panes.group_entries(group)).flat_map(|(_, panes)| panes);
        self.live = panes.map(|pane| pane.start).collect();
    }
}
