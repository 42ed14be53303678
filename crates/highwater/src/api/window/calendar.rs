//! Windows of the calendar: days, weeks, months and years, as people in a time zone count them.
//!
//! The zones are compiled in, so that all machines agree on them.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// In the year -9998.
const FIRST: i64 = -377_600_000_000_000;

/// In the year 9998.
const LAST: i64 = 253_360_000_000_000;

/// A span of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Day,
    Week,
    Month,
    Year,
}

/// The windows of a unit in a zone.
#[derive(Clone)]
pub struct Days {
    unit: Unit,
    zone: TimeZone,
}

impl Days {
    /// The windows of a zone, by its name.
    pub(super) fn new(unit: Unit, zone: &str) -> Result<Self, String> {
        match TimeZone::get(zone) {
            Ok(zone) => Ok(Days { unit, zone }),
            Err(error) => Err(format!(
                "there is no time zone {zone:?}: give one as `Europe/Berlin` or `UTC` ({error})"
            )),
        }
    }

    /// The window of a moment, in milliseconds: its first moment and the first one behind it.
    ///
    /// Beyond the years that the calendar has there is one window on either side.
    pub(super) fn span_of(&self, time: i64) -> (i64, i64) {
        let (start, end) = self.find(time.clamp(FIRST, LAST));
        match time {
            _ if time < start => (i64::MIN, start),
            _ if time >= end => (end, i64::MAX),
            _ => (start, end),
        }
    }

    /// The window of a moment from [`FIRST`] to [`LAST`].
    fn find(&self, time: i64) -> (i64, i64) {
        let Ok(at) = Timestamp::from_millisecond(time) else { return (i64::MIN, i64::MAX) };
        let date = self.zone.to_datetime(at).date();
        let first = match self.unit {
            Unit::Day => Some(date),
            Unit::Week => {
                let days = date.weekday().to_monday_zero_offset();
                date.checked_sub(i64::from(days).days()).ok()
            }
            Unit::Month => Some(date.first_of_month()),
            Unit::Year => Some(date.first_of_year()),
        };
        let next = first.and_then(|first| {
            let span = match self.unit {
                Unit::Day => 1.day(),
                Unit::Week => 1.week(),
                Unit::Month => 1.month(),
                Unit::Year => 1.year(),
            };
            first.checked_add(span).ok()
        });
        let begin = |date: Option<Date>| date.and_then(|date| self.begin_of(date));
        (begin(first).unwrap_or(i64::MIN), begin(next).unwrap_or(i64::MAX))
    }

    /// The first moment of a date; where the clocks are put forward at midnight, the day begins later.
    fn begin_of(&self, date: Date) -> Option<i64> {
        let zoned = date.to_zoned_datetime(self.zone.clone()).ok()?;
        Some(zoned.timestamp().as_millisecond())
    }
}

impl fmt::Debug for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}s in {:?}", self.unit, self.zone.iana_name())
    }
}
