//! Runs the writer of one sink on one worker: hands it rows, cuts its output at the end of every interval.
//!
//! While the writer has more queued than it should, rows stay in the intake with their capabilities: their epochs
//! don't complete, and so sources stop at the bound of bytes under way.
//!
//! Without checkpoints there is one interval, which ends with the job: its cut is what makes the job wait until everything is
//! delivered.

use std::rc::Rc;
use std::sync::Arc;

use highwater_log::Health;
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::operate::FrontierInterest;
use timely::scheduling::Activator;

use super::intake::{self, Intake};
use super::operator_host::SLICE;
use super::output::Output;
use super::uploader::{Part, Parts, SinkItems};
use super::worker::Worker;
use super::{Rows, failed};
use crate::connector::{Sink, Waker, Writer, WriterContext};
use crate::observe::{HostFacts, HostName};
use crate::plan::Exchange;
use crate::recover::Recovered;
use crate::time::Epoch;
use crate::{Error, batch::Batch};

/// So much may wait in a writer before further rows are held back.
const QUEUED_BYTES_MAX: usize = 4 << 20;

/// What is done while a writer's destination takes nothing, for people.
const REMEDY: &str = "this is repeated until it works, and nothing is lost: processing goes on meanwhile, and sources pause at the bound of \
                      bytes under way";

/// What a sink's host is made of.
pub(super) struct SinkParts<'scope, 's> {
    pub(super) name: HostName,
    pub(super) uid: Arc<str>,
    pub(super) sink: &'s dyn Sink,
    pub(super) input: Rows<'scope>,
    pub(super) exchange: Exchange,
}

/// The streams that come out of a sink's host.
pub(super) struct Built<'scope> {
    /// Nothing but the frontier up to which rows were taken.
    pub(super) done: Rows<'scope>,
    pub(super) parts: Rows<'scope>,
}

struct Host {
    uid: Arc<str>,
    writer: Box<dyn Writer>,
    intake: Intake,
    interval: u32,
    staging: Staging,
    /// Checkpoints are on.
    checkpoints: bool,
    facts: Arc<HostFacts>,
    worker: Rc<Worker>,
    activator: Activator,
}

struct Staging {
    output: Output,
    capability: Option<Capability<u64>>,
    /// The interval that was cut and isn't staged yet.
    cut: Option<u32>,
    last: bool,
}

pub(super) fn build<'scope>(
    scope: Scope<'scope, u64>,
    parts: SinkParts<'scope, '_>,
    recovered: &Recovered,
    worker: &Rc<Worker>,
) -> Result<Built<'scope>, Error> {
    let SinkParts { name, uid, sink, input, exchange } = parts;
    let mut builder = OperatorBuilder::new(uid.to_string(), scope);
    let address = builder.operator_info().address;
    let activator = scope.activator_for(address.clone());
    let wake = scope.worker().sync_activator_for(address.to_vec());
    let checkpoints = worker.attempt.settings.checkpoint_interval.is_some();
    let env = worker.attempt.env.clone();
    let health = Health::new(env, format!("sink `{uid}` on worker {}", worker.index), REMEDY);
    let context = WriterContext {
        uid: uid.to_string(),
        worker: worker.index,
        attempt: worker.attempt.number,
        direct: !checkpoints,
        env: worker.attempt.env.clone(),
        waker: Waker::new(move || {
            wake.activate().ok();
        }),
        log: recovered.log.clone(),
        health: health.clone(),
    };
    let writer = match sink.writer(context) {
        Ok(writer) => writer,
        Err(error) => return Err(super::not_built(builder, failed("sink", &uid, error))),
    };
    let interval = recovered.first_interval();
    let mut intake = Intake::new(checkpoints.then_some(interval));
    let (facts, presence) = worker.facts.add_host(name, checkpoints.then_some(interval));
    facts.set_health(health);
    intake.add(&mut builder, input, exchange, FrontierInterest::Always, worker.index);
    let (done_output, done) = Output::add(&mut builder);
    let (output, parts) = Output::add(&mut builder);
    let worker = worker.clone();
    builder.build(move |mut capabilities| {
        let first = Epoch::first_of(interval).timestamp();
        let mut capability = capabilities.pop().expect("one for each output");
        capability.downgrade(&first);
        let staging = Staging { output, capability: Some(capability), cut: None, last: false };
        let mut host =
            Host { uid, writer, intake, interval, staging, checkpoints, facts, worker, activator };
        move |frontiers| {
            // The output exists for its frontier alone.
            let _ = &done_output;
            if host.worker.attempt.is_over() {
                return;
            }
            let _visit = presence.enter(host.worker.attempt.env.monotonic());
            if let Err(error) = host.step(intake::least(frontiers)) {
                host.worker.attempt.fail(error);
            }
        }
    });
    Ok(Built { done, parts })
}

impl Host {
    fn step(&mut self, frontier: Option<Epoch>) -> Result<(), Error> {
        self.intake.pull();
        self.note_backlog(frontier);
        self.work(frontier)?;
        self.note_backlog(frontier);
        Ok(())
    }

    fn note_backlog(&self, frontier: Option<Epoch>) {
        let (oldest, waiting) = self.intake.backlog();
        self.facts.set_backlog(frontier, oldest, waiting);
        self.facts.set_queued(self.writer.queued_bytes());
    }

    fn work(&mut self, frontier: Option<Epoch>) -> Result<(), Error> {
        let env = self.worker.attempt.env.clone();
        let deadline = env.monotonic() + SLICE;
        self.send_staged()?;
        loop {
            while self.writer.queued_bytes() <= QUEUED_BYTES_MAX {
                let Some(item) = self.intake.pop() else { break };
                self.facts.records_in.add(item.batch.len() as u64);
                self.worker.attempt.observed.note_row(&*env);
                let written = self.writer.write(item.batch);
                written.map_err(|error| failed("sink", &self.uid, error))?;
                if env.monotonic() > deadline && !self.intake.is_idle() {
                    self.activator.activate();
                    return Ok(());
                }
            }
            // Rows that are held back keep their capabilities, so the frontier can't have passed them.
            if !self.interval_is_over(frontier) {
                return Ok(());
            }
            if self.staging.cut.is_some() {
                return Ok(());
            }
            let cut = self.writer.cut(self.interval);
            cut.map_err(|error| failed("sink", &self.uid, error))?;
            self.worker.froze(self.interval);
            if self.checkpoints {
                self.facts.set_interval(self.interval + 1);
            }
            self.staging.cut = Some(self.interval);
            self.staging.last = frontier.is_none() && self.worker.is_last(self.interval);
            self.interval += 1;
            self.intake.advance(self.interval);
            self.send_staged()?;
        }
    }

    fn interval_is_over(&self, frontier: Option<Epoch>) -> bool {
        match frontier {
            Some(frontier) => frontier.interval() > self.interval,
            None => !self.staging.last,
        }
    }

    /// Passes on what the writer has staged since the last cut, once it is durable.
    fn send_staged(&mut self) -> Result<(), Error> {
        let staging = &mut self.staging;
        let Some(interval) = staging.cut else { return Ok(()) };
        let staged = self.writer.staged().map_err(|error| failed("sink", &self.uid, error))?;
        let Some(items) = staged else { return Ok(()) };
        staging.cut = None;
        if self.checkpoints {
            self.facts.set_handed(interval + 1);
        }
        self.facts.bytes_out.add(items.iter().map(|item| item.bytes).sum());
        self.facts.records_out.add(items.iter().map(|item| item.rows).sum());
        let staged = Some(SinkItems { sink: self.uid.to_string(), items });
        let part = Part { uid: self.uid.clone(), staged, ..Part::default() };
        let capability = staging.capability.as_mut().expect("held until the last interval");
        staging.output.give(capability, Batch::new(Parts(vec![part])));
        if staging.last {
            staging.capability = None;
        } else {
            capability.downgrade(&Epoch::first_of(interval + 1).timestamp());
        }
        // A later cut may have waited for this one.
        self.activator.activate();
        Ok(())
    }
}
