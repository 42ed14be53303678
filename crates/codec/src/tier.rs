//! How a column is written, and the metadata by which it is read from itself alone.

use std::collections::HashMap;

use arrow_schema::Field;

use crate::CodecError;
use crate::opaque::Somes;

const TIER: &str = "highwater.tier";
/// "omitted" if nulls in structs are fields that weren't written; otherwise they are fields without a value.
const NULL_FIELDS: &str = "highwater.null-fields";
/// "value" if a null at the top level is a value (`None`); otherwise it's a row without one.
const NULL_ROWS: &str = "highwater.null-rows";
/// "field" if the values are the one field of the column, because their own type has no null to spare for rows without one.
const VALUES: &str = "highwater.values";
/// "wrapped" if every `Some` is a list of one; otherwise it's written as what it holds.
const SOMES: &str = "highwater.somes";

/// How a column is written. A state keeps one per column, and it only grows, so that one fallback is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Values of one fixed shape: scalars, strings, structs, tuples, optional values and enums without data.
    #[default]
    Flat,
    /// Also lists, maps and enums with data, still as columns that any tool reads.
    General,
    /// Anything else: MessagePack with named fields, in one binary column.
    Opaque,
}

/// All that a field says about how its column was written.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    pub(crate) tier: Tier,
    pub(crate) omit_nulls: bool,
    pub(crate) null_is_value: bool,
    pub(crate) boxed: bool,
    pub(crate) somes: Somes,
}

impl Written {
    pub(crate) fn new(tier: Tier) -> Self {
        Self { tier, omit_nulls: false, null_is_value: false, boxed: false, somes: Somes::Bare }
    }

    pub(crate) fn metadata(self) -> HashMap<String, String> {
        let tier = match self.tier {
            Tier::Flat => "flat",
            Tier::General => "general",
            Tier::Opaque => "opaque",
        };
        [
            Some((TIER, tier)),
            self.omit_nulls.then_some((NULL_FIELDS, "omitted")),
            self.null_is_value.then_some((NULL_ROWS, "value")),
            (self.somes == Somes::Wrapped).then_some((SOMES, "wrapped")),
            self.boxed.then_some((VALUES, "field")),
        ]
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    /// What the field of a column says. Another version may have written something that this one must not guess.
    pub(crate) fn of(field: &Field) -> Result<Self, CodecError> {
        let tier = match field.metadata().get(TIER).map(String::as_str) {
            // A tool that rewrote the column may have dropped the metadata; plain columns still speak for themselves.
            None | Some("flat") => Tier::Flat,
            Some("general") => Tier::General,
            Some("opaque") => Tier::Opaque,
            Some(other) => return Err(unknown(field, TIER, other)),
        };
        let flag = |key: &str, set: &str| match field.metadata().get(key) {
            None => Ok(false),
            Some(value) if value == set => Ok(true),
            Some(other) => Err(unknown(field, key, other)),
        };
        let somes = if flag(SOMES, "wrapped")? { Somes::Wrapped } else { Somes::Bare };
        Ok(Self {
            tier,
            omit_nulls: flag(NULL_FIELDS, "omitted")?,
            null_is_value: flag(NULL_ROWS, "value")?,
            boxed: flag(VALUES, "field")?,
            somes,
        })
    }
}

fn unknown(field: &Field, key: &str, value: &str) -> CodecError {
    CodecError::Column {
        column: field.name().clone(),
        reason: format!("its metadata says {key} = \"{value}\", which this version doesn't know"),
    }
}

/// Whether a column can't be read by other tools, because it is written as [`Tier::Opaque`].
#[must_use]
pub fn is_opaque(field: &Field) -> bool {
    Written::of(field).is_ok_and(|written| written.tier == Tier::Opaque)
}
