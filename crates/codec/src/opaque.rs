//! The opaque tier: one binary column of MessagePack with named fields, for whatever has no columns.
//!
//! MessagePack has no mark for `Some`, so `Some(None)` and `Some(())` would come back as `None`. A column with such a value is
//! written with every `Some` as a list of one, and says so in its metadata.

use arrow_array::ArrayRef;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::CodecError;
use crate::bytes::{BytesColumn, BytesKind};
use crate::hash::fingerprint;
use crate::wrapped;

/// How `Some` is written in a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Somes {
    /// As what it holds.
    Bare,
    /// As a list of one.
    Wrapped,
}

/// The column of these rows, and how it was written.
pub(crate) fn encode<'a, T: Serialize + DeserializeOwned + 'a>(
    rows: impl ExactSizeIterator<Item = Option<&'a T>> + Clone,
) -> Result<(ArrayRef, Somes), CodecError> {
    let mut somes = Somes::Bare;
    for value in rows.clone().flatten() {
        if fingerprint(value)?.nested_nil {
            somes = Somes::Wrapped;
            break;
        }
    }
    let mut column = BytesColumn::with_capacity(rows.len());
    for row in rows {
        let Some(value) = row else {
            column.push_null();
            continue;
        };
        let start = column.writer().len();
        write(column.writer(), value, somes).map_err(|error| CodecError::Serialize {
            type_name: std::any::type_name::<T>(),
            reason: error.to_string(),
        })?;
        // A list around `Some` isn't what every type expects, and serde can't say which do: look.
        if cfg!(debug_assertions) || somes == Somes::Wrapped {
            verify(value, &column.writer()[start..], somes)?;
        }
        column.end_row();
    }
    Ok((column.finish(BytesKind::Binary), somes))
}

fn write<T: Serialize>(
    bytes: &mut Vec<u8>,
    value: &T,
    somes: Somes,
) -> Result<(), rmp_serde::encode::Error> {
    let mut serializer = rmp_serde::Serializer::new(bytes).with_struct_map();
    match somes {
        Somes::Bare => value.serialize(&mut serializer),
        Somes::Wrapped => value.serialize(wrapped::Writing(&mut serializer)),
    }
}

/// Reads one value back.
pub(crate) fn read<T: DeserializeOwned>(
    bytes: &[u8],
    somes: Somes,
) -> Result<T, rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    match somes {
        Somes::Bare => T::deserialize(&mut deserializer),
        Somes::Wrapped => T::deserialize(wrapped::Reading(&mut deserializer)),
    }
}

fn verify<T: Serialize + DeserializeOwned>(
    value: &T,
    bytes: &[u8],
    somes: Somes,
) -> Result<(), CodecError> {
    let type_name = std::any::type_name::<T>();
    match read::<T>(bytes, somes) {
        Ok(back) if fingerprint(&back)? == fingerprint(value)? => Ok(()),
        Ok(_) => Err(CodecError::NoRoundTrip {
            type_name,
            reason: "it comes back as another value".into(),
        }),
        Err(error) => Err(CodecError::NoRoundTrip { type_name, reason: error.to_string() }),
    }
}
