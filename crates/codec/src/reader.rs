//! From a column back to values, of the type that wrote it or of one that it has become since.

use std::marker::PhantomData;

use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use arrow_schema::Field;
use serde::de::DeserializeOwned;

use crate::CodecError;
use crate::bytes::BinaryColumn;
use crate::cursor::Cursor;
use crate::general;
use crate::node::{Node, Unreadable};
use crate::opaque::{self, Somes};
use crate::tier::{Tier, Written};

/// Reads the rows of a column back, whichever tier wrote it.
///
/// The type may have changed since: fields are found by name, those that the column lacks take their serde defaults, those that
/// the type lacks are left, integers widen, and a value becomes optional.
///
/// ```
/// use highwater_codec::{ColumnReader, Tier, encode};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct V1 { count: u32 }
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct V2 { count: u64, #[serde(default)] label: String }
///
/// let (field, array) = encode("value", [V1 { count: 7 }].iter().map(Some), &mut Tier::Flat)?;
/// let reader = ColumnReader::<V2>::new(&field, &array)?;
/// assert_eq!(reader.get(0)?, V2 { count: 7, label: String::new() });
/// # Ok::<(), highwater_codec::CodecError>(())
/// ```
pub struct ColumnReader<T> {
    name: String,
    rows: usize,
    /// The rows without a value.
    absent: Absent,
    values: Values,
    target: PhantomData<fn() -> T>,
}

enum Absent {
    None,
    All,
    Nulls(NullBuffer),
}

enum Values {
    Columns(Node),
    Opaque { values: BinaryColumn, somes: Somes },
}

impl<T> std::fmt::Debug for ColumnReader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColumnReader")
            .field("name", &self.name)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl<T> ColumnReader<T> {
    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether a row was written without a value. That isn't a value of `None`, which can be read.
    #[must_use]
    pub fn is_absent(&self, row: usize) -> bool {
        match &self.absent {
            Absent::None => false,
            Absent::All => row < self.rows,
            Absent::Nulls(nulls) => row < self.rows && nulls.is_null(row),
        }
    }
}

impl<T: DeserializeOwned> ColumnReader<T> {
    /// Prepares a column for reading.
    ///
    /// # Errors
    ///
    /// If the array isn't of the field's type, or of none that a column is written in.
    pub fn new(field: &Field, array: &ArrayRef) -> Result<Self, CodecError> {
        let name = field.name().clone();
        let refused =
            |column: &str, reason| CodecError::Column { column: column.to_owned(), reason };
        if !field.data_type().equals_datatype(array.data_type()) {
            let (said, is) = (field.data_type(), array.data_type());
            let reason = format!("its field says {said}, but it is an array of {is}");
            return Err(refused(&name, reason));
        }
        let written = Written::of(field)?;
        let values = if written.tier == Tier::Opaque {
            let Some(values) = BinaryColumn::new(array) else {
                let reason = format!("it should be opaque, but is of type {}", array.data_type());
                return Err(refused(&name, reason));
            };
            Values::Opaque { values, somes: written.somes }
        } else {
            let values = if written.boxed { general::unboxed(array) } else { Some(array) };
            let Some(values) = values else {
                let reason = format!(
                    "its values should be a field of it, but it is of type {}",
                    array.data_type()
                );
                return Err(refused(&name, reason));
            };
            let node = Node::new(&name, values, written.omit_nulls)
                .map_err(|Unreadable { path, reason }| refused(&path, reason))?;
            Values::Columns(node)
        };
        let absent = match array.nulls() {
            _ if written.null_is_value => Absent::None,
            Some(nulls) => Absent::Nulls(nulls.clone()),
            None if array.data_type().is_null() => Absent::All,
            None => Absent::None,
        };
        Ok(Self { name, rows: array.len(), absent, values, target: PhantomData })
    }

    /// The value in a row.
    ///
    /// # Errors
    ///
    /// If there is no such row, it was written without a value, or its value isn't one of `T`: the error says which field.
    #[inline]
    pub fn get(&self, row: usize) -> Result<T, CodecError> {
        if row >= self.rows || self.is_absent(row) {
            return Err(self.no_value(row));
        }
        match &self.values {
            Values::Columns(node) => {
                T::deserialize(Cursor { node, row }).map_err(|error| self.unreadable(row, &error))
            }
            Values::Opaque { values, somes } => opaque::read(values.value(row), *somes)
                .map_err(|error| self.unreadable(row, &error)),
        }
    }

    #[cold]
    fn no_value(&self, row: usize) -> CodecError {
        let column = self.name.clone();
        if row >= self.rows {
            CodecError::NoRow { column, row, rows: self.rows }
        } else {
            CodecError::Absent { column, row }
        }
    }

    #[cold]
    fn unreadable(&self, row: usize, error: &dyn std::error::Error) -> CodecError {
        CodecError::Read {
            column: self.name.clone(),
            row,
            type_name: std::any::type_name::<T>(),
            reason: error.to_string(),
        }
    }
}
