//! Any serde type as one Arrow column and back, and the stable hash of keys.
//!
//! State is kept in memory as Rust values and written to checkpoints as Arrow, so that other tools read it and it outlives the
//! code that wrote it. This crate is the way between the two, and knows nothing of streams: [`encode`] makes a column of rows,
//! [`ColumnReader`] reads them back, and [`hash_key`] says where a key belongs, from the value or from its column
//! ([`hash_column_row`]). [`ColumnReader`] also reads what other tools have written. [`footprint`] tells how much memory values take.
//!
//! Not every type has columns, so there are three ways to write one ([`Tier`]): `flat` builds typed columns straight from the
//! values, and is what the hot path takes; `general` lets `serde_arrow` find columns for lists, maps and enums, and checks that
//! every row comes back; `opaque` is MessagePack, for what is left. One reader serves the first two, whose
//! columns differ only in how they came to be.

mod bytes;
mod cursor;
mod encode;
mod error;
mod flat;
mod footprint;
mod foreign;
mod general;
mod hash;
mod hash_column;
mod mix;
mod node;
mod opaque;
mod reader;
mod refuse;
mod tier;
mod wrapped;

pub use encode::encode;
pub use error::CodecError;
pub use footprint::footprint;
pub use hash::{HASH_VERSION, hash_key};
pub use hash_column::hash_column_row;
pub use reader::ColumnReader;
pub use tier::{Tier, is_opaque};
