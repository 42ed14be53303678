//! A checkpoint object: the sections that one worker wrote at one checkpoint, in one stored object.
//!
//! ```text
//! section | section | ... | index (JSON) | its checksum | its length | "HWOBJ001"
//! ```
//!
//! The index stands at the end, so that an object is written from its beginning to its end; the numbers behind it have 8 bytes each,
//! little endian, and checksums are XXH3 (64 bits). Whoever names an object keeps the checksum of all of it; the index has one for each
//! section, so that a section can be read alone.
//!
//! # Invariant
//!
//! - No byte of a section is looked at whose checksum is wrong: Arrow's reader may panic over a file that is none.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::StateError;
use crate::section::{self, Section, SectionHead};

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
    /// XXH3 (64 bits) of its bytes, 16 hexadecimal digits.
    pub checksum: String,
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
            checksum: checksum(&section.bytes),
        });
        pieces.push(section.bytes.clone());
        offset += bytes;
    }
    let mut end = serde_json::to_vec(&index).expect("an index is plain data, written to memory");
    let (sum, length) = (xxh3_64(&end), end.len() as u64);
    end.extend_from_slice(&sum.to_le_bytes());
    end.extend_from_slice(&length.to_le_bytes());
    end.extend_from_slice(MAGIC);
    pieces.push(end.into());
    pieces
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

/// An object in memory, opened.
#[derive(Clone, Debug)]
pub struct Object {
    name: String,
    bytes: Bytes,
    sections: Vec<SectionEntry>,
}

impl Object {
    /// Reads the index of an object.
    ///
    /// # Errors
    ///
    /// If this is no object, one of another version, or its index is damaged.
    pub fn open(name: &str, bytes: Bytes) -> Result<Self, StateError> {
        let bad = |why: &str| StateError::Object { object: name.to_owned(), why: why.to_owned() };
        let rest = bytes
            .strip_suffix(MAGIC)
            .ok_or_else(|| bad("it doesn't end as an object of format 1 does"))?;
        let (rest, length) = rest.split_last_chunk::<8>().ok_or_else(|| bad("it is too short"))?;
        let (rest, sum) = rest.split_last_chunk::<8>().ok_or_else(|| bad("it is too short"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok();
        let start = length
            .and_then(|length| rest.len().checked_sub(length))
            .ok_or_else(|| bad("its index is longer than itself"))?;
        if xxh3_64(&rest[start..]) != u64::from_le_bytes(*sum) {
            return Err(bad("the checksum of its index is wrong"));
        }
        let index: Index = serde_json::from_slice(&rest[start..])
            .map_err(|error| bad(&format!("its index can't be read: {error}")))?;
        for entry in &index.sections {
            if entry.offset.checked_add(entry.bytes).is_none_or(|end| end > start as u64) {
                return Err(bad("its index points outside of it"));
            }
            if !entry.head.is_possible() {
                return Err(bad("its index has rows outside of their section"));
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
    ///
    /// # Errors
    ///
    /// If the section is damaged.
    pub fn section_bytes(&self, entry: &SectionEntry) -> Result<Bytes, StateError> {
        let bytes = self.bytes.slice(entry.offset as usize..(entry.offset + entry.bytes) as usize);
        if checksum(&bytes) == entry.checksum {
            return Ok(bytes);
        }
        let why = format!("the checksum of `{}` of `{}` is wrong", entry.head.state, entry.uid);
        Err(StateError::Object { object: self.name.clone(), why })
    }

    /// Reads a section to its end: its checksum, its columns, and as many rows as the index says. Gives how many.
    ///
    /// # Errors
    ///
    /// If anything of it isn't as it should be.
    pub fn check_section(&self, entry: &SectionEntry) -> Result<u64, StateError> {
        let mut rows = 0;
        for batch in section::read(&entry.head.state, self.section_bytes(entry)?)? {
            rows += batch?.deleted.len() as u64;
        }
        if rows == entry.head.rows {
            return Ok(rows);
        }
        let SectionEntry { uid, head, .. } = entry;
        let why = format!(
            "`{}` of `{uid}` has {rows} rows, and its index says {}",
            head.state, head.rows
        );
        Err(StateError::Object { object: self.name.clone(), why })
    }
}
