//! Records: what sources of lines and files have in common. Bytes become blocks of whole records on a thread that may wait, and
//! blocks become rows on the worker.
//!
//! ```text
//!  an input ─ frames: whole records ─▶ block ─▶ reader ─ rows ─▶ format, csv: one record, one row
//!  (files, feed)                                        ◀─────── format, csv: a line of a row (sinks)
//! ```
//!
//! An input whose blocks aren't bytes brings its own [`Decoder`](reader::Decoder).

pub(crate) mod csv;
pub(crate) mod digest;
pub(crate) mod format;
pub(crate) mod frames;
pub(crate) mod pace;
pub(crate) mod reader;
pub(crate) mod rows;
