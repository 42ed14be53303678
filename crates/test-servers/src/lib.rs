//! Real servers for tests: started on loopback by the test itself, at free ports, and ended with it.
//!
//! `scripts/test-servers.sh` installs them, outside of the checkout. A server belongs to the thread that started it: when that
//! thread ends, however it ends, the system kills the server. So a test starts its own, and holds it to its end.
//!
//! [`S3::moto`] is quick to start and keeps everything in memory; [`S3::seaweed`] keeps it on disk, so that it can be killed and
//! started again, and checks credentials.

#![allow(clippy::disallowed_methods, reason = "tests of real servers run in the real world")]

mod process;
mod s3;

pub use process::Process;
pub use s3::S3;
