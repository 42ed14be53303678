use super::super::testing::{at_begin, drain, env, poll};
use super::*;

fn reader<F: Fn(u64) -> u64 + Send + Sync + 'static>(
    generator: &Generator<F>,
    splits: Vec<(String, SplitOffset)>,
) -> GeneratorReader<F> {
    GeneratorReader::new(generator, splits, 4096, env()).unwrap()
}

#[test]
fn every_row_is_made_once_whoever_makes_it() {
    for limit in [0, 1, 7, 8, 100_003] {
        let generator = Generator::new(|index| index).limit(limit);
        let ids = Source::splits(&generator, &[]).unwrap();
        assert_eq!(ids.len(), 8);
        let mut all = Vec::new();
        for worker in ids.chunks(3) {
            let mut one = reader(&generator, at_begin(worker));
            // Some, and the rest in another attempt.
            if let Some(rows) = poll::<u64>(&mut one, env().as_ref()).unwrap() {
                all.extend(rows);
            }
            let mut splits: std::collections::BTreeMap<_, _> =
                at_begin(worker).into_iter().collect();
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
    assert_eq!(Source::splits(&now, &at_begin(&old)).unwrap(), old);
    let foreign = vec![("part.csv".to_owned(), SplitOffset::default())];
    let error =
        GeneratorReader::new(&now, foreign, 4096, env()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("part.csv"), "{error}");
}

#[test]
fn one_split_keeps_the_order() {
    let generator = Generator::new(|index| index * 2).splits(1).limit(10_000);
    let ids = Source::splits(&generator, &[]).unwrap();
    let rows = drain::<u64>(&mut reader(&generator, at_begin(&ids)), env().as_ref()).unwrap();
    assert!(rows.into_iter().eq((0..10_000).map(|index| index * 2)));
}

#[test]
fn a_rate_is_kept() {
    let generator = Generator::new(|index| index).rate(10_000).limit(1_000);
    let ids = Source::splits(&generator, &[]).unwrap();
    let env = env();
    let start = env.monotonic();
    let mut one = GeneratorReader::new(&generator, at_begin(&ids), 4096, env.clone()).unwrap();
    assert_eq!(drain::<u64>(&mut one, env.as_ref()).unwrap().len(), 1_000);
    assert!(env.monotonic() - start >= Duration::from_millis(99));
    // A worker with half of the splits makes half of the rows.
    let half = GeneratorReader::new(&generator, at_begin(&ids[..4]), 4096, env).unwrap();
    assert_eq!(half.rate, Some(5_000.0));
}
