//! The operators without state: each takes a batch and answers at once.
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

/// Rows in, rows out.
pub(super) struct Each<T, F> {
    run: F,
    rows: PhantomData<fn(T)>,
}

impl<T, F> Each<T, F> {
    pub(super) fn new(run: F) -> Self {
        Each { run, rows: PhantomData }
    }
}

impl<T: Data, U: Data, F: FnMut(Vec<T>) -> Result<Vec<U>, BoxError>> Operator for Each<T, F> {
    fn receive(
        &mut self,
        _: usize,
        _: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        emit(out, 0, Batch::new((self.run)(batch.take()?)?));
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
        let rows: Vec<T> = batch.take()?;
        // Nearly all rows go one way in most splits; only that side is worth room beforehand.
        let mut main = Vec::with_capacity(rows.len());
        let mut side = Vec::new();
        for row in rows {
            match (self.run)(row) {
                Side::Main(row) => main.push(row),
                Side::Side(row) => side.push(row),
            }
        }
        emit(out, 0, Batch::new(main));
        emit(out, 1, Batch::new(side));
        Ok(())
    }
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
