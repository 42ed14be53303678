//! The flat tier: values of fixed shape go straight into typed column builders.
//!
//! This is the hot path of a checkpoint, so a value isn't described first and converted later: a [`Cell`] is a serde
//! serializer whose methods push onto the vectors of a [`Column`]. The first value decides the columns; whatever doesn't fit
//! them afterwards is [`NotFlat`], and the caller writes all rows in another way.

mod cell;
mod column;

use arrow_array::ArrayRef;
use serde::Serialize;

use cell::Cell;
pub(crate) use cell::NotFlat;
use column::Column;
pub(crate) use column::{MAX_DEPTH, null_buffer};

/// The columns of all rows, and how many of them are null.
pub(crate) fn encode<'a, T: Serialize + 'a>(
    rows: impl ExactSizeIterator<Item = Option<&'a T>>,
) -> Result<(ArrayRef, usize), NotFlat> {
    let mut column = Column::new(rows.len());
    for row in rows {
        match row {
            Some(value) => value.serialize(Cell::new(&mut column))?,
            None => column.push_null(),
        }
    }
    let nulls = column.null_count();
    Ok((column.finish()?, nulls))
}
