//! Encoding the frozen interval of a table, a few key groups at a time.

use arrow_array::BooleanArray;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{FrozenGroup, Group, Hashing, KeyedTable, Slice, home};
use crate::StateError;
use crate::chain::{self, LINK_BYTES_MIN, Link, Place};
use crate::section::GroupRows;

/// What a group writes now.
struct Work {
    /// Its index within the table.
    index: usize,
    /// So many links stay.
    keep: usize,
    /// What is written stands for all changes from this interval on.
    since: u32,
}

/// Rows that are about to be written, borrowed from the table.
struct Rows<'a, K, V> {
    rows: Vec<(&'a K, Option<&'a V>)>,
    groups: Vec<GroupRows>,
    /// The lookup hashes of each group's new link.
    hashes: Vec<Vec<u64>>,
}

impl<K, V, H> KeyedTable<K, V, H>
where
    K: Clone + Eq + Serialize + DeserializeOwned + 'static,
    V: Clone + Serialize + DeserializeOwned + 'static,
    H: Hashing<K>,
{
    pub(super) fn encode_slice(&mut self, row_target: usize) -> Result<Slice, StateError> {
        let Some(frozen) = &self.frozen else { return Ok(Slice::Done(Vec::new())) };
        let (interval, retire, start) = (frozen.interval, frozen.retire, frozen.cursor);
        let mut work = Vec::new();
        let mut planned_rows = 0;
        let mut cursor = start;
        while cursor < self.groups.len() && planned_rows < row_target {
            let group = &mut self.groups[cursor];
            group.settle(self.stamp);
            match plan_group(group, interval, retire) {
                Some((plan, rows)) => {
                    planned_rows += rows;
                    work.push(Work { index: cursor, ..plan });
                }
                None => group.changes.frozen = None,
            }
            cursor += 1;
        }
        if !work.is_empty() {
            self.write_groups(&work, interval)?;
        }
        let frozen = self.frozen.as_mut().expect("checked above");
        frozen.cursor = cursor;
        if cursor < self.groups.len() {
            return Ok(Slice::More);
        }
        let frozen = self.frozen.take().expect("checked above");
        Ok(Slice::Done(frozen.writer.finish()?))
    }

    fn write_groups(&mut self, work: &[Work], interval: u32) -> Result<(), StateError> {
        let codec = |source| StateError::Codec { state: self.name.clone(), source };
        let mut rows = Rows { rows: Vec::new(), groups: Vec::new(), hashes: Vec::new() };
        for work in work {
            let group = self.range.start + work.index as u32;
            gather::<K, V, H>(&self.groups[work.index], group, work, interval, &mut rows);
        }
        let keys = rows.rows.iter().map(|(key, _)| Some(*key));
        let values = rows.rows.iter().map(|(_, value)| *value);
        let key = highwater_codec::encode("key", keys, &mut self.key_tier).map_err(codec)?;
        let value =
            highwater_codec::encode("value", values, &mut self.value_tier).map_err(codec)?;
        let deleted: BooleanArray =
            rows.rows.iter().map(|(_, value)| Some(value.is_none())).collect();
        let row_count = rows.rows.len() as u64;
        let Rows { groups, hashes, .. } = rows;
        let frozen = self.frozen.as_mut().expect("only the encoder calls this");
        let bytes = frozen.writer.write(key, value, deleted, &groups)?;
        for ((work, written), hashes) in work.iter().zip(&groups).zip(hashes) {
            let group = &mut self.groups[work.index];
            let set_aside = group.changes.frozen.take().expect("settled before it was planned");
            let mut deleted = set_aside.deleted;
            if work.keep == 0 {
                deleted.clear();
            } else {
                for link in &mut group.changes.chain[work.keep..] {
                    deleted.append(&mut link.deleted);
                }
            }
            group.changes.chain.truncate(work.keep);
            group.changes.chain.push(Link {
                place: Place::Own(interval),
                interval,
                since: work.since,
                bytes: (bytes * written.rows / row_count.max(1)).max(LINK_BYTES_MIN),
                hashes: if work.keep == 0 { Vec::new() } else { hashes },
                deleted,
            });
            debug_assert_eq!(
                group.changes.chain[0].since, 0,
                "chain 1: it begins with a whole copy"
            );
        }
        Ok(())
    }
}

/// What a frozen group has to write, and about how many rows; none if nothing.
fn plan_group<K, V>(
    group: &Group<K, V>,
    interval: u32,
    retire: Option<Place>,
) -> Option<(Work, usize)> {
    let frozen = group.changes.frozen.as_ref().expect("settled");
    let fresh = frozen.changed.len() + frozen.deleted.len();
    let retired =
        retire.and_then(|place| group.changes.chain.iter().position(|link| link.place == place));
    if fresh == 0 && retired.is_none() {
        return None;
    }
    let sizes: Vec<u64> = group.changes.chain.iter().map(|link| link.bytes).collect();
    // New changes are measured by the rows of the whole copy; there is no better guess before they are encoded.
    let row_bytes = match group.changes.chain.first() {
        Some(whole) => (whole.bytes / (group.slots.len() as u64).max(1)).max(1),
        None => 1,
    };
    let keep = match fresh * 2 > group.slots.len() {
        // Walking through all entries is cheaper than looking so many up one by one, and ends the chain.
        true => 0,
        false => chain::plan(&sizes, fresh as u64 * row_bytes + LINK_BYTES_MIN, retired).keep,
    };
    let since = match keep {
        0 => 0,
        keep if keep < group.changes.chain.len() => group.changes.chain[keep].since,
        _ => interval,
    };
    let swallowed =
        group.changes.chain[keep..].iter().map(|link| link.hashes.len() + link.deleted.len());
    let rows = if keep == 0 { group.slots.len() } else { fresh + swallowed.sum::<usize>() };
    Some((Work { index: 0, keep, since }, rows))
}

/// Borrows the rows that a group writes: as of the freeze, changed at or after `work.since`.
fn gather<'a, K, V, H>(
    group: &'a Group<K, V>,
    number: u32,
    work: &Work,
    interval: u32,
    out: &mut Rows<'a, K, V>,
) where
    K: Eq,
    H: Hashing<K>,
{
    let first_row = out.rows.len() as u64;
    let frozen: &FrozenGroup<K, V> = group.changes.frozen.as_ref().expect("settled");
    let mut hashes = Vec::new();
    if work.keep == 0 {
        let slots = group.slots.iter().filter(|slot| slot.changed <= interval);
        out.rows.extend(slots.map(|slot| (&slot.key, Some(&slot.value))));
    } else {
        let swallowed = &group.changes.chain[work.keep..];
        let deleted = swallowed.iter().map(|link| &link.deleted).chain([&frozen.deleted]);
        out.rows.extend(deleted.flatten().map(|key| (key, None)));
        let lists = swallowed
            .iter()
            .map(|link| (link.since, link.interval, &link.hashes))
            .chain([(interval, interval, &frozen.changed)]);
        for (since, until, list) in lists {
            for &lookup in list {
                // An entry that changed again later is in a later list, too. All entries of one hash are taken, so that
                // keys whose hashes collide are never lost; at worst they are written twice.
                let slots = group.slots.iter_hash(home(lookup)).filter(|slot| {
                    (since..=until).contains(&slot.changed) && H::lookup(&slot.key) == lookup
                });
                for slot in slots {
                    out.rows.push((&slot.key, Some(&slot.value)));
                    hashes.push(lookup);
                }
            }
        }
    }
    for slot in frozen.saved.iter().filter(|slot| slot.changed >= work.since) {
        debug_assert!(slot.changed <= interval, "2: saved entries are older than the freeze");
        out.rows.push((&slot.key, Some(&slot.value)));
        if work.keep > 0 {
            hashes.push(H::lookup(&slot.key));
        }
    }
    let rows = out.rows.len() as u64 - first_row;
    out.groups.push(GroupRows { group: number, first_row, rows, since: work.since });
    out.hashes.push(hashes);
}
