//! Declaring the states of a process function.

use std::any::{Any, TypeId};
use std::marker::PhantomData;
use std::ops::Range;

use highwater_runtime::Data;
use highwater_state::{KeyGroups, StateTable};

use super::broadcast::Copied;
use super::lifetime::{Instant, Ttl};
use super::list::ListTable;
use super::map::MapTable;
use super::side::{Side, SideRows};
use super::timers::{By, TimerTable};
use super::value::ValueTable;
use super::{BroadcastState, List, Map, Process, SideOutput, Timers, Value};
use crate::api::Key;

/// A state of a process function on one worker: its table, and what is derived from it.
pub(super) trait ProcessTable: Any {
    /// What checkpoints keep of it, its values first.
    fn state_tables(&mut self) -> Vec<&mut dyn StateTable>;

    /// The tables were read back.
    fn restored(&mut self) {}

    /// Looks for what it has of the keys whose turn it is next, which have these hashes; see [`KeyedTable::look_ahead`](highwater_state::KeyedTable::look_ahead).
    fn look_ahead(&mut self, hashes: &[u64]) {
        let _ = hashes;
    }

    /// Removes some of what has come to its end.
    fn clean(&mut self, instant: Instant) {
        let _ = instant;
    }
}

/// What a process function declares its states with. Every state has a name of its own, under which checkpoints keep it.
pub struct States<P: Process> {
    key_groups: KeyGroups,
    groups: Range<u32>,
    pub(super) tables: Vec<Box<dyn ProcessTable>>,
    /// Which of them are timers, and what they go by.
    pub(super) timers: Vec<(usize, By)>,
    pub(super) sides: Vec<DeclaredSide>,
    /// The lifetimes of those that have one.
    ttls: Vec<Ttl>,
    has_broadcast: bool,
    /// This worker's copy of broadcast states is the one that checkpoints keep.
    writes_broadcast: bool,
    process: PhantomData<fn(P)>,
}

/// A side output.
pub(super) struct DeclaredSide {
    name: String,
    record: TypeId,
    pub(super) rows: Box<dyn Side>,
}

impl<P: Process> States<P> {
    pub(in crate::api) fn new(
        key_groups: KeyGroups,
        groups: Range<u32>,
        writes_broadcast: bool,
    ) -> Self {
        let (tables, timers, sides) = (Vec::new(), Vec::new(), Vec::new());
        States {
            key_groups,
            groups,
            tables,
            timers,
            sides,
            ttls: Vec::new(),
            has_broadcast: false,
            writes_broadcast,
            process: PhantomData,
        }
    }

    /// Whether what a function with these states sees depends on epochs.
    pub(super) fn needs_epochs(&self) -> bool {
        !self.timers.is_empty() || !self.ttls.is_empty()
    }

    /// Declares states for nobody, and answers what is wrong with them and which timers there are.
    pub(in crate::api) fn trial(declare: &impl Fn(&mut States<P>) -> P) -> Trial {
        let mut states = States::new(KeyGroups::default(), 0..0, false);
        declare(&mut states);
        let tables = states.tables.iter_mut().flat_map(|table| table.state_tables());
        let mut names: Vec<String> = tables.map(|table| table.name().to_owned()).collect();
        names.sort_unstable();
        let mut errors = Vec::new();
        if names.first().is_some_and(String::is_empty) {
            errors.push("this process function has a state without a name".to_owned());
        }
        for same in names.chunk_by(|a, b| a == b).filter(|same| same.len() > 1) {
            errors.push(format!(
                "this process function has {} states with the name `{}`; each needs its own",
                same.len(),
                same[0]
            ));
        }
        let sides: Vec<(String, TypeId)> =
            states.sides.into_iter().map(|side| (side.name, side.record)).collect();
        for (index, (name, _)) in sides.iter().enumerate() {
            if sides[..index].iter().any(|(other, _)| other == name) {
                errors
                    .push(format!("this process function declares the side output `{name}` twice"));
            }
        }
        errors.extend(states.ttls.iter().filter_map(|ttl| ttl.check().err()));
        let timers = states.timers.iter().map(|(_, by)| *by).collect();
        let ttls = states.ttls.iter().map(|ttl| ttl.goes_by()).collect();
        Trial { errors, timers, ttls, sides, has_broadcast: states.has_broadcast }
    }

    /// One value for each key.
    pub fn value<T: Data>(&mut self, name: &str) -> Value<T> {
        self.add_value(name, None)
    }

    /// A list of values for each key.
    pub fn list<T: Data>(&mut self, name: &str) -> List<T> {
        self.add_list(name, None)
    }

    /// A map for each key. Its entries are stored one by one: a change costs as much as the entry, not as the map.
    pub fn map<M: Key, T: Data>(&mut self, name: &str) -> Map<M, T> {
        self.add_map(name, None)
    }

    /// States whose entries come to an end: values and whole lists of a key, and single entries of maps.
    ///
    /// What has come to its end is never seen again, and is removed little by little: the end of an epoch and checkpoints cost the same however
    /// much ends at once. A function with such states gets its records epoch by epoch, as one with
    /// timers does, so what it sees depends on epochs alone.
    ///
    /// A lifetime may be changed from one version of a job to the next: it counts from when entries were last touched. What had none
    /// is touched when the job begins. [`Ttl::never`] takes one away.
    ///
    /// ```
    /// use highwater::testing::{self, Collect, Script};
    /// use highwater::time::{Watermark, hours};
    /// use highwater::{BoxError, Context, Process, States, Ttl, Value};
    ///
    /// /// Tells of everyone who wasn't there in the last hour.
    /// struct Visits {
    ///     seen: Value<()>,
    /// }
    ///
    /// impl Process for Visits {
    ///     type Key = String;
    ///     type In = (String, i64);
    ///     type Out = i64;
    ///
    ///     fn declare(states: &mut States<Self>) -> Self {
    ///         Visits { seen: states.ttl(Ttl::after_write(hours(1)).by_event_time()).value("seen") }
    ///     }
    ///
    ///     fn record(&mut self, (_, at): Self::In, cx: &mut Context<Self>) -> Result<(), BoxError> {
    ///         if self.seen.get(cx).is_none() {
    ///             cx.emit(at);
    ///         }
    ///         self.seen.set(cx, ());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let run = testing::run(2, |job| {
    ///     // Names and minutes, each in an epoch of its own: a lifetime ends when the watermark has come to its end.
    ///     let visits = [("ann", 0), ("ann", 50), ("bob", 150), ("ann", 151)];
    ///     let script = visits.into_iter().fold(Script::new(), |script, (name, minute)| {
    ///         script.record((name.to_owned(), minute * 60_000)).epoch()
    ///     });
    ///     let visits = job.read("in", script).event_time(|visit: &(String, i64)| visit.1, Watermark::monotonous());
    ///     let first = visits.key_by(|visit| visit.0.clone()).process(Visits::declare).uid("first");
    ///     first.main().map(|at| at / 60_000).write("out", Collect);
    /// })?;
    /// let mut out = run.committed::<i64>("out");
    /// out.sort();
    /// // Ann was there at 50 last, and time has come to 150.
    /// assert_eq!(out, [0, 150, 151]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ttl(&mut self, ttl: Ttl) -> Expiring<'_, P> {
        Expiring { states: self, ttl }
    }

    fn add_value<T: Data>(&mut self, name: &str, ttl: Option<Ttl>) -> Value<T> {
        let groups = self.groups.clone();
        Value::new(self.add(ValueTable::<P::Key, T>::new(name, ttl, self.key_groups, groups)))
    }

    fn add_list<T: Data>(&mut self, name: &str, ttl: Option<Ttl>) -> List<T> {
        let groups = self.groups.clone();
        List::new(self.add(ListTable::<P::Key, T>::new(name, ttl, self.key_groups, groups)))
    }

    fn add_map<M: Key, T: Data>(&mut self, name: &str, ttl: Option<Ttl>) -> Map<M, T> {
        let groups = self.groups.clone();
        Map::new(self.add(MapTable::<P::Key, M, T>::new(name, ttl, self.key_groups, groups)))
    }

    /// Timers of each key that go by event time: one is due when the watermark has come to its time. See [`Process::timer`].
    ///
    /// Records of a function with timers are handed over epoch by epoch, and at the end of each all timers that are due then. So
    /// which records a timer comes behind depends on the epochs in which they were read, not on the number of workers.
    pub fn event_timers(&mut self, name: &str) -> Timers {
        self.add_timers(name, By::EventTime)
    }

    /// As [`event_timers`](Self::event_timers), by the engine's clock (see [`Context::clock`](super::Context::clock)): one is due in the first
    /// epoch at whose end the clock has come to its time. When all sources are at their end, those that aren't due yet are no
    /// longer waited for.
    pub fn clock_timers(&mut self, name: &str) -> Timers {
        self.add_timers(name, By::Clock)
    }

    /// A map of which every worker has the same copy, written by [`BroadcastProcess::broadcast`](super::BroadcastProcess::broadcast), and read
    /// for every key.
    pub fn broadcast<M: Key, T: Data>(&mut self, name: &str) -> BroadcastState<M, T> {
        self.has_broadcast = true;
        let table = Copied::<M, T>::new(name, self.key_groups, self.writes_broadcast);
        BroadcastState::new(self.add(table))
    }

    /// A side output: a stream of another type than the main one, which is found as
    /// [`Processed::side`](super::Processed::side). It isn't state.
    pub fn side<T: Data>(&mut self, name: &str) -> SideOutput<T> {
        let rows = Box::<SideRows<T>>::default();
        self.sides.push(DeclaredSide { name: name.to_owned(), record: TypeId::of::<T>(), rows });
        SideOutput::new(self.sides.len() - 1)
    }

    fn add_timers(&mut self, name: &str, by: By) -> Timers {
        let table = TimerTable::<P::Key>::new(name, by, self.key_groups, self.groups.clone());
        let index = self.add(table);
        self.timers.push((index, by));
        Timers::new(index)
    }

    fn add(&mut self, table: impl ProcessTable) -> usize {
        self.tables.push(Box::new(table));
        self.tables.len() - 1
    }
}

/// Declares states whose entries come to an end; see [`States::ttl`].
#[must_use]
pub struct Expiring<'a, P: Process> {
    states: &'a mut States<P>,
    ttl: Ttl,
}

impl<P: Process> Expiring<'_, P> {
    /// One value for each key.
    pub fn value<T: Data>(self, name: &str) -> Value<T> {
        self.states.ttls.push(self.ttl);
        self.states.add_value(name, Some(self.ttl))
    }

    /// A list of values for each key. It lives as a whole: an element that is pushed keeps all of it alive.
    pub fn list<T: Data>(self, name: &str) -> List<T> {
        self.states.ttls.push(self.ttl);
        self.states.add_list(name, Some(self.ttl))
    }

    /// A map for each key, each entry of which lives on its own.
    pub fn map<M: Key, T: Data>(self, name: &str) -> Map<M, T> {
        self.states.ttls.push(self.ttl);
        self.states.add_map(name, Some(self.ttl))
    }
}

impl<P: Process> std::fmt::Debug for Expiring<'_, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expiring({:?})", self.ttl)
    }
}

/// What comes out of [`States::trial`].
pub(in crate::api) struct Trial {
    pub(in crate::api) errors: Vec<String>,
    pub(in crate::api) timers: Vec<By>,
    /// What lifetimes go by.
    pub(in crate::api) ttls: Vec<By>,
    /// Names and types of side outputs.
    pub(in crate::api) sides: Vec<(String, TypeId)>,
    pub(in crate::api) has_broadcast: bool,
}

impl<P: Process> std::fmt::Debug for States<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "States({} declared)", self.tables.len())
    }
}
