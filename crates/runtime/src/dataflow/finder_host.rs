//! Says which splits of a source are read, and by whom: those that were there at the start, and those that its finder comes upon
//! while the job runs.
//!
//! ```text
//!  finder (worker 0) ─in turn─▶ source hosts of all workers ─offsets─▶ split tables
//!                    ├──────────────── found, released ──────────────▶
//!                    └─begin─▶ watermarks
//! ```
//!
//! # Invariants
//!
//! - The set of splits is decided here, on worker 0, and nowhere else; who reads one isn't state, and is another at the next start.
//! - A split is told to its reader, to its split table and to whoever makes watermarks in one epoch, before which it isn't read: the
//!   checkpoint that has its first rows knows it.

use std::rc::Rc;
use std::sync::Arc;

use highwater_codec::hash_key;
use serde::{Deserialize, Serialize};
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;

use super::announcer;
use super::output::Output;
use super::pacer::Signal;
use super::split_table::News;
use super::worker::Worker;
use super::{Rows, failed, not_built};
use crate::batch::{Batch, Keyed};
use crate::connector::{Finder, FinderContext, Found, Source, SplitOffset, Waker};
use crate::recover::Recovered;
use crate::watermark::One;
use crate::{BoxError, Error};

/// What one worker's reader is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ForReader {
    /// Of the epoch before which nothing of this is read.
    pub(super) timestamp: u64,
    /// The splits that it is to read.
    pub(super) splits: Vec<(String, SplitOffset)>,
    /// How many splits all workers are told of at once.
    pub(super) of_all: usize,
    /// No more will come.
    pub(super) complete: bool,
}

/// The streams that come out of the finder's host.
pub(super) struct Built<'scope> {
    pub(super) for_readers: Rows<'scope>,
    pub(super) for_tables: Rows<'scope>,
    /// That splits begin, for watermarks.
    pub(super) begins: Rows<'scope>,
}

struct Host {
    /// None where all splits are known at the start, and once there will be no more.
    finder: Option<Box<dyn Finder>>,
    /// What was there at the start, until it has been told.
    start: Option<Start>,
    /// The worker that has the next turn.
    turn: usize,
    for_readers: Output,
    for_tables: Output,
    begins: Output,
    /// Whether anybody wants to know that splits begin.
    announces: bool,
    /// The capabilities of the present epoch: for readers, for tables, for watermarks.
    present: Option<[Capability<u64>; 3]>,
    uid: Arc<str>,
    worker: Rc<Worker>,
}

struct Start {
    to_read: Vec<(String, SplitOffset)>,
    /// Those of them that no checkpoint knows.
    new: Vec<(String, SplitOffset)>,
}

pub(super) fn build<'scope>(
    scope: Scope<'scope, u64>,
    uid: &Arc<str>,
    source: &dyn Source,
    announces: bool,
    ticks: Rows<'scope>,
    recovered: &Recovered,
    worker: &Rc<Worker>,
) -> Result<Built<'scope>, Error> {
    let mut builder = OperatorBuilder::new(format!("splits of {uid}"), scope);
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let (mut finder, mut start) = (None, None);
    if worker.index == 0 {
        let splits = recovered.splits.get(&**uid).cloned().unwrap_or_default();
        start = Some(Start { to_read: splits.to_read(), new: splits.new.clone() });
        if !worker.available_now() {
            let context = FinderContext {
                uid: uid.to_string(),
                known: [splits.known, splits.new].concat(),
                env: worker.attempt.env.clone(),
                waker: Waker::new(move || {
                    wake.activate().ok();
                }),
            };
            finder = match source.finder(context) {
                Ok(finder) => finder,
                Err(error) => return Err(not_built(builder, failed("source", uid, error))),
            };
        }
    }
    let mut input = builder.new_input(ticks, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Never);
    let (for_readers, readers_stream) = Output::add(&mut builder);
    let (for_tables, tables_stream) = Output::add(&mut builder);
    let (begins, begins_stream) = Output::add(&mut builder);
    let (uid, worker) = (uid.clone(), worker.clone());
    builder.build(move |capabilities| {
        drop(capabilities);
        let present = None;
        let mut host = Host {
            finder,
            start,
            turn: 0,
            for_readers,
            for_tables,
            begins,
            announces,
            present,
            uid,
            worker,
        };
        move |_| {
            if host.worker.attempt.is_over() {
                return;
            }
            input.for_each(|capability, batch| {
                let ticks: Vec<Signal> =
                    std::mem::take(batch).take().expect("ticks are plain data of our own");
                for Signal { tick, .. } in ticks.into_iter().filter(|_| host.worker.index == 0) {
                    let timestamp = tick.epoch.timestamp();
                    let held = |port| capability.delayed(&timestamp, port);
                    host.present = tick.closing.is_none().then(|| [0, 1, 2].map(held));
                }
            });
            if let Err(error) = host.step() {
                host.worker.attempt.fail(failed("source", &host.uid, error));
            }
        }
    });
    Ok(Built { for_readers: readers_stream, for_tables: tables_stream, begins: begins_stream })
}

impl Host {
    fn step(&mut self) -> Result<(), BoxError> {
        if self.present.is_none() {
            return Ok(());
        }
        if let Some(Start { to_read, new }) = self.start.take() {
            self.tell(to_read, new, Vec::new())?;
        }
        let Some(finder) = &mut self.finder else { return Ok(()) };
        let Found { splits, released, complete } = finder.poll()?;
        if complete {
            self.finder = None;
        }
        if complete || !splits.is_empty() || !released.is_empty() {
            self.tell(splits.clone(), splits, released)?;
        }
        Ok(())
    }

    /// Deals splits to the readers in turn, and has `new` ones noted and released ones forgotten.
    fn tell(
        &mut self,
        splits: Vec<(String, SplitOffset)>,
        new: Vec<(String, SplitOffset)>,
        released: Vec<String>,
    ) -> Result<(), BoxError> {
        let [for_readers, for_tables, begins] =
            self.present.as_ref().expect("checked by the caller");
        if self.announces && !splits.is_empty() {
            let one = One::of(&self.worker.context(&self.uid));
            let ids = splits.iter().map(|(split, _)| split);
            self.begins.give(begins, announcer::begin(&self.uid, one, ids));
        }
        let peers = self.worker.peers;
        let of_all = splits.len();
        let complete = self.finder.is_none();
        let timestamp = *for_readers.time();
        let nothing = ForReader { timestamp, splits: Vec::new(), of_all, complete };
        let mut parts = vec![nothing; peers];
        for split in splits {
            parts[self.turn].splits.push(split);
            self.turn = (self.turn + 1) % peers;
        }
        let parts = parts.into_iter().map(|part| Batch::new(vec![part])).collect();
        self.for_readers.give(for_readers, Batch::split(parts));

        let found = new.into_iter().map(|(split, offset)| (split, News::Found(offset)));
        let released = released.into_iter().map(|split| (split, News::Released));
        let mut parts: Vec<Keyed<String, News>> = (0..peers).map(|_| Keyed::default()).collect();
        for (split, news) in found.chain(released) {
            let hash = hash_key(&split)?;
            parts[self.worker.owner(hash)].push(hash, split, news);
        }
        let parts = parts.into_iter().map(Batch::new).collect();
        self.for_tables.give(for_tables, Batch::split(parts));
        Ok(())
    }
}
