//! Moments, and lengths of time with short names.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, to the millisecond. Stored as the number of milliseconds since 1970 began (UTC), which may be negative.
///
/// ```
/// use highwater::time::{Timestamp, mins};
///
/// let at = Timestamp::from_ms(90_000);
/// assert_eq!(at - mins(1), Timestamp::from_ms(30_000));
/// assert!(at < at + mins(1));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every other.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The end of time, to which the watermark goes when all sources are at their end.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// So many milliseconds since 1970.
    pub const fn from_ms(ms: i64) -> Self {
        Timestamp(ms)
    }

    /// In milliseconds since 1970.
    pub const fn as_ms(self) -> i64 {
        self.0
    }
}

/// As far from 1970 as event times go, either way: 73 million years. What is further counts as just this, so that bounds of windows and joins, which
/// are reckoned from it, are numbers that there are.
pub(in crate::api) const FARTHEST_MS: i64 = i64::MAX / 4;

/// As long as windows, gaps and slides are, at most: 4 million years.
pub(in crate::api) const LONGEST_MS: i64 = i64::MAX / 64;

/// The event time of something that happened then.
#[inline]
pub(in crate::api) fn event_ms(at: i64) -> i64 {
    at.clamp(-FARTHEST_MS, FARTHEST_MS)
}

/// A length of time in milliseconds; one beyond what a timestamp can tell apart is as good as endless.
pub(in crate::api) fn as_ms(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

impl From<i64> for Timestamp {
    fn from(ms: i64) -> Self {
        Timestamp(ms)
    }
}

/// Stays within what there is: never before [`Timestamp::MIN`] or after [`Timestamp::MAX`].
impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, length: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(as_ms(length)))
    }
}

/// As adding.
impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, length: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(as_ms(length)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A time from some moment, before it or after it; made by [`before`] and [`after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelativeTime(i64);

impl RelativeTime {
    /// How many milliseconds after the moment; fewer than none are before it.
    pub(in crate::api) fn as_ms(self) -> i64 {
        self.0
    }
}

/// So long before a moment.
///
/// ```
/// use highwater::time::{after, before, secs};
///
/// assert!(before(secs(2)) < before(secs(1)));
/// assert_eq!(before(secs(0)), after(secs(0)));
/// ```
pub fn before(length: Duration) -> RelativeTime {
    RelativeTime(-as_ms(length))
}

/// So long after a moment.
pub fn after(length: Duration) -> RelativeTime {
    RelativeTime(as_ms(length))
}

/// So many milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// So many seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many minutes.
pub const fn mins(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// So many hours.
pub const fn hours(n: u64) -> Duration {
    mins(n * 60)
}

/// So many days of 24 hours.
pub const fn days(n: u64) -> Duration {
    hours(n * 24)
}
