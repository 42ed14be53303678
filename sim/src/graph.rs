//! Random jobs: graphs of all operators that there are.
//!
//! A graph is a list of nodes, each reading streams of nodes before it, so that it can be printed, compared and evaluated by the
//! [model](crate::model). Two things are known of every stream, because they decide what can be read from it and how its
//! output can be checked:
//!
//! - *exact*: which rows it has doesn't depend on timing, only on the input. Otherwise only the last row of each key is known.
//! - *ordered*: the rows of each split come in their order.

use std::collections::BTreeSet;

use highwater_runtime::connector::Malformed;
use highwater_world::Random;
use serde::{Deserialize, Serialize};

use crate::op::Op;

/// What travels through a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// The key.
    pub key: u32,
    /// The value.
    pub value: i64,
    /// The split in which it was read.
    pub split: u32,
    /// Its number within the split.
    pub seq: u32,
}

/// An operator may have so many pairs of rows to look at: what it tells grows with the square of what it is given.
const MOST_PAIRS: u64 = 40_000;

/// A stream: an output of a node.
pub type Output = (usize, usize);

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Where its rows come from.
    pub inputs: Vec<Output>,
    /// Which rows its outputs have depends on the input alone.
    pub exact: bool,
    /// Its outputs keep the order of splits.
    pub ordered: bool,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Decides what the sources hold.
    pub seed: u64,
    /// How many different keys there are.
    pub keys: u32,
    /// The nodes.
    pub nodes: Vec<Node>,
}

impl Graph {
    /// The smallest job with state: a source of three or four rows, a count, a sink of transactions.
    pub fn smallest(seed: u64) -> Self {
        let read = Op::Read { splits: 1, rows: 4, late: 0, malformed: Malformed::Fail };
        let node = |op, inputs: &[Output]| Node {
            op,
            inputs: inputs.to_vec(),
            exact: true,
            ordered: false,
        };
        let nodes = vec![
            node(read, &[]),
            node(Op::CountEvery, &[(0, 0)]),
            node(Op::Write { exactly_once: true }, &[(1, 0)]),
        ];
        let mut graph = Graph { seed, keys: 2, nodes };
        // What the source holds is drawn from the seed: the next one that has it hold something.
        while rows_of(&graph, 0, 0).len() < 3 {
            graph.seed += 1;
        }
        graph
    }

    /// A job drawn from a seed, of at most so many operators.
    pub fn draw(seed: u64, operators: u64) -> Self {
        let mut random = Random::new(seed, "graph");
        // Mostly few keys and rows, because much happens to each. Chains of changes come about only in larger states.
        let (keys, rows) =
            if random.chance(150) { (100..=800, 150..=400) } else { (1..=12, 1..=40) };
        let mut graph = Graph { seed, keys: random.within(keys) as u32, nodes: Vec::new() };
        let mut malformed = Random::new(seed, "malformed");
        for _ in 0..random.within(1..=2) {
            let late = if random.chance(200) { 1 } else { 0 };
            let splits = random.within(1 + late..=4) as u32;
            let rows = random.within(rows.clone()) as u32;
            let malformed = *malformed.pick(&[
                Malformed::Fail,
                Malformed::Fail,
                Malformed::Skip,
                Malformed::Reject,
            ]);
            let op = Op::Read { splits, rows, late: late as u32, malformed };
            graph.nodes.push(Node { op, inputs: Vec::new(), exact: true, ordered: true });
        }
        let mut unread = graph.outputs();
        for _ in 0..random.within(1..=operators) {
            graph.grow(&mut random, &mut unread);
        }
        for output in &mut unread {
            graph.follow(&mut random, output);
        }
        let mut as_they_come = Random::new(seed, "as they come");
        for output in unread {
            let exactly_once = random.chance(800);
            // Of rows that come as they come, and more than once, none is the last of its key.
            let may_come = !exactly_once && graph.nodes[output.0].exact;
            let op = match may_come && as_they_come.chance(500) {
                true => Op::Foreach,
                false => Op::Write { exactly_once },
            };
            graph.add(op, vec![output]);
        }
        graph
    }

    /// The outputs of all nodes.
    fn outputs(&self) -> Vec<Output> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .flat_map(|(at, node)| (0..node.op.outputs()).map(move |output| (at, output)))
            .collect()
    }

    fn add(&mut self, op: Op, inputs: Vec<Output>) -> usize {
        let all = |test: fn(&Node) -> bool| inputs.iter().all(|(node, _)| test(&self.nodes[*node]));
        let stateless = op.is_stateless();
        let exact = all(|node| node.exact) && !op.is_running();
        let ordered = stateless && all(|node| node.ordered);
        self.nodes.push(Node { op, inputs, exact, ordered });
        self.nodes.len() - 1
    }

    /// Appends operators with state behind a running aggregate, of which the last row of each key is still known.
    fn follow(&mut self, random: &mut Random, output: &mut Output) {
        while !self.nodes[output.0].exact && random.chance(400) {
            let op = match self.nodes[output.0].op {
                // A key without state isn't told of again, so that the last row of it isn't what it came to.
                Op::UpdateRemoving => return,
                Op::Count | Op::Largest if random.chance(500) => Op::Largest,
                _ => Op::Latest,
            };
            *output = (self.add(op, vec![*output]), 0);
        }
    }

    /// Appends an operator behind some stream.
    fn grow(&mut self, random: &mut Random, unread: &mut Vec<Output>) {
        // Mostly behind a stream that nobody reads yet, so that graphs are long rather than wide.
        let mut exact = self.outputs();
        exact.retain(|(node, _)| self.nodes[*node].exact);
        let fresh: Vec<Output> =
            unread.iter().copied().filter(|(node, _)| self.nodes[*node].exact).collect();
        let from = match fresh.is_empty() || random.chance(200) {
            true => *random.pick(&exact),
            false => *random.pick(&fresh),
        };
        let number = random.within(2..=5) as i64;
        let mut op = *random.pick(&[
            Op::Map(number),
            Op::TryMap(number),
            Op::Inspect,
            Op::Filter(number),
            Op::Repeat(number as u32 - 2),
            Op::FilterMap(number as u32),
            Op::Split(number),
            Op::SplitMap(number),
            Op::Union,
            Op::UnionAll,
            Op::Rebalance,
            Op::CountEvery,
            Op::CountEvery,
            Op::Distinct,
            Op::Number,
            Op::Number,
            Op::Process,
            Op::Process,
            Op::Ordered,
            Op::Count,
            Op::Sum,
            Op::Reduce,
            Op::Fold,
            Op::Aggregate,
            Op::Min,
            Op::MinBy,
            Op::MaxBy,
            Op::UpdateState,
            Op::UpdateRemoving,
            Op::UpdateAt,
            Op::UpdateFrom,
            Op::Windows(number),
            Op::WindowsOtherwise(number),
            Op::LastRows(number),
            Op::Carried(number),
            Op::Overlapping(number),
            Op::OtherKinds(number),
            Op::Early(number),
            Op::AllowedLateness(number),
            Op::AllWindows(number),
            Op::Batches(number),
            Op::TransformWith(number),
            Op::Cogroup,
            Op::WindowJoin(number),
            Op::IntervalJoin(number),
            Op::DistinctWithin(number),
            Op::FromInitial,
            Op::Timers(number),
            Op::Lifetimes(number),
            Op::Connect,
            Op::Broadcast,
            Op::Visits(number),
        ]);
        if op == Op::Ordered && !self.nodes[from.0].ordered {
            op = Op::Number;
        }
        let mut inputs = vec![from];
        inputs.extend((1..op.inputs()).map(|_| *random.pick(&exact)));
        unread.retain(|output| !inputs.contains(output));
        if op.looks_at_pairs() {
            let rows: u64 = inputs.iter().map(|(from, _)| self.most_rows(*from)).product();
            if rows > MOST_PAIRS {
                op = Op::Connect;
            }
        }
        if op.has_no_place_for_late_rows() && inputs.iter().any(|(from, _)| self.reads_late(*from))
        {
            op = if inputs.len() == 2 { Op::Connect } else { Op::Windows(number) };
        }
        let node = self.add(op, inputs);
        unread.extend((0..op.outputs()).map(|output| (node, output)));
    }
}

impl Graph {
    /// How many rows a node tells at the most, if it tells no more than it is given.
    fn most_rows(&self, node: usize) -> u64 {
        let Node { op, inputs, .. } = &self.nodes[node];
        let given = || inputs.iter().map(|(from, _)| self.most_rows(*from)).sum::<u64>();
        match op {
            Op::Read { splits, rows, .. } => u64::from(*splits) * u64::from(*rows),
            Op::Repeat(times) => u64::from(*times) * given(),
            _ => given(),
        }
    }

    /// Whether rows come to a node from splits that show up late. If that is after an attempt has come to the end of time, these rows are late.
    fn reads_late(&self, node: usize) -> bool {
        let Node { op, inputs, .. } = &self.nodes[node];
        matches!(op, Op::Read { late: 1.., .. })
            || inputs.iter().any(|(from, _)| self.reads_late(*from))
    }

    /// The sources from which the rows of a node come as they were read; none if anything has regrouped them.
    pub fn read_from(&self, node: usize) -> Option<BTreeSet<usize>> {
        match self.nodes[node].op {
            Op::Read { .. } => Some(BTreeSet::from([node])),
            op if op.keeps_splits() => {
                let mut sources = BTreeSet::new();
                for (input, _) in &self.nodes[node].inputs {
                    sources.extend(self.read_from(*input)?);
                }
                Some(sources)
            }
            _ => None,
        }
    }
}

/// Whether a row can't be read, where there are such.
pub fn is_malformed(row: &Row) -> bool {
    row.value.rem_euclid(7) == 3
}

/// The rows of one split of the source at `node`.
pub fn rows_of(graph: &Graph, node: usize, split: u32) -> Vec<Row> {
    let Op::Read { rows, .. } = graph.nodes[node].op else { return Vec::new() };
    let mut random = Random::new(graph.seed ^ ((node as u64) << 32) ^ u64::from(split), "rows");
    let count = random.within(0..=u64::from(rows)) as u32;
    // Splits of two sources have numbers of their own.
    let number = split + 100 * node as u32;
    // In a large state few keys change later on: otherwise every checkpoint would hold a whole copy.
    let keys = |seq| match graph.keys > 16 && seq > count / 3 {
        true => 1 + graph.keys / 16,
        false => graph.keys,
    };
    let row = |seq| Row {
        key: random.below(u64::from(keys(seq))) as u32,
        value: random.below(40) as i64 - 20,
        split: number,
        seq,
    };
    (0..count).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_are_whole_and_use_everything() {
        let mut seen = BTreeSet::new();
        for seed in 0..500 {
            let graph = Graph::draw(seed, 8);
            assert_eq!(graph, Graph::draw(seed, 8));
            for (at, node) in graph.nodes.iter().enumerate() {
                assert!(node.inputs.iter().all(|(from, _)| *from < at));
                let text = format!("{:?}", node.op);
                seen.insert(text.split(['(', ' ']).next().unwrap_or_default().to_owned());
            }
            assert!(graph.nodes.iter().any(|node| node.op.takes_rows_once().is_some()));
        }
        assert_eq!(seen.len(), 54, "{seen:?}");
    }
}
