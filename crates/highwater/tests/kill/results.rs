//! What the job should come to, computed straightforwardly, and what it came to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::input::Sale;
use crate::job::{self, BATCHED, REGIONS};
use crate::observer::children;
use crate::rounds;

/// A count and a sum.
type Total = (u64, i64);

/// Compares everything that was written.
pub fn check(folder: &Path, sales: &[Sale]) {
    let out = |sink: &str| folder.join("out").join(sink);
    same_rows("all", csv_rows(&out("all"), true), sales.to_vec());
    let batches = children(&folder.join(job::BATCHES));
    let batched = batches.iter().flat_map(|path| -> Vec<Sale> {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    });
    let some = sales.iter().filter(|sale| sale.id % BATCHED == 0).cloned();
    same_rows("batches", batched.collect(), some.collect());
    assert_eq!(fs::read_to_string(folder.join(job::VIOLATIONS)).unwrap(), "");

    let shops = totals(sales, |sale| sale.shop.clone());
    growing_totals("totals", &ndjson_rows(&out("totals")), &shops);
    let regions = totals(sales, |sale| sale.item % REGIONS);
    growing_totals("regions", &ndjson_rows(&out("regions")), &regions);

    // A row for every record: each number once, and in the order of parts.
    let counts: Vec<(String, u64)> = ndjson_rows(&out("counts"));
    numbered("counts", counts.iter().map(|(shop, count)| (shop, *count)), &shops);
    let steps: Vec<(String, u64, i64)> = csv_rows(&out("steps"), false);
    numbered("steps", steps.iter().map(|(shop, number, _)| (shop, *number)), &shops);
    let last: BTreeMap<String, Total> =
        steps.into_iter().map(|(shop, number, balance)| (shop, (number, balance))).collect();
    assert_eq!(last, shops, "the last step of each shop");

    let firsts: Vec<(String, u16, u64)> = csv_rows(&out("firsts"), false);
    let sold: BTreeSet<(String, u16)> =
        sales.iter().map(|sale| (sale.shop.clone(), sale.item)).collect();
    let pairs = firsts.iter().map(|(shop, item, _)| (shop.clone(), *item));
    same_rows("firsts", pairs.collect(), sold.iter().cloned().collect());
    let mut items: BTreeMap<String, Total> = BTreeMap::new();
    sold.into_iter().for_each(|(shop, _)| items.entry(shop).or_default().0 += 1);
    numbered("firsts", firsts.iter().map(|(shop, _, number)| (shop, *number)), &items);

    nothing_is_left_over(folder);
}

/// How many of the sales can be seen in the output.
pub fn published_sales(folder: &Path) -> usize {
    csv_rows::<Sale>(&folder.join("out/all"), true).len()
}

fn totals<K: Ord>(sales: &[Sale], key: impl Fn(&Sale) -> K) -> BTreeMap<K, Total> {
    let mut totals: BTreeMap<K, Total> = BTreeMap::new();
    for sale in sales {
        let (count, sum) = totals.entry(key(sale)).or_default();
        *count += 1;
        *sum += sale.amount;
    }
    totals
}

/// The rows are the same ones, each as often.
fn same_rows<T: Ord + Debug>(sink: &str, mut found: Vec<T>, mut expected: Vec<T>) {
    found.sort();
    expected.sort();
    let (mut found, mut expected) = (found.into_iter().peekable(), expected.into_iter().peekable());
    loop {
        match (found.peek(), expected.peek()) {
            (None, None) => return,
            (Some(found), Some(expected)) if found == expected => {}
            (Some(found), Some(expected)) if found > expected => {
                panic!("{sink}: lost {expected:?}")
            }
            (None, Some(expected)) => panic!("{sink}: lost {expected:?}"),
            (Some(found), _) => panic!("{sink}: {found:?} is there once too often"),
        }
        found.next();
        expected.next();
    }
}

/// The last row of each key is its total, and no row tells less than one before it.
fn growing_totals<K: Ord + Clone + Debug>(
    sink: &str,
    rows: &[(K, Total)],
    expected: &BTreeMap<K, Total>,
) {
    let mut last: BTreeMap<K, Total> = BTreeMap::new();
    for (key, total) in rows {
        let before = last.insert(key.clone(), *total).unwrap_or_default();
        assert!(total.0 >= before.0, "{sink}: {key:?} fell from {before:?} to {total:?}");
        assert!(total.0 > before.0 || total.1 == before.1, "{sink}: {key:?} {before:?} {total:?}");
    }
    assert_eq!(last, *expected, "{sink}: the last row of each key");
}

/// Rows of a key are numbered from one to its count, in order: none is lost, none is there twice, none is before an earlier one.
fn numbered<'a>(
    sink: &str,
    rows: impl Iterator<Item = (&'a String, u64)>,
    expected: &BTreeMap<String, Total>,
) {
    let mut last: BTreeMap<&String, u64> = BTreeMap::new();
    for (key, number) in rows {
        let before = last.insert(key, number).unwrap_or(0);
        assert_eq!(number, before + 1, "{sink}: the row of {key:?} after number {before}");
    }
    let expected: BTreeMap<&String, u64> =
        expected.iter().map(|(key, total)| (key, total.0)).collect();
    assert_eq!(last, expected, "{sink}: how many rows there are of each key");
}

/// The rows of all parts, in the order of parts. Only structs have a header.
fn csv_rows<T: DeserializeOwned>(folder: &Path, header: bool) -> Vec<T> {
    let rows = |path: &PathBuf| -> Vec<T> {
        let mut reader = csv::ReaderBuilder::new().has_headers(header).from_path(path).unwrap();
        reader.deserialize().map(Result::unwrap).collect()
    };
    children(folder).iter().flat_map(rows).collect()
}

fn ndjson_rows<T: DeserializeOwned>(folder: &Path) -> Vec<T> {
    let rows = |path: &PathBuf| -> Vec<T> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    children(folder).iter().flat_map(rows).collect()
}

/// Nothing staged is left, and checkpoints that nobody needs are gone.
fn nothing_is_left_over(folder: &Path) {
    for sink in children(&folder.join("out")) {
        let staged: Vec<PathBuf> = files_below(&sink.join(".highwater/staged"));
        assert_eq!(staged, Vec::<PathBuf>::new());
    }
    let checkpoints = folder.join("checkpoints");
    let data = files_below(&checkpoints.join("data")).len();
    let staged = files_below(&checkpoints.join("stage")).len();
    // Each worker writes objects of its own.
    let workers = rounds::WORKERS_MAX;
    assert!(
        data < 75 * workers && staged < 15 * workers,
        "{data} objects and {staged} of staged rows are left"
    );
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
