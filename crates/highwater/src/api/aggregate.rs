//! What users implement to fold records into a value that is more than one function can say.

use highwater_runtime::Data;

/// How the values of a key are folded into an accumulator, and what is told of it.
///
/// The accumulator is state: it is what a checkpoint stores, so it should be small. Use it with
/// [`KeyedStream::aggregate`](super::KeyedStream::aggregate).
///
/// ```
/// use highwater::Aggregate;
/// use highwater::testing::{self, Collect};
///
/// /// The average, from a count and a sum.
/// struct Average;
///
/// impl Aggregate for Average {
///     type In = f64;
///     type Acc = (u64, f64);
///     type Out = f64;
///     fn create(&self) -> (u64, f64) {
///         (0, 0.0)
///     }
///     fn add(&self, (count, sum): &mut (u64, f64), value: f64) {
///         *count += 1;
///         *sum += value;
///     }
///     fn result(&self, (count, sum): &(u64, f64)) -> f64 {
///         sum / *count as f64
///     }
/// }
///
/// let run = testing::run(2, |job| {
///     let samples = job.read("in", vec![(7u64, 1.0), (7, 2.0)]);
///     samples.keyed().aggregate(Average).uid("average").write("out", Collect);
/// })?;
/// assert_eq!(run.committed::<(u64, f64)>("out").last(), Some(&(7, 1.5)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Aggregate: Send + Sync + 'static {
    /// The values that it takes.
    type In: Data;
    /// What it remembers of them.
    type Acc: Data;
    /// What it tells.
    type Out: Data;

    /// The accumulator of no values.
    fn create(&self) -> Self::Acc;

    /// Adds a value.
    fn add(&self, acc: &mut Self::Acc, value: Self::In);

    /// What the values added so far come to.
    fn result(&self, acc: &Self::Acc) -> Self::Out;
}

/// An aggregate whose accumulators can be joined: what windows need that overlap or grow together.
///
/// ```
/// use highwater::{Aggregate, MergeAggregate};
///
/// struct Average;
///
/// impl Aggregate for Average {
///     type In = f64;
///     type Acc = (u64, f64);
///     type Out = f64;
///     fn create(&self) -> (u64, f64) {
///         (0, 0.0)
///     }
///     fn add(&self, (count, sum): &mut (u64, f64), value: f64) {
///         *count += 1;
///         *sum += value;
///     }
///     fn result(&self, (count, sum): &(u64, f64)) -> f64 {
///         sum / *count as f64
///     }
/// }
///
/// impl MergeAggregate for Average {
///     fn merge(&self, (count, sum): &mut (u64, f64), other: (u64, f64)) {
///         *count += other.0;
///         *sum += other.1;
///     }
/// }
/// ```
pub trait MergeAggregate: Aggregate {
    /// Adds everything that `other` has taken, which came after what `acc` has.
    fn merge(&self, acc: &mut Self::Acc, other: Self::Acc);
}
