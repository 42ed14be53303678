//! What the job reads: made from a seed, in several files of all kinds.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

/// So many rows there are.
const SALES: usize = 130_000;

/// So many rows are in a small file.
const SMALL: usize = 400;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sale {
    pub id: u64,
    pub shop: String,
    pub item: u16,
    pub amount: i64,
    pub note: Option<String>,
}

/// Numbers that look random, the same for the same seed (xorshift64*).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// The whole input.
pub fn sales() -> Vec<Sale> {
    let mut numbers = Numbers(0x5EED);
    let sale = |id| {
        // Some shops have much more to do than others.
        let shop = numbers.below(30) * numbers.below(20);
        let note = match numbers.below(5) {
            0 => Some(format!("said \"{id}\", and left")),
            1 => Some("Grüße, 世界".to_owned()),
            _ => None,
        };
        Sale {
            id,
            shop: format!("shop {shop}"),
            item: numbers.below(40) as u16,
            amount: numbers.below(2_000) as i64 - 500,
            note,
        }
    };
    (0..SALES as u64).map(sale).collect()
}

/// Writes it: a large file that is read in pieces, small ones, compressed ones.
pub fn write(folder: &Path, sales: &[Sale]) {
    fs::create_dir(folder).unwrap();
    let (large, small) = sales.split_at(sales.len() * 9 / 10);
    fs::write(folder.join("large.csv"), csv(large)).unwrap();
    for (number, sales) in small.chunks(SMALL).enumerate() {
        if number % 3 == 0 {
            let file = File::create(folder.join(format!("small-{number}.csv.gz"))).unwrap();
            let mut file = GzEncoder::new(file, Compression::fast());
            file.write_all(&csv(sales)).unwrap();
            file.finish().unwrap();
        } else {
            fs::write(folder.join(format!("small-{number}.csv")), csv(sales)).unwrap();
        }
    }
}

fn csv(sales: &[Sale]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for sale in sales {
        writer.serialize(sale).unwrap();
    }
    writer.into_inner().unwrap()
}
