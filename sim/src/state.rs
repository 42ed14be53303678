//! What the last checkpoint of a finished job holds, compared with the model key by key: what is too much there shows up in no output
//! of this run, but would in the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use highwater::Timestamp;
use highwater_runtime::Data;
use highwater_state::{ByFirst, ByKey, Hashing, Image, KeyGroups, KeyedTable, Kind, StateTable};
use highwater_world::Run;

use crate::graph::{Graph, Row};
use crate::model::{evaluate, input};
use crate::op::Op;
use crate::{check, job};

/// Compares every state that the model knows.
pub fn check(
    graph: &Graph,
    run: &Run,
    job: &str,
    splits: &dyn Fn(usize) -> u32,
) -> Result<(), String> {
    let (checkpoint, image) = check::newest(&run.world, job)?;
    let groups = KeyGroups::new(checkpoint.configuration.key_groups);
    let streams = evaluate(graph, splits);
    for (at, node) in graph.nodes.iter().enumerate() {
        let uid = format!("n{at}");
        let held = Held { uid: &uid, image: &image, groups };
        of_operator(node.op, &input(graph, &streams, at), &held)
            .map_err(|why| format!("the last checkpoint's state of {uid}, {:?}: {why}", node.op))?;
    }
    Ok(())
}

/// The state of one operator in a checkpoint.
struct Held<'i> {
    uid: &'i str,
    image: &'i Image,
    groups: KeyGroups,
}

impl Held<'_> {
    fn read<K, V, H>(&self, state: &str, kind: Kind) -> Result<BTreeMap<K, V>, String>
    where
        K: Data + Eq + Ord,
        V: Data,
        H: Hashing<K>,
        KeyedTable<K, V, H>: StateTable,
    {
        let all = 0..self.groups.count();
        let mut table: KeyedTable<K, V, H> = KeyedTable::new(state, kind, self.groups, all);
        table.restore(self.uid, self.image).map_err(|error| format!("`{state}`: {error}"))?;
        let entries = (0..table.group_count()).flat_map(|group| table.group_entries(group));
        Ok(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn is<K, V>(&self, state: &str, kind: Kind, right: &BTreeMap<K, V>) -> Result<(), String>
    where
        K: Data + Eq + Ord + Debug,
        V: Data + PartialEq + Debug,
        KeyedTable<K, V, ByKey>: StateTable,
        ByKey: Hashing<K>,
    {
        same(state, &self.read::<K, V, ByKey>(state, kind)?, right)
    }
}

fn same<T: PartialEq + Debug>(state: &str, found: &T, right: &T) -> Result<(), String> {
    match found == right {
        true => Ok(()),
        false => Err(format!("`{state}` is {found:?}, not {right:?}")),
    }
}

/// What the rows of each key come to, if to anything.
fn by_key<V>(rows: &[Row], come_to: impl Fn(&[&Row]) -> Option<V>) -> BTreeMap<u32, V> {
    let mut keys: BTreeMap<u32, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| keys.entry(row.key).or_default().push(row));
    keys.into_iter().filter_map(|(key, rows)| Some((key, come_to(&rows)?))).collect()
}

fn of_operator(op: Op, rows: &[Row], held: &Held<'_>) -> Result<(), String> {
    let sum = |rows: &[&Row]| rows.iter().map(|row| row.value).sum::<i64>();
    match op {
        Op::Count | Op::CountEvery => {
            let counts = by_key(rows, |rows| Some(rows.len() as u64));
            held.is("accumulator", Kind::Accumulator, &counts)
        }
        Op::Sum => held.is("accumulator", Kind::Accumulator, &by_key(rows, |rows| Some(sum(rows)))),
        Op::Fold => {
            let fold = |rows: &[&Row]| {
                (rows.len() as i64, rows.iter().fold(0_i64, |xor, row| xor ^ row.value))
            };
            held.is("accumulator", Kind::Accumulator, &by_key(rows, |rows| Some(fold(rows))))
        }
        Op::Latest => {
            let latest = by_key(rows, |rows| rows.last().map(|row| row.value));
            held.is("state", Kind::Value, &latest)
        }
        // Every third row of a key takes the state away.
        Op::Number => {
            let rest = |rows: &[&Row]| Some(rows.len() as i64 % 3).filter(|rest| *rest != 0);
            held.is("state", Kind::Value, &by_key(rows, rest))
        }
        Op::UpdateState | Op::UpdateRemoving => {
            let come_to = |rows: &[&Row]| match op {
                Op::UpdateState => Some(sum(rows)),
                _ => Some(sum(rows).rem_euclid(4)).filter(|rest| *rest != 0),
            };
            held.is("state", Kind::Value, &by_key(rows, come_to))?;
            held.is("values", Kind::Value, &BTreeMap::<u32, Vec<Row>>::new())
        }
        Op::UpdateFrom => {
            let mut sums: BTreeMap<u32, i64> = job::BEGIN.into_iter().collect();
            rows.iter().for_each(|row| *sums.entry(row.key).or_default() += row.value);
            held.is("state", Kind::Value, &sums)
        }
        Op::UpdateAt => {
            let states = held.read::<u32, (i64, Timestamp), ByKey>("state", Kind::Value)?;
            let sums: BTreeMap<u32, i64> =
                states.iter().map(|(key, (sum, _))| (*key, *sum)).collect();
            same("state", &sums, &by_key(rows, |rows| Some(sum(rows))))
        }
        Op::Ordered => {
            let mut last = BTreeMap::new();
            last.extend(rows.iter().map(|row| (row.split, row.seq)));
            held.is("state", Kind::Value, &last)
        }
        Op::Distinct => {
            let seen = rows.iter().map(|row| ((row.key, row.value), ())).collect();
            held.is::<(u32, i64), ()>("seen", Kind::Value, &seen)
        }
        Op::Process => of_process(rows, held),
        // Time is at its end: there is nothing to wait for.
        Op::Windows(number) if number % 2 == 0 => {
            let windows = held.read::<(u32, i64), u64, ByFirst>("windows", Kind::Accumulator)?;
            same("windows", &windows, &BTreeMap::new())
        }
        Op::Timers(_) | Op::Visits(_) => {
            let soon = held.read::<(u32, i64), (), ByFirst>("soon", Kind::Timer)?;
            same("soon", &soon, &BTreeMap::new())
        }
        _ => Ok(()),
    }
}

/// The three states of the process function: see `job.rs`. What the list and the map hold depends on the order of rows, where isn't.
fn of_process(rows: &[Row], held: &Held<'_>) -> Result<(), String> {
    let counts = by_key(rows, |rows| Some(rows.len() as i64));
    held.is("count", Kind::Value, &counts)?;
    let list = held.read::<(u32, u64), i64, ByFirst>("list", Kind::ListElement)?;
    let list: BTreeSet<(u32, u64)> = list.into_keys().collect();
    let map = held.read::<(u32, u32), i64, ByFirst>("map", Kind::MapEntry)?;
    let map: BTreeSet<(u32, u32)> = map.into_keys().collect();
    let each = |of: fn(i64) -> std::ops::Range<i64>| {
        counts.iter().flat_map(move |(key, count)| of(*count).map(|at| (*key, at as u64)))
    };
    same("list", &list, &each(|count| 0..count % 4).collect())?;
    let entries = each(|count| 1..count.min(5) + 1).map(|(key, at)| (key, (at % 5) as u32));
    same("map", &map, &entries.collect())
}
