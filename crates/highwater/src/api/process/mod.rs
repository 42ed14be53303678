//! Process functions: the user's code with named states, under every pattern that nothing else covers.
//!
//! A process function declares its states and gets handles to them ([`Value`], [`List`], [`Map`]), which it keeps as fields. A handle
//! is a typed number: the states themselves are tables of the operator, which the [`Context`] of each call lends to the handle.

mod context;
mod list;
mod map;
mod states;
mod value;

use highwater_runtime::{Batch, BoxError, Data, Epoch, Keyed, Operator, OperatorContext, Outputs};
use highwater_state::StateTable;

pub use context::Context;
pub use list::List;
pub use map::Map;
pub use states::States;
pub use value::Value;

use super::stateless::emit;
use super::{Key, Stream};

/// A function of the records of each key, with states of its own. Used with
/// [`KeyedStream::process`](super::KeyedStream::process).
///
/// There is one instance on every worker, which serves all keys of the worker: whatever must be remembered for a key
/// belongs into a state. Fields are for handles and parameters; what else they hold is gone after a failure.
///
/// ```
/// use highwater::{BoxError, Context, Process, States, Value};
/// use highwater::testing::{self, Collect};
///
/// /// Tells how much a level has changed since the record before.
/// struct Steps {
///     last: Value<i64>,
/// }
///
/// impl Process for Steps {
///     type Key = u64;
///     type In = i64;
///     type Out = (u64, i64);
///
///     fn declare(states: &mut States<Self>) -> Self {
///         Steps { last: states.value("last") }
///     }
///
///     fn record(&mut self, level: i64, cx: &mut Context<Self>) -> Result<(), BoxError> {
///         if let Some(last) = self.last.get(cx) {
///             cx.emit((*cx.key(), level - last));
///         }
///         self.last.set(cx, level);
///         Ok(())
///     }
/// }
///
/// let run = testing::run(2, |job| {
///     let levels = job.read("in", vec![(7u64, 20i64), (7, 23), (7, 19)]).keyed();
///     levels.process(Steps::declare).uid("steps").main().write("out", Collect);
/// })?;
/// assert_eq!(run.committed::<(u64, i64)>("out"), [(7, 3), (7, -4)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Process: Sized + Send + 'static {
    /// The keys of the stream that it processes.
    type Key: Key;
    /// The records of the stream that it processes.
    type In: Data;
    /// What it emits.
    type Out: Data;

    /// Declares the states, and makes an instance that holds their handles.
    fn declare(states: &mut States<Self>) -> Self;

    /// Takes a record; its key is [`Context::key`]. Records of a key come in the order of their stream.
    ///
    /// # Errors
    ///
    /// Whatever it answers ends the attempt, and is reported with the operator's uid.
    fn record(&mut self, value: Self::In, cx: &mut Context<Self>) -> Result<(), BoxError>;
}

/// What comes out of a process function.
#[derive(Clone, Debug)]
pub struct Processed<O> {
    main: Stream<O>,
}

impl<O> Processed<O> {
    pub(super) fn new(main: Stream<O>) -> Self {
        Processed { main }
    }

    /// What it emits with [`Context::emit`].
    pub fn main(&self) -> Stream<O> {
        self.main.clone()
    }

    /// Names the operator, and so its states; see [`Stream::uid`].
    #[track_caller]
    pub fn uid(self, uid: &str) -> Self {
        self.main.uid(uid);
        self
    }
}

/// The operator around a process function.
pub(super) struct ProcessOperator<P: Process> {
    process: P,
    cx: Context<P>,
}

impl<P: Process> ProcessOperator<P> {
    pub(super) fn new(context: &OperatorContext, declare: impl Fn(&mut States<P>) -> P) -> Self {
        let mut states = States::new(context.key_groups, context.groups.clone());
        let process = declare(&mut states);
        ProcessOperator { process, cx: Context::new(states) }
    }
}

impl<P: Process> Operator for ProcessOperator<P> {
    fn receive(
        &mut self,
        _: usize,
        epoch: Epoch,
        batch: Batch,
        out: &mut Outputs,
    ) -> Result<(), BoxError> {
        let Keyed { hashes, rows } = batch.take::<Keyed<P::Key, P::In>>()?;
        for (hash, (key, value)) in hashes.into_iter().zip(rows) {
            self.cx.enter(epoch, hash, key);
            self.process.record(value, &mut self.cx)?;
        }
        emit(out, 0, Batch::new(self.cx.take_emitted()));
        Ok(())
    }

    fn tables(&mut self) -> Vec<&mut dyn StateTable> {
        self.cx.tables.iter_mut().map(|table| table.state_table()).collect()
    }

    fn restored(&mut self) {
        self.cx.tables.iter_mut().for_each(|table| table.restored());
    }
}
