//! Parquet files as a sink: rows become columns and row groups on the writing thread.

use std::fs::File;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use bytes::Bytes;
use highwater_codec::footprint;
use highwater_runtime::{BoxError, Data};
use parquet::arrow::ArrowWriter;
use parquet::basic::{self, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use xxhash_rust::xxh3::xxh3_64;

use super::shape::{self, Shape};
use super::{ColumnType, Compression, Parquet, columns};
use crate::connectors::records::format::{Contents, Encoder, FileFormat, WriteFormat};

/// What files say of who wrote them. Without a version: what is put together again must come out the same.
const CREATED_BY: &str = "highwater";

impl FileFormat for Parquet {
    const EXTENSION: &'static str = "parquet";

    /// Row groups are copied as they are.
    fn join(&self, contents: Contents<'_>, out: &mut File) -> Result<(), BoxError> {
        let mut joined: Option<SerializedFileWriter<&mut File>> = None;
        let mut out = Some(out);
        for content in contents {
            let content = Bytes::from(content?);
            let metadata = ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Optional)
                .parse_and_finish(&content)?;
            if let Some(out) = out.take() {
                let file = metadata.file_metadata();
                let properties = WriterProperties::builder()
                    .set_created_by(CREATED_BY.to_owned())
                    .set_key_value_metadata(file.key_value_metadata().cloned())
                    .build();
                let schema = file.schema_descr().root_schema_ptr();
                joined = Some(SerializedFileWriter::new(out, schema, Arc::new(properties))?);
            }
            if let Some(joined) = &mut joined {
                append(joined, &content, &metadata)?;
            }
        }
        if let Some(joined) = joined {
            joined.close()?;
        }
        Ok(())
    }
}

/// Copies the row groups of a file behind those of another.
fn append(
    joined: &mut SerializedFileWriter<&mut File>,
    content: &Bytes,
    metadata: &ParquetMetaData,
) -> Result<(), BoxError> {
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let indexes = metadata.column_index().and_then(|groups| groups.get(number));
        let offsets = metadata.offset_index().and_then(|groups| groups.get(number));
        let mut copy = joined.next_row_group()?;
        for (column, chunk) in group.columns().iter().enumerate() {
            let close = ColumnCloseResult {
                bytes_written: chunk.compressed_size().max(0) as u64,
                rows_written: group.num_rows().max(0) as u64,
                metadata: chunk.clone(),
                bloom_filter: None,
                column_index: indexes.and_then(|group| group.get(column)).cloned(),
                offset_index: offsets.and_then(|group| group.get(column)).cloned(),
            };
            copy.append_column(content, close)?;
        }
        copy.close()?;
    }
    Ok(())
}

impl<T: Data> WriteFormat<T> for Parquet {
    type Chunk = Vec<T>;
    type Encoder = ParquetEncoder;

    fn check(&self) -> Result<(), String> {
        match shape::of::<T>() {
            Err(error) => return Err(error.to_string()),
            Ok(Shape::Tuple(_)) => {
                return Err("the columns of a tuple have no names; map it to a struct".to_owned());
            }
            Ok(Shape::All) => {
                return Err(format!(
                    "which columns a row has isn't known before there are rows if it is a map, a `serde_json::Value`, or has \
                     `#[serde(flatten)]` in it, as `{}` is or has; map it to a struct that names its columns",
                    std::any::type_name::<T>()
                ));
            }
            Ok(Shape::Fields(_)) => {}
        }
        match columns::of_type::<T>() {
            Some(columns) => self.typed(columns).map(drop),
            // What its columns are will be seen at the first rows.
            None => Ok(()),
        }
    }

    fn write(&self, row: &T, chunk: &mut Vec<T>) -> Result<usize, BoxError> {
        chunk.push(row.clone());
        Ok(footprint(std::slice::from_ref(row)))
    }

    fn encoder(&self) -> ParquetEncoder {
        ParquetEncoder { format: self.clone(), file: None }
    }
}

impl Parquet {
    /// The columns of rows like these.
    fn columns<T: Serialize + DeserializeOwned>(
        &self,
        rows: &[T],
    ) -> Result<Vec<FieldRef>, BoxError> {
        let columns = match columns::of_type::<T>() {
            Some(columns) => columns,
            None => columns::of_rows(rows)?,
        };
        Ok(self.typed(columns)?)
    }

    /// The columns as they are written.
    fn typed(&self, columns: Vec<FieldRef>) -> Result<Vec<FieldRef>, String> {
        let mut columns = columns.iter().map(plain).collect::<Result<Vec<_>, _>>()?;
        for (name, kind) in &self.columns {
            let Some(column) = columns.iter_mut().find(|column| column.name() == name) else {
                let names: Vec<&str> =
                    columns.iter().map(|column| column.name().as_str()).collect();
                return Err(format!(
                    "there is no column `{name}`; the columns are: {}",
                    names.join(", ")
                ));
            };
            let (what, fits, as_type) = match *kind {
                ColumnType::Timestamp => (
                    "a timestamp",
                    matches!(column.data_type(), DataType::Int64 | DataType::Utf8),
                    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
                ),
                ColumnType::Decimal { precision, scale } => (
                    "a decimal",
                    matches!(
                        column.data_type(),
                        DataType::Utf8 | DataType::Float32 | DataType::Float64
                    ),
                    DataType::Decimal128(precision, scale),
                ),
            };
            if !fits {
                return Err(format!(
                    "column `{name}` is of type {}, which can't be written as {what}",
                    column.data_type()
                ));
            }
            *column = Arc::new(column.as_ref().clone().with_data_type(as_type));
        }
        Ok(columns)
    }
}

/// The column without what only Arrow knows. One that never had a value, of a type that doesn't tell its own, is taken for text.
fn plain(field: &FieldRef) -> Result<FieldRef, String> {
    let name = field.name();
    let all = |fields: &Fields| fields.iter().map(plain).collect::<Result<Fields, String>>();
    let data_type = match field.data_type() {
        DataType::Struct(fields) if fields.is_empty() => {
            return Err(format!(
                "column `{name}` is a struct without fields, for which Parquet has no type; leave it out"
            ));
        }
        DataType::Struct(fields) => DataType::Struct(all(fields)?),
        DataType::List(item) => DataType::List(plain(item)?),
        DataType::Map(entries, sorted) => DataType::Map(plain(entries)?, *sorted),
        DataType::Dictionary(_, names) => names.as_ref().clone(),
        DataType::Null => DataType::Utf8,
        DataType::Union(..) => {
            return Err(format!(
                "column `{name}` is an enum with data, for which Parquet has no type; give its variants columns of their own"
            ));
        }
        other => other.clone(),
    };
    Ok(Arc::new(Field::clone(field).with_data_type(data_type)))
}

/// Writes one file.
pub(crate) struct ParquetEncoder {
    format: Parquet,
    /// None until there are rows.
    file: Option<(Vec<FieldRef>, ArrowWriter<Vec<u8>>)>,
}

impl ParquetEncoder {
    fn open<T: Data>(&self, rows: &[T]) -> Result<(Vec<FieldRef>, ArrowWriter<Vec<u8>>), BoxError> {
        let columns = self.format.columns(rows)?;
        let compression = match self.format.compression {
            Compression::None => basic::Compression::UNCOMPRESSED,
            Compression::Snappy => basic::Compression::SNAPPY,
            Compression::Zstd => basic::Compression::ZSTD(ZstdLevel::default()),
        };
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_bytes(Some(self.format.row_group_bytes))
            .set_created_by(CREATED_BY.to_owned())
            .build();
        let schema = Arc::new(Schema::new(columns.clone()));
        Ok((columns, ArrowWriter::try_new(Vec::new(), schema, Some(properties))?))
    }

    /// Takes out what is done.
    fn take(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        if let Some((_, writer)) = &mut self.file {
            writer.sync()?;
            out.append(writer.inner_mut());
        }
        Ok(())
    }
}

impl<T: Data> Encoder<Vec<T>> for ParquetEncoder {
    fn encode(&mut self, rows: Vec<T>, out: &mut Vec<u8>) -> Result<(), BoxError> {
        if self.file.is_none() {
            self.file = Some(self.open(&rows)?);
        }
        if let Some((columns, writer)) = &mut self.file {
            let batch = serde_arrow::to_record_batch(columns, &rows)
                .map_err(|error| format!("a row can't be written as Parquet: {error}"))?;
            writer.write(&batch)?;
        }
        self.take(out)
    }

    fn pending(&self) -> usize {
        self.file.as_ref().map_or(0, |(_, writer)| writer.in_progress_size())
    }

    fn columns(&self) -> Option<u32> {
        let (columns, _) = self.file.as_ref()?;
        Some(xxh3_64(format!("{columns:?}").as_bytes()) as u32)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        if let Some((_, writer)) = &mut self.file {
            writer.flush()?;
        }
        self.take(out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        if let Some((_, writer)) = &mut self.file {
            writer.finish()?;
            out.append(writer.inner_mut());
        }
        Ok(())
    }
}
