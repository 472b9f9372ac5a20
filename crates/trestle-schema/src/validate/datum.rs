//! A value as the rules see it: borrowed from a message, without regard to where it stood.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, MapKey, Value};

/// A borrowed value of any protobuf type; 32-bit numbers are widened, which loses nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Datum<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Enum(i32),
    Message(&'a DynamicMessage),
    List(&'a [Value]),
    Map(&'a HashMap<MapKey, Value>),
}

impl<'a> From<&'a Value> for Datum<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Bool(value) => Datum::Bool(*value),
            Value::I32(value) => Datum::Int(i64::from(*value)),
            Value::I64(value) => Datum::Int(*value),
            Value::U32(value) => Datum::Uint(u64::from(*value)),
            Value::U64(value) => Datum::Uint(*value),
            Value::F32(value) => Datum::Float(f64::from(*value)),
            Value::F64(value) => Datum::Float(*value),
            Value::String(value) => Datum::Text(value),
            Value::Bytes(value) => Datum::Bytes(value),
            Value::EnumNumber(value) => Datum::Enum(*value),
            Value::Message(value) => Datum::Message(value),
            Value::List(value) => Datum::List(value),
            Value::Map(value) => Datum::Map(value),
        }
    }
}

impl<'a> From<&'a MapKey> for Datum<'a> {
    fn from(key: &'a MapKey) -> Self {
        match key {
            MapKey::Bool(key) => Datum::Bool(*key),
            MapKey::I32(key) => Datum::Int(i64::from(*key)),
            MapKey::I64(key) => Datum::Int(*key),
            MapKey::U32(key) => Datum::Uint(u64::from(*key)),
            MapKey::U64(key) => Datum::Uint(*key),
            MapKey::String(key) => Datum::Text(key),
        }
    }
}

/// The zero value of a list's item, a map's key or a map's value, which `IGNORE_IF_ZERO_VALUE` lets pass.
///
/// A message that is there is never zero; an enum's zero is its first value, in proto3 the number 0.
pub(super) fn is_zero(datum: Datum<'_>, enum_zero: i32) -> bool {
    match datum {
        Datum::Bool(value) => !value,
        Datum::Int(value) => value == 0,
        Datum::Uint(value) => value == 0,
        Datum::Float(value) => value == 0.0,
        Datum::Text(value) => value.is_empty(),
        Datum::Bytes(value) => value.is_empty(),
        Datum::Enum(value) => value == enum_zero,
        Datum::Message(_) => false,
        Datum::List(value) => value.is_empty(),
        Datum::Map(value) => value.is_empty(),
    }
}

/// The 64-bit number in `message`'s field `number`: 0 when it is unset or not a signed number.
///
/// Reads `seconds` and `nanos` of the time types without a generated type.
pub(super) fn integer(message: &DynamicMessage, number: u32) -> i64 {
    match message.get_field_by_number(number).as_deref() {
        Some(Value::I64(value)) => *value,
        Some(Value::I32(value)) => i64::from(*value),
        _ => 0,
    }
}
