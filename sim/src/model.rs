//! What a job comes to, computed in the plainest way: everything at once, in plain collections.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Graph, Op, Output, Row, rows_of};
use crate::timed;

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
            Op::Write { .. } => continue,
            Op::Read { .. } => {
                (0..splits(at)).flat_map(|split| rows_of(graph, at, split)).collect()
            }
            Op::Split(by) | Op::SplitMap(by) => {
                let (first, second) =
                    input().into_iter().partition(|row: &Row| row.value % by == 0);
                streams.insert((at, 0), first);
                streams.insert((at, 1), second);
                continue;
            }
            Op::IntervalJoin(number) => {
                let [left, right] = [0, 1].map(|input| streams[&node.inputs[input]].as_slice());
                interval_join(left, right, number)
            }
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
        if !matches!(node.op, Op::Write { .. }) {
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

/// How many pairs each key has that are near each other, or how many different rows on both sides.
fn interval_join(left: &[Row], right: &[Row], number: i64) -> Vec<Row> {
    let mut counts: BTreeMap<u32, i64> = BTreeMap::new();
    if number % 2 == 0 {
        let (lower, upper) = timed::bounds(number);
        for row in left {
            let near = right.iter().filter(|other| {
                let apart = timed::time_of(other) - timed::time_of(row);
                other.key == row.key && lower <= apart && apart <= upper
            });
            let pairs = near.count() as i64;
            if pairs > 0 {
                *counts.entry(row.key).or_default() += pairs;
            }
        }
    } else {
        for side in [left, right] {
            for row in side.iter().collect::<BTreeSet<_>>() {
                *counts.entry(row.key).or_default() += 1;
            }
        }
    }
    counts.into_iter().map(|(key, value)| Row { key, value, split: 0, seq: 0 }).collect()
}

fn apply(op: Op, rows: Vec<Row>) -> Vec<Row> {
    let by_key = |rows: &[Row]| {
        let mut keys: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
        rows.iter().for_each(|row| keys.entry(row.key).or_default().push(row.clone()));
        keys
    };
    let told = |key: &u32, value: i64| Row { key: *key, value, split: 0, seq: 0 };
    // A running aggregate: the last row of each key.
    let last = |f: &dyn Fn(&[Row]) -> i64| -> Vec<Row> {
        by_key(&rows).iter().map(|(key, rows)| told(key, f(rows))).collect()
    };
    // Numbers given to the rows of each key, whatever their order.
    let numbered = |f: &dyn Fn(i64) -> i64| -> Vec<Row> {
        let keys = by_key(&rows);
        keys.iter()
            .flat_map(|(key, rows)| (1..=rows.len() as i64).map(move |number| told(key, f(number))))
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
        // Of what comes before them only the last row of each key is known, and here there is no other.
        Op::Latest | Op::Largest => rows,
        Op::CountEvery | Op::Connect | Op::Broadcast | Op::Lifetimes(_) | Op::FromInitial => {
            numbered(&|number| number)
        }
        // Every third row of a key takes its number away.
        Op::Number => numbered(&|number| (number - 1) % 3 + 1),
        // What the process function tells of its three states: see `job.rs`.
        Op::Process => numbered(&|number| {
            let (value, list) = (number, (number - 1) % 4 + 1);
            let map = number.min(5);
            value * 10_000 + list * 100 + map
        }),
        Op::Distinct => {
            let distinct: BTreeSet<(u32, i64)> =
                rows.iter().map(|row| (row.key, row.value)).collect();
            distinct.iter().map(|(key, value)| told(key, *value)).collect()
        }
        Op::LastRows(most) => numbered(&|number| number.min(most)),
        Op::Count
        | Op::Windows(_)
        | Op::WindowsOtherwise(_)
        | Op::Carried(_)
        | Op::Cogroup
        | Op::Timers(_) => last(&|rows| rows.len() as i64),
        Op::Sum | Op::UpdateState => last(&|rows| rows.iter().map(|row| row.value).sum()),
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
        | Op::Write { .. } => {
            unreachable!("evaluated by the caller")
        }
    }
}
