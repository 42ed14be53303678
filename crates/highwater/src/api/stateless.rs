//! The operators without state: each takes a batch and answers at once.
//!
//! Records keep their event times and the split they were read from, if they have any.
//!
//! The user's closure is a type parameter, so a batch costs one virtual call and a row none. The runtime chains these
//! operators, which is why each emits at most one batch for one at each of its outputs.

use std::marker::PhantomData;

use highwater_runtime::{Batch, BoxError, Data, Epoch, Operator, Outputs};
use serde::{Deserialize, Serialize};

/// Where [`Stream::split_map`](super::Stream::split_map) puts a record: two outputs, each with a type of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side<A, B> {
    /// Into the first stream.
    Main(A),
    /// Into the second stream, as late, damaged or otherwise special records are.
    Side(B),
}

/// Rows in, rows out: `run` gets rows and their times, which are none or as many, and leaves them so.
pub(super) struct Each<T, F> {
    run: F,
    rows: PhantomData<fn(T)>,
}

impl<T, F> Each<T, F> {
    pub(super) fn new(run: F) -> Self {
        Each { run, rows: PhantomData }
    }
}

impl<T, U, F> Operator for Each<T, F>
where
    T: Data,
    U: Data,
    F: FnMut(Vec<T>, &mut Vec<i64>) -> Result<Vec<U>, BoxError>,
{
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let split = batch.split_read().cloned();
        let (rows, mut times) = batch.take_timed()?;
        let rows = (self.run)(rows, &mut times)?;
        emit(out, 0, Batch::new(rows).with_times(times).with_split(split));
        Ok(())
    }
}

/// Rows in, rows out at two outputs.
pub(super) struct Split<T, F> {
    run: F,
    rows: PhantomData<fn(T)>,
}

impl<T, F> Split<T, F> {
    pub(super) fn new(run: F) -> Self {
        Split { run, rows: PhantomData }
    }
}

impl<T: Data, A: Data, B: Data, F: Fn(T) -> Side<A, B>> Operator for Split<T, F> {
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let split = batch.split_read().cloned();
        let (rows, times) = batch.take_timed::<Vec<T>>()?;
        let mut times = times.into_iter();
        // Nearly all rows go one way in most splits; only that side is worth room beforehand.
        let mut main = Vec::with_capacity(rows.len());
        let mut side = Vec::new();
        let (mut main_times, mut side_times) = (Vec::new(), Vec::new());
        for row in rows {
            let time = times.next();
            match (self.run)(row) {
                Side::Main(row) => {
                    main.push(row);
                    main_times.extend(time);
                }
                Side::Side(row) => {
                    side.push(row);
                    side_times.extend(time);
                }
            }
        }
        emit(out, 0, Batch::new(main).with_times(main_times).with_split(split.clone()));
        emit(out, 1, Batch::new(side).with_times(side_times).with_split(split));
        Ok(())
    }
}

/// Keeps the rows, and their times, for which `keep` answers true.
pub(super) fn retain<T>(rows: &mut Vec<T>, times: &mut Vec<i64>, keep: impl Fn(&T) -> bool) {
    if times.is_empty() {
        rows.retain(keep);
        return;
    }
    let (mut at, mut kept) = (0, 0);
    rows.retain(|row| {
        let keeps = keep(row);
        if keeps {
            times[kept] = times[at];
            kept += 1;
        }
        at += 1;
        keeps
    });
    times.truncate(kept);
}

/// Makes any number of rows of each; every one has the time of the row that it was made of.
pub(super) fn make_each<T, U, I: IntoIterator<Item = U>>(
    rows: Vec<T>,
    times: &mut Vec<i64>,
    make: impl Fn(T) -> I,
) -> Vec<U> {
    let mut made = Vec::with_capacity(rows.len());
    if times.is_empty() {
        rows.into_iter().for_each(|row| made.extend(make(row)));
        return made;
    }
    let mut made_times = Vec::with_capacity(rows.len());
    for (row, time) in rows.into_iter().zip(times.iter()) {
        made.extend(make(row));
        made_times.resize(made.len(), *time);
    }
    *times = made_times;
    made
}

/// Hands on what it gets, from any of its inputs, unread.
pub(super) struct Forward;

impl Operator for Forward {
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        emit(out, 0, batch);
        Ok(())
    }
}

/// Emits a batch, unless it is empty. Every operator of this folder emits here.
#[inline]
pub(super) fn emit(out: &mut Outputs, port: usize, batch: Batch) {
    #[cfg(test)]
    super::test_support::tap(port, &batch);
    out.emit(port, batch);
}
