//! Random jobs in a simulated world, under faults drawn from a seed, compared with a plain model.
//!
//! ```text
//!  seed ─▶ graph ─▶ job (typed API) ─▶ world: attempts, faults ─▶ tables ─┐
//!            └────▶ model ───────────────────────────────────────────────┴─▶ check
//! ```

pub mod check;
pub mod exhaust;
pub mod explore;
pub mod graph;
pub mod inputs;
pub mod job;
pub mod joins;
pub mod model;
pub mod op;
pub mod replay;
pub mod source;
pub mod state;
pub mod table;
pub mod timed;
pub mod trial;
pub mod windows;
