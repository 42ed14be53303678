//! The same work without Highwater: on bare timely, and as a plain loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use highwater_codec::hash_key;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::{Input, Probe};

use crate::keyed::key;

/// So many records are made between two looks at the clock.
const BATCH: u64 = 4096;

/// Makes records in `make`, and gives the records a second over `window` once all keys have come up.
fn rate(keys: u64, window: Duration, done: &AtomicU64) -> f64 {
    while done.load(Relaxed) < keys * 3 / 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (began, from) = (Instant::now(), done.load(Relaxed));
    std::thread::sleep(window);
    (done.load(Relaxed) - from) as f64 / began.elapsed().as_secs_f64()
}

/// Bare timely: vectors exchanged by key, counted in a hash map; each changed key is emitted once an epoch of 10 ms.
/// `wait` is called with the records a second of this process before they end.
pub fn timely(config: timely::Config, keys: u64, window: Duration, wait: fn(f64)) -> f64 {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, ended) = (done.clone(), stop.clone());
    let guards = timely::execute(config, move |worker| {
        let mut input = InputHandle::new();
        let probe = worker.dataflow::<u64, _, _>(|scope| {
            let pact = Exchange::new(|record: &(u64, i64)| hash_key(&record.0).unwrap_or(0) >> 32);
            scope
                .input_from(&mut input)
                .unary_frontier::<timely::container::CapacityContainerBuilder<Vec<(u64, (u64, i64))>>, _, _, _>(
                    pact,
                    "sums",
                    |capability, _| {
                        drop(capability);
                        let mut sums: HashMap<u64, (u64, i64, u64)> = HashMap::new();
                        let mut changed: Vec<(timely::dataflow::operators::Capability<u64>, Vec<u64>)> = Vec::new();
                        move |(input, frontier), output| {
                            input.for_each(|time, data| {
                                let epoch = *time.least().expect("a time");
                                if changed.last().is_none_or(|(last, _)| *last.time() != epoch) {
                                    changed.push((time.retain_least(0).expect("a time"), Vec::new()));
                                }
                                let list = &mut changed.last_mut().expect("just pushed").1;
                                for (key, value) in data.drain(..) {
                                    let sum = match sums.entry(key) {
                                        Entry::Occupied(sum) => sum.into_mut(),
                                        Entry::Vacant(place) => place.insert((0, 0, u64::MAX)),
                                    };
                                    sum.0 += 1;
                                    sum.1 += value;
                                    if sum.2 != epoch {
                                        sum.2 = epoch;
                                        list.push(key);
                                    }
                                }
                            });
                            while changed.first().is_some_and(|(time, _)| !frontier.less_equal(time.time())) {
                                let (time, list) = changed.remove(0);
                                let mut session = output.session(&time);
                                for key in list {
                                    let sum = sums[&key];
                                    session.give((key, (sum.0, sum.1)));
                                }
                            }
                        }
                    },
                )
                .probe()
                .0
        });
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let mut next = index;
        let (began, mut epoch) = (Instant::now(), 0);
        while !ended.load(Relaxed) {
            for _ in 0..BATCH {
                input.send((key(next, keys), next as i64 & 1023));
                next += peers;
            }
            counted.fetch_add(BATCH, Relaxed);
            let now = began.elapsed().as_millis() as u64 / 10;
            if now > epoch {
                epoch = now;
                input.advance_to(epoch);
            }
            worker.step();
            // About what the engine may have under way.
            while probe.less_than(&epoch.saturating_sub(8)) && !ended.load(Relaxed) {
                worker.step();
            }
        }
    });
    let rate = rate(keys, window, &done);
    wait(rate);
    stop.store(true, Relaxed);
    drop(guards);
    rate
}

/// A plain loop a thread over keys of its own: no exchange, no epochs, nothing emitted.
pub fn spin(keys: u64, workers: usize, window: Duration) -> f64 {
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for worker in 0..workers as u64 {
            let (done, stop) = (&done, &stop);
            scope.spawn(move || {
                let workers = workers as u64;
                let mut sums: HashMap<u64, (u64, i64)> = HashMap::new();
                let mut next = worker;
                while !stop.load(Relaxed) {
                    for _ in 0..BATCH {
                        // Keys of this thread only, as if records came sorted to their owners.
                        let key = key(next, keys) / workers * workers + worker;
                        let sum = sums.entry(key).or_insert((0, 0));
                        sum.0 += 1;
                        sum.1 += next as i64 & 1023;
                        next += workers;
                    }
                    done.fetch_add(BATCH, Relaxed);
                }
                std::hint::black_box(&sums);
            });
        }
        let rate = rate(keys, window, &done);
        stop.store(true, Relaxed);
        rate
    })
}
