//! The stable hash of a serde value, and the stricter fingerprint that tells whether a value came back.
//!
//! The hash decides the key group of a key, which is durable. It is taken over a canonical form in which integers have no
//! width, structs and tuples no names, and `Some` leaves no trace, so that the same key hashes alike when its type is widened
//! and when it is read from Arrow columns ([`hash_column_row`](crate::hash_column_row)). Maps hash alike in any order.
//!
//! The fingerprint is the same walk with a tag before every value. It isn't durable: it only compares a value with what was
//! read back in its place, in this process.

use std::fmt;

use serde::ser::{
    self, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::CodecError;
use crate::mix::Mixer;

/// Version of [`hash_key`]. A durable format depends on it: another way to hash must get another number.
pub const HASH_VERSION: u32 = 1;

/// The 64-bit hash of a value's canonical encoding: the same in every process, on every machine, for ever.
///
/// ```
/// use highwater_codec::hash_key;
///
/// // Widening an integer, or making a field optional, doesn't move a key.
/// assert_eq!(hash_key(&7u32)?, hash_key(&Some(7i64))?);
/// assert_ne!(hash_key("a")?, hash_key("b")?);
/// # Ok::<(), highwater_codec::CodecError>(())
/// ```
///
/// # Errors
///
/// Only if the type's own `Serialize` fails.
#[inline]
pub fn hash_key<K: Serialize + ?Sized>(key: &K) -> Result<u64, CodecError> {
    let mut state = Walk::new();
    match key.serialize(Feed::<false> { state: &mut state }) {
        Ok(()) => Ok(state.mixer.finish()),
        Err(refused) => Err(refused.of::<K>()),
    }
}

/// What [`fingerprint`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    hash: u64,
    /// A `Some` holds something that formats without a mark for `Some` write like `None`: `Some(None)`, `Some(())`.
    pub(crate) nested_nil: bool,
}

/// A hash that differs whenever two values of one type would be told apart by their serialization (maps in any order).
pub(crate) fn fingerprint<T: Serialize + ?Sized>(value: &T) -> Result<Fingerprint, CodecError> {
    let mut state = Walk::new();
    match value.serialize(Feed::<true> { state: &mut state }) {
        Ok(()) => Ok(Fingerprint { hash: state.mixer.finish(), nested_nil: state.nested_nil }),
        Err(refused) => Err(refused.of::<T>()),
    }
}

/// What a type's own `Serialize` said when it refused.
#[derive(Debug)]
pub(crate) struct Refused(Box<str>);

impl Refused {
    #[cold]
    fn of<T: ?Sized>(self) -> CodecError {
        CodecError::Serialize {
            type_name: std::any::type_name::<T>(),
            reason: self.0.into_string(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    #[cold]
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self(message.to_string().into_boxed_str())
    }
}

/// The hash, and what only the fingerprint keeps.
struct Walk {
    mixer: Mixer,
    inside_some: bool,
    nested_nil: bool,
}

/// What comes before every value in a fingerprint.
#[derive(Clone, Copy)]
enum Tag {
    Integer = 1,
    Bool,
    Float,
    Text,
    Bytes,
    Nil,
    Unit,
    Some,
    Variant,
    Fields,
    Seq,
    Map,
    End,
}

impl Walk {
    #[inline]
    fn new() -> Self {
        Self { mixer: Mixer::new(), inside_some: false, nested_nil: false }
    }
}

/// Feeds values to a walk: as they are for the hash, tagged (`TAGGED`) for the fingerprint.
struct Feed<'w, const TAGGED: bool> {
    state: &'w mut Walk,
}

impl<const TAGGED: bool> Feed<'_, TAGGED> {
    #[inline]
    fn tag(&mut self, tag: Tag) {
        if TAGGED {
            match tag {
                Tag::Nil | Tag::Unit if self.state.inside_some => self.state.nested_nil = true,
                _ => {}
            }
            self.state.inside_some = matches!(tag, Tag::Some);
            self.state.mixer.word(tag as u64);
        }
    }

    #[inline]
    fn word(mut self, tag: Tag, word: u64) -> Result<(), Refused> {
        self.tag(tag);
        self.state.mixer.word(word);
        Ok(())
    }

    #[inline]
    fn integer(mut self, low: u64, high: u64) -> Result<(), Refused> {
        self.tag(Tag::Integer);
        self.state.mixer.word(low);
        if TAGGED {
            self.state.mixer.word(high);
        }
        Ok(())
    }

    #[inline]
    fn bytes(mut self, tag: Tag, bytes: &[u8]) -> Result<(), Refused> {
        self.tag(tag);
        self.state.mixer.bytes(bytes);
        Ok(())
    }
}

/// The parts of a value made of others.
struct Parts<'w, const TAGGED: bool> {
    state: &'w mut Walk,
    /// Elements of a sequence, which are counted: unlike fields, their number isn't a matter of the type.
    elements: Option<u64>,
}

impl<'w, const TAGGED: bool> Parts<'w, TAGGED> {
    #[inline]
    fn fields(mut feed: Feed<'w, TAGGED>) -> Self {
        feed.tag(Tag::Fields);
        Self { state: feed.state, elements: None }
    }

    fn variant(mut feed: Feed<'w, TAGGED>, name: &str) -> Self {
        feed.tag(Tag::Variant);
        feed.state.mixer.bytes(name.as_bytes());
        Self { state: feed.state, elements: None }
    }

    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        if let Some(elements) = &mut self.elements {
            *elements += 1;
        }
        value.serialize(Feed::<TAGGED> { state: &mut *self.state })
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Refused> {
        if TAGGED {
            self.state.mixer.bytes(name.as_bytes());
        }
        self.part(value)
    }

    #[inline]
    fn finish(self) -> Result<(), Refused> {
        if let Some(elements) = self.elements {
            self.state.mixer.word(elements);
        }
        if TAGGED {
            self.state.mixer.word(Tag::End as u64);
        }
        Ok(())
    }
}

/// The entries of a map, each hashed for itself and added up, so that their order doesn't matter.
struct Entries<'w, const TAGGED: bool> {
    state: &'w mut Walk,
    entry: Walk,
    sum: u64,
    count: u64,
}

macro_rules! integers {
    ($($method:ident: $type:ty as $wide:ty),* $(,)?) => { $(
        #[inline]
        fn $method(self, value: $type) -> Result<(), Refused> {
            let wide = <$wide>::from(value);
            self.integer(wide as u64, (i128::from(wide) >> 64) as u64)
        }
    )* };
}

impl<'w, const TAGGED: bool> Serializer for Feed<'w, TAGGED> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Parts<'w, TAGGED>;
    type SerializeTuple = Parts<'w, TAGGED>;
    type SerializeTupleStruct = Parts<'w, TAGGED>;
    type SerializeTupleVariant = Parts<'w, TAGGED>;
    type SerializeMap = Entries<'w, TAGGED>;
    type SerializeStruct = Parts<'w, TAGGED>;
    type SerializeStructVariant = Parts<'w, TAGGED>;

    integers! {
        serialize_i8: i8 as i64, serialize_i16: i16 as i64, serialize_i32: i32 as i64, serialize_i64: i64 as i64,
        serialize_u8: u8 as u64, serialize_u16: u16 as u64, serialize_u32: u32 as u64, serialize_u64: u64 as u64,
    }

    // A 128-bit integer that fits in 64 bits hashes as if it were of such a type: widening doesn't move a key.
    fn serialize_i128(self, value: i128) -> Result<(), Refused> {
        if let Ok(small) = i64::try_from(value) {
            return self.serialize_i64(small);
        }
        match u64::try_from(value) {
            Ok(small) => self.serialize_u64(small),
            Err(_) => self.serialize_u128(value as u128),
        }
    }

    fn serialize_u128(mut self, value: u128) -> Result<(), Refused> {
        if let Ok(small) = u64::try_from(value) {
            return self.serialize_u64(small);
        }
        self.tag(Tag::Integer);
        self.state.mixer.word(value as u64);
        self.state.mixer.word((value >> 64) as u64);
        Ok(())
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Refused> {
        self.word(Tag::Bool, u64::from(value))
    }

    #[inline]
    fn serialize_f32(mut self, value: f32) -> Result<(), Refused> {
        self.tag(Tag::Float);
        self.state.mixer.f32(value);
        Ok(())
    }

    #[inline]
    fn serialize_f64(mut self, value: f64) -> Result<(), Refused> {
        self.tag(Tag::Float);
        self.state.mixer.f64(value);
        Ok(())
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result<(), Refused> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Refused> {
        self.bytes(Tag::Text, value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refused> {
        self.bytes(Tag::Bytes, value)
    }

    #[inline]
    fn serialize_none(mut self) -> Result<(), Refused> {
        self.tag(Tag::Nil);
        self.state.mixer.none();
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), Refused> {
        self.tag(Tag::Some);
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(mut self) -> Result<(), Refused> {
        self.tag(Tag::Unit);
        self.state.mixer.unit();
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Refused> {
        self.bytes(Tag::Variant, variant.as_bytes())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        let mut parts = Parts::variant(self, variant);
        parts.part(value)?;
        parts.finish()
    }

    fn serialize_seq(mut self, _: Option<usize>) -> Result<Parts<'w, TAGGED>, Refused> {
        self.tag(Tag::Seq);
        Ok(Parts { state: self.state, elements: Some(0) })
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Parts<'w, TAGGED>, Refused> {
        Ok(Parts::fields(self))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'w, TAGGED>, Refused> {
        Ok(Parts::fields(self))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'w, TAGGED>, Refused> {
        Ok(Parts::variant(self, variant))
    }

    fn serialize_map(mut self, _: Option<usize>) -> Result<Entries<'w, TAGGED>, Refused> {
        self.tag(Tag::Map);
        Ok(Entries { state: self.state, entry: Walk::new(), sum: 0, count: 0 })
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'w, TAGGED>, Refused> {
        Ok(Parts::fields(self))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'w, TAGGED>, Refused> {
        Ok(Parts::variant(self, variant))
    }
}

macro_rules! parts {
    ($($trait:ident::$method:ident),* $(,)?) => { $(
        impl<const TAGGED: bool> $trait for Parts<'_, TAGGED> {
            type Ok = ();
            type Error = Refused;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.part(value)
            }

            #[inline]
            fn end(self) -> Result<(), Refused> {
                self.finish()
            }
        }
    )* };
}

parts! {
    SerializeSeq::serialize_element, SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field, SerializeTupleVariant::serialize_field,
}

macro_rules! named_parts {
    ($($trait:ident),*) => { $(
        impl<const TAGGED: bool> $trait for Parts<'_, TAGGED> {
            type Ok = ();
            type Error = Refused;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Refused> {
                self.field(name, value)
            }

            #[inline]
            fn end(self) -> Result<(), Refused> {
                self.finish()
            }
        }
    )* };
}

named_parts!(SerializeStruct, SerializeStructVariant);

impl<const TAGGED: bool> SerializeMap for Entries<'_, TAGGED> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.entry = Walk::new();
        key.serialize(Feed::<TAGGED> { state: &mut self.entry })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(Feed::<TAGGED> { state: &mut self.entry })?;
        self.state.nested_nil |= self.entry.nested_nil;
        self.sum = self.sum.wrapping_add(self.entry.mixer.finish());
        self.count += 1;
        Ok(())
    }

    fn end(self) -> Result<(), Refused> {
        self.state.mixer.word(self.sum);
        self.state.mixer.word(self.count);
        Ok(())
    }
}
