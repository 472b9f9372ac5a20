//! The text forms of Timestamp, Duration and FieldMask, as canonical proto3 JSON has them.

use prost_types::{Duration, FieldMask, Timestamp};

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, in seconds from 1970.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// 10,000 years of 365.25 days.
const DURATION_SECONDS_MAX: u64 = 315_576_000_000;
const NANOS_PER_SECOND: u32 = 1_000_000_000;

const TIMESTAMP_FORM: &str = "expected a time such as \"2026-11-24T12:00:00.5Z\", in the years 1 to 9999";
const DURATION_FORM: &str = "expected seconds such as \"1.5s\", at most 10,000 years";
const MASK_FORM: &str = "expected field paths in lowerCamelCase joined by commas, such as \"user.displayName,photo\"";

/// Parses RFC 3339 with `T`, and `Z` or an offset, with at most nine digits of fraction.
///
/// # Errors
/// Says the form that is expected.
pub fn parse_timestamp(text: &str) -> Result<Timestamp, &'static str> {
    timestamp(text).filter(|time| TIMESTAMP_SECONDS.contains(&time.seconds)).ok_or(TIMESTAMP_FORM)
}

fn timestamp(text: &str) -> Option<Timestamp> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (hour, rest) = digits(rest.strip_prefix('T')?, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (nanos, zone) = fraction(rest)?;
    if second > 59 {
        return None; // a leap second has no number of its own since 1970
    }
    let byte = |number: u32| u8::try_from(number).ok();
    let (month, day, hour) = (byte(month)?, byte(day)?, byte(hour)?);
    let mut time =
        Timestamp::date_time_nanos(year.into(), month, day, hour, byte(minute)?, byte(second)?, nanos).ok()?;
    time.seconds -= offset(zone)?;
    Some(time)
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = digits(&zone[1..], 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':')?, 2)?;
    (rest.is_empty() && hours < 24 && minutes < 60).then(|| sign * i64::from(hours * 60 + minutes) * 60)
}

/// Prints RFC 3339 in UTC with 0, 3, 6 or 9 digits of fraction.
pub(crate) fn print_timestamp(time: &Timestamp) -> Result<String, &'static str> {
    check_timestamp(time).map(|()| time.to_string())
}

/// Whether a `Timestamp` is a time at all, as protobuf's documentation bounds it.
///
/// # Errors
/// Says the bounds.
pub fn check_timestamp(time: &Timestamp) -> Result<(), &'static str> {
    let whole = u32::try_from(time.nanos).is_ok_and(|nanos| nanos < NANOS_PER_SECOND);
    if whole && TIMESTAMP_SECONDS.contains(&time.seconds) {
        return Ok(());
    }
    Err("the time is not in the years 1 to 9999, or its nanos are not in 0 to 999,999,999")
}

/// Parses seconds with at most nine digits of fraction and an `s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    duration(text).ok_or(DURATION_FORM)
}

fn duration(text: &str) -> Option<Duration> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let rest = rest.strip_suffix('s')?;
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let seconds = rest[..length].parse::<u64>().ok()?;
    let (nanos, rest) = fraction(&rest[length..])?;
    if !rest.is_empty() || seconds > DURATION_SECONDS_MAX {
        return None;
    }
    let (seconds, nanos) = (i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?);
    Some(if negative { Duration { seconds: -seconds, nanos: -nanos } } else { Duration { seconds, nanos } })
}

/// Prints seconds with 0, 3, 6 or 9 digits of fraction and an `s`.
pub(crate) fn print_duration(duration: &Duration) -> Result<String, &'static str> {
    let whole = duration.nanos.unsigned_abs() < NANOS_PER_SECOND;
    let same_sign = i64::from(duration.nanos.signum()) * duration.seconds.signum() >= 0;
    if whole && same_sign && duration.seconds.unsigned_abs() <= DURATION_SECONDS_MAX {
        return Ok(duration.to_string());
    }
    Err("the duration is longer than 10,000 years, or its nanos do not fit its seconds")
}

/// Parses paths in lowerCamelCase to paths of field names.
pub(crate) fn parse_mask(text: &str) -> Result<FieldMask, &'static str> {
    if text.is_empty() {
        return Ok(FieldMask::default());
    }
    let paths = text.split(',').map(snake_case).collect::<Option<_>>().ok_or(MASK_FORM)?;
    Ok(FieldMask { paths })
}

/// Prints paths of field names as paths in lowerCamelCase.
pub(crate) fn print_mask(mask: &FieldMask) -> Result<String, &'static str> {
    let paths: Option<Vec<_>> = mask.paths.iter().map(|path| camel_case(path)).collect();
    paths.map(|paths| paths.join(",")).ok_or("a path of the field mask would not come back from lowerCamelCase")
}

fn snake_case(path: &str) -> Option<String> {
    let mut snake = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        match c {
            'A'..='Z' => snake.extend(['_', c.to_ascii_lowercase()]),
            'a'..='z' | '0'..='9' | '.' => snake.push(c),
            _ => return None,
        }
    }
    Some(snake).filter(|snake| !snake.is_empty())
}

fn camel_case(path: &str) -> Option<String> {
    let mut camel = String::with_capacity(path.len());
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        match c {
            '_' => camel.push(rest.next().filter(char::is_ascii_lowercase)?.to_ascii_uppercase()),
            'a'..='z' | '0'..='9' | '.' => camel.push(c),
            _ => return None,
        }
    }
    Some(camel).filter(|camel| !camel.is_empty())
}

/// The number in the first `count` digits, and what follows.
fn digits(text: &str, count: usize) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(count)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

/// The nanoseconds of `.123`, 0 without a point, and what follows.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let (number, rest) = digits(rest, length)?;
    let scale = 10_u32.pow(9 - u32::try_from(length).ok()?);
    Some((number * scale, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_any_zone_and_printed_in_utc() {
        for (read, printed) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("2026-11-24T14:00:00.5+02:00", "2026-11-24T12:00:00.500Z"),
            ("2026-11-24T00:00:00.000001-00:30", "2026-11-24T00:30:00.000001Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
            ("2024-02-29T23:59:59Z", "2024-02-29T23:59:59Z"),
        ] {
            let time = parse_timestamp(read).expect(read);
            assert_eq!(print_timestamp(&time).as_deref(), Ok(printed), "{read}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-24",
            "2026-11-24t12:00:00Z",
            "2026-11-24T12:00:00z",
            "2026-11-24 12:00:00Z",
            "2026-11-24T12:00:00",
            "2026-11-24T12:00Z",
            "2026-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T23:59:60Z",
            "2026-11-24T12:00:00.Z",
            "2026-11-24T12:00:00.1234567890Z",
            "2026-11-24T12:00:00+24:00",
            "2026-11-24T12:00:00+0200",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "+2026-11-24T12:00:00Z",
            "٢026-11-24T12:00:00Z",
        ] {
            assert!(parse_timestamp(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_duration_is_seconds() {
        for (read, printed) in [
            ("0s", "0s"),
            ("1.5s", "1.500s"),
            ("-0.5s", "-0.500s"),
            ("3.000000001s", "3.000000001s"),
            ("-315576000000s", "-315576000000s"),
        ] {
            let duration = parse_duration(read).expect(read);
            assert_eq!(print_duration(&duration).as_deref(), Ok(printed), "{read}");
        }
        for text in ["", "s", "1", "1 s", "1.s", ".5s", "+1s", "--1s", "1.0000000001s", "315576000001s", "1m", "1ss"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert!(print_duration(&Duration { seconds: 1, nanos: -1 }).is_err());
    }

    #[test]
    fn a_mask_goes_between_the_two_spellings() {
        let mask = parse_mask("user.displayName,photo").expect("valid");
        assert_eq!(mask.paths, ["user.display_name", "photo"]);
        assert_eq!(print_mask(&mask).as_deref(), Ok("user.displayName,photo"));
        assert!(parse_mask("display_name").is_err() && parse_mask("a,,b").is_err() && parse_mask("a b").is_err());
        for path in ["displayName", "a__b", "a_3", "a_"] {
            assert!(print_mask(&FieldMask { paths: vec![path.to_owned()] }).is_err(), "{path}");
        }
    }
}
