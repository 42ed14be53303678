//! Streams, and what can be done to them without state.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;

use highwater_runtime::plan::{Edge, Exchange, Node, NodeId, Port, Role, Times};
use highwater_runtime::{BoxError, Data, Wants};

use super::distinct::Distinct;
use super::job::{Job, Spec, pipeline};
use super::key_by::KeyBy;
use super::stateless::{Each, Forward, Split, make_each, retain};
use super::time::{Stamp, Timestamp, Watermark};
use super::{Key, KeyedStream, Side};
use crate::connectors::IntoSink;

/// Records of type `T`, flowing.
///
/// A stream is a handle to a place in the job's plan: methods append to the plan, and never run anything. It can be used
/// more than once (every use gets all records) and cloned.
///
/// Records of a stream are on the worker that read them until they are exchanged by key ([`key_by`](Self::key_by)) or
/// [rebalanced](Self::rebalance). What one worker has, stays in order.
pub struct Stream<T> {
    job: Job,
    port: Port,
    rows: PhantomData<fn() -> T>,
}

impl<T> Stream<T> {
    /// The rows that `node` of `job` emits at `output`.
    pub(crate) fn new(job: Job, node: NodeId, output: usize) -> Self {
        Stream { job, port: Port { node, output }, rows: PhantomData }
    }

    /// Where in the plan it comes from.
    pub(super) fn port(&self) -> Port {
        self.port
    }

    /// The job whose plan that is.
    pub(super) fn job(&self) -> &Job {
        &self.job
    }

    /// Names the operator that this stream comes from. A checkpoint keeps its state under this name, so state is found again
    /// however the job changes around it; without one it is named after what it does and its number among its
    /// kind (`count-2`), which changes when another one is put before it.
    ///
    /// Only operators with state take a uid. Elsewhere, and for one that is malformed or taken, the job is refused.
    #[track_caller]
    pub fn uid(&self, uid: &str) -> Stream<T> {
        self.job.set_uid(self.port.node, uid, Location::caller());
        self.clone()
    }
}

impl<T: Data> Stream<T> {
    /// Makes one record of each.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(1, |job| {
    ///     job.read("in", vec![1u64, 2]).map(|n| n.to_string()).write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<String>("out"), ["1", "2"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn map<U: Data>(&self, f: impl Fn(T) -> U + Send + Sync + 'static) -> Stream<U> {
        let f = Arc::new(f);
        let run = move |rows: Vec<T>, _: &mut _| Ok(rows.into_iter().map(|row| f(row)).collect());
        self.each("map", Location::caller(), run)
    }

    /// Makes one record of each, or fails.
    ///
    /// An error ends the attempt, and is reported with this operator's name; after a restart the same record comes again. To
    /// go on without a record that can't be read, use [`filter_map`](Self::filter_map), or
    /// [`split_map`](Self::split_map) to keep it aside.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(1, |job| {
    ///     let numbers = job.read("in", vec!["1".to_owned(), "2".to_owned()]);
    ///     numbers.try_map(|text| text.parse::<u64>()).write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<u64>("out"), [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_map<U: Data, E: Into<BoxError>>(
        &self,
        f: impl Fn(T) -> Result<U, E> + Send + Sync + 'static,
    ) -> Stream<U> {
        let f = Arc::new(f);
        let run = move |rows: Vec<T>, _: &mut _| {
            rows.into_iter().map(|row| f(row).map_err(Into::into)).collect()
        };
        self.each("try_map", Location::caller(), run)
    }

    /// Keeps the records for which `keep` answers true.
    #[track_caller]
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Stream<T> {
        let keep = Arc::new(keep);
        let run = move |mut rows: Vec<T>, times: &mut _| {
            retain(&mut rows, times, |row| keep(row));
            Ok(rows)
        };
        self.each("filter", Location::caller(), run)
    }

    /// Makes one record or none of each.
    #[track_caller]
    pub fn filter_map<U: Data>(
        &self,
        f: impl Fn(T) -> Option<U> + Send + Sync + 'static,
    ) -> Stream<U> {
        let f = Arc::new(f);
        let run = move |rows: Vec<T>, times: &mut _| Ok(make_each(rows, times, |row| f(row)));
        self.each("filter_map", Location::caller(), run)
    }

    /// Makes any number of records of each.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(1, |job| {
    ///     let lines = job.read("in", vec!["to be".to_owned(), "or not".to_owned()]);
    ///     let words = lines.flat_map(|line| {
    ///         line.split(' ').map(str::to_owned).collect::<Vec<_>>()
    ///     });
    ///     words.write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<String>("out"), ["to", "be", "or", "not"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn flat_map<U: Data, I: IntoIterator<Item = U>>(
        &self,
        f: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Stream<U> {
        let f = Arc::new(f);
        let run = move |rows: Vec<T>, times: &mut _| Ok(make_each(rows, times, |row| f(row)));
        self.each("flat_map", Location::caller(), run)
    }

    /// Shows every record to `look`, and hands it on.
    ///
    /// After a failure records since the last checkpoint come again, so what `look` does to the world outside may happen twice.
    #[track_caller]
    pub fn inspect(&self, look: impl Fn(&T) + Send + Sync + 'static) -> Stream<T> {
        let look = Arc::new(look);
        let run = move |rows: Vec<T>, _: &mut _| {
            rows.iter().for_each(|row| look(row));
            Ok(rows)
        };
        self.each("inspect", Location::caller(), run)
    }

    /// The records of this stream and of `other`. Records of one of them stay in order.
    #[track_caller]
    pub fn union(&self, other: &Stream<T>) -> Stream<T> {
        self.union_of("union", [other], Location::caller())
    }

    /// The records of this stream and of all `others`. Records of one of them stay in order.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(1, |job| {
    ///     let low = job.read("low", vec![1u64]);
    ///     let high = [job.read("high", vec![100u64]), job.read("higher", vec![1000u64])];
    ///     low.union_all(&high).write("out", Collect);
    /// })?;
    /// let mut out = run.committed::<u64>("out");
    /// out.sort();
    /// assert_eq!(out, [1, 100, 1000]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn union_all<'a>(&self, others: impl IntoIterator<Item = &'a Stream<T>>) -> Stream<T>
    where
        T: 'a,
    {
        self.union_of("union_all", others, Location::caller())
    }

    /// The records for which `is_main` answers true, and the others.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(1, |job| {
    ///     let (even, odd) = job.read("in", vec![1u64, 2, 3]).split(|n| n % 2 == 0);
    ///     even.write("even", Collect);
    ///     odd.write("odd", Collect);
    /// })?;
    /// assert_eq!(run.committed::<u64>("even"), [2]);
    /// assert_eq!(run.committed::<u64>("odd"), [1, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn split(
        &self,
        is_main: impl Fn(&T) -> bool + Send + Sync + 'static,
    ) -> (Stream<T>, Stream<T>) {
        let side = move |row| if is_main(&row) { Side::Main(row) } else { Side::Side(row) };
        self.split_into("split", side, Location::caller())
    }

    /// Makes of each record one of either of two types, each of which becomes a stream: good and bad, on time and late.
    ///
    /// ```
    /// use highwater::Side;
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(1, |job| {
    ///     let lines = job.read("in", vec!["7".to_owned(), "seven".to_owned()]);
    ///     let (numbers, bad) = lines.split_map(|line| match line.parse::<u64>() {
    ///         Ok(number) => Side::Main(number),
    ///         Err(_) => Side::Side(line),
    ///     });
    ///     numbers.write("numbers", Collect);
    ///     bad.write("bad", Collect);
    /// })?;
    /// assert_eq!(run.committed::<u64>("numbers"), [7]);
    /// assert_eq!(run.committed::<String>("bad"), ["seven"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn split_map<A: Data, B: Data>(
        &self,
        f: impl Fn(T) -> Side<A, B> + Send + Sync + 'static,
    ) -> (Stream<A>, Stream<B>) {
        self.split_into("split_map", f, Location::caller())
    }

    /// Deals whole batches to the workers in turn, where some workers have much more to do than others. The order of records is
    /// lost.
    #[track_caller]
    pub fn rebalance(&self) -> Stream<T> {
        let input = Edge { from: self.port, exchange: Exchange::Rebalance };
        let spec = Spec::stateless("rebalance", input, Location::caller());
        let node = self.job.operator(spec, |_| Forward);
        Stream::new(self.job.clone(), node, 0)
    }

    /// Gives each record a key; all records of a key come to the same worker.
    ///
    /// The worker is decided by a hash of the serialized key. A key whose own `Serialize` fails ends the attempt.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(2, |job| {
    ///     let words = job.read("in", vec!["to".to_owned(), "be".to_owned(), "to".to_owned()]);
    ///     words.key_by(|word| word.clone()).count().write("out", Collect);
    /// })?;
    /// // The last row of each key is its present count; how many rows come before it depends on timing.
    /// let last = run.last_per_key::<String, u64>("out");
    /// assert_eq!(last["to"], 2);
    /// assert_eq!(last["be"], 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn key_by<K: Key>(
        &self,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> KeyedStream<K, T> {
        let split = move |row: T| (key(&row), row);
        self.keyed_by("key_by", split, Location::caller())
    }

    /// Every record once: the first of those that are equal, as soon as it comes.
    ///
    /// Remembers every record it has seen, in its state; equal means that the records are equal (`Eq`) and serialize alike. The
    /// stream that comes out takes a [`uid`](Self::uid).
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(2, |job| {
    ///     job.read("in", vec![1u64, 2, 1, 1]).distinct().uid("once").write("out", Collect);
    /// })?;
    /// let mut out = run.committed::<u64>("out");
    /// out.sort();
    /// assert_eq!(out, [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn distinct(&self) -> Stream<T>
    where
        T: Key,
    {
        let at = Location::caller();
        let keyed = self.keyed_by("key_by", |row: T| (row, ()), at);
        let once = keyed.operator(
            "distinct",
            Wants { state: true, epochs: false },
            at,
            Distinct::<T>::new,
        );
        let why = "it remembers every record for ever; if repetitions come within a while, `key_by` and `distinct_within` forget";
        self.job.plan().warn(once.port.node, why);
        once
    }

    /// Gives every record the time at which it happened, and says how far event time is: see [`Watermark`].
    ///
    /// Windows and timers behind it go by these times. They travel with records through stateless operators (which may make anything
    /// else of a record) and [`key_by`](Self::key_by). The watermark is made for each split of the sources, if records come here as
    /// they were read, and is the least of these; behind operators with state, for all records together. An operator behind
    /// several such streams goes by the least of their watermarks. At the end of all sources event time goes to its end.
    ///
    /// Times further from 1970 than 73 million years, either way, count as just that far: a record of `Timestamp::MAX` is in a window like any other, and time
    /// is behind all others then, but not at its end.
    ///
    /// The watermark is state, and may be given a [`uid`](Self::uid).
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, secs};
    ///
    /// let run = testing::run(2, |job| {
    ///     // (sensor, time in ms, value)
    ///     let readings = job.read("in", vec![(1u64, 1_000i64, 7.0), (1, 500, 8.0), (2, 700, 9.0)]);
    ///     let readings = readings.event_time(|reading| reading.1, Watermark::bounded(secs(1)));
    ///     readings.uid("time").write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(u64, i64, f64)>("out").len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn event_time<S: Into<Timestamp>>(
        &self,
        at: impl Fn(&T) -> S + Send + Sync + 'static,
        watermark: Watermark<T>,
    ) -> Stream<T> {
        let place = Location::caller();
        let at = Arc::new(move |row: &T| at(row).into());
        let by_split = self.job.plan().read_from(self.port).is_some();
        let stragglers = watermark.stragglers();
        let spec = Spec {
            outputs: 2,
            times: Times::Given,
            ..Spec::stateless("event_time", pipeline(self.port), place)
        };
        let node = self.job.operator(spec, move |context| {
            Stamp::new(context, at.clone(), watermark.clone(), by_split)
        });
        self.job.plan().add_watermark(node, stragglers, place);
        Stream::new(self.job.clone(), node, 0)
    }

    /// Writes the records to `sink`.
    ///
    /// `uid` names the sink in checkpoints: what was staged but not yet published is found again under this name. A uid
    /// that is malformed or taken is reported when the job is checked.
    #[track_caller]
    pub fn write(&self, uid: &str, sink: impl IntoSink<T>) {
        let at = Location::caller();
        let node = self.job.add(Node {
            name: "sink",
            uid: None,
            role: Role::Sink(sink.into_sink()),
            inputs: vec![pipeline(self.port)],
            outputs: 0,
            times: Times::Dropped,
            watermark: None,
            at,
        });
        self.job.set_uid(node, uid, at);
    }

    fn each<U: Data>(
        &self,
        name: &'static str,
        at: &'static Location<'static>,
        run: impl Fn(Vec<T>, &mut Vec<i64>) -> Result<Vec<U>, BoxError> + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        let spec = Spec::stateless(name, pipeline(self.port), at);
        let node = self.job.operator(spec, move |_| Each::new(run.clone()));
        Stream::new(self.job.clone(), node, 0)
    }

    fn split_into<A: Data, B: Data>(
        &self,
        name: &'static str,
        f: impl Fn(T) -> Side<A, B> + Send + Sync + 'static,
        at: &'static Location<'static>,
    ) -> (Stream<A>, Stream<B>) {
        let f = Arc::new(f);
        let spec = Spec { outputs: 2, ..Spec::stateless(name, pipeline(self.port), at) };
        let node = self.job.operator(spec, move |_| {
            let f = f.clone();
            Split::new(move |row: T| f(row))
        });
        (Stream::new(self.job.clone(), node, 0), Stream::new(self.job.clone(), node, 1))
    }

    fn union_of<'a>(
        &self,
        name: &'static str,
        others: impl IntoIterator<Item = &'a Stream<T>>,
        at: &'static Location<'static>,
    ) -> Stream<T>
    where
        T: 'a,
    {
        let mut inputs = vec![pipeline(self.port)];
        for other in others {
            if self.job.is_same(&other.job) {
                inputs.push(pipeline(other.port));
            } else {
                self.job.error(at, "these streams belong to two different jobs");
            }
        }
        let (wants, times) = (Wants::default(), Times::Kept);
        let spec = Spec { name, inputs, outputs: 1, wants, times, watermark: None, at };
        let node = self.job.operator(spec, |_| Forward);
        Stream::new(self.job.clone(), node, 0)
    }

    fn keyed_by<K: Key, V: Data>(
        &self,
        name: &'static str,
        split: impl Fn(T) -> (K, V) + Send + Sync + 'static,
        at: &'static Location<'static>,
    ) -> KeyedStream<K, V> {
        let split = Arc::new(split);
        let spec = Spec::stateless(name, pipeline(self.port), at);
        let node = self.job.operator(spec, move |context| {
            let split = split.clone();
            KeyBy::new(move |row: T| split(row), context)
        });
        KeyedStream::new(self.job.clone(), Port { node, output: 0 })
    }
}

impl<K: Key, V: Data> Stream<(K, V)> {
    /// Takes the first part of each record as its key; all records of a key come to the same worker. As
    /// [`key_by`](Stream::key_by) otherwise.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(2, |job| {
    ///     let pairs = job.read("in", vec![("a".to_owned(), 1i64), ("a".to_owned(), 2)]);
    ///     pairs.keyed().sum(|n| n).write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(String, i64)>("out").last(), Some(&("a".to_owned(), 3)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn keyed(&self) -> KeyedStream<K, V> {
        self.keyed_by("keyed", |pair| pair, Location::caller())
    }
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Stream { job: self.job.clone(), port: self.port, rows: PhantomData }
    }
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = std::any::type_name::<T>();
        write!(f, "Stream<{rows}>({}.{})", self.port.node, self.port.output)
    }
}
