//! The one container that travels on every edge of the dataflow.
//!
//! A [`Batch`] is rows of some type behind a trait object: timely's machinery is compiled once, an operator may have
//! inputs and outputs of any types, and the price is one virtual call a batch. Whoever takes the rows out knows
//! their type from the plan. Between processes a batch travels as named MessagePack, which describes itself (timely's own
//! encoding, bincode, can't carry flattened, untagged or dynamic serde types), and is decoded only when its rows are taken.
//!
//! Beside its rows a batch may carry the event time of each, so that an operator that knows nothing of time needn't care, and the
//! split from which all of them were read.

use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use highwater_codec::{footprint, hash_key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use timely::bytes::arc::Bytes;
use timely::container::Accountable;
use timely::dataflow::channels::ContainerBytes;

use crate::BoxError;

/// What a record, a key or a state may be: any owned serde type that can be cloned and sent.
pub trait Data: Clone + Send + Serialize + DeserializeOwned + 'static {}

impl<T: Clone + Send + Serialize + DeserializeOwned + 'static> Data for T {}

/// Rows of one type, as a batch holds them.
pub trait Rows: Any + Send {
    /// How many rows there are.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// About how many bytes of memory they take.
    fn bytes(&self) -> usize;
    /// A copy of them.
    fn boxed_clone(&self) -> Box<dyn Rows>;
    /// Their encoding for another process.
    ///
    /// # Errors
    ///
    /// If the type's own serialization fails.
    fn encode(&self) -> Result<Vec<u8>, BoxError>;
    /// The rows as what they really are.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Rows that can be decoded again: what [`Batch::take`] can take.
pub trait RowsType: Rows + Sized {
    /// Reads what [`Rows::encode`] wrote.
    ///
    /// # Errors
    ///
    /// If the bytes are not an encoding of these rows.
    fn decode(bytes: &[u8]) -> Result<Self, BoxError>;
}

impl<T: Data> Rows for Vec<T> {
    fn len(&self) -> usize {
        Vec::len(self)
    }
    fn bytes(&self) -> usize {
        footprint(self)
    }
    fn boxed_clone(&self) -> Box<dyn Rows> {
        Box::new(self.clone())
    }
    fn encode(&self) -> Result<Vec<u8>, BoxError> {
        Ok(rmp_serde::to_vec_named(self)?)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl<T: Data> RowsType for Vec<T> {
    fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

/// Rows with a key each, and the stable hash of each key, computed once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "K: Data, V: Data")]
pub struct Keyed<K, V> {
    /// The hash of each row's key.
    pub hashes: Vec<u64>,
    /// The rows.
    pub rows: Vec<(K, V)>,
}

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Keyed { hashes: Vec::new(), rows: Vec::new() }
    }
}

impl<K: Data, V: Data> Keyed<K, V> {
    /// Room for `rows` rows.
    pub fn with_capacity(rows: usize) -> Self {
        Keyed { hashes: Vec::with_capacity(rows), rows: Vec::with_capacity(rows) }
    }

    /// Appends a row whose key has this hash.
    #[inline]
    pub fn push(&mut self, hash: u64, key: K, value: V) {
        debug_assert!(hash_key(&key).is_ok_and(|right| right == hash), "the hash is the key's");
        self.hashes.push(hash);
        self.rows.push((key, value));
    }
}

impl<K: Data, V: Data> Rows for Keyed<K, V> {
    fn len(&self) -> usize {
        self.rows.len()
    }
    fn bytes(&self) -> usize {
        size_of_val(&*self.hashes) + footprint(&self.rows)
    }
    fn boxed_clone(&self) -> Box<dyn Rows> {
        Box::new(self.clone())
    }
    fn encode(&self) -> Result<Vec<u8>, BoxError> {
        Ok(rmp_serde::to_vec_named(self)?)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl<K: Data, V: Data> RowsType for Keyed<K, V> {
    fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

/// Rows on their way along an edge.
#[derive(Default)]
pub struct Batch {
    repr: Repr,
    /// The event time of each row; empty if rows have none.
    times: Vec<i64>,
    /// Where the rows were read.
    split: Option<Arc<str>>,
    /// Filled when the batch is about to travel to another process.
    encoded: OnceCell<Vec<u8>>,
}

#[derive(Default)]
enum Repr {
    #[default]
    Empty,
    Rows(Box<dyn Rows>),
    /// One part for each worker, in their order; only on an edge that exchanges.
    Split(Vec<Batch>),
    Encoded {
        rows: usize,
        bytes: Bytes,
    },
}

impl Batch {
    /// A batch of these rows.
    pub fn new<R: Rows>(rows: R) -> Self {
        if rows.is_empty() {
            return Batch::default();
        }
        Batch::from(Repr::Rows(Box::new(rows)))
    }

    /// Rows that are dealt to the workers already: the `n`-th part goes to the `n`-th worker.
    pub fn split(parts: Vec<Batch>) -> Self {
        Batch::from(Repr::Split(parts))
    }

    fn from(repr: Repr) -> Self {
        Batch { repr, times: Vec::new(), split: None, encoded: OnceCell::new() }
    }

    /// The same rows with their event times, in milliseconds since 1970; without, if there are none.
    ///
    /// # Panics
    ///
    /// Panics if there isn't one time for each row.
    #[must_use]
    pub fn with_times(self, times: Vec<i64>) -> Self {
        assert!(times.is_empty() || times.len() == self.len(), "each row has one time");
        Batch { times, ..self }
    }

    /// The event time of each row; empty if rows have none.
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// The same rows, all of which were read from this split.
    #[must_use]
    pub fn with_split(self, split: Option<Arc<str>>) -> Self {
        Batch { split, ..self }
    }

    /// The split from which all rows were read, if that is known.
    pub fn split_read(&self) -> Option<&Arc<str>> {
        self.split.as_ref()
    }

    /// Its rows, for people: as JSON, as far as they can be written so.
    pub(crate) fn shown(&self) -> String {
        let Repr::Rows(rows) = &self.repr else { return String::new() };
        let encoded = rows.encode().ok();
        let value =
            encoded.and_then(|bytes| rmp_serde::from_slice::<serde_json::Value>(&bytes).ok());
        match value {
            Some(serde_json::Value::Array(rows)) if rows.len() == 1 => rows[0].to_string(),
            Some(value) => value.to_string(),
            None => String::new(),
        }
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Empty => 0,
            Repr::Rows(rows) => rows.len(),
            Repr::Split(parts) => parts.iter().map(Batch::len).sum(),
            Repr::Encoded { rows, .. } => *rows,
        }
    }

    /// About how many bytes of memory its rows take.
    pub fn bytes(&self) -> usize {
        match &self.repr {
            Repr::Empty => 0,
            Repr::Rows(rows) => rows.bytes(),
            Repr::Split(parts) => parts.iter().map(Batch::bytes).sum(),
            Repr::Encoded { bytes, .. } => bytes.len(),
        }
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts for each worker, if this batch was dealt out.
    ///
    /// # Errors
    ///
    /// Itself, if it wasn't.
    pub fn into_parts(self) -> Result<Vec<Batch>, Batch> {
        match self.repr {
            Repr::Split(parts) => Ok(parts),
            _ => Err(self),
        }
    }

    /// Takes the rows out, with their times.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn take_timed<R: RowsType + Default>(mut self) -> Result<(R, Vec<i64>), BoxError> {
        if let Repr::Split(parts) = &mut self.repr {
            assert_eq!(parts.len(), 1, "a batch for several workers was never dealt out");
            return parts.remove(0).take_timed();
        }
        let times = std::mem::take(&mut self.times);
        Ok((self.take()?, times))
    }

    /// Takes the rows out.
    ///
    /// # Errors
    ///
    /// If another process sent something that can't be decoded as this type.
    ///
    /// # Panics
    ///
    /// Panics if the rows are of another type: the plan connected two ports that don't fit, which is a bug.
    pub fn take<R: RowsType + Default>(self) -> Result<R, BoxError> {
        match self.repr {
            Repr::Empty => Ok(R::default()),
            Repr::Rows(rows) => match rows.into_any().downcast::<R>() {
                Ok(rows) => Ok(*rows),
                Err(_) => panic!("a batch doesn't hold {}", std::any::type_name::<R>()),
            },
            // With one worker timely doesn't exchange, and the one part arrives wrapped.
            Repr::Split(mut parts) => {
                assert_eq!(parts.len(), 1, "a batch for several workers was never dealt out");
                parts.remove(0).take()
            }
            Repr::Encoded { bytes, .. } => R::decode(&bytes),
        }
    }
}

impl Clone for Batch {
    fn clone(&self) -> Self {
        let repr = match &self.repr {
            Repr::Empty => Repr::Empty,
            Repr::Rows(rows) => Repr::Rows(rows.boxed_clone()),
            Repr::Split(parts) => Repr::Split(parts.clone()),
            Repr::Encoded { rows, bytes } => Repr::Encoded { rows: *rows, bytes: bytes.clone() },
        };
        let (times, split) = (self.times.clone(), self.split.clone());
        Batch { repr, times, split, encoded: OnceCell::new() }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} rows)", self.len())
    }
}

impl Accountable for Batch {
    fn record_count(&self) -> i64 {
        self.len() as i64
    }
}

/// On the wire, in words of 8 bytes: the number of rows, the length of their encoding, how many times there are (as many or
/// none), the length of the split's name (or none); then times, encoding and name, the latter two with zeros up to whole words.
impl ContainerBytes for Batch {
    fn from_bytes(mut bytes: Bytes) -> Self {
        let word = |bytes: &mut Bytes| {
            let word = bytes.extract_to(8);
            u64::from_le_bytes(word[..].try_into().expect("8 bytes were taken")) as usize
        };
        let [rows, length, times, split] = std::array::from_fn(|_| word(&mut bytes));
        let times = (0..times).map(|_| word(&mut bytes) as i64).collect();
        let encoded = bytes.extract_to(length);
        bytes.extract_to(padding(length));
        let split = (split > 0).then(|| String::from_utf8_lossy(&bytes[..split]).into());
        let repr = Repr::Encoded { rows, bytes: encoded };
        Batch { repr, times, split, encoded: OnceCell::new() }
    }

    fn length_in_bytes(&self) -> usize {
        let split = self.split.as_deref().map_or(0, str::len).next_multiple_of(8);
        32 + self.times.len() * 8 + self.wire().len().next_multiple_of(8) + split
    }

    fn into_bytes<W: std::io::Write>(&self, writer: &mut W) {
        let wire = self.wire();
        let split = self.split.as_deref().unwrap_or_default().as_bytes();
        let mut write = |bytes: &[u8]| {
            writer.write_all(bytes).expect("timely made room for the announced length");
        };
        for count in [self.len(), wire.len(), self.times.len(), split.len()] {
            write(&(count as u64).to_le_bytes());
        }
        for time in &self.times {
            write(&time.to_le_bytes());
        }
        for text in [wire, split] {
            write(text);
            write(&[0; 8][..padding(text.len())]);
        }
    }
}

/// So many zeros come behind so many bytes.
fn padding(length: usize) -> usize {
    length.next_multiple_of(8) - length
}

impl Batch {
    fn wire(&self) -> &[u8] {
        match &self.repr {
            Repr::Encoded { bytes, .. } => bytes,
            Repr::Empty => &[],
            // The host tried the encoding when the batch was emitted would cost twice; a type that fails here fails always.
            Repr::Rows(rows) => self.encoded.get_or_init(|| {
                rows.encode()
                    .unwrap_or_else(|error| panic!("a record can't be serialized: {error}"))
            }),
            Repr::Split(_) => unreachable!("parts travel one by one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_wire() {
        let mut keyed = Keyed::default();
        keyed.push(hash_key(&7_u64).unwrap(), 7_u64, "seven".to_owned());
        let batch = Batch::new(keyed).with_times(vec![-5]).with_split(Some("a split".into()));
        let mut wire = Vec::new();
        batch.into_bytes(&mut wire);
        assert_eq!(wire.len(), batch.length_in_bytes());
        let arrived = Batch::from_bytes(timely::bytes::arc::BytesMut::from(wire).freeze());
        assert_eq!(arrived.len(), 1);
        assert_eq!(arrived.times(), [-5]);
        assert_eq!(arrived.split_read().map(|split| &**split), Some("a split"));
        let keyed: Keyed<u64, String> = arrived.take().unwrap();
        assert_eq!(keyed.rows, [(7, "seven".to_owned())]);
    }
}
