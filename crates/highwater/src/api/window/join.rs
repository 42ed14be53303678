//! Windows over two connected streams: which records of both are in the same window of a key.
//!
//! ```text
//! clicks.connect(&buys).window(...).cogroup()     (key, [clicks], [buys]) of each window
//!                                  .join()        every click with every buy of its window
//! ```

use highwater_runtime::Data;

use super::{Telling, Windowed, WindowedStream};
use crate::api::step::{Merge, Step};
use crate::api::{Either, Key, Stream};

/// Keeps the values of both sides.
struct Both;

type Sides<L, R> = (Vec<L>, Vec<R>);

impl<L: Data, R: Data> Step<Either<L, R>> for Both {
    type Acc = Sides<L, R>;
    type Out = Sides<L, R>;

    fn first(&self, value: Either<L, R>) -> Self::Acc {
        let mut acc = (Vec::new(), Vec::new());
        self.add(&mut acc, value);
        acc
    }

    fn add(&self, (left, right): &mut Self::Acc, value: Either<L, R>) {
        match value {
            Either::Left(value) => left.push(value),
            Either::Right(value) => right.push(value),
        }
    }

    fn out(&self, acc: &Self::Acc) -> Self::Out {
        acc.clone()
    }
}

impl<L: Data, R: Data> Merge<Either<L, R>> for Both {
    fn merge(&self, (left, right): &mut Self::Acc, (mut more_left, mut more_right): Self::Acc) {
        left.append(&mut more_left);
        right.append(&mut more_right);
    }
}

impl<K: Key, L: Data, R: Data, W: Telling<Either<L, R>>> WindowedStream<K, Either<L, R>, W> {
    /// The records of both streams in each window of a key; for streams that were [connected](crate::KeyedStream::connect).
    ///
    /// What comes out has [`join`](Windowed::join) and its kin. With windows by event time this is what others call a window join, with
    /// [`Batches`](crate::Batches) the join of the batches of two streams.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::time::{Watermark, secs};
    /// use highwater::Tumbling;
    ///
    /// let run = testing::run(2, |job| {
    ///     let time = |record: &(u64, i64)| record.1;
    ///     let clicks = job.read("clicks", vec![(1u64, 1_000i64), (2, 1_000)]);
    ///     let clicks = clicks.event_time(time, Watermark::bounded(secs(1))).key_by(|click| click.0);
    ///     let buys = job.read("buys", vec![(1u64, 3_000i64), (1, 4_000), (1, 11_000)]);
    ///     let buys = buys.event_time(time, Watermark::bounded(secs(1))).key_by(|buy| buy.0);
    ///     let both = clicks.connect(&buys).window(Tumbling::of(secs(10))).cogroup().uid("both");
    ///     both.join().map(|(user, (click, buy))| (user, click.1, buy.1)).write("joined", Collect);
    ///     both.left_outer_join().filter(|(_, (_, buy))| buy.is_none()).map(|(user, _)| user).write("bought-nothing", Collect);
    /// })?;
    /// let mut joined = run.committed::<(u64, i64, i64)>("joined");
    /// joined.sort();
    /// assert_eq!(joined, [(1, 1_000, 3_000), (1, 1_000, 4_000)]);
    /// assert_eq!(run.committed::<u64>("bought-nothing"), [2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cogroup(self) -> Windowed<K, Either<L, R>, Sides<L, R>> {
        self.step("window_cogroup", Both)
    }
}

impl<K: Key, V, L: Data, R: Data> Windowed<K, V, Sides<L, R>> {
    /// Every record of the left stream with every one of the right stream in the same window of a key.
    #[track_caller]
    pub fn join(&self) -> Stream<(K, (L, R))> {
        self.flat_map(|window| {
            let (left, right) = window.value;
            let all = left.iter().flat_map(|l| right.iter().map(move |r| (l.clone(), r.clone())));
            all.map(|pair| (window.key.clone(), pair)).collect::<Vec<_>>()
        })
    }

    /// As [`join`](Self::join); a record of the left stream for which there is none comes alone.
    #[track_caller]
    pub fn left_outer_join(&self) -> Stream<(K, (L, Option<R>))> {
        self.flat_map(|window| {
            let (left, right) = window.value;
            let right = or_none(right);
            let all = left.iter().flat_map(|l| right.iter().map(move |r| (l.clone(), r.clone())));
            all.map(|pair| (window.key.clone(), pair)).collect::<Vec<_>>()
        })
    }

    /// As [`join`](Self::join); a record of the right stream for which there is none comes alone.
    #[track_caller]
    pub fn right_outer_join(&self) -> Stream<(K, (Option<L>, R))> {
        self.flat_map(|window| {
            let (left, right) = window.value;
            let left = or_none(left);
            let all = left.iter().flat_map(|l| right.iter().map(move |r| (l.clone(), r.clone())));
            all.map(|pair| (window.key.clone(), pair)).collect::<Vec<_>>()
        })
    }

    /// As [`join`](Self::join); a record of either stream for which there is none in the other comes alone.
    #[track_caller]
    pub fn full_outer_join(&self) -> Stream<(K, EitherOrBoth<L, R>)> {
        self.flat_map(|window| {
            let (left, right) = window.value;
            let (left, right) = (or_none(left), or_none(right));
            let all = left.iter().flat_map(|l| right.iter().map(move |r| (l.clone(), r.clone())));
            all.map(|pair| (window.key.clone(), pair)).collect::<Vec<_>>()
        })
    }
}

/// A record of each side, or of one of them.
type EitherOrBoth<L, R> = (Option<L>, Option<R>);

/// All records, or none if there are none.
fn or_none<T>(records: Vec<T>) -> Vec<Option<T>> {
    if records.is_empty() { vec![None] } else { records.into_iter().map(Some).collect() }
}
