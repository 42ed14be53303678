//! From a row to a line of CSV: a serde serializer.
//!
//! A row is a struct or a tuple of plain values, or one plain value. Quotes are written where they are needed, as crate `csv` does.

use std::fmt::{self, Write as _};

use highwater_codec::refuse;
use memchr::memchr3;
use serde::Serialize;
use serde::ser::{self, SerializeStruct, SerializeTuple, SerializeTupleStruct, Serializer};

/// Appends a row as a line.
///
/// # Errors
///
/// If the row isn't made of plain values.
#[inline]
pub(crate) fn write_row<T: Serialize>(
    row: &T,
    delimiter: u8,
    out: &mut Vec<u8>,
) -> Result<(), NotCsv> {
    let start = out.len();
    row.serialize(Line { out, delimiter, names: false })?;
    // One empty field would be an empty line, which is no record.
    if out.len() == start {
        out.extend_from_slice(b"\"\"");
    }
    out.push(b'\n');
    Ok(())
}

/// The header line for rows like this one; empty if its fields have no names.
///
/// # Errors
///
/// If the row isn't made of plain values.
pub(crate) fn header<T: Serialize>(row: &T, delimiter: u8) -> Result<Vec<u8>, NotCsv> {
    let mut out = Vec::new();
    row.serialize(Line { out: &mut out, delimiter, names: true })?;
    if !out.is_empty() {
        out.push(b'\n');
    }
    Ok(out)
}

/// What is refused in a row and in a field.
const MAP: &str = "a map (or has `#[serde(flatten)]`)";
const VARIANT: &str = "an enum variant with data";

/// Why a row can't be written as CSV.
#[derive(Debug)]
pub(crate) struct NotCsv(Box<str>);

impl NotCsv {
    #[cold]
    fn row(what: &str) -> Self {
        let text = format!(
            "a CSV row is a struct or a tuple of plain values, and this one is {what}; \
             map it to a plain struct, or write NDJSON"
        );
        NotCsv(text.into())
    }

    #[cold]
    fn field(what: &str) -> Self {
        let text = format!(
            "a CSV field is a plain value, and this one is {what}; give it columns of its own, or write NDJSON"
        );
        NotCsv(text.into())
    }
}

impl fmt::Display for NotCsv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotCsv {}

impl ser::Error for NotCsv {
    #[cold]
    fn custom<M: fmt::Display>(what: M) -> Self {
        NotCsv(what.to_string().into())
    }
}

/// A whole row.
struct Line<'o> {
    out: &'o mut Vec<u8>,
    delimiter: u8,
    /// Write the fields' names instead of their values.
    names: bool,
}

impl<'o> Line<'o> {
    fn fields(self) -> Fields<'o> {
        Fields { line: self, first: true }
    }

    /// A row that is one value.
    #[inline]
    fn only<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotCsv> {
        if self.names {
            return Ok(());
        }
        value.serialize(Cell { out: self.out, delimiter: self.delimiter })
    }
}

/// The fields of a row.
struct Fields<'o> {
    line: Line<'o>,
    first: bool,
}

impl Fields<'_> {
    #[inline]
    fn separate(&mut self) {
        if !self.first {
            self.line.out.push(self.line.delimiter);
        }
        self.first = false;
    }

    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotCsv> {
        if self.line.names {
            return Ok(());
        }
        self.separate();
        value.serialize(Cell { out: self.line.out, delimiter: self.line.delimiter })
    }

    fn name(&mut self, name: &str) {
        self.separate();
        write_text(name.as_bytes(), self.line.delimiter, self.line.out);
    }
}

impl SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = NotCsv;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NotCsv> {
        if self.line.names {
            self.name(name);
            return Ok(());
        }
        self.value(value)
    }

    /// Left out by the type, but the columns behind it stay where they are.
    fn skip_field(&mut self, name: &'static str) -> Result<(), NotCsv> {
        if self.line.names {
            self.name(name);
        } else {
            self.separate();
        }
        Ok(())
    }

    #[inline]
    fn end(self) -> Result<(), NotCsv> {
        Ok(())
    }
}

impl SerializeTuple for Fields<'_> {
    type Ok = ();
    type Error = NotCsv;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotCsv> {
        self.value(value)
    }

    fn end(self) -> Result<(), NotCsv> {
        Ok(())
    }
}

impl SerializeTupleStruct for Fields<'_> {
    type Ok = ();
    type Error = NotCsv;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotCsv> {
        self.value(value)
    }

    fn end(self) -> Result<(), NotCsv> {
        Ok(())
    }
}

impl ser::SerializeSeq for Fields<'_> {
    type Ok = ();
    type Error = NotCsv;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotCsv> {
        self.value(value)
    }

    fn end(self) -> Result<(), NotCsv> {
        Ok(())
    }
}

macro_rules! only {
    ($($method:ident: $type:ty),* $(,)?) => { $(
        #[inline]
        fn $method(self, value: $type) -> Result<(), NotCsv> {
            self.only(&value)
        }
    )* };
}

impl<'o> Serializer for Line<'o> {
    type Ok = ();
    type Error = NotCsv;
    type SerializeSeq = Fields<'o>;
    type SerializeTuple = Fields<'o>;
    type SerializeTupleStruct = Fields<'o>;
    type SerializeStruct = Fields<'o>;

    only! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_f32: f32, serialize_f64: f64, serialize_char: char, serialize_str: &str,
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), NotCsv> {
        if !self.names {
            write_text(value, self.delimiter, self.out);
        }
        Ok(())
    }

    fn serialize_none(self) -> Result<(), NotCsv> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotCsv> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NotCsv> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NotCsv> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), NotCsv> {
        self.only(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotCsv> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Fields<'o>, NotCsv> {
        Ok(self.fields())
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Fields<'o>, NotCsv> {
        Ok(self.fields())
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Fields<'o>, NotCsv> {
        Ok(self.fields())
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'o>, NotCsv> {
        Ok(self.fields())
    }

    refuse! {
        NotCsv: map => NotCsv::row(MAP), variant => NotCsv::row(VARIANT),
    }
}

/// One field.
struct Cell<'o> {
    out: &'o mut Vec<u8>,
    delimiter: u8,
}

impl Cell<'_> {
    /// As short as reads back the same: `0.1`, `1.0`, `1e300`.
    fn float(self, value: impl fmt::Debug) -> Result<(), NotCsv> {
        self.collect_str(&format_args!("{value:?}"))
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),* $(,)?) => { $(
        #[inline]
        fn $method(self, value: $type) -> Result<(), NotCsv> {
            self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            Ok(())
        }
    )* };
}

impl Serializer for Cell<'_> {
    type Ok = ();
    type Error = NotCsv;

    integers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
    }

    fn serialize_bool(self, value: bool) -> Result<(), NotCsv> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), NotCsv> {
        self.float(value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), NotCsv> {
        self.float(value)
    }

    fn serialize_char(self, value: char) -> Result<(), NotCsv> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), NotCsv> {
        write_text(value.as_bytes(), self.delimiter, self.out);
        Ok(())
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), NotCsv> {
        let mut text = String::new();
        write!(text, "{value}").map_err(|_| NotCsv::field("a value that can't be printed"))?;
        self.serialize_str(&text)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), NotCsv> {
        write_text(value, self.delimiter, self.out);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), NotCsv> {
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotCsv> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NotCsv> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NotCsv> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), NotCsv> {
        self.serialize_str(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotCsv> {
        value.serialize(self)
    }

    refuse! {
        NotCsv: seq => NotCsv::field("a list"), tuple => NotCsv::field("a tuple"), record => NotCsv::field("a struct"),
        map => NotCsv::field(MAP), variant => NotCsv::field(VARIANT),
    }
}

/// Appends text, in quotes if it needs them.
#[inline]
fn write_text(text: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    let plain = memchr3(b'"', b'\n', delimiter, text).is_none() && !text.contains(&b'\r');
    if plain {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for part in text.split_inclusive(|byte| *byte == b'"') {
        out.extend_from_slice(part);
        if part.ends_with(b"\"") {
            out.push(b'"');
        }
    }
    out.push(b'"');
}
