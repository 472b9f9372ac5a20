//! Values of expressions, borrowed from the message wherever they can be.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, ReflectMessage, Value};

use super::super::datum::Datum;
use super::super::time::{Moment, Span};

/// A value that lives no longer than the message and the program it was made from.
#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Duration(Span),
    Timestamp(Moment),
    List(List<'a>),
    Map(Map<'a>),
    Message(Cow<'a, DynamicMessage>),
}

/// A list of a message, or one that an expression made.
#[derive(Debug, Clone)]
pub(super) enum List<'a> {
    Field(&'a [Value]),
    Made(Arc<Vec<Val<'a>>>),
}

/// A map of a message, or one that an expression made, in the order it was written.
#[derive(Debug, Clone)]
pub(super) enum Map<'a> {
    Field(&'a HashMap<MapKey, Value>),
    Made(Arc<Vec<(Val<'a>, Val<'a>)>>),
}

impl<'a> From<Datum<'a>> for Val<'a> {
    fn from(datum: Datum<'a>) -> Self {
        match datum {
            Datum::Bool(value) => Val::Bool(value),
            Datum::Int(value) => Val::Int(value),
            Datum::Enum(value) => Val::Int(i64::from(value)),
            Datum::Uint(value) => Val::Uint(value),
            Datum::Float(value) => Val::Double(value),
            Datum::Text(value) => Val::Text(Cow::Borrowed(value)),
            Datum::Bytes(value) => Val::Bytes(Cow::Borrowed(value)),
            Datum::List(value) => Val::List(List::Field(value)),
            Datum::Map(value) => Val::Map(Map::Field(value)),
            Datum::Message(message) => of_message(message),
        }
    }
}

/// A message, or what a well-known type stands for.
fn of_message(message: &DynamicMessage) -> Val<'_> {
    /// The only field of a wrapper, of a Struct and of a ListValue.
    const VALUE: u32 = 1;
    let descriptor = message.descriptor();
    match descriptor.full_name().strip_prefix("google.protobuf.") {
        Some("Duration") => Val::Duration(Span::read(message)),
        Some("Timestamp") => Val::Timestamp(Moment::read(message)),
        Some("Value") => match descriptor.fields().find(|field| message.has_field(field)) {
            // `null_value` is an enum, the only one in it.
            Some(field) if field.kind().as_enum().is_some() => Val::Null,
            Some(field) => field_of(message, &field),
            None => Val::Null,
        },
        Some("Struct" | "ListValue" | "BoolValue" | "StringValue" | "BytesValue" | "Int32Value")
        | Some("Int64Value" | "UInt32Value" | "UInt64Value" | "FloatValue" | "DoubleValue") => {
            match descriptor.get_field(VALUE) {
                Some(field) => field_of(message, &field),
                None => Val::Null,
            }
        }
        _ => Val::Message(Cow::Borrowed(message)),
    }
}

/// A field's value or its default; null for a wrapper or a `google.protobuf.Value` that is not there.
fn field_of<'a>(message: &'a DynamicMessage, field: &FieldDescriptor) -> Val<'a> {
    let value = match message.get_field(field) {
        Cow::Borrowed(value) => return Val::from(Datum::from(value)),
        Cow::Owned(value) => value,
    };
    let is_nullable = field.kind().as_message().is_some_and(|message| {
        let name = message.full_name().strip_prefix("google.protobuf.");
        name.is_some_and(|name| name.ends_with("Value") && name != "ListValue")
    });
    match is_nullable && !field.is_list() && !field.is_map() {
        true => Val::Null,
        false => Val::from(Datum::from(&value)).into_owned(),
    }
}

impl<'a> Val<'a> {
    /// The field of a message.
    pub(super) fn field(message: Cow<'a, DynamicMessage>, field: &FieldDescriptor) -> Val<'a> {
        match message {
            Cow::Borrowed(message) => field_of(message, field),
            Cow::Owned(message) => field_of(&message, field).into_owned(),
        }
    }

    /// The same value, borrowed where it is large.
    pub(super) fn lend(&'a self) -> Val<'a> {
        match self {
            Val::Text(text) => Val::Text(Cow::Borrowed(text)),
            Val::Bytes(bytes) => Val::Bytes(Cow::Borrowed(bytes)),
            Val::Message(message) => Val::Message(Cow::Borrowed(message)),
            other => other.clone(),
        }
    }

    /// The same value, independent of what it was borrowed from.
    pub(super) fn into_owned(self) -> Val<'static> {
        match self {
            Val::Null => Val::Null,
            Val::Bool(value) => Val::Bool(value),
            Val::Int(value) => Val::Int(value),
            Val::Uint(value) => Val::Uint(value),
            Val::Double(value) => Val::Double(value),
            Val::Text(value) => Val::Text(Cow::Owned(value.into_owned())),
            Val::Bytes(value) => Val::Bytes(Cow::Owned(value.into_owned())),
            Val::Duration(value) => Val::Duration(value),
            Val::Timestamp(value) => Val::Timestamp(value),
            Val::List(list) => Val::list(list.iter().map(Val::into_owned).collect()),
            Val::Map(map) => {
                let entries = map.iter().map(|(key, value)| (key.into_owned(), value.into_owned()));
                Val::Map(Map::Made(Arc::new(entries.collect())))
            }
            Val::Message(message) => Val::Message(Cow::Owned(message.into_owned())),
        }
    }

    /// A list that an expression made.
    pub(super) fn list(items: Vec<Val<'a>>) -> Val<'a> {
        Val::List(List::Made(Arc::new(items)))
    }

    /// A string that an expression made.
    pub(super) fn text(text: impl Into<String>) -> Val<'a> {
        Val::Text(Cow::Owned(text.into()))
    }

    /// Equality as CEL has it: numbers by their value, whatever their types; values of other types are unequal.
    pub(super) fn equals(&self, other: &Val<'_>) -> bool {
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Text(a), Val::Text(b)) => a == b,
            (Val::Bytes(a), Val::Bytes(b)) => a == b,
            (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
            (Val::Message(a), Val::Message(b)) => a == b,
            (Val::List(a), Val::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(&b)),
            (Val::Map(a), Val::Map(b)) => {
                let same = |key: &Val<'_>, value: &Val<'_>| b.get(key).is_some_and(|other| value.equals(&other));
                a.len() == b.len() && a.iter().all(|(key, value)| same(&key, &value))
            }
            (a, b) => compare_numbers(a, b) == Some(Some(Ordering::Equal)),
        }
    }

    /// The order of two values: the outer `None` where their types have none, the inner one for not a number.
    pub(super) fn compare(&self, other: &Val<'_>) -> Option<Option<Ordering>> {
        Some(match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::Text(a), Val::Text(b)) => Some(a.cmp(b)),
            (Val::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            (Val::Timestamp(a), Val::Timestamp(b)) => Some(a.cmp(b)),
            (a, b) => return compare_numbers(a, b),
        })
    }

    /// How many steps an operation on the value counts for, over the one of every node: an item of a list or map is
    /// one, and so are 64 bytes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Val::Text(text) => text.len() / 64,
            Val::Bytes(bytes) => bytes.len() / 64,
            Val::List(list) => list.len(),
            Val::Map(map) => map.len(),
            Val::Null | Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) => 0,
            Val::Duration(_) | Val::Timestamp(_) | Val::Message(_) => 0,
        }
    }

    /// The type's name, for sentences.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Val::Null => "null",
            Val::Bool(_) => "a bool",
            Val::Int(_) => "an int",
            Val::Uint(_) => "a uint",
            Val::Double(_) => "a double",
            Val::Text(_) => "a string",
            Val::Bytes(_) => "bytes",
            Val::Duration(_) => "a duration",
            Val::Timestamp(_) => "a timestamp",
            Val::List(_) => "a list",
            Val::Map(_) => "a map",
            Val::Message(_) => "a message",
        }
    }
}

impl PartialEq for Val<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other)
    }
}

fn compare_numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Option<Ordering>> {
    // Integers of either sign fit 128 bits; only next to a double do they become doubles, as in other implementations.
    let whole = |value: &Val<'_>| match value {
        Val::Int(value) => Some(i128::from(*value)),
        Val::Uint(value) => Some(i128::from(*value)),
        _ => None,
    };
    let double = |value: &Val<'_>| match value {
        Val::Double(value) => Some(*value),
        value => whole(value).map(|value| value as f64),
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(Some(a.cmp(&b))),
        _ => Some(double(a)?.partial_cmp(&double(b)?)),
    }
}

impl<'a> List<'a> {
    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        match self {
            List::Field(items) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    /// The item at `index`.
    pub(super) fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            List::Field(items) => items.get(index).map(|item| Val::from(Datum::from(item))),
            List::Made(items) => items.get(index).cloned(),
        }
    }

    /// All items, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Map::Field(entries) => entries.len(),
            Map::Made(entries) => entries.len(),
        }
    }

    /// The value at `key`, whatever the width and sign of an integer's type.
    pub(super) fn get(&self, key: &Val<'_>) -> Option<Val<'a>> {
        match self {
            Map::Field(entries) => {
                let keys = map_keys(key);
                let value = keys.iter().flatten().find_map(|key| entries.get(key))?;
                Some(Val::from(Datum::from(value)))
            }
            Map::Made(entries) => {
                let found = entries.iter().find(|(other, _)| other.equals(key))?;
                Some(found.1.clone())
            }
        }
    }

    /// All entries.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = (Val<'a>, Val<'a>)> + '_> {
        match self {
            Map::Field(entries) => Box::new(
                entries.iter().map(|(key, value)| (Val::from(Datum::from(key)), Val::from(Datum::from(value)))),
            ),
            Map::Made(entries) => Box::new(entries.iter().cloned()),
        }
    }
}

/// The keys that `key` may be in a map of a message, which has one of the four integer types.
fn map_keys(key: &Val<'_>) -> [Option<MapKey>; 4] {
    let whole = match key {
        Val::Int(value) => i128::from(*value),
        Val::Uint(value) => i128::from(*value),
        Val::Bool(value) => return [Some(MapKey::Bool(*value)), None, None, None],
        Val::Text(value) => return [Some(MapKey::String(value.to_string())), None, None, None],
        _ => return [None, None, None, None],
    };
    [
        i32::try_from(whole).ok().map(MapKey::I32),
        i64::try_from(whole).ok().map(MapKey::I64),
        u32::try_from(whole).ok().map(MapKey::U32),
        u64::try_from(whole).ok().map(MapKey::U64),
    ]
}
