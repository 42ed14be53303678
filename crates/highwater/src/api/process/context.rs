//! What a process function is lent for the time of a call.

use std::any::{Any, type_name};

use highwater_runtime::Epoch;

use super::Process;
use super::states::{ProcessTable, States};

/// The present key and its states, and where output goes.
///
/// States are reached through their handles: `self.last.get(cx)`.
pub struct Context<P: Process> {
    pub(super) tables: Vec<Box<dyn ProcessTable>>,
    /// None before the first record.
    present: Option<Present<P::Key>>,
    emitted: Vec<P::Out>,
}

/// Whose turn it is.
struct Present<K> {
    epoch: Epoch,
    hash: u64,
    key: K,
}

impl<P: Process> Context<P> {
    pub(super) fn new(states: States<P>) -> Self {
        Context { tables: states.tables, present: None, emitted: Vec::new() }
    }

    /// Makes `key` the present one.
    #[inline]
    pub(super) fn enter(&mut self, epoch: Epoch, hash: u64, key: P::Key) {
        self.present = Some(Present { epoch, hash, key });
    }

    pub(super) fn take_emitted(&mut self) -> Vec<P::Out> {
        std::mem::take(&mut self.emitted)
    }

    /// The key of the present record.
    pub fn key(&self) -> &P::Key {
        &self.present().key
    }

    /// The epoch of the present record: when a source read it.
    pub fn epoch(&self) -> Epoch {
        self.present().epoch
    }

    /// Emits a record, in the present epoch.
    pub fn emit(&mut self, out: P::Out) {
        self.emitted.push(out);
    }

    fn present(&self) -> &Present<P::Key> {
        self.present.as_ref().expect(NO_RECORD)
    }

    /// A state, the present key's hash and the key.
    #[inline]
    pub(super) fn state<T: ProcessTable>(&self, index: usize) -> (&T, u64, &P::Key) {
        let Present { hash, key, .. } = self.present();
        let table: &dyn Any = &*self.tables[index];
        (table.downcast_ref().unwrap_or_else(|| foreign::<P>()), *hash, key)
    }

    /// As [`state`](Self::state), to be changed.
    #[inline]
    pub(super) fn state_mut<T: ProcessTable>(&mut self, index: usize) -> (&mut T, u64, &P::Key) {
        let Present { hash, key, .. } = self.present.as_ref().expect(NO_RECORD);
        let table: &mut dyn Any = &mut *self.tables[index];
        (table.downcast_mut().unwrap_or_else(|| foreign::<P>()), *hash, key)
    }
}

const NO_RECORD: &str = "a process function is called for a record";

#[cold]
fn foreign<P>() -> ! {
    panic!("a handle that `{}` uses was declared by another process function", type_name::<P>())
}

impl<P: Process> std::fmt::Debug for Context<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context<{}>", type_name::<P>())
    }
}
