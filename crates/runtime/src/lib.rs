//! Epochs, checkpoints and recovery on timely dataflow: everything of the engine that knows timely.
//!
//! A job comes here as a [`Plan`] of [`Operator`]s, [`connector::Source`]s and [`connector::Sink`]s and is run by
//! [`run`]. The typed API above makes plans; this crate knows nothing of it.
//!
//! - [`time`](Epoch), [`batch`]: what travels. - [`plan`], [`operator`], [`connector`]: what a job is made of.
//! - `dataflow`: one worker's part of it, on timely. - `recover`, `graph`, `commit`: the two ends of a checkpoint's life,
//!   as tasks around the commit log. - [`attempt`]: what they share. - [`observe`]: what people see of it all.
//! - [`cluster`]: several processes that run one attempt together. - [`careful`]: finding the record that makes a job fail.

pub mod alignment;
pub mod attempt;
pub mod batch;
pub mod careful;
pub mod cluster;
mod commit;
pub mod connector;
mod dataflow;
mod error;
mod graph;
pub mod observe;
pub mod operator;
pub mod plan;
mod publish;
mod recover;
mod run;
mod settings;
mod time;
pub mod watermark;
mod workers;

pub use attempt::Control;
pub use batch::{Batch, Data, Keyed, Rows, RowsType};
pub use error::{BoxError, Error};
pub use operator::{EpochBegin, EpochEnd, Operator, OperatorContext, Outputs, Wants, Work};
pub use plan::{Plan, PlanError};
pub use run::{Outcome, run, run_process};
pub use settings::{Settings, Trigger};
pub use time::Epoch;
