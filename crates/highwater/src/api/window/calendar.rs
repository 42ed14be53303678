//! Windows of the calendar: days, weeks, months and years, as people in a time zone count them.
//!
//! The zones are compiled in, so that all machines agree on them.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::api::time::FARTHEST_MS;

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
            _ if time < start => (-FARTHEST_MS, start),
            _ if time >= end => (end, FARTHEST_MS + 1),
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
        let begin = |date: Option<Date>| date.and_then(|date| self.begin_of(date));
        let next = self.behind(first);
        let end = begin(next).unwrap_or(i64::MAX);
        if time < end {
            return (begin(first).unwrap_or(i64::MIN), end);
        }
        // The clocks have been put back across midnight, and it is the day before once more.
        (end, begin(self.behind(next)).unwrap_or(i64::MAX))
    }

    /// The first date of the window behind the one that begins with this date.
    fn behind(&self, first: Option<Date>) -> Option<Date> {
        let span = match self.unit {
            Unit::Day => 1.day(),
            Unit::Week => 1.week(),
            Unit::Month => 1.month(),
            Unit::Year => 1.year(),
        };
        first?.checked_add(span).ok()
    }

    /// The first moment of a date. Where the clocks are put forward at midnight, the day begins later; where they are put back across midnight, it begins the first time.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;

    /// In St. John's clocks were put back from 0:01 to 23:01 of the day before: what happens then is in the day that had begun.
    #[test]
    fn a_day_that_has_begun_goes_on_though_clocks_say_the_day_before() {
        let days = Days::new(Unit::Day, "America/St_Johns").unwrap();
        // On 7 November 2010 at 2:31 UTC.
        let put_back = 1_289_097_060_000;
        let begin = put_back - 60_000;
        let day = (begin, begin + 25 * HOUR);
        assert_eq!(days.span_of(begin - 1).1, begin);
        for minutes in [-1, 0, 10, 58, 59, 60, 120] {
            assert_eq!(days.span_of(put_back + minutes * 60_000), day, "{minutes}");
        }
        assert_eq!(days.span_of(day.1).0, day.1);
    }

    proptest! {
        /// Windows follow one another without a gap, wherever and however clocks are changed.
        #[test]
        fn every_moment_is_in_one_window(
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/St_Johns", "America/Sao_Paulo", "America/Havana", "Africa/Cairo",
                "Pacific/Apia", "Australia/Lord_Howe", "Asia/Beirut", "America/Toronto",
            ]),
            unit in prop::sample::select(vec![Unit::Day, Unit::Week, Unit::Month, Unit::Year]),
            // From 1900 to 2040, in minutes.
            minute in -36_000_000..37_000_000_i64,
        ) {
            let days = Days::new(unit, zone).unwrap();
            let time = minute * 60_000;
            let (start, end) = days.span_of(time);
            prop_assert!(start <= time && time < end, "{start} {time} {end}");
            for inside in [start, start + (end - start) / 2, end - 1] {
                prop_assert_eq!(days.span_of(inside), (start, end));
            }
            prop_assert_eq!(days.span_of(end).0, end);
        }
    }
}
