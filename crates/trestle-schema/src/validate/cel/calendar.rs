//! Functions of time: reading it from text, and the parts of a date.

use super::super::time::{Moment, Span};
use super::functions::no_overload;
use super::node::{Evaluated, Fault};
use super::value::Val;

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i128 = 86_400;

/// A part of a date, or of a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Year,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// The part that the method `name` reads, and what it can be read of, as [`super::functions`] writes it.
pub(super) fn find(name: &str) -> Option<(Part, &'static str)> {
    Some(match name {
        "getFullYear" => (Part::Year, "t"),
        "getMonth" => (Part::Month, "t"),
        "getDate" => (Part::Date, "t"),
        "getDayOfMonth" => (Part::DayOfMonth, "t"),
        "getDayOfWeek" => (Part::DayOfWeek, "t"),
        "getDayOfYear" => (Part::DayOfYear, "t"),
        "getHours" => (Part::Hours, "tp"),
        "getMinutes" => (Part::Minutes, "tp"),
        "getSeconds" => (Part::Seconds, "tp"),
        "getMilliseconds" => (Part::Milliseconds, "tp"),
        _ => return None,
    })
}

/// Reads a part of a timestamp, in UTC or at an offset such as `+02:00`, or of a duration.
pub(super) fn read<'a>(part: Part, arguments: &[Val<'a>]) -> Evaluated<'a> {
    let number = match arguments {
        [Val::Timestamp(moment)] => of_timestamp(part, moment.0),
        [Val::Timestamp(moment), Val::Text(zone)] => {
            let offset = offset(zone)
                .ok_or_else(|| Fault::new(format!("the time zone {zone:?} is no UTC and no offset such as +02:00")))?;
            of_timestamp(part, moment.0.saturating_add(offset * NANOS_PER_SECOND))
        }
        [Val::Duration(span)] => match of_duration(part, span.0) {
            Some(number) => number,
            None => return Err(no_overload("a date's part", arguments)),
        },
        _ => return Err(no_overload("a date's part", arguments)),
    };
    Ok(Val::Int(i64::try_from(number).unwrap_or(i64::MAX)))
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i128> {
    let (sign, rest) = match zone {
        "UTC" | "Z" | "" => return Some(0),
        zone if zone.starts_with('-') => (-1, &zone[1..]),
        zone => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    let inside = hours < 24 && minutes < 60;
    inside.then_some(sign * (i128::from(hours) * 3600 + i128::from(minutes) * 60))
}

fn of_timestamp(part: Part, nanos: i128) -> i128 {
    let seconds = nanos.div_euclid(NANOS_PER_SECOND);
    let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    let days = seconds.div_euclid(SECONDS_PER_DAY);
    let (year, month, day) = date_of(days);
    match part {
        Part::Year => year,
        Part::Month => month - 1,
        Part::Date => day,
        Part::DayOfMonth => day - 1,
        // 1970-01-01 was a Thursday; Sunday is 0.
        Part::DayOfWeek => (days + 4).rem_euclid(7),
        Part::DayOfYear => days - days_before(year),
        Part::Hours => second_of_day / 3600,
        Part::Minutes => second_of_day / 60 % 60,
        Part::Seconds => second_of_day % 60,
        Part::Milliseconds => nanos.rem_euclid(NANOS_PER_SECOND) / 1_000_000,
    }
}

fn of_duration(part: Part, nanos: i128) -> Option<i128> {
    match part {
        Part::Hours => Some(nanos / (3600 * NANOS_PER_SECOND)),
        Part::Minutes => Some(nanos / (60 * NANOS_PER_SECOND)),
        Part::Seconds => Some(nanos / NANOS_PER_SECOND),
        Part::Milliseconds => Some(nanos % NANOS_PER_SECOND / 1_000_000),
        Part::Year | Part::Month | Part::Date => None,
        Part::DayOfMonth | Part::DayOfWeek | Part::DayOfYear => None,
    }
}

/// Days from 1970-01-01 to the first day of `year` in the Gregorian calendar.
fn days_before(year: i128) -> i128 {
    let past = year - 1;
    let leap_days = past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400);
    // 719,162 days lie between 0001-01-01 and 1970-01-01.
    past * 365 + leap_days - 719_162
}

/// Year, month from 1 and day from 1 of the day that is `days` after 1970-01-01.
fn date_of(days: i128) -> (i128, i128, i128) {
    // 400 years have 146,097 days; the estimate is off by at most one year.
    let mut year = 1970 + days * 400 / 146_097;
    while days_before(year) > days {
        year -= 1;
    }
    while days_before(year + 1) <= days {
        year += 1;
    }
    let leap = days_before(year + 1) - days_before(year) - 365;
    let mut day = days - days_before(year);
    let lengths = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    for (month, length) in (1..).zip(lengths) {
        if day < length {
            return (year, month, day + 1);
        }
        day -= length;
    }
    (year, 12, 31)
}

/// The moment `seconds` after 1970 UTC.
pub(super) fn at_second(seconds: i64) -> Moment {
    Moment(i128::from(seconds) * NANOS_PER_SECOND)
}

/// Whole seconds since 1970 UTC.
pub(super) fn seconds(moment: Moment) -> i64 {
    i64::try_from(moment.0.div_euclid(NANOS_PER_SECOND)).unwrap_or(i64::MAX)
}

/// Reads RFC 3339.
pub(super) fn timestamp(text: &str) -> Option<Moment> {
    let time: prost_types::Timestamp = text.parse().ok()?;
    let nanos = i128::from(time.seconds) * NANOS_PER_SECOND + i128::from(time.nanos);
    Some(Moment(nanos))
}

/// Reads `1h30m`, `-1.5s`, `250ms`: decimal numbers, each with a unit.
pub(super) fn duration(text: &str) -> Option<Span> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Span(0));
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        nanos = nanos.checked_add(decimal(number, nanos_of(unit)?)?)?;
        rest = after;
    }
    Some(Span(sign * nanos))
}

fn nanos_of(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// `number`, which may have a fraction, times `unit`, without rounding before the last digit.
fn decimal(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit)?;
    let mut scale = 1;
    for digit in fraction.chars().take(15) {
        scale *= 10;
        nanos = nanos.checked_add(i128::from(digit.to_digit(10)?) * unit / scale)?;
    }
    Some(nanos)
}
