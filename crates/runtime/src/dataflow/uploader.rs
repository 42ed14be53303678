//! The uploader of a worker: makes what its operators wrote in an interval durable, as one object, and reports it.
//!
//! It alone holds the capability for reports, and lets it go only when an interval's object is durable or is known not to be. If
//! an upload fails, the interval's sections wait and go into the next object: changes belong to the next checkpoint that
//! commits, and no failure of the store is a reason to restart. The last one of a job is repeated until it works.
//!
//! # Invariants
//!
//! - A report names every object that this worker's key groups need, and all of them are durable.
//! - Reports leave in the order of their intervals.

use std::any::Any;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use highwater_env::Phase;
use highwater_log::{Log, LogError, ObjectRef, PutPayload, StagedItem, names};
use highwater_state::chain::Place;
use highwater_state::object;
use highwater_state::section::Section;
use serde::{Deserialize, Serialize};
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::operator_host::Places;
use super::output::Output;
use super::worker::Worker;
use super::{Rows, intake};
use crate::BoxError;
use crate::batch::{self, Batch};
use crate::observe::WorkerPhases;
use crate::recover::Recovered;
use crate::time::Epoch;

/// With more objects than this, the smallest is written again and so goes away.
const OBJECTS_MAX: usize = 32;

/// What an operator or sink hands to the uploader for one interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) uid: Arc<str>,
    pub(super) sections: Vec<Section>,
    /// For each of its tables.
    pub(super) places: Vec<Places>,
    pub(super) staged: Option<SinkItems>,
}

/// Parts on their way to the uploader of the same worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts(pub(super) Vec<Part>);

impl batch::Rows for Parts {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn bytes(&self) -> usize {
        0
    }
    fn boxed_clone(&self) -> Box<dyn batch::Rows> {
        Box::new(self.clone())
    }
    fn encode(&self) -> Result<Vec<u8>, BoxError> {
        Err("parts stay on their worker".into())
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl batch::RowsType for Parts {
    fn decode(_: &[u8]) -> Result<Self, BoxError> {
        Err("parts stay on their worker".into())
    }
}

/// What one sink staged on one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SinkItems {
    pub(crate) sink: String,
    pub(crate) items: Vec<StagedItem>,
}

/// A state that was written, for the graph in the entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WrittenState {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) schema: serde_json::Value,
}

/// What a worker tells the committer at the end of an interval.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerReport {
    pub(crate) worker: usize,
    pub(crate) interval: u32,
    /// Why nothing could be made durable; the rest is then empty.
    pub(crate) failed: Option<String>,
    /// Every object that this worker needs to recover.
    pub(crate) needed: Vec<ObjectRef>,
    /// How many bytes were written now.
    pub(crate) bytes: u64,
    pub(crate) staged: Vec<SinkItems>,
    pub(crate) states: Vec<WrittenState>,
    /// How long this worker took, for people.
    pub(crate) phases: WorkerPhases,
}

struct Uploader {
    worker: Rc<Worker>,
    log: Arc<Log>,
    restored: Vec<ObjectRef>,
    /// Parts that have arrived, by interval.
    arrived: BTreeMap<u32, Vec<Part>>,
    /// Of intervals whose upload failed, and of the one under way.
    backlog: Vec<(u32, Vec<(String, Section)>)>,
    unreported: Vec<SinkItems>,
    under_way: Option<UnderWay>,
    /// Which object holds the sections of an interval of this attempt.
    own: BTreeMap<u32, ObjectRef>,
    next: u32,
    capability: Option<Capability<u64>>,
    output: Output,
    done: (mpsc::Sender<Uploaded>, mpsc::Receiver<Uploaded>),
    wake: Arc<dyn Fn() + Send + Sync>,
}

type Uploaded = Result<Option<ObjectRef>, LogError>;

struct UnderWay {
    interval: u32,
    places: Places,
    states: Vec<WrittenState>,
}

pub(super) fn build<'scope>(
    scope: Scope<'scope, u64>,
    parts: Vec<Rows<'scope>>,
    recovered: &Recovered,
    worker: &Rc<Worker>,
) -> Rows<'scope> {
    let mut builder = OperatorBuilder::new("uploader".to_owned(), scope);
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let mut inputs: Vec<_> =
        parts.into_iter().map(|stream| builder.new_input(stream, Pipeline)).collect();
    let (output, stream) = Output::add(&mut builder);
    let mut uploader = Uploader {
        worker: worker.clone(),
        log: recovered.log.clone(),
        restored: recovered.objects.clone(),
        arrived: BTreeMap::new(),
        backlog: Vec::new(),
        unreported: Vec::new(),
        under_way: None,
        own: BTreeMap::new(),
        next: recovered.first_interval(),
        capability: None,
        output,
        done: mpsc::channel(),
        wake: Arc::new(move || {
            wake.activate().ok();
        }),
    };
    let on = worker.attempt.settings.checkpoint_interval.is_some();
    builder.build(move |mut capabilities| {
        if on {
            let mut capability = capabilities.pop().expect("there is one output");
            capability.downgrade(&Epoch::first_of(uploader.next).timestamp());
            uploader.capability = Some(capability);
        }
        drop(capabilities);
        move |frontiers| {
            for input in &mut inputs {
                input.for_each(|capability, batch| {
                    let timestamp =
                        capability.least().expect("the engine sends nothing without a time");
                    let interval = Epoch::from_timestamp(*timestamp).interval();
                    let parts: Parts =
                        std::mem::take(batch).take().expect("nothing is decoded here");
                    if on {
                        uploader.arrived.entry(interval).or_default().extend(parts.0);
                    }
                });
            }
            if !uploader.worker.attempt.is_over() && uploader.capability.is_some() {
                uploader.step(intake::least(frontiers));
            }
        }
    });
    stream
}

impl Uploader {
    fn step(&mut self, frontier: Option<Epoch>) {
        if let Ok(uploaded) = self.done.1.try_recv() {
            self.report(uploaded);
        }
        let complete = frontier.is_none_or(|frontier| frontier.interval() > self.next);
        if self.under_way.is_none() && complete {
            if let Some(parts) = self.arrived.remove(&self.next) {
                let last = frontier.is_none() && self.worker.is_last(self.next);
                self.upload(parts, last);
            } else if frontier.is_none() {
                // The end, and everything has been reported.
                self.capability = None;
            }
        }
    }

    /// Makes what belongs to an interval durable. There is no object after the `last` one, which is tried until it works.
    fn upload(&mut self, parts: Vec<Part>, last: bool) {
        let interval = self.next;
        self.worker.handed(interval);
        let mut places = Places::new();
        let mut sections = Vec::new();
        let mut states = Vec::new();
        for part in parts {
            for (place, bytes) in part.places.into_iter().flatten() {
                *places.entry(place).or_insert(0) += bytes;
            }
            for section in part.sections {
                let (uid, name) = (part.uid.to_string(), section.head.state.clone());
                states.push(WrittenState { uid, name, schema: section.schema.clone() });
                sections.push((part.uid.to_string(), section));
            }
            self.unreported.extend(part.staged.filter(|staged| !staged.items.is_empty()));
        }
        // What later sections have replaced needn't be written any more: without it the backlog is bounded as chains are.
        self.backlog.retain(|(interval, _)| places.contains_key(&Place::Own(*interval)));
        if !sections.is_empty() {
            self.backlog.push((interval, sections));
        }
        self.under_way = Some(UnderWay { interval, places, states });
        if self.backlog.is_empty() {
            self.report(Ok(None));
            return;
        }
        let sections: Vec<(String, Section)> =
            self.backlog.iter().flat_map(|(_, sections)| sections.clone()).collect();
        let env = self.worker.attempt.env.clone();
        let name =
            names::object(self.worker.attempt.number, interval.into(), self.worker.index as u32);
        let (log, done, wake) = (self.log.clone(), self.done.0.clone(), self.wake.clone());
        let attempt = self.worker.attempt.clone();
        let task = async move {
            let _phase = highwater_env::enter(&attempt.env, Phase::Uploading);
            let object: PutPayload = object::write(&sections).into_iter().collect();
            drop(sections);
            let mut put = log.put_object(&name, object.clone()).await;
            while last && matches!(put, Err(LogError::Unavailable { .. })) && !attempt.is_over() {
                put = log.put_object(&name, object.clone()).await;
            }
            done.send(put.map(Some)).ok();
            wake();
        };
        env.spawn("upload", Box::pin(task));
    }

    fn report(&mut self, uploaded: Uploaded) {
        let UnderWay { interval, places, states } =
            self.under_way.take().expect("an upload ends that was under way");
        let mut report = WorkerReport {
            worker: self.worker.index,
            interval,
            failed: None,
            needed: Vec::new(),
            bytes: 0,
            staged: Vec::new(),
            states,
            phases: self.worker.uploaded(interval),
        };
        match uploaded {
            Ok(object) => {
                if let Some(object) = object {
                    report.bytes = object.bytes;
                    for (interval, _) in self.backlog.drain(..) {
                        self.own.insert(interval, object.clone());
                    }
                }
                self.own.retain(|interval, _| places.contains_key(&Place::Own(*interval)));
                report.needed = places.keys().map(|place| self.object(*place).clone()).collect();
                report.needed.sort();
                report.needed.dedup();
                report.staged = std::mem::take(&mut self.unreported);
            }
            Err(error) => report.failed = Some(error.to_string()),
        }
        self.worker.retire.set(self.mostly_dead(&places));
        let capability = self.capability.as_mut().expect("held until the end");
        self.output.give(capability, Batch::new(vec![report]));
        self.next = interval + 1;
        capability.downgrade(&Epoch::first_of(self.next).timestamp());
        // The next interval may have been complete for a while, at the end of a job.
        (self.wake)();
    }

    fn object(&self, place: Place) -> &ObjectRef {
        match place {
            Place::Restored(number) => &self.restored[number as usize],
            Place::Own(interval) => &self.own[&interval],
        }
    }

    /// An object of which little is still needed, or the smallest if there are many: it will be written again.
    fn mostly_dead(&self, places: &Places) -> Option<Place> {
        let known = |place: &Place| match place {
            Place::Restored(_) => true,
            Place::Own(interval) => self.own.contains_key(interval),
        };
        // Objects of an earlier attempt may be shared by all workers of this one.
        let share = |place: Place| match place {
            Place::Restored(_) => self.object(place).bytes / self.worker.peers as u64,
            Place::Own(_) => self.object(place).bytes,
        };
        let mut needed: Vec<(Place, u64)> =
            places.iter().filter(|(place, _)| known(place)).map(|(p, b)| (*p, *b)).collect();
        needed.sort_by_key(|(_, bytes)| *bytes);
        // What an object holds apart from rows isn't worth writing anything again.
        const OVERHEAD: u64 = 64 << 10;
        let dead = needed.iter().find(|(place, live)| live * 4 + OVERHEAD < share(*place));
        let many = (needed.len() > OBJECTS_MAX).then(|| &needed[0]);
        dead.or(many).map(|(place, _)| *place)
    }
}
