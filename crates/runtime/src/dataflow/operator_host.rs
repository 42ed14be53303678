//! Runs one operator on one worker: hands it rows and complete epochs, freezes and encodes its state.
//!
//! # Invariants
//!
//! - An operator with state receives no row of a later interval before the present one is frozen.
//! - The capability for sections stays at the present interval until its sections have been sent, so the uploader's frontier
//!   passes an interval only when it has everything of it.
//! - Between two calls about 2 ms of work are done at the most; then other operators have their turn.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use highwater_state::Slice;
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;
use timely::scheduling::Activator;

use super::growth::Growth;
use super::intake::{self, Intake};
use super::output::{self, Output};
use super::pacer::Closing;
use super::uploader::{Part, Parts as UploadParts};
use super::worker::{Ticks, Worker};
use super::{Rows, failed};
use crate::batch::Batch;
use crate::observe::{HostFacts, HostName};
use crate::operator::{EpochBegin, EpochEnd, Operator, Outputs, Wants, Work};
use crate::plan::Exchange;
use crate::recover::Recovered;
use crate::time::Epoch;
use crate::watermark::{News, Told};
use crate::{BoxError, Error};

/// After so long a host lets others work.
pub(super) const SLICE: Duration = Duration::from_millis(2);

/// So many rows are encoded between two looks at the clock.
const ENCODE_ROWS: usize = 8192;

/// What a host is made of.
pub(super) struct Parts<'scope> {
    pub(super) kind: &'static str,
    pub(super) name: HostName,
    pub(super) uid: Arc<str>,
    pub(super) operator: Box<dyn Operator>,
    pub(super) wants: Wants,
    pub(super) inputs: Vec<(Rows<'scope>, Exchange)>,
    pub(super) output_count: usize,
    /// What it is told of watermarks, and the watermark with which it begins.
    pub(super) watermark: Option<(Rows<'scope>, Option<i64>)>,
}

/// The streams that come out of a host.
pub(super) struct Built<'scope> {
    pub(super) outputs: Vec<Rows<'scope>>,
    pub(super) parts: Option<Rows<'scope>>,
}

struct Host {
    kind: &'static str,
    uid: Arc<str>,
    operator: Box<dyn Operator>,
    intake: Intake,
    outputs: Vec<Output>,
    emitted: Outputs,
    growth: Growth,
    /// For what is emitted when an epoch is complete; only if the operator wants epochs.
    capabilities: Option<Vec<Capability<u64>>>,
    sections: Option<Sections>,
    interval: u32,
    ticks: Option<Ticks>,
    completing: Option<EpochEnd>,
    /// The last epoch whose turn has come.
    begun: Option<Epoch>,
    /// The clock in the last epoch that is complete.
    clock_ms: u64,
    watermark: Option<Watermark>,
    facts: Arc<HostFacts>,
    worker: Rc<Worker>,
    activator: Activator,
}

/// What a host knows of the watermark.
struct Watermark {
    /// The input at which it is told.
    port: usize,
    /// At the end of the last epoch that is complete.
    now: Option<i64>,
    /// Of later epochs, in their order.
    later: VecDeque<(Epoch, i64)>,
}

impl Watermark {
    /// Something was told at the end of an epoch.
    fn told(&mut self, epoch: Epoch, batch: Batch) -> Result<(), BoxError> {
        for Told { news, .. } in batch.take::<Vec<Told>>()? {
            if let News::Reached(time) = news {
                self.later.push_back((epoch, time));
            }
        }
        Ok(())
    }

    /// Goes on to the end of an epoch, of which all is told.
    fn go_to(&mut self, epoch: Epoch) {
        while let Some((_, time)) = self.later.pop_front_if(|(told, _)| *told <= epoch) {
            debug_assert!(self.now <= Some(time), "a watermark never falls");
            self.now = Some(time);
        }
    }
}

/// The end of a host through which sections leave.
struct Sections {
    output: Output,
    /// None after the last interval.
    capability: Option<Capability<u64>>,
    encoding: Option<Encoding>,
    /// The frontier was empty at the last freeze: there will be no further interval.
    last: bool,
}

struct Encoding {
    interval: u32,
    table: usize,
    part: Part,
}

pub(super) fn build<'scope>(
    scope: Scope<'scope, u64>,
    parts: Parts<'scope>,
    recovered: &Recovered,
    worker: &Rc<Worker>,
) -> Result<Built<'scope>, Error> {
    let Parts { kind, name, uid, mut operator, wants, inputs, output_count, watermark } = parts;
    let interval = recovered.first_interval();
    let clock_ms = recovered.progress.clock_ms;
    let checkpoints = worker.attempt.settings.checkpoint_interval.is_some();
    let unreadable = |source| {
        Error::Refused {
        why: format!("{kind} `{uid}`: {source}"),
        what_to_do: "give the state types that read what was stored (a new field of a value needs #[serde(default)]), or start \
                     over with --fresh"
            .to_owned(),
    }
    };
    for table in operator.tables() {
        let entries = table.restore(&uid, &recovered.image).map_err(unreadable)?;
        table.begin(interval, checkpoints);
        worker.attempt.observed.restored_entries.fetch_add(entries, Ordering::Relaxed);
    }
    operator.restored();
    let (facts, presence) =
        worker.facts.add_host(name, (wants.state && checkpoints).then_some(interval));

    let mut builder = OperatorBuilder::new(uid.to_string(), scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let interest =
        if wants == Wants::default() { FrontierInterest::Never } else { FrontierInterest::Always };
    let mut intake = Intake::new(wants.state.then_some(interval));
    for (stream, exchange) in inputs {
        intake.add(&mut builder, stream, exchange, interest, worker.index);
    }
    let watermark = watermark.map(|(told, now)| {
        let port = intake.add(&mut builder, told, Exchange::Keyed, interest, worker.index);
        Watermark { port, now, later: VecDeque::new() }
    });
    let (mut outputs, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..output_count {
        let (output, stream) = Output::add(&mut builder);
        outputs.push(output);
        streams.push(stream);
    }
    // Without checkpoints nothing is ever frozen.
    let (sections, section_stream) = match wants.state && checkpoints {
        true => {
            let (output, stream) = Output::add(&mut builder);
            (Some(output), Some(stream))
        }
        false => (None, None),
    };
    let worker = worker.clone();
    builder.build(move |mut capabilities| {
        let first = Epoch::first_of(interval).timestamp();
        capabilities.iter_mut().for_each(|capability| capability.downgrade(&first));
        let sections = sections.map(|output| Sections {
            output,
            capability: capabilities.pop(),
            encoding: None,
            last: false,
        });
        let mut host = Host {
            kind,
            uid,
            operator,
            intake,
            outputs,
            emitted: Outputs::default(),
            growth: Growth::default(),
            capabilities: wants.epochs.then_some(capabilities),
            sections,
            interval,
            ticks: wants.epochs.then(|| worker.subscribe()),
            completing: None,
            begun: None,
            clock_ms,
            watermark,
            facts,
            worker,
            activator,
        };
        move |frontiers| {
            if host.worker.attempt.is_over() {
                return;
            }
            let _visit = presence.enter(host.worker.attempt.env.monotonic());
            if let Err(error) = host.step(intake::least(frontiers)) {
                host.worker.attempt.fail(error);
            }
        }
    });
    Ok(Built { outputs: streams, parts: section_stream })
}

impl Host {
    fn failed(&self, error: BoxError) -> Error {
        failed(self.kind, &self.uid, error)
    }

    fn step(&mut self, frontier: Option<Epoch>) -> Result<(), Error> {
        self.intake.pull();
        self.note_backlog(frontier);
        self.work(frontier)?;
        self.note_backlog(frontier);
        self.facts.late.add(std::mem::take(&mut self.emitted.late));
        Ok(())
    }

    fn note_backlog(&self, frontier: Option<Epoch>) {
        let (oldest, waiting) = self.intake.backlog();
        let completing = self.completing.map(|end| end.epoch);
        self.facts.set_backlog(frontier, completing.into_iter().chain(oldest).min(), waiting);
    }

    fn work(&mut self, frontier: Option<Epoch>) -> Result<(), Error> {
        let env = self.worker.attempt.env.clone();
        let deadline = env.monotonic() + SLICE;
        self.encode()?;
        loop {
            if let Some(end) = self.completing {
                let work = self.operator.complete(&end, &mut self.emitted);
                let work = work.map_err(|error| self.failed(error))?;
                self.send_at(end.epoch);
                if work == Work::More {
                    self.activator.activate();
                    return Ok(());
                }
                self.completing = None;
                self.growth.completed(end.epoch.timestamp());
            }
            self.begin_next();
            while let Some(item) = self.intake.pop() {
                if let Some(watermark) = self.watermark.as_mut().filter(|w| w.port == item.port) {
                    let told = watermark.told(item.epoch, item.batch);
                    told.map_err(|error| self.failed(error))?;
                    continue;
                }
                self.facts.records_in.add(item.batch.len() as u64);
                self.growth.took(item.epoch.timestamp(), item.batch.bytes());
                let received =
                    self.operator.receive(item.port, item.epoch, item.batch, &mut self.emitted);
                received.map_err(|error| self.failed(error))?;
                self.note_emitted(item.epoch);
                output::send(&mut self.outputs, &mut self.emitted, |_| &item.capability);
                if env.monotonic() > deadline && !self.intake.is_idle() {
                    self.activator.activate();
                    return Ok(());
                }
            }
            if let Some(end) = self.next_complete(frontier) {
                end.watermark.into_iter().for_each(|time| self.facts.set_watermark(time));
                self.completing = Some(end);
            } else if self.interval_is_over(frontier) {
                if self.sections.as_ref().is_some_and(|sections| sections.encoding.is_some()) {
                    self.activator.activate();
                    return Ok(());
                }
                self.freeze(frontier.is_none() && self.worker.is_last(self.interval));
            } else {
                break;
            }
        }
        match (frontier, &mut self.capabilities) {
            (Some(frontier), Some(capabilities)) => {
                // The very first frontier is timely's, before the pacer has set the time.
                for capability in capabilities {
                    capability.downgrade(&frontier.timestamp().max(*capability.time()));
                }
            }
            (None, capabilities) => *capabilities = None,
            (Some(_), None) => {}
        }
        Ok(())
    }

    /// Counts what was emitted in an epoch and is about to be sent.
    fn note_emitted(&mut self, epoch: Epoch) {
        self.facts.records_out.add(self.emitted.rows());
        let timestamp = epoch.timestamp();
        let grown = self.growth.gave(timestamp, self.emitted.bytes());
        if grown > 0 {
            self.worker.emitted(timestamp, grown);
        }
    }

    /// Sends what was emitted at the end of an epoch.
    fn send_at(&mut self, epoch: Epoch) {
        if self.emitted.batches.is_empty() {
            return;
        }
        self.note_emitted(epoch);
        let held = self.capabilities.as_ref().expect("only operators that want epochs come here");
        let timestamp = epoch.timestamp();
        let capabilities: Vec<_> = held.iter().map(|held| held.delayed(&timestamp)).collect();
        output::send(&mut self.outputs, &mut self.emitted, |port| &capabilities[port]);
    }

    /// Begins the first epoch of this interval that isn't complete, if that is known.
    fn begin_next(&mut self) {
        let Some(ticks) = &self.ticks else { return };
        let Some(tick) = ticks.borrow().front().copied() else { return };
        if self.begun >= Some(tick.epoch) || tick.epoch.interval() > self.interval {
            return;
        }
        self.begun = Some(tick.epoch);
        self.operator.begin(&EpochBegin {
            epoch: tick.epoch,
            clock_ms: tick.clock_ms,
            clock_before_ms: self.clock_ms,
            late_below: self.watermark.as_ref().and_then(|watermark| watermark.now),
            trigger: tick.trigger,
        });
    }

    /// The next epoch of this interval that is complete, if there is one.
    fn next_complete(&mut self, frontier: Option<Epoch>) -> Option<EpochEnd> {
        let mut ticks = self.ticks.as_ref()?.borrow_mut();
        let tick = *ticks.front()?;
        let complete = frontier.is_none_or(|frontier| frontier > tick.epoch);
        if !complete || tick.epoch.interval() > self.interval {
            return None;
        }
        ticks.pop_front();
        // The epoch is complete, so its sources have moved on to the next tick, which passed this worker on its way to them.
        let next = ticks.front();
        debug_assert!(next.is_some() || tick.closing.is_some(), "a tick comes before its epoch");
        let finished = tick.closing == Some(Closing::Finished);
        let trigger_ends = next.map_or(finished, |next| next.trigger != tick.trigger);
        let late_below = self.watermark.as_ref().and_then(|watermark| watermark.now);
        let watermark = self.watermark.as_mut().and_then(|watermark| {
            watermark.go_to(tick.epoch);
            watermark.now
        });
        Some(EpochEnd {
            epoch: tick.epoch,
            clock_ms: tick.clock_ms,
            clock_before_ms: std::mem::replace(&mut self.clock_ms, tick.clock_ms),
            watermark,
            late_below,
            trigger: tick.trigger,
            trigger_ends,
            finished,
        })
    }

    fn interval_is_over(&self, frontier: Option<Epoch>) -> bool {
        let Some(sections) = &self.sections else { return false };
        match frontier {
            Some(frontier) => frontier.interval() > self.interval,
            None => !sections.last,
        }
    }

    fn freeze(&mut self, last: bool) {
        let sections = self.sections.as_mut().expect("only operators with state are frozen");
        let next = self.interval + 1;
        let retire = self.worker.retire.get();
        for table in self.operator.tables() {
            table.freeze(next, retire);
        }
        sections.encoding = Some(Encoding {
            interval: self.interval,
            table: 0,
            part: Part { uid: self.uid.clone(), ..Part::default() },
        });
        sections.last = last;
        self.worker.encoding(true);
        self.worker.froze(self.interval);
        self.facts.set_interval(next);
        self.interval = next;
        self.intake.advance(next);
        self.activator.activate();
    }

    /// Encodes a slice; sends the sections when all are done.
    fn encode(&mut self) -> Result<(), Error> {
        let Some(sections) = &mut self.sections else { return Ok(()) };
        let Some(encoding) = &mut sections.encoding else { return Ok(()) };
        let env = &self.worker.attempt.env;
        let deadline = env.monotonic() + SLICE;
        let mut tables = self.operator.tables();
        while let Some(table) = tables.get_mut(encoding.table) {
            let slice = table.encode(ENCODE_ROWS);
            match slice.map_err(|source| Error::State { uid: self.uid.to_string(), source })? {
                Slice::More => {}
                Slice::Done(done) => {
                    encoding.part.sections.extend(done);
                    encoding.part.places.push(table.places());
                    encoding.table += 1;
                }
            }
            if env.monotonic() > deadline {
                break;
            }
        }
        if encoding.table < tables.len() {
            self.activator.activate();
            return Ok(());
        }
        let Encoding { interval, part, .. } = sections.encoding.take().expect("checked above");
        self.worker.encoding(false);
        self.facts.set_handed(interval + 1);
        let capability = sections.capability.as_mut().expect("held until the last interval");
        sections.output.give(capability, Batch::new(UploadParts(vec![part])));
        if sections.last {
            sections.capability = None;
        } else {
            capability.downgrade(&Epoch::first_of(interval + 1).timestamp());
        }
        Ok(())
    }
}

/// How many bytes of each stored object the states of a part need.
pub(super) type Places = BTreeMap<highwater_state::chain::Place, u64>;
