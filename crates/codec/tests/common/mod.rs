//! Types of every shape that serde has a way for, and the check that a column gives them back.
#![allow(dead_code, reason = "every test file uses some of these")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::io::Cursor;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{Field, Schema};
use highwater_codec::{ColumnReader, Tier, encode, is_opaque};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Writes rows starting from every tier, expects all of them back each time, and says where the flat tier led.
pub fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(rows: &[Option<T>]) -> Tier {
    let landed = [Tier::Flat, Tier::General, Tier::Opaque].map(|start| {
        let mut tier = start;
        let (field, array) = encode("value", rows.iter().map(Option::as_ref), &mut tier)
            .unwrap_or_else(|error| panic!("{start:?}: {error} in {rows:?}"));
        assert!(tier >= start);
        assert_eq!(is_opaque(&field), tier == Tier::Opaque);
        assert_eq!(field.data_type(), array.data_type());
        let (field, array) = through_a_file(field, array);
        // Also from within the column: a slice has offsets of its own on every level.
        for skipped in [0, rows.len() / 2] {
            let array = array.slice(skipped, rows.len() - skipped);
            let reader = ColumnReader::<T>::new(&field, &array).expect("what was written is known");
            assert_eq!(reader.len(), rows.len() - skipped);
            for (row, expected) in rows[skipped..].iter().enumerate() {
                assert_eq!(reader.is_absent(row), expected.is_none(), "{tier:?} row {row}");
                match expected {
                    Some(value) => {
                        assert_eq!(&reader.get(row).expect("it reads"), value, "{tier:?}")
                    }
                    None => assert!(reader.get(row).is_err()),
                }
            }
            assert!(reader.get(reader.len()).is_err());
        }
        tier
    });
    landed[0]
}

/// The column as a checkpoint gives it back: from a file, that says everything about it.
fn through_a_file(field: Field, array: ArrayRef) -> (Field, ArrayRef) {
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(schema.clone(), vec![array]).expect("a batch");
    let mut writer = FileWriter::try_new(Vec::new(), &schema).expect("a writer");
    writer.write(&batch).expect("the batch is written");
    let file = writer.into_inner().expect("the file is finished");
    let mut reader = FileReader::try_new(Cursor::new(file), None).expect("a reader");
    let field = reader.schema().field(0).clone();
    let batch = reader.next().expect("one batch").expect("the batch is read");
    (field, batch.column(0).clone())
}

/// A float that equals itself by its bits.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct Double(pub f64);
impl PartialEq for Double {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

/// The same for the narrow one.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct Single(pub f32);
impl PartialEq for Single {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Red,
    #[serde(rename = "very green")]
    Green,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Inner {
    pub number: i16,
    pub text: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Flat {
    pub flag: bool,
    pub letter: char,
    #[serde(rename = "renamed to this")]
    pub double: Double,
    pub single: Single,
    pub color: Option<Color>,
    pub inner: Option<Inner>,
    pub pair: (u8, String),
    #[serde(skip)]
    pub skipped: u32,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Empty {}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct UnitStruct;

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct FlattenStruct {
    pub id: u32,
    #[serde(flatten)]
    pub inner: Inner,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct FlattenMap {
    pub id: u32,
    #[serde(flatten)]
    pub rest: HashMap<String, String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum Untagged {
    Number(i64),
    Text(String),
    Record { x: u8, y: Option<u8> },
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "type")]
pub enum Internal {
    Start { at: u64 },
    Stop { at: u64 },
    Pause,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "t", content = "c")]
pub enum Adjacent {
    Number(u32),
    Pair(u8, String),
    Nothing,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum External {
    Unit,
    Newtype(u64),
    Tuple(i8, String),
    Record { items: Vec<u8>, name: Option<String> },
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Tree {
    Leaf(i32),
    Node { left: Box<Tree>, right: Box<Tree> },
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Chain {
    pub value: u8,
    pub next: Option<Box<Chain>>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Skipping {
    pub id: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default)]
    pub count: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Patch {
    pub id: u8,
    pub change: Option<Option<String>>,
    pub tags: BTreeMap<(i32, String), Option<()>>,
}
