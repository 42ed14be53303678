//! Reading a table's key groups back from an image.

use hashbrown::hash_table::Entry;
use highwater_codec::ColumnReader;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Hashing, KeyedTable, Slot, home, home_of};
use crate::StateError;
use crate::chain::{LINK_BYTES_MIN, Link, Place};
use crate::image::{Image, Wanted};
use crate::section::{self, GroupRows, SectionBatch};

impl<K, V, H> KeyedTable<K, V, H>
where
    K: Clone + Eq + Serialize + DeserializeOwned + 'static,
    V: Clone + Serialize + DeserializeOwned + 'static,
    H: Hashing<K>,
{
    pub(super) fn restore_image(&mut self, uid: &str, image: &Image) -> Result<u64, StateError> {
        assert!(self.entries == 0, "only an empty table is restored");
        for wanted in image.wanted(uid, &self.name, &self.range) {
            self.restore_section(image, &wanted)?;
        }
        Ok(self.entries)
    }

    fn restore_section(&mut self, image: &Image, wanted: &Wanted<'_>) -> Result<(), StateError> {
        let head = &wanted.section.head;
        for rows in &wanted.groups {
            let index = (rows.group - self.range.start) as usize;
            let group = &mut self.groups[index];
            let section_bytes = wanted.section.bytes;
            let share = u128::from(section_bytes) * u128::from(rows.rows);
            let bytes = (share / u128::from(head.rows.max(1))) as u64;
            if rows.since == 0 {
                if !group.slots.is_empty() {
                    let object = image.objects()[wanted.object as usize].name().to_owned();
                    let why = "its index has two whole copies of a key group".to_owned();
                    return Err(StateError::Object { object, why });
                }
                // The index may say anything; hardly a row takes less than a byte.
                let rows = rows.rows.min(section_bytes) as usize;
                group.slots.reserve(rows, home_of::<K, V, H>);
            }
            group.changes.chain.push(Link {
                place: Place::Restored(wanted.object),
                interval: head.interval,
                since: rows.since,
                bytes: bytes.max(LINK_BYTES_MIN),
                hashes: Vec::new(),
                deleted: Vec::new(),
            });
        }
        let object = &image.objects()[wanted.object as usize];
        for batch in section::read(&self.name, object.section_bytes(wanted.section)?)? {
            self.restore_batch(&batch?, head.interval, &wanted.groups)?;
        }
        Ok(())
    }

    fn restore_batch(
        &mut self,
        batch: &SectionBatch,
        interval: u32,
        groups: &[GroupRows],
    ) -> Result<(), StateError> {
        let codec = |source| StateError::Codec { state: self.name.clone(), source };
        let end = batch.first_row + batch.deleted.len() as u64;
        let mut touched = groups
            .iter()
            .filter(|rows| rows.first_row < end && rows.first_row + rows.rows > batch.first_row)
            .peekable();
        if touched.peek().is_none() {
            return Ok(());
        }
        let keys = ColumnReader::<K>::new(&batch.key.0, &batch.key.1).map_err(codec)?;
        let values = ColumnReader::<V>::new(&batch.value.0, &batch.value.1).map_err(codec)?;
        for rows in touched {
            let group = &mut self.groups[(rows.group - self.range.start) as usize];
            let link = group.changes.chain.last_mut().expect("pushed before its rows are read");
            let first = rows.first_row.max(batch.first_row) - batch.first_row;
            let last = (rows.first_row + rows.rows).min(end) - batch.first_row;
            for row in first as usize..last as usize {
                let key = keys.get(row).map_err(codec)?;
                let (hash, lookup) = H::both(&key);
                let hashed = self.key_groups.of(hash);
                if hashed != rows.group {
                    let (state, stored) = (self.name.clone(), rows.group);
                    return Err(StateError::Moved { state, stored, hashed });
                }
                if batch.deleted.value(row) {
                    let found = group.slots.find_entry(home(lookup), |slot| slot.key == key);
                    if let Ok(found) = found {
                        found.remove();
                        self.entries -= 1;
                    }
                    link.deleted.push(key);
                    continue;
                }
                let value = values.get(row).map_err(codec)?;
                if rows.since > 0 {
                    link.hashes.push(lookup);
                }
                let found =
                    group.slots.entry(home(lookup), |slot| slot.key == key, home_of::<K, V, H>);
                let slot = Slot { key, value, changed: interval, mark: 0 };
                match found {
                    Entry::Occupied(mut found) => *found.get_mut() = slot,
                    Entry::Vacant(free) => {
                        free.insert(slot);
                        self.entries += 1;
                    }
                }
            }
        }
        Ok(())
    }
}
