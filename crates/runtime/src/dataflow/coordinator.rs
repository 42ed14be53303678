//! The coordinator, on worker 0: gathers what all workers report, and tells the committer when a checkpoint is complete and
//! the pacer when all sources are at their end, and which splits are held.
//!
//! A checkpoint is complete when the frontier has passed its interval *and* the report of every worker is in.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use timely::dataflow::Scope;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use tokio::sync::mpsc::UnboundedSender;

use super::pacer::{Closing, Tick};
use super::route::{self, Whole};
use super::source_host::Ended;
use super::uploader::WorkerReport;
use super::worker::Worker;
use super::{Rows, intake};
use crate::alignment::Hold;
use crate::plan::{Checked, Role};
use crate::time::Epoch;

/// A checkpoint of which every worker has reported.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) interval: u32,
    /// The last epoch that it covers.
    pub(crate) epoch: Epoch,
    pub(crate) clock_ms: u64,
    pub(crate) trigger: u64,
    /// Why it is the last one of this attempt, if it is.
    pub(crate) closing: Option<Closing>,
    /// By worker.
    pub(crate) reports: Vec<WorkerReport>,
}

pub(super) fn build<'scope>(
    scope: Scope<'scope, u64>,
    reports: Rows<'scope>,
    ends: Vec<Rows<'scope>>,
    holds: Vec<Rows<'scope>>,
    plan: &Checked,
    worker: &Rc<Worker>,
    committer: Option<UnboundedSender<Ready>>,
) {
    let mut builder = OperatorBuilder::new("coordinator".to_owned(), scope);
    let contract = || route::pact(Whole::To(0), worker.index);
    let mut reports = builder.new_input(reports, contract());
    let mut ends: Vec<_> =
        ends.into_iter().map(|stream| builder.new_input(stream, contract())).collect();
    let mut holds: Vec<_> =
        holds.into_iter().map(|stream| builder.new_input(stream, contract())).collect();
    let sources = plan.nodes().iter().enumerate();
    let mut reading: BTreeSet<(usize, usize)> = sources
        .filter(|(_, node)| matches!(node.role, Role::Source(..)))
        .flat_map(|(node, _)| (0..worker.peers).map(move |worker| (node, worker)))
        .collect();
    let worker = worker.clone();
    let ticks = worker.subscribe();
    let mut gathered: BTreeMap<u32, Vec<WorkerReport>> = BTreeMap::new();
    let mut last_tick: Option<Tick> = None;
    builder.build(move |_| {
        move |frontiers| {
            reports.for_each(|_, batch| {
                let batch: Vec<WorkerReport> =
                    std::mem::take(batch).take().expect("reports are plain data of our own");
                for report in batch {
                    gathered.entry(report.interval).or_default().push(report);
                }
            });
            let mut news = false;
            for input in &mut ends {
                input.for_each(|_, batch| {
                    let batch: Vec<Ended> =
                        std::mem::take(batch).take().expect("ends are plain data of our own");
                    for Ended { node, worker } in batch {
                        news |= reading.remove(&(node, worker));
                    }
                });
            }
            for input in &mut holds {
                input.for_each(|_, batch| {
                    let batch: Vec<Hold> =
                        std::mem::take(batch).take().expect("holds are plain data of our own");
                    worker.holds.borrow_mut().extend(batch);
                });
            }
            if worker.attempt.is_over() || worker.index != 0 {
                ticks.borrow_mut().clear();
                return;
            }
            if news && reading.is_empty() {
                worker.sources_ended.set(true);
                worker.attempt.wake_pacer();
            }
            let frontier = intake::least(&frontiers[..1]);
            while let Some((&interval, all)) = gathered.first_key_value() {
                let passed = frontier.is_none_or(|frontier| frontier.interval() > interval);
                if all.len() < worker.peers || !passed {
                    break;
                }
                let mut reports = gathered.remove(&interval).expect("just seen");
                reports.sort_by_key(|report| report.worker);
                let mut ticks = ticks.borrow_mut();
                while ticks.front().is_some_and(|tick| tick.epoch.interval() <= interval) {
                    if let Some(tick) = ticks.pop_front() {
                        last_tick = Some(tick);
                    }
                }
                let tick = last_tick.expect("an interval has a tick, which came before its end");
                let ready = Ready {
                    interval,
                    epoch: tick.epoch,
                    clock_ms: tick.clock_ms,
                    // If a trigger ends with the interval, an attempt that goes on from there begins the next one.
                    trigger: ticks.front().map_or(tick.trigger, |next| next.trigger),
                    closing: tick.closing,
                    reports,
                };
                if let Some(committer) = &committer {
                    // A committer that is gone has failed the attempt.
                    committer.send(ready).ok();
                }
            }
        }
    });
}
