//! About how much memory rows take, found by walking through some of them with a serializer that only counts.

use std::fmt;

use serde::ser::{
    self, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// So many rows are looked at, evenly spread; with more of them the others are taken to be like these.
const SAMPLE: usize = 16;

/// What an allocation takes beside its content.
const ALLOCATION: usize = 16;

/// About how many bytes of memory rows take: their own size, and what they hold elsewhere (texts, lists, maps).
///
/// Types that hold nothing elsewhere cost nothing to measure. A type whose own `Serialize` fails is taken to hold nothing.
///
/// ```
/// use highwater_codec::footprint;
///
/// assert_eq!(footprint(&[1_u64, 2]), 16);
/// let rows = ["x".repeat(1000), "y".repeat(3000)];
/// assert!((4000..4200).contains(&footprint(&rows)));
/// ```
#[must_use]
pub fn footprint<T: Serialize>(rows: &[T]) -> usize {
    let own = size_of_val(rows);
    if !std::mem::needs_drop::<T>() || rows.is_empty() {
        return own;
    }
    let step = rows.len().div_ceil(SAMPLE);
    let (mut held, mut looked_at) = (0, 0);
    for row in rows.iter().step_by(step) {
        let mut counted = 0;
        row.serialize(Count { held: &mut counted, elsewhere: false }).ok();
        held += counted;
        looked_at += 1;
    }
    own + (held as f64 / looked_at as f64 * rows.len() as f64) as usize
}

/// Adds up what values hold.
struct Count<'h> {
    held: &'h mut usize,
    /// The value is itself held elsewhere, so that its own size counts, too; otherwise that is part of the row's.
    elsewhere: bool,
}

impl<'h> Count<'h> {
    fn own<T>(self) -> Result<(), Nothing> {
        if self.elsewhere {
            *self.held += size_of::<T>();
        }
        Ok(())
    }

    fn content(self, bytes: usize) -> Result<(), Nothing> {
        if bytes > 0 {
            *self.held += bytes + ALLOCATION;
        }
        self.own::<String>()
    }

    /// What a list or a map holds.
    fn items(self) -> Result<Count<'h>, Nothing> {
        *self.held += ALLOCATION;
        if self.elsewhere {
            *self.held += size_of::<Vec<()>>();
        }
        Ok(Count { elsewhere: true, ..self })
    }

    fn next(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Nothing> {
        value.serialize(Count { held: self.held, elsewhere: self.elsewhere })
    }
}

/// The error of a type's own `Serialize`; what was counted so far stands.
#[derive(Debug)]
struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value can't be serialized")
    }
}

impl std::error::Error for Nothing {}

impl ser::Error for Nothing {
    #[cold]
    fn custom<M: fmt::Display>(_: M) -> Self {
        Nothing
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),*) => {
        $(
            #[inline]
            fn $method(self, _: $type) -> Result<(), Nothing> {
                self.own::<$type>()
            }
        )*
    };
}

impl Serializer for Count<'_> {
    type Ok = ();
    type Error = Nothing;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    scalars!(serialize_bool: bool, serialize_char: char, serialize_f32: f32, serialize_f64: f64);
    scalars!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128);
    scalars!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128);

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), Nothing> {
        self.content(text.len())
    }
    #[inline]
    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Nothing> {
        self.content(bytes.len())
    }
    fn serialize_none(self) -> Result<(), Nothing> {
        self.own::<u64>()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Nothing> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Nothing> {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Nothing> {
        Ok(())
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), Nothing> {
        self.own::<u64>()
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Nothing> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Nothing> {
        value.serialize(self)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Nothing> {
        self.items()
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, Nothing> {
        Ok(self)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Nothing> {
        Ok(self)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Nothing> {
        Ok(self)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self, Nothing> {
        self.items()
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Nothing> {
        Ok(self)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Nothing> {
        Ok(self)
    }
}

/// All that has parts counts them one by one.
macro_rules! parts {
    ($($trait:ident::$method:ident($($name:ty)?)),* $(,)?) => {
        $(
            impl $trait for Count<'_> {
                type Ok = ();
                type Error = Nothing;
                fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), Nothing> {
                    self.next(value)
                }
                fn end(self) -> Result<(), Nothing> {
                    Ok(())
                }
            }
        )*
    };
}

parts!(
    SerializeSeq::serialize_element(),
    SerializeTuple::serialize_element(),
    SerializeTupleStruct::serialize_field(),
    SerializeTupleVariant::serialize_field(),
    SerializeStruct::serialize_field(&'static str),
    SerializeStructVariant::serialize_field(&'static str),
);

impl SerializeMap for Count<'_> {
    type Ok = ();
    type Error = Nothing;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Nothing> {
        self.next(key)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Nothing> {
        self.next(value)
    }
    fn end(self) -> Result<(), Nothing> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    struct Row {
        number: u64,
        text: String,
        maybe: Option<String>,
        list: Vec<(u32, String)>,
        map: BTreeMap<String, u64>,
    }

    fn row(length: usize) -> Row {
        Row {
            number: 1,
            text: "x".repeat(length),
            maybe: Some("y".repeat(length)),
            list: vec![(1, "z".repeat(length)); 3],
            map: [("k".repeat(length), 1)].into(),
        }
    }

    #[test]
    fn what_is_held_elsewhere_counts() {
        let about = |rows: &[Row], expected: usize| {
            let held = footprint(rows) - size_of_val(rows);
            assert!(
                (expected..expected + 400 * rows.len()).contains(&held),
                "{held}, not {expected}"
            );
        };
        about(&[row(1000)], 6 * 1000);
        about(&[row(0)], 0);
        // Of many only some are looked at.
        let many: Vec<Row> = (0..1000).map(|_| row(100)).collect();
        about(&many, 600 * 1000);
        assert_eq!(footprint::<Row>(&[]), 0);
    }

    #[test]
    fn numbers_within_lists_count_and_elsewhere_are_part_of_the_row() {
        assert_eq!(footprint(&[(0_u64, [0_u64; 31]); 10]), 10 * 256);
        let lists = [vec![0_u64; 1000]];
        assert_eq!(footprint(&lists), size_of::<Vec<u64>>() + 8000 + ALLOCATION);
    }

    #[test]
    fn a_type_that_fails_holds_nothing() {
        struct Fails(#[allow(dead_code, reason = "it makes the type hold something")] String);
        impl Serialize for Fails {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(ser::Error::custom("no"))
            }
        }
        assert_eq!(footprint(&[Fails("x".repeat(100))]), size_of::<String>());
    }
}
