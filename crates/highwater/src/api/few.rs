//! A list that nearly always has one element, which is then where the list is and not elsewhere in memory.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

/// Stored as a list.
#[derive(Clone, Debug)]
pub(super) struct Few<T>(SmallVec<[T; 1]>);

impl<T> Few<T> {
    pub(super) fn new() -> Self {
        Few(SmallVec::new())
    }
}

impl<T> Deref for Few<T> {
    type Target = SmallVec<[T; 1]>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<T: Serialize> Serialize for Few<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Few(Vec::deserialize(deserializer)?.into()))
    }
}
