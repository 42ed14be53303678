//! Runs the reader of one source on one worker, and the stateless operators behind it.
//!
//! A tick gives the capability of the next epoch; what is read until the next tick belongs to it. In the last epoch of an
//! interval the reader's offsets go to the split table, before the capability moves on, so that they are frozen with
//! exactly the records that they stand for. What is to be read is said by the host of the source's finder.
//!
//! If event time is made of the source's rows, it also announces which splits wait and end, in the epoch in which that is so. Ticks say which of them are
//! held because they are far ahead: a reader isn't polled while it reads nothing else.
//!
//! # Invariants
//!
//! - A split isn't read in an epoch before the one in which it was told, so that the watermark knows all splits that were told at
//!   once before it moves with the rows of one.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use highwater_codec::hash_key;
use serde::{Deserialize, Serialize};
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;
use timely::scheduling::Activator;

use super::announcer::Announcer;
use super::finder_host::ForReader;
use super::operator_host::SLICE;
use super::output::{self, Output};
use super::pacer::Signal;
use super::route::{self, Whole};
use super::worker::Worker;
use super::{Rows, failed};
use crate::attempt::Control;
use crate::batch::{Batch, Keyed};
use crate::careful::{CarefulReader, Turn};
use crate::connector::{
    Malformed, MalformedRecords, Polled, Reader, ReaderContext, Reject, Source, SplitOffset, Waker,
};
use crate::observe::{HostFacts, HostName};
use crate::operator::{Link, Outputs, run_through};
use crate::plan::NodeId;
use crate::time::Epoch;
use crate::watermark::One;
use crate::{BoxError, Error};

/// So many bytes are beside a row on its way: the hash of its key, and the key if it is small.
const BESIDE_ROW: usize = 16;

/// After so many bytes others have their turn, too: operators get rows while they still are in the processor's caches.
const SLICE_BYTES: usize = 512 << 10;

/// What a source's host is made of.
pub(super) struct Parts<'scope, 's> {
    pub(super) node: NodeId,
    pub(super) name: HostName,
    pub(super) uid: Arc<str>,
    pub(super) source: &'s dyn Source,
    pub(super) malformed: Malformed,
    pub(super) rest: Vec<Link>,
    pub(super) output_count: usize,
    /// The output for records that can't be read, if they are rejected.
    pub(super) rejects: Option<usize>,
    /// The output at which splits are announced, if anybody wants to know.
    pub(super) announces: Option<usize>,
    /// Which of all readers of the job this one is, and how many there are.
    pub(super) turn: (usize, usize),
    /// Its splits may be held.
    pub(super) is_aligned: bool,
    pub(super) ticks: Rows<'scope>,
    pub(super) splits: Rows<'scope>,
}

/// The streams that come out of it.
pub(super) struct Built<'scope> {
    pub(super) outputs: Vec<Rows<'scope>>,
    pub(super) offsets: Rows<'scope>,
    pub(super) ends: Rows<'scope>,
}

/// A source is at its end on one worker.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) node: NodeId,
    pub(super) worker: usize,
}

struct Host {
    node: NodeId,
    uid: Arc<str>,
    reader: Box<dyn Reader>,
    /// Only while a record is looked for, or left out, that makes the job fail.
    careful: Option<CarefulReader>,
    rest: Vec<Link>,
    /// None if nobody wants to know.
    announcer: Option<Announcer>,
    is_aligned: bool,
    /// Where rejects go, among the outputs.
    rejects: Option<usize>,
    outputs: Vec<Output>,
    offsets: Output,
    ends: Output,
    /// The present epoch with its capabilities: one for each output, then offsets, then ends. None before the first tick and
    /// after the last.
    present: Option<(Epoch, Vec<Capability<u64>>)>,
    /// What was told by the finder's host and isn't being read yet.
    to_come: VecDeque<ForReader>,
    /// Offsets that have moved in this interval.
    unreported: BTreeMap<String, SplitOffset>,
    state: State,
    /// Since this host's turn began.
    sent_bytes: usize,
    /// No more splits will come.
    complete: bool,
    facts: Arc<HostFacts>,
    worker: Rc<Worker>,
    activator: Activator,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// All splits so far are at their end.
    Idle,
    Reading,
    /// The reader wants no more calls in this epoch.
    EpochOver(Epoch),
    /// All splits are at their end, and no more will come.
    Ended,
}

pub(super) fn build<'scope>(
    scope: Scope<'scope, u64>,
    parts: Parts<'scope, '_>,
    worker: &Rc<Worker>,
) -> Result<Built<'scope>, Error> {
    let Parts { node, name, uid, source, malformed, rest, output_count, ticks, splits, .. } = parts;
    let (rejects, announces, is_aligned) = (parts.rejects, parts.announces, parts.is_aligned);
    let careful = CarefulReader::new(&worker.attempt.settings.care, &uid, parts.turn);
    let (facts, presence) = worker.facts.add_host(name, None);
    let mut builder = OperatorBuilder::new(uid.to_string(), scope);
    let address = builder.operator_info().address;
    let activator = scope.activator_for(address.clone());
    worker.add_source(scope.activator_for(address.clone()));
    let wake = scope.worker().sync_activator_for(address.to_vec());
    let settings = &worker.attempt.settings;
    let progress = facts.reader.clone().unwrap_or_default();
    let announcer =
        announces.map(|output| Announcer::new(&uid, output, One::of(&worker.context(&uid))));
    let context = ReaderContext {
        uid: uid.to_string(),
        worker: worker.index,
        workers: worker.peers,
        available_now: worker.available_now(),
        rows: settings.batch_rows.max(1),
        env: worker.attempt.env.clone(),
        waker: Waker::new(move || {
            wake.activate().ok();
        }),
        control: Control(worker.attempt.clone()),
        malformed: MalformedRecords::new(&uid, malformed, progress.clone()),
        progress,
    };
    let reader = match source.reader(context) {
        Ok(reader) => reader,
        Err(error) => return Err(super::not_built(builder, failed("source", &uid, error))),
    };

    let mut input = builder.new_input(ticks, Pipeline);
    let (mut outputs, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..output_count {
        let (output, stream) = Output::add(&mut builder);
        outputs.push(output);
        streams.push(stream);
    }
    let (offsets, offsets_stream) = Output::add(&mut builder);
    let (ends, ends_stream) = Output::add(&mut builder);
    // What is read has its time from the ticks alone.
    let contract = route::pact(Whole::To(0), worker.index);
    let mut splits = builder.new_input_connection(splits, contract, []);
    builder.set_notify_for(1, FrontierInterest::Never);
    let worker = worker.clone();
    builder.build(move |capabilities| {
        // Ticks bring capabilities; until the first one the pacer's keeps time from passing.
        drop(capabilities);
        let port_count = outputs.len() + 2;
        let (state, complete) = (State::Idle, false);
        let mut host = Host {
            node,
            uid,
            reader,
            careful,
            rest,
            announcer,
            is_aligned,
            rejects,
            outputs,
            offsets,
            ends,
            present: None,
            to_come: VecDeque::new(),
            unreported: BTreeMap::new(),
            state,
            sent_bytes: 0,
            complete,
            facts,
            worker,
            activator,
        };
        move |_| {
            if host.worker.attempt.is_over() {
                return;
            }
            let _visit = presence.enter(host.worker.attempt.env.monotonic());
            let mut ticks: Vec<(Signal, Vec<Capability<u64>>)> = Vec::new();
            input.for_each(|capability, batch| {
                let batch: Vec<Signal> =
                    std::mem::take(batch).take().expect("ticks are plain data of our own");
                for signal in batch {
                    let timestamp = signal.tick.epoch.timestamp();
                    let held = (0..port_count).map(|port| capability.delayed(&timestamp, port));
                    ticks.push((signal, held.collect()));
                }
            });
            splits.for_each(|_, batch| {
                let batch = std::mem::take(batch).take::<Vec<ForReader>>();
                host.to_come.extend(batch.expect("splits are plain data of our own"));
            });
            if let Err(error) = host.step(ticks) {
                host.worker.attempt.fail(failed("source", &host.uid, error));
            }
        }
    });
    Ok(Built { outputs: streams, offsets: offsets_stream, ends: ends_stream })
}

impl Host {
    fn step(&mut self, ticks: Vec<(Signal, Vec<Capability<u64>>)>) -> Result<(), BoxError> {
        for (signal, capabilities) in ticks {
            self.tick(signal, capabilities)?;
        }
        self.take_splits()?;
        self.read()
    }

    /// Hands the reader what it was told to read, up to the present epoch.
    fn take_splits(&mut self) -> Result<(), BoxError> {
        let Some((epoch, _)) = self.present else { return Ok(()) };
        let is_due = |news: &mut ForReader| news.timestamp <= epoch.timestamp();
        while let Some(news) = self.to_come.pop_front_if(is_due) {
            let ForReader { splits, of_all, complete, .. } = news;
            if let Some(announcer) = &mut self.announcer {
                announcer.added(splits.iter().map(|(split, _)| split));
            }
            if let Some(careful) = &mut self.careful {
                careful.added(&splits);
            }
            self.reader.add(splits, of_all)?;
            self.complete |= complete;
            if self.state == State::Idle {
                self.state = State::Reading;
            }
        }
        Ok(())
    }

    /// Moves on to the next epoch.
    fn tick(&mut self, signal: Signal, capabilities: Vec<Capability<u64>>) -> Result<(), BoxError> {
        let Signal { tick, holds } = signal;
        let ends_interval = match &self.present {
            Some((epoch, _)) => tick.epoch.interval() != epoch.interval(),
            None => false,
        };
        self.announce();
        if ends_interval {
            self.report_offsets()?;
        }
        self.present = Some((tick.epoch, capabilities));
        if let Some(announcer) = self.announcer.as_mut().filter(|_| !holds.is_empty()) {
            announcer.hold(&holds);
            let held = announcer.held();
            if let Some(progress) = &self.facts.reader {
                progress.hold(&held);
            }
            self.reader.hold(&held);
        }
        if tick.closing.is_some() {
            self.report_offsets()?;
            self.present = None;
        }
        let present = self.present.as_ref().map(|(epoch, _)| *epoch);
        self.facts.set_backlog(present, present, 0);
        Ok(())
    }

    /// Tells how splits are at the end of the present epoch.
    fn announce(&mut self) {
        let (Some(announcer), Some((_, capabilities))) = (&mut self.announcer, &self.present)
        else {
            return;
        };
        let moved = self.reader.offsets();
        announcer.moved(&moved);
        // They are reported at the end of the interval.
        self.unreported.extend(moved);
        if self.is_aligned {
            announcer.rest(|split| self.reader.rests(split));
        }
        if let Some(batch) = announcer.batch(self.worker.must_wait()) {
            self.outputs[announcer.output].give(&capabilities[announcer.output], batch);
        }
    }

    /// Hands the offsets of the present interval to the split table.
    fn report_offsets(&mut self) -> Result<(), BoxError> {
        let Some((_, capabilities)) = &self.present else { return Ok(()) };
        let mut moved = std::mem::take(&mut self.unreported);
        moved.extend(self.reader.offsets());
        if let Some(progress) = &self.facts.reader {
            progress.moved(moved.iter());
        }
        let mut parts: Vec<Keyed<String, SplitOffset>> =
            (0..self.worker.peers).map(|_| Keyed::default()).collect();
        for (split, offset) in moved {
            let hash = hash_key(&split)?;
            parts[self.worker.owner(hash)].push(hash, split, offset);
        }
        let batch = Batch::split(parts.into_iter().map(Batch::new).collect());
        self.offsets.give(&capabilities[self.outputs.len()], batch);
        Ok(())
    }

    /// Reads for about 2 ms, or so much that others should have their turn.
    fn read(&mut self) -> Result<(), BoxError> {
        let Some((epoch, _)) = &self.present else { return Ok(()) };
        let epoch = *epoch;
        match self.state {
            State::Idle | State::Ended => return Ok(()),
            State::EpochOver(over) if over == epoch => return Ok(()),
            State::EpochOver(_) | State::Reading => self.state = State::Reading,
        }
        if self.announcer.as_ref().is_some_and(Announcer::is_held) {
            // Looked at again at every tick.
            return Ok(());
        }
        let env = self.worker.attempt.env.clone();
        let deadline = env.monotonic() + SLICE;
        self.sent_bytes = 0;
        while !self.worker.must_wait() {
            if !self.may_read(epoch) {
                return Ok(());
            }
            match self.reader.poll(epoch)? {
                Polled::Rows(batch, bytes) => self.emit(batch, bytes)?,
                Polled::WithRejects(batch, rejects, bytes) => {
                    self.emit_rejects(rejects);
                    self.emit(batch, bytes)?;
                }
                Polled::Waiting => return Ok(()),
                Polled::EpochOver => {
                    self.state = State::EpochOver(epoch);
                    return Ok(());
                }
                Polled::Ended => {
                    self.at_end();
                    return Ok(());
                }
            }
            if env.monotonic() > deadline || self.sent_bytes >= SLICE_BYTES {
                self.activator.activate();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the reader may be polled; always, unless the attempt is careful.
    fn may_read(&mut self, epoch: Epoch) -> bool {
        let Some(careful) = &mut self.careful else { return true };
        if self.worker.attempt.is_careful() {
            match careful.turn(epoch, self.worker.complete.get()) {
                Turn::Now => {}
                Turn::Soon => {
                    self.activator.activate();
                    return false;
                }
                Turn::Over => return false,
            }
        }
        let usual = self.worker.attempt.settings.batch_rows.max(1);
        self.reader.limit_rows(careful.rows().min(usual));
        true
    }

    /// In a careful attempt: says what was read before anything is done with it. Whether it is left out.
    fn look_at(&mut self, batch: &Batch) -> bool {
        let Some(careful) = &mut self.careful else { return false };
        let split = self.reader.split();
        let known = self.unreported.get(split).cloned();
        let split = split.to_owned();
        let moved = self.reader.offsets();
        let offset = moved.iter().find(|(id, _)| *id == split).map(|(_, offset)| offset.clone());
        if let Some(announcer) = &mut self.announcer {
            announcer.moved(&moved);
        }
        self.unreported.extend(moved);
        let Some(offset) = offset.or(known) else { return false };
        let read = careful.read(&split, batch.len(), offset);
        if !read.is_left_out {
            if self.worker.attempt.is_careful() {
                self.worker.attempt.suspect(&read.span);
            }
            return false;
        }
        let reject = Reject {
            source: self.uid.to_string(),
            text: batch.shown(),
            error: "this record makes the job fail every time, and is left out".to_owned(),
            ..Reject::new(&split, read.span.last, read.position)
        };
        tracing::error!(source = %self.uid, "{reject}");
        if let Some(progress) = &self.facts.reader {
            match self.rejects {
                Some(_) => progress.rejected(1),
                None => progress.skipped(1),
            }
        }
        if self.rejects.is_some() {
            self.emit_rejects(vec![reject]);
        }
        true
    }

    fn emit(&mut self, batch: Batch, bytes: usize) -> Result<(), BoxError> {
        if self.look_at(&batch) {
            return Ok(());
        }
        let (epoch, capabilities) = self.present.as_ref().expect("rows are read in an epoch");
        self.facts.records_in.add(batch.len() as u64);
        self.facts.bytes_in.add(bytes as u64);
        let announcer = self.announcer.as_mut();
        let batch =
            batch.with_split(announcer.map(|announcer| announcer.read(self.reader.split())));
        let mut emitted = Outputs { batches: vec![(0, batch)], ..Outputs::default() };
        let mut out = Outputs::default();
        run_through(&mut self.rest, 0, &mut emitted, *epoch, &mut out)?;
        // What travels is what operators here have made of what was read.
        let bytes = if self.rest.is_empty() { bytes } else { out.bytes() };
        let rows = out.rows();
        self.worker.has_read(epoch.timestamp());
        let bytes = bytes + rows as usize * BESIDE_ROW;
        self.sent_bytes += bytes;
        self.worker.emitted(epoch.timestamp(), bytes);
        self.facts.records_out.add(rows);
        output::send(&mut self.outputs, &mut out, |port| &capabilities[port]);
        Ok(())
    }

    fn emit_rejects(&mut self, rejects: Vec<Reject>) {
        let (epoch, capabilities) = self.present.as_ref().expect("rows are read in an epoch");
        let texts = rejects.iter().map(|reject| size_of::<Reject>() + reject.text.len());
        self.worker.has_read(epoch.timestamp());
        self.worker.emitted(epoch.timestamp(), texts.sum());
        let port = self.rejects.expect("there are rejects only if there is an output for them");
        self.outputs[port].give(&capabilities[port], Batch::new(rejects));
    }

    /// The reader has nothing left to read.
    fn at_end(&mut self) {
        if let Some(announcer) = self.announcer.as_mut().filter(|_| self.is_aligned) {
            announcer.rest(|_| true);
        }
        if !self.complete {
            self.state = State::Idle;
            return;
        }
        self.state = State::Ended;
        if let Some(announcer) = &mut self.announcer
            && !self.worker.available_now()
        {
            announcer.source_ends(self.worker.index);
        }
        let (_, capabilities) = self.present.as_ref().expect("the reader was polled in an epoch");
        let ended = Ended { node: self.node, worker: self.worker.index };
        let port = self.outputs.len() + 1;
        self.ends.give(&capabilities[port], Batch::new(vec![ended]));
    }
}
