//! Conversions between the types of values.

use super::functions::{cannot, no_overload};
use super::node::{Evaluated, Fault};
use super::value::Val;
use super::{calendar, strings};

/// Truncates a double, as `int()` does.
pub(super) fn to_int(value: &Val<'_>) -> Result<i64, Fault> {
    match value {
        Val::Int(value) => Ok(*value),
        Val::Uint(value) => i64::try_from(*value).map_err(|_| cannot("int", &value.to_string())),
        Val::Double(value) if value.abs() < 9.2e18 => Ok(value.trunc() as i64),
        Val::Text(text) => text.parse().map_err(|_| cannot("int", text)),
        Val::Timestamp(moment) => Ok(calendar::seconds(*moment)),
        other => Err(no_overload("int", std::slice::from_ref(other))),
    }
}

/// Truncates a double, as `uint()` does.
pub(super) fn to_uint(value: &Val<'_>) -> Result<u64, Fault> {
    match value {
        Val::Uint(value) => Ok(*value),
        Val::Int(value) => u64::try_from(*value).map_err(|_| cannot("uint", &value.to_string())),
        Val::Double(value) if (0.0..1.8e19).contains(value) => Ok(value.trunc() as u64),
        Val::Text(text) => text.parse().map_err(|_| cannot("uint", text)),
        other => Err(no_overload("uint", std::slice::from_ref(other))),
    }
}

/// The double nearest to a number.
pub(super) fn to_double(value: &Val<'_>) -> Result<f64, Fault> {
    match value {
        Val::Double(value) => Ok(*value),
        Val::Int(value) => Ok(*value as f64),
        Val::Uint(value) => Ok(*value as f64),
        Val::Text(text) => text.parse().map_err(|_| cannot("double", text)),
        other => Err(no_overload("double", std::slice::from_ref(other))),
    }
}

/// A scalar, a time or UTF-8 as text.
pub(super) fn to_text<'a>(value: &Val<'a>) -> Evaluated<'a> {
    Ok(match value {
        Val::Text(text) => Val::Text(text.clone()),
        Val::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Val::text(text),
            Err(_) => return Err(Fault::new("the bytes are no UTF-8")),
        },
        Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Duration(_) | Val::Timestamp(_) => {
            Val::text(strings::written(value))
        }
        other => return Err(no_overload("string", std::slice::from_ref(other))),
    })
}
