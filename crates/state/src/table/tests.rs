//! A table against a plain map: changed, frozen, encoded in slices while it changes on, lost, and restored by any
//! number of workers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::chain::Place;
use crate::object::{self, Object};

const GROUPS: u32 = 8;

#[derive(Clone, Debug)]
enum Step {
    Set(u16, u32),
    Add(u16, u32),
    /// Only if the key has no value.
    Insert(u16, u32),
    Remove(u16),
    /// Looks for the key's entry; where it was seen is where all of the above look first from then on, whatever becomes of it.
    Look(u16),
    /// Freezes, and encodes a first slice.
    Freeze,
    /// Encodes another slice.
    Encode,
    /// The attempt dies; so many workers start from the last finished checkpoint.
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..40_u16;
    let step = prop_oneof![
        6 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Step::Set(key, value)),
        6 => (key.clone(), 1..9_u32).prop_map(|(key, value)| Step::Add(key, value)),
        3 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
        3 => key.clone().prop_map(Step::Remove),
        3 => key.prop_map(Step::Look),
        3 => Just(Step::Freeze),
        4 => Just(Step::Encode),
        1 => (1..4_usize).prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 0..400)
}

/// Some workers' tables of one state, and what a store would hold of them.
struct World {
    tables: Vec<KeyedTable<u16, u32>>,
    interval: u32,
    frozen: Option<Pending>,
    /// Committed objects by place of this attempt.
    objects: Vec<(Object, Option<(usize, u32)>)>,
    committed: BTreeMap<u16, u32>,
    model: BTreeMap<u16, u32>,
    crashes: usize,
    /// By key.
    spots: BTreeMap<u16, Spot>,
}

struct Pending {
    interval: u32,
    model: BTreeMap<u16, u32>,
    sections: Vec<Option<Vec<Section>>>,
}

impl World {
    fn new(workers: usize) -> Self {
        let mut world = World {
            tables: Vec::new(),
            interval: 1,
            frozen: None,
            objects: Vec::new(),
            committed: BTreeMap::new(),
            model: BTreeMap::new(),
            crashes: 0,
            spots: BTreeMap::new(),
        };
        world.restart(workers);
        world
    }

    fn restart(&mut self, workers: usize) {
        self.crashes += 1;
        self.frozen = None;
        self.interval += 1;
        self.model = self.committed.clone();
        self.objects.iter_mut().for_each(|(_, own)| *own = None);
        let image = Image::new(self.objects.iter().map(|(object, _)| object.clone()).collect());
        let groups = KeyGroups::new(GROUPS);
        self.tables = (0..workers)
            .map(|worker| {
                let range = groups.range(worker, workers);
                let mut table = KeyedTable::new("s", Kind::Value, groups, range);
                table.restore("op", &image).unwrap();
                table.begin(self.interval, true);
                table
            })
            .collect();
        self.check();
    }

    fn table(&mut self, key: u16) -> &mut KeyedTable<u16, u32> {
        let groups = KeyGroups::new(GROUPS);
        let group = groups.of(hash_key(&key).unwrap());
        let workers = self.tables.len();
        &mut self.tables[groups.owners(workers)[group as usize] as usize]
    }

    fn encode(&mut self, rows: usize) {
        let Some(pending) = &mut self.frozen else { return };
        for (table, sections) in self.tables.iter_mut().zip(&mut pending.sections) {
            if sections.is_none()
                && let Slice::Done(done) = table.encode(rows).unwrap()
            {
                *sections = Some(done);
            }
        }
        if pending.sections.iter().all(Option::is_some) {
            let pending = self.frozen.take().unwrap();
            for (worker, sections) in pending.sections.into_iter().enumerate() {
                let sections: Vec<_> = sections
                    .unwrap()
                    .into_iter()
                    .map(|section| ("op".to_owned(), section))
                    .collect();
                let name = format!("c{}-i{}-w{worker}", self.crashes, pending.interval);
                let object = Object::open(&name, object::write(&sections).concat().into()).unwrap();
                self.objects.push((object, Some((worker, pending.interval))));
            }
            self.committed = pending.model;
            self.collect();
        }
    }

    /// Drops every object that no table's chain needs, as garbage collection does.
    fn collect(&mut self) {
        let restored: Vec<bool> = self.objects.iter().map(|(_, own)| own.is_none()).collect();
        let needed: Vec<BTreeMap<Place, u64>> = self.tables.iter().map(|t| t.places()).collect();
        let keep: Vec<bool> = (0..self.objects.len())
            .map(|number| match self.objects[number].1 {
                // Numbers of restored objects must not shift while this attempt lives.
                None => restored[number],
                Some((worker, interval)) => needed[worker].contains_key(&Place::Own(interval)),
            })
            .collect();
        let mut keep = keep.into_iter();
        self.objects.retain(|_| keep.next().unwrap());
    }

    fn check(&self) {
        let mut seen = BTreeMap::new();
        for table in &self.tables {
            for group in 0..table.group_count() {
                seen.extend(table.group_entries(group).map(|(key, value)| (*key, *value)));
            }
        }
        assert_eq!(seen, self.model);
        let entries: u64 = self.tables.iter().map(|table| table.len()).sum();
        assert_eq!(entries, self.model.len() as u64);
    }

    fn step(&mut self, step: Step) {
        let spot = |world: &World, key| world.spots.get(&key).copied().unwrap_or_default();
        let hash = |key: u16| hash_key(&key).unwrap();
        match step {
            Step::Set(key, value) => {
                self.table(key).set(key, value);
                self.model.insert(key, value);
            }
            Step::Add(key, value) => {
                let (spot, hash) = (spot(self, key), hash(key));
                let found = self.table(key).get_at(spot, hash, hash, &key).copied();
                assert_eq!(found, self.model.get(&key).copied());
                let slot = self.table(key).upsert_at(spot, hash, hash, key, || 0).value;
                *slot = slot.wrapping_add(value);
                let slot = self.model.entry(key).or_insert(0);
                *slot = slot.wrapping_add(value);
            }
            Step::Insert(key, value) => {
                let hash = hash(key);
                let is_absent = self.table(key).insert_hashed(hash, hash, key, || value);
                assert_eq!(is_absent, !self.model.contains_key(&key));
                self.model.entry(key).or_insert(value);
            }
            Step::Remove(key) => {
                let (spot, hash) = (spot(self, key), hash(key));
                let removed = self.table(key).remove_at(spot, hash, hash, &key);
                assert_eq!(removed, self.model.remove(&key));
            }
            Step::Look(key) => {
                let hash = hash(key);
                let spot = self.table(key).look_ahead([(hash, hash)].into_iter())[0];
                self.spots.insert(key, spot);
            }
            Step::Freeze if self.frozen.is_none() => {
                let interval = self.interval;
                self.interval += 1;
                let retire = self.objects.iter().position(|(_, own)| own.is_none());
                let retire = retire.map(|number| Place::Restored(number as u32));
                for table in &mut self.tables {
                    table.freeze(self.interval, retire);
                }
                let sections = self.tables.iter().map(|_| None).collect();
                self.frozen = Some(Pending { interval, model: self.model.clone(), sections });
                self.encode(1);
            }
            Step::Freeze | Step::Encode => self.encode(5),
            Step::Crash(workers) => self.restart(workers),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn restored_state_is_the_state_at_the_freeze(steps in steps(), workers in 1..4_usize) {
        let mut world = World::new(workers);
        for step in steps {
            world.step(step);
        }
        world.check();
        world.restart(2);
    }
}

#[test]
fn one_changed_key_makes_a_small_section() {
    let groups = KeyGroups::default();
    let mut table: KeyedTable<u64, (u64, i64)> =
        KeyedTable::new("sum", Kind::Accumulator, groups, groups.range(0, 1));
    table.begin(1, true);
    for key in 0..200_000 {
        table.upsert(key, || (0, 0)).0 += 1;
    }
    for interval in 1..10 {
        table.freeze(interval + 1, None);
        let sections = loop {
            if let Slice::Done(sections) = table.encode(8192).unwrap() {
                break sections;
            }
        };
        let size: usize = sections.iter().map(|section| section.bytes.len()).sum();
        if interval == 1 {
            assert!(size > 200_000 * 24, "{size}");
        } else {
            assert!(size < 10_000, "{size}");
        }
        table.upsert(7, || (0, 0)).1 += 1;
    }
    assert_eq!(table.places().len(), 2, "{:?}", table.places());
}
