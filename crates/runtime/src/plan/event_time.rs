//! Event time in the plan: who has times, and whose watermark counts where.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::{Edge, Exchange, Node, NodeId, Plan, Port, Role, Times};
use crate::alignment::{Align, Alignment};
use crate::connector::Malformed;
use crate::operator::{OperatorContext, Wants};
use crate::watermark::{Of, Stragglers, Watermarks};

impl Plan {
    /// Whether all rows of an output have an event time.
    pub fn is_timed(&self, port: Port) -> bool {
        let node = &self.nodes[port.node];
        match node.times {
            Times::Dropped => false,
            Times::Given => true,
            Times::Kept => node.inputs.iter().all(|edge| self.is_timed(edge.from)),
        }
    }

    /// The sources from which the rows of an output come as they were read, each batch from one split; none if anything has regrouped
    /// them on the way.
    pub fn read_from(&self, port: Port) -> Option<BTreeSet<NodeId>> {
        let node = &self.nodes[port.node];
        match &node.role {
            Role::Source(..) => Some(BTreeSet::from([port.node])),
            Role::Operator { wants, .. } if *wants == Wants::default() => {
                let mut sources = BTreeSet::new();
                for edge in &node.inputs {
                    sources.extend(self.read_from(edge.from)?);
                }
                Some(sources)
            }
            _ => None,
        }
    }

    /// Has what `node` tells at its output 1 of the rows of its only input made into a watermark.
    ///
    /// It tells that by split if [`Plan::read_from`] knows the sources of that input. Only then can splits be aligned.
    pub fn add_watermark(
        &mut self,
        node: NodeId,
        stragglers: Stragglers,
        at: &'static Location<'static>,
    ) {
        let told = Port { node, output: 1 };
        let mut inputs = vec![keyed(told)];
        let sources = self.read_from(self.nodes[node].inputs[0].from);
        let of = match &sources {
            Some(sources) => {
                for &source in sources {
                    let announced = self.announced_at(source);
                    let outputs = &mut self.nodes[source].outputs;
                    *outputs = (*outputs).max(announced.output + 1);
                    inputs.push(keyed(announced));
                }
                Of::Splits { sources: sources.len() }
            }
            None => Of::Rows,
        };
        let align = stragglers.align.clone();
        let watermark = self.add_watermarks(inputs, of, stragglers, at);
        self.generators.insert(node, watermark);
        if let Some(align) = align {
            self.align(watermark, sources, align, at);
        }
    }

    /// Has the splits of these sources aligned by what a watermark tells of them at its output 1.
    fn align(
        &mut self,
        watermark: NodeId,
        sources: Option<BTreeSet<NodeId>>,
        align: Align,
        at: &'static Location<'static>,
    ) {
        let Some(sources) = sources else {
            let why = "nothing is known here of the splits that records were read from, so none of them can be held: give records their times, \
                       with `.align_within(...)`, before `.key_by(...)` and operators with state";
            return self.error(at, why);
        };
        self.nodes[watermark].outputs = 2;
        self.alignments.push((watermark, align));
        for source in sources {
            if let Some(other) = self.aligned.insert(source, watermark) {
                // One would wait for what the other one holds.
                let other = self.nodes[other].at;
                let why = format!(
                    "the splits of this source are aligned already, by the event time given at {}:{}; leave one `.align_within(...)` out",
                    other.file(),
                    other.line()
                );
                self.error(at, why);
            }
        }
    }

    /// Appends what holds splits, for each group.
    pub(super) fn add_alignments(&mut self) {
        let mut groups: BTreeMap<_, Vec<(NodeId, Duration)>> = BTreeMap::new();
        for (watermark, Align { within, group }) in std::mem::take(&mut self.alignments) {
            let alone = group.is_none().then_some(watermark);
            groups.entry((group, alone)).or_default().push((watermark, within));
        }
        for members in groups.into_values() {
            let (watermarks, within): (Vec<_>, Vec<_>) = members.into_iter().unzip();
            let at = self.nodes[watermarks[0]].at;
            let make = move |_: &OperatorContext| -> Box<dyn crate::Operator> {
                Box::new(Alignment::new(&within))
            };
            let told = |node| Port { node, output: 1 };
            // All watermarks are made on the same worker.
            let edge = |node| Edge { from: told(node), exchange: Exchange::Pipeline };
            let holder = self.add(Node {
                name: "alignment",
                uid: None,
                role: Role::Operator { make: Arc::new(make), wants: Wants::default() },
                inputs: watermarks.into_iter().map(edge).collect(),
                outputs: 1,
                times: Times::Dropped,
                watermark: None,
                at,
            });
            self.holders.push(holder);
        }
    }

    /// The outputs at which it is told which splits are held.
    pub(crate) fn holds(&self) -> Vec<Port> {
        self.holders.iter().map(|node| Port { node: *node, output: 0 }).collect()
    }

    /// Whether splits of a source may be held.
    pub(crate) fn is_aligned(&self, source: NodeId) -> bool {
        self.aligned.contains_key(&source)
    }

    /// The output of its own at which a source has its splits announced, if anybody wants to know; it is the last.
    fn announced_at(&self, source: NodeId) -> Port {
        let rejects = matches!(self.nodes[source].role, Role::Source(_, Malformed::Reject));
        Port { node: source, output: 1 + usize::from(rejects) }
    }

    /// The output at which a source is to announce its splits; none if nobody wants to know.
    pub(crate) fn announced(&self, source: NodeId) -> Option<Port> {
        let port = self.announced_at(source);
        (port.output < self.nodes[source].outputs).then_some(port)
    }

    /// The watermark that counts behind these outputs: the least of all that were made of rows on the way to them. None if there
    /// are none.
    pub fn watermark_of(&mut self, ports: &[Port], at: &'static Location<'static>) -> Option<Port> {
        let mut generators = BTreeSet::new();
        for port in ports {
            self.generators_before(port.node, &mut generators);
        }
        let node = match generators.len() {
            0 => return None,
            1 => *generators.first()?,
            several => match self.combined.get(&generators) {
                Some(node) => *node,
                None => {
                    let port = |node: &NodeId| keyed(Port { node: *node, output: 0 });
                    let inputs = generators.iter().map(port).collect();
                    let node = self.add_watermarks(
                        inputs,
                        Of::Watermarks(several),
                        Stragglers::default(),
                        at,
                    );
                    self.combined.insert(generators, node);
                    node
                }
            },
        };
        Some(Port { node, output: 0 })
    }

    /// Sets how many outputs a node has that was made with fewer.
    pub fn set_outputs(&mut self, node: NodeId, outputs: usize) {
        self.nodes[node].outputs = outputs;
    }

    fn generators_before(&self, node: NodeId, found: &mut BTreeSet<NodeId>) {
        if let Some(generator) = self.generators.get(&node) {
            found.insert(*generator);
            return;
        }
        for edge in &self.nodes[node].inputs {
            self.generators_before(edge.from.node, found);
        }
    }

    fn add_watermarks(
        &mut self,
        inputs: Vec<Edge>,
        of: Of,
        stragglers: Stragglers,
        at: &'static Location<'static>,
    ) -> NodeId {
        let make = move |context: &OperatorContext| -> Box<dyn crate::Operator> {
            Box::new(Watermarks::new(context, of.clone(), stragglers.clone()))
        };
        self.add(Node {
            name: "watermark",
            uid: None,
            role: Role::Operator {
                make: Arc::new(make),
                wants: Wants { state: true, epochs: true },
            },
            inputs,
            outputs: 1,
            times: Times::Dropped,
            watermark: None,
            at,
        })
    }
}

fn keyed(from: Port) -> Edge {
    Edge { from, exchange: Exchange::Keyed }
}
