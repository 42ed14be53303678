//! The stable hash of a key that is already a column: what [`hash_key`](crate::hash_key) gives for the value, without making it.
//!
//! It lets a checkpoint be checked and regrouped without knowing the Rust types of its keys. Columns are those that the flat
//! tier writes; the walk must visit them as `hash.rs` visits the value, which a property test compares.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Field};

use crate::CodecError;
use crate::mix::Mixer;
use crate::tier::{Tier, Written};

/// The hash that [`hash_key`](crate::hash_key) gives for the value in a row of a column written by [`Tier::Flat`](crate::Tier).
///
/// ```
/// use highwater_codec::{Tier, encode, hash_column_row, hash_key};
///
/// let keys = [("eu".to_owned(), 7u64), ("us".to_owned(), 9)];
/// let (field, array) = encode("key", keys.iter().map(Some), &mut Tier::Flat)?;
/// assert_eq!(hash_column_row(&field, &array, 1)?, hash_key(&keys[1])?);
/// # Ok::<(), highwater_codec::CodecError>(())
/// ```
///
/// # Errors
///
/// If there is no such row, or the column (or one nested in it) isn't of a type that the flat tier writes.
pub fn hash_column_row(field: &Field, array: &ArrayRef, row: usize) -> Result<u64, CodecError> {
    let column = || field.name().clone();
    if row >= array.len() {
        return Err(CodecError::NoRow { column: column(), row, rows: array.len() });
    }
    if Written::of(field)?.tier != Tier::Flat {
        let reason = "only columns of the flat tier can be hashed without their Rust type".into();
        return Err(CodecError::Column { column: column(), reason });
    }
    let mut mixer = Mixer::new();
    match mix(&mut mixer, array, row) {
        Ok(()) => Ok(mixer.finish()),
        Err(found) => {
            let reason = format!("the flat tier doesn't write the Arrow type {found}");
            Err(CodecError::Column { column: column(), reason })
        }
    }
}

/// Feeds one value; an Arrow type that the flat tier doesn't write is given back.
fn mix(mixer: &mut Mixer, array: &dyn Array, row: usize) -> Result<(), DataType> {
    if array.is_null(row) {
        mixer.none();
        return Ok(());
    }
    macro_rules! integer {
        ($type:ty) => {
            mixer.word(array.as_primitive::<$type>().value(row) as u64)
        };
    }
    match array.data_type() {
        DataType::Null => mixer.none(),
        DataType::Boolean => mixer.word(u64::from(array.as_boolean().value(row))),
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => integer!(UInt64Type),
        DataType::Float32 => mixer.f32(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => mixer.f64(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => mixer.bytes(array.as_string::<i32>().value(row).as_bytes()),
        DataType::LargeUtf8 => mixer.bytes(array.as_string::<i64>().value(row).as_bytes()),
        DataType::Binary => mixer.bytes(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => mixer.bytes(array.as_binary::<i64>().value(row)),
        DataType::Struct(_) => {
            for child in array.as_struct().columns() {
                mix(mixer, child, row)?;
            }
        }
        other => return Err(other.clone()),
    }
    Ok(())
}
