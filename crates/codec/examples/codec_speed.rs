//! Measures what a row costs in each direction. Run it in release: `cargo run --release -p highwater-codec --example codec_speed`.

use std::hint::black_box;
use std::time::Instant;

use highwater_codec::{ColumnReader, Tier, encode, hash_key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

type Row = (u64, (u64, i64));

#[derive(Serialize, Deserialize)]
struct Session {
    user: u64,
    clicks: u32,
    spent: f64,
    country: String,
    referrer: Option<String>,
}

// Nothing here is part of the simulated engine, so it may look at the clock.
#[allow(clippy::disallowed_methods)]
fn best_ns(rows: usize, mut run: impl FnMut()) -> f64 {
    let once = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_nanos() as f64 / rows as f64
    };
    (0..15).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min)
}

fn measure<T: Serialize + DeserializeOwned>(what: &str, rows: &[T], from: Tier) {
    let column = || {
        let mut tier = from;
        encode("value", rows.iter().map(Some), &mut tier).map(|column| (column, tier))
    };
    let ((field, array), tier) = column().expect("the rows can be encoded");
    let reader = ColumnReader::<T>::new(&field, &array).expect("the column can be read");
    let written = best_ns(rows.len(), || drop(black_box(column())));
    let read = best_ns(rows.len(), || {
        for row in 0..rows.len() {
            drop(black_box(reader.get(row)));
        }
    });
    println!("{what:<34} {tier:<9?} encode {written:7.1} ns/row   decode {read:7.1} ns/row");
}

fn main() {
    let numbers: Vec<u64> = (0..200_000).collect();
    let rows: Vec<Row> = numbers.iter().map(|&n| (n, (n * 3, -(n as i64)))).collect();
    let sessions: Vec<Session> = numbers
        .iter()
        .map(|&n| Session {
            user: n,
            clicks: n as u32 % 100,
            spent: n as f64 / 7.0,
            country: ["de", "fr", "at"][n as usize % 3].into(),
            referrer: (n % 2 == 0).then(|| format!("https://example.org/{n}")),
        })
        .collect();
    let lists: Vec<Vec<u32>> = numbers.iter().map(|&n| vec![n as u32; 4]).collect();
    measure("u64", &numbers, Tier::Flat);
    measure("(u64, (u64, i64))", &rows, Tier::Flat);
    measure("struct of 5, two of them strings", &sessions, Tier::Flat);
    measure("struct of 5, two of them strings", &sessions, Tier::General);
    measure("struct of 5, two of them strings", &sessions, Tier::Opaque);
    measure("Vec<u32> of 4", &lists, Tier::Flat);

    let words: Vec<String> = numbers.iter().map(|n| format!("user-{n}")).collect();
    let hash = best_ns(numbers.len(), || {
        for number in &numbers {
            black_box(hash_key(black_box(number)).ok());
        }
    });
    println!("hash_key(u64)                                {hash:7.1} ns");
    let hash = best_ns(words.len(), || {
        for word in &words {
            black_box(hash_key(black_box(word)).ok());
        }
    });
    println!("hash_key(String of about 11)                 {hash:7.1} ns");
}
