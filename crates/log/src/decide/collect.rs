//! What may be deleted once a checkpoint commits.
//!
//! The rules:
//!
//! 1. Retained are the new checkpoint and those before it in its own lineage (by `previous`), up to the
//!    number asked for.
//! 2. Every other checkpoint entry is garbage: those that have fallen out, and also those of lineages that
//!    a recovery went behind, whether older or newer than the base. Until the new checkpoint commits they
//!    stay, since the attempt may end before. From then on no recovery chooses them
//!    ([`next_base`](super::next_base), rules 1 and 2), deleted or not.
//! 3. Garbage is what those entries name (objects, manifest, staged output) and no retained entry does.
//! 4. Attempt entries are never garbage: they aren't among the holdings, and names of entries that were
//!    listed before are checked when they are deleted.
//! 5. What was listed before and isn't known to be deleted is listed again, unless a retained entry names
//!    it. Deleting twice is harmless, since names are never used again.
//!
//! Invariants kept here:
//!
//! - **1**: if a retained log entry exists, every object that it names exists, whole.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use crate::entry::{CheckpointEntry, Manifest};
use crate::names;

/// What a checkpoint holds on to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The checkpoint that it builds upon.
    pub previous: Option<u64>,
    /// The names of all objects that it refers to: manifest, chain, output staged and not yet recorded as
    /// published.
    pub objects: BTreeSet<String>,
}

impl Holding {
    /// What `checkpoint` holds on to. If its manifest can't be read, its chain is not included: it can't be
    /// recovered to, and what remains of its chain is swept as leftovers by a later attempt.
    pub fn new(checkpoint: &CheckpointEntry, manifest: Option<&Manifest>) -> Self {
        let chain = manifest.into_iter().flat_map(|manifest| &manifest.objects);
        let staged = checkpoint.staged.iter().flat_map(|output| &output.items);
        let objects = chain
            .map(|object| &object.name)
            .chain(staged.map(|item| &item.name))
            .chain([&checkpoint.manifest.name])
            .cloned()
            .collect();
        Holding { previous: checkpoint.previous, objects }
    }
}

/// The names that may be deleted once the checkpoint `next` commits as entry `number`: what to write as its
/// `garbage`.
///
/// `existing` holds every other checkpoint entry that exists (one that can't be read, with nothing);
/// `listed` holds the names that earlier entries listed and that aren't known to be deleted.
///
/// # Panics
///
/// If the result would take something from a retained checkpoint (invariant 1), which would be a bug.
pub fn collect(
    retain: NonZeroUsize,
    existing: &BTreeMap<u64, Holding>,
    number: u64,
    next: &Holding,
    listed: &BTreeSet<String>,
) -> Vec<String> {
    let mut retained = BTreeMap::from([(number, next)]);
    let mut previous = next.previous;
    // Links lead downwards; a link that doesn't would be a bug, and must not become an endless loop.
    let mut below = number;
    while retained.len() < retain.get()
        && let Some(older) = previous
        && older < below
        && let Some(holding) = existing.get(&older)
    {
        retained.insert(older, holding);
        previous = holding.previous;
        below = older;
    }

    let mut kept: BTreeSet<&str> = BTreeSet::new();
    for holding in retained.values() {
        kept.extend(holding.objects.iter().map(String::as_str));
    }
    let mut garbage = BTreeSet::new();
    for (number, holding) in existing.iter().filter(|(number, _)| !retained.contains_key(number)) {
        garbage.insert(names::entry(*number));
        garbage.extend(holding.objects.iter().cloned());
    }
    garbage.extend(listed.iter().cloned());
    garbage.retain(|name| match names::entry_number(name) {
        Some(number) => !retained.contains_key(&number),
        None => !kept.contains(name.as_str()),
    });
    for (number, holding) in &retained {
        assert!(
            !garbage.contains(&names::entry(*number)) && holding.objects.is_disjoint(&garbage),
            "invariant 1: garbage would take from the retained checkpoint {number}"
        );
    }
    garbage.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::samples;
    use crate::entry::{Body, ObjectRef};

    fn holding(previous: Option<u64>, objects: &[&str]) -> Holding {
        Holding { previous, objects: objects.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn retain(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap()
    }

    #[test]
    fn a_holding_is_everything_named() {
        let mut entry = samples::checkpoint(3, 0, Some(2));
        let Body::Checkpoint(body) = &mut entry.body else { unreachable!() };
        body.staged = vec![samples::staged(3, "stage/x", None)];
        let manifest = Manifest { format: 1, objects: vec![ObjectRef::new("data/y", b"")] };
        let all = holding(Some(2), &["stage/x", "data/y", &names::manifest(0, 3)]);
        assert_eq!(Holding::new(body, Some(&manifest)), all);
        let without = holding(Some(2), &["stage/x", &names::manifest(0, 3)]);
        assert_eq!(Holding::new(body, None), without);
    }

    #[test]
    fn the_oldest_of_the_lineage_fall_out() {
        let existing = BTreeMap::from([
            (1, holding(None, &["a", "m1"])),
            (2, holding(Some(1), &["a", "b", "m2"])),
            (3, holding(Some(2), &["b", "c", "m3"])),
        ]);
        let next = holding(Some(3), &["b", "d", "m4"]);
        let none = BTreeSet::new();
        let garbage = |number| collect(retain(number), &existing, 4, &next, &none);
        assert_eq!(garbage(4), Vec::<String>::new());
        let [one, two, three] = [1, 2, 3].map(names::entry);
        assert_eq!(garbage(3), [one.as_str(), "m1"]);
        assert_eq!(garbage(2), ["a", &one, &two, "m1", "m2"]);
        assert_eq!(garbage(1), ["a", "c", &one, &two, &three, "m1", "m2", "m3"]);
    }

    #[test]
    fn what_recovery_went_behind_becomes_garbage() {
        // The attempt at 4 went behind 3 to 2.
        let existing = BTreeMap::from([
            (2, holding(None, &["a"])),
            (3, holding(Some(2), &["a", "c"])),
            (9, Holding::default()),
        ]);
        let garbage =
            collect(retain(9), &existing, 5, &holding(Some(2), &["a", "d"]), &BTreeSet::new());
        assert_eq!(garbage, ["c", names::entry(3).as_str(), &names::entry(9)]);
    }

    #[test]
    fn listed_names_are_carried_unless_named_again() {
        let existing = BTreeMap::from([(2, holding(None, &["a"]))]);
        let listed: BTreeSet<String> =
            ["a", "old", &names::entry(1), &names::entry(2)].map(str::to_owned).into();
        let garbage = collect(retain(2), &existing, 3, &holding(Some(2), &["b"]), &listed);
        assert_eq!(garbage, [names::entry(1).as_str(), "old"]);
    }

    /// Every log of up to five checkpoints, with every choice of links, chains and retention.
    #[test]
    fn enumerated() {
        // Each checkpoint links to none or any lower one, and keeps all, none or the older half of its chain.
        fn grow(existing: &mut BTreeMap<u64, Holding>, left: u64, cases: &mut u64) {
            let number = existing.len() as u64 + 1;
            let links: Vec<Option<u64>> =
                std::iter::once(None).chain(existing.keys().copied().map(Some)).collect();
            for previous in links {
                for keep in 0..3 {
                    let chain = previous.map(|p| existing[&p].objects.clone()).unwrap_or_default();
                    let keep = [0, chain.len() / 2, chain.len()][keep];
                    let mut objects: BTreeSet<String> = chain.into_iter().take(keep).collect();
                    objects.insert(format!("o{number}"));
                    let next = Holding { previous, objects };
                    for retain in 1..=3 {
                        check(retain, existing, number, &next);
                        *cases += 1;
                    }
                    if left > 1 {
                        existing.insert(number, next);
                        grow(existing, left - 1, cases);
                        existing.remove(&number);
                    }
                }
            }
        }

        fn check(n: usize, existing: &BTreeMap<u64, Holding>, number: u64, next: &Holding) {
            let listed = BTreeSet::from(["o1".to_owned(), "x".to_owned()]);
            let garbage: BTreeSet<String> =
                collect(retain(n), existing, number, next, &listed).into_iter().collect();
            let mut lineage = vec![];
            let mut link = next.previous;
            while let Some(number) = link.filter(|_| lineage.len() + 1 < n) {
                lineage.push(number);
                link = existing[&number].previous;
            }
            let needed = |name: &str| {
                next.objects.contains(name)
                    || lineage.iter().any(|number| existing[number].objects.contains(name))
            };
            for (other, holding) in existing {
                let out = !lineage.contains(other);
                assert_eq!(garbage.contains(&names::entry(*other)), out);
                for name in &holding.objects {
                    let expected = !needed(name) && (out || listed.contains(name));
                    assert_eq!(garbage.contains(name), expected, "{name}");
                }
            }
            assert!(garbage.contains("x") && !garbage.contains(&names::entry(number)));
        }

        let mut cases = 0;
        grow(&mut BTreeMap::new(), 5, &mut cases);
        assert!(cases > 10_000, "{cases}");
    }
}
