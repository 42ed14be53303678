//! Lines of JSON that show damage: the form of entries and manifests.
//!
//! A record is one line of JSON, then one line `xxh3:` with 16 hexadecimal digits over the JSON. Anything
//! else, by a single bit, is damage, and reading says of which sort.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Why;

const MARK: &str = "xxh3:";

/// XXH3 (64 bits) of `content`, as 16 hexadecimal digits.
pub fn checksum(content: &[u8]) -> String {
    checksum_of_pieces([content])
}

/// The [`checksum`] of what these pieces are together.
pub fn checksum_of_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3Default::new();
    pieces.into_iter().for_each(|piece| hash.update(piece));
    format!("{:016x}", hash.digest())
}

/// The record of `value`.
///
/// # Errors
///
/// If `value` can't be expressed in JSON.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(value)?;
    let sum = checksum(&bytes);
    bytes.extend_from_slice(format!("\n{MARK}{sum}\n").as_bytes());
    Ok(bytes)
}

/// The value of a record whose format version is at most `known`.
///
/// # Errors
///
/// What is wrong with the record, if anything is.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], known: u32) -> Result<T, Why> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }

    let truncated = || Why::Truncated { has: bytes.len() as u64, of: None };
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(truncated)?;
    let (json, rest) = bytes.split_at(end);
    let expected = format!("\n{MARK}{}\n", checksum(json));
    if rest != expected.as_bytes() {
        // What is left of a whole record must agree with it; otherwise something was changed, not cut off.
        let cut = expected.as_bytes().starts_with(rest);
        return Err(if cut { truncated() } else { Why::Checksum });
    }
    // The version comes first: of a later one, nothing else can be relied upon.
    let malformed = |error: serde_json::Error| Why::Malformed(error.to_string());
    let Version { format } = serde_json::from_slice(json).map_err(malformed)?;
    if format == 0 || format > known {
        return Err(Why::Format { found: format, known });
    }
    serde_json::from_slice(json).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Manifest, ObjectRef};

    fn sample() -> (Manifest, Vec<u8>) {
        let object = ObjectRef::new("data/x", b"some bytes");
        let manifest = Manifest { format: 1, objects: vec![object] };
        let bytes = encode(&manifest).unwrap();
        (manifest, bytes)
    }

    #[test]
    fn a_record_reads_back() {
        let (manifest, bytes) = sample();
        assert_eq!(decode::<Manifest>(&bytes, 1), Ok(manifest));
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 2);
    }

    #[test]
    fn every_cut_is_truncation() {
        let (_, bytes) = sample();
        for has in 0..bytes.len() {
            let why = decode::<Manifest>(&bytes[..has], 1).unwrap_err();
            assert_eq!(why, Why::Truncated { has: has as u64, of: None });
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (_, bytes) = sample();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let why = decode::<Manifest>(&flipped, 1).unwrap_err();
            assert!(matches!(why, Why::Checksum | Why::Truncated { .. }), "bit {bit}: {why}");
        }
        let mut longer = bytes;
        longer.push(b'\n');
        assert_eq!(decode::<Manifest>(&longer, 1), Err(Why::Checksum));
    }

    #[test]
    fn unknown_formats_and_fields_are_refused() {
        let later = encode(&serde_json::json!({ "format": 2, "everything": "new" })).unwrap();
        let why = Why::Format { found: 2, known: 1 };
        assert_eq!(decode::<Manifest>(&later, 1), Err(why));
        let odd = encode(&serde_json::json!({ "format": 1, "objects": [], "more": 1 })).unwrap();
        assert!(matches!(decode::<Manifest>(&odd, 1), Err(Why::Malformed(_))));
    }
}
