//! Parquet files as a source: row groups on the reading thread, rows on the worker.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::{Field, Fields};
use highwater_codec::{CodecError, ColumnReader};
use highwater_env::Env;
use highwater_runtime::connector::{
    Finder, FinderContext, MalformedRecords, Reader, ReaderContext, Reject, Source, SplitOffset,
    Waker,
};
use highwater_runtime::observe::ReaderProgress;
use highwater_runtime::{BoxError, Data};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::super::content::Content;
use super::super::discover::{Place, Split};
use super::super::watch::FileFinder;
use super::shape::{self, NoColumns, Shape};
use crate::connectors::records::pace::Pace;
use crate::connectors::records::reader::{Decoder, Input, Outbox, ThreadedReader};

/// So many rows are decoded at once ...
const ROWS: u64 = 8192;

/// ... or fewer, if they would take about so many bytes.
const BYTES: u64 = 1 << 20;

/// Parquet files, as the plan holds them.
pub(super) struct ParquetSource<T> {
    pub(super) place: Place,
    /// Rows a second, over all workers.
    pub(super) rate: Option<u64>,
    pub(super) rows: PhantomData<fn() -> T>,
}

impl<T: Data> Source for ParquetSource<T> {
    fn splits(
        &self,
        known: &[(String, SplitOffset)],
    ) -> Result<Vec<(String, SplitOffset)>, BoxError> {
        self.place.splits(known)
    }

    fn finder(&self, context: FinderContext) -> Result<Option<Box<dyn Finder>>, BoxError> {
        FileFinder::of(&self.place, context)
    }

    fn reader(&self, context: ReaderContext) -> Result<Box<dyn Reader>, BoxError> {
        let ReaderContext { env, waker, progress, malformed, rows, .. } = context;
        let reader = self.start(&*env, waker, progress)?;
        let pace = self.rate.map(|rate| Pace::new(env, rate));
        Ok(Box::new(reader.with(malformed, rows).paced(pace)))
    }
}

impl<T: Data> ParquetSource<T> {
    fn start(
        &self,
        env: &dyn Env,
        waker: Waker,
        progress: ReaderProgress,
    ) -> Result<ThreadedReader<T, Rows<T>>, NoColumns> {
        let input = RowGroups::<T> { shape: shape::of::<T>()?, rows: PhantomData };
        Ok(ThreadedReader::start("read-parquet", input, Rows::default(), env, waker, progress))
    }
}

/// Reads the footer of a file.
fn footer(content: &Content<'_>, path: &Path) -> Result<ArrowReaderMetadata, BoxError> {
    // What the file's own writer had in memory doesn't matter: other names for the same types.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ArrowReaderMetadata::load(content.file(), options).map_err(|error| {
        format!(
            "can't read {} as Parquet: {error}; it is damaged, cut off, or no such file",
            path.display()
        )
        .into()
    })
}

/// Where a row group begins in its file.
fn begin(group: &RowGroupMetaData) -> u64 {
    group.columns().iter().map(|column| column.byte_range().0).min().unwrap_or(0)
}

/// Cuts a file into pieces, in bytes, of whole row groups: each of `split_bytes` or more, except the last. One piece or none if it isn't to be cut.
pub(in super::super) fn pieces(
    content: &Content<'_>,
    path: &Path,
    split_bytes: u64,
) -> Result<Vec<(u64, u64)>, BoxError> {
    let footer = footer(content, path)?;
    let begins: Vec<u64> = footer.metadata().row_groups().iter().map(begin).collect();
    // Row groups without columns, or in an order of their own: left whole.
    if !begins.is_sorted_by(|one, next| one < next) {
        return Ok(Vec::new());
    }
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    let ends = begins.iter().skip(1).copied().chain([content.stored_length()]);
    for (begin, end) in begins.iter().copied().zip(ends) {
        match pieces.last_mut() {
            Some(last) if last.1 - last.0 < split_bytes => last.1 = end,
            _ => pieces.push((begin, end)),
        }
    }
    Ok(pieces)
}

/// The row groups of a split: those that begin in its bytes.
fn groups(metadata: &ParquetMetaData, piece: Option<(u64, u64)>) -> Vec<usize> {
    let (start, end) = piece.unwrap_or((0, u64::MAX));
    let all = metadata.row_groups().iter().enumerate();
    all.filter(|(_, group)| (start..end).contains(&begin(group)))
        .map(|(number, _)| number)
        .collect()
}

/// How many rows are decoded at once. A few blocks of them wait for the worker, which must be little memory however wide rows are.
fn rows_at_once(metadata: &ParquetMetaData, groups: &[usize], mask: &ProjectionMask) -> usize {
    let row_bytes = |group: &usize| {
        let group = metadata.row_group(*group);
        let columns = group.columns().iter().enumerate();
        let read = columns.filter(|(leaf, _)| mask.leaf_included(*leaf));
        let bytes = read.map(|(_, column)| {
            // Texts that repeat are stored once, and take their length in each row when they are decoded.
            let texts = column.unencoded_byte_array_data_bytes().unwrap_or(0);
            column.uncompressed_size().max(texts).max(0) as u64
        });
        bytes.sum::<u64>() / group.num_rows().max(1) as u64
    };
    let row_bytes = groups.iter().map(row_bytes).max().unwrap_or(0);
    (BYTES / row_bytes.max(1)).clamp(1, ROWS) as usize
}

/// What the reading thread knows.
struct RowGroups<T> {
    shape: Shape,
    rows: PhantomData<fn() -> T>,
}

/// Rows of a split, as columns.
struct Block<T> {
    columns: ColumnReader<T>,
    /// The same, to show what can't be read.
    array: ArrayRef,
    /// The number of the first one in the split.
    position: u64,
}

impl<T: Data> Input for RowGroups<T> {
    type Block = Block<T>;

    fn bytes_left(&self, split: &str, _: &SplitOffset) -> u64 {
        Split::parse(split).bytes_left(0)
    }

    fn read(
        &mut self,
        split: &str,
        offset: &SplitOffset,
        out: &Outbox<'_, Block<T>>,
    ) -> Result<(), BoxError> {
        let Split { path, piece } = Split::parse(split);
        let content = Content::open(&path, None, offset)?;
        let footer = footer(&content, &path)?;
        let metadata = footer.metadata().clone();
        let groups = groups(&metadata, piece);
        let rows_of = |group: &usize| metadata.row_group(*group).num_rows().max(0) as u64;
        let all: u64 = groups.iter().map(rows_of).sum();
        let failed = |at: u64, error: &dyn std::fmt::Display| -> BoxError {
            let mut first = 0;
            let found = groups.iter().find(|group| {
                first += rows_of(group);
                at < first
            });
            let group = found.or(groups.last()).copied().unwrap_or(0);
            format!("can't read {}, row group {group}: {error}", path.display()).into()
        };
        let roots: Vec<&str> = footer
            .parquet_schema()
            .root_schema()
            .get_fields()
            .iter()
            .map(|root| root.name())
            .collect();
        let wanted = wanted(self.shape, &roots);
        let mask = match wanted {
            Some(wanted) => ProjectionMask::roots(footer.parquet_schema(), wanted),
            None => ProjectionMask::all(),
        };
        let file = content.file().try_clone();
        let file = file.map_err(|error| super::super::discover::cannot("read", &path, &error))?;
        let rows_at_once = rows_at_once(&metadata, &groups, &mask);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer)
            .with_row_groups(groups.clone())
            .with_projection(mask)
            .with_batch_size(rows_at_once)
            .with_offset(usize::try_from(offset.position).unwrap_or(usize::MAX))
            .build();
        let mut position = offset.position;
        // Bytes are told as if all rows were of the same length.
        let bytes = Split::parse(split).bytes_left(0);
        let bytes_to =
            |row: u64| (u128::from(bytes) * u128::from(row) / u128::from(all.max(1))) as u64;
        out.progress.read_bytes(bytes_to(position));
        for batch in reader.map_err(|error| failed(position, &error))? {
            let batch = batch.map_err(|error| failed(position, &error))?;
            let rows = batch.num_rows() as u64;
            let block = self.block(batch, position);
            let block = block.map_err(|error| -> BoxError {
                format!("can't read {}: {error}", path.display()).into()
            })?;
            if !out.send(block) {
                return Ok(());
            }
            out.progress.read_bytes(bytes_to(position + rows) - bytes_to(position));
            position += rows;
        }
        content.is_unchanged()
    }
}

/// The columns of a file that a row wants; none if it wants all.
fn wanted(shape: Shape, roots: &[&str]) -> Option<Vec<usize>> {
    let wanted: Vec<usize> = match shape {
        Shape::All => return None,
        Shape::Tuple(count) => (0..count.min(roots.len())).collect(),
        Shape::Fields(names) => (0..roots.len()).filter(|&at| names.contains(&roots[at])).collect(),
    };
    // Of no columns at all nobody knows how many rows there are.
    (!wanted.is_empty()).then_some(wanted)
}

impl<T: Data> RowGroups<T> {
    /// Prepares columns for reading.
    fn block(&self, batch: RecordBatch, position: u64) -> Result<Block<T>, String> {
        let (schema, columns, rows) = batch.into_parts();
        // A tuple's columns go by numbers.
        let fields: Fields = match self.shape {
            Shape::Tuple(_) => schema
                .fields()
                .iter()
                .enumerate()
                .map(|(number, field)| field.as_ref().clone().with_name(number.to_string()))
                .collect(),
            _ => schema.fields().clone(),
        };
        let array = StructArray::try_new_with_length(fields, columns, None, rows);
        let array: ArrayRef = Arc::new(array.map_err(|error| error.to_string())?);
        let columns = ColumnReader::new(&field(&array), &array).map_err(|error| match error {
            CodecError::Column { column, reason } => {
                let column = column.strip_prefix("row.").unwrap_or(&column);
                format!("column `{column}` can't be read: {reason}")
            }
            error => error.to_string(),
        })?;
        Ok(Block { columns, array, position })
    }
}

fn field(array: &ArrayRef) -> Field {
    Field::new("row", array.data_type().clone(), false)
}

/// The rows of the present block.
struct Rows<T> {
    present: Option<Block<T>>,
    /// The next of them.
    at: usize,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Rows { present: None, at: 0 }
    }
}

impl<T: Data> Decoder<T> for Rows<T> {
    type Block = Block<T>;

    fn begin(&mut self, block: Block<T>, offset: &mut SplitOffset) {
        offset.position = block.position;
        self.at = 0;
        self.present = (!block.columns.is_empty()).then_some(block);
    }

    fn is_empty(&self) -> bool {
        self.present.is_none()
    }

    fn rows(
        &mut self,
        split: &str,
        offset: &mut SplitOffset,
        malformed: &mut MalformedRecords,
        limit: usize,
    ) -> Result<(Vec<T>, usize), BoxError> {
        let Some(block) = &self.present else { return Ok((Vec::new(), 0)) };
        let count = block.columns.len();
        let end = count.min(self.at.saturating_add(limit));
        let mut rows = Vec::with_capacity(end - self.at);
        for at in self.at..end {
            match block.columns.get(at) {
                Ok(row) => rows.push(row),
                Err(error) => {
                    let position = block.position + at as u64;
                    let reject = Reject::new(split, position + 1, position);
                    malformed.reject(block.explain(reject, at, error))?;
                }
            }
        }
        let read = end - self.at;
        offset.records += read as u64;
        offset.position = block.position + end as u64;
        let bytes = block.array.get_array_memory_size() / count * read;
        self.at = end;
        if end == count {
            self.present = None;
        }
        Ok((rows, size_of::<T>() * read + bytes))
    }
}

impl<T> Block<T> {
    /// What is wrong with a row, and the row.
    #[cold]
    fn explain(&self, reject: Reject, at: usize, error: CodecError) -> Reject {
        let mut error = match error {
            CodecError::Read { reason, .. } => reason,
            error => error.to_string(),
        };
        if error.contains("missing field") {
            let fields = match self.array.data_type() {
                arrow_schema::DataType::Struct(fields) => fields.clone(),
                _ => Fields::empty(),
            };
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            error += &format!(" (columns that are there: {})", names.join(", "));
        }
        let shown = ColumnReader::<serde_json::Value>::new(&field(&self.array), &self.array);
        let shown = shown.and_then(|rows| rows.get(at));
        let text = shown.map(|row| row.to_string()).unwrap_or_default();
        Reject { text: Reject::text_of(text.as_bytes()), error, ..reject }
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
