//! Whole lives of a job over a store that fails at random, with attempts that go on as zombies: whatever
//! happens, the log stays one history, and what it retains is whole.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use common::{Fault, Faulty, Request, body, memory, open, open_faulty, run, whole};
use highwater_env::Env;
use highwater_log::{
    AppendError, Base, Committed, Holding, Log, LogError, Manifest, ObjectRef, Store, collect,
    names,
};

const RETAIN: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// An attempt as the runtime would run it.
struct Attempt {
    log: Log,
    faulty: Arc<Faulty>,
    number: u64,
    previous: Option<u64>,
    interval: u64,
    chain: Vec<ObjectRef>,
    holdings: BTreeMap<u64, Holding>,
    listed: BTreeSet<String>,
}

impl Attempt {
    async fn start(store: &Store, seed: u64) -> Result<Self, LogError> {
        let (log, faulty) = open_faulty(store, seed);
        let started = log.start(2, false).await?;
        let (holdings, damages) = log.holdings(&started.facts).await?;
        assert_eq!(damages, [], "invariant 1");
        let mut attempt = Attempt {
            log,
            faulty,
            number: started.attempt,
            previous: None,
            interval: 0,
            chain: Vec::new(),
            holdings,
            listed: BTreeSet::new(),
        };
        match started.base(&whole(), true) {
            Base::Fresh => {}
            Base::Checkpoint(base) => {
                let checkpoint = started.facts.checkpoint(base).unwrap();
                let manifest = attempt.log.get_manifest(&checkpoint.manifest).await?;
                for object in &manifest.objects {
                    attempt.log.get_object(object).await?;
                }
                attempt.previous = Some(base);
                attempt.interval = checkpoint.interval;
                attempt.chain = manifest.objects;
                attempt.listed =
                    attempt.log.delete(&checkpoint.garbage).await?.into_iter().collect();
            }
            base @ Base::Refuse { .. } => panic!("{base:?}"),
        }
        let referenced: BTreeSet<String> =
            attempt.holdings.values().flat_map(|holding| holding.objects.clone()).collect();
        let left = attempt.log.leftovers(attempt.number, &referenced).await?;
        attempt.log.delete(&left).await?;
        Ok(attempt)
    }

    async fn commit(&mut self) -> Result<Committed, AppendError> {
        self.interval += 1;
        let name = names::object(self.number, self.interval, 0);
        let object = self.log.put_object(&name, format!("state of {name}").into()).await?;
        self.chain.push(object);
        if self.chain.len() > 3 {
            self.chain.remove(0);
        }
        let manifest = Manifest { format: 1, objects: self.chain.clone() };
        let named = self.log.put_manifest(self.number, self.interval, &manifest).await?;
        let mut checkpoint = body(self.previous, named);
        checkpoint.interval = self.interval;
        let next = Holding::new(&checkpoint, Some(&manifest));
        let number = self.log.next_entry(checkpoint.clone()).number;
        checkpoint.garbage = collect(RETAIN, &self.holdings, number, &next, &self.listed);
        let committed = self.log.append(&self.log.next_entry(checkpoint.clone())).await?;
        self.holdings.insert(number, next);
        self.holdings.retain(|number, _| !checkpoint.garbage.contains(&names::entry(*number)));
        self.listed = self.log.delete(&checkpoint.garbage).await?.into_iter().collect();
        self.previous = Some(number);
        Ok(committed)
    }
}

#[test]
fn lives() {
    run(async {
        let (mut commits, mut fenced, mut starts) = (0, 0, 0);
        for seed in 0..300 {
            let env = common::TestEnv::new(seed);
            let mut state = seed + 1;
            let mut draw = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let store = memory();
            let mut attempts: Vec<Attempt> = Vec::new();
            let mut history: Vec<u64> = Vec::new();
            for step in 0..25 {
                if attempts.is_empty() || draw(6) == 0 {
                    let attempt = Attempt::start(&store, env.random() + step).await.unwrap();
                    // Exactly the last thing that committed.
                    assert_eq!(attempt.previous, history.last().copied(), "seed {seed}");
                    attempts.push(attempt);
                    starts += 1;
                    continue;
                }
                // Mostly the newest attempt, sometimes a zombie.
                let newest = attempts.len() - 1;
                let which =
                    if draw(5) == 0 { draw(attempts.len() as u64) as usize } else { newest };
                let attempt = &mut attempts[which];
                for _ in 0..draw(4) {
                    let (request, fault) = match draw(5) {
                        0 => (Request::Put, Fault::Before),
                        1 => (Request::Put, Fault::Answer),
                        2 => (Request::Get, Fault::Before),
                        3 => (Request::Delete, Fault::Before),
                        _ => (Request::List, Fault::Before),
                    };
                    let path = ["", "log/", "data/"][draw(3) as usize];
                    attempt.faulty.next(request, path, fault);
                }
                match attempt.commit().await {
                    Ok(committed) => {
                        assert_eq!(which, newest, "seed {seed}: a zombie committed");
                        assert!(history.last() < Some(&committed.number()));
                        history.push(committed.number());
                        commits += 1;
                    }
                    Err(AppendError::Fenced { .. }) => {
                        assert_ne!(which, newest, "seed {seed}");
                        fenced += 1;
                        attempts.remove(which);
                    }
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
            // What is retained is whole, and no more than is retained is left.
            let last = Attempt::start(&store, 1 << 20).await.unwrap();
            let facts = open(&store, 7).read().await.unwrap();
            let retained: Vec<u64> = facts.checkpoints().map(|(number, _)| number).collect();
            assert!(retained.len() <= RETAIN.get(), "seed {seed}: {retained:?} of {history:?}");
            assert!(history.ends_with(&retained), "seed {seed}: {retained:?} of {history:?}");
            for (_, checkpoint) in facts.checkpoints() {
                for object in last.log.get_manifest(&checkpoint.manifest).await.unwrap().objects {
                    last.log.get_object(&object).await.unwrap();
                }
            }
        }
        assert!(commits > 1000 && fenced > 100 && starts > 500, "{commits} {fenced} {starts}");
    });
}
