//! Keyed streams, and the operators that remember something for each key.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Add;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_runtime::plan::{Edge, Exchange, Port, Times};
use highwater_runtime::{Data, Operator, OperatorContext, Wants};

use super::distinct::Within;
use super::job::{Job, Spec};
use super::map_with_state::MapWithState;
use super::running::RunningOperator;
use super::step::{Best, ByAggregate, Count, Fold, Reduce, Step, Sum};
use super::update_state::UpdateState;
use super::{Aggregate, Key, Processed, Running, StateHandle, Stream, Timestamp, Ttl};

/// Gives the states with which keys begin.
type MakeInitial<K, S> = Arc<dyn Fn() -> Option<Arc<Vec<(K, S)>>> + Send + Sync>;

/// Records of type `V`, each with a key; all records of a key are on one worker, in the order of each worker that sent them.
///
/// Made by [`Stream::key_by`] and [`Stream::keyed`]. Several operators may use one keyed stream.
///
/// A **running aggregate** ([`count`](Self::count), [`sum`](Self::sum), [`reduce`](Self::reduce), [`fold`](Self::fold),
/// [`aggregate`](Self::aggregate), [`min`](Self::min) and its kin) keeps one value for each key, and emits it as [`Running`] says:
/// once for every epoch in which the key had records, or for every record.
///
/// State of a key is kept for ever, unless a function removes it.
pub struct KeyedStream<K, V> {
    pub(super) job: Job,
    pub(super) port: Port,
    rows: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Data> KeyedStream<K, V> {
    /// The keyed rows that `port` of `job` emits.
    pub(crate) fn new(job: Job, port: Port) -> Self {
        KeyedStream { job, port, rows: PhantomData }
    }

    /// Appends an operator that gets each key on its worker.
    pub(crate) fn operator<O: Operator + 'static, U>(
        &self,
        name: &'static str,
        wants: Wants,
        at: &'static Location<'static>,
        make: impl Fn(&OperatorContext) -> O + Send + Sync + 'static,
    ) -> Stream<U> {
        let inputs = vec![Edge { from: self.port, exchange: Exchange::Keyed }];
        let (times, watermark) = (Times::Dropped, None);
        let spec = Spec { name, inputs, outputs: 1, wants, times, watermark, at };
        let node = self.job.operator(spec, make);
        Stream::new(self.job.clone(), node, 0)
    }

    fn running<S: Step<V>>(
        &self,
        name: &'static str,
        at: &'static Location<'static>,
        step: S,
    ) -> Running<K, S::Out> {
        let step = Arc::new(step);
        // Decided after the node is made, but before any worker makes its operator.
        let every_record = Arc::new(AtomicBool::new(false));
        let asked = every_record.clone();
        let wants = Wants { state: true, epochs: true };
        let stream = self.operator(name, wants, at, move |context| {
            RunningOperator::<K, V, S>::new(context, step.clone(), asked.load(Ordering::Relaxed))
        });
        Running::new(stream, every_record)
    }

    /// How many records each key has had. A running aggregate.
    #[track_caller]
    pub fn count(&self) -> Running<K, u64> {
        self.running("count", Location::caller(), Count)
    }

    /// The sum of what `number` takes from each record. A running aggregate.
    ///
    /// Adds with `+`, whose rules hold for what doesn't fit: a panic in a debug build, wrapping in a release build.
    #[track_caller]
    pub fn sum<N>(&self, number: impl Fn(V) -> N + Send + Sync + 'static) -> Running<K, N>
    where
        N: Data + Default + Add<Output = N>,
    {
        self.running("sum", Location::caller(), Sum(number))
    }

    /// Combines the records of each key, two at a time: what came out so far, and the next one. A running aggregate.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(2, |job| {
    ///     let delays = job.read("in", vec![("LH".to_owned(), 5u64), ("LH".to_owned(), 40)]);
    ///     let worst = delays.keyed().reduce(|a, b| if a > b { a } else { b }).uid("worst");
    ///     worst.write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(String, u64)>("out").last(), Some(&("LH".to_owned(), 40)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn reduce(&self, f: impl Fn(V, V) -> V + Send + Sync + 'static) -> Running<K, V> {
        self.running("reduce", Location::caller(), Reduce(f))
    }

    /// Folds the records of each key into an accumulator, which starts as a copy of `init`. A running aggregate.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(2, |job| {
    ///     let samples = job.read("in", vec![(7u64, 10i64), (7, 20)]);
    ///     let count_and_sum = samples.keyed().fold((0u64, 0i64), |acc, sample| {
    ///         acc.0 += 1;
    ///         acc.1 += sample;
    ///     });
    ///     count_and_sum.write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(u64, (u64, i64))>("out").last(), Some(&(7, (2, 30))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn fold<A: Data + Sync>(
        &self,
        init: A,
        add: impl Fn(&mut A, V) + Send + Sync + 'static,
    ) -> Running<K, A> {
        self.running("fold", Location::caller(), Fold { init, add })
    }

    /// Folds the records of each key as `aggregate` says. A running aggregate.
    #[track_caller]
    pub fn aggregate<G: Aggregate<In = V>>(&self, aggregate: G) -> Running<K, G::Out> {
        self.running("aggregate", Location::caller(), ByAggregate(aggregate))
    }

    /// The smallest record of each key; of several, the first. A running aggregate.
    #[track_caller]
    pub fn min(&self) -> Running<K, V>
    where
        V: Ord,
    {
        self.running("min", Location::caller(), Best(|held: &V, new: &V| new < held))
    }

    /// The largest record of each key; of several, the first. A running aggregate.
    #[track_caller]
    pub fn max(&self) -> Running<K, V>
    where
        V: Ord,
    {
        self.running("max", Location::caller(), Best(|held: &V, new: &V| new > held))
    }

    /// The record of each key for which `order` is smallest; of several, the first. A running aggregate.
    #[track_caller]
    pub fn min_by_key<O: Ord>(
        &self,
        order: impl Fn(&V) -> O + Send + Sync + 'static,
    ) -> Running<K, V> {
        let beats = move |held: &V, new: &V| order(new) < order(held);
        self.running("min_by_key", Location::caller(), Best(beats))
    }

    /// The record of each key for which `order` is largest; of several, the first. A running aggregate.
    #[track_caller]
    pub fn max_by_key<O: Ord>(
        &self,
        order: impl Fn(&V) -> O + Send + Sync + 'static,
    ) -> Running<K, V> {
        let beats = move |held: &V, new: &V| order(new) > order(held);
        self.running("max_by_key", Location::caller(), Best(beats))
    }

    /// At the end of every trigger, gives each key a new state from its old state and all values that it got in the
    /// trigger, and emits every key with its state.
    ///
    /// `f` runs for every key that has state or new values, also for a key without new values (with an empty vector); its
    /// answer is the key's new state, and none removes the key. Values of a key are in the order in which they came.
    /// The values of a trigger that isn't over are part of the state, so it doesn't matter where checkpoints fall.
    ///
    /// A run over all keys costs time in proportion to their number. A state that equals the old one isn't written
    /// to the next checkpoint, which is why states must be comparable.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(2, |job| {
    ///     let words = job.read("in", vec!["a".to_owned(), "b".to_owned(), "a".to_owned()]);
    ///     let counts = words.key_by(|word| word.clone()).update_state_by_key(
    ///         |_word, new: Vec<String>, old: Option<u64>| Some(old.unwrap_or(0) + new.len() as u64),
    ///     );
    ///     counts.uid("counts").write("out", Collect);
    /// })?;
    /// let last = run.last_per_key::<String, u64>("out");
    /// assert_eq!(last["a"], 2);
    /// assert_eq!(last["b"], 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn update_state_by_key<S: Data + PartialEq>(
        &self,
        f: impl Fn(&K, Vec<V>, Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> Stream<(K, S)> {
        let f = move |_: Timestamp, key: &K, new, old| f(key, new, old);
        self.update_state(None, f, Location::caller())
    }

    /// As [`update_state_by_key`](Self::update_state_by_key), with the time of the batch: the engine's clock when its trigger ended, the same for
    /// all keys, which never runs backwards, also when the job is started again.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Timestamp, hours};
    ///
    /// let run = testing::run(2, |job| {
    ///     let words = job.read("in", vec!["a".to_owned()]);
    ///     // When each word was last there; it is forgotten after an hour.
    ///     let last = words.key_by(|word| word.clone()).update_state_by_key_at(
    ///         |at, _word, new: Vec<String>, last: Option<Timestamp>| match last {
    ///             _ if !new.is_empty() => Some(at),
    ///             last => last.filter(|last| at < *last + hours(1)),
    ///         },
    ///     );
    ///     last.uid("last").write("out", Collect);
    /// })?;
    /// assert!(run.last_per_key::<String, Timestamp>("out")["a"] > Timestamp::from_ms(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn update_state_by_key_at<S: Data + PartialEq>(
        &self,
        f: impl Fn(Timestamp, &K, Vec<V>, Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> Stream<(K, S)> {
        self.update_state(None, f, Location::caller())
    }

    /// As [`update_state_by_key`](Self::update_state_by_key), with states that keys have when the job is started for the first time.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(2, |job| {
    ///     let words = job.read("in", vec!["a".to_owned()]);
    ///     let counts = words.key_by(|word| word.clone()).update_state_by_key_from(
    ///         [("a".to_owned(), 5u64), ("c".to_owned(), 1)],
    ///         |_word, new: Vec<String>, old| Some(old.unwrap_or(0) + new.len() as u64),
    ///     );
    ///     counts.uid("counts").write("out", Collect);
    /// })?;
    /// let last = run.last_per_key::<String, u64>("out");
    /// assert_eq!((last["a"], last["c"]), (6, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn update_state_by_key_from<S: Data + PartialEq + Sync>(
        &self,
        initial: impl IntoIterator<Item = (K, S)>,
        f: impl Fn(&K, Vec<V>, Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> Stream<(K, S)>
    where
        K: Sync,
    {
        let initial: Arc<Vec<(K, S)>> = Arc::new(initial.into_iter().collect());
        // Everything that a worker's operator is made of is shared between workers.
        let make = move || Some(initial.clone());
        let f = move |_: Timestamp, key: &K, new, old| f(key, new, old);
        self.update_state(Some(Arc::new(make)), f, Location::caller())
    }

    fn update_state<S: Data + PartialEq>(
        &self,
        initial: Option<MakeInitial<K, S>>,
        f: impl Fn(Timestamp, &K, Vec<V>, Option<S>) -> Option<S> + Send + Sync + 'static,
        at: &'static Location<'static>,
    ) -> Stream<(K, S)> {
        let f = Arc::new(f);
        let wants = Wants { state: true, epochs: true };
        self.operator("update_state_by_key", wants, at, move |context| {
            let initial = initial.as_ref().and_then(|make| make());
            UpdateState::<K, V, S, _>::new(context, f.clone(), initial)
        })
    }

    /// The first record of each key, and no further one for as long as `ttl` says: what is remembered comes to an end, other than with
    /// [`distinct`](Stream::distinct).
    ///
    /// By event time, repetitions that are no further apart than the watermark is behind are found, whatever their order. A record that comes behind the
    /// watermark can't be told from a repetition, and goes to the side output `late`.
    ///
    /// ```text
    /// after_write(10), by event time     records  a:1  a:4  a:10  a:11  b:12
    ///                                    out      a:1             a:11  b:12
    /// ```
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, secs};
    /// use highwater::Ttl;
    ///
    /// let run = testing::run(2, |job| {
    ///     let orders = job.read("in", vec![(7u64, 1_000i64), (8, 2_000), (7, 3_000)]);
    ///     let orders = orders.event_time(|order| order.1, Watermark::bounded(secs(10)));
    ///     let within = Ttl::after_write(secs(10)).by_event_time();
    ///     let once = orders.key_by(|order| order.0).distinct_within(within).uid("once");
    ///     once.side::<(u64, i64)>("late").write("late", Collect);
    ///     once.main().write("out", Collect);
    /// })?;
    /// let mut out: Vec<(u64, i64)> = run.committed("out");
    /// out.sort();
    /// assert_eq!(out, [(7, 1_000), (8, 2_000)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn distinct_within(&self, ttl: Ttl) -> Processed<V> {
        let within = self.process(move |states| Within::<K, V>::declare_with(states, ttl));
        if ttl.is_endless() {
            let why = "it remembers every key for ever: give its lifetime an end, as with `Ttl::after_write(...)`";
            self.job.plan().warn(within.main().port().node, why);
        }
        within
    }

    /// Maps each record with a function that may read and change its key's state; emits its answers at once.
    ///
    /// ```
    /// use highwater::StateHandle;
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(2, |job| {
    ///     let levels = job.read("in", vec![(1u64, 20i64), (1, 23), (1, 19)]);
    ///     // How much a level has changed since the record before.
    ///     let steps = levels.keyed().map_with_state(|_, level, last: &mut StateHandle<i64>| {
    ///         let step = last.get().map(|last| level - last);
    ///         last.set(level);
    ///         step
    ///     });
    ///     steps.uid("steps").write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<i64>("out"), [3, -4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn map_with_state<S: Data, U: Data>(
        &self,
        f: impl Fn(&K, V, &mut StateHandle<'_, S>) -> Option<U> + Send + Sync + 'static,
    ) -> Stream<U> {
        let f = Arc::new(f);
        let wants = Wants { state: true, epochs: false };
        self.operator("map_with_state", wants, Location::caller(), move |context| {
            MapWithState::<K, V, S, U, _>::new(context, f.clone())
        })
    }
}

impl<K, V> Clone for KeyedStream<K, V> {
    fn clone(&self) -> Self {
        KeyedStream { job: self.job.clone(), port: self.port, rows: PhantomData }
    }
}

impl<K, V> fmt::Debug for KeyedStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = (std::any::type_name::<K>(), std::any::type_name::<V>());
        write!(f, "KeyedStream<{key}, {value}>({}.{})", self.port.node, self.port.output)
    }
}
