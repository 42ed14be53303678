//! Columns that only other tools write: points in time, dates, times of day, decimals, bytes of fixed length.
//!
//! A number that is asked for is whole milliseconds, since 1970 (UTC) or since midnight, which is how this project counts time; what is finer is
//! cut off. A text is as ISO 8601 writes it, with all that the column has. A decimal is a text of its digits, or a number if that is asked for.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, NaiveTime};
use serde::de::{Error, Visitor};

use crate::cursor::ReadError;

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1000;
const NS_PER_SECOND: i64 = 1_000_000_000;

/// The values of such a column.
pub(crate) enum Foreign {
    /// Since 1970, in so many ticks a second; at UTC, or wherever whoever wrote it was.
    Instant {
        ticks: ScalarBuffer<i64>,
        per_second: i64,
        is_utc: bool,
    },
    /// Days since 1970.
    Date(ScalarBuffer<i32>),
    /// Since midnight.
    TimeOfDay {
        ticks: ScalarBuffer<i64>,
        per_second: i64,
    },
    /// With so many digits behind the point.
    Decimal {
        values: ScalarBuffer<i128>,
        scale: i8,
    },
    Bytes(FixedSizeBinaryArray),
}

impl Foreign {
    /// The values of an array, if it is of such a type.
    pub(crate) fn new(array: &ArrayRef) -> Option<Self> {
        macro_rules! ticks {
            ($type:ty) => {
                array.as_primitive::<$type>().values().clone()
            };
        }
        macro_rules! wide_ticks {
            ($type:ty) => {
                array.as_primitive::<$type>().values().iter().map(|&tick| i64::from(tick)).collect()
            };
        }
        Some(match array.data_type() {
            DataType::Timestamp(unit, zone) => {
                let ticks = match unit {
                    TimeUnit::Second => ticks!(TimestampSecondType),
                    TimeUnit::Millisecond => ticks!(TimestampMillisecondType),
                    TimeUnit::Microsecond => ticks!(TimestampMicrosecondType),
                    TimeUnit::Nanosecond => ticks!(TimestampNanosecondType),
                };
                // With whatever zone it is to be shown, it is stored as UTC.
                Foreign::Instant { ticks, per_second: per_second(*unit), is_utc: zone.is_some() }
            }
            DataType::Date32 => Foreign::Date(array.as_primitive::<Date32Type>().values().clone()),
            DataType::Time32(unit @ TimeUnit::Second) => Foreign::TimeOfDay {
                ticks: wide_ticks!(Time32SecondType),
                per_second: per_second(*unit),
            },
            DataType::Time32(unit) => Foreign::TimeOfDay {
                ticks: wide_ticks!(Time32MillisecondType),
                per_second: per_second(*unit),
            },
            DataType::Time64(unit @ TimeUnit::Microsecond) => Foreign::TimeOfDay {
                ticks: ticks!(Time64MicrosecondType),
                per_second: per_second(*unit),
            },
            DataType::Time64(unit) => Foreign::TimeOfDay {
                ticks: ticks!(Time64NanosecondType),
                per_second: per_second(*unit),
            },
            DataType::Decimal128(_, scale) => {
                let values = array.as_primitive::<Decimal128Type>().values().clone();
                Foreign::Decimal { values, scale: *scale }
            }
            DataType::FixedSizeBinary(_) => Foreign::Bytes(array.as_fixed_size_binary().clone()),
            _ => return None,
        })
    }

    /// The value in a row as a number, or as what is nearest to it.
    pub(crate) fn number<'c, V: Visitor<'c>>(
        &'c self,
        row: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self {
            Foreign::Instant { ticks, per_second, .. }
            | Foreign::TimeOfDay { ticks, per_second } => match millis(ticks[row], *per_second) {
                Some(ms) => visitor.visit_i64(ms),
                None => Err(out_of_range(ticks[row])),
            },
            Foreign::Date(days) => visitor.visit_i64(i64::from(days[row]) * MS_PER_DAY),
            Foreign::Decimal { values, scale } => match i64::try_from(values[row]) {
                Ok(value) if *scale == 0 => visitor.visit_i64(value),
                _ => visitor.visit_f64(values[row] as f64 / 10_f64.powi(i32::from(*scale))),
            },
            Foreign::Bytes(values) => visitor.visit_borrowed_bytes(values.value(row)),
        }
    }

    /// The value in a row as text.
    pub(crate) fn text<'c, V: Visitor<'c>>(
        &'c self,
        row: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let text = match self {
            Foreign::Instant { ticks, per_second, is_utc } => {
                let (seconds, ns) = split(ticks[row], *per_second);
                DateTime::from_timestamp(seconds, ns).map(|at| {
                    let zone = if *is_utc { "Z" } else { "" };
                    format!("{}{zone}", at.format("%Y-%m-%dT%H:%M:%S%.f"))
                })
            }
            Foreign::Date(days) => {
                let seconds = i64::from(days[row]) * (MS_PER_DAY / 1000);
                DateTime::from_timestamp(seconds, 0).map(|at| at.format("%Y-%m-%d").to_string())
            }
            Foreign::TimeOfDay { ticks, per_second } => {
                let (seconds, ns) = split(ticks[row], *per_second);
                let seconds = u32::try_from(seconds).ok();
                let time =
                    seconds.and_then(|s| NaiveTime::from_num_seconds_from_midnight_opt(s, ns));
                time.map(|time| time.format("%H:%M:%S%.f").to_string())
            }
            Foreign::Decimal { values, scale } => Some(decimal(values[row], *scale)),
            Foreign::Bytes(values) => return visitor.visit_borrowed_bytes(values.value(row)),
        };
        match (text, self) {
            (Some(text), _) => visitor.visit_string(text),
            (None, Foreign::Instant { ticks, .. } | Foreign::TimeOfDay { ticks, .. }) => {
                Err(out_of_range(ticks[row]))
            }
            (None, _) => Err(Error::custom("the date is out of range")),
        }
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => NS_PER_SECOND,
    }
}

fn millis(ticks: i64, per_second: i64) -> Option<i64> {
    match per_second {
        1 => ticks.checked_mul(1000),
        _ => Some(ticks.div_euclid(per_second / 1000)),
    }
}

/// Whole seconds and nanoseconds.
fn split(ticks: i64, per_second: i64) -> (i64, u32) {
    let ns = ticks.rem_euclid(per_second) * (NS_PER_SECOND / per_second);
    (ticks.div_euclid(per_second), ns as u32)
}

#[cold]
fn out_of_range(ticks: i64) -> ReadError {
    Error::custom(format!("the time {ticks} is out of range"))
}

fn decimal(value: i128, scale: i8) -> String {
    let digits = value.unsigned_abs().to_string();
    let sign = if value < 0 { "-" } else { "" };
    match usize::try_from(scale) {
        Ok(0) => format!("{sign}{digits}"),
        Ok(scale) => {
            let digits = format!("{digits:0>width$}", width = scale + 1);
            let (whole, rest) = digits.split_at(digits.len() - scale);
            format!("{sign}{whole}.{rest}")
        }
        Err(_) => format!("{sign}{digits}{}", "0".repeat(usize::from(scale.unsigned_abs()))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        Date32Array, Decimal128Array, Time64MicrosecondArray, TimestampMicrosecondArray,
        TimestampNanosecondArray, TimestampSecondArray,
    };
    use arrow_schema::Field;
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use crate::ColumnReader;

    use super::*;

    fn get<T: DeserializeOwned>(array: impl Array + 'static, row: usize) -> Result<T, String> {
        let array: ArrayRef = Arc::new(array);
        let field = Field::new("it", array.data_type().clone(), true);
        let reader = ColumnReader::<T>::new(&field, &array).map_err(|error| error.to_string())?;
        reader.get(row).map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_milliseconds_or_text() {
        let us = || TimestampMicrosecondArray::from(vec![Some(1_500_001), Some(-1), None]);
        assert_eq!(get(us(), 0), Ok(1500_i64));
        assert_eq!(get(us(), 0), Ok("1970-01-01T00:00:01.500001".to_owned()));
        // Before 1970 it is cut off towards the past, too.
        assert_eq!(get(us(), 1), Ok(-1_i64));
        assert_eq!(
            get(us().with_timezone("Europe/Berlin"), 1),
            Ok("1969-12-31T23:59:59.999999Z".to_owned())
        );
        assert!(get::<u64>(us(), 1).unwrap_err().contains("integer `-1`"));
        #[derive(Deserialize, PartialEq, Debug)]
        struct Wrapped(Option<f64>);
        // `Option` needs the column's nulls, which stand for rows here.
        assert_eq!(get(TimestampNanosecondArray::from(vec![2_999_999]), 0), Ok(Wrapped(Some(2.0))));
        assert_eq!(get(TimestampSecondArray::from(vec![7]), 0), Ok(7000_u16));
        assert!(get::<i64>(TimestampSecondArray::from(vec![i64::MAX]), 0).is_err());
        assert!(get::<String>(TimestampSecondArray::from(vec![i64::MAX]), 0).is_err());
        let parsed: chrono::DateTime<chrono::Utc> = get(us().with_timezone("UTC"), 0).unwrap();
        assert_eq!(parsed.timestamp_micros(), 1_500_001);
    }

    #[test]
    fn dates_and_times_of_day_are_too() {
        let date = || Date32Array::from(vec![19_860, -1]);
        assert_eq!(get(date(), 0), Ok("2024-05-17".to_owned()));
        assert_eq!(get(date(), 0), Ok(chrono::NaiveDate::from_ymd_opt(2024, 5, 17).unwrap()));
        assert_eq!(get(date(), 1), Ok(-86_400_000_i64));
        let time = || Time64MicrosecondArray::from(vec![3_723_000_004, -1]);
        assert_eq!(get(time(), 0), Ok("01:02:03.000004".to_owned()));
        assert_eq!(get(time(), 0), Ok(3_723_000_u32));
        assert!(get::<String>(time(), 1).is_err());
    }

    #[test]
    fn decimals_keep_their_digits() {
        let of = |values: Vec<i128>, scale| {
            Decimal128Array::from(values).with_precision_and_scale(20, scale).unwrap()
        };
        for (value, scale, text) in
            [(-5, 2, "-0.05"), (12_345, 2, "123.45"), (7, 0, "7"), (7, -2, "700"), (0, 3, "0.000")]
        {
            assert_eq!(get(of(vec![value], scale), 0), Ok(text.to_owned()));
        }
        assert_eq!(get(of(vec![12_345], 2), 0), Ok(123.45));
        assert_eq!(get(of(vec![7], 0), 0), Ok(7_u8));
        assert!(get::<u8>(of(vec![75], 1), 0).unwrap_err().contains("floating point"));
    }

    #[test]
    fn bytes_are_bytes() {
        let fixed = FixedSizeBinaryArray::try_from_iter([[1_u8, 2]].into_iter()).unwrap();
        assert_eq!(get(fixed, 0), Ok(vec![1_u8, 2]));
        let binary = arrow_array::BinaryArray::from(vec![b"ab".as_slice()]);
        assert_eq!(get(binary, 0), Ok(b"ab".to_vec()));
    }

    #[test]
    fn what_cannot_be_read_names_its_type() {
        let array = arrow_array::Decimal256Array::from(vec![None]);
        let error = get::<String>(array, 0).unwrap_err();
        assert!(error.contains("Decimal256"), "{error}");
    }
}
