//! What a job comes to, computed in the plainest way: everything at once, in plain collections.

use std::collections::{BTreeMap, BTreeSet};

use highwater_runtime::connector::Malformed;

use crate::graph::{Graph, Output, Row, is_malformed, rows_of};
use crate::op::Op;
use crate::{job, joins, windows};

/// What the sink at a node must end up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// These rows, in some order.
    Rows(Vec<Row>),
    /// For each key, this is the last row.
    LastOfKey(BTreeMap<u32, i64>),
    /// For these keys, this is the last row. There may be others.
    LastOfSomeKeys(BTreeMap<u32, i64>),
}

/// The rows of every stream; of those that depend on timing the last of each key.
pub type Streams = BTreeMap<Output, Vec<Row>>;

/// The rows that a node reads.
pub fn input(graph: &Graph, streams: &Streams, node: usize) -> Vec<Row> {
    let outputs = graph.nodes[node].inputs.iter();
    outputs.flat_map(|output| streams[output].iter().cloned()).collect()
}

/// Evaluates a graph. `splits` says how many splits of the source at a node were there to be read.
pub fn evaluate(graph: &Graph, splits: &dyn Fn(usize) -> u32) -> Streams {
    let mut streams = Streams::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        let input = || input(graph, &streams, at);
        let rows = match node.op {
            Op::Write { .. } | Op::Foreach => continue,
            Op::Read { malformed, .. } => {
                let rows = (0..splits(at)).flat_map(|split| rows_of(graph, at, split));
                let (rejected, read) =
                    rows.partition(|row| malformed != Malformed::Fail && is_malformed(row));
                if malformed == Malformed::Reject {
                    streams.insert((at, 1), rejected);
                }
                read
            }
            Op::Split(by) | Op::SplitMap(by) => {
                let (first, second) =
                    input().into_iter().partition(|row: &Row| row.value % by == 0);
                streams.insert((at, 0), first);
                streams.insert((at, 1), second);
                continue;
            }
            Op::IntervalJoin(number) | Op::WindowJoin(number) => {
                let [left, right] = [0, 1].map(|input| streams[&node.inputs[input]].as_slice());
                let counts = match node.op {
                    Op::WindowJoin(_) => joins::in_windows(left, right, number),
                    _ => joins::near(left, right, number),
                };
                counts.into_iter().map(|(key, count)| told(key, count)).collect()
            }
            // Of the second input only the time matters at which its rows come.
            Op::Visits(_) => apply(node.op, streams[&node.inputs[0]].clone()),
            op => apply(op, input()),
        };
        streams.insert((at, 0), rows);
    }
    streams
}

/// What every sink must end up with.
pub fn expected(graph: &Graph, splits: &dyn Fn(usize) -> u32) -> BTreeMap<usize, Expected> {
    let streams = evaluate(graph, splits);
    let mut expected = BTreeMap::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        if node.op.takes_rows_once().is_none() {
            continue;
        }
        let mut rows = input(graph, &streams, at);
        rows.sort();
        let from = &graph.nodes[node.inputs[0].0];
        let last = || rows.iter().map(|row| (row.key, row.value)).collect();
        let what = match (from.exact, from.op) {
            (true, _) => Expected::Rows(rows),
            (false, Op::UpdateRemoving) => Expected::LastOfSomeKeys(last()),
            (false, _) => Expected::LastOfKey(last()),
        };
        expected.insert(at, what);
    }
    expected
}

fn told(key: u32, value: i64) -> Row {
    Row { key, value, split: 0, seq: 0 }
}

fn apply(op: Op, rows: Vec<Row>) -> Vec<Row> {
    let by_key = |rows: &[Row]| {
        let mut keys: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
        rows.iter().for_each(|row| keys.entry(row.key).or_default().push(row.clone()));
        keys
    };
    // A running aggregate: the last row of each key.
    let last = |f: &dyn Fn(&[Row]) -> i64| -> Vec<Row> {
        by_key(&rows).iter().map(|(key, rows)| told(*key, f(rows))).collect()
    };
    // Numbers given to the rows of each key, whatever their order.
    let numbered = |f: &dyn Fn(i64) -> i64| -> Vec<Row> {
        let keys = by_key(&rows);
        keys.iter()
            .flat_map(|(key, rows)| {
                (1..=rows.len() as i64).map(move |number| told(*key, f(number)))
            })
            .collect()
    };
    match op {
        Op::Map(add) | Op::TryMap(add) => {
            let map = |row: Row| Row { value: row.value.wrapping_mul(3) + add, ..row };
            rows.into_iter().map(map).collect()
        }
        Op::Filter(by) => rows.into_iter().filter(|row| row.value % by != 0).collect(),
        Op::Repeat(times) => {
            let copies = |row: Row| (0..times).map(move |_| row.clone());
            rows.into_iter().flat_map(copies).collect()
        }
        Op::FilterMap(by) => {
            let kept = rows.into_iter().filter(|row| row.key % by != 0);
            kept.map(|row| Row { key: row.key / 2, ..row }).collect()
        }
        Op::Inspect | Op::Union | Op::UnionAll | Op::Rebalance | Op::Ordered => rows,
        Op::AllWindows(_) | Op::Batches(_) | Op::TransformWith(_) => rows,
        // Of what comes before them only the last row of each key is known, and here there is no other.
        Op::Latest | Op::Largest => rows,
        Op::CountEvery
        | Op::Connect
        | Op::Broadcast
        | Op::Visits(_)
        | Op::Lifetimes(_)
        | Op::FromInitial => numbered(&|number| number),
        // Every third row of a key takes its number away.
        Op::Number => numbered(&|number| (number - 1) % 3 + 1),
        // What the process function tells of its three states: see `job.rs`.
        Op::Process => numbered(&|number| {
            let (value, list) = (number, (number - 1) % 4 + 1);
            let map = number.min(5);
            value * 10_000 + list * 100 + map
        }),
        Op::Distinct | Op::DistinctWithin(_) => {
            let distinct: BTreeSet<(u32, i64)> =
                rows.iter().map(|row| (row.key, row.value)).collect();
            distinct.iter().map(|(key, value)| told(*key, *value)).collect()
        }
        Op::LastRows(most) => numbered(&|number| number.min(most)),
        Op::Count
        | Op::Windows(_)
        | Op::WindowsOtherwise(_)
        | Op::Carried(_)
        | Op::Cogroup
        | Op::Timers(_) => last(&|rows| rows.len() as i64),
        Op::Early(5) => {
            let full = windows::FULL as i64;
            let counts = last(&|rows| rows.len() as i64 / full * full);
            counts.into_iter().filter(|row| row.value > 0).collect()
        }
        Op::Early(_) => last(&|rows| rows.len() as i64),
        Op::Overlapping(number) => {
            last(&|rows| rows.iter().map(|row| windows::windows_of(row, number)).sum())
        }
        Op::OtherKinds(number) => {
            let counts = last(&|rows| windows::kept(rows, number));
            counts.into_iter().filter(|row| row.value > 0).collect()
        }
        Op::AllowedLateness(_) => {
            let mut counts: BTreeMap<u32, i64> = BTreeMap::new();
            for row in &rows {
                *counts.entry(windows::window_of(row).0).or_default() += 1;
            }
            counts.into_iter().map(|(key, count)| told(key, count)).collect()
        }
        Op::UpdateFrom => {
            let mut sums: BTreeMap<u32, i64> = job::BEGIN.into_iter().collect();
            for row in &rows {
                *sums.entry(row.key).or_default() += row.value;
            }
            sums.into_iter().map(|(key, sum)| told(key, sum)).collect()
        }
        Op::Sum | Op::UpdateState | Op::UpdateAt => {
            last(&|rows| rows.iter().map(|row| row.value).sum())
        }
        Op::Reduce => last(&|rows| {
            let best = rows.iter().max_by_key(|row| (row.value, row.split, row.seq));
            best.map(|row| row.value).unwrap_or_default()
        }),
        Op::Fold => last(&|rows| {
            let xor = rows.iter().fold(0, |xor, row| xor ^ row.value);
            rows.len() as i64 * 1_000_000 + xor
        }),
        Op::Aggregate => last(&|rows| {
            let sum: i64 = rows.iter().map(|row| row.value).sum();
            rows.len() as i64 * 1_000 + sum
        }),
        Op::Min => last(&|rows| rows.iter().map(|row| row.value).min().unwrap_or_default()),
        Op::UpdateRemoving => {
            let rest = last(&|rows| rows.iter().map(|row| row.value).sum::<i64>().rem_euclid(4));
            rest.into_iter().filter(|row| row.value != 0).collect()
        }
        Op::MinBy => last(&|rows| rows.iter().map(|row| row.value).max().unwrap_or_default()),
        Op::MaxBy => last(&|rows| rows.iter().map(|row| -row.value).max().unwrap_or_default()),
        Op::Read { .. }
        | Op::Split(_)
        | Op::SplitMap(_)
        | Op::IntervalJoin(_)
        | Op::WindowJoin(_)
        | Op::Write { .. }
        | Op::Foreach => {
            unreachable!("evaluated by the caller")
        }
    }
}
