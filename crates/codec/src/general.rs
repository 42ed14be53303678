//! The general tier: lists, maps and enums with data as real columns, through `serde_arrow`.
//!
//! Which values survive that depends on all of them together (a map of mixed values has no column type, a field left out looks
//! like one that is null), so nothing is assumed: every row is read back and its fingerprint compared, and a column that
//! changes any of them isn't used.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, make_array};
use arrow_data::ArrayData;
use arrow_schema::{DataType, FieldRef, Fields};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_arrow::schema::{SchemaLike, TracingOptions};
use serde_arrow::utils::Items;

use crate::CodecError;
use crate::cursor::Cursor;
use crate::flat::MAX_DEPTH;
use crate::hash::{Fingerprint, fingerprint};
use crate::node::Node;

/// More columns than this come from map keys taken for field names, and would differ from one checkpoint to the next.
const MAX_COLUMNS: usize = 256;

/// A column that gives back all rows.
pub(crate) struct General {
    pub(crate) array: ArrayRef,
    /// Nulls in structs are fields that weren't written.
    pub(crate) omit_nulls: bool,
    /// The values are a field of the column, because their own type has no null to spare for rows without one.
    pub(crate) boxed: bool,
    /// How many rows are null at the top level.
    pub(crate) nulls: usize,
}

/// A row with a null of its own, for values whose Arrow type has none to spare: enums (unions), `()`, and values of `None`.
#[derive(Serialize)]
struct Boxed<'v, T> {
    value: &'v T,
}

/// A column of these rows, or `None` if none gives all of them back.
pub(crate) fn encode<'a, T: Serialize + DeserializeOwned + 'a>(
    rows: impl Iterator<Item = Option<&'a T>> + Clone,
) -> Result<Option<General>, CodecError> {
    let expected = rows
        .clone()
        .map(|row| row.map(fingerprint).transpose())
        .collect::<Result<Vec<_>, CodecError>>()?;
    let rows: Vec<Option<&T>> = rows.collect();
    if expected.iter().flatten().any(|row| row.nested_nil) {
        return Ok(None);
    }
    let absent = expected.iter().filter(|row| row.is_none()).count();
    // Maps of any keys first. Only what has no column as a map is taken for fields: flattened structs, JSON objects.
    for map_as_struct in [false, true] {
        let plain = columns(&rows, map_as_struct).filter(|array| has_nulls(array.data_type()));
        if let Some(array) = plain {
            match verify::<T>(array, &expected, false) {
                // Nulls that are values among rows without one need a null more.
                Some(found) if absent == 0 || found.nulls == absent => return Ok(Some(found)),
                Some(_) => {}
                None => continue,
            }
        }
        let rows: Vec<_> = rows.iter().map(|row| row.map(|value| Boxed { value })).collect();
        let boxed = columns(&rows, map_as_struct);
        if let Some(found) = boxed.and_then(|array| verify::<T>(array, &expected, true)) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether a null of this type can be told from its values.
fn has_nulls(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Union(..) | DataType::Null)
}

/// The values of a column of [`Boxed`] rows.
pub(crate) fn unboxed(array: &ArrayRef) -> Option<&ArrayRef> {
    array.as_struct_opt()?.columns().first()
}

fn columns<T: Serialize>(rows: &[Option<T>], map_as_struct: bool) -> Option<ArrayRef> {
    let options = TracingOptions::default()
        .allow_null_fields(true)
        .map_as_struct(map_as_struct)
        .coerce_numbers(true)
        .enums_without_data_as_strings(true)
        .strings_as_large_utf8(false)
        .bytes_as_large_binary(false)
        .sequence_as_large_list(false);
    let fields = Vec::<FieldRef>::from_samples(Items(rows), options).ok()?;
    let [field] = fields.as_slice() else { return None };
    let (width, depth) = extent(field.data_type());
    if width > MAX_COLUMNS || depth > MAX_DEPTH {
        return None;
    }
    let field = settled(field);
    let array = serde_arrow::to_arrow(std::slice::from_ref(&field), Items(rows)).ok()?.pop()?;
    let data = retyped(array.to_data(), field.data_type())?;
    // What would be refused on reading the file must not be written.
    let sound = array.len() == rows.len() && data.validate_full().is_ok();
    sound.then(|| make_array(data))
}

/// The same data under types that differ in what is nullable.
fn retyped(data: ArrayData, data_type: &DataType) -> Option<ArrayData> {
    let fields: Vec<&FieldRef> = match data_type {
        DataType::Struct(fields) => fields.iter().collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field).collect(),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => vec![item],
        _ => return Some(data),
    };
    let children = data.child_data().iter().zip(fields);
    let children = children
        .map(|(child, field)| retyped(child.clone(), field.data_type()))
        .collect::<Option<Vec<_>>>()?;
    data.into_builder().data_type(data_type.clone()).child_data(children).build().ok()
}

/// The field with everything in it nullable that may be: a null value has null fields, and Arrow counts a variant without data
/// as a null, neither of which `serde_arrow` declares. (And the schema shouldn't change with the values.) The names of enums
/// without data are plain strings, as in the flat tier.
fn settled(field: &FieldRef) -> FieldRef {
    let all = |fields: &Fields| fields.iter().map(settled).collect();
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(all(fields)),
        DataType::List(item) => DataType::List(settled(item)),
        DataType::LargeList(item) => DataType::LargeList(settled(item)),
        DataType::Union(fields, mode) => {
            DataType::Union(fields.iter().map(|(id, field)| (id, settled(field))).collect(), *mode)
        }
        // Arrow allows no nulls among entries and keys.
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                let pair = Fields::from(vec![pair[0].clone(), settled(&pair[1])]);
                let entries = entries.as_ref().clone().with_data_type(DataType::Struct(pair));
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => return field.clone(),
        },
        DataType::Dictionary(_, names) => names.as_ref().clone(),
        other => other.clone(),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type).with_nullable(true))
}

/// The number of leaf columns, and of levels above the deepest one.
fn extent(data_type: &DataType) -> (usize, usize) {
    let around = |fields: &mut dyn Iterator<Item = &FieldRef>| {
        let (width, depth) = fields.fold((0, 0), |(width, depth), field| {
            let (inner_width, inner_depth) = extent(field.data_type());
            (width + inner_width, depth.max(inner_depth))
        });
        (width, depth + 1)
    };
    match data_type {
        DataType::Struct(fields) => around(&mut fields.iter()),
        DataType::Union(fields, _) => around(&mut fields.iter().map(|(_, field)| field)),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => {
            around(&mut std::iter::once(item))
        }
        _ => (1, 0),
    }
}

/// The column, if every row comes back from it as it was, and those without a value as nulls.
fn verify<T: Serialize + DeserializeOwned>(
    array: ArrayRef,
    expected: &[Option<Fingerprint>],
    boxed: bool,
) -> Option<General> {
    for omit_nulls in [false, true] {
        let values = if boxed { unboxed(&array)? } else { &array };
        let node = Node::new("", values, omit_nulls).ok()?;
        let is_null = |row| if boxed { array.is_null(row) } else { node.is_null(row) };
        let comes_back = |row, expected: &Option<Fingerprint>| match expected {
            None => is_null(row),
            Some(expected) => T::deserialize(Cursor { node: &node, row })
                .is_ok_and(|value| fingerprint(&value).is_ok_and(|back| back == *expected)),
        };
        if expected.iter().enumerate().all(|(row, expected)| comes_back(row, expected)) {
            let nulls = (0..expected.len()).filter(|&row| is_null(row)).count();
            return Some(General { array, omit_nulls, boxed, nulls });
        }
    }
    None
}
