//! Splits that are far ahead of others in event time wait, so that what is held of them stays bounded.
//!
//! ```text
//! Watermarks ──how far each split is──┐
//! Watermarks ──of the same group──────┴─▶ Alignment ──which splits are held──▶ pacer ──with the next tick──▶ readers
//! ```
//!
//! Splits that are further ahead of the last one of their group than their stream allows are *held*: their readers leave them alone until
//! the last one has caught up. A group is the splits of one stream, or of all streams that name it.
//!
//! # Invariants
//!
//! - A split that no other one of its group is behind is never held, so that reading goes on.
//! - Which splits are held isn't state: it changes when rows are read, not what becomes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::operator::{Operator, Outputs};
use crate::watermark::{News, Told};
use crate::{BoxError, Epoch};

/// How the splits of a stream are aligned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Align {
    /// One that is further ahead of the last one than this, in event time, is held.
    pub within: Duration,
    /// With all streams of this name; none is with each other alone.
    pub group: Option<String>,
}

/// Whether a split is to be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The split, by the uid of its source and its id.
    pub split: String,
    /// It is too far ahead of others.
    pub is_held: bool,
}

/// Holds the splits of a group, on the worker that makes their watermarks.
pub(crate) struct Alignment {
    /// How far ahead those may be of which is told at each input.
    within_ms: Vec<i64>,
    splits: BTreeMap<String, Split>,
}

struct Split {
    within_ms: i64,
    /// None while it is idle.
    reached: Option<i64>,
    is_held: bool,
}

impl Alignment {
    pub(crate) fn new(within: &[Duration]) -> Self {
        let ms = |within: &Duration| i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        let within_ms = within.iter().map(ms).collect();
        Alignment { within_ms, splits: BTreeMap::new() }
    }

    fn apply(&mut self, input: usize, Told { split, news }: Told) {
        let reached = match news {
            News::Reached(reached) => Some(reached),
            News::Idle => None,
            _ => {
                self.splits.remove(&split);
                return;
            }
        };
        let within_ms = self.within_ms[input];
        let new = || Split { within_ms, reached, is_held: false };
        self.splits.entry(split).or_insert_with(new).reached = reached;
    }

    /// Finds out which splits are to be held; answers what has changed.
    fn hold(&mut self) -> Vec<Hold> {
        let last = self.splits.values().filter_map(|split| split.reached).min();
        let mut changed = Vec::new();
        for (id, split) in &mut self.splits {
            let limit = last.map(|last| last.saturating_add(split.within_ms));
            let is_held = split.reached.is_some_and(|reached| Some(reached) > limit);
            if std::mem::replace(&mut split.is_held, is_held) != is_held {
                changed.push(Hold { split: id.clone(), is_held });
            }
        }
        debug_assert!(
            self.splits.is_empty() || self.splits.values().any(|split| !split.is_held),
            "a split that no other one is behind is never held"
        );
        changed
    }
}

impl Operator for Alignment {
    fn receive(
        &mut self,
        port: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let told: Vec<Told> = batch.take()?;
        told.into_iter().for_each(|told| self.apply(port, told));
        out.emit(0, Batch::new(self.hold()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told at an input of a split; answers who is held then and who isn't any more.
    fn tell(group: &mut Alignment, input: usize, split: &str, news: News) -> Vec<Hold> {
        let told = vec![Told { split: split.to_owned(), news }];
        let mut out = Outputs::default();
        group.receive(input, Epoch::new(1, 0), Batch::new(told), &mut out).unwrap();
        out.batches.into_iter().flat_map(|(_, batch)| batch.take::<Vec<Hold>>().unwrap()).collect()
    }

    #[test]
    fn streams_of_a_group_wait_for_each_other_as_far_as_each_allows() {
        let mut group = Alignment::new(&[Duration::from_millis(10), Duration::from_millis(50)]);
        let hold = |split: &str, is_held| vec![Hold { split: split.to_owned(), is_held }];
        let orders = |news, group: &mut _| tell(group, 0, "orders", news);
        let payments = |news, group: &mut _| tell(group, 1, "payments", news);
        let reached = News::Reached;
        assert_eq!(orders(reached(30), &mut group), []);
        assert_eq!(payments(reached(10), &mut group), hold("orders", true));
        assert_eq!(payments(reached(70), &mut group), hold("orders", false));
        assert_eq!(payments(reached(81), &mut group), hold("payments", true));
        assert_eq!(orders(News::Idle, &mut group), hold("payments", false));
        assert_eq!(orders(reached(31), &mut group), []);
        assert_eq!(payments(reached(82), &mut group), hold("payments", true));
        assert_eq!(orders(News::Rests, &mut group), hold("payments", false));
    }
}
