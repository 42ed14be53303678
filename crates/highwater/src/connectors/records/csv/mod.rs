//! CSV: records from bytes and back, made for speed.
//!
//! ```text
//!  block of whole records ─ tokens ─▶ fields of a record ─ de ─▶ a row
//!                     a row ─ ser ─▶ one line
//! ```
//!
//! What is CSV here is what crate `csv` reads and writes (RFC 4180; a quote within an unquoted field is itself), and the tests hold
//! both side by side. Its reader isn't used because a block is already known to be whole records, the columns of a
//! file are looked up once and not once a row, and whole numbers are parsed without a detour: several times the rows a second.

pub(crate) mod de;
mod field;
pub(crate) mod ser;
pub(crate) mod tokens;

#[cfg(test)]
mod tests;
