//! Process functions: the user's code with named states, under every pattern that nothing else covers.
//!
//! A process function declares its states and gets handles to them ([`Value`], [`List`], [`Map`], [`Timers`]), which it keeps as fields.
//! A handle is a typed number: the states themselves are tables of the operator, which the [`Context`] of each call lends to the handle.
//!
//! ```text
//! keyed rows ─▶ ProcessOperator ─▶ record, timer ─▶ main output, SideOutput ...
//!  for all ───▶       │        └─▶ broadcast
//!                 Context: Value, List, Map, Timers of each key; BroadcastState of all
//! ```
//!
//! Functions of several inputs are functions of [`Either`](crate::Either); see [`KeyedStream::connect`](crate::KeyedStream::connect).

mod broadcast;
mod build;
mod context;
mod lifetime;
mod list;
mod map;
mod operator;
mod side;
mod states;
mod timers;
mod value;

use highwater_runtime::{BoxError, Data};

pub use broadcast::{BroadcastContext, BroadcastProcess, BroadcastState, OfKeys};
pub use build::Processed;
pub use context::Context;
pub use lifetime::Ttl;
pub(super) use lifetime::{Instant, Lifetimes, Placed};
pub use list::List;
pub use map::Map;
pub use side::SideOutput;
pub use states::{Expiring, States};
pub(super) use timers::By;
pub use timers::Timers;
pub use value::Value;

use super::Key;
use super::time::Timestamp;

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

    /// A timer of the key [`Context::key`] is due, which was set for the time `at` by the handle `timers`; it is gone now. Timers of one
    /// kind are called in the order of their times.
    ///
    /// ```
    /// use highwater::time::{Timestamp, Watermark, hours};
    /// use highwater::testing::{self, Collect};
    /// use highwater::{BoxError, Context, Process, States, Timers, Value};
    ///
    /// /// Tells of everyone who has been silent for two hours.
    /// struct Silence {
    ///     last: Value<Timestamp>,
    ///     silent: Timers,
    /// }
    ///
    /// impl Process for Silence {
    ///     type Key = String;
    ///     type In = (String, i64);
    ///     type Out = (String, Timestamp);
    ///
    ///     fn declare(states: &mut States<Self>) -> Self {
    ///         Silence { last: states.value("last"), silent: states.event_timers("silent") }
    ///     }
    ///
    ///     fn record(&mut self, (_, at): Self::In, cx: &mut Context<Self>) -> Result<(), BoxError> {
    ///         if let Some(last) = self.last.get(cx) {
    ///             self.silent.delete(cx, last + hours(2));
    ///         }
    ///         self.last.set(cx, at.into());
    ///         self.silent.set(cx, Timestamp::from(at) + hours(2));
    ///         Ok(())
    ///     }
    ///
    ///     fn timer(&mut self, _: Timers, at: Timestamp, cx: &mut Context<Self>) -> Result<(), BoxError> {
    ///         self.last.clear(cx);
    ///         cx.emit((cx.key().clone(), at));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let run = testing::run(2, |job| {
    ///     let heard = job.read("in", vec![("ann".to_owned(), 0i64), ("ann".to_owned(), 3_600_000)]);
    ///     let heard = heard.event_time(|heard| heard.1, Watermark::monotonous());
    ///     let silent = heard.key_by(|heard| heard.0.clone()).process(Silence::declare).uid("silence");
    ///     silent.main().write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(String, Timestamp)>("out"), [("ann".to_owned(), Timestamp::from_ms(10_800_000))]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`record`](Self::record).
    fn timer(
        &mut self,
        timers: Timers,
        at: Timestamp,
        cx: &mut Context<Self>,
    ) -> Result<(), BoxError> {
        let _ = (timers, at, cx);
        Ok(())
    }
}
