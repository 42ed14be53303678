//! Broadcast state: what a small stream (rules, prices, who is who) makes known to every worker of a process function.
//!
//! ```text
//! rules   ─▶ to all workers ─▶ broadcast(): writes the state, the same on every worker
//! records ─▶ by key         ─▶ record():    reads it; a record sees all rules of its epoch and of those before
//! ```
//!
//! Records of both streams wait until their epoch is complete. Those of the small one come first, in the order of the workers that sent
//! them: so all copies are the same, and what a record sees depends on epochs alone.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::vec;

use highwater_codec::hash_key;
use highwater_runtime::{Batch, BoxError, Data, Epoch, Operator, OperatorContext, Outputs};
use highwater_state::{KeyGroups, Replicated, StateTable};

use super::context::Moment;
use super::states::ProcessTable;
use super::{Context, Process};
use crate::api::changed::PerEpoch;
use crate::api::stateless::emit;
use crate::api::time::Timestamp;
use crate::api::{Key, SLICE_ROWS};

/// A process function that also gets every record of a second, small stream, on every worker. Used with
/// [`KeyedStream::process_with_broadcast`](crate::KeyedStream::process_with_broadcast).
pub trait BroadcastProcess: Process {
    /// The records of the second stream.
    type Broadcast: Data;

    /// Takes a record of the second stream, and changes broadcast states.
    ///
    /// It is called on every worker with the same records in the same order, and must do the same on each: nothing that differs between
    /// workers may have a part in it.
    ///
    /// # Errors
    ///
    /// Whatever it answers ends the attempt, and is reported with the operator's uid.
    fn broadcast(
        &mut self,
        record: Self::Broadcast,
        cx: &mut BroadcastContext<'_, Self>,
    ) -> Result<(), BoxError>;
}

/// What a process function is lent for a record that all workers get.
///
/// Broadcast states can be changed through it. It has no key, so nothing can be emitted, and states of keys are reached through
/// [`apply_to_keyed_state`](Self::apply_to_keyed_state) only.
pub struct BroadcastContext<'a, P: Process> {
    cx: &'a mut Context<P>,
    epoch: Epoch,
    time: Option<i64>,
}

impl<P: Process> BroadcastContext<'_, P> {
    /// Calls `f` for every key that has something in `state` (a value, a list or a map that the function has declared), with that key as the present one:
    /// its states can be read and changed, timers set, and records emitted. Every worker does that for the keys that it has, in no particular order.
    ///
    /// It visits every key at once, so the end of the epoch takes as long as there are keys.
    ///
    /// ```
    /// use highwater::testing::{self, Collect, Script};
    /// use highwater::{BoxError, BroadcastContext, BroadcastProcess, Context, Process, States, Value};
    ///
    /// /// Sums up payments, and tells of all sums when somebody closes the books.
    /// struct Books {
    ///     sum: Value<u64>,
    /// }
    ///
    /// impl Process for Books {
    ///     type Key = String;
    ///     type In = u64;
    ///     type Out = (String, u64);
    ///
    ///     fn declare(states: &mut States<Self>) -> Self {
    ///         Books { sum: states.value("sum") }
    ///     }
    ///
    ///     fn record(&mut self, amount: u64, cx: &mut Context<Self>) -> Result<(), BoxError> {
    ///         let sum = self.sum.get(cx).unwrap_or_default() + amount;
    ///         self.sum.set(cx, sum);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl BroadcastProcess for Books {
    ///     type Broadcast = ();
    ///
    ///     fn broadcast(&mut self, _: (), cx: &mut BroadcastContext<'_, Self>) -> Result<(), BoxError> {
    ///         let sum = &self.sum;
    ///         cx.apply_to_keyed_state(sum, |cx| {
    ///             if let Some(sum) = sum.take(cx) {
    ///                 cx.emit((cx.key().clone(), sum));
    ///             }
    ///             Ok(())
    ///         })
    ///     }
    /// }
    ///
    /// let run = testing::run(2, |job| {
    ///     let payments = vec![("ann".to_owned(), 5u64), ("bob".to_owned(), 7), ("ann".to_owned(), 1)];
    ///     let payments = job.read("payments", payments).keyed();
    ///     let close = job.read("close", Script::new().epoch().checkpoint().epoch().checkpoint().record(()));
    ///     payments.process_with_broadcast(&close, Books::declare).uid("books").main().write("out", Collect);
    /// })?;
    /// let mut out = run.committed::<(String, u64)>("out");
    /// out.sort();
    /// assert_eq!(out, [("ann".to_owned(), 6), ("bob".to_owned(), 7)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The first one that `f` answers; further keys aren't visited then.
    pub fn apply_to_keyed_state(
        &mut self,
        state: &impl OfKeys<P>,
        mut f: impl FnMut(&mut Context<P>) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        let mut keys = state.keys(self.cx);
        keys.dedup();
        for key in keys {
            let hash = hash_key(&key)?;
            let moment = self.time.map_or(Moment::None, Moment::Record);
            self.cx.enter(self.epoch, (hash, key), moment, 0);
            f(self.cx)?;
        }
        self.cx.leave();
        Ok(())
    }

    /// The epoch of the record.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The event time of the record, if its stream has event times.
    pub fn time(&self) -> Option<Timestamp> {
        self.time.map(Timestamp::from_ms)
    }
}

/// Reads broadcast states; see also [`Context::clock`] and [`Context::watermark`].
impl<P: Process> Deref for BroadcastContext<'_, P> {
    type Target = Context<P>;

    fn deref(&self) -> &Context<P> {
        self.cx
    }
}

impl<P: Process> fmt::Debug for BroadcastContext<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BroadcastContext<{}>", type_name::<P>())
    }
}

/// The handle of a state that keys have: a [`Value`](super::Value), a [`List`](super::List) or a [`Map`](super::Map).
pub trait OfKeys<P: Process>: sealed::Keys<P> {}

impl<P: Process, S: sealed::Keys<P>> OfKeys<P> for S {}

pub(super) use sealed::Keys;

mod sealed {
    use super::{Context, Process};

    pub trait Keys<P: Process> {
        /// The keys of this worker that have something in it that hasn't come to its end. One that has several things follows itself.
        fn keys(&self, cx: &Context<P>) -> Vec<P::Key>;
    }
}

/// The handle of a map of which every worker has the same copy; see [`States::broadcast`](super::States::broadcast).
///
/// Whoever has a [`Context`] can read it, and only [`BroadcastProcess::broadcast`] can change it.
///
/// # Panics
///
/// Every method panics when it is given the context of another process function than the one that declared the handle.
pub struct BroadcastState<M, T> {
    index: usize,
    entry: PhantomData<fn() -> (M, T)>,
}

impl<M: Key, T: Data> BroadcastState<M, T> {
    pub(super) fn new(index: usize) -> Self {
        BroadcastState { index, entry: PhantomData }
    }

    /// A copy of the value at `at`, if there is one.
    pub fn get<P: Process>(&self, cx: &Context<P>, at: &M) -> Option<T> {
        self.get_ref(cx, at).cloned()
    }

    /// The value at `at`, if there is one.
    pub fn get_ref<'a, P: Process>(&self, cx: &'a Context<P>, at: &M) -> Option<&'a T> {
        cx.table::<Copied<M, T>>(self.index).0.get(at)
    }

    /// All entries, in no particular order.
    pub fn iter<'a, P: Process>(
        &self,
        cx: &'a Context<P>,
    ) -> impl Iterator<Item = (&'a M, &'a T)> + use<'a, P, M, T> {
        cx.table::<Copied<M, T>>(self.index).0.iter()
    }

    /// How many entries there are.
    pub fn len<P: Process>(&self, cx: &Context<P>) -> usize {
        cx.table::<Copied<M, T>>(self.index).0.entries() as usize
    }

    /// Whether there are none.
    pub fn is_empty<P: Process>(&self, cx: &Context<P>) -> bool {
        self.len(cx) == 0
    }

    /// Puts `value` at `at`.
    pub fn insert<P: Process>(&self, cx: &mut BroadcastContext<'_, P>, at: M, value: T) {
        cx.cx.table_mut::<Copied<M, T>>(self.index).0.set(at, value);
    }

    /// Removes the value at `at`, and gives it.
    pub fn remove<P: Process>(&self, cx: &mut BroadcastContext<'_, P>, at: &M) -> Option<T> {
        cx.cx.table_mut::<Copied<M, T>>(self.index).0.remove(at)
    }
}

impl<M, T> fmt::Debug for BroadcastState<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BroadcastState({})", self.index)
    }
}

/// The state behind it.
pub(super) struct Copied<M, T>(Replicated<M, T>);

impl<M: Key, T: Data> Copied<M, T> {
    /// `writes` on the one worker whose copy checkpoints keep.
    pub(super) fn new(name: &str, key_groups: KeyGroups, writes: bool) -> Self {
        Copied(Replicated::new(name, key_groups, writes))
    }
}

impl<M: Key, T: Data> ProcessTable for Copied<M, T> {
    fn state_tables(&mut self) -> Vec<&mut dyn StateTable> {
        vec![&mut self.0]
    }
}

/// Rows on their way to all workers, each with the number of the worker that sent it.
type Sent<T> = (u32, T);

/// Sends every row to all workers.
pub(super) struct ToAll<T> {
    worker: u32,
    workers: usize,
    rows: PhantomData<fn(T)>,
}

impl<T> ToAll<T> {
    pub(super) fn new(context: &OperatorContext) -> Self {
        ToAll { worker: context.worker as u32, workers: context.workers, rows: PhantomData }
    }
}

impl<T: Data> Operator for ToAll<T> {
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let (rows, times) = batch.take_timed::<Vec<T>>()?;
        let rows: Vec<Sent<T>> = rows.into_iter().map(|row| (self.worker, row)).collect();
        let batch = Batch::new(rows).with_times(times);
        emit(out, 0, Batch::split(vec![batch; self.workers]));
        Ok(())
    }
}

/// The second input of the operator around a process function `P`, if it has one.
pub(super) trait SecondInput<P: Process> {
    /// Takes rows of an epoch that isn't complete.
    fn receive(&mut self, epoch: Epoch, batch: Batch) -> Result<(), BoxError>;

    /// Hands over rows of an epoch that is complete, for a while. Answers whether those were all.
    fn hand_over(
        &mut self,
        epoch: Epoch,
        process: &mut P,
        cx: &mut Context<P>,
    ) -> Result<bool, BoxError>;

    /// The epoch is dealt with.
    fn finish(&mut self);
}

/// A batch of one sender.
type Part<T> = (Vec<Sent<T>>, Vec<i64>);

/// What all workers get, by epochs.
pub(super) struct ForAll<T> {
    waiting: PerEpoch<Part<T>>,
    /// What is left of the epoch that is being completed.
    present: Option<vec::IntoIter<Part<T>>>,
}

impl<T> Default for ForAll<T> {
    fn default() -> Self {
        ForAll { waiting: PerEpoch::default(), present: None }
    }
}

impl<P: BroadcastProcess> SecondInput<P> for ForAll<P::Broadcast> {
    fn receive(&mut self, epoch: Epoch, batch: Batch) -> Result<(), BoxError> {
        let part = batch.take_timed()?;
        self.waiting.of(epoch).push(part);
        Ok(())
    }

    fn hand_over(
        &mut self,
        epoch: Epoch,
        process: &mut P,
        cx: &mut Context<P>,
    ) -> Result<bool, BoxError> {
        let waiting = &mut self.waiting;
        let present = self.present.get_or_insert_with(|| {
            let mut parts = waiting.take(epoch);
            // The same order on all workers; what one of them sent stays in order.
            parts.sort_by_key(|(rows, _)| rows.first().map(|(sender, _)| *sender));
            parts.into_iter()
        });
        let mut taken = 0;
        for (rows, times) in present {
            taken += rows.len();
            let mut times = times.into_iter();
            for (_, row) in rows {
                let time = times.next();
                process.broadcast(row, &mut BroadcastContext { cx, epoch, time })?;
            }
            if taken >= SLICE_ROWS {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn finish(&mut self) {
        self.present = None;
    }
}
