//! What is known of an expression's type when it is compiled.

use std::fmt;

use prost_reflect::{Kind, MessageDescriptor};

/// The type of an expression, as far as the schema tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Type {
    /// Known only when evaluated: wrappers that may be null, `google.protobuf.Value`, elements of mixed lists.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Duration,
    Timestamp,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Message(MessageDescriptor),
}

impl Type {
    /// The type that a value of the protobuf type `kind` has in an expression.
    pub(crate) fn of(kind: &Kind) -> Type {
        match kind {
            Kind::Double | Kind::Float => Type::Double,
            Kind::Int32 | Kind::Int64 | Kind::Sint32 | Kind::Sint64 => Type::Int,
            Kind::Sfixed32 | Kind::Sfixed64 | Kind::Enum(_) => Type::Int,
            Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => Type::Uint,
            Kind::Bool => Type::Bool,
            Kind::String => Type::Text,
            Kind::Bytes => Type::Bytes,
            Kind::Message(message) => match message.full_name().strip_prefix("google.protobuf.") {
                Some("Duration") => Type::Duration,
                Some("Timestamp") => Type::Timestamp,
                Some("Struct") => Type::Map(Box::new(Type::Text), Box::new(Type::Dyn)),
                Some("ListValue") => Type::List(Box::new(Type::Dyn)),
                Some("Value" | "BoolValue" | "StringValue" | "BytesValue") => Type::Dyn,
                Some("Int32Value" | "Int64Value" | "UInt32Value" | "UInt64Value") => Type::Dyn,
                Some("FloatValue" | "DoubleValue") => Type::Dyn,
                _ => Type::Message(message.clone()),
            },
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Uint | Type::Double)
    }

    /// Whether two values of these types can ever be equal.
    pub(super) fn meets(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            // A message is compared with null to ask whether it is there.
            (Type::Null, Type::Message(_)) | (Type::Message(_), Type::Null) => true,
            (Type::List(a), Type::List(b)) => a.meets(b),
            (Type::Map(a, x), Type::Map(b, y)) => a.meets(b) && x.meets(y),
            (a, b) => a.is_number() && b.is_number() || a == b,
        }
    }

    /// Whether values of these types have an order.
    pub(super) fn is_ordered_with(&self, other: &Type) -> bool {
        let ordered = |kind: &Type| !matches!(kind, Type::Null | Type::List(_) | Type::Map(..) | Type::Message(_));
        ordered(self) && ordered(other) && self.meets(other)
    }

    /// The type of `self op other`, where `op` is one of `+ - * / %`; `None` where there is no such operation.
    pub(super) fn arithmetic(&self, op: char, other: &Type) -> Option<Type> {
        use Type::{Bytes, Double, Duration, Dyn, Int, List, Text, Timestamp, Uint};
        Some(match (self, op, other) {
            (Dyn, ..) | (.., Dyn) => Dyn,
            (Int, _, Int) => Int,
            (Uint, _, Uint) => Uint,
            (Double, '+' | '-' | '*' | '/', Double) => Double,
            (Text, '+', Text) => Text,
            (Bytes, '+', Bytes) => Bytes,
            (List(a), '+', List(b)) => List(Box::new(a.common(b))),
            (Duration, '+' | '-', Duration) => Duration,
            (Timestamp, '+' | '-', Duration) => Timestamp,
            (Duration, '+', Timestamp) => Timestamp,
            (Timestamp, '-', Timestamp) => Duration,
            _ => return None,
        })
    }

    /// The type of what is of either type.
    pub(super) fn common(&self, other: &Type) -> Type {
        match self == other {
            true => self.clone(),
            false => Type::Dyn,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => write!(f, "a value of unknown type"),
            Type::Null => write!(f, "null"),
            Type::Bool => write!(f, "a bool"),
            Type::Int => write!(f, "an int"),
            Type::Uint => write!(f, "a uint"),
            Type::Double => write!(f, "a double"),
            Type::Text => write!(f, "a string"),
            Type::Bytes => write!(f, "bytes"),
            Type::Duration => write!(f, "a duration"),
            Type::Timestamp => write!(f, "a timestamp"),
            Type::List(_) => write!(f, "a list"),
            Type::Map(..) => write!(f, "a map"),
            Type::Message(message) => write!(f, "a {}", message.full_name()),
        }
    }
}
