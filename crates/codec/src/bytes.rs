//! A column of byte strings under construction: the flat tier's text, and the opaque tier's MessagePack.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, GenericBinaryArray, GenericStringArray, LargeBinaryArray,
    OffsetSizeTrait,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use crate::flat::null_buffer;

/// What the bytes of a finished column are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BytesKind {
    /// UTF-8, which every value pushed was.
    Text,
    Binary,
}

/// Byte strings end to end, and where each ends.
pub(crate) struct BytesColumn {
    ends: Vec<usize>,
    bytes: Vec<u8>,
    nulls: Vec<usize>,
}

impl BytesColumn {
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self { ends: Vec::with_capacity(rows), bytes: Vec::new(), nulls: Vec::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.end_row();
    }

    /// Where the bytes of the next row go, to be followed by [`end_row`](Self::end_row).
    #[inline]
    pub(crate) fn writer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    #[inline]
    pub(crate) fn end_row(&mut self) {
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn push_null(&mut self) {
        self.nulls.push(self.ends.len());
        self.end_row();
    }

    pub(crate) fn null_count(&self) -> usize {
        self.nulls.len()
    }

    pub(crate) fn finish(self, kind: BytesKind) -> ArrayRef {
        self.finish_within(kind, i32::MAX as usize)
    }

    /// Offsets of 32 bits, which every tool reads, for as many bytes as they reach.
    fn finish_within(self, kind: BytesKind, reach: usize) -> ArrayRef {
        let nulls = null_buffer(&self.nulls, self.ends.len());
        if self.bytes.len() <= reach {
            array::<i32>(kind, self.ends, self.bytes.into(), nulls)
        } else {
            array::<i64>(kind, self.ends, self.bytes.into(), nulls)
        }
    }
}

fn array<O: OffsetSizeTrait>(
    kind: BytesKind,
    ends: Vec<usize>,
    bytes: Buffer,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let offsets: ScalarBuffer<O> = std::iter::once(0).chain(ends).map(O::usize_as).collect();
    let offsets = OffsetBuffer::new(offsets);
    match kind {
        BytesKind::Text => Arc::new(GenericStringArray::new(offsets, bytes, nulls)),
        BytesKind::Binary => Arc::new(GenericBinaryArray::new(offsets, bytes, nulls)),
    }
}

/// A binary column of either width.
pub(crate) enum BinaryColumn {
    Small(BinaryArray),
    Large(LargeBinaryArray),
}

impl BinaryColumn {
    pub(crate) fn new(array: &ArrayRef) -> Option<Self> {
        let any = array.as_any();
        if let Some(array) = any.downcast_ref::<BinaryArray>() {
            return Some(Self::Small(array.clone()));
        }
        any.downcast_ref::<LargeBinaryArray>().map(|array| Self::Large(array.clone()))
    }

    pub(crate) fn value(&self, row: usize) -> &[u8] {
        match self {
            Self::Small(array) => array.value(row),
            Self::Large(array) => array.value(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_schema::DataType;

    use super::*;

    #[test]
    fn more_bytes_than_small_offsets_reach_get_large_ones() {
        for (reach, text, binary) in
            [(6, DataType::Utf8, DataType::Binary), (5, DataType::LargeUtf8, DataType::LargeBinary)]
        {
            for (kind, expected) in [(BytesKind::Text, text), (BytesKind::Binary, binary)] {
                let mut column = BytesColumn::with_capacity(3);
                column.push(b"abc");
                column.push_null();
                column.push(b"def");
                let array = column.finish_within(kind, reach);
                assert_eq!(array.data_type(), &expected);
                assert_eq!((array.len(), array.null_count()), (3, 1));
            }
        }
    }
}
