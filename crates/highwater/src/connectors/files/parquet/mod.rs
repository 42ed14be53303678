//! Parquet files: rows by columns, in row groups.
//!
//! ```text
//!  splits: row groups ─▶ read: columns of the row type, on the reading thread ─▶ rows, on the worker
//!  rows ─▶ writing thread: write: row groups ─▶ staged files, whole at every checkpoint
//! ```
//!
//! A split is the row groups that begin in its bytes, and a position in it is a number of rows. Columns become rows through
//! [`highwater_codec::ColumnReader`], and rows become columns through crate `serde_arrow`; which ones follows from the row type, so that all files of a sink
//! have the same.

mod columns;
mod read;
mod shape;
mod write;

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use highwater_runtime::Data;
use highwater_runtime::connector::{Sink, Source};

use super::Files;
use super::discover::Cut;
use crate::connectors::{IntoSink, IntoSource};
use read::ParquetSource;

pub(super) use read::pieces;

/// Parquet: the format of [`Files::parquet`].
#[derive(Clone, Debug)]
pub struct Parquet {
    compression: Compression,
    row_group_bytes: usize,
    /// Columns that are written as another type than the row's field has.
    columns: Vec<(String, ColumnType)>,
}

/// How the pages of Parquet files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast; what most programs write.
    Snappy,
    /// Smaller, and slower.
    Zstd,
}

/// What a column is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnType {
    Timestamp,
    Decimal { precision: u8, scale: i8 },
}

/// A row group is closed when it holds about so much.
const ROW_GROUP_BYTES: usize = 64 << 20;

impl Files {
    /// Parquet files.
    ///
    /// To read: a struct takes its fields from the columns of the same names, whatever their order, and no other column is read; a tuple takes columns by
    /// position. `Option` takes nulls. Timestamps, dates and times of day become whole milliseconds where a number (or a
    /// [`Timestamp`](crate::time::Timestamp)) is asked for, and ISO 8601 text where a text is (so do types that read themselves from text, such as
    /// those of crate `chrono`); decimals become text, or a number. Each row group is a split of its own, so that large files are read by several workers.
    ///
    /// To write: a row is a struct, whose fields become columns; those that are `Option` may be null. Lists, maps and structs in it become nested
    /// columns. [`timestamps`](Files::timestamps) and [`decimal`](Files::decimal) write columns as what they are. Files appear whole, with the
    /// checkpoint that covers them.
    ///
    /// ```
    /// use highwater::connectors::{Compression, Files, IntoSource};
    ///
    /// #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// struct Flight { carrier: String, delay: Option<i32> }
    ///
    /// let source = IntoSource::<Flight>::into_source(Files::parquet("data/flights.parquet"));
    /// let sink = Files::parquet("out/flights").compression(Compression::Zstd);
    /// # let _ = (source, sink);
    /// ```
    pub fn parquet(path: impl AsRef<Path>) -> Files<Parquet> {
        let (compression, columns) = (Compression::Snappy, Vec::new());
        let format = Parquet { compression, row_group_bytes: ROW_GROUP_BYTES, columns };
        Files::new(path.as_ref(), format, Some(1))
    }
}

impl Files<Parquet> {
    /// How pages are compressed; snappy if not said. For writing.
    ///
    /// ```
    /// use highwater::connectors::{Compression, Files};
    /// let out = Files::parquet("out/flights").compression(Compression::Zstd);
    /// # let _ = out;
    /// ```
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.format.compression = compression;
        self
    }

    /// Closes a row group when it holds about so much; 64 MB if not said, and at the most, since it is held in memory until then. Every file has
    /// one at least. For writing.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let out = Files::parquet("out/flights").row_group_bytes(8 << 20);
    /// # let _ = out;
    /// ```
    #[must_use]
    pub fn row_group_bytes(mut self, bytes: usize) -> Self {
        self.format.row_group_bytes = bytes.clamp(1, ROW_GROUP_BYTES);
        self
    }

    /// Writes these columns as timestamps (milliseconds, UTC). Their fields are milliseconds since 1970, as numbers or as
    /// [`Timestamp`](crate::time::Timestamp), or ISO 8601 text. For writing.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let out = Files::parquet("out/windows").timestamps(["start", "end"]);
    /// # let _ = out;
    /// ```
    #[must_use]
    pub fn timestamps<'c>(mut self, columns: impl IntoIterator<Item = &'c str>) -> Self {
        let columns = columns.into_iter().map(|name| (name.to_owned(), ColumnType::Timestamp));
        self.format.columns.extend(columns);
        self
    }

    /// Writes this column as a decimal of so many digits, so many of which are behind the point. Its field is a text or a floating-point number. For
    /// writing.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// let out = Files::parquet("out/orders").decimal("price", 12, 2);
    /// # let _ = out;
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if it can't have so many digits (38 at the most, at least as many as are behind the point).
    #[must_use]
    pub fn decimal(mut self, column: &str, precision: u8, scale: u8) -> Self {
        assert!(
            (1..=38).contains(&precision) && scale <= precision,
            "a decimal has 1 to 38 digits, and no more than that behind the point"
        );
        let kind = ColumnType::Decimal { precision, scale: scale as i8 };
        self.format.columns.push((column.to_owned(), kind));
        self
    }
}

impl<T: Data> IntoSource<T> for Files<Parquet> {
    fn into_source(self) -> Arc<dyn Source> {
        let place = super::Place { cut: Cut::RowGroups, ..self.place() };
        Arc::new(ParquetSource::<T> { place, rate: self.rate, rows: PhantomData })
    }
}

impl<T: Data> IntoSink<T> for Files<Parquet> {
    fn into_sink(self) -> Arc<dyn Sink> {
        self.sink::<T>(None)
    }
}
