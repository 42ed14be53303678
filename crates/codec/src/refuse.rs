//! What a serializer has to write although it takes none of it.

/// The methods of a [`Serializer`](serde::Serializer) without output for the kinds of values that it refuses, each with its error.
///
/// Kinds: `wide` (128-bit integers), `unit`, `seq`, `tuple`, `map`, `record` (a struct), `variant` (of an enum, with data).
#[doc(hidden)]
#[macro_export]
macro_rules! refuse {
    ($error:ty: $($kind:ident => $why:expr),* $(,)?) => { $( $crate::refuse!(@$kind $error, $why); )* };
    (@wide $error:ty, $why:expr) => {
        fn serialize_i128(self, _: i128) -> Result<(), $error> {
            Err($why)
        }
        fn serialize_u128(self, _: u128) -> Result<(), $error> {
            Err($why)
        }
    };
    (@unit $error:ty, $why:expr) => {
        fn serialize_unit(self) -> Result<(), $error> {
            Err($why)
        }
        fn serialize_unit_struct(self, _: &'static str) -> Result<(), $error> {
            Err($why)
        }
    };
    (@seq $error:ty, $why:expr) => {
        type SerializeSeq = ::serde::ser::Impossible<(), $error>;
        fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, $error> {
            Err($why)
        }
    };
    (@tuple $error:ty, $why:expr) => {
        type SerializeTuple = ::serde::ser::Impossible<(), $error>;
        type SerializeTupleStruct = ::serde::ser::Impossible<(), $error>;
        fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, $error> {
            Err($why)
        }
        fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, $error> {
            Err($why)
        }
    };
    (@map $error:ty, $why:expr) => {
        type SerializeMap = ::serde::ser::Impossible<(), $error>;
        fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, $error> {
            Err($why)
        }
    };
    (@record $error:ty, $why:expr) => {
        type SerializeStruct = ::serde::ser::Impossible<(), $error>;
        fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, $error> {
            Err($why)
        }
    };
    (@variant $error:ty, $why:expr) => {
        type SerializeTupleVariant = ::serde::ser::Impossible<(), $error>;
        type SerializeStructVariant = ::serde::ser::Impossible<(), $error>;
        fn serialize_newtype_variant<T: ::serde::Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<(), $error> {
            Err($why)
        }
        fn serialize_tuple_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleVariant, $error> {
            Err($why)
        }
        fn serialize_struct_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStructVariant, $error> {
            Err($why)
        }
    };
}
