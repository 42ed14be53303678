//! Declaring the states of a process function.

use std::any::Any;
use std::marker::PhantomData;
use std::ops::Range;

use highwater_runtime::Data;
use highwater_state::{KeyGroups, StateTable};

use super::list::ListTable;
use super::map::MapTable;
use super::timers::{By, TimerTable};
use super::value::ValueTable;
use super::{List, Map, Process, Timers, Value};
use crate::api::Key;

/// A state of a process function on one worker: its table, and what is derived from it.
pub(super) trait ProcessTable: Any {
    fn state_table(&mut self) -> &mut dyn StateTable;

    /// The table was read back.
    fn restored(&mut self) {}
}

/// What a process function declares its states with. Every state has a name of its own, under which checkpoints keep it.
pub struct States<P: Process> {
    key_groups: KeyGroups,
    groups: Range<u32>,
    pub(super) tables: Vec<Box<dyn ProcessTable>>,
    /// Which of them are timers, and what they go by.
    pub(super) timers: Vec<(usize, By)>,
    process: PhantomData<fn(P)>,
}

impl<P: Process> States<P> {
    pub(in crate::api) fn new(key_groups: KeyGroups, groups: Range<u32>) -> Self {
        let (tables, timers) = (Vec::new(), Vec::new());
        States { key_groups, groups, tables, timers, process: PhantomData }
    }

    /// Declares states for nobody, and answers what is wrong with them and which timers there are.
    pub(in crate::api) fn trial(declare: &impl Fn(&mut States<P>) -> P) -> Trial {
        let mut states = States::new(KeyGroups::default(), 0..0);
        declare(&mut states);
        let mut names: Vec<String> =
            states.tables.iter_mut().map(|table| table.state_table().name().to_owned()).collect();
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
        Trial { errors, timers: states.timers.iter().map(|(_, by)| *by).collect() }
    }

    /// One value for each key.
    pub fn value<T: Data>(&mut self, name: &str) -> Value<T> {
        let table = ValueTable::<P::Key, T>::new(name, self.key_groups, self.groups.clone());
        Value::new(self.add(table))
    }

    /// A list of values for each key.
    pub fn list<T: Data>(&mut self, name: &str) -> List<T> {
        let table = ListTable::<P::Key, T>::new(name, self.key_groups, self.groups.clone());
        List::new(self.add(table))
    }

    /// A map for each key. Its entries are stored one by one: a change costs as much as the entry, not as the map.
    pub fn map<M: Key, T: Data>(&mut self, name: &str) -> Map<M, T> {
        let table = MapTable::<P::Key, M, T>::new(name, self.key_groups, self.groups.clone());
        Map::new(self.add(table))
    }

    /// Timers of each key that go by event time: one is due when the watermark has come to its time. See [`Process::timer`].
    ///
    /// Records of a function with timers are handed over when their epoch is complete, and then all timers that are due at its end. So
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

/// What comes out of [`States::trial`].
pub(in crate::api) struct Trial {
    pub(in crate::api) errors: Vec<String>,
    pub(in crate::api) timers: Vec<By>,
}

impl<P: Process> std::fmt::Debug for States<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "States({} declared)", self.tables.len())
    }
}
