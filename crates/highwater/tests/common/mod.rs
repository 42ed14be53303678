//! What several of the tests of whole jobs use.

#![allow(dead_code, reason = "each test uses some of it")]

pub mod store;
pub mod watched;
