//! A random graph as a job in the typed API, as a user would write it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater::{
    Aggregate, BoxError, Context, Job, List, Map, Process, Side, StateHandle, States, Stream,
    Timestamp, Value,
};
use highwater_runtime::connector::{Delivery, Malformed, Reject};
use highwater_world::World;
use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Output, Row};
use crate::op::Op;
use crate::source::{Found, SimSource};
use crate::table::Table;
use crate::timed::{self, Input};
use crate::{inputs, joins, windows};

/// The sinks' tables, by the number of the sink's node.
pub type Tables = BTreeMap<usize, Table>;

/// What keys have to begin with.
pub const BEGIN: [(u32, i64); 3] = [(0, 1_000), (1, 2_000), (70_000, 3_000)];

/// A table for each sink.
pub fn tables(graph: &Graph) -> Tables {
    let sinks = graph.nodes.iter().enumerate();
    let sinks = sinks.filter(|(_, node)| node.op.takes_rows_once().is_some());
    sinks.map(|(at, _)| (at, Table::default())).collect()
}

/// Builds the job. `found` says whether splits are found that show up late; no sink promises more than it may.
pub fn build(
    graph: &Graph,
    job: &Job,
    world: &World,
    tables: &Tables,
    found: &Arc<Found>,
    may_promise: Delivery,
) {
    let mut streams: BTreeMap<Output, Stream<Row>> = BTreeMap::new();
    // Sources whose splits are aligned: they can be by one watermark.
    let mut aligned: BTreeSet<usize> = BTreeSet::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        let uid = format!("n{at}");
        if let Op::Read { malformed, .. } = node.op {
            let source = SimSource::new(graph, at, found.clone());
            let rows = match malformed {
                Malformed::Fail => job.read(&uid, source),
                Malformed::Skip => job.read_or_skip(&uid, source),
                Malformed::Reject => {
                    let (rows, rejects) = job.read_with_rejects(&uid, source);
                    streams.insert((at, 1), rejects.map(move |reject| rejected(&reject, at)));
                    rows
                }
            };
            streams.insert((at, 0), rows);
            continue;
        }
        let input = streams[&node.inputs[0]].clone();
        let output = match node.op {
            Op::Write { exactly_once } => {
                let promise = if exactly_once { may_promise } else { Delivery::AtLeastOnce };
                input.write(&uid, tables[&at].sink(&uid, world, exactly_once, promise));
                continue;
            }
            Op::Foreach => {
                input.write(&uid, tables[&at].as_they_come(&uid, world));
                continue;
            }
            Op::Split(by) => {
                let (first, second) = input.split(move |row| row.value % by == 0);
                streams.insert((at, 0), first);
                streams.insert((at, 1), second);
                continue;
            }
            Op::SplitMap(by) => {
                let split = move |row: Row| match row.value % by {
                    0 => Side::Main(row),
                    _ => Side::Side((row.key, row.value, (row.split, row.seq))),
                };
                let (first, second) = input.split_map(split);
                let row = |(key, value, (split, seq))| Row { key, value, split, seq };
                streams.insert((at, 0), first);
                streams.insert((at, 1), second.map(row));
                continue;
            }
            Op::UnionAll => input.union_all(node.inputs[1..].iter().map(|input| &streams[input])),
            Op::Inspect => input.inspect(|row| assert!(row.split < 1_000, "it is a row")),
            Op::TryMap(add) => input.try_map(move |row| {
                let value = row.value.wrapping_mul(3).checked_add(add).ok_or("too large")?;
                Ok::<_, BoxError>(Row { value, ..row })
            }),
            Op::Union => input.union(&streams[&node.inputs[1]]),
            Op::Map(add) => {
                input.map(move |row| Row { value: row.value.wrapping_mul(3) + add, ..row })
            }
            Op::Filter(by) => input.filter(move |row| row.value % by != 0),
            Op::Repeat(times) => input.flat_map(move |row: Row| vec![row; times as usize]),
            Op::FilterMap(by) => input.filter_map(move |row| {
                (row.key % by != 0).then_some(Row { key: row.key / 2, ..row })
            }),
            Op::Rebalance => input.rebalance(),
            Op::AllWindows(number) => {
                let may_align = align(graph, node.inputs[0].0, &mut aligned);
                windows::all_windows(&uid, Input { rows: &input, may_align }, number)
            }
            Op::Batches(number) => windows::batches(&uid, &input, number),
            Op::TransformWith(number) => {
                windows::transform_with(&uid, &input, &streams[&node.inputs[1]], number)
            }
            op if op.tells_numbers() => {
                let inputs = node.inputs.iter().map(|from| {
                    // What goes by the clock or by triggers knows no event time.
                    let may_align = op.is_by_event_time() && align(graph, from.0, &mut aligned);
                    Input { rows: &streams[from], may_align }
                });
                let inputs: Vec<Input<'_>> = inputs.collect();
                numbers(op, &uid, &inputs).map(|(key, number)| told(key, number))
            }
            op => keyed(op, &uid, &input),
        };
        streams.insert((at, 0), output);
    }
}

/// Whether the splits behind the rows of a node may be aligned, which they then are.
fn align(graph: &Graph, node: usize, aligned: &mut BTreeSet<usize>) -> bool {
    let Some(mut sources) = graph.read_from(node) else { return false };
    let may = sources.is_disjoint(aligned);
    if may {
        aligned.append(&mut sources);
    }
    may
}

/// The row that the source at `node` couldn't read.
fn rejected(reject: &Reject, node: usize) -> Row {
    let numbers: Vec<i64> =
        reject.text.split(' ').map(|number| number.parse().expect("it is a number")).collect();
    let [key, value, split, seq] = numbers[..] else { panic!("{reject} is four numbers") };
    let row = Row { key: key as u32, value, split: split as u32, seq: seq as u32 };
    assert_eq!(reject.source, format!("n{node}"), "it is told whose it is");
    assert_eq!(reject.split, format!("split-{}", row.split - 100 * node as u32), "and where");
    assert_eq!(reject.record, u64::from(row.seq) + 1, "and which record");
    row
}

fn told(key: u32, value: i64) -> Row {
    Row { key, value, split: 0, seq: 0 }
}

/// Operators that tell of keys and numbers.
fn numbers(op: Op, uid: &str, inputs: &[Input<'_>]) -> Stream<(u32, i64)> {
    let input = inputs[0];
    match op {
        Op::Connect => inputs::connect(uid, input.rows, inputs[1].rows),
        Op::Broadcast => inputs::broadcast(uid, input.rows),
        Op::Visits(number) => inputs::visits(uid, input, inputs[1].rows, number),
        Op::Cogroup => joins::cogroup(uid, input.rows, inputs[1].rows),
        Op::WindowJoin(number) => joins::window_join(uid, input, inputs[1], number),
        Op::IntervalJoin(number) => joins::interval_join(uid, input, inputs[1], number),
        Op::FromInitial => timed::from_initial(uid, input.rows),
        Op::DistinctWithin(number) => timed::distinct_within(uid, input, number),
        Op::Timers(number) => timed::timers(uid, input, number),
        Op::Lifetimes(number) => timed::lifetimes(uid, input, number),
        Op::Windows(number) => windows::windows(uid, input, number),
        Op::WindowsOtherwise(number) => windows::windows_otherwise(uid, input, number),
        Op::Carried(number) => windows::carried(uid, input.rows, number),
        Op::LastRows(number) => windows::last_rows(uid, input.rows, number),
        Op::Overlapping(number) => windows::overlapping(uid, input, number),
        Op::OtherKinds(number) => windows::other_kinds(uid, input, number),
        Op::Early(number) => windows::early(uid, input, number),
        Op::AllowedLateness(number) => windows::allowed_lateness(uid, input, number),
        other => unreachable!("{other:?} tells of no numbers"),
    }
}

fn keyed(op: Op, uid: &str, input: &Stream<Row>) -> Stream<Row> {
    let rows = input.key_by(|row| row.key);
    match op {
        Op::CountEvery => {
            let counts = rows.count().every_record().uid(uid);
            counts.map(|(key, count)| told(key, count as i64))
        }
        Op::Distinct => {
            let pairs = input.map(|row| (row.key, row.value)).distinct();
            pairs.uid(uid).map(|(key, value)| told(key, value))
        }
        Op::Number => {
            let number = |key: &u32, _: Row, last: &mut StateHandle<'_, i64>| {
                let number = last.get().copied().unwrap_or_default() + 1;
                if number == 3 {
                    last.remove();
                } else {
                    last.set(number);
                }
                Some(told(*key, number))
            };
            rows.map_with_state(number).uid(uid)
        }
        Op::Process => rows.process(Everything::declare).uid(uid).main(),
        Op::Ordered => {
            let check = |_: &u32, row: Row, last: &mut StateHandle<'_, u32>| {
                let late = last.get().is_some_and(|last| row.seq < *last);
                last.set(row.seq);
                Some(if late { Row { value: i64::MIN, ..row } } else { row })
            };
            input.key_by(|row| row.split).map_with_state(check).uid(uid)
        }
        Op::Count => rows.count().uid(uid).map(|(key, count)| told(key, count as i64)),
        Op::Sum => rows.sum(|row| row.value).uid(uid).map(|(key, sum)| told(key, sum)),
        Op::Reduce => {
            let rank = |row: &Row| (row.value, row.split, row.seq);
            let best = rows.reduce(move |a, b| if rank(&a) > rank(&b) { a } else { b });
            best.uid(uid).map(|(key, row)| told(key, row.value))
        }
        Op::Fold => {
            let add = |acc: &mut (i64, i64), row: Row| {
                acc.0 += 1;
                acc.1 ^= row.value;
            };
            let folded = rows.fold((0, 0), add).uid(uid);
            folded.map(|(key, (count, xor))| told(key, count * 1_000_000 + xor))
        }
        Op::Aggregate => {
            let told_of = |(key, (count, sum))| told(key, count * 1_000 + sum);
            rows.aggregate(CountAndSum).uid(uid).map(told_of)
        }
        Op::Min => {
            let values = input.map(|row| (row.key, row.value)).keyed();
            values.min().uid(uid).map(|(key, value)| told(key, value))
        }
        Op::MinBy => {
            let best = rows.min_by_key(|row| -row.value).uid(uid);
            best.map(|(key, row)| told(key, row.value))
        }
        Op::MaxBy => {
            let best = rows.max_by_key(|row| -row.value).uid(uid);
            best.map(|(key, row)| told(key, -row.value))
        }
        Op::Latest => {
            let latest = |key: &u32, row: Row, last: &mut StateHandle<'_, i64>| {
                last.set(row.value);
                last.get().map(|value| told(*key, *value))
            };
            rows.map_with_state(latest).uid(uid)
        }
        Op::Largest => {
            let values = input.map(|row| (row.key, row.value)).keyed();
            values.max().uid(uid).map(|(key, value)| told(key, value))
        }
        Op::UpdateState => {
            let update = |_: &u32, new: Vec<Row>, old: Option<i64>| {
                Some(old.unwrap_or_default() + new.iter().map(|row| row.value).sum::<i64>())
            };
            rows.update_state_by_key(update).uid(uid).map(|(key, sum)| told(key, sum))
        }
        Op::UpdateRemoving => {
            let update = |_: &u32, new: Vec<Row>, old: Option<i64>| {
                let sum = old.unwrap_or_default() + new.iter().map(|row| row.value).sum::<i64>();
                Some(sum.rem_euclid(4)).filter(|rest| *rest != 0)
            };
            rows.update_state_by_key(update).uid(uid).map(|(key, rest)| told(key, rest))
        }
        Op::UpdateAt => {
            let update = |at, _: &u32, new: Vec<Row>, old: Option<(i64, Timestamp)>| {
                let (sum, last) = old.unwrap_or((0, at));
                assert!(last <= at, "the time of a batch is never before that of another");
                let sum = sum + new.iter().map(|row| row.value).sum::<i64>();
                Some((sum, if new.is_empty() { last } else { at }))
            };
            let sums = rows.update_state_by_key_at(update).uid(uid);
            sums.map(|(key, (sum, _))| told(key, sum))
        }
        Op::UpdateFrom => {
            let update = |_: &u32, new: Vec<Row>, old: Option<i64>| {
                Some(old.unwrap_or_default() + new.iter().map(|row| row.value).sum::<i64>())
            };
            let sums = rows.update_state_by_key_from(BEGIN, update).uid(uid);
            sums.map(|(key, sum)| told(key, sum))
        }
        other => unreachable!("{other:?} is no operator on keys"),
    }
}

/// A struct with what accumulators may have in them.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sums {
    count: i64,
    sum: Option<i64>,
    text: String,
}

struct CountAndSum;

impl Aggregate for CountAndSum {
    type In = Row;
    type Acc = Sums;
    type Out = (i64, i64);

    fn create(&self) -> Sums {
        Sums { count: 0, sum: None, text: String::new() }
    }

    fn add(&self, acc: &mut Sums, row: Row) {
        acc.count += 1;
        acc.sum = Some(acc.sum.unwrap_or_default() + row.value);
        acc.text = format!("{} so far", acc.count);
    }

    fn result(&self, acc: &Sums) -> (i64, i64) {
        assert_eq!(acc.text, format!("{} so far", acc.count), "the accumulator is whole");
        (acc.count, acc.sum.unwrap_or_default())
    }
}

/// Tells of three states: how many rows the key has had, how long its list is (which is emptied at every fourth), and how many
/// of the five entries of its map there are.
struct Everything {
    count: Value<i64>,
    list: List<i64>,
    map: Map<u32, i64>,
}

impl Process for Everything {
    type Key = u32;
    type In = Row;
    type Out = Row;

    fn declare(states: &mut States<Self>) -> Self {
        Everything {
            count: states.value("count"),
            list: states.list("list"),
            map: states.map("map"),
        }
    }

    fn record(&mut self, row: Row, cx: &mut Context<Self>) -> Result<(), BoxError> {
        let count = self.count.get(cx).unwrap_or_default() + 1;
        self.count.set(cx, count);
        self.list.push(cx, row.value);
        let list = self.list.len(cx) as i64;
        if list == 4 {
            self.list.clear(cx);
        }
        self.map.insert(cx, (count % 5) as u32, row.value);
        let map = self.map.len(cx) as i64;
        cx.emit(told(*cx.key(), count * 10_000 + list * 100 + map));
        Ok(())
    }
}
