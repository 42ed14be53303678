//! Windows that overlap: each key keeps the panes that they share ([`KeyPanes`]), and a window is put together from them when it ends.
//!
//! A record changes one pane, whatever the number of windows that it is in. Every window end costs as much as there are keys with records in
//! the last windows, which is as many rows as it tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_runtime::{Data, Keyed, OperatorContext, Work};
use highwater_state::{AHEAD, KeyedTable, Kind, Spot, StateTable};

use super::grid::Grid;
use super::key_panes::KeyPanes;
use super::operator::{Late, Now, ToldRows, Windows};
use crate::api::SLICE_ROWS;
use crate::api::ordered::Timed;
use crate::api::step::Merge;

/// Of so many panes a window is put together faster than from sums.
const FEW: i64 = 8;

const TAKEN_ONCE: &str = "a value is taken once";

/// The windows of some keys.
pub(super) struct Panes<K, V, S: Merge<V>> {
    step: Arc<S>,
    grid: Grid,
    /// Panes are kept so much longer than their last window lasts.
    lateness: i64,
    panes: KeyedTable<K, KeyPanes<S::Acc>>,
    /// Keys keep sums of their panes.
    keeps_sums: bool,
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
    /// Nothing is left to tell. Keys without any live pane are removed; the key groups before this one are done.
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
            keeps_sums: !S::GROWS && grid.panes() > FEW,
            live: BTreeSet::new(),
            again: BTreeMap::new(),
            stage: Stage::Idle,
        }
    }

    /// The first pane of which anything is wanted after `time`.
    fn first_live(&self, time: i64) -> i64 {
        match time {
            i64::MAX => time,
            _ => self.grid.first_live(time.saturating_sub(self.lateness)),
        }
    }

    /// The next window end after `after`, and until `watermark`, of which there may be anything to tell.
    fn next_telling(&self, after: i64, watermark: i64) -> Stage {
        let next = self.live.iter().find_map(|pane| self.grid.next_end(*pane, after));
        match next.filter(|end| *end <= watermark) {
            Some(end) => Stage::Telling { end, group: 0 },
            None => Stage::Removing { group: 0 },
        }
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
            let span = (self.grid.start_of(end), end);
            for key in keys {
                let panes = self.panes.get_hashed(hash, hash, &key);
                let merge = |acc: &mut S::Acc, other| self.step.merge(acc, other);
                if let Some(acc) = panes.and_then(|panes| panes.window(span, merge)) {
                    told.push(key, span, self.step.out(&acc));
                }
            }
            if told.is_full() {
                return Work::More;
            }
        }
        Work::Done
    }

    /// Tells of the windows that end there, of some key groups from `group` on, and removes keys that have nothing but panes that are over by then.
    /// Answers whether those were all.
    fn tell_some(&mut self, end: i64, group: usize, told: &mut ToldRows<K, S::Out>) -> bool {
        let live = self.first_live(end);
        let mut seen = 0;
        for index in group..self.panes.group_count() {
            if told.is_full() || seen >= SLICE_ROWS {
                self.stage = Stage::Telling { end, group: index };
                return false;
            }
            seen += self.tell_group(index, end, live, told);
        }
        true
    }

    /// Tells of the windows of a key group that end there, and removes keys that have nothing but panes before `live`. Answers how many keys
    /// it had.
    fn tell_group(
        &mut self,
        index: usize,
        end: i64,
        live: i64,
        told: &mut ToldRows<K, S::Out>,
    ) -> usize {
        let span = (self.grid.start_of(end), end);
        let merge = |acc: &mut S::Acc, other| self.step.merge(acc, other);
        let mut entries = self.panes.group_entries(index);
        let (mut over, mut seen) = (Vec::new(), 0);
        loop {
            // Panes of several keys are read together, since each is a wait for memory.
            if seen % AHEAD == 0 {
                entries.clone().take(AHEAD).for_each(|(_, panes)| panes.prefetch_ends());
            }
            let Some((key, panes)) = entries.next() else { break };
            seen += 1;
            if panes.last() < live {
                over.push(key.clone());
            }
            let acc = match self.keeps_sums {
                true => panes.next_window(span, merge),
                false => panes.window(span, merge),
            };
            if let Some(acc) = acc {
                told.push(key.clone(), span, self.step.out(&acc));
            }
        }
        drop(entries);
        for key in over {
            self.panes.remove(&key);
        }
        seen
    }

    /// Removes the keys of a key group that have nothing but panes before `live`. Answers how many keys it had.
    fn remove_group(&mut self, index: usize, live: i64) -> usize {
        let (mut over, mut seen) = (Vec::new(), 0);
        for (key, panes) in self.panes.group_entries(index) {
            seen += 1;
            if panes.last() < live {
                over.push(key.clone());
            }
        }
        for key in over {
            self.panes.remove(&key);
        }
        seen
    }

    /// Removes keys that have nothing but panes before `live`, of some key groups from `group` on. Answers whether those were all.
    fn remove_some(&mut self, group: usize, live: i64) -> bool {
        let mut seen = 0;
        for index in group..self.panes.group_count() {
            if seen >= SLICE_ROWS {
                self.stage = Stage::Removing { group: index };
                return false;
            }
            seen += self.remove_group(index, live);
        }
        true
    }
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
        let live = self.first_live(now.before);
        // The pane that was found last, and whether it is in any window: slides may leave gaps.
        let (mut pane, mut is_used) = (0..0, false);
        let mut spots = [Spot::default(); AHEAD];
        for (index, (key, value)) in rows.into_iter().enumerate() {
            if index % AHEAD == 0 {
                let soon = hashes[index..].iter().take(AHEAD);
                spots = self.panes.look_ahead(soon.clone().map(|hash| (*hash, *hash)));
                for (spot, hash) in spots.iter().zip(soon) {
                    if let Some(panes) = self.panes.glance(*spot, *hash) {
                        panes.prefetch_next(pane.start);
                    }
                }
            }
            let (hash, time) = (hashes[index], times[index]);
            if !pane.contains(&time) {
                let start = self.grid.pane_of(time);
                pane = start..start.saturating_add(self.grid.pane);
                is_used = self.grid.last_end(start).is_some();
            }
            let start = pane.start;
            if !is_used {
                continue;
            }
            if start < live {
                late.push(key, value, time);
                continue;
            }
            if self.lateness > 0 {
                self.note_again(hash, &key, start, now);
            }
            let step = &*self.step;
            let mut value = Some(value);
            let first = || KeyPanes::new(start, step.first(value.take().expect(TAKEN_ONCE)));
            let panes = self.panes.upsert_at(spots[index % AHEAD], hash, hash, key, first).value;
            if let Some(value) = value {
                match panes.at(start) {
                    Some(acc) => {
                        step.add(acc, value);
                        continue;
                    }
                    None => panes.push(start, step.first(value), live),
                }
            }
            if self.live.last() != Some(&start) {
                self.live.insert(start);
            }
        }
    }

    fn tell(&mut self, now: Now, told: &mut ToldRows<K, S::Out>) -> Work {
        if self.tell_again(told) == Work::More {
            return Work::More;
        }
        if let Stage::Idle = self.stage {
            self.stage = self.next_telling(now.before, now.watermark);
        }
        while let Stage::Telling { end, group } = self.stage {
            if !self.tell_some(end, group, told) {
                return Work::More;
            }
            self.stage = self.next_telling(end, now.watermark);
        }
        if let Stage::Removing { group } = self.stage {
            let live = self.first_live(now.watermark);
            // A pane that is kept no longer than its last window went with that.
            let removes = self.lateness > 0 && self.live.first().is_some_and(|pane| *pane < live);
            if removes && !self.remove_some(group, live) {
                return Work::More;
            }
            while self.live.first().is_some_and(|pane| *pane < live) {
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
        let panes = groups.flat_map(|group| self.panes.group_entries(group));
        self.live = panes.flat_map(|(_, panes)| panes.starts()).collect();
    }
}
