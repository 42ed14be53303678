use super::super::testing::{drain, env, poll};
use super::*;

fn reader<F: Fn(u64) -> u64 + Send + Sync + 'static>(
    generator: &Generator<F>,
    splits: Vec<(String, SplitOffset)>,
) -> GeneratorReader<F> {
    let mut reader = GeneratorReader::new(generator, 4096, env());
    Reader::add(&mut reader, splits, 8).unwrap();
    reader
}

#[test]
fn every_row_is_made_once_whoever_makes_it() {
    for limit in [0, 1, 7, 8, 100_003] {
        let generator = Generator::new(|index| index).limit(limit);
        let ids = Source::splits(&generator, &[]).unwrap();
        assert_eq!(ids.len(), 8);
        let mut all = Vec::new();
        for worker in ids.chunks(3) {
            let mut one = reader(&generator, worker.to_vec());
            // Some, and the rest in another attempt.
            if let Some(rows) = poll::<u64>(&mut one, env().as_ref()).unwrap() {
                all.extend(rows);
            }
            let mut splits: std::collections::BTreeMap<_, _> = worker.iter().cloned().collect();
            splits.extend(one.offsets());
            let splits = splits.into_iter().filter(|(_, offset)| !offset.ended).collect();
            let mut rest = reader(&generator, splits);
            all.extend(drain::<u64>(&mut rest, env().as_ref()).unwrap());
            assert!(rest.offsets().iter().all(|(_, offset)| offset.ended));
        }
        all.sort_unstable();
        assert_eq!(all, (0..limit).collect::<Vec<_>>());
    }
}

#[test]
fn splits_stay_as_they_were() {
    let old = Source::splits(&Generator::new(|index| index).splits(3), &[]).unwrap();
    let now = Generator::new(|index| index).splits(5);
    assert_eq!(old.len(), 3);
    assert_eq!(Source::splits(&now, &old).unwrap(), []);
    let foreign = vec![("part.csv".to_owned(), SplitOffset::default())];
    let mut reader = reader(&now, old);
    let error = Reader::add(&mut reader, foreign, 1).unwrap_err().to_string();
    assert!(error.contains("part.csv"), "{error}");
}

#[test]
fn one_split_keeps_the_order() {
    let generator = Generator::new(|index| index * 2).splits(1).limit(10_000);
    let ids = Source::splits(&generator, &[]).unwrap();
    let rows = drain::<u64>(&mut reader(&generator, ids.clone()), env().as_ref()).unwrap();
    assert!(rows.into_iter().eq((0..10_000).map(|index| index * 2)));
}

#[test]
fn a_rate_is_kept() {
    let generator = Generator::new(|index| index).rate(10_000).limit(1_000);
    let ids = Source::splits(&generator, &[]).unwrap();
    let env = env();
    let start = env.monotonic();
    let mut one = reader(&generator, ids.clone());
    assert_eq!(drain::<u64>(&mut one, env.as_ref()).unwrap().len(), 1_000);
    assert!(env.monotonic() - start >= Duration::from_millis(99));
    // A worker with half of the splits makes half of the rows.
    assert_eq!(reader(&generator, ids[..4].to_vec()).share, 0.5);
}
