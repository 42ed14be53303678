//! Tests of the choice of a base: by example, and by enumeration of all short logs.

use super::*;
use crate::decide::samples::{attempt, checkpoint, damaged, staged};
use crate::entry::{Body, Entry, StagedOutput};

/// A log from what is at each number, from 0 on.
fn log(slots: Vec<Option<Found>>) -> Facts {
    let entries = slots.into_iter().enumerate();
    let entries = entries.filter_map(|(number, found)| Some((number as u64, found?))).collect();
    Facts { entries }
}

fn sound(entry: Entry) -> Option<Found> {
    Some(Found::Sound(Box::new(entry)))
}

fn with_output(mut entry: Entry, output: StagedOutput) -> Entry {
    let Body::Checkpoint(body) = &mut entry.body else { unreachable!() };
    body.staged.push(output);
    entry
}

fn broken(numbers: &[u64]) -> BTreeMap<u64, String> {
    numbers.iter().map(|number| (*number, format!("object{number} is missing"))).collect()
}

fn refusal(base: &Base) -> &str {
    match base {
        Base::Refuse { why, what_to_do } => {
            assert!(!what_to_do.is_empty());
            why
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_and_starting_over_are_fresh() {
    for exactly_once in [false, true] {
        let base = |facts: &Facts, own| next_base(facts, own, &broken(&[]), exactly_once);
        assert_eq!(base(&Facts::default(), 0), Base::Fresh);
        let idle = log(vec![sound(attempt(0, false)), sound(attempt(1, false))]);
        assert_eq!(base(&idle, 2), Base::Fresh);
        let over =
            vec![sound(attempt(0, false)), sound(checkpoint(1, 0, None)), sound(attempt(2, true))];
        assert_eq!(base(&log(over.clone()), 3), Base::Fresh);
        // Also one's own entry.
        assert_eq!(base(&log(over), 2), Base::Fresh);
    }
}

#[test]
fn all_lost_is_no_fresh_start() {
    let first = sound(attempt(0, false));
    let gone = log(vec![first.clone(), None, sound(attempt(2, false))]);
    let last = log(vec![first.clone()]);
    let everything = Facts::default();
    for exactly_once in [false, true] {
        for (facts, own, path) in [(&gone, 3, 1), (&last, 2, 1), (&everything, 4, 3)] {
            let base = next_base(facts, own, &broken(&[]), exactly_once);
            assert!(refusal(&base).contains(&names::entry(path)), "{base:?}");
        }
        let one = log(vec![first.clone(), sound(checkpoint(1, 0, None))]);
        let base = next_base(&one, 2, &broken(&[1]), exactly_once);
        assert!(refusal(&base).contains("object1 is missing"), "{base:?}");
    }
}

#[test]
fn falls_back_along_the_lineage_only() {
    // Attempt 3 went behind 2 to 1 and committed 4.
    let facts = log(vec![
        sound(attempt(0, false)),
        sound(checkpoint(1, 0, None)),
        sound(checkpoint(2, 0, Some(1))),
        sound(attempt(3, false)),
        sound(checkpoint(4, 3, Some(1))),
    ]);
    for exactly_once in [false, true] {
        let base = |numbers: &[u64]| next_base(&facts, 5, &broken(numbers), exactly_once);
        assert_eq!(base(&[]), Base::Checkpoint(4));
        assert_eq!(base(&[4]), Base::Checkpoint(1));
        assert!(refusal(&base(&[1, 4])).contains("object4"));
    }
}

#[test]
fn never_behind_output_if_exactly_once() {
    let facts = |output| {
        let entry = with_output(checkpoint(2, 0, Some(1)), output);
        log(vec![sound(attempt(0, false)), sound(checkpoint(1, 0, None)), sound(entry)])
    };
    let base = |output, exactly_once| next_base(&facts(output), 3, &broken(&[2]), exactly_once);
    let (own, assigned) = (staged(2, "x", None), staged(1, "x", Some("p")));
    for output in [&own, &assigned] {
        assert_eq!(base(output.clone(), false), Base::Checkpoint(1));
        assert!(refusal(&base(output.clone(), true)).contains("published"));
    }
    // Held back since an older checkpoint, which carries it too; and no output at all.
    assert_eq!(base(staged(1, "x", None), true), Base::Checkpoint(1));
    let none = StagedOutput { items: vec![], ..staged(2, "x", None) };
    assert_eq!(base(none, true), Base::Checkpoint(1));
}

#[test]
fn damage_is_passed_only_where_nothing_can_be_lost() {
    let facts = |damage: Found| {
        log(vec![sound(attempt(0, false)), sound(checkpoint(1, 0, None)), Some(damage)])
    };
    let base = |why: Why, kind, exactly_once| {
        next_base(&facts(damaged(2, why, kind)), 3, &broken(&[]), exactly_once)
    };
    let path = names::entry(2);
    assert_eq!(base(Why::Checksum, Some(Kind::Checkpoint), false), Base::Checkpoint(1));
    for (kind, exactly_once) in [
        (Some(Kind::Checkpoint), true),
        (Some(Kind::Attempt), true),
        (Some(Kind::Attempt), false),
        (None, true),
        (None, false),
    ] {
        assert!(refusal(&base(Why::Checksum, kind, exactly_once)).contains(&path));
    }
    let later = Why::Format { found: 2, known: 1 };
    let Base::Refuse { what_to_do, .. } = base(later, Some(Kind::Checkpoint), false) else {
        panic!()
    };
    assert!(what_to_do.contains("version of the program"));
    // Damage below the base is nobody's concern.
    let below = log(vec![Some(damaged(0, Why::Checksum, None)), sound(checkpoint(1, 0, None))]);
    assert_eq!(next_base(&below, 2, &broken(&[]), true), Base::Checkpoint(1));
    // A link shows what the damage was.
    let linked = log(vec![
        sound(attempt(0, false)),
        sound(checkpoint(1, 0, None)),
        Some(damaged(2, Why::Checksum, None)),
        sound(checkpoint(3, 0, Some(2))),
    ]);
    assert_eq!(next_base(&linked, 4, &broken(&[3]), false), Base::Checkpoint(1));
    assert!(refusal(&next_base(&linked, 4, &broken(&[3]), true)).contains(&path));
}

#[test]
fn what_a_newer_entry_lists_as_garbage_is_never_chosen() {
    let mut newer = checkpoint(3, 0, Some(2));
    let Body::Checkpoint(body) = &mut newer.body else { unreachable!() };
    body.garbage = vec![names::entry(1), "data/x".to_owned()];
    let facts = log(vec![
        sound(attempt(0, false)),
        sound(checkpoint(1, 0, None)),
        sound(checkpoint(2, 0, Some(1))),
        sound(newer),
    ]);
    for exactly_once in [false, true] {
        let base = |numbers: &[u64]| next_base(&facts, 4, &broken(numbers), exactly_once);
        assert_eq!(base(&[3]), Base::Checkpoint(2));
        refusal(&base(&[2, 3]));
    }
}

#[test]
fn vanished_checkpoints_count_as_published() {
    let facts = log(vec![
        sound(attempt(0, false)),
        sound(checkpoint(1, 0, None)),
        None,
        sound(checkpoint(3, 0, Some(2))),
        sound(attempt(4, false)),
    ]);
    assert_eq!(next_base(&facts, 5, &broken(&[]), true), Base::Checkpoint(3));
    assert_eq!(next_base(&facts, 5, &broken(&[3]), false), Base::Checkpoint(1));
    let base = next_base(&facts, 5, &broken(&[3]), true);
    assert!(refusal(&base).contains(&names::entry(2)), "{base:?}");
}

#[test]
fn attempts_follow_one_another() {
    // Attempt 2 took over from 0; attempt 5 has only filled a hole.
    let facts = |attempt_of_6, attempt_of_7| {
        log(vec![
            sound(attempt(0, false)),
            sound(checkpoint(1, 0, None)),
            sound(attempt(2, false)),
            sound(checkpoint(3, 2, Some(1))),
            sound(checkpoint(4, 2, Some(3))),
            sound(attempt(5, false)),
            sound(checkpoint(6, attempt_of_6, Some(4))),
            sound(checkpoint(7, attempt_of_7, Some(6))),
        ])
    };
    for exactly_once in [false, true] {
        let base = |facts: Facts| next_base(&facts, 8, &broken(&[]), exactly_once);
        for (six, seven) in [(2, 2), (5, 5)] {
            assert_eq!(base(facts(six, seven)), Base::Checkpoint(7));
        }
        for (six, seven) in [(2, 0), (2, 1), (2, 3), (5, 2), (5, 4)] {
            let base = base(facts(six, seven));
            for number in [6, 7] {
                assert!(refusal(&base).contains(&names::entry(number)), "{base:?}");
            }
        }
    }
}

/// What a number of an enumerated log holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slot {
    Hole,
    Attempt { fresh: bool },
    Damaged(Option<Kind>),
    Checkpoint { previous: Option<u64>, broken: bool, output: bool },
}

fn slots(number: u64) -> Vec<Slot> {
    let mut slots = vec![Slot::Hole];
    slots.extend([false, true].map(|fresh| Slot::Attempt { fresh }));
    slots.extend([None, Some(Kind::Attempt), Some(Kind::Checkpoint)].map(Slot::Damaged));
    if number > 0 {
        for previous in std::iter::once(None).chain((0..number).map(Some)) {
            for (broken, output) in [(false, false), (true, false), (true, true)] {
                slots.push(Slot::Checkpoint { previous, broken, output });
            }
        }
    }
    slots
}

#[test]
fn enumerated() {
    fn grow(log: &mut Vec<Slot>, length: u64, cases: &mut u64) {
        check(log);
        *cases += 2;
        if (log.len() as u64) < length {
            for slot in slots(log.len() as u64) {
                log.push(slot);
                grow(log, length, cases);
                log.pop();
            }
        }
    }
    let mut cases = 0;
    grow(&mut Vec::new(), 5, &mut cases);
    assert!(cases > 100_000, "{cases}");
}

fn check(slots: &[Slot]) {
    let own = slots.len() as u64;
    let mut bad = BTreeMap::new();
    let mut facts = Facts::default();
    for (number, slot) in slots.iter().enumerate() {
        let number = number as u64;
        let found = match *slot {
            Slot::Hole => continue,
            Slot::Attempt { fresh } => Found::Sound(Box::new(attempt(number, fresh))),
            Slot::Damaged(kind) => damaged(number, Why::Checksum, kind),
            Slot::Checkpoint { previous, broken, output } => {
                let is_attempt = |slot: &Slot| matches!(slot, Slot::Attempt { .. });
                let attempt = slots[..number as usize].iter().rposition(is_attempt);
                let mut entry = checkpoint(number, attempt.unwrap_or(0) as u64, previous);
                if output {
                    entry = with_output(entry, staged(number, "x", Some("p")));
                }
                if broken {
                    bad.insert(number, "broken".to_owned());
                }
                Found::Sound(Box::new(entry))
            }
        };
        facts.entries.insert(number, found);
    }
    for exactly_once in [false, true] {
        let base = next_base(&facts, own, &bad, exactly_once);
        judge(slots, &facts, exactly_once, &base);
    }
}

/// Holds a choice against the rules, each stated on its own and without walking.
fn judge(slots: &[Slot], facts: &Facts, exactly_once: bool, base: &Base) {
    let own = slots.len();
    let context = || format!("{slots:?} exactly_once={exactly_once}: {base:?}");
    let fresh = |slot: &Slot| *slot == Slot::Attempt { fresh: true };
    // The part of the log that counts, and what of it isn't skipped by a link of a lost checkpoint.
    let floor = slots.iter().rposition(fresh).map_or(0, |at| at + 1);
    let skipped = |at: usize, from: usize| {
        (at.max(from) + 1..own).any(|newer| match slots[newer] {
            Slot::Checkpoint { previous: Some(previous), broken: true, .. } => {
                (previous as usize) < at && !skipped_by_any(slots, newer)
            }
            Slot::Checkpoint { previous: None, broken: true, .. } => !skipped_by_any(slots, newer),
            _ => false,
        })
    };
    let losses = || (floor..own).filter(|at| !matches!(slots[*at], Slot::Attempt { .. }));
    match base {
        Base::Fresh => assert_eq!(losses().next(), None, "{}", context()),
        Base::Checkpoint(number) => {
            let at = *number as usize;
            let Slot::Checkpoint { broken: false, .. } = slots[at] else { panic!("{}", context()) };
            assert!(at >= floor, "{}", context());
            assert!(!skipped(at, floor), "{}", context());
            for (newer, slot) in slots.iter().enumerate().skip(at + 1) {
                if skipped(newer, floor) {
                    continue;
                }
                match slot {
                    Slot::Checkpoint { broken, output, .. } => {
                        assert!(*broken && !(exactly_once && *output), "{}", context());
                    }
                    Slot::Damaged(_) => {
                        let kind = facts.kind(newer as u64);
                        let passable = !exactly_once && kind == Some(Kind::Checkpoint);
                        assert!(passable, "{}", context());
                    }
                    Slot::Hole => assert!(!exactly_once, "{}", context()),
                    Slot::Attempt { fresh } => assert!(!fresh, "{}", context()),
                }
            }
        }
        Base::Refuse { .. } => {
            // Something was lost, and the newest that isn't an attempt's start is no usable checkpoint.
            let newest = losses().next_back();
            let newest = newest.map(|at| slots[at]);
            assert!(newest.is_some(), "{}", context());
            let usable = matches!(newest, Some(Slot::Checkpoint { broken: false, .. }));
            assert!(!usable, "{}", context());
            if !exactly_once && slots[floor..].iter().all(|slot| !matches!(slot, Slot::Damaged(_)))
            {
                let left = (floor..own)
                    .filter(|at| matches!(slots[*at], Slot::Checkpoint { broken: false, .. }))
                    .find(|at| !skipped(*at, floor));
                assert_eq!(left, None, "{}", context());
            }
        }
    }
}

/// Whether the walk never comes to `at`, because a newer lost checkpoint's link leads past it.
fn skipped_by_any(slots: &[Slot], at: usize) -> bool {
    (at + 1..slots.len()).any(|newer| match slots[newer] {
        Slot::Checkpoint { previous, broken: true, .. } => {
            previous.is_none_or(|previous| (previous as usize) < at)
                && !skipped_by_any(slots, newer)
        }
        _ => false,
    })
}
