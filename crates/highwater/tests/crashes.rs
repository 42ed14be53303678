//! Whole jobs in one process, crashed by their script and started again with other numbers of workers.

use std::collections::HashMap;

use highwater::testing::{Collect, Script, Test};

fn words() -> Vec<String> {
    (0..500_u32).map(|n| format!("w{}", n * n % 37)).collect()
}

fn expected(words: &[String]) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for word in words {
        *counts.entry(word.clone()).or_default() += 1;
    }
    counts
}

/// Every record counts once, however often and wherever the job crashes.
#[test]
fn counts_survive_crashes_and_other_numbers_of_workers() {
    let words = words();
    let mut script = Script::new();
    for (index, chunk) in words.chunks(50).enumerate() {
        script = script.records(chunk.to_vec());
        script = match index % 3 {
            0 => script.checkpoint().crash(),
            1 => script.crash(),
            _ => script.epoch(),
        };
    }
    let run = Test::new(2)
        .then(3)
        .then(1)
        .then(4)
        .run(|job| {
            let input = job.read("in", script);
            input.clone().write("all", Collect);
            input.key_by(|word| word.clone()).count().uid("count").write("counts", Collect);
        })
        .unwrap();
    assert_eq!(run.last_per_key::<String, u64>("counts"), expected(&words));
    let mut all = run.committed::<String>("all");
    let mut want = words;
    all.sort();
    want.sort();
    assert_eq!(all, want);
    assert_eq!(run.attempts(), 8);
}
