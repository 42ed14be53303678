//! A section: what one state of one operator writes at one checkpoint, as one complete Arrow IPC file.
//!
//! Columns: `key`, `value` (null in rows that delete) and `deleted`. Rows are sorted by key group, deletions of a group
//! before its values, and an index says which rows belong to which group. Any tool that reads Arrow reads a
//! section; the index is only needed to read a part of it.
//!
//! # Invariants
//!
//! 1. All batches of a section have one schema. Where the rows of a later batch need another one (a column that was all
//!    null gets a type, a value turns out not to fit), a new section of the same interval is begun.
//! 2. The rows of a key group are contiguous, and in one section of an interval only.

use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Kind, StateError};

/// Where the rows of one key group are in a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRows {
    /// The key group.
    pub group: u32,
    /// Its first row in the section.
    pub first_row: u64,
    /// How many rows it has; 0 if everything was deleted.
    pub rows: u64,
    /// These rows stand for all changes of the group from this interval on; 0 for a whole copy.
    pub since: u32,
}

/// What a section holds, apart from its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionHead {
    /// The name of the state within its operator.
    pub state: String,
    /// What the rows are.
    pub kind: Kind,
    /// The interval of the youngest change in it.
    pub interval: u32,
    /// How many rows it has.
    pub rows: u64,
    /// Which rows belong to which key group, in the order of the groups.
    pub groups: Vec<GroupRows>,
}

impl SectionHead {
    /// Whether all groups have their rows within the section.
    pub(crate) fn is_possible(&self) -> bool {
        let inside = |rows: &GroupRows| {
            rows.first_row.checked_add(rows.rows).is_some_and(|end| end <= self.rows)
        };
        self.groups.iter().all(inside)
    }
}

/// A finished section.
#[derive(Clone, Debug)]
pub struct Section {
    /// What it holds.
    pub head: SectionHead,
    /// The types of its columns, for people.
    pub schema: serde_json::Value,
    /// Its rows: an Arrow IPC file.
    pub bytes: Bytes,
}

/// Writes the sections of one state at one checkpoint, a batch of whole key groups at a time.
pub struct SectionWriter {
    state: String,
    kind: Kind,
    interval: u32,
    open: Option<Open>,
    finished: Vec<Section>,
}

impl fmt::Debug for SectionWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SectionWriter({} at {})", self.state, self.interval)
    }
}

struct Open {
    file: FileWriter<Vec<u8>>,
    schema: SchemaRef,
    rows: u64,
    groups: Vec<GroupRows>,
}

impl SectionWriter {
    /// A writer for `state` at `interval`.
    pub fn new(state: &str, kind: Kind, interval: u32) -> Self {
        SectionWriter { state: state.to_owned(), kind, interval, open: None, finished: Vec::new() }
    }

    /// Writes the rows of some key groups. `first_row` in `groups` counts from the first row of this batch.
    ///
    /// Answers how many bytes the batch took.
    ///
    /// # Errors
    ///
    /// If Arrow refuses the batch.
    pub fn write(
        &mut self,
        key: (Field, ArrayRef),
        value: (Field, ArrayRef),
        deleted: BooleanArray,
        groups: &[GroupRows],
    ) -> Result<u64, StateError> {
        let state = self.state.clone();
        let arrow = |source| StateError::Arrow { state: state.clone(), source };
        let fields = vec![
            key.0,
            value.0.with_nullable(true),
            Field::new("deleted", DataType::Boolean, false),
        ];
        let schema = Arc::new(Schema::new(fields));
        if self.open.as_ref().is_some_and(|open| open.schema != schema) {
            self.close()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let file = FileWriter::try_new(Vec::new(), &schema).map_err(arrow)?;
                self.open.insert(Open { file, schema: schema.clone(), rows: 0, groups: Vec::new() })
            }
        };
        let before = open.file.get_ref().len();
        let rows = deleted.len() as u64;
        if rows > 0 {
            let columns: Vec<ArrayRef> = vec![key.1, value.1, Arc::new(deleted)];
            let batch = RecordBatch::try_new(schema, columns).map_err(arrow)?;
            open.file.write(&batch).map_err(arrow)?;
        }
        for rows in groups {
            open.groups.push(GroupRows { first_row: rows.first_row + open.rows, ..*rows });
        }
        open.rows += rows;
        Ok((open.file.get_ref().len() - before) as u64)
    }

    fn close(&mut self) -> Result<(), StateError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let bytes = open
            .file
            .into_inner()
            .map_err(|source| StateError::Arrow { state: self.state.clone(), source })?;
        let head = SectionHead {
            state: self.state.clone(),
            kind: self.kind,
            interval: self.interval,
            rows: open.rows,
            groups: open.groups,
        };
        let schema = describe(&open.schema);
        self.finished.push(Section { head, schema, bytes: bytes.into() });
        Ok(())
    }

    /// The sections; mostly one, none if nothing changed.
    ///
    /// # Errors
    ///
    /// If Arrow can't finish the file.
    pub fn finish(mut self) -> Result<Vec<Section>, StateError> {
        self.close()?;
        Ok(self.finished)
    }
}

/// The types of the `key` and `value` columns; `opaque` where other tools can't read them.
fn describe(schema: &Schema) -> serde_json::Value {
    let shown = |field: &Field| match highwater_codec::is_opaque(field) {
        true => "opaque".to_owned(),
        false => field.data_type().to_string(),
    };
    let columns = schema.fields().iter().filter(|field| field.name() != "deleted");
    columns
        .map(|field| (field.name().clone(), shown(field).into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The columns of one batch of a section, as they were written.
#[derive(Debug)]
pub struct SectionBatch {
    /// The first row of the batch within the section.
    pub first_row: u64,
    /// The keys.
    pub key: (Field, ArrayRef),
    /// The values.
    pub value: (Field, ArrayRef),
    /// Which rows delete.
    pub deleted: BooleanArray,
}

/// Reads the batches of a section, one after the other.
///
/// # Errors
///
/// If `bytes` is not an Arrow file with the columns of a section.
pub fn read(
    state: &str,
    bytes: Bytes,
) -> Result<impl Iterator<Item = Result<SectionBatch, StateError>> + use<>, StateError> {
    let state = state.to_owned();
    let arrow = {
        let state = state.clone();
        move |source| StateError::Arrow { state: state.clone(), source }
    };
    let file = FileReader::try_new(Cursor::new(bytes), None).map_err(&arrow)?;
    let mut first_row = 0;
    Ok(file.map(move |batch| {
        let batch = batch.map_err(&arrow)?;
        let column = |name: &str| {
            let index = batch.schema().index_of(name).map_err(&arrow)?;
            Ok::<_, StateError>((batch.schema().field(index).clone(), batch.column(index).clone()))
        };
        let deleted = column("deleted")?.1;
        let deleted =
            deleted.as_any().downcast_ref::<BooleanArray>().cloned().ok_or_else(|| {
                arrow(arrow_schema::ArrowError::SchemaError(
                    "column `deleted` isn't boolean".into(),
                ))
            })?;
        let rows =
            SectionBatch { first_row, key: column("key")?, value: column("value")?, deleted };
        first_row += batch.num_rows() as u64;
        Ok(rows)
    }))
}
