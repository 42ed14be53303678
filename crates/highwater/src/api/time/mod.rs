//! Event time: when records happened, as opposed to when they are read.
//!
//! [`Stream::event_time`](crate::Stream::event_time) gives every record a [`Timestamp`] and says how a [`Watermark`] is made of them. Times
//! travel with records through stateless operators and [`key_by`](crate::Stream::key_by), whatever becomes of the records; windows and timers
//! go by the watermark.
//!
//! A watermark is known at the end of every epoch, and is the same on all workers. A record is late if its time is below the watermark
//! at the end of the epoch before its own. So which records are late, and what windows come to, depends on the epochs in which records were
//! read, never on the number of workers or on which of them is faster.

mod stamp;
mod timestamp;
mod watermark;

pub(super) use stamp::Stamp;
pub(super) use timestamp::{FARTHEST_MS, LONGEST_MS, as_ms, event_ms};
pub use timestamp::{RelativeTime, Timestamp, after, before, days, hours, millis, mins, secs};
pub use watermark::{Watermark, WatermarkGenerator};
