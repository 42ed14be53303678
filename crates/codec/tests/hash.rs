//! The hash is durable: its values, its evenness, and that columns hash like the values in them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use highwater_codec::{HASH_VERSION, Tier, encode, hash_column_row, hash_key};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

fn hash<K: Serialize + ?Sized>(key: &K) -> u64 {
    hash_key(key).expect("plain types serialize")
}

#[derive(Serialize, Deserialize, Clone, Debug)]
enum Kind {
    Buy,
    Sell(u8),
}

#[derive(Serialize, Deserialize, Clone, Debug)]
struct Key {
    user: Option<String>,
    kind: Option<(char, f32)>,
}

/// If this fails, checkpoints written before can't be read: give the new way to hash another version.
#[test]
fn version_1_is_what_it_was() {
    assert_eq!(HASH_VERSION, 1);
    let key = Key { user: Some("ada".into()), kind: Some(('x', 1.5)) };
    let known: [(&str, u64, u64); 16] = [
        ("0", hash(&0u64), 0x4b24_d35c_ba4a_63b0),
        ("1", hash(&1u64), 0xf83c_1ce8_e466_4a77),
        ("-1", hash(&-1i32), 0x9a7e_86e1_1954_a5ce),
        ("u128::MAX", hash(&u128::MAX), 0x9245_14f0_4261_4545),
        ("true", hash(&true), 0xf83c_1ce8_e466_4a77),
        ("1.5", hash(&1.5f32), 0x9360_31fd_7dfd_5bd8),
        ("NaN", hash(&f32::from_bits(0xffc0_0001)), 0xa017_ad8f_832b_edaa),
        ("empty string", hash(""), 0x86ea_0c05_2b1e_be76),
        ("string", hash("highwater"), 0xd8c5_80fc_9f96_4e24),
        ("None", hash(&None::<u8>), 0xf734_4158_8ae9_c071),
        ("unit", hash(&()), 0xbb31_74d5_7b6b_4b90),
        ("tuple", hash(&(1u8, "a")), 0x6b4e_186f_95a8_8e89),
        ("list", hash(&vec![1u8, 2, 3]), 0x0f91_3948_a8e4_f842),
        ("map", hash(&BTreeMap::from([(1u8, "a"), (2, "b")])), 0x44e3_8fdc_4915_026a),
        ("variant", hash(&(Kind::Buy, Kind::Sell(3))), 0xe552_e5fe_540e_1c90),
        ("struct", hash(&key), 0x6f0d_3a4c_b07d_a8be),
    ];
    for (what, is, was) in known {
        assert_eq!(is, was, "{what} hashes to {is:#018x}");
    }
}

#[test]
fn sequential_integers_spread_over_high_and_low_bits() {
    let numbers = 1_000_000u64;
    for stride in [1, 8, 1000, 1 << 20, 1 << 40, 1 << 43] {
        let (mut high, mut low) = ([0u32; 256], [0u32; 256]);
        for number in 0..numbers {
            let hash = hash(&number.wrapping_mul(stride));
            high[(hash >> 56) as usize] += 1;
            low[(hash & 0xff) as usize] += 1;
        }
        let even = numbers as f64 / 256.0;
        for count in high.into_iter().chain(low) {
            let off = (f64::from(count) - even).abs() / even;
            assert!(off < 0.1, "stride {stride}: {count} instead of about {even}");
        }
    }
}

#[test]
fn small_tuples_and_strings_do_not_collide() {
    let mut hashes: Vec<u64> = Vec::new();
    for a in 0..600u64 {
        hashes.push(hash(&format!("user-{a}")));
        for b in 0..600i64 {
            hashes.push(hash(&(a, b)));
        }
    }
    let all = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), all);
}

#[test]
fn the_canonical_form_forgets_widths_and_names_and_order() {
    assert_eq!(hash(&-5i8), hash(&-5i128));
    assert_eq!(hash(&5u8), hash(&5u128));
    assert_eq!(hash(&u64::MAX), hash(&u128::from(u64::MAX)));
    assert_eq!(hash(&0.1f32), hash(&f64::from(0.1f32)));
    assert_eq!(hash("x"), hash(&'x'));
    assert_eq!(hash(&Some("x")), hash(&String::from("x")));
    assert_eq!(
        hash(&(Some("ada"), None::<u8>)),
        hash(&Key { user: Some("ada".into()), kind: None })
    );
    let ordered: BTreeMap<u32, &str> = (0..50).map(|n| (n, "v")).collect();
    let unordered: HashMap<u64, &str> = (0..50).rev().map(|n| (n, "v")).collect();
    assert_eq!(hash(&ordered), hash(&unordered));

    assert_ne!(hash(&vec![vec![1], vec![]]), hash(&vec![vec![], vec![1]]));
    assert_ne!(hash(&("ab", "c")), hash(&("a", "bc")));
    assert_ne!(hash(&(1, 2)), hash(&(2, 1)));
    assert_ne!(hash(&None::<u8>), hash(&0u8));
    assert_ne!(hash(&u128::MAX), hash(&u64::MAX));
    let signaling = f32::from_bits(0x7fa0_0001);
    assert_ne!(hash(&signaling), hash(&f32::NAN));
}

#[test]
fn a_type_that_refuses_to_serialize_is_named() {
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let error = hash_key(&Refuses).expect_err("it refuses").to_string();
    assert!(error.contains("Refuses") && error.contains("no"), "{error}");
}

#[test]
fn only_flat_columns_hash() {
    let lists = [vec![1u8]];
    let (field, array) = encode("key", lists.iter().map(Some), &mut Tier::Flat).expect("encodes");
    assert!(hash_column_row(&field, &array, 0).is_err());
    let (field, array) = encode("key", [1u8].iter().map(Some), &mut Tier::Flat).expect("encodes");
    assert!(hash_column_row(&field, &array, 1).is_err());
}

fn column_hashes_alike<T: Serialize + DeserializeOwned + Debug>(rows: &[T]) {
    let mut tier = Tier::Flat;
    let (field, array) = encode("key", rows.iter().map(Some), &mut tier).expect("encodes");
    assert_eq!(tier, Tier::Flat);
    for (row, value) in rows.iter().enumerate() {
        let column = hash_column_row(&field, &array, row).expect("flat columns hash");
        assert_eq!(column, hash(value), "{value:?}");
    }
}

macro_rules! alike {
    ($($name:ident: $type:ty;)*) => { $(
        #[test]
        fn $name() {
            let config = ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() };
            proptest!(config, |(rows in proptest::collection::vec(any::<$type>(), 0..10))| {
                column_hashes_alike(&rows);
            });
        }
    )* };
}

alike! {
    integers: (i8, i16, i32, i64, u8, u16, u32, u64);
    optional_integers: Option<i64>;
    floats: (f32, f64, bool);
    strings: (String, char, Option<String>);
    nested: (Option<(u8, Option<String>)>, (i64, (bool,)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bits_of_a_float(rows in proptest::collection::vec(any::<(u32, u64)>(), 0..10)) {
        let rows: Vec<(f32, f64)> =
            rows.into_iter().map(|(a, b)| (f32::from_bits(a), f64::from_bits(b))).collect();
        column_hashes_alike(&rows);
    }

    #[test]
    fn structs_and_enums(rows in proptest::collection::vec(any::<(Option<String>, Option<(char, f32)>)>(), 0..10)) {
        let rows: Vec<(Key, Option<Kind>)> = rows
            .into_iter()
            .map(|(user, kind)| (Key { kind, user: user.clone() }, user.map(|_| Kind::Buy)))
            .collect();
        column_hashes_alike(&rows);
    }
}
