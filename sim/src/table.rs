//! A destination outside of the job: a table with transactions, which outlives every process and notices what must never happen.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater::connectors::{IntoSink, foreach, foreach_batch};
use highwater::env::{BoxFuture, Env};
use highwater_log::StagedItem;
use highwater_runtime::BoxError;
use highwater_runtime::connector::{
    Delivery, Publisher, PublisherContext, Sink, Writer, WriterContext,
};
use highwater_world::{Random, What, World};

use crate::graph::Row;

/// Where the number of a checkpoint would be, if rows are delivered before there is one. No checkpoint has it.
const NO_CHECKPOINT: u64 = 0;

/// A table; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Table(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    /// What each checkpoint brought, in the order in which it came.
    batches: Vec<(u64, Vec<Row>)>,
    /// What must never happen, and has.
    violations: Vec<String>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what another table had up to a checkpoint.
    pub fn fill(&self, from: &Table, up_to: u64) {
        let from = from.lock();
        let batches = from.batches.iter().filter(|(number, _)| *number <= up_to);
        self.lock().batches = batches.cloned().collect();
    }

    /// All rows, in the order in which they became visible.
    pub fn rows(&self) -> Vec<Row> {
        self.lock().batches.iter().flat_map(|(_, rows)| rows.iter().cloned()).collect()
    }

    /// All rows in the order of their checkpoints, each of which is taken once: what whoever reads an at-least-once destination
    /// can make of it, into which zombies may still write what was there before.
    pub fn rows_by_checkpoint(&self) -> Vec<Row> {
        let content = self.lock();
        let batches: BTreeMap<u64, &Vec<Row>> =
            content.batches.iter().map(|(number, rows)| (*number, rows)).collect();
        batches.into_values().flatten().cloned().collect()
    }

    /// What went wrong.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// A sink that writes to this table, each checkpoint once if it is to be exactly once. It may promise less than it does.
    pub fn sink(
        &self,
        uid: &str,
        world: &World,
        exactly_once: bool,
        promise: Delivery,
    ) -> impl IntoSink<Row> + use<> {
        let (table, world, uid) = (self.clone(), world.clone(), uid.to_owned());
        TableSink {
            table: foreach_batch(move |checkpoint, rows| {
                table.transaction(&uid, &world, exactly_once, checkpoint, rows)
            }),
            delivery: promise,
        }
    }

    /// A sink that writes rows to this table as they come.
    pub fn as_they_come(&self, uid: &str, world: &World) -> impl IntoSink<Row> + use<> {
        let (table, world, uid) = (self.clone(), world.clone(), uid.to_owned());
        foreach(move |rows: &[Row]| {
            let fault = deliver(&world, &uid, NO_CHECKPOINT, rows)?;
            table.lock().batches.push((NO_CHECKPOINT, rows.to_vec()));
            answer(fault)
        })
    }

    /// Rows and the number of their checkpoint, in one transaction; nothing if the number is there already.
    fn transaction(
        &self,
        uid: &str,
        world: &World,
        exactly_once: bool,
        checkpoint: u64,
        rows: Vec<Row>,
    ) -> Result<(), BoxError> {
        let fault = deliver(world, uid, checkpoint, &rows)?;
        let mut content = self.lock();
        if !world.is_committed(checkpoint) {
            let what = format!("3: rows of checkpoint {checkpoint} come before it is committed");
            content.violations.push(what);
        }
        let known = content.batches.iter().find(|(number, _)| *number == checkpoint);
        let again = known.map(|(_, known)| *known == rows);
        let newest = content.batches.iter().map(|(number, _)| *number).max();
        match again {
            Some(true) if exactly_once => {}
            Some(false) => {
                let what = format!(
                    "4: checkpoint {checkpoint} brings other rows when it is published again"
                );
                content.violations.push(what);
            }
            None if exactly_once && newest.is_some_and(|newest| checkpoint < newest) => {
                let what = format!("checkpoint {checkpoint} is published after a later one");
                content.violations.push(what);
            }
            _ => content.batches.push((checkpoint, rows)),
        }
        answer(fault)
    }
}

/// Rows come to a table: answers what goes wrong behind that, if they arrive.
fn deliver(
    world: &World,
    uid: &str,
    checkpoint: u64,
    rows: &[Row],
) -> Result<Option<What>, BoxError> {
    let mut hash = DefaultHasher::new();
    rows.hash(&mut hash);
    match world.deliver(uid, checkpoint, rows.len(), hash.finish()) {
        Some(What::SinkFails) => Err("the table is away, as simulated".into()),
        fault => Ok(fault),
    }
}

/// What the table says, when it has the rows.
fn answer(fault: Option<What>) -> Result<(), BoxError> {
    match fault {
        Some(_) => Err("no answer from the table, as simulated".into()),
        None => Ok(()),
    }
}

struct TableSink<S> {
    table: S,
    delivery: Delivery,
}

impl<S: IntoSink<Row>> IntoSink<Row> for TableSink<S> {
    fn into_sink(self) -> Arc<dyn Sink> {
        Arc::new(Promising { sink: self.table.into_sink(), delivery: self.delivery })
    }
}

/// A sink that makes another promise.
struct Promising {
    sink: Arc<dyn Sink>,
    delivery: Delivery,
}

impl Sink for Promising {
    fn delivery(&self) -> Delivery {
        self.delivery
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        self.sink.writer(context)
    }

    fn publisher(&self, context: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        let env = context.env.clone();
        let publisher = self.sink.publisher(context)?;
        let mut random = Random::new(env.random(), "table");
        if random.chance(750) {
            return Ok(publisher);
        }
        Ok(Box::new(Slow { publisher, env, longest_us: random.within(1_000..=40_000) }))
    }
}

/// Takes its time for every transaction: publication may be slower than checkpoints are.
struct Slow {
    publisher: Box<dyn Publisher>,
    env: Arc<dyn Env>,
    longest_us: u64,
}

impl Publisher for Slow {
    fn prepare(&self) -> BoxFuture<Result<(), BoxError>> {
        self.publisher.prepare()
    }

    fn plan(&self, items: &mut [StagedItem], clock_ms: u64, last: bool) {
        self.publisher.plan(items, clock_ms, last);
    }

    fn publish(&self, checkpoint: u64, items: Vec<StagedItem>) -> BoxFuture<Result<(), BoxError>> {
        let pause = Random::new(self.env.random(), "pause").below(self.longest_us);
        let pause = self.env.sleep(Duration::from_micros(pause));
        let publish = self.publisher.publish(checkpoint, items);
        Box::pin(async move {
            pause.await;
            publish.await
        })
    }
}
