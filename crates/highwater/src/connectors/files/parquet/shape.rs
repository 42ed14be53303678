//! What a row type wants of columns, found out by asking its `Deserialize`.

use std::cell::Cell;
use std::fmt;

use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

/// What a row is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The columns of these names, which include other names that a field goes by.
    Fields(&'static [&'static str]),
    /// So many columns, in their order.
    Tuple(usize),
    /// All columns, by name.
    All,
}

/// A row that isn't made of columns.
#[derive(Debug)]
pub(super) struct NoColumns(&'static str);

impl fmt::Display for NoColumns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a Parquet row is a struct of named columns, and `{}` is none; map it to one",
            self.0
        )
    }
}

impl std::error::Error for NoColumns {}

/// The shape of a row type.
pub(super) fn of<T: DeserializeOwned>() -> Result<Shape, NoColumns> {
    let shape = Cell::new(None);
    // It can't succeed: nothing is there to be read.
    T::deserialize(Probe(&shape)).err();
    shape.take().ok_or(NoColumns(std::any::type_name::<T>()))
}

/// Notes what it is asked for.
struct Probe<'s>(&'s Cell<Option<Shape>>);

impl Probe<'_> {
    fn note<V>(self, shape: Shape) -> Result<V, Error> {
        self.0.set(Some(shape));
        Err(Error::custom("only asked"))
    }
}

macro_rules! refused {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("no columns"))
        }
    )* };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.note(Shape::All)
    }

    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.note(Shape::All)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.note(Shape::Fields(fields))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, columns: usize, _: V) -> Result<V::Value, Error> {
        self.note(Shape::Tuple(columns))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        columns: usize,
        _: V,
    ) -> Result<V::Value, Error> {
        self.note(Shape::Tuple(columns))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::custom("no columns"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::custom("no columns"))
    }

    refused! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq deserialize_identifier deserialize_ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Plain {
        #[serde(alias = "other")]
        one: u8,
        two: Option<String>,
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Flat {
        #[serde(flatten)]
        plain: Plain,
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Wrapped(Plain);

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Pair(u8, u8);

    #[test]
    fn types_say_what_they_want() {
        for found in [of::<Plain>(), of::<Wrapped>()] {
            let Ok(Shape::Fields(names)) = found else { panic!("{found:?}") };
            let mut names = names.to_vec();
            names.sort_unstable();
            assert_eq!(names, ["one", "other", "two"]);
        }
        assert_eq!(of::<Flat>().unwrap(), Shape::All);
        assert_eq!(of::<BTreeMap<String, u8>>().unwrap(), Shape::All);
        assert_eq!(of::<serde_json::Value>().unwrap(), Shape::All);
        assert_eq!(of::<Pair>().unwrap(), Shape::Tuple(2));
        assert_eq!(of::<(u8, u8, u8)>().unwrap(), Shape::Tuple(3));
        for error in
            [of::<u8>().unwrap_err(), of::<String>().unwrap_err(), of::<Vec<u8>>().unwrap_err()]
        {
            assert!(error.to_string().contains("map it to one"));
        }
    }
}
