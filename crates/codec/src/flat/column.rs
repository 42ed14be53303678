//! Columns under construction: plain vectors, whose Arrow type is that of the first value pushed.
//!
//! Nulls are kept as a list of rows and become a bitmap at the end: a column without nulls, which most are, pays nothing.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, BooleanArray, NullArray, PrimitiveArray, StructArray};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, BooleanBufferBuilder, NullBuffer};
use arrow_schema::{Field, Fields};

use super::NotFlat;
use crate::bytes::{BytesColumn, BytesKind};

/// Columns nested deeper come from a recursive type, whose values would each need other columns. (Arrow's own readers refuse
/// schemas at some depth, too.)
pub(crate) const MAX_DEPTH: usize = 16;

/// A column under construction.
pub(super) enum Column {
    /// Only nulls so far, so that the type is open; `capacity` is how many rows there will be.
    Unset {
        nulls: usize,
        capacity: usize,
        depth: usize,
    },
    Bool(Values<bool>),
    I8(Values<i8>),
    I16(Values<i16>),
    I32(Values<i32>),
    I64(Values<i64>),
    U8(Values<u8>),
    U16(Values<u16>),
    U32(Values<u32>),
    U64(Values<u64>),
    F32(Values<f32>),
    F64(Values<f64>),
    Text(Text),
    Struct(Struct),
}

/// Values of one primitive type.
pub(super) struct Values<V> {
    pub(super) values: Vec<V>,
    nulls: Vec<usize>,
}

/// What serde called the values of a column of bytes. One column holds one of these: an untagged enum could otherwise write a
/// character, and read it back as a string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    Str,
    Char,
    Variant,
    Bytes,
}

/// Strings, or values written like them.
pub(super) struct Text {
    pub(super) kind: TextKind,
    pub(super) bytes: BytesColumn,
}

/// A struct or a tuple.
pub(super) struct Struct {
    /// Of the fields; a tuple has none until [`Column::finish`] numbers them.
    pub(super) names: Vec<&'static str>,
    pub(super) tuple: bool,
    pub(super) children: Vec<Column>,
    pub(super) rows: usize,
    nulls: Vec<usize>,
}

impl<V: Copy + Default> Values<V> {
    fn start(nulls: usize, capacity: usize) -> Self {
        let mut values = Vec::with_capacity(capacity.max(nulls));
        values.resize(nulls, V::default());
        Self { values, nulls: (0..nulls).collect() }
    }

    fn push_null(&mut self) {
        self.nulls.push(self.values.len());
        self.values.push(V::default());
    }

    fn primitive<P: ArrowPrimitiveType<Native = V>>(self) -> ArrayRef
    where
        V: ArrowNativeType,
    {
        let nulls = null_buffer(&self.nulls, self.values.len());
        Arc::new(PrimitiveArray::<P>::new(self.values.into(), nulls))
    }
}

/// The bitmap of a column with these nulls.
pub(crate) fn null_buffer(nulls: &[usize], rows: usize) -> Option<NullBuffer> {
    if nulls.is_empty() {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(rows);
    valid.append_n(rows, true);
    for &row in nulls {
        valid.set_bit(row, false);
    }
    Some(NullBuffer::new(valid.finish()))
}

macro_rules! start {
    ($($method:ident: $type:ty as $variant:ident),* $(,)?) => { $(
        /// Pushes a value onto a column that isn't of its type: onto one without a type, which takes this one, or onto none.
        #[cold]
        pub(super) fn $method(&mut self, value: $type) -> Result<(), NotFlat> {
            let (nulls, capacity) = self.unset()?;
            let mut column = Values::start(nulls, capacity);
            column.values.push(value);
            *self = Self::$variant(column);
            Ok(())
        }
    )* };
}

impl Column {
    pub(super) fn new(capacity: usize) -> Self {
        Self::Unset { nulls: 0, capacity, depth: 0 }
    }

    fn unset(&self) -> Result<(usize, usize), NotFlat> {
        match *self {
            Self::Unset { nulls, capacity, .. } => Ok((nulls, capacity)),
            _ => Err(NotFlat),
        }
    }

    start! {
        start_bool: bool as Bool, start_i8: i8 as I8, start_i16: i16 as I16, start_i32: i32 as I32, start_i64: i64 as I64,
        start_u8: u8 as U8, start_u16: u16 as U16, start_u32: u32 as U32, start_u64: u64 as U64,
        start_f32: f32 as F32, start_f64: f64 as F64,
    }

    /// The bytes of a column of this kind, which a column without a type becomes.
    #[inline]
    pub(super) fn text(&mut self, kind: TextKind) -> Result<&mut BytesColumn, NotFlat> {
        if let Self::Unset { .. } = self {
            self.start_text(kind)?;
        }
        match self {
            Self::Text(text) if text.kind == kind => Ok(&mut text.bytes),
            _ => Err(NotFlat),
        }
    }

    #[cold]
    fn start_text(&mut self, kind: TextKind) -> Result<(), NotFlat> {
        let (nulls, capacity) = self.unset()?;
        let mut bytes = BytesColumn::with_capacity(capacity);
        (0..nulls).for_each(|_| bytes.push_null());
        *self = Self::Text(Text { kind, bytes });
        Ok(())
    }

    /// The struct column with this many fields, which a column without a type becomes.
    #[inline]
    pub(super) fn fields(&mut self, tuple: bool, len: usize) -> Result<&mut Struct, NotFlat> {
        if let Self::Unset { .. } = self {
            self.start_fields(tuple, len)?;
        }
        match self {
            Self::Struct(fields) if fields.tuple == tuple && fields.children.len() == len => {
                Ok(fields)
            }
            _ => Err(NotFlat),
        }
    }

    #[cold]
    fn start_fields(&mut self, tuple: bool, len: usize) -> Result<(), NotFlat> {
        let &mut Self::Unset { nulls, capacity, depth } = self else { return Err(NotFlat) };
        // A tuple without fields would look like a struct without fields.
        if depth == MAX_DEPTH || (tuple && len == 0) {
            return Err(NotFlat);
        }
        let depth = depth + 1;
        *self = Self::Struct(Struct {
            names: Vec::with_capacity(if tuple { 0 } else { len }),
            tuple,
            children: (0..len).map(|_| Self::Unset { nulls, capacity, depth }).collect(),
            rows: nulls,
            nulls: (0..nulls).collect(),
        });
        Ok(())
    }

    pub(super) fn push_null(&mut self) {
        match self {
            Self::Unset { nulls, .. } => *nulls += 1,
            Self::Bool(column) => column.push_null(),
            Self::I8(column) => column.push_null(),
            Self::I16(column) => column.push_null(),
            Self::I32(column) => column.push_null(),
            Self::I64(column) => column.push_null(),
            Self::U8(column) => column.push_null(),
            Self::U16(column) => column.push_null(),
            Self::U32(column) => column.push_null(),
            Self::U64(column) => column.push_null(),
            Self::F32(column) => column.push_null(),
            Self::F64(column) => column.push_null(),
            Self::Text(text) => text.bytes.push_null(),
            Self::Struct(fields) => {
                fields.children.iter_mut().for_each(Self::push_null);
                fields.nulls.push(fields.rows);
                fields.rows += 1;
            }
        }
    }

    pub(super) fn null_count(&self) -> usize {
        match self {
            Self::Unset { nulls, .. } => *nulls,
            Self::Bool(column) => column.nulls.len(),
            Self::I8(column) => column.nulls.len(),
            Self::I16(column) => column.nulls.len(),
            Self::I32(column) => column.nulls.len(),
            Self::I64(column) => column.nulls.len(),
            Self::U8(column) => column.nulls.len(),
            Self::U16(column) => column.nulls.len(),
            Self::U32(column) => column.nulls.len(),
            Self::U64(column) => column.nulls.len(),
            Self::F32(column) => column.nulls.len(),
            Self::F64(column) => column.nulls.len(),
            Self::Text(text) => text.bytes.null_count(),
            Self::Struct(fields) => fields.nulls.len(),
        }
    }

    /// The finished Arrow array.
    pub(super) fn finish(self) -> Result<ArrayRef, NotFlat> {
        Ok(match self {
            Self::Unset { nulls, .. } => Arc::new(NullArray::new(nulls)),
            Self::Bool(Values { values, nulls }) => {
                let nulls = null_buffer(&nulls, values.len());
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Self::I8(column) => column.primitive::<Int8Type>(),
            Self::I16(column) => column.primitive::<Int16Type>(),
            Self::I32(column) => column.primitive::<Int32Type>(),
            Self::I64(column) => column.primitive::<Int64Type>(),
            Self::U8(column) => column.primitive::<UInt8Type>(),
            Self::U16(column) => column.primitive::<UInt16Type>(),
            Self::U32(column) => column.primitive::<UInt32Type>(),
            Self::U64(column) => column.primitive::<UInt64Type>(),
            Self::F32(column) => column.primitive::<Float32Type>(),
            Self::F64(column) => column.primitive::<Float64Type>(),
            Self::Text(Text { kind: TextKind::Bytes, bytes }) => bytes.finish(BytesKind::Binary),
            Self::Text(Text { bytes, .. }) => bytes.finish(BytesKind::Text),
            Self::Struct(fields) => fields.finish()?,
        })
    }
}

impl Struct {
    fn finish(self) -> Result<ArrayRef, NotFlat> {
        let names: Vec<String> = if self.tuple {
            (0..self.children.len()).map(|number| number.to_string()).collect()
        } else {
            self.names.iter().map(ToString::to_string).collect()
        };
        // A struct must not be taken for a tuple by whoever reads the columns alone, and its fields are found by name.
        let numbered = crate::node::are_numbers(names.iter().map(String::as_str));
        let repeated = names.iter().enumerate().any(|(i, name)| names[..i].contains(name));
        if repeated || (numbered && !self.tuple) {
            return Err(NotFlat);
        }
        let arrays: Vec<ArrayRef> =
            self.children.into_iter().map(Column::finish).collect::<Result<_, _>>()?;
        // Every column is nullable, with nulls or not: the schema shouldn't change with the values.
        let fields: Fields = names
            .into_iter()
            .zip(&arrays)
            .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
            .collect();
        let nulls = null_buffer(&self.nulls, self.rows);
        StructArray::try_new_with_length(fields, arrays, nulls, self.rows)
            .map(|array| Arc::new(array) as ArrayRef)
            .map_err(|_| NotFlat)
    }
}
