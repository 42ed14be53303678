//! Two keyed streams as one: what every operator with several inputs is made of.
//!
//! ```text
//! orders   ─key_by─▶ Left(order)   ─┐
//!                                   ├─▶ one keyed stream ─▶ process, window, fold ...: each key's rows of both, on one worker
//! payments ─key_by─▶ Right(payment) ┘
//! ```
//!
//! Rows are told apart before they travel, by the operator that deals them out, so that whatever comes behind has one input.

use std::marker::PhantomData;

use highwater_runtime::plan::{Edge, Port, Times};
use highwater_runtime::{Batch, BoxError, Data, Epoch, Keyed, Operator, Outputs, Wants};
use serde::{Deserialize, Serialize};

use super::job::{Spec, pipeline};
use super::stateless::{Forward, emit};
use super::{Key, KeyedStream};

/// A record of either of two streams that were [connected](KeyedStream::connect).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Either<L, R> {
    /// Of the stream whose `connect` was called.
    Left(L),
    /// Of the other one.
    Right(R),
}

impl<K: Key, L: Data> KeyedStream<K, L> {
    /// Brings the records of two streams together by their keys: a key's records of both are on one worker, and share whatever state and
    /// timers the operator behind has.
    ///
    /// A [process function](super::Process) of both is what others call a co-process function; [`window`](Self::window),
    /// [`fold`](Self::fold) and all others work on both, too. Three streams are connected by connecting two and then the third.
    ///
    /// Records have event times if those of both streams do, and the least of both watermarks counts. What one stream brings
    /// doesn't wait for the other one.
    ///
    /// ```text
    /// orders     (7, tea)                 (8, milk)
    /// payments               (7, 3 euro)
    /// out                    tea: 3 euro             8 waits, in state
    /// ```
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::{BoxError, Context, Either, Process, States, Value};
    ///
    /// /// Tells what was paid for each order, whichever is known first.
    /// struct Paid {
    ///     order: Value<String>,
    ///     payment: Value<u64>,
    /// }
    ///
    /// impl Process for Paid {
    ///     type Key = u64;
    ///     type In = Either<String, u64>;
    ///     type Out = (String, u64);
    ///
    ///     fn declare(states: &mut States<Self>) -> Self {
    ///         Paid { order: states.value("order"), payment: states.value("payment") }
    ///     }
    ///
    ///     fn record(&mut self, record: Self::In, cx: &mut Context<Self>) -> Result<(), BoxError> {
    ///         match record {
    ///             Either::Left(order) => self.order.set(cx, order),
    ///             Either::Right(payment) => self.payment.set(cx, payment),
    ///         }
    ///         if let (Some(order), Some(payment)) = (self.order.get(cx), self.payment.get(cx)) {
    ///             cx.emit((order, payment));
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let run = testing::run(2, |job| {
    ///     let orders = job.read("orders", vec![(7u64, "tea".to_owned()), (8, "milk".to_owned())]);
    ///     let payments = job.read("payments", vec![(7u64, 3u64)]);
    ///     let paid = orders.keyed().connect(&payments.keyed()).process(Paid::declare).uid("paid");
    ///     paid.main().write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(String, u64)>("out"), [("tea".to_owned(), 3)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn connect<R: Data>(&self, other: &KeyedStream<K, R>) -> KeyedStream<K, Either<L, R>> {
        let at = std::panic::Location::caller();
        let mut inputs: Vec<Edge> = Vec::new();
        let left = Spec::stateless("left", pipeline(self.port), at);
        let left = self.job.operator(left, |_| Tag::<K, L, _>::new(Either::<L, R>::Left));
        inputs.push(pipeline(Port { node: left, output: 0 }));
        if self.job.is_same(&other.job) {
            let right = Spec::stateless("right", pipeline(other.port), at);
            let right = self.job.operator(right, |_| Tag::<K, R, _>::new(Either::<L, R>::Right));
            inputs.push(pipeline(Port { node: right, output: 0 }));
        } else {
            self.job.error(at, "these streams belong to two different jobs");
        }
        let (wants, times) = (Wants::default(), Times::Kept);
        let spec = Spec { name: "connect", inputs, outputs: 1, wants, times, watermark: None, at };
        let node = self.job.operator(spec, |_| Forward);
        KeyedStream::new(self.job.clone(), Port { node, output: 0 })
    }
}

/// Makes other values of those of keyed rows, dealt out or not; keys stay where they are.
struct Tag<K, V, F> {
    make: F,
    rows: PhantomData<fn(K, V)>,
}

impl<K: Data, V: Data, F> Tag<K, V, F> {
    fn new<U: Data>(make: F) -> Self
    where
        F: Fn(V) -> U,
    {
        Tag { make, rows: PhantomData }
    }

    fn tag<U: Data>(&self, batch: Batch) -> Result<Batch, BoxError>
    where
        F: Fn(V) -> U,
    {
        let (Keyed { hashes, rows }, times) = batch.take_timed::<Keyed<K, V>>()?;
        let rows = rows.into_iter().map(|(key, value)| (key, (self.make)(value))).collect();
        Ok(Batch::new(Keyed { hashes, rows }).with_times(times))
    }
}

impl<K: Data, V: Data, U: Data, F: Fn(V) -> U> Operator for Tag<K, V, F> {
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let tagged = match batch.into_parts() {
            Ok(parts) => {
                let parts: Result<_, _> = parts.into_iter().map(|part| self.tag(part)).collect();
                Batch::split(parts?)
            }
            Err(batch) => self.tag(batch)?,
        };
        emit(out, 0, tagged);
        Ok(())
    }
}
