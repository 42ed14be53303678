//! All records of a stream by triggers: batches, as Spark's DStreams have them, of which an empty one is one, too.
//!
//! ```text
//! stream ─▶ Some(record) ─┐
//!   │                     ├─▶ windows of triggers, with one key: told of at the end of each, also if there was no record
//!   └─▶ Beats ─▶ None ────┘   a None at the end of every trigger
//! ```

use std::fmt;

use highwater_runtime::plan::Times;
use highwater_runtime::{
    Batch, BoxError, Data, Epoch, EpochEnd, Operator, OperatorContext, Outputs, Wants, Work,
};

use super::{Batches, Windowed, WindowedStream};
use crate::api::job::{Spec, pipeline};
use crate::api::stateless::emit;
use crate::api::step::{Collected, Count, Merge, Reduce, Step};
use crate::api::{Either, Stream};

/// A stream by batches; made by [`Stream::batches`].
///
/// ```text
/// triggers                    1      2      3 (empty)
/// records                   a b      c
/// batches(Batches::each()).count()   2      1      0
/// batches(Batches::last(2)).count()  2      3      1
/// ```
#[must_use]
pub struct BatchedStream<T> {
    windows: WindowedStream<(), Option<T>>,
}

impl<T: Data> Stream<T> {
    /// All records of each trigger together, or of the last few: what DStreams are made of. What comes out of it is a window for every
    /// trigger, also if it was empty. All of it is done on one worker; to spread work, use
    /// [`KeyedStream::window`](crate::KeyedStream::window) with [`Batches`].
    ///
    /// ```
    /// use highwater::testing::{self, Collect, Script};
    /// use highwater::Batches;
    ///
    /// // In a test every epoch is a trigger.
    /// let run = testing::run(2, |job| {
    ///     let numbers = Script::new().records([1u64, 2]).epoch().record(3);
    ///     let numbers = job.read("in", numbers);
    ///     let sums = numbers.batches(Batches::each()).transform(|batch| vec![batch.iter().sum::<u64>()]).uid("sums");
    ///     sums.flat_map(|batch| batch.value).filter(|sum| *sum > 0).write("out", Collect);
    /// })?;
    /// let sums: Vec<u64> = run.committed("out");
    /// assert_eq!(sums.iter().sum::<u64>(), 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn batches(&self, batches: Batches) -> BatchedStream<T> {
        let at = std::panic::Location::caller();
        let spec = Spec {
            wants: Wants { state: true, epochs: true },
            times: Times::Dropped,
            ..Spec::stateless("beats", pipeline(self.port()), at)
        };
        let node = self.job().operator(spec, Beats::<T>::new);
        let beats: Stream<Option<T>> = Stream::new(self.job().clone(), node, 0);
        let windows = self.map(Some).union(&beats).window_all(batches);
        BatchedStream { windows }
    }
}

impl<T: Data> Stream<T> {
    /// Whatever `f` makes of the batches of two streams, those of each trigger together; it is called for empty ones, too. All of it is done on one worker.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::Batches;
    ///
    /// let run = testing::run(2, |job| {
    ///     let words = job.read("words", vec!["a".to_owned(), "b".to_owned()]);
    ///     let numbers = job.read("numbers", vec![7u64]);
    ///     // How many of each there are in a batch.
    ///     let counts = words.transform_with(&numbers, Batches::each(), |words, numbers| {
    ///         vec![(words.len() as u64, numbers.len() as u64)]
    ///     });
    ///     counts.uid("counts").flat_map(|batch| batch.value).write("out", Collect);
    /// })?;
    /// let counts = run.committed::<(u64, u64)>("out");
    /// assert_eq!(counts.iter().map(|(words, _)| words).sum::<u64>(), 2);
    /// assert_eq!(counts.iter().map(|(_, numbers)| numbers).sum::<u64>(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn transform_with<U: Data, O: Data>(
        &self,
        other: &Stream<U>,
        batches: Batches,
        f: impl Fn(Vec<T>, Vec<U>) -> Vec<O> + Send + Sync + 'static,
    ) -> Windowed<(), Option<Either<T, U>>, Vec<O>> {
        let both = self.map(Either::Left).union(&other.map(Either::Right));
        both.batches(batches).transform(move |both| {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for row in both {
                match row {
                    Either::Left(row) => left.push(row),
                    Either::Right(row) => right.push(row),
                }
            }
            f(left, right)
        })
    }
}

impl<T: Data> BatchedStream<T> {
    /// How many records there are; 0 for an empty batch.
    pub fn count(self) -> Windowed<(), Option<T>, u64> {
        self.finish("batch_count", Count, Option::unwrap_or_default)
    }

    /// All records.
    pub fn collect(self) -> Windowed<(), Option<T>, Vec<T>> {
        self.finish("batch_collect", Collected, Option::unwrap_or_default)
    }

    /// All records combined, two at a time; none for an empty batch. `f` must be associative.
    pub fn reduce(
        self,
        f: impl Fn(T, T) -> T + Send + Sync + 'static,
    ) -> Windowed<(), Option<T>, Option<T>> {
        self.finish("batch_reduce", Reduce(f), |reduced| reduced)
    }

    /// Whatever `f` makes of all records of a batch; it is called for an empty one, too.
    pub fn transform<U: Data>(
        self,
        f: impl Fn(Vec<T>) -> Vec<U> + Send + Sync + 'static,
    ) -> Windowed<(), Option<T>, Vec<U>> {
        self.finish("batch_transform", Collected, move |batch| f(batch.unwrap_or_default()))
    }

    fn finish<S: Merge<T>, O: Data>(
        self,
        name: &'static str,
        step: S,
        out: impl Fn(Option<S::Out>) -> O + Send + Sync + 'static,
    ) -> Windowed<(), Option<T>, O> {
        self.windows.step(name, OrNothing { step, out })
    }
}

impl<T> fmt::Debug for BatchedStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batches of {:?}", self.windows)
    }
}

/// An aggregate of values that may be none at all.
struct OrNothing<S, F> {
    step: S,
    out: F,
}

impl<V, S, O, F> Step<Option<V>> for OrNothing<S, F>
where
    V: Data,
    S: Merge<V>,
    O: Data,
    F: Fn(Option<S::Out>) -> O + Send + Sync + 'static,
{
    type Acc = Option<S::Acc>;
    type Out = O;

    fn first(&self, value: Option<V>) -> Self::Acc {
        value.map(|value| self.step.first(value))
    }

    fn add(&self, acc: &mut Self::Acc, value: Option<V>) {
        let Some(value) = value else { return };
        match acc {
            Some(acc) => self.step.add(acc, value),
            None => *acc = Some(self.step.first(value)),
        }
    }

    fn out(&self, acc: &Self::Acc) -> O {
        (self.out)(acc.as_ref().map(|acc| self.step.out(acc)))
    }
}

impl<V, S, O, F> Merge<Option<V>> for OrNothing<S, F>
where
    V: Data,
    S: Merge<V>,
    O: Data,
    F: Fn(Option<S::Out>) -> O + Send + Sync + 'static,
{
    fn merge(&self, acc: &mut Self::Acc, other: Self::Acc) {
        match (acc, other) {
            (_, None) => {}
            (Some(acc), Some(other)) => self.step.merge(acc, other),
            (acc, other) => *acc = other,
        }
    }
}

/// Tells that a trigger has ended, with a record that is none. It keeps no state.
struct Beats<T> {
    /// One worker tells.
    tells: bool,
    rows: std::marker::PhantomData<fn() -> T>,
}

impl<T> Beats<T> {
    fn new(context: &OperatorContext) -> Self {
        Beats { tells: context.worker == 0, rows: std::marker::PhantomData }
    }
}

impl<T: Data> Operator for Beats<T> {
    fn receive(&mut self, _: usize, _: Epoch, _: Batch, _: &mut Outputs) -> Result<(), BoxError> {
        Ok(())
    }

    fn complete(&mut self, end: &EpochEnd, out: &mut Outputs) -> Result<Work, BoxError> {
        if end.trigger_ends && self.tells {
            emit(out, 0, Batch::new(vec![None::<T>]));
        }
        Ok(Work::Done)
    }
}
