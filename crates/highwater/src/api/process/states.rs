//! Declaring the states of a process function.

use std::any::Any;
use std::marker::PhantomData;
use std::ops::Range;

use highwater_runtime::Data;
use highwater_state::{KeyGroups, StateTable};

use super::list::ListTable;
use super::map::MapTable;
use super::value::ValueTable;
use super::{List, Map, Process, Value};
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
    process: PhantomData<fn(P)>,
}

impl<P: Process> States<P> {
    pub(in crate::api) fn new(key_groups: KeyGroups, groups: Range<u32>) -> Self {
        States { key_groups, groups, tables: Vec::new(), process: PhantomData }
    }

    /// Declares states for nobody, and answers what is wrong with them.
    pub(in crate::api) fn trial(declare: &impl Fn(&mut States<P>) -> P) -> Vec<String> {
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
        errors
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

    fn add(&mut self, table: impl ProcessTable) -> usize {
        self.tables.push(Box::new(table));
        self.tables.len() - 1
    }
}

impl<P: Process> std::fmt::Debug for States<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "States({} declared)", self.tables.len())
    }
}
