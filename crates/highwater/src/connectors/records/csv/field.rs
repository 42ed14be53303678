//! From one field to a value: a serde deserializer.
//!
//! A number is what `str::parse` takes, without spaces around it; an empty field is `None`, or a string without letters.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, Visitor};

use super::de::CsvError;

/// One field.
pub(super) struct Field<'r>(pub(super) &'r [u8]);

impl<'r> Field<'r> {
    fn text(&self) -> Result<&'r str, CsvError> {
        std::str::from_utf8(self.0).map_err(|_| self.bad("UTF-8 text"))
    }

    #[cold]
    fn bad(&self, expected: &str) -> CsvError {
        if self.0.is_empty() {
            return CsvError::new(format!(
                "expected {expected}, found nothing (an `Option` takes empty fields)"
            ));
        }
        let found: String = String::from_utf8_lossy(self.0).chars().take(60).collect();
        CsvError::new(format!("expected {expected}, found {found:?}"))
    }
}

/// Digits only, and few enough of them not to overflow.
#[inline]
fn digits(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 19 {
        return None;
    }
    let mut value = 0_u64;
    for byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

#[inline]
fn signed_digits(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [b'-', rest @ ..] => digits(rest).and_then(|value| 0_i64.checked_sub_unsigned(value)),
        _ => digits(bytes).and_then(|value| i64::try_from(value).ok()),
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ident $fast:ident),* $(,)?) => { $(
        #[inline]
        fn $method<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
            if let Some(value) = $fast(self.0).and_then(|value| $type::try_from(value).ok()) {
                return visitor.$visit(value);
            }
            // A plus sign, or the largest numbers.
            match self.text()?.parse() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(self.bad(concat!("a whole number (", stringify!($type), ")"))),
            }
        }
    )* };
}

macro_rules! parsed {
    ($($method:ident $visit:ident $what:literal),* $(,)?) => { $(
        fn $method<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
            match self.text()?.parse() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(self.bad($what)),
            }
        }
    )* };
}

macro_rules! not_in_a_field {
    ($($method:ident ($($argument:ty),*) $what:literal),* $(,)?) => { $(
        fn $method<V: Visitor<'r>>(self, $(_: $argument,)* _: V) -> Result<V::Value, CsvError> {
            Err(CsvError::new(concat!("a CSV field can't be read as ", $what, "; name the columns in the row itself")))
        }
    )* };
}

impl<'r> Deserializer<'r> for Field<'r> {
    type Error = CsvError;

    integers! {
        deserialize_i8 visit_i8 i8 signed_digits,
        deserialize_i16 visit_i16 i16 signed_digits,
        deserialize_i32 visit_i32 i32 signed_digits,
        deserialize_i64 visit_i64 i64 signed_digits,
        deserialize_i128 visit_i128 i128 signed_digits,
        deserialize_u8 visit_u8 u8 digits,
        deserialize_u16 visit_u16 u16 digits,
        deserialize_u32 visit_u32 u32 digits,
        deserialize_u64 visit_u64 u64 digits,
        deserialize_u128 visit_u128 u128 digits,
    }

    parsed! {
        deserialize_f32 visit_f32 "a number (f32)",
        deserialize_f64 visit_f64 "a number (f64)",
        deserialize_bool visit_bool "`true` or `false`",
        deserialize_char visit_char "one character",
    }

    not_in_a_field! {
        deserialize_seq() "a list",
        deserialize_tuple(usize) "a tuple",
        deserialize_tuple_struct(&'static str, usize) "a tuple",
        deserialize_map() "a map",
        deserialize_struct(&'static str, &'static [&'static str]) "a struct",
    }

    /// Without a type to go by, what looks like a number is one.
    fn deserialize_any<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        if let Some(value) = digits(self.0) {
            return visitor.visit_u64(value);
        }
        if let Some(value) = signed_digits(self.0) {
            return visitor.visit_i64(value);
        }
        let Ok(text) = std::str::from_utf8(self.0) else {
            return visitor.visit_borrowed_bytes(self.0);
        };
        match text {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => match text.parse() {
                Ok(value) => visitor.visit_f64(value),
                Err(_) => visitor.visit_borrowed_str(text),
            },
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        visitor.visit_borrowed_bytes(self.0)
    }

    fn deserialize_byte_buf<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        visitor.visit_borrowed_bytes(self.0)
    }

    fn deserialize_option<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        if self.0.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        if self.0.is_empty() { visitor.visit_unit() } else { Err(self.bad("an empty field")) }
    }

    fn deserialize_unit_struct<V: Visitor<'r>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CsvError> {
        self.deserialize_unit(visitor)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'r>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CsvError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'r>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CsvError> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, CsvError> {
        visitor.visit_unit()
    }
}

/// The name of a variant without data.
impl<'r> EnumAccess<'r> for Field<'r> {
    type Error = CsvError;
    type Variant = Unit;

    fn variant_seed<S: DeserializeSeed<'r>>(self, seed: S) -> Result<(S::Value, Unit), CsvError> {
        let name = BorrowedStrDeserializer::<CsvError>::new(self.text()?);
        Ok((seed.deserialize(name)?, Unit))
    }
}

pub(super) struct Unit;

impl<'r> de::VariantAccess<'r> for Unit {
    type Error = CsvError;

    fn unit_variant(self) -> Result<(), CsvError> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'r>>(self, _: S) -> Result<S::Value, CsvError> {
        Err(with_data())
    }

    fn tuple_variant<V: Visitor<'r>>(self, _: usize, _: V) -> Result<V::Value, CsvError> {
        Err(with_data())
    }

    fn struct_variant<V: Visitor<'r>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, CsvError> {
        Err(with_data())
    }
}

#[cold]
fn with_data() -> CsvError {
    CsvError::new("a CSV field can't be read as an enum variant with data")
}
