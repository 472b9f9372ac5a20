//! What operators do with values.

use std::borrow::Cow;
use std::sync::Arc;

use prost_reflect::ReflectMessage;

use super::super::time::{Moment, Span};
use super::node::{Evaluated, Fault};
use super::value::{List, Val};

/// The truth of a condition.
pub(super) fn boolean(value: Val<'_>) -> Result<bool, Fault> {
    match value {
        Val::Bool(value) => Ok(value),
        other => Err(Fault::new(format!("{} is no bool", other.type_name()))),
    }
}

/// The fault of reading `name` of something that has no fields.
pub(super) fn no_field(of: &Val<'_>, name: &str) -> Fault {
    Fault::new(format!("{} has no field `{name}`", of.type_name()))
}

/// `of.name` where the type of `of` is known only now, or is a map's.
pub(super) fn key_of<'a>(of: Val<'a>, name: &str) -> Evaluated<'a> {
    match of {
        Val::Message(message) => match message.descriptor().get_field_by_name(name) {
            Some(field) => Ok(Val::field(message, &field)),
            None => Err(Fault::new(format!("there is no field `{name}`"))),
        },
        Val::Map(map) => {
            let value = map.get(&Val::Text(Cow::Borrowed(name)));
            value.ok_or_else(|| Fault::new(format!("there is no key `{name}`")))
        }
        other => Err(no_field(&other, name)),
    }
}

/// `of[index]`.
pub(super) fn index_of<'a>(of: Val<'a>, index: &Val<'_>) -> Evaluated<'a> {
    let found = match (&of, index) {
        (Val::List(list), Val::Int(index)) => usize::try_from(*index).ok().and_then(|index| list.get(index)),
        (Val::List(list), Val::Uint(index)) => usize::try_from(*index).ok().and_then(|index| list.get(index)),
        (Val::Map(map), key) => map.get(key),
        (other, _) => return Err(Fault::new(format!("{} has no items", other.type_name()))),
    };
    found.ok_or_else(|| Fault::new("there is no such item"))
}

/// `-value`.
pub(super) fn negate(value: Val<'_>) -> Evaluated<'_> {
    match value {
        Val::Int(value) => match value.checked_neg() {
            Some(value) => Ok(Val::Int(value)),
            None => Err(Fault::new("a number is out of range")),
        },
        Val::Double(value) => Ok(Val::Double(-value)),
        Val::Duration(Span(value)) => Ok(Val::Duration(Span(value.saturating_neg()))),
        other => Err(Fault::new(format!("{} cannot be negated", other.type_name()))),
    }
}

/// `list + items`, in place when nobody else holds the list.
pub(super) fn append<'a>(list: Val<'a>, items: Vec<Val<'a>>) -> Evaluated<'a> {
    match list {
        Val::List(List::Made(mut list)) => {
            Arc::make_mut(&mut list).extend(items);
            Ok(Val::List(List::Made(list)))
        }
        other => arithmetic(other, '+', Val::list(items)),
    }
}

/// `a op b`, where `op` is one of `+ - * / %`.
pub(super) fn arithmetic<'a>(a: Val<'a>, op: char, b: Val<'a>) -> Evaluated<'a> {
    let out_of_range = || Fault::new("a number is out of range, or divided by zero");
    Ok(match (a, op, b) {
        (Val::Int(a), op, Val::Int(b)) => {
            let value = match op {
                '+' => a.checked_add(b),
                '-' => a.checked_sub(b),
                '*' => a.checked_mul(b),
                '/' => a.checked_div(b),
                _ => a.checked_rem(b),
            };
            Val::Int(value.ok_or_else(out_of_range)?)
        }
        (Val::Uint(a), op, Val::Uint(b)) => {
            let value = match op {
                '+' => a.checked_add(b),
                '-' => a.checked_sub(b),
                '*' => a.checked_mul(b),
                '/' => a.checked_div(b),
                _ => a.checked_rem(b),
            };
            Val::Uint(value.ok_or_else(out_of_range)?)
        }
        (Val::Double(a), '+', Val::Double(b)) => Val::Double(a + b),
        (Val::Double(a), '-', Val::Double(b)) => Val::Double(a - b),
        (Val::Double(a), '*', Val::Double(b)) => Val::Double(a * b),
        (Val::Double(a), '/', Val::Double(b)) => Val::Double(a / b),
        (Val::Text(a), '+', Val::Text(b)) => Val::text(a.into_owned() + &b),
        (Val::Bytes(a), '+', Val::Bytes(b)) => Val::Bytes(Cow::Owned([a, b].concat())),
        (Val::List(a), '+', Val::List(b)) => Val::list(a.iter().chain(b.iter()).collect()),
        // Times of a message are below 2^94 ns, so sums of 128 bits saturate only after 2^33 of them.
        (Val::Duration(a), '+', Val::Duration(b)) => Val::Duration(Span(a.0.saturating_add(b.0))),
        (Val::Duration(a), '-', Val::Duration(b)) => Val::Duration(Span(a.0.saturating_sub(b.0))),
        (Val::Timestamp(a), '+', Val::Duration(b)) | (Val::Duration(b), '+', Val::Timestamp(a)) => {
            Val::Timestamp(Moment(a.0.saturating_add(b.0)))
        }
        (Val::Timestamp(a), '-', Val::Duration(b)) => Val::Timestamp(Moment(a.0.saturating_sub(b.0))),
        (Val::Timestamp(a), '-', Val::Timestamp(b)) => Val::Duration(Span(a.0.saturating_sub(b.0))),
        (a, op, b) => {
            let (a, b) = (a.type_name(), b.type_name());
            return Err(Fault::new(format!("there is no {a} {op} {b}")));
        }
    })
}
