//! A simulated world for the engine: threads under a baton, tasks, a virtual clock, storage and failure, all from one seed.
//!
//! The engine runs here unchanged: [`SimEnv`](highwater_env::Env) is its environment, [`World::store`] its storage. Everything that could
//! happen in any order happens in an order drawn from the seed, one thing at a time, and everything that can go wrong goes wrong where a
//! list of [`Fault`]s says so. The same seed and the same list give the same run.
//!
//! ```text
//!  controller ─start, await─▶ processes: a main thread and its workers ──┐ one thread at a time has the baton,
//!      (the caller's thread)        │ tasks, sleeps                       │ and whoever has it decides what comes next
//!                                   ▼                                     │
//!                     connections with other processes,  ─────────────────┘
//!                     calls of the store: latency, faults
//! ```
//!
//! - [`World`]: the whole. - `scheduler`: who goes next. - `network`: connections. - `store`, `disk`: what lasts.
//! - [`Fault`], [`Mix`]: what goes wrong. - [`run`](fn@run): a job from start to end, through all of it.

mod disk;
mod env;
mod fault;
mod network;
mod random;
mod run;
mod scheduler;
mod shrink;
mod store;
mod world;

pub use fault::{Fault, Mix, What, When};
pub use random::Random;
pub use run::{Attempt, Ended, Run, Scenario, Violation, run};
pub use shrink::shrink;
pub use store::Media;
pub use world::{Counts, Moment, World};
