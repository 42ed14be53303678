//! From rows to a column: each tier is tried, from the one kept for the state on.

use arrow_array::{Array, ArrayRef, NullArray};
use arrow_schema::Field;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

use crate::general::General;
use crate::tier::{Tier, Written};
use crate::{CodecError, flat, general, opaque};

/// Encodes rows into one Arrow column called `name`, in the given tier or, if a value doesn't fit there, in a higher one, which
/// `tier` then says.
///
/// `None` is a row without a value: a null at the top level, which [`ColumnReader::is_absent`](crate::ColumnReader::is_absent)
/// tells from a value that is `None` itself. The field's metadata says how the column was written (`highwater.tier` = `flat`,
/// `general` or `opaque`), so that it is read from itself alone.
///
/// ```
/// use highwater_codec::{ColumnReader, Tier, encode};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct Visit { user: String, pages: u32 }
///
/// let visit = Visit { user: "ada".into(), pages: 3 };
/// let mut tier = Tier::default();
/// let (field, array) = encode("value", [Some(&visit), None].into_iter(), &mut tier)?;
/// assert_eq!(tier, Tier::Flat);
///
/// let reader = ColumnReader::<Visit>::new(&field, &array)?;
/// assert_eq!(reader.get(0)?, visit);
/// assert!(reader.is_absent(1));
/// # Ok::<(), highwater_codec::CodecError>(())
/// ```
///
/// # Errors
///
/// If the type's own `Serialize` fails, or a value is found not to come back from its own serialization.
pub fn encode<'a, T: Serialize + DeserializeOwned + 'a>(
    name: &str,
    rows: impl ExactSizeIterator<Item = Option<&'a T>> + Clone,
    tier: &mut Tier,
) -> Result<(Field, ArrayRef), CodecError> {
    let absent = || rows.clone().filter(Option::is_none).count();
    if *tier == Tier::Flat
        && let Ok((array, nulls)) = flat::encode(rows.clone())
        && let Some(null_is_value) = nulls_mean_values(nulls, absent)
    {
        return Ok(column(name, array, Written { null_is_value, ..Written::new(Tier::Flat) }));
    }
    if *tier < Tier::Opaque {
        // Without a value there is nothing to trace, and no reason to give up on columns.
        if absent() == rows.len() {
            let array = Arc::new(NullArray::new(rows.len()));
            return Ok(column(name, array, Written::new(*tier)));
        }
        if let Some(found) = general::encode(rows.clone())?
            && let Some(null_is_value) = nulls_mean_values(found.nulls, absent)
        {
            *tier = Tier::General;
            let General { array, omit_nulls, boxed, .. } = found;
            let written = Written { omit_nulls, null_is_value, boxed, ..Written::new(*tier) };
            return Ok(column(name, array, written));
        }
    }
    let (array, somes) = opaque::encode(rows)?;
    *tier = Tier::Opaque;
    Ok(column(name, array, Written { somes, ..Written::new(Tier::Opaque) }))
}

/// Whether the nulls at the top level are values; `None` if only some of them are.
fn nulls_mean_values(nulls: usize, absent: impl Fn() -> usize) -> Option<bool> {
    if nulls == 0 {
        return Some(false);
    }
    match absent() {
        0 => Some(true),
        absent => (absent == nulls).then_some(false),
    }
}

fn column(name: &str, array: ArrayRef, written: Written) -> (Field, ArrayRef) {
    let field = Field::new(name, array.data_type().clone(), true).with_metadata(written.metadata());
    (field, array)
}
