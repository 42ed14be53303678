//! From the fields of a record to a row: a serde deserializer.
//!
//! A struct takes its fields from the columns of the same names, a tuple or list takes the columns one after the other, and so does
//! a struct if there is no header. Where a file has a column for every field of a struct the places are looked up
//! once and the struct is read as a sequence; otherwise as a map, so that serde's defaults, aliases and flattening work.

use std::fmt;
use std::sync::Arc;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};

use super::field::Field;
use super::tokens::Record;

/// The names of a file's columns.
pub(crate) type Header = Arc<[String]>;

/// How the columns of one file become a row type.
pub(crate) struct Layout {
    header: Option<Header>,
    /// How a struct is read; found out at the first record.
    order: Order,
}

enum Order {
    Unknown,
    /// The column of each of the struct's fields.
    Columns(Vec<usize>),
    /// By name, record by record.
    Names,
}

impl Layout {
    /// For a file with this header.
    pub(crate) fn new(header: Option<Header>) -> Self {
        Layout { header, order: Order::Unknown }
    }

    /// Whether it is for files with this header.
    pub(crate) fn is_for(&self, header: Option<&Header>) -> bool {
        self.header.as_ref() == header
    }

    /// Reads a row.
    #[inline]
    pub(crate) fn row<T: DeserializeOwned>(&mut self, record: Record<'_>) -> Result<T, CsvError> {
        if let Some(header) = &self.header
            && header.len() != record.len()
        {
            return Err(wrong_length(header.len(), record.len()));
        }
        match T::deserialize(Row { record, layout: self }) {
            Ok(row) => Ok(row),
            Err(error) => self.retry(record, error),
        }
    }

    /// A hand-written `Deserialize` may read a struct from a map only; and reading by name explains more.
    #[cold]
    fn retry<T: DeserializeOwned>(
        &mut self,
        record: Record<'_>,
        error: CsvError,
    ) -> Result<T, CsvError> {
        let error = if matches!(self.order, Order::Columns(_)) {
            let columns = std::mem::replace(&mut self.order, Order::Names);
            match T::deserialize(Row { record, layout: self }) {
                Ok(row) => return Ok(row),
                Err(error) => {
                    self.order = columns;
                    error
                }
            }
        } else {
            error
        };
        Err(self.explain(error))
    }

    fn explain(&self, mut error: CsvError) -> CsvError {
        let CsvError(inner) = &mut error;
        if let Some(column) = inner.column.take() {
            let name = self.header.as_ref().and_then(|header| header.get(column));
            inner.what = match name {
                Some(name) => format!("column `{name}`: {}", inner.what),
                None => format!("column {}: {}", column + 1, inner.what),
            };
        } else if let Some(header) = &self.header {
            inner.what = format!("{} (the header has: {})", inner.what, header.join(", "));
        }
        error
    }
}

#[cold]
fn wrong_length(expected: usize, found: usize) -> CsvError {
    let hint = if found == 1 { "; is the delimiter right?" } else { "" };
    CsvError::new(format!("expected {expected} fields, as in the header, found {found}{hint}"))
}

/// What is wrong with a record.
#[derive(Debug)]
pub(crate) struct CsvError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    /// The column, until it has been put into the text.
    column: Option<usize>,
    what: String,
}

impl CsvError {
    #[cold]
    pub(super) fn new(what: impl Into<String>) -> Self {
        CsvError(Box::new(Inner { column: None, what: what.into() }))
    }

    #[cold]
    fn in_column(mut self, column: usize) -> Self {
        self.0.column.get_or_insert(column);
        self
    }
}

impl fmt::Display for CsvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for CsvError {}

impl de::Error for CsvError {
    #[cold]
    fn custom<M: fmt::Display>(what: M) -> Self {
        CsvError::new(what.to_string())
    }
}

/// One record.
struct Row<'r, 'l> {
    record: Record<'r>,
    layout: &'l mut Layout,
}

impl<'r> Row<'r, '_> {
    /// The one field of a record, for a row that isn't made of fields.
    fn only(&self) -> Result<Field<'r>, CsvError> {
        match (self.record.len(), self.record.get(0)) {
            (1, Some(field)) => Ok(Field(field)),
            (found, _) => Err(CsvError::new(format!(
                "expected one field, found {found}: is the row a struct?"
            ))),
        }
    }

    fn sequence(&self) -> Sequence<'r, std::ops::Range<usize>> {
        Sequence { record: self.record, columns: 0..self.record.len() }
    }
}

macro_rules! only {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
            self.only()?.$method(visitor)
        }
    )* };
}

impl<'r> Deserializer<'r> for Row<'r, '_> {
    type Error = CsvError;

    only!(deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128);
    only!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32);
    only!(deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes);
    only!(deserialize_byte_buf deserialize_option deserialize_identifier);

    fn deserialize_any<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        if self.layout.header.is_some() {
            self.deserialize_map(visitor)
        } else {
            self.deserialize_seq(visitor)
        }
    }

    fn deserialize_unit<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'r>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CsvError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'r>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CsvError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        visitor.visit_seq(self.sequence())
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'r>>(self, _: usize, visitor: V) -> Result<V::Value, CsvError> {
        visitor.visit_seq(self.sequence())
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'r>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, CsvError> {
        visitor.visit_seq(self.sequence())
    }

    fn deserialize_map<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        match self.layout.header.clone() {
            Some(header) => {
                visitor.visit_map(Map { record: self.record, header: &header, next: 0 })
            }
            None => Err(CsvError::new(
                "without a header the columns have no names: read them into a tuple, a list or a plain struct",
            )),
        }
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'r>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CsvError> {
        let Some(header) = &self.layout.header else {
            return visitor.visit_seq(self.sequence());
        };
        if matches!(self.layout.order, Order::Unknown) {
            self.layout.order = find_columns(header, fields);
        }
        match &self.layout.order {
            Order::Columns(columns) => visitor
                .visit_seq(Sequence { record: self.record, columns: columns.iter().copied() }),
            _ => visitor.visit_map(Map { record: self.record, header, next: 0 }),
        }
    }

    fn deserialize_enum<V: Visitor<'r>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CsvError> {
        self.only()?.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        visitor.visit_unit()
    }
}

/// The column of every field, if each has just one.
#[cold]
fn find_columns(header: &[String], fields: &[&str]) -> Order {
    let column = |field: &&str| {
        let mut columns = header.iter().enumerate().filter(|(_, name)| name == field);
        match (columns.next(), columns.next()) {
            (Some((column, _)), None) => Some(column),
            _ => None,
        }
    };
    fields.iter().map(column).collect::<Option<Vec<usize>>>().map_or(Order::Names, Order::Columns)
}

/// Some columns, one after the other.
struct Sequence<'r, I> {
    record: Record<'r>,
    columns: I,
}

impl<'r, I: Iterator<Item = usize>> SeqAccess<'r> for Sequence<'r, I> {
    type Error = CsvError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'r>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CsvError> {
        let Some(column) = self.columns.next() else { return Ok(None) };
        let Some(field) = self.record.get(column) else { return Ok(None) };
        match seed.deserialize(Field(field)) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(error.in_column(column)),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.columns.size_hint().1
    }
}

/// All columns with their names.
struct Map<'r, 'h> {
    record: Record<'r>,
    header: &'h [String],
    next: usize,
}

impl<'r> MapAccess<'r> for Map<'r, '_> {
    type Error = CsvError;

    fn next_key_seed<S: DeserializeSeed<'r>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CsvError> {
        match self.header.get(self.next) {
            Some(name) => seed.deserialize(name.as_str().into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'r>>(&mut self, seed: S) -> Result<S::Value, CsvError> {
        let column = self.next;
        self.next += 1;
        let field = self.record.get(column).unwrap_or_default();
        seed.deserialize(Field(field)).map_err(|error| error.in_column(column))
    }
}
