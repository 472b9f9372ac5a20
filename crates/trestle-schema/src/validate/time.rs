//! Rules of durations and points in time.

use std::fmt::{self, Display};
use std::time::SystemTime;

use prost_reflect::DynamicMessage;

use super::datum::{Datum, integer};
use super::number::{Ordered, OrderedRules};
use super::options::{Faults, RuleSet};
use super::violation::{Checked, Violation};

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// A `google.protobuf.Duration` in nanoseconds; 128 bits hold every pair of seconds and nanos a message can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub(super) i128);

/// A `google.protobuf.Timestamp` in nanoseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) i128);

impl Span {
    /// Reads a `google.protobuf.Duration`.
    pub(super) fn read(message: &DynamicMessage) -> Span {
        Span(nanoseconds(message))
    }
}

impl Moment {
    /// Reads a `google.protobuf.Timestamp`.
    pub(super) fn read(message: &DynamicMessage) -> Moment {
        Moment(nanoseconds(message))
    }

    /// The wall clock's time.
    pub(super) fn now() -> Moment {
        let after = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Moment(match after {
            Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
        })
    }
}

/// Both time types hold seconds in field 1 and nanoseconds in field 2.
fn nanoseconds(message: &DynamicMessage) -> i128 {
    i128::from(integer(message, 1)) * NANOS_PER_SECOND + i128::from(integer(message, 2))
}

/// `90s`, `-1.5s`: the form of protobuf's JSON.
impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, nanos) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let whole = nanos / NANOS_PER_SECOND.unsigned_abs();
        let part = nanos % NANOS_PER_SECOND.unsigned_abs();
        if part == 0 {
            return write!(f, "{sign}{whole}s");
        }
        let part = format!("{part:09}");
        write!(f, "{sign}{whole}.{}s", part.trim_end_matches('0'))
    }
}

/// RFC 3339 where the year has four digits, else seconds since 1970.
impl Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// 0001-01-01 and 10000-01-01, in seconds since 1970.
        const WRITABLE: std::ops::Range<i128> = -62_135_596_800..253_402_300_800;
        let seconds = self.0.div_euclid(NANOS_PER_SECOND);
        match i64::try_from(seconds) {
            Ok(whole) if WRITABLE.contains(&seconds) => {
                let nanos = self.0.rem_euclid(NANOS_PER_SECOND);
                let nanos = i32::try_from(nanos).unwrap_or_default();
                prost_types::Timestamp { seconds: whole, nanos }.fmt(f)
            }
            _ => write!(f, "{seconds} s since 1970"),
        }
    }
}

impl Ordered for Span {
    fn of(datum: Datum<'_>) -> Option<Span> {
        match datum {
            Datum::Message(message) => Some(Span::read(message)),
            _ => None,
        }
    }
}

impl Ordered for Moment {
    fn of(datum: Datum<'_>) -> Option<Moment> {
        match datum {
            Datum::Message(message) => Some(Moment::read(message)),
            _ => None,
        }
    }
}

/// The rules of a `google.protobuf.Timestamp`.
#[derive(Debug)]
pub(super) struct TimestampRules {
    ordered: OrderedRules<Moment>,
    before_now: bool,
    after_now: bool,
    within: Option<Span>,
}

impl TimestampRules {
    /// Reads the rules of `set`.
    pub(super) fn read(set: &RuleSet<'_>, faults: &mut Faults) -> TimestampRules {
        let (mut before_now, mut after_now, mut within) = (false, false, None);
        let ordered = OrderedRules::read(set, faults, |name, value| {
            match name {
                "lt_now" => before_now = value.as_bool() == Some(true),
                "gt_now" => after_now = value.as_bool() == Some(true),
                "within" => within = value.as_message().map(Span::read),
                _ => return false,
            }
            true
        });
        TimestampRules { ordered, before_now, after_now, within }
    }

    /// Checks a timestamp; the clock is read only for the rules that need it.
    pub(super) fn check(&self, datum: Datum<'_>) -> Checked {
        self.ordered.check(datum)?;
        if !self.before_now && !self.after_now && self.within.is_none() {
            return Ok(());
        }
        let Some(value) = Moment::of(datum) else {
            return Ok(());
        };
        let now = Moment::now();
        let broken = |rule: &str, message: String| Err(Violation::new(rule, message));
        if self.before_now && value > now {
            return broken("timestamp.lt_now", "must be less than now".to_owned());
        }
        if self.after_now && value < now {
            return broken("timestamp.gt_now", "must be greater than now".to_owned());
        }
        match self.within {
            Some(within) if (value.0 - now.0).abs() > within.0 => {
                broken("timestamp.within", format!("must be within {within} of now"))
            }
            _ => Ok(()),
        }
    }
}
