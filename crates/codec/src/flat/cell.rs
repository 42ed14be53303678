//! One cell to be written: the serde serializer that pushes a value onto a [`Column`].

use std::fmt::{self, Write as _};

use serde::ser::{
    self, Serialize, SerializeStruct, SerializeTuple, SerializeTupleStruct, Serializer,
};

use super::column::{Column, Struct, TextKind};

/// The value has no fixed shape, or not that of the rows before it (or its `Serialize` failed, which another tier will report).
/// It carries nothing, so that the results of the hot path are one byte.
#[derive(Debug)]
pub(crate) struct NotFlat;

impl fmt::Display for NotFlat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not flat")
    }
}

impl std::error::Error for NotFlat {}

impl ser::Error for NotFlat {
    #[cold]
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self
    }
}

/// Where one value goes.
pub(super) struct Cell<'c> {
    column: &'c mut Column,
    /// Directly inside `Some`, where a second null couldn't be told from the first.
    inside_some: bool,
}

impl<'c> Cell<'c> {
    #[inline]
    pub(super) fn new(column: &'c mut Column) -> Self {
        Self { column, inside_some: false }
    }

    #[inline]
    fn text(self, kind: TextKind, bytes: &[u8]) -> Result<(), NotFlat> {
        self.column.text(kind)?.push(bytes);
        Ok(())
    }

    #[inline]
    fn fields(self, tuple: bool, len: usize) -> Result<Row<'c>, NotFlat> {
        Ok(Row { fields: self.column.fields(tuple, len)?, next: 0 })
    }
}

macro_rules! primitives {
    ($($method:ident: $type:ty as $variant:ident or $start:ident),* $(,)?) => { $(
        #[inline]
        fn $method(self, value: $type) -> Result<(), NotFlat> {
            if let Column::$variant(column) = self.column {
                column.values.push(value);
                Ok(())
            } else {
                self.column.$start(value)
            }
        }
    )* };
}

impl<'c> Serializer for Cell<'c> {
    type Ok = ();
    type Error = NotFlat;
    type SerializeTuple = Row<'c>;
    type SerializeTupleStruct = Row<'c>;
    type SerializeStruct = Row<'c>;

    primitives! {
        serialize_bool: bool as Bool or start_bool,
        serialize_i8: i8 as I8 or start_i8,
        serialize_i16: i16 as I16 or start_i16,
        serialize_i32: i32 as I32 or start_i32,
        serialize_i64: i64 as I64 or start_i64,
        serialize_u8: u8 as U8 or start_u8,
        serialize_u16: u16 as U16 or start_u16,
        serialize_u32: u32 as U32 or start_u32,
        serialize_u64: u64 as U64 or start_u64,
        serialize_f32: f32 as F32 or start_f32,
        serialize_f64: f64 as F64 or start_f64,
    }

    fn serialize_char(self, value: char) -> Result<(), NotFlat> {
        self.text(TextKind::Char, value.encode_utf8(&mut [0; 4]).as_bytes())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), NotFlat> {
        self.text(TextKind::Str, value.as_bytes())
    }

    /// Dates and the like are written straight into the column.
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), NotFlat> {
        struct Text<'t>(&'t mut Vec<u8>);
        impl fmt::Write for Text<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
        let bytes = self.column.text(TextKind::Str)?;
        write!(Text(bytes.writer()), "{value}").map_err(|fmt::Error| NotFlat)?;
        bytes.end_row();
        Ok(())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), NotFlat> {
        self.text(TextKind::Bytes, value)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), NotFlat> {
        if self.inside_some {
            return Err(NotFlat);
        }
        self.column.push_null();
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotFlat> {
        value.serialize(Cell { column: self.column, inside_some: true })
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), NotFlat> {
        self.text(TextKind::Variant, variant.as_bytes())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotFlat> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Row<'c>, NotFlat> {
        self.fields(true, len)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Row<'c>, NotFlat> {
        self.fields(true, len)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Row<'c>, NotFlat> {
        self.fields(false, len)
    }

    crate::refuse! {
        NotFlat: wide => NotFlat, unit => NotFlat, seq => NotFlat, map => NotFlat, variant => NotFlat,
    }
}

/// The fields of one struct or tuple, in the order of the columns.
pub(super) struct Row<'c> {
    fields: &'c mut Struct,
    next: usize,
}

impl Row<'_> {
    #[inline]
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotFlat> {
        let column = self.fields.children.get_mut(self.next).ok_or(NotFlat)?;
        self.next += 1;
        value.serialize(Cell::new(column))
    }

    /// A name given by the first row binds the others.
    #[inline]
    fn check_name(&mut self, name: &'static str) -> Result<(), NotFlat> {
        match self.fields.names.get(self.next) {
            // Mostly it's the very same constant, and comparing addresses is enough.
            Some(known) if std::ptr::eq(*known, name) || *known == name => Ok(()),
            Some(_) => Err(NotFlat),
            None => {
                self.fields.names.push(name);
                Ok(())
            }
        }
    }

    #[inline]
    fn finish(self) -> Result<(), NotFlat> {
        if self.next != self.fields.children.len() {
            return Err(NotFlat);
        }
        self.fields.rows += 1;
        Ok(())
    }
}

impl SerializeStruct for Row<'_> {
    type Ok = ();
    type Error = NotFlat;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NotFlat> {
        self.check_name(name)?;
        self.push(value)
    }

    /// A field that may be left out has no place in columns of fixed shape.
    fn skip_field(&mut self, _: &'static str) -> Result<(), NotFlat> {
        Err(NotFlat)
    }

    #[inline]
    fn end(self) -> Result<(), NotFlat> {
        self.finish()
    }
}

impl SerializeTuple for Row<'_> {
    type Ok = ();
    type Error = NotFlat;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotFlat> {
        self.push(value)
    }

    #[inline]
    fn end(self) -> Result<(), NotFlat> {
        self.finish()
    }
}

impl SerializeTupleStruct for Row<'_> {
    type Ok = ();
    type Error = NotFlat;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotFlat> {
        self.push(value)
    }

    #[inline]
    fn end(self) -> Result<(), NotFlat> {
        self.finish()
    }
}
