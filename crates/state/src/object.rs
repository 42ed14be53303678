//! A checkpoint object: the sections that one worker wrote at one checkpoint, in one stored object.
//!
//! ```text
//! section | section | ... | index (JSON) | length of the index, 8 bytes, little endian | "HWOBJ001"
//! ```
//!
//! The index stands at the end, so that an object is written from its beginning to its end. Whoever names an object keeps its
//! checksum, which covers all of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::StateError;
use crate::section::{Section, SectionHead};

/// Ends every object; the number is the version of the format.
pub const MAGIC: &[u8; 8] = b"HWOBJ001";

/// A section's place within its object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionEntry {
    /// The uid of the operator.
    pub uid: String,
    /// What the section holds.
    #[serde(flatten)]
    pub head: SectionHead,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    sections: Vec<SectionEntry>,
}

/// Puts sections, each with its operator's uid, into one object: the pieces that it is made of, one after the other.
///
/// Sections may be large, and aren't copied.
pub fn write(sections: &[(String, Section)]) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(sections.len() + 1);
    let mut index = Index { sections: Vec::with_capacity(sections.len()) };
    let mut offset = 0;
    for (uid, section) in sections {
        let bytes = section.bytes.len() as u64;
        index.sections.push(SectionEntry {
            uid: uid.clone(),
            head: section.head.clone(),
            offset,
            bytes,
        });
        pieces.push(section.bytes.clone());
        offset += bytes;
    }
    let mut end = serde_json::to_vec(&index).expect("an index is plain data, written to memory");
    let length = end.len() as u64;
    end.extend_from_slice(&length.to_le_bytes());
    end.extend_from_slice(MAGIC);
    pieces.push(end.into());
    pieces
}

/// An object in memory, opened.
#[derive(Clone, Debug)]
pub struct Object {
    name: String,
    bytes: Bytes,
    sections: Vec<SectionEntry>,
}

impl Object {
    /// Reads the index of an object whose checksum has been verified.
    ///
    /// # Errors
    ///
    /// If this is no object, or one of another version.
    pub fn open(name: &str, bytes: Bytes) -> Result<Self, StateError> {
        let bad = |why: &str| StateError::Object { object: name.to_owned(), why: why.to_owned() };
        let rest = bytes
            .strip_suffix(MAGIC)
            .ok_or_else(|| bad("it doesn't end as an object of format 1 does"))?;
        let (rest, length) = rest.split_last_chunk::<8>().ok_or_else(|| bad("it is too short"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok();
        let start = length
            .and_then(|length| rest.len().checked_sub(length))
            .ok_or_else(|| bad("its index is longer than itself"))?;
        let index: Index = serde_json::from_slice(&rest[start..])
            .map_err(|error| bad(&format!("its index can't be read: {error}")))?;
        for entry in &index.sections {
            if entry.offset.checked_add(entry.bytes).is_none_or(|end| end > start as u64) {
                return Err(bad("its index points outside of it"));
            }
        }
        Ok(Object { name: name.to_owned(), bytes, sections: index.sections })
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How large the object is.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What the object holds.
    pub fn sections(&self) -> &[SectionEntry] {
        &self.sections
    }

    /// The Arrow file of one of its sections.
    pub fn section_bytes(&self, entry: &SectionEntry) -> Bytes {
        self.bytes.slice(entry.offset as usize..(entry.offset + entry.bytes) as usize)
    }
}
