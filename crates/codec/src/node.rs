//! An Arrow column prepared for reading: a tree of typed buffers, taken apart once so that no row has to ask for types again.
//!
//! It covers what the flat and the general tier write, whichever of them wrote it, and what else is common in files of other tools.

use std::sync::OnceLock;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, LargeBinaryArray, LargeStringArray, StringArray,
};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, Fields, UnionMode};

use crate::foreign::Foreign;

/// One column of the tree.
pub(crate) struct Node {
    nulls: Option<NullBuffer>,
    pub(crate) kind: Kind,
}

/// The values of a column.
pub(crate) enum Kind {
    Null,
    Bool(BooleanArray),
    I8(ScalarBuffer<i8>),
    I16(ScalarBuffer<i16>),
    I32(ScalarBuffer<i32>),
    I64(ScalarBuffer<i64>),
    U8(ScalarBuffer<u8>),
    U16(ScalarBuffer<u16>),
    U32(ScalarBuffer<u32>),
    U64(ScalarBuffer<u64>),
    F32(ScalarBuffer<f32>),
    F64(ScalarBuffer<f64>),
    Text(StringArray),
    LargeText(LargeStringArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    Struct(StructNode),
    List { starts: ScalarBuffer<i64>, items: Box<Node> },
    Map { starts: ScalarBuffer<i64>, keys: Box<Node>, values: Box<Node> },
    Union(UnionNode),
    Foreign(Foreign),
}

/// Named columns side by side.
pub(crate) struct StructNode {
    pub(crate) names: Box<[Box<str>]>,
    pub(crate) children: Box<[Node]>,
    /// All of them, in order.
    pub(crate) all: Box<[usize]>,
    /// Named "0", "1", ..: it was a tuple.
    pub(crate) tuple: bool,
    /// Nulls are fields that weren't written, and are left out on reading.
    pub(crate) omit_nulls: bool,
    wanted: OnceLock<(&'static [&'static str], Box<[usize]>)>,
}

/// The variants of an enum.
pub(crate) struct UnionNode {
    types: ScalarBuffer<i8>,
    offsets: Option<ScalarBuffer<i32>>,
    variants: Box<[(i8, Box<str>, Node)]>,
}

/// Whether names are "0", "1", .., as a tuple's are.
pub(crate) fn are_numbers<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> bool {
    names.len() > 0 && names.enumerate().all(|(number, name)| name == number.to_string())
}

/// A column's path and why it can't be read.
pub(crate) struct Unreadable {
    pub(crate) path: String,
    pub(crate) reason: String,
}

impl Node {
    /// Takes a column apart; `path` names it in errors.
    pub(crate) fn new(path: &str, array: &ArrayRef, omit_nulls: bool) -> Result<Self, Unreadable> {
        let unreadable = |reason: String| Unreadable { path: path.to_owned(), reason };
        let child =
            |name: &str, array: &ArrayRef| Node::new(&format!("{path}.{name}"), array, omit_nulls);
        let kind = match array.data_type() {
            DataType::Null => Kind::Null,
            DataType::Boolean => Kind::Bool(array.as_boolean().clone()),
            DataType::Int8 => Kind::I8(values::<Int8Type>(array)),
            DataType::Int16 => Kind::I16(values::<Int16Type>(array)),
            DataType::Int32 => Kind::I32(values::<Int32Type>(array)),
            DataType::Int64 => Kind::I64(values::<Int64Type>(array)),
            DataType::UInt8 => Kind::U8(values::<UInt8Type>(array)),
            DataType::UInt16 => Kind::U16(values::<UInt16Type>(array)),
            DataType::UInt32 => Kind::U32(values::<UInt32Type>(array)),
            DataType::UInt64 => Kind::U64(values::<UInt64Type>(array)),
            DataType::Float32 => Kind::F32(values::<Float32Type>(array)),
            DataType::Float64 => Kind::F64(values::<Float64Type>(array)),
            DataType::Utf8 => Kind::Text(array.as_string().clone()),
            DataType::LargeUtf8 => Kind::LargeText(array.as_string().clone()),
            DataType::Binary => Kind::Binary(array.as_binary().clone()),
            DataType::LargeBinary => Kind::LargeBinary(array.as_binary().clone()),
            DataType::Struct(fields) => {
                let children = array.as_struct().columns();
                Kind::Struct(StructNode::new(fields, children, omit_nulls, child)?)
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let starts = list.offsets().iter().map(|&start| i64::from(start)).collect();
                Kind::List { starts, items: Box::new(child("item", list.values())?) }
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let starts = list.offsets().inner().clone();
                Kind::List { starts, items: Box::new(child("item", list.values())?) }
            }
            DataType::Map(_, _) => {
                let map = array.as_map();
                Kind::Map {
                    starts: map.offsets().iter().map(|&start| i64::from(start)).collect(),
                    keys: Box::new(child("key", map.keys())?),
                    values: Box::new(child("value", map.values())?),
                }
            }
            DataType::Union(fields, mode) => {
                let union = array.as_union();
                let variants = fields
                    .iter()
                    .map(|(id, field)| {
                        let name = field.name().as_str();
                        Ok((id, name.into(), child(name, union.child(id))?))
                    })
                    .collect::<Result<_, Unreadable>>()?;
                let offsets = match (mode, union.offsets()) {
                    (UnionMode::Dense, None) => {
                        return Err(unreadable("it is a dense union without offsets".into()));
                    }
                    (UnionMode::Dense, Some(offsets)) => Some(offsets.clone()),
                    (UnionMode::Sparse, _) => None,
                };
                Kind::Union(UnionNode { types: union.type_ids().clone(), offsets, variants })
            }
            DataType::Float16 => {
                let values = array.as_primitive::<Float16Type>().values().iter();
                Kind::F32(values.map(|value| value.to_f32()).collect())
            }
            other => match Foreign::new(array) {
                Some(values) => Kind::Foreign(values),
                None => {
                    return Err(unreadable(format!(
                        "its Arrow type {other} isn't one that can be read"
                    )));
                }
            },
        };
        Ok(Self { nulls: array.nulls().cloned(), kind })
    }

    #[inline]
    pub(crate) fn is_null(&self, row: usize) -> bool {
        match &self.nulls {
            Some(nulls) => nulls.is_null(row),
            None => matches!(self.kind, Kind::Null),
        }
    }
}

fn values<P: ArrowPrimitiveType>(array: &ArrayRef) -> ScalarBuffer<P::Native> {
    array.as_primitive::<P>().values().clone()
}

impl StructNode {
    fn new(
        fields: &Fields,
        columns: &[ArrayRef],
        omit_nulls: bool,
        child: impl Fn(&str, &ArrayRef) -> Result<Node, Unreadable>,
    ) -> Result<Self, Unreadable> {
        let names: Box<[Box<str>]> =
            fields.iter().map(|field| field.name().as_str().into()).collect();
        let children = names
            .iter()
            .zip(columns)
            .map(|(name, column)| child(name, column))
            .collect::<Result<Box<[Node]>, _>>()?;
        Ok(Self {
            tuple: are_numbers(names.iter().map(|name| &**name)),
            all: (0..children.len()).collect(),
            names,
            children,
            omit_nulls,
            wanted: OnceLock::new(),
        })
    }

    /// The columns that a struct with these fields reads: the names are compared once for all rows. `None` if the column has
    /// been read as another struct before.
    #[inline]
    pub(crate) fn wanted(&self, fields: &'static [&'static str]) -> Option<&[usize]> {
        let (known, columns) = self.wanted.get_or_init(|| {
            let columns = self.all.iter().copied();
            (fields, columns.filter(|&column| fields.contains(&&*self.names[column])).collect())
        });
        std::ptr::eq(*known, fields).then_some(columns)
    }
}

impl UnionNode {
    /// The variant in a row: its name, its column and the row there.
    pub(crate) fn variant(&self, row: usize) -> Option<(&str, &Node, usize)> {
        let id = *self.types.get(row)?;
        let (_, name, node) = self.variants.iter().find(|(known, ..)| *known == id)?;
        let row = match &self.offsets {
            Some(offsets) => usize::try_from(*offsets.get(row)?).ok()?,
            None => row,
        };
        Some((name, node, row))
    }
}
