//! The plan on timely dataflow: one timely operator for each stage, and the engine's own around them.
//!
//! ```text
//!   pacer ─▶ relay ─ticks─▶ source hosts ─rows─▶ operator hosts ─rows─▶ sink hosts ─▶ gauge
//! (worker 0)      │         ▲  │ offsets          │ sections              │ staged items
//!               ticks       │  ▼                  ▼                       ▼
//!                 │         │ split tables ──▶ uploader (one a worker) ◀──┘
//!                 ▼         │  ▲ │ ends            │ reports
//!            finder hosts ──┴──┘ └────────▶ coordinator (worker 0) ─▶ committer (a task)
//!             (worker 0)  splits                  ▲ which splits are held, for the pacer
//!                                             watermarks
//! ```
//!
//! Everything here runs on worker threads and never waits. What waits is in tasks.

mod announcer;
mod coordinator;
mod finder_host;
mod gauge;
mod growth;
mod intake;
mod operator_host;
mod output;
mod pacer;
mod route;
mod sink_host;
mod source_host;
mod split_table;
mod uploader;
mod worker;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use highwater_env::Env;
use highwater_state::KeyGroups;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};

use crate::batch::Batch;
use crate::connector::Malformed;
use crate::observe::{HostKind, HostName};
use crate::operator::{Chain, Link, Operator, OperatorContext};
use crate::plan::{Checked, Node, Port, Role, Stage};
use crate::recover::Recovered;
use crate::watermark;
use crate::{BoxError, Error};

pub(crate) use coordinator::Ready;
pub(crate) use pacer::{Closing, Pacer};
pub(crate) use split_table::read_all as read_splits;
pub(crate) use uploader::{SinkItems, WorkerReport};
pub(crate) use worker::Worker;

/// A stream of the engine within a dataflow under construction.
type Rows<'scope> = Stream<'scope, u64, Batch>;

/// Builds the dataflow of one worker.
///
/// # Errors
///
/// If a reader, a writer or restored state can't be made; the attempt must then end.
pub(crate) fn build<'scope>(
    scope: Scope<'scope, u64>,
    plan: &Checked,
    recovered: &Recovered,
    worker: &Rc<Worker>,
    committer: Option<tokio::sync::mpsc::UnboundedSender<Ready>>,
) -> Result<Rc<Pacer>, Error> {
    let (pacer, ticks) = pacer::build(scope, worker, recovered);
    let ticks = pacer::relay(scope, ticks, worker);
    let mut streams: BTreeMap<Port, Rows<'scope>> = BTreeMap::new();
    let mut parts: Vec<Rows<'scope>> = Vec::new();
    let mut ends: Vec<Rows<'scope>> = Vec::new();
    let mut leaves: Vec<Rows<'scope>> = Vec::new();
    for (number, stage) in plan.stages().into_iter().enumerate() {
        let Stage { nodes, outputs: ports } = &stage;
        let first = nodes[0];
        let node = &plan.nodes()[first];
        let inputs: Vec<_> =
            node.inputs.iter().map(|edge| (streams[&edge.from].clone(), edge.exchange)).collect();
        let context = |id: usize| worker.context(plan.uid(id));
        let make = |id: usize| match &plan.nodes()[id].role {
            Role::Operator { make, .. } => make(&context(id)),
            Role::Source(..) | Role::Sink(_) => unreachable!("only operators are fused"),
        };
        let link = |id: usize| Link { operator: make(id), side: stage.side_of(id) };
        let rest: Vec<Link> = nodes[1..].iter().map(|id| link(*id)).collect();
        let output_count = ports.len();
        let uid = Arc::from(plan.uid(first));
        let name = |kind| HostName {
            stage: number,
            kind,
            operator: plan.label(first),
            with: nodes[1..].iter().map(|id| plan.nodes()[*id].name).collect(),
        };
        let outputs = match &node.role {
            Role::Source(source, malformed) => {
                let side = stage.side_of(first);
                let rejects = (*malformed == Malformed::Reject).then_some(side);
                let announces = plan.announced(first).map(|port| side + port.output - 1);
                let found = finder_host::build(
                    scope,
                    &uid,
                    &**source,
                    announces.is_some(),
                    ticks.clone(),
                    recovered,
                    worker,
                )?;
                let mut built = source_host::build(
                    scope,
                    source_host::Parts {
                        node: first,
                        name: name(HostKind::Source),
                        uid,
                        source: &**source,
                        malformed: *malformed,
                        rest,
                        output_count,
                        rejects,
                        announces,
                        turn: worker.turn(plan, first),
                        is_aligned: plan.is_aligned(first),
                        ticks: ticks.clone(),
                        splits: found.for_readers,
                    },
                    worker,
                )?;
                ends.push(built.ends);
                if let Some(port) = announces {
                    built.outputs[port] = built.outputs[port].clone().concat(found.begins);
                }
                let host = operator_host::Parts {
                    kind: "source",
                    name: name(HostKind::Splits),
                    uid: Arc::from(plan.uid(first)),
                    operator: Box::new(split_table::SplitTable::new(&context(first))),
                    wants: crate::operator::Wants { state: true, epochs: false },
                    inputs: vec![
                        (built.offsets, crate::plan::Exchange::Keyed),
                        (found.for_tables, crate::plan::Exchange::Keyed),
                    ],
                    output_count: 0,
                    watermark: None,
                };
                let host = operator_host::build(scope, host, recovered, worker)?;
                parts.extend(host.parts);
                built.outputs
            }
            Role::Operator { wants, .. } => {
                let operator = Chain::new(link(first), rest);
                let watermark = match node.watermark {
                    Some(port) => {
                        let uid = plan.uid(port.node);
                        let now = watermark::read(uid, &recovered.image, recovered.key_groups)
                            .map_err(|source| Error::State { uid: uid.to_owned(), source })?;
                        Some((streams[&port].clone(), now))
                    }
                    None => None,
                };
                let host = operator_host::Parts {
                    kind: node.name,
                    name: name(HostKind::Operator),
                    uid,
                    operator: Box::new(operator),
                    wants: *wants,
                    inputs,
                    output_count,
                    watermark,
                };
                let host = operator_host::build(scope, host, recovered, worker)?;
                parts.extend(host.parts);
                host.outputs
            }
            Role::Sink(sink) => {
                let [(input, exchange)] = <[_; 1]>::try_from(inputs)
                    .unwrap_or_else(|_| unreachable!("a sink has one input"));
                let host = sink_host::SinkParts {
                    name: name(HostKind::Sink),
                    uid,
                    sink: &**sink,
                    input,
                    exchange,
                };
                let host = sink_host::build(scope, host, recovered, worker)?;
                parts.push(host.parts);
                vec![host.done]
            }
        };
        if matches!(node.role, Role::Sink(_)) {
            leaves.extend(outputs);
        } else {
            streams.extend(ports.iter().copied().zip(outputs));
        }
    }
    let ports = |node: &Node| -> Vec<Port> {
        node.inputs.iter().map(|edge| edge.from).chain(node.watermark).collect()
    };
    let read: Vec<Port> = plan.nodes().iter().flat_map(ports).collect();
    leaves.extend(
        streams.iter().filter(|(port, _)| !read.contains(port)).map(|(_, stream)| stream.clone()),
    );
    gauge::build(scope, leaves, worker);
    let reports = uploader::build(scope, parts, recovered, worker);
    let holds = plan.holds().iter().map(|port| streams[port].clone()).collect();
    coordinator::build(scope, reports, ends, holds, plan, worker, committer);
    Ok(pacer)
}

/// Ends an operator that was begun and can't be made. Timely panics if one is left as it is, which would hide the error.
fn not_built(builder: OperatorBuilder<'_, u64>, error: Error) -> Error {
    builder.build(|_| |_: &_| ());
    error
}

/// The error of a node, for people.
fn failed(kind: &'static str, uid: &str, source: BoxError) -> Error {
    Error::Operator { kind, uid: uid.to_owned(), source }
}

impl Worker {
    /// Which of all readers of the job the one of this source on this worker is, and how many there are.
    fn turn(&self, plan: &Checked, source: usize) -> (usize, usize) {
        let is_source = |id: &usize| matches!(plan.nodes()[*id].role, Role::Source(..));
        let before = (0..source).filter(is_source).count();
        let sources = (0..plan.nodes().len()).filter(is_source).count();
        (self.index * sources + before, self.peers * sources)
    }

    /// What an operator of this worker is told when it is made.
    fn context(&self, uid: &str) -> OperatorContext {
        OperatorContext {
            uid: uid.to_owned(),
            worker: self.index,
            workers: self.peers,
            key_groups: self.key_groups,
            groups: self.key_groups.range(self.index, self.peers),
            owners: self.owners.clone(),
            env: self.attempt.env.clone(),
        }
    }
}

/// The states of a node: name and kind of each, as the graph in an entry lists them.
pub(crate) fn states_of(
    plan: &Checked,
    id: usize,
    key_groups: KeyGroups,
    env: &Arc<dyn Env>,
) -> Vec<(String, String)> {
    let context = OperatorContext {
        uid: plan.uid(id).to_owned(),
        worker: 0,
        workers: 1,
        key_groups,
        groups: 0..0,
        owners: Arc::new([]),
        env: env.clone(),
    };
    let mut operator: Box<dyn Operator> = match &plan.nodes()[id].role {
        Role::Operator { make, .. } => make(&context),
        Role::Source(..) => Box::new(split_table::SplitTable::new(&context)),
        Role::Sink(_) => return Vec::new(),
    };
    let tables = operator.tables();
    tables.iter().map(|table| (table.name().to_owned(), table.kind().name().to_owned())).collect()
}
