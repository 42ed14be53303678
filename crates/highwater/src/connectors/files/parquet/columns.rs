//! Which columns the rows of a type become.
//!
//! A type tells by itself: its `Deserialize` is asked with made-up values. Some refuse these, such as dates that read themselves from text; then the
//! first rows of a file tell what there is, and where they have nothing, fields are asked one by one. So a column doesn't depend on whether
//! the first rows had a value there.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use arrow_schema::{DataType, FieldRef};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::Serialize;
use serde_arrow::schema::{SchemaLike, TracingOptions};

use super::shape::{self, Shape};

fn options() -> TracingOptions {
    TracingOptions::default()
        .allow_null_fields(true)
        .map_as_struct(false)
        .enums_without_data_as_strings(true)
        .strings_as_large_utf8(false)
        .bytes_as_large_binary(false)
        .sequence_as_large_list(false)
}

/// The columns of a row type; none if it doesn't tell.
pub(super) fn of_type<T: DeserializeOwned>() -> Option<Vec<FieldRef>> {
    Vec::<FieldRef>::from_type::<T>(options()).ok()
}

/// The columns of rows like these, of a type that doesn't tell.
pub(super) fn of_rows<T: Serialize + DeserializeOwned>(
    rows: &[T],
) -> Result<Vec<FieldRef>, String> {
    let columns = Vec::<FieldRef>::from_samples(rows, options());
    let mut columns = columns.map_err(|error| {
        let why = error.message();
        format!("the columns of a row can't be found ({why}); a column has values of one type: map rows to a struct whose fields have")
    })?;
    let Ok(Shape::Fields(names)) = shape::of::<T>() else { return Ok(columns) };
    let told: Vec<Option<FieldRef>> =
        names.iter().map(|name| of_fields::<T>(std::slice::from_ref(name))).collect();
    for (at, field) in told.iter().enumerate() {
        let Some(field) = field else { continue };
        if let Some(column) = columns.iter_mut().find(|column| column.name() == field.name()) {
            if !is_known(column) {
                *column = field.clone();
            }
            continue;
        }
        // Another name for the same field, which stands beside it; or a field that is left out where it has no value.
        let is_alias = [at.checked_sub(1), Some(at)].into_iter().flatten().any(|one| {
            let both = names.get(one..one + 2);
            both.is_some_and(|both| {
                told[one].is_some() && told[one + 1].is_some() && of_fields::<T>(both).is_none()
            })
        });
        if field.is_nullable() && !is_alias {
            columns.push(field.clone());
        }
    }
    Ok(columns)
}

/// Whether the rows had something there that tells the type, at every depth.
fn is_known(field: &FieldRef) -> bool {
    match field.data_type() {
        DataType::Null => false,
        DataType::List(inner) | DataType::Map(inner, _) => is_known(inner),
        DataType::Struct(fields) => fields.iter().all(is_known),
        _ => true,
    }
}

thread_local! {
    /// Those that [`Only`] asks for.
    static ASKED: Cell<&'static [&'static str]> = const { Cell::new(&[]) };
}

/// What some fields of a type tell, which may refuse made-up values for others.
fn of_fields<T: DeserializeOwned>(fields: &'static [&'static str]) -> Option<FieldRef> {
    ASKED.set(fields);
    let mut columns = Vec::<FieldRef>::from_type::<Only<T>>(options()).ok()?;
    columns.pop()
}

/// A row of which only some fields are read.
struct Only<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Only<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("", ASKED.get(), OnlyVisitor(PhantomData))
    }
}

struct OnlyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyVisitor<T> {
    type Value = Only<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields of a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Only<T>, A::Error> {
        let all_read = Cell::new(false);
        let row = T::deserialize(MapAccessDeserializer::new(Noted { fields, all_read: &all_read }));
        match row {
            // It misses the others.
            Err(error) if !all_read.get() => Err(error),
            _ => Ok(Only(PhantomData)),
        }
    }
}

/// Notes when all fields have been read.
struct Noted<'n, A> {
    fields: A,
    all_read: &'n Cell<bool>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Noted<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let key = self.fields.next_key_seed(seed)?;
        self.all_read.set(key.is_none());
        Ok(key)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.fields.next_value_seed(seed)
    }
}
