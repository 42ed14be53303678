//! Putting process functions into the plan, and what comes out of them.

use std::any::TypeId;
use std::panic::Location;

use highwater_runtime::plan::{Edge, Exchange, Port, Times};
use highwater_runtime::{Data, OperatorContext, Wants};

use super::broadcast::{BroadcastProcess, ForAll, ToAll};
use super::operator::ProcessOperator;
use super::states::Trial;
use super::timers::By;
use super::{Process, States};
use crate::api::job::{Job, Spec, pipeline};
use crate::api::{Key, KeyedStream, Stream};

impl<K: Key, V: Data> KeyedStream<K, V> {
    /// Runs a process function: code with named states of any kind, called for each record. See [`Process`].
    ///
    /// `declare` is mostly `P::declare`; a closure can bring parameters. It is called once when the plan is made, to see
    /// which states there are, and once for every worker; it must declare the same states every time.
    ///
    /// Two states of one name are reported when the job is checked.
    #[track_caller]
    pub fn process<P: Process<Key = K, In = V>>(
        &self,
        declare: impl Fn(&mut States<P>) -> P + Send + Sync + 'static,
    ) -> Processed<P::Out> {
        let at = Location::caller();
        let trial = States::trial(&declare);
        if trial.has_broadcast {
            let why = "this process function declares broadcast state, which nobody would ever change: use \
                       `process_with_broadcast`";
            self.job.error(at, why);
        }
        self.add_process(trial, None, at, move |context, is_timed| {
            ProcessOperator::new(context, &declare, is_timed)
        })
    }

    /// Runs a process function that also gets every record of `small`, on every worker, and keeps what it needs of them in
    /// [broadcast state](super::BroadcastState). See [`BroadcastProcess`].
    ///
    /// Records are handed over when their epoch is complete (some 10 ms later): first those of `small`, then those of this stream. Every
    /// record sees what came of all records of `small` in its epoch and before. The watermark of `small`, if it has one, counts with that of this stream; so
    /// give it none unless it goes on with time.
    ///
    /// ```text
    /// epoch            1              2            3
    /// small    limit 100                    limit 10
    /// stream      20  150            30     20          told: 150, 20
    /// ```
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::{BoxError, BroadcastContext, BroadcastProcess, BroadcastState, Context, Process, States};
    ///
    /// /// Tells of payments above the limit for their currency.
    /// struct Check {
    ///     limits: BroadcastState<String, u64>,
    /// }
    ///
    /// impl Process for Check {
    ///     type Key = String;
    ///     type In = u64;
    ///     type Out = (String, u64);
    ///
    ///     fn declare(states: &mut States<Self>) -> Self {
    ///         Check { limits: states.broadcast("limits") }
    ///     }
    ///
    ///     fn record(&mut self, amount: u64, cx: &mut Context<Self>) -> Result<(), BoxError> {
    ///         if self.limits.get(cx, cx.key()).is_some_and(|limit| amount > limit) {
    ///             cx.emit((cx.key().clone(), amount));
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl BroadcastProcess for Check {
    ///     type Broadcast = (String, u64);
    ///
    ///     fn broadcast(
    ///         &mut self,
    ///         (currency, limit): Self::Broadcast,
    ///         cx: &mut BroadcastContext<'_, Self>,
    ///     ) -> Result<(), BoxError> {
    ///         self.limits.insert(cx, currency, limit);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let run = testing::run(2, |job| {
    ///     let limits = job.read("limits", vec![("EUR".to_owned(), 100u64)]);
    ///     let script = testing::Script::new().epoch().checkpoint().record(("EUR".to_owned(), 150u64));
    ///     let payments = job.read("payments", script).keyed();
    ///     let above = payments.process_with_broadcast(&limits, Check::declare).uid("check");
    ///     above.main().write("out", Collect);
    /// })?;
    /// assert_eq!(run.committed::<(String, u64)>("out"), [("EUR".to_owned(), 150)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn process_with_broadcast<P: BroadcastProcess<Key = K, In = V>>(
        &self,
        small: &Stream<P::Broadcast>,
        declare: impl Fn(&mut States<P>) -> P + Send + Sync + 'static,
    ) -> Processed<P::Out> {
        let at = Location::caller();
        if !self.job.is_same(small.job()) {
            self.job.error(at, "these streams belong to two different jobs");
            return Processed::nothing(self.job.clone());
        }
        let spec = Spec::stateless("broadcast", pipeline(small.port()), at);
        let node = self.job.operator(spec, ToAll::<P::Broadcast>::new);
        let to_all = Port { node, output: 0 };
        self.add_process(States::trial(&declare), Some(to_all), at, move |context, is_timed| {
            let small = Box::<ForAll<P::Broadcast>>::default();
            ProcessOperator::with_second(context, &declare, is_timed, small)
        })
    }

    fn add_process<P: Process<Key = K, In = V>>(
        &self,
        trial: Trial,
        to_all: Option<Port>,
        at: &'static Location<'static>,
        make: impl Fn(&OperatorContext, bool) -> ProcessOperator<P> + Send + Sync + 'static,
    ) -> Processed<P::Out> {
        let job = &self.job;
        for error in trial.errors {
            job.error(at, error);
        }
        let waits = !trial.timers.is_empty() || !trial.ttls.is_empty() || to_all.is_some();
        let ports: Vec<Port> = [self.port].into_iter().chain(to_all).collect();
        let watermark = if waits { job.plan().watermark_of(&ports, at) } else { None };
        if trial.timers.contains(&By::EventTime) && watermark.is_none() {
            let why = "event timers go by the watermark, which nobody makes here: give the records times with \
                       `.event_time(...)` somewhere before, or use `clock_timers`";
            job.error(at, why);
        }
        if trial.ttls.contains(&By::EventTime) && watermark.is_none() {
            let why = "lifetimes by event time end with the watermark, which nobody makes here: give the records times with \
                       `.event_time(...)` somewhere before, or leave `.by_event_time()` out";
            job.error(at, why);
        }
        let is_timed = job.plan().is_timed(self.port);
        let edge = |from| Edge { from, exchange: Exchange::Keyed };
        let spec = Spec {
            name: "process",
            inputs: ports.into_iter().map(edge).collect(),
            outputs: 1 + trial.sides.len(),
            wants: Wants { state: true, epochs: waits },
            times: if is_timed { Times::Given } else { Times::Dropped },
            watermark,
            at,
        };
        let node = job.operator(spec, move |context| make(context, is_timed));
        Processed { main: Stream::new(job.clone(), node, 0), job: job.clone(), sides: trial.sides }
    }
}

/// What comes out of a process function.
#[derive(Clone, Debug)]
pub struct Processed<O> {
    main: Stream<O>,
    job: Job,
    /// Its side outputs: names and types, in the order of their ports from 1 on.
    sides: Vec<(String, TypeId)>,
}

impl<O> Processed<O> {
    /// What comes out of a function that can't be put into the plan, for which there is an error.
    fn nothing(job: Job) -> Self {
        Processed { main: Stream::new(job.clone(), 0, 0), job, sides: Vec::new() }
    }

    /// What it emits with [`Context::emit`](super::Context::emit).
    pub fn main(&self) -> Stream<O> {
        self.main.clone()
    }

    /// What it emits at the side output of that name; see [`States::side`].
    ///
    /// A name that the function doesn't declare, or with another type, is reported when the job is checked.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    /// use highwater::{BoxError, Context, Process, SideOutput, States, Value};
    ///
    /// /// Tells how much a counter has grown, and on the side that it was set back.
    /// struct Growth {
    ///     last: Value<u64>,
    ///     resets: SideOutput<String>,
    /// }
    ///
    /// impl Process for Growth {
    ///     type Key = u64;
    ///     type In = u64;
    ///     type Out = u64;
    ///
    ///     fn declare(states: &mut States<Self>) -> Self {
    ///         Growth { last: states.value("last"), resets: states.side("resets") }
    ///     }
    ///
    ///     fn record(&mut self, now: u64, cx: &mut Context<Self>) -> Result<(), BoxError> {
    ///         let last = self.last.get(cx).unwrap_or_default();
    ///         match now.checked_sub(last) {
    ///             Some(growth) => cx.emit(growth),
    ///             None => {
    ///                 let text = format!("counter {} fell from {last} to {now}", cx.key());
    ///                 self.resets.emit(cx, text);
    ///             }
    ///         }
    ///         self.last.set(cx, now);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let run = testing::run(2, |job| {
    ///     let counters = job.read("in", vec![(7u64, 20u64), (7, 25), (7, 1)]).keyed();
    ///     let growth = counters.process(Growth::declare).uid("growth");
    ///     growth.main().write("out", Collect);
    ///     growth.side::<String>("resets").write("resets", Collect);
    /// })?;
    /// assert_eq!(run.committed::<u64>("out"), [20, 5]);
    /// assert_eq!(run.committed::<String>("resets"), ["counter 7 fell from 25 to 1"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn side<T: Data>(&self, name: &str) -> Stream<T> {
        let at = Location::caller();
        let found = self.sides.iter().position(|(side, _)| side == name);
        match found {
            Some(index) if self.sides[index].1 == TypeId::of::<T>() => {
                return Stream::new(self.job.clone(), self.main.port().node, 1 + index);
            }
            Some(_) => self.job.error(
                at,
                format!(
                    "the side output `{name}` isn't declared for {}",
                    std::any::type_name::<T>()
                ),
            ),
            None => {
                let names: Vec<&str> = self.sides.iter().map(|(name, _)| &**name).collect();
                let why = format!(
                    "this process function has no side output `{name}`; those it declares: [{}]",
                    names.join(", ")
                );
                self.job.error(at, why);
            }
        }
        Stream::new(self.job.clone(), self.main.port().node, 0)
    }

    /// Names the operator, and so its states; see [`Stream::uid`].
    #[track_caller]
    pub fn uid(self, uid: &str) -> Self {
        self.main.uid(uid);
        self
    }
}
