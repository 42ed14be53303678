//! What aggregates have in common, running ones and those of windows, and what each of them does with a value.

use std::ops::Add;

use highwater_runtime::Data;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Aggregate, MergeAggregate};

/// A running aggregate, as its operator sees it. Unlike an [`Aggregate`] it may have no accumulator of no values.
pub trait Step<V>: Send + Sync + 'static {
    /// What is remembered.
    type Acc: Data;
    /// What is told.
    type Out: Data;
    /// The accumulator of the first value of a key.
    fn first(&self, value: V) -> Self::Acc;
    /// Adds a further value.
    fn add(&self, acc: &mut Self::Acc, value: V);
    /// What the values so far come to.
    fn out(&self, acc: &Self::Acc) -> Self::Out;
}

/// An aggregate whose accumulators can be joined.
pub trait Merge<V>: Step<V> {
    /// An accumulator may be the larger the more values it has, so that sums of many aren't worth keeping.
    const GROWS: bool = std::mem::needs_drop::<Self::Acc>();
    /// Adds an accumulator of other values, which came later.
    fn merge(&self, acc: &mut Self::Acc, other: Self::Acc);
}

/// Counts.
pub(super) struct Count;

impl<V: Data> Step<V> for Count {
    type Acc = u64;
    type Out = u64;
    fn first(&self, _: V) -> u64 {
        1
    }
    fn add(&self, acc: &mut u64, _: V) {
        *acc += 1;
    }
    fn out(&self, acc: &u64) -> u64 {
        *acc
    }
}

/// Adds up what a function takes from each value.
pub(super) struct Sum<F>(pub(super) F);

impl<V, N, F> Step<V> for Sum<F>
where
    V: Data,
    N: Data + Default + Add<Output = N>,
    F: Fn(V) -> N + Send + Sync + 'static,
{
    type Acc = N;
    type Out = N;
    fn first(&self, value: V) -> N {
        (self.0)(value)
    }
    fn add(&self, acc: &mut N, value: V) {
        *acc = std::mem::take(acc) + (self.0)(value);
    }
    fn out(&self, acc: &N) -> N {
        acc.clone()
    }
}

/// Keeps one value, until another beats it: `Best(beats)` where `beats(held, new)`.
pub(super) struct Best<F>(pub(super) F);

impl<V: Data, F: Fn(&V, &V) -> bool + Send + Sync + 'static> Step<V> for Best<F> {
    type Acc = V;
    type Out = V;
    fn first(&self, value: V) -> V {
        value
    }
    fn add(&self, acc: &mut V, value: V) {
        if (self.0)(acc, &value) {
            *acc = value;
        }
    }
    fn out(&self, acc: &V) -> V {
        acc.clone()
    }
}

/// Combines two values into one.
pub(super) struct Reduce<F>(pub(super) F);

impl<V: Data, F: Fn(V, V) -> V + Send + Sync + 'static> Step<V> for Reduce<F> {
    type Acc = Held<V>;
    type Out = V;
    fn first(&self, value: V) -> Held<V> {
        Held(Some(value))
    }
    fn add(&self, acc: &mut Held<V>, value: V) {
        let held = acc.0.take().expect(HELD);
        acc.0 = Some((self.0)(held, value));
    }
    fn out(&self, acc: &Held<V>) -> V {
        acc.0.clone().expect(HELD)
    }
}

const HELD: &str = "a value is always held, except while the user's function combines it";

/// A value that can be moved out for a moment, which a function that combines two values needs. Stored as the value alone.
#[derive(Clone)]
pub(super) struct Held<V>(Option<V>);

impl<V: Serialize> Serialize for Held<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().expect(HELD).serialize(serializer)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Held<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        V::deserialize(deserializer).map(|value| Held(Some(value)))
    }
}

/// Folds values into an accumulator that starts as a copy of `init`.
pub(super) struct Fold<A, F> {
    pub(super) init: A,
    pub(super) add: F,
}

impl<V, A, F> Step<V> for Fold<A, F>
where
    V: Data,
    A: Data + Sync,
    F: Fn(&mut A, V) + Send + Sync + 'static,
{
    type Acc = A;
    type Out = A;
    fn first(&self, value: V) -> A {
        let mut acc = self.init.clone();
        (self.add)(&mut acc, value);
        acc
    }
    fn add(&self, acc: &mut A, value: V) {
        (self.add)(acc, value);
    }
    fn out(&self, acc: &A) -> A {
        acc.clone()
    }
}

/// The user's own.
pub(super) struct ByAggregate<G>(pub(super) G);

impl<G: Aggregate> Step<G::In> for ByAggregate<G> {
    type Acc = G::Acc;
    type Out = G::Out;
    fn first(&self, value: G::In) -> G::Acc {
        let mut acc = self.0.create();
        self.0.add(&mut acc, value);
        acc
    }
    fn add(&self, acc: &mut G::Acc, value: G::In) {
        self.0.add(acc, value);
    }
    fn out(&self, acc: &G::Acc) -> G::Out {
        self.0.result(acc)
    }
}

impl<V: Data> Merge<V> for Count {
    fn merge(&self, acc: &mut u64, other: u64) {
        *acc += other;
    }
}

impl<V, N, F> Merge<V> for Sum<F>
where
    V: Data,
    N: Data + Default + Add<Output = N>,
    F: Fn(V) -> N + Send + Sync + 'static,
{
    fn merge(&self, acc: &mut N, other: N) {
        *acc = std::mem::take(acc) + other;
    }
}

impl<V: Data, F: Fn(&V, &V) -> bool + Send + Sync + 'static> Merge<V> for Best<F> {
    const GROWS: bool = false;
    fn merge(&self, acc: &mut V, other: V) {
        self.add(acc, other);
    }
}

impl<V: Data, F: Fn(V, V) -> V + Send + Sync + 'static> Merge<V> for Reduce<F> {
    fn merge(&self, acc: &mut Held<V>, other: Held<V>) {
        self.add(acc, other.0.expect(HELD));
    }
}

impl<G: MergeAggregate> Merge<G::In> for ByAggregate<G> {
    fn merge(&self, acc: &mut G::Acc, other: G::Acc) {
        self.0.merge(acc, other);
    }
}

/// An aggregate, and how accumulators of it are joined.
pub(super) struct Merged<S, M> {
    pub(super) step: S,
    pub(super) merge: M,
}

impl<V, S: Step<V>, M: Send + Sync + 'static> Step<V> for Merged<S, M> {
    type Acc = S::Acc;
    type Out = S::Out;
    fn first(&self, value: V) -> S::Acc {
        self.step.first(value)
    }
    fn add(&self, acc: &mut S::Acc, value: V) {
        self.step.add(acc, value);
    }
    fn out(&self, acc: &S::Acc) -> S::Out {
        self.step.out(acc)
    }
}

impl<V, S: Step<V>, M: Fn(&mut S::Acc, S::Acc) + Send + Sync + 'static> Merge<V> for Merged<S, M> {
    fn merge(&self, acc: &mut S::Acc, other: S::Acc) {
        (self.merge)(acc, other);
    }
}

/// Keeps every value.
pub(super) struct Collected;

impl<V: Data> Step<V> for Collected {
    type Acc = Vec<V>;
    type Out = Vec<V>;
    fn first(&self, value: V) -> Vec<V> {
        vec![value]
    }
    fn add(&self, acc: &mut Vec<V>, value: V) {
        acc.push(value);
    }
    fn out(&self, acc: &Vec<V>) -> Vec<V> {
        acc.clone()
    }
}

impl<V: Data> Merge<V> for Collected {
    fn merge(&self, acc: &mut Vec<V>, mut other: Vec<V>) {
        acc.append(&mut other);
    }
}
