//! What an attempt is restored from: the objects of a committed checkpoint, and which rows of them count.
//!
//! # Invariant
//!
//! 1. For every key group the rows that count are one whole copy and the changes after it, oldest first; what a later
//!    section replaced is left out (see [`chain`](crate::chain)).

use std::collections::BTreeMap;
use std::ops::Range;

use crate::object::{Object, SectionEntry};
use crate::section::GroupRows;

/// The objects of the checkpoint that an attempt starts from; empty for a first start.
#[derive(Clone, Debug, Default)]
pub struct Image {
    objects: Vec<Object>,
}

/// A section of an image, and the rows of it that one worker has to read.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The object's number within the image.
    pub object: u32,
    /// The section.
    pub section: &'a SectionEntry,
    /// The rows that count, by group.
    pub groups: Vec<GroupRows>,
}

impl Image {
    /// An image of these objects.
    pub fn new(objects: Vec<Object>) -> Self {
        Image { objects }
    }

    /// The objects, in the order of their numbers.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The rows of a state that count for the key groups of `range`, in the order in which they apply.
    pub fn wanted(&self, uid: &str, state: &str, range: &Range<u32>) -> Vec<Wanted<'_>> {
        let mut sections: Vec<(u32, &SectionEntry)> = Vec::new();
        for (number, object) in self.objects.iter().enumerate() {
            for section in object.sections() {
                if section.uid == uid && section.head.state == state {
                    sections.push((number as u32, section));
                }
            }
        }
        // A group is in one section of an interval at most, so their order within an interval doesn't matter.
        sections.sort_by_key(|(_, section)| section.head.interval);
        let mut by_group: BTreeMap<u32, Vec<(usize, GroupRows)>> = BTreeMap::new();
        for (index, (_, section)) in sections.iter().enumerate() {
            for rows in &section.head.groups {
                if range.contains(&rows.group) {
                    by_group.entry(rows.group).or_default().push((index, *rows));
                }
            }
        }
        let mut wanted: Vec<Vec<GroupRows>> = vec![Vec::new(); sections.len()];
        for links in by_group.values() {
            // Youngest first: everything at or above `replaced` is already covered.
            let mut replaced = u32::MAX;
            for (index, rows) in links.iter().rev() {
                if sections[*index].1.head.interval < replaced {
                    wanted[*index].push(*rows);
                    replaced = rows.since;
                }
            }
        }
        sections
            .into_iter()
            .zip(wanted)
            .filter(|(_, groups)| !groups.is_empty())
            .map(|((object, section), groups)| Wanted { object, section, groups })
            .collect()
    }
}
