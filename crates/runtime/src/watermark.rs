//! Watermarks: how far event time is at the end of each epoch.
//!
//! Whoever knows the times of rows tells how far each split is; one operator, on one worker, makes of it the watermark of
//! each epoch, and tells that to every worker, whenever it has changed.
//!
//! ```text
//!  source ─rows─▶ event_time ─rows─▶ ...            a window, a timer: is told the least of all watermarks
//!     │ splits begin and end │ times of a split             ▲       behind which it comes (Combine, if there are several)
//!     └────────────────▶ Watermarks ──at the end of an epoch, to all workers
//!                            └──how far each split is, if they are aligned──▶ Alignment
//! ```
//!
//! The watermark is the least of what the splits say. A split that was never heard of holds it back, until it has
//! been silent for the idle timeout; one that has ended doesn't count any more. If none is left to wait for, time is as far as the
//! furthest has come; when all sources are at their end, time goes to the end, too.
//!
//! If splits are to be aligned ([`alignment`](crate::alignment)), it also tells how far each is. Only splits count there of which rows have come in this attempt and that are
//! neither idle nor at their end: a split that waits behind another one for its reader is read whenever that one is done, and must not
//! hold up what it waits for.
//!
//! # Invariants
//!
//! - The watermark at the end of an epoch depends on the epochs up to it, not on when their rows arrived anywhere: what is told of an
//!   epoch is applied when the epoch is complete.
//! - It never falls, also across attempts. (5) It, and what it is made of, is state: how far each split is, whether it is idle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_codec::hash_key;
use highwater_state::{ByFirst, Image, KeyGroups, KeyedTable, Kind, StateError, StateTable};
use serde::{Deserialize, Serialize};

use crate::alignment::Align;
use crate::batch::Batch;
use crate::operator::{EpochEnd, Operator, OperatorContext, Outputs, Work};
use crate::{BoxError, Epoch};

/// The watermark when all sources are at their end.
pub const END_OF_TIME: i64 = i64::MAX;

/// Stands for all splits that have ended. The rows of a watermark that is made by splits all have one.
const ENDED: &str = "";

/// The key of all that there is only one of.
const ONE: u8 = 0;

/// What is told of one split, or by one [`Watermarks`] to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The split, by the uid of its source and its id. Empty if rows aren't known by splits.
    pub split: String,
    /// What is told of it.
    pub news: News,
}

/// What can be told of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// It is there: it holds the watermark back until something is known of it.
    Begins,
    /// Nothing below this time comes from it any more.
    Reached(i64),
    /// It isn't read for now though it may have rows, so that it isn't idle.
    Waits,
    /// It counts again, though nothing is known of it yet.
    Active,
    /// It has been silent, and doesn't hold anything back until it is heard of again.
    Idle,
    /// Nothing comes from it any more.
    Ends,
    /// Nothing comes from it any more in this attempt.
    Rests,
    /// The source of that uid is at its end on one worker.
    SourceEnds {
        /// That worker.
        worker: usize,
    },
}

/// The worker that has what there is only one of.
#[derive(Clone, Copy, Debug)]
pub struct One {
    owner: usize,
    workers: usize,
}

impl One {
    /// As the workers of this operator know it.
    pub fn of(context: &OperatorContext) -> Self {
        let hash = hash_key(&ONE).expect("a number can be hashed");
        // There are no owners where only names are asked for.
        let owner = context.owners.get(context.key_groups.of(hash) as usize).copied();
        One { owner: owner.unwrap_or_default() as usize, workers: context.workers }
    }

    /// What is told, on its way to that worker.
    pub fn tell(self, told: Vec<Told>) -> Batch {
        let mut parts: Vec<Batch> = (0..self.workers).map(|_| Batch::default()).collect();
        parts[self.owner] = Batch::new(told);
        Batch::split(parts)
    }
}

/// Of what a watermark is made.
#[derive(Clone, Debug)]
pub enum Of {
    /// Of the splits that so many sources announce.
    Splits {
        /// How many sources.
        sources: usize,
    },
    /// Of rows without splits.
    Rows,
    /// Of other watermarks, one at each input.
    Watermarks(usize),
}

/// What becomes of splits that don't go on like the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stragglers {
    /// A split that is silent for so long isn't waited for.
    pub idle_after: Option<Duration>,
    /// Those that are far ahead are held.
    pub align: Option<Align>,
}

/// How far a split is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SplitTime {
    /// Nothing below this time comes from it; none before its first row.
    reached: Option<i64>,
    /// The engine's clock when it was last heard of.
    heard_ms: u64,
    idle: bool,
}

/// Makes watermarks, on the one worker that owns them; on the others it does nothing.
pub struct Watermarks {
    of: Of,
    stragglers: Stragglers,
    is_owner: bool,
    workers: usize,
    splits: KeyedTable<(u8, String), SplitTime, ByFirst>,
    watermark: KeyedTable<u8, i64>,
    /// Told in epochs that aren't complete.
    told: BTreeMap<Epoch, Vec<Told>>,
    /// Sources at their end, by worker. A source that has ended says so again in every attempt.
    ended: BTreeSet<(String, usize)>,
    /// Splits that are to be aligned: such as have had rows in this attempt and may have more, with what was told of them last.
    aligned: BTreeMap<String, Option<News>>,
    /// Such as aren't any more, which is to be told.
    left: Vec<String>,
    /// At the end of the last epoch nothing was to be waited for, and whoever listens knows it.
    told_idle: bool,
    begun: bool,
}

/// The state in which a watermark is kept.
const WATERMARK: &str = "watermark";

impl Watermarks {
    /// The part of one worker.
    pub fn new(context: &OperatorContext, of: Of, stragglers: Stragglers) -> Self {
        let (key_groups, groups) = (context.key_groups, &context.groups);
        Watermarks {
            of,
            stragglers,
            is_owner: One::of(context).owner == context.worker,
            workers: context.workers,
            splits: KeyedTable::new("splits", Kind::MapEntry, key_groups, groups.clone()),
            watermark: KeyedTable::new(WATERMARK, Kind::Value, key_groups, groups.clone()),
            told: BTreeMap::new(),
            ended: BTreeSet::new(),
            aligned: BTreeMap::new(),
            left: Vec::new(),
            told_idle: false,
            begun: false,
        }
    }

    /// What is waited for from the start on, whether or not it is ever heard of.
    fn expected(&self) -> Vec<String> {
        match self.of {
            Of::Splits { .. } => Vec::new(),
            Of::Rows => vec![String::new()],
            Of::Watermarks(inputs) => (0..inputs).map(|input| input.to_string()).collect(),
        }
    }

    fn apply(&mut self, told: Told, clock_ms: u64) {
        let Told { split, news } = told;
        if let News::SourceEnds { worker } = news {
            self.ended.insert((split, worker));
            return;
        }
        match news {
            News::Ends | News::Rests => {
                let left = self.aligned.remove_entry(&split);
                self.left.extend(left.map(|(split, _)| split));
            }
            News::Reached(_) if self.stragglers.align.is_some() => {
                self.aligned.entry(split.clone()).or_default();
            }
            _ => {}
        }
        if news == News::Rests {
            return;
        }
        let key = (ONE, split);
        if news == News::Ends {
            let reached = self.splits.remove(&key).and_then(|time| time.reached);
            let ended = self.splits.upsert((ONE, ENDED.to_owned()), SplitTime::default);
            ended.reached = ended.reached.max(reached);
            ended.idle = true;
            return;
        }
        let time = self.splits.upsert(key, SplitTime::default);
        match news {
            News::Reached(reached) => {
                time.reached = time.reached.max(Some(reached));
                time.idle = false;
            }
            News::Active => time.idle = false,
            News::Idle => time.idle = true,
            // A split that was idle before a restart is idle after it.
            _ => {}
        }
        time.heard_ms = clock_ms;
    }

    /// Nobody was silent while nothing ran: splits that aren't idle are silent from the start of the attempt on, whenever it is told that they are there.
    fn hear_all(&mut self, clock_ms: u64) {
        let active = self.all().filter(|(_, time)| !time.idle);
        let active: Vec<_> = active.map(|(key, _)| key.clone()).collect();
        for key in active {
            self.splits.upsert(key, SplitTime::default).heard_ms = clock_ms;
        }
    }

    /// Finds splits that have been silent for too long.
    fn find_idle(&mut self, clock_ms: u64) {
        let Some(timeout) = self.stragglers.idle_after else { return };
        let timeout_ms = timeout.as_millis() as u64;
        let silent =
            |time: &SplitTime| !time.idle && clock_ms.saturating_sub(time.heard_ms) >= timeout_ms;
        let silent: Vec<_> =
            self.all().filter(|(_, time)| silent(time)).map(|(key, _)| key.clone()).collect();
        for key in silent {
            self.splits.upsert(key, SplitTime::default).idle = true;
        }
    }

    /// How far the splits are that are to be aligned, where that has changed.
    fn tell_aligned(&mut self) -> Vec<Told> {
        let rests = |split| Told { split, news: News::Rests };
        let mut told: Vec<Told> = self.left.drain(..).map(rests).collect();
        for (split, last) in &mut self.aligned {
            let time = self.splits.get(&(ONE, split.clone()));
            let reached = time.filter(|time| !time.idle).and_then(|time| time.reached);
            let news = reached.map_or(News::Idle, News::Reached);
            if last.replace(news) != Some(news) {
                told.push(Told { split: split.clone(), news });
            }
        }
        told
    }

    fn all(&self) -> impl Iterator<Item = (&(u8, String), &SplitTime)> {
        (0..self.splits.group_count()).flat_map(|group| self.splits.group_entries(group))
    }

    /// Whether there is nothing to wait for.
    fn is_idle(&self) -> bool {
        !self.splits.is_empty() && self.all().all(|(_, time)| time.idle)
    }

    /// All sources are at their end, on all workers.
    fn has_ended(&self) -> bool {
        matches!(self.of, Of::Splits { sources } if self.ended.len() == sources * self.workers)
    }
}

impl std::fmt::Debug for Watermarks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watermarks(of {:?})", self.of)
    }
}

impl Operator for Watermarks {
    fn receive(
        &mut self,
        port: usize,
        epoch: Epoch,
        batch: Batch,
        _: &mut Outputs,
    ) -> Result<(), BoxError> {
        if self.is_owner {
            let mut told: Vec<Told> = batch.take()?;
            if let Of::Watermarks(_) = self.of {
                told.iter_mut().for_each(|told| told.split = port.to_string());
            }
            self.told.entry(epoch).or_default().append(&mut told);
        }
        Ok(())
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        if !self.is_owner {
            return Ok(Work::Done);
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.hear_all(end.clock_ms);
            for split in self.expected() {
                self.apply(Told { split, news: News::Begins }, end.clock_ms);
            }
        }
        let mut told = self.told.remove(&end.epoch).unwrap_or_default();
        // A split's rows and its end come different ways, and its end may be here first.
        told.sort_by_key(|told| matches!(told.news, News::Ends | News::Rests));
        for told in told {
            self.apply(told, end.clock_ms);
        }
        self.find_idle(end.clock_ms);
        let before = self.watermark.get(&ONE).copied();
        let is_idle = self.is_idle();
        let times = self.all().map(|(_, time)| time);
        let reached = match is_idle {
            true => times.map(|time| time.reached).max().flatten(),
            // None as long as nothing is known of one of them.
            false => times.filter(|time| !time.idle).map(|time| time.reached).min().flatten(),
        };
        let now = match end.finished || self.has_ended() {
            true => Some(END_OF_TIME),
            false => before.max(reached),
        };
        let news = match now {
            Some(now) if Some(now) != before => {
                self.watermark.set(ONE, now);
                Some(News::Reached(now))
            }
            Some(now) if self.told_idle && !is_idle => Some(News::Reached(now)),
            None if self.told_idle && !is_idle => Some(News::Active),
            _ => None,
        };
        let idle = (is_idle && (!self.told_idle || news.is_some())).then_some(News::Idle);
        self.told_idle = is_idle;
        let told: Vec<Told> =
            news.into_iter().chain(idle).map(|news| Told { split: String::new(), news }).collect();
        if !told.is_empty() {
            let parts = (0..self.workers).map(|_| Batch::new(told.clone())).collect();
            out.emit(0, Batch::split(parts));
        }
        out.emit(1, Batch::new(self.tell_aligned()));
        Ok(Work::Done)
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.splits, &mut self.watermark]
    }

    fn restored(&mut self) {
        self.told_idle = self.is_idle();
    }
}

/// The watermark in an image that the operator `uid` keeps; none if it had none.
pub(crate) fn read(
    uid: &str,
    image: &Image,
    key_groups: KeyGroups,
) -> Result<Option<i64>, StateError> {
    let mut table: KeyedTable<u8, i64> =
        KeyedTable::new(WATERMARK, Kind::Value, key_groups, 0..key_groups.count());
    table.restore(uid, image)?;
    Ok(table.get(&ONE).copied())
}

#[cfg(test)]
#[path = "watermark_tests.rs"]
mod tests;
