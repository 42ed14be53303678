//! Side outputs: what a process function tells beside its main output, in streams of other types.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;

use highwater_runtime::{Batch, Data, Outputs};

use super::{Context, Process};
use crate::api::BATCH_ROWS;
use crate::api::stateless::emit;

/// The handle of a side output; see [`States::side`](super::States::side).
///
/// # Panics
///
/// Its method panics when it is given the context of another process function than the one that declared the handle.
pub struct SideOutput<T> {
    index: usize,
    rows: PhantomData<fn(T)>,
}

impl<T: Data> SideOutput<T> {
    pub(super) fn new(index: usize) -> Self {
        SideOutput { index, rows: PhantomData }
    }

    /// Emits a record there, in the present epoch, with the same time as [`Context::emit`] would give it.
    pub fn emit<P: Process>(&self, cx: &mut Context<P>, record: T) {
        let time = cx.emit_time();
        let rows = cx.side_mut::<SideRows<T>>(self.index);
        rows.rows.push(record);
        rows.times.extend(time);
    }
}

impl<T> Clone for SideOutput<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SideOutput<T> {}

impl<T> fmt::Debug for SideOutput<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SideOutput({})", self.index)
    }
}

/// What was emitted at a side output and not yet handed on, whatever its type.
pub(super) trait Side: Any {
    fn hand_on(&mut self, port: usize, out: &mut Outputs);
}

/// Rows of one type, with times if the stream has event times.
pub(super) struct SideRows<T> {
    rows: Vec<T>,
    times: Vec<i64>,
}

impl<T> Default for SideRows<T> {
    fn default() -> Self {
        SideRows { rows: Vec::new(), times: Vec::new() }
    }
}

impl<T: Data> Side for SideRows<T> {
    fn hand_on(&mut self, port: usize, out: &mut Outputs) {
        emit_rows(port, std::mem::take(&mut self.rows), std::mem::take(&mut self.times), out);
    }
}

/// Emits rows, with their times if they have any, in batches of the usual size.
pub(super) fn emit_rows<T: Data>(
    port: usize,
    mut rows: Vec<T>,
    mut times: Vec<i64>,
    out: &mut Outputs,
) {
    while !rows.is_empty() {
        let length = rows.len().min(BATCH_ROWS);
        let rest = (rows.split_off(length), times.split_off(length.min(times.len())));
        emit(out, port, Batch::new(rows).with_times(times));
        (rows, times) = rest;
    }
}
