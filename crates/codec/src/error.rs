//! What can go wrong between a value and a column, said so that a person can act on it.

use arrow_schema::ArrowError;
use thiserror::Error;

/// Why a value could not be hashed, written to a column or read back from one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The type's own `Serialize` refused a value.
    #[error("a value of type `{type_name}` can't be serialized: {reason}")]
    Serialize {
        /// The Rust type.
        type_name: &'static str,
        /// What its `Serialize` said.
        reason: String,
    },
    /// A value was written and read back as something else, so that storing it would lose data.
    #[error(
        "type `{type_name}` doesn't come back from its own serialization ({reason}); \
         make its Serialize and Deserialize agree"
    )]
    NoRoundTrip {
        /// The Rust type.
        type_name: &'static str,
        /// What happened on reading back.
        reason: String,
    },
    /// The column isn't of an Arrow type that can be read.
    #[error("column `{column}` can't be read: {reason}")]
    Column {
        /// The column's name, with the path to the nested column if it is that one.
        column: String,
        /// What's wrong with it.
        reason: String,
    },
    /// One row can't be read as the type asked for.
    #[error("row {row} of column `{column}` can't be read as `{type_name}`: {reason}")]
    Read {
        /// The column's name.
        column: String,
        /// The row asked for.
        row: usize,
        /// The Rust type asked for.
        type_name: &'static str,
        /// What serde said, with the path to the field.
        reason: String,
    },
    /// A row was asked for that the column doesn't have.
    #[error("column `{column}` has {rows} rows, so there is no row {row}")]
    NoRow {
        /// The column's name.
        column: String,
        /// The row asked for.
        row: usize,
        /// How many there are.
        rows: usize,
    },
    /// The row was written without a value.
    #[error("row {row} of column `{column}` was written without a value")]
    Absent {
        /// The column's name.
        column: String,
        /// The row asked for.
        row: usize,
    },
    /// Arrow refused to build the column.
    #[error("column `{column}` can't be built")]
    Arrow {
        /// The column's name.
        column: String,
        /// What Arrow said.
        #[source]
        source: ArrowError,
    },
}
