//! One value in a column, as a serde deserializer.
//!
//! What is stored decides which visitor method is called, and the type asked for decides what it makes of that: this is how an
//! integer widens, a field becomes optional, and an untagged enum finds its variant. Only where the same column can stand for
//! several things (a map or a struct, a string or an enum) the type's own request is followed.

use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::foreign::Foreign;
use crate::node::{Kind, Node, StructNode};

/// Why a value can't be read, with the path of fields to it. Boxed, so that results on the way of success stay small.
#[derive(Debug)]
pub(crate) struct ReadError(Box<(String, String)>);

impl ReadError {
    #[cold]
    fn within(mut self, name: &str) -> Self {
        let path = &mut self.0.0;
        *path = if path.is_empty() { name.to_owned() } else { format!("{name}.{path}") };
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, reason) = &*self.0;
        if path.is_empty() { f.write_str(reason) } else { write!(f, "in `{path}`: {reason}") }
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    #[cold]
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self(Box::new((String::new(), message.to_string())))
    }
}

/// A row of a column.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'c> {
    pub(crate) node: &'c Node,
    pub(crate) row: usize,
}

impl<'c> Cursor<'c> {
    fn text(self) -> Option<&'c str> {
        match &self.node.kind {
            Kind::Text(texts) => Some(texts.value(self.row)),
            Kind::LargeText(texts) => Some(texts.value(self.row)),
            _ => None,
        }
    }

    fn items(self, starts: &[i64], items: &'c Node) -> Result<Items<'c>, ReadError> {
        let (next, end) = range(starts, self.row)?;
        Ok(Items { items, next, end })
    }

    fn entries(
        self,
        starts: &[i64],
        keys: &'c Node,
        values: &'c Node,
    ) -> Result<Entries<'c>, ReadError> {
        let (next, end) = range(starts, self.row)?;
        Ok(Entries { keys, values, next, end })
    }

    #[inline]
    fn fields(self, node: &'c StructNode, columns: &'c [usize]) -> FieldsOf<'c> {
        FieldsOf { node, columns, row: self.row, only: None, current: 0 }
    }

    fn elements(self, node: &'c StructNode) -> Elements<'c> {
        Elements { children: &node.children, row: self.row, next: 0 }
    }

    fn variant(self) -> Result<Option<Variant<'c>>, ReadError> {
        let Kind::Union(union) = &self.node.kind else { return Ok(None) };
        let (name, node, row) = union
            .variant(self.row)
            .ok_or_else(|| de::Error::custom("the union has no such variant"))?;
        Ok(Some(Variant { name, content: Cursor { node, row } }))
    }
}

fn range(starts: &[i64], row: usize) -> Result<(usize, usize), ReadError> {
    let at = |index: usize| starts.get(index).and_then(|&start| usize::try_from(start).ok());
    at(row).zip(at(row + 1)).ok_or_else(|| de::Error::custom("the list has no such row"))
}

macro_rules! scalars {
    ($($method:ident: $visit:ident of $variant:ident),* $(,)?) => { $(
        #[inline]
        fn $method<V: Visitor<'c>>(self, visitor: V) -> Result<V::Value, ReadError> {
            match &self.node.kind {
                Kind::$variant(values) if !self.node.is_null(self.row) => visitor.$visit(values[self.row]),
                Kind::Foreign(values) if !self.node.is_null(self.row) => values.number(self.row, visitor),
                _ => self.deserialize_any(visitor),
            }
        }
    )* };
}

impl<'c> Deserializer<'c> for Cursor<'c> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'c>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let row = self.row;
        if self.node.is_null(row) {
            return visitor.visit_unit();
        }
        match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(values) => visitor.visit_bool(values.value(row)),
            Kind::I8(values) => visitor.visit_i8(values[row]),
            Kind::I16(values) => visitor.visit_i16(values[row]),
            Kind::I32(values) => visitor.visit_i32(values[row]),
            Kind::I64(values) => visitor.visit_i64(values[row]),
            Kind::U8(values) => visitor.visit_u8(values[row]),
            Kind::U16(values) => visitor.visit_u16(values[row]),
            Kind::U32(values) => visitor.visit_u32(values[row]),
            Kind::U64(values) => visitor.visit_u64(values[row]),
            Kind::F32(values) => visitor.visit_f32(values[row]),
            Kind::F64(values) => visitor.visit_f64(values[row]),
            Kind::Text(values) => visitor.visit_borrowed_str(values.value(row)),
            Kind::LargeText(values) => visitor.visit_borrowed_str(values.value(row)),
            Kind::Binary(values) => visitor.visit_borrowed_bytes(values.value(row)),
            Kind::LargeBinary(values) => visitor.visit_borrowed_bytes(values.value(row)),
            Kind::Struct(node) if node.tuple => visitor.visit_seq(self.elements(node)),
            Kind::Struct(node) => visitor.visit_map(self.fields(node, &node.all)),
            Kind::List { starts, items } => visitor.visit_seq(self.items(starts, items)?),
            Kind::Map { starts, keys, values } => {
                visitor.visit_map(self.entries(starts, keys, values)?)
            }
            Kind::Foreign(values @ Foreign::Decimal { .. }) => values.text(row, visitor),
            Kind::Foreign(values) => values.number(row, visitor),
            // As self-describing formats write it: untagged enums know that form, and no other.
            Kind::Union(_) => match self.variant()? {
                Some(Variant { name, content }) if matches!(content.node.kind, Kind::Null) => {
                    visitor.visit_borrowed_str(name)
                }
                Some(variant) => visitor.visit_map(Tagged(Some(variant))),
                None => visitor.visit_unit(),
            },
        }
    }

    scalars! {
        deserialize_i8: visit_i8 of I8, deserialize_i16: visit_i16 of I16,
        deserialize_i32: visit_i32 of I32, deserialize_i64: visit_i64 of I64,
        deserialize_u8: visit_u8 of U8, deserialize_u16: visit_u16 of U16,
        deserialize_u32: visit_u32 of U32, deserialize_u64: visit_u64 of U64,
        deserialize_f32: visit_f32 of F32, deserialize_f64: visit_f64 of F64,
    }

    /// The general tier writes a character as its number.
    fn deserialize_char<V: Visitor<'c>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::U32(values) if !self.node.is_null(self.row) => {
                match char::from_u32(values[self.row]) {
                    Some(character) => visitor.visit_char(character),
                    None => visitor.visit_u32(values[self.row]),
                }
            }
            _ => self.deserialize_any(visitor),
        }
    }

    #[inline]
    fn deserialize_option<V: Visitor<'c>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.node.is_null(self.row) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'c>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    /// A tuple of more elements than asked for is refused: nothing says which of them were meant.
    #[inline]
    fn deserialize_tuple<V: Visitor<'c>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::Struct(node) if node.tuple && !self.node.is_null(self.row) => {
                let stored = node.children.len();
                if stored > len {
                    return Err(de::Error::invalid_length(stored, &visitor));
                }
                visitor.visit_seq(self.elements(node))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'c>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'c>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::Struct(node) if !self.node.is_null(self.row) => {
                visitor.visit_map(self.fields(node, &node.all))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    /// Columns that the struct doesn't name aren't offered, so that one may be dropped even under `deny_unknown_fields`.
    #[inline]
    fn deserialize_struct<V: Visitor<'c>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::Struct(node) if !self.node.is_null(self.row) => {
                let access = match node.wanted(fields) {
                    Some(columns) => self.fields(node, columns),
                    None => FieldsOf { only: Some(fields), ..self.fields(node, &node.all) },
                };
                visitor.visit_map(access)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'c>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if self.node.is_null(self.row) {
            return self.deserialize_any(visitor);
        }
        match (self.text(), self.variant()?) {
            (Some(name), _) => visitor.visit_enum(name.into_deserializer()),
            (None, Some(variant)) => visitor.visit_enum(variant),
            (None, None) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'c>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::Foreign(values) if !self.node.is_null(self.row) => values.text(self.row, visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'c>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    /// Bytes are a list of them, too.
    fn deserialize_seq<V: Visitor<'c>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let bytes = match &self.node.kind {
            _ if self.node.is_null(self.row) => None,
            Kind::Binary(values) => Some(values.value(self.row)),
            Kind::LargeBinary(values) => Some(values.value(self.row)),
            Kind::Foreign(Foreign::Bytes(values)) => Some(values.value(self.row)),
            _ => None,
        };
        match bytes {
            Some(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'c>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'c>>
        bool i128 u128 bytes byte_buf unit unit_struct identifier
    }
}

/// The columns of a struct, by name.
struct FieldsOf<'c> {
    node: &'c StructNode,
    /// Those still to come.
    columns: &'c [usize],
    row: usize,
    /// If given, the names of the only columns to offer.
    only: Option<&'static [&'static str]>,
    current: usize,
}

impl<'c> MapAccess<'c> for FieldsOf<'c> {
    type Error = ReadError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'c>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        while let Some((&column, rest)) = self.columns.split_first() {
            self.columns = rest;
            let name = &*self.node.names[column];
            let left_out = self.node.omit_nulls && self.node.children[column].is_null(self.row);
            if left_out || self.only.is_some_and(|only| !only.contains(&name)) {
                continue;
            }
            self.current = column;
            return seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some);
        }
        Ok(None)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'c>>(&mut self, seed: S) -> Result<S::Value, ReadError> {
        let node = &self.node.children[self.current];
        seed.deserialize(Cursor { node, row: self.row })
            .map_err(|error| error.within(&self.node.names[self.current]))
    }
}

/// The columns of a tuple, in order.
struct Elements<'c> {
    children: &'c [Node],
    row: usize,
    next: usize,
}

impl<'c> SeqAccess<'c> for Elements<'c> {
    type Error = ReadError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'c>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, ReadError> {
        let Some(node) = self.children.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(Cursor { node, row: self.row })
            .map(Some)
            .map_err(|error| error.within(&(self.next - 1).to_string()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.children.len() - self.next)
    }
}

/// The items of one list.
struct Items<'c> {
    items: &'c Node,
    next: usize,
    end: usize,
}

impl<'c> SeqAccess<'c> for Items<'c> {
    type Error = ReadError;

    fn next_element_seed<S: DeserializeSeed<'c>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, ReadError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let row = self.next;
        self.next += 1;
        seed.deserialize(Cursor { node: self.items, row })
            .map(Some)
            .map_err(|error| error.within("item"))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.end - self.next)
    }
}

/// The entries of one map.
struct Entries<'c> {
    keys: &'c Node,
    values: &'c Node,
    next: usize,
    end: usize,
}

impl<'c> MapAccess<'c> for Entries<'c> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'c>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        if self.next >= self.end {
            return Ok(None);
        }
        seed.deserialize(Cursor { node: self.keys, row: self.next })
            .map(Some)
            .map_err(|error| error.within("key"))
    }

    fn next_value_seed<S: DeserializeSeed<'c>>(&mut self, seed: S) -> Result<S::Value, ReadError> {
        let row = self.next;
        self.next += 1;
        seed.deserialize(Cursor { node: self.values, row }).map_err(|error| error.within("value"))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.end - self.next)
    }
}

/// One variant of an enum, and what it holds.
struct Variant<'c> {
    name: &'c str,
    content: Cursor<'c>,
}

impl<'c> EnumAccess<'c> for Variant<'c> {
    type Error = ReadError;
    type Variant = Cursor<'c>;

    fn variant_seed<S: DeserializeSeed<'c>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Cursor<'c>), ReadError> {
        Ok((seed.deserialize(BorrowedStrDeserializer::<ReadError>::new(self.name))?, self.content))
    }
}

impl<'c> VariantAccess<'c> for Cursor<'c> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'c>>(self, seed: S) -> Result<S::Value, ReadError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'c>>(self, len: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'c>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_struct("", fields, visitor)
    }
}

/// A variant as a map of one entry.
struct Tagged<'c>(Option<Variant<'c>>);

impl<'c> MapAccess<'c> for Tagged<'c> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'c>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        match &self.0 {
            Some(variant) => seed.deserialize(BorrowedStrDeserializer::new(variant.name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'c>>(&mut self, seed: S) -> Result<S::Value, ReadError> {
        match self.0.take() {
            Some(variant) => seed.deserialize(variant.content),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}
