//! The plan of a job: nodes, edges, uids. The job function builds it, every worker instantiates it.
//!
//! All errors of the graph are found here, before anything runs; they carry the place in the user's code.
//!
//! # Invariant
//!
//! 7. All workers build the same operators in the same order: a plan is immutable once checked, nodes are in the order in
//!    which the job function made them, and nothing about a worker influences the graph.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::alignment::Align;
use crate::connector::{Delivery, Malformed, Sink, Source};
use crate::operator::{Operator, OperatorContext, Wants};

mod event_time;

/// A node's number within its plan.
pub type NodeId = usize;

/// An output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The node.
    pub node: NodeId,
    /// The number of the output.
    pub output: usize,
}

/// How rows travel along an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// They stay on their worker.
    Pipeline,
    /// The sender deals them out by key.
    Keyed,
    /// Whole batches go to the workers in turn.
    Rebalance,
}

/// An input of a node.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// Where rows come from.
    pub from: Port,
    /// How they travel.
    pub exchange: Exchange,
}

/// Makes an operator for one worker.
pub type MakeOperator = Arc<dyn Fn(&OperatorContext) -> Box<dyn Operator> + Send + Sync>;

/// What a node is.
#[derive(Clone)]
pub enum Role {
    /// It reads; what becomes of records that it can't read. If they are rejected, the node has a second output for them.
    Source(Arc<dyn Source>, Malformed),
    /// It computes.
    Operator {
        /// Makes it.
        make: MakeOperator,
        /// What it needs from the runtime.
        wants: Wants,
    },
    /// It writes.
    Sink(Arc<dyn Sink>),
}

/// What a node does with the event times of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// Its output has none.
    #[default]
    Dropped,
    /// Its output has those of the input, if all of its inputs have some.
    Kept,
    /// Its output has its own.
    Given,
}

/// A node of the plan.
#[derive(Clone)]
pub struct Node {
    /// What it does: `map`, `reduce`, `files`.
    pub name: &'static str,
    /// The user's name for it.
    pub uid: Option<String>,
    /// What it is.
    pub role: Role,
    /// Where rows come from.
    pub inputs: Vec<Edge>,
    /// How many outputs it has.
    pub outputs: usize,
    /// What becomes of the event times of its rows.
    pub times: Times,
    /// The output of the [`Watermarks`](crate::watermark::Watermarks) whose watermark it is told at the end of epochs.
    pub watermark: Option<Port>,
    /// Where in the user's code it was made.
    pub at: &'static Location<'static>,
}

impl Node {
    /// Whether it has state, and so a uid.
    pub fn is_stateful(&self) -> bool {
        match &self.role {
            Role::Operator { wants, .. } => wants.state,
            Role::Source(..) | Role::Sink(_) => true,
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} <- {:?}", self.name, self.uid, self.inputs)
    }
}

/// Something wrong with a job's graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct PlanError {
    /// The place in the user's code: `file:line`.
    pub at: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// The nodes of a job, under construction or checked.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    nodes: Vec<Node>,
    errors: Vec<PlanError>,
    warnings: Vec<(NodeId, String)>,
    /// Nodes that give rows their times, and what makes a watermark of these.
    generators: BTreeMap<NodeId, NodeId>,
    /// What makes one watermark of several.
    combined: BTreeMap<BTreeSet<NodeId>, NodeId>,
    /// Sources whose splits are aligned, and the watermark by which they are.
    aligned: BTreeMap<NodeId, NodeId>,
    /// Watermarks of which splits are aligned.
    alignments: Vec<(NodeId, Align)>,
    /// Nodes that hold splits.
    holders: Vec<NodeId>,
}

impl Plan {
    /// Appends a node.
    pub fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The nodes, in the order in which they were made.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Notes an error.
    pub fn error(&mut self, at: &Location<'_>, what: impl Into<String>) {
        self.errors
            .push(PlanError { at: format!("{}:{}", at.file(), at.line()), what: what.into() });
    }

    /// Notes what isn't wrong with a node, but may become so.
    pub fn warn(&mut self, node: NodeId, what: impl Into<String>) {
        self.warnings.push((node, what.into()));
    }

    /// Names a node. A node that gives rows their times lends its name to what makes the watermark, which is state.
    pub fn set_uid(&mut self, node: NodeId, uid: &str, at: &Location<'_>) {
        let node = self.generators.get(&node).copied().unwrap_or(node);
        let what = self.nodes[node].name;
        if !self.nodes[node].is_stateful() {
            self.error(
                at,
                format!("`{what}` has no state, so it takes no uid; leave `.uid({uid:?})` out"),
            );
        } else if let Some(old) = &self.nodes[node].uid {
            let text =
                format!("this `{what}` has the uid `{old}` already; leave `.uid({uid:?})` out");
            self.error(at, text);
        } else if !is_good_uid(uid) {
            let rule = "a uid is letters, digits, `-`, `_` and `.`, 1 to 100 of them, and begins with a letter or digit";
            self.error(at, format!("the uid {uid:?} can't be used: {rule}"));
        } else {
            self.nodes[node].uid = Some(uid.to_owned());
        }
    }

    /// Checks the graph, and gives every stateful node without a uid one made of its name and its number among those of that
    /// name.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn check(mut self, checkpoints: bool) -> Result<Checked, Vec<PlanError>> {
        self.add_alignments();
        self.give_uids();
        let mut owners: BTreeMap<&str, &Node> = BTreeMap::new();
        let mut errors = std::mem::take(&mut self.errors);
        let place = |node: &Node| format!("{}:{}", node.at.file(), node.at.line());
        for node in &self.nodes {
            let Some(uid) = &node.uid else { continue };
            if let Some(other) = owners.insert(uid, node) {
                let what =
                    format!("the uid `{uid}` is taken by the `{}` at {}", other.name, place(other));
                errors.push(PlanError { at: place(node), what });
            }
        }
        let sinks = || {
            self.nodes.iter().filter_map(|node| match &node.role {
                Role::Sink(sink) => Some((node, sink)),
                _ => None,
            })
        };
        if sinks().next().is_none() {
            let at = self.nodes.first().map_or_else(|| "the job".to_owned(), place);
            errors.push(PlanError {
                at,
                what: "the job writes nothing: end it with `.write(name, sink)`".into(),
            });
        }
        for (node, sink) in sinks() {
            if let Err(what) = sink.check() {
                errors.push(PlanError { at: place(node), what });
            }
        }
        if !checkpoints {
            for (node, _) in sinks().filter(|(_, sink)| sink.delivery() == Delivery::ExactlyOnce) {
                let what = format!(
                    "the sink `{}` promises exactly once, which needs checkpoints; switch them on, or write to a sink \
                     that doesn't promise it",
                    node.uid.as_deref().unwrap_or_default()
                );
                errors.push(PlanError { at: place(node), what });
            }
        }
        if errors.is_empty() { Ok(Checked(self)) } else { Err(errors) }
    }

    fn give_uids(&mut self) {
        let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
        for node in self.nodes.iter_mut().filter(|node| node.is_stateful()) {
            let count = counts.entry(node.name).or_default();
            *count += 1;
            node.uid.get_or_insert_with(|| format!("{}-{count}", node.name));
        }
    }
}

fn is_good_uid(uid: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    uid.len() <= 100
        && uid.starts_with(plain)
        && uid.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'))
}

/// A plan without errors, in which every stateful node has a uid.
#[derive(Clone, Debug)]
pub struct Checked(Plan);

/// Nodes that run as one operator: the first, and stateless ones behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The nodes, in the order in which rows pass them.
    pub nodes: Vec<NodeId>,
    /// All outputs: those of the last node, then those of the others but the first, which the next node reads.
    pub outputs: Vec<Port>,
}

impl Stage {
    /// Where among the outputs a node's output 1 is; its further ones follow.
    pub fn side_of(&self, node: NodeId) -> usize {
        let side = Port { node, output: 1 };
        self.outputs.iter().position(|port| *port == side).unwrap_or(self.outputs.len())
    }
}

impl Checked {
    /// The nodes, in the order in which they were made.
    pub fn nodes(&self) -> &[Node] {
        &self.0.nodes
    }

    /// The output at which a source is to announce its splits; none if nobody wants to know.
    pub(crate) fn announced(&self, source: NodeId) -> Option<Port> {
        self.0.announced(source)
    }

    /// The outputs at which it is told which splits are held.
    pub(crate) fn holds(&self) -> Vec<Port> {
        self.0.holds()
    }

    /// Whether splits of a source may be held.
    pub(crate) fn is_aligned(&self, source: NodeId) -> bool {
        self.0.is_aligned(source)
    }

    /// What may become wrong, for people: with the uid of the operator and its place in the user's code.
    pub fn warnings(&self) -> Vec<String> {
        let shown = |(node, what): &(NodeId, String)| {
            let at = self.0.nodes[*node].at;
            format!("`{}` ({}:{}): {what}", self.uid(*node), at.file(), at.line())
        };
        self.0.warnings.iter().map(shown).collect()
    }

    /// A node's uid; its name if it has no state.
    pub fn uid(&self, node: NodeId) -> &str {
        let node = &self.0.nodes[node];
        node.uid.as_deref().unwrap_or(node.name)
    }

    /// A node's uid; its name and number if it has no state, so that no two nodes are called the same.
    pub fn label(&self, node: NodeId) -> String {
        let Node { uid, name, .. } = &self.0.nodes[node];
        uid.clone().unwrap_or_else(|| format!("{name}@{node}"))
    }

    /// Puts stateless nodes into the stage of the node before them, where nothing is exchanged in between and nobody else reads it.
    pub fn stages(&self) -> Vec<Stage> {
        let nodes = &self.0.nodes;
        let mut readers: BTreeMap<Port, usize> = BTreeMap::new();
        for edge in nodes.iter().flat_map(|node| &node.inputs) {
            *readers.entry(edge.from).or_default() += 1;
        }
        let mut stages: Vec<Stage> = Vec::new();
        let mut stage_of: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (id, node) in nodes.iter().enumerate() {
            let fused = match (&node.role, node.inputs.as_slice()) {
                (Role::Operator { wants, .. }, [edge])
                    if *wants == Wants::default()
                        && edge.exchange == Exchange::Pipeline
                        && edge.from.output == 0
                        && readers[&edge.from] == 1 =>
                {
                    Some(stage_of[&edge.from.node])
                }
                _ => None,
            };
            let stage = fused.unwrap_or(stages.len());
            if fused.is_some() {
                stages[stage].nodes.push(id);
            } else {
                stages.push(Stage { nodes: vec![id], outputs: Vec::new() });
            }
            stage_of.insert(id, stage);
        }
        for Stage { nodes: fused, outputs } in &mut stages {
            let Some((last, inner)) = fused.split_last() else { continue };
            let of = |node: NodeId, from| {
                (from..nodes[node].outputs).map(move |output| Port { node, output })
            };
            *outputs = of(*last, 0).chain(inner.iter().flat_map(|node| of(*node, 1))).collect();
        }
        stages
    }
}
