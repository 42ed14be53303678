//! Standard output as a sink: a line of JSON a row.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use highwater_env::Env;
use highwater_runtime::connector::{Delivery, Lasting, PublisherContext, Sink};
use highwater_runtime::{BoxError, Data};
use serde::Serialize;

use super::IntoSink;
use super::staged_rows::{Destination, StagedRows};

/// Prints rows as lines of JSON once they are committed; without checkpoints, or if
/// [asked to](super::at_least_once), as they come. After a failure the last ones may be printed again.
///
/// ```
/// use highwater::connectors::{IntoSink, Stdout};
/// let sink = IntoSink::<(String, u64)>::into_sink(Stdout::new());
/// # let _ = sink;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Stdout;

impl Stdout {
    /// Standard output.
    #[must_use]
    pub fn new() -> Self {
        Stdout
    }
}

impl<T: Data> IntoSink<T> for Stdout {
    fn into_sink(self) -> Arc<dyn Sink> {
        StagedRows::<T, _>::sink(self)
    }
}

impl<T: Data> Destination<T> for Stdout {
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn deliver(&self, _: &PublisherContext, _: u64, rows: Vec<T>) -> Result<(), BoxError> {
        print(&rows)
    }

    fn only_by_checkpoint(&self) -> Option<&'static str> {
        None
    }

    fn deliver_directly(&self, _: &dyn Env, rows: &[T]) -> Result<(), BoxError> {
        print(rows)
    }
}

fn print<T: Serialize>(rows: &[T]) -> Result<(), BoxError> {
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, row)?;
        text.push(b'\n');
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).map_err(|error| {
        let text = format!("can't write to standard output: {error}");
        match error.kind() {
            // Whoever read it has gone, and doesn't come back.
            ErrorKind::BrokenPipe => Lasting(text).into(),
            _ => text.into(),
        }
    })
}
