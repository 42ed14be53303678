//! What sinks without a place of their own to stage in share: rows wait in the checkpoint store until they are committed.
//!
//! ```text
//!  write: rows ──2 MB, or cut──▶ task: encode as Arrow, put under stage/ ─▶ items ─▶ the entry ─▶ publish: get, decode ─▶ destination
//! ```
//!
//! An object is one Arrow IPC file with one column, `row`, so that any tool can look into it. A sink that delivers rows as they come
//! stages nothing (see [`direct`](super::direct)).
//!
//! # Invariants
//!
//! - 4\. What a destination is given follows from the entry's items alone: the same checkpoint always brings the same rows, in
//!   the order of the items.
//! - 8\. The worker thread hands rows to a task; encoding and storing happen there.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use arrow_schema::Schema;
use highwater_codec::{ColumnReader, Tier, encode};
use highwater_env::{BoxFuture, Env};
use highwater_log::{Log, LogError, ObjectRef, Retry, StagedItem, names};
use highwater_runtime::connector::{
    Delivery, Lasting, Publisher, PublisherContext, Sink, Writer, WriterContext, on_thread,
};
use highwater_runtime::{Batch, BoxError, Data};

use super::direct;

/// Rows that take so many bytes of memory make an object, or so many of them. Less than the runtime lets a writer have queued: what
/// gathers counts as that.
const BYTES: usize = 2 << 20;
const ROWS: usize = 64 << 10;

/// Between tries to store, at first and at the most; the log tries for some seconds by itself.
const RETRY: Retry = Retry::endless(Duration::from_secs(1), Duration::from_secs(10));

/// Where committed rows go.
pub(super) trait Destination<T>: Send + Sync + 'static {
    /// What it promises.
    fn delivery(&self) -> Delivery;

    /// Whether its settings go together; asked when the job's graph is checked.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Takes the rows of a committed checkpoint; perhaps again, after a failure. May block.
    fn deliver(
        &self,
        from: &PublisherContext,
        checkpoint: u64,
        rows: Vec<T>,
    ) -> Result<(), BoxError>;

    /// Nothing was ever committed: what is there is to be taken back.
    fn start_over(&self, from: &PublisherContext) {
        let _ = from;
    }

    /// Why it can't take rows as they come, for people; none if it can.
    fn only_by_checkpoint(&self) -> Option<&'static str> {
        Some("it takes rows only by the checkpoint that covers them")
    }

    /// Takes rows as they come, without checkpoints or because the sink was asked to; perhaps again, if that fails. May block. An
    /// error that is [`Lasting`] ends the attempt, any other means that the rows are to be given again later.
    fn deliver_directly(&self, env: &dyn Env, rows: &[T]) -> Result<(), BoxError> {
        let _ = (env, rows);
        let text = "this sink delivers exactly once, which needs checkpoints; switch them on";
        Err(Lasting(text.to_owned()).into())
    }
}

/// A sink that stages rows in the checkpoint store, or delivers them as they come.
pub(super) struct StagedRows<T, D> {
    destination: Arc<D>,
    as_they_come: bool,
    rows: PhantomData<fn() -> T>,
}

impl<T: Data, D: Destination<T>> StagedRows<T, D> {
    pub(super) fn sink(destination: D) -> Arc<dyn Sink> {
        Self::made(Arc::new(destination), false)
    }

    pub(super) fn as_they_come(destination: D) -> Arc<dyn Sink> {
        Self::made(Arc::new(destination), true)
    }

    fn made(destination: Arc<D>, as_they_come: bool) -> Arc<dyn Sink> {
        Arc::new(StagedRows { destination, as_they_come, rows: PhantomData })
    }
}

impl<T: Data, D: Destination<T>> Sink for StagedRows<T, D> {
    fn delivery(&self) -> Delivery {
        if self.as_they_come { Delivery::AtLeastOnce } else { self.destination.delivery() }
    }

    fn check(&self) -> Result<(), String> {
        self.destination.check()
    }

    fn at_least_once(&self) -> Result<Arc<dyn Sink>, String> {
        match self.destination.only_by_checkpoint() {
            Some(why) => Err(why.to_owned()),
            None => Ok(Self::made(self.destination.clone(), true)),
        }
    }

    fn writer(&self, context: WriterContext) -> Result<Box<dyn Writer>, BoxError> {
        if self.as_they_come || context.direct {
            return Ok(direct::writer::<T, D>(self.destination.clone(), context));
        }
        Ok(Box::new(StagingWriter::<T>::new(context)))
    }

    fn publisher(&self, context: PublisherContext) -> Result<Box<dyn Publisher>, BoxError> {
        let (destination, rows) = (self.destination.clone(), PhantomData::<fn() -> T>);
        Ok(Box::new(RowsPublisher { destination, context, rows }))
    }
}

/// The result of storing the object with this number.
type Stored = (u64, Result<StagedItem, BoxError>);

struct StagingWriter<T> {
    context: WriterContext,
    rows: Vec<T>,
    /// About how many bytes of memory they take; part of `queued`.
    bytes: usize,
    /// The interval that the next object is named by: the one after the last cut; 0 before the first, when it isn't known.
    /// Names are unique all the same, because objects are counted through the attempt.
    interval: u32,
    /// The first object of the present interval, and the next.
    first: u64,
    next: u64,
    /// A cut is under way: its objects are those before this one.
    cut: Option<u64>,
    stored: BTreeMap<u64, StagedItem>,
    results: (Sender<Stored>, Receiver<Stored>),
    queued: Arc<AtomicUsize>,
    tier: Arc<Mutex<Tier>>,
}

impl<T: Data> StagingWriter<T> {
    fn new(context: WriterContext) -> Self {
        StagingWriter {
            context,
            rows: Vec::new(),
            bytes: 0,
            interval: 0,
            first: 0,
            next: 0,
            cut: None,
            stored: BTreeMap::new(),
            results: channel(),
            queued: Arc::default(),
            tier: Arc::default(),
        }
    }

    /// Stores the rows that are there as one object.
    fn store(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        let WriterContext { uid, worker, attempt, env, waker, log, .. } = self.context.clone();
        let rows = std::mem::take(&mut self.rows);
        let bytes = std::mem::take(&mut self.bytes);
        let number = self.next;
        self.next += 1;
        let name = names::staged(attempt, u64::from(self.interval), worker as u32, &uid, number);
        let (queued, tier, sender) =
            (self.queued.clone(), self.tier.clone(), self.results.0.clone());
        let task = {
            let env = env.clone();
            async move {
                let count = rows.len() as u64;
                // A user's serialization may panic; whoever waits for the rows must learn of it.
                let encoded = catch_unwind(AssertUnwindSafe(|| encode_rows(&rows, &tier)));
                let encoded = encoded.unwrap_or_else(|_| Err("serializing a row panicked".into()));
                drop(rows);
                let item = match encoded {
                    Ok(encoded) => put(&log, &name, encoded.into(), &queued, env.as_ref()).await,
                    Err(error) => Some(Err(error)),
                };
                let Some(item) = item else { return };
                let item = item.map(|object| {
                    let ObjectRef { name, bytes, checksum } = object;
                    StagedItem { name, bytes, rows: count, checksum, part: None }
                });
                queued.fetch_sub(bytes, Ordering::Relaxed);
                // Whoever isn't there any more doesn't wait for it.
                sender.send((number, item)).ok();
                waker.wake();
            }
        };
        env.spawn("stage-rows", Box::pin(task));
    }
}

/// Stores an object, however long the store is away; none if nobody waits for it any more.
async fn put(
    log: &Log,
    name: &str,
    content: bytes::Bytes,
    queued: &Arc<AtomicUsize>,
    env: &dyn Env,
) -> Option<Result<ObjectRef, BoxError>> {
    let mut delays = RETRY.delays(env);
    loop {
        match log.put_object(name, content.clone().into()).await {
            Ok(object) => return Some(Ok(object)),
            Err(error @ LogError::Unavailable { .. }) => {
                // The log has said that its storage is in trouble.
                tracing::debug!(%name, %error, "can't stage rows; trying again");
            }
            Err(error) => return Some(Err(error.into())),
        }
        env.sleep(delays.next().unwrap_or(RETRY.longest)).await;
        // The other tasks hold a copy each, and end one after the other.
        if Arc::strong_count(queued) == 1 {
            return None;
        }
    }
}

impl<T: Data> Writer for StagingWriter<T> {
    fn write(&mut self, batch: Batch) -> Result<(), BoxError> {
        let bytes = batch.bytes();
        self.bytes += bytes;
        self.queued.fetch_add(bytes, Ordering::Relaxed);
        let rows: Vec<T> = batch.take()?;
        if self.rows.is_empty() {
            self.rows = rows;
        } else {
            self.rows.extend(rows);
        }
        if self.bytes >= BYTES || self.rows.len() >= ROWS {
            self.store();
        }
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    fn cut(&mut self, interval: u32) -> Result<(), BoxError> {
        assert!(self.cut.is_none(), "one cut at a time");
        self.store();
        self.interval = interval + 1;
        self.cut = Some(self.next);
        Ok(())
    }

    fn staged(&mut self) -> Result<Option<Vec<StagedItem>>, BoxError> {
        while let Ok((number, item)) = self.results.1.try_recv() {
            self.stored.insert(number, item?);
        }
        let Some(end) = self.cut else { return Ok(None) };
        if self.stored.range(self.first..end).count() as u64 != end - self.first {
            return Ok(None);
        }
        let later = self.stored.split_off(&end);
        let items = std::mem::replace(&mut self.stored, later);
        self.first = end;
        self.cut = None;
        Ok(Some(items.into_values().collect()))
    }
}

/// Rows as one Arrow IPC file.
fn encode_rows<T: Data>(rows: &[T], tier: &Mutex<Tier>) -> Result<Vec<u8>, BoxError> {
    let mut found = *tier.lock().unwrap_or_else(PoisonError::into_inner);
    let (field, column) = encode("row", rows.iter().map(Some), &mut found)?;
    // A higher tier, once needed, is needed again.
    *tier.lock().unwrap_or_else(PoisonError::into_inner) = found;
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(schema.clone(), vec![column])?;
    let mut file = FileWriter::try_new(Vec::new(), &schema)?;
    file.write(&batch)?;
    Ok(file.into_inner()?)
}

/// The rows of an Arrow IPC file.
fn decode_rows<T: Data>(content: &[u8], rows: &mut Vec<T>) -> Result<(), BoxError> {
    for batch in FileReader::try_new(Cursor::new(content), None)? {
        let batch = batch?;
        let schema = batch.schema();
        let (Some(field), Some(column)) = (schema.fields().first(), batch.columns().first()) else {
            return Err("staged rows have no column".into());
        };
        let reader = ColumnReader::<T>::new(field, column)?;
        rows.reserve(reader.len());
        for row in 0..reader.len() {
            rows.push(reader.get(row)?);
        }
    }
    Ok(())
}

struct RowsPublisher<T, D> {
    destination: Arc<D>,
    context: PublisherContext,
    rows: PhantomData<fn() -> T>,
}

impl<T: Data, D: Destination<T>> Publisher for RowsPublisher<T, D> {
    fn prepare(&self) -> BoxFuture<Result<(), BoxError>> {
        if self.context.starts_over {
            self.destination.start_over(&self.context);
        }
        Box::pin(async { Ok(()) })
    }

    fn publish(&self, checkpoint: u64, items: Vec<StagedItem>) -> BoxFuture<Result<(), BoxError>> {
        let (destination, context) = (self.destination.clone(), self.context.clone());
        Box::pin(async move {
            if items.is_empty() {
                return Ok(());
            }
            let mut contents = Vec::with_capacity(items.len());
            for StagedItem { name, bytes, checksum, .. } in items {
                contents.push(context.log.get_object(&ObjectRef { name, bytes, checksum }).await?);
            }
            let env = context.env.clone();
            let deliver = move || {
                let mut rows = Vec::new();
                for content in contents {
                    decode_rows::<T>(&content, &mut rows).map_err(|error| {
                        Lasting(format!(
                            "rows staged by checkpoint {checkpoint} can't be read as what the job writes now ({error}); run the \
                             job once more as it was, so that they are published"
                        ))
                    })?;
                }
                destination.deliver(&context, checkpoint, rows)
            };
            on_thread(env.as_ref(), "deliver-rows", deliver).await?
        })
    }
}

#[cfg(test)]
#[path = "staged_rows_tests.rs"]
mod tests;
