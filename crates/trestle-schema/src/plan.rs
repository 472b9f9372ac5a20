//! The plan of every message type, compiled once from its descriptor: what the transcoders and the check walk instead of
//! descriptors. A lookup is an array index or one hash, and what is written for a field is ready as bytes.

use std::{collections::HashMap, fmt::Write as _, ops::Index};

use foldhash::fast::RandomState;
use prost::encoding::encode_varint;
use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor};

use crate::wire::WireType;

/// Most messages within each other, the outermost counted; a `google.protobuf.Value` does not count beside the `Struct` or
/// `ListValue` that it holds, nor a map's entry beside its value.
///
/// Every decoder that follows protobuf's own takes 100 levels on the wire. One level here is at most three there (`Struct`,
/// its entry, its `Value`): 32 x 3 + the two of the last entry = 98, so what is accepted here can be read by every service.
pub(crate) const MESSAGE_DEPTH_MAX: usize = 32;

/// Field numbers below this are found by index; 512 x 4 bytes = 2 KiB a type at most.
const DENSE_NUMBERS: u32 = 512;
/// No field has this number.
const NO_FIELD: u32 = u32::MAX;

/// Plans of all types of a set; they refer to each other by id.
pub(crate) struct Plans {
    messages: Vec<MessagePlan>,
    enums: Vec<EnumPlan>,
    by_name: HashMap<String, MessageId, RandomState>,
}

/// A message type within [`Plans`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageId(usize);

/// An enum within [`Plans`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EnumId(usize);

/// One message type.
pub(crate) struct MessagePlan {
    pub full_name: String,
    /// Types whose JSON is not an object of their fields.
    pub well_known: Option<WellKnown>,
    /// Sorted by number.
    pub fields: Vec<FieldPlan>,
    /// Indices of fields that must be there (proto2).
    pub required: Vec<usize>,
    by_name: HashMap<Box<str>, usize, RandomState>,
    by_number: Vec<u32>,
}

/// One field.
pub(crate) struct FieldPlan {
    pub number: u32,
    pub json_name: String,
    /// `"jsonName":`
    pub json_prefix: Vec<u8>,
    /// The encoded key, as a writer puts it before the value: number and wire type.
    pub key: Vec<u8>,
    pub shape: Shape,
    pub kind: Kind,
    /// Whether a default value differs from none.
    pub presence: bool,
    /// Which oneof of the message it is in; proto3 `optional` is none.
    pub oneof: Option<usize>,
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    Many {
        packed: bool,
    },
    /// Entries are messages with a key (field 1) and a value (field 2); the field's `kind` is that entry.
    Map {
        entry: MessageId,
    },
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    /// `google.protobuf.NullValue`, whose JSON is `null`.
    Null,
    Message(MessageId),
}

/// Types with a JSON form of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WellKnown {
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    Wrapper,
    /// An object without fields; of its own only within an `Any`, where it stands under `value`.
    Empty,
}

/// One enum.
pub(crate) struct EnumPlan {
    pub full_name: String,
    by_name: HashMap<String, i32, RandomState>,
    /// Number to the quoted name.
    by_number: HashMap<i32, String, RandomState>,
}

impl Plans {
    /// Compiles all types of `pool`, imported ones too: an `Any` may hold any of them.
    pub(crate) fn compile(pool: &DescriptorPool) -> Self {
        let messages: Vec<_> = pool.all_messages().collect();
        let enums: Vec<_> = pool.all_enums().collect();
        let message_ids: HashMap<_, _, RandomState> =
            messages.iter().enumerate().map(|(n, message)| (message.full_name().to_owned(), MessageId(n))).collect();
        let enum_ids: HashMap<_, _, RandomState> =
            enums.iter().enumerate().map(|(n, one)| (one.full_name().to_owned(), EnumId(n))).collect();
        let kind = |kind: &prost_reflect::Kind| kind_of(kind, &message_ids, &enum_ids);
        Self {
            messages: messages.iter().map(|message| MessagePlan::compile(message, &kind)).collect(),
            enums: enums.iter().map(EnumPlan::compile).collect(),
            by_name: message_ids,
        }
    }

    /// The type of this full name.
    pub(crate) fn find(&self, full_name: &str) -> Option<MessageId> {
        self.by_name.get(full_name).copied()
    }
}

impl Index<MessageId> for Plans {
    type Output = MessagePlan;

    fn index(&self, id: MessageId) -> &MessagePlan {
        &self.messages[id.0]
    }
}

impl Index<EnumId> for Plans {
    type Output = EnumPlan;

    fn index(&self, id: EnumId) -> &EnumPlan {
        &self.enums[id.0]
    }
}

impl MessagePlan {
    fn compile(message: &MessageDescriptor, kind: &impl Fn(&prost_reflect::Kind) -> Kind) -> Self {
        let mut descriptors: Vec<FieldDescriptor> = message.fields().collect();
        descriptors.sort_by_key(FieldDescriptor::number);
        let mut by_name = HashMap::default();
        let mut by_number = Vec::new();
        for (n, field) in descriptors.iter().enumerate() {
            by_name.insert(field.json_name().into(), n);
            if field.number() < DENSE_NUMBERS {
                by_number.resize(field.number() as usize + 1, NO_FIELD);
                by_number[field.number() as usize] = u32::try_from(n).expect("below 512");
            }
        }
        for (n, field) in descriptors.iter().enumerate() {
            by_name.entry(field.name().into()).or_insert(n); // another field's JSON name goes before
        }
        Self {
            full_name: message.full_name().to_owned(),
            well_known: WellKnown::of(message.full_name()),
            fields: descriptors.iter().map(|field| FieldPlan::compile(message, field, kind)).collect(),
            required: (0..descriptors.len()).filter(|&n| descriptors[n].is_required()).collect(),
            by_name,
            by_number,
        }
    }

    /// Index of the field with this JSON name or proto name; `expected` is tried first.
    pub(crate) fn by_name(&self, name: &str, expected: usize) -> Option<usize> {
        match self.fields.get(expected) {
            Some(field) if field.json_name == name => Some(expected),
            _ => self.by_name.get(name).copied(),
        }
    }

    /// Index of the field with this number.
    pub(crate) fn by_number(&self, number: u32) -> Option<usize> {
        if number < DENSE_NUMBERS {
            return self.by_number.get(number as usize).copied().filter(|&n| n != NO_FIELD).map(|n| n as usize);
        }
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }
}

impl FieldPlan {
    fn compile(
        message: &MessageDescriptor,
        field: &FieldDescriptor,
        kind_of: &impl Fn(&prost_reflect::Kind) -> Kind,
    ) -> Self {
        let kind = kind_of(&field.kind());
        let shape = match kind {
            Kind::Message(entry) if field.is_map() => Shape::Map { entry },
            _ if field.cardinality() == Cardinality::Repeated => Shape::Many { packed: field.is_packed() },
            _ => Shape::One,
        };
        let wire_type = match shape {
            Shape::Many { packed: true } => WireType::Length,
            _ => kind.wire_type(),
        };
        let mut key = Vec::new();
        encode_varint(u64::from(field.number()) << 3 | wire_type as u64, &mut key);
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        Self {
            number: field.number(),
            json_prefix: format!("{}:", quoted(field.json_name())).into_bytes(),
            json_name: field.json_name().to_owned(),
            key,
            shape,
            kind,
            presence: field.supports_presence(),
            oneof: oneof.and_then(|oneof| message.oneofs().position(|other| other == oneof)),
        }
    }
}

impl Kind {
    /// How a value of this kind is written outside of packed lists.
    pub(crate) fn wire_type(self) -> WireType {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => WireType::Fixed64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => WireType::Fixed32,
            Self::String | Self::Bytes | Self::Message(_) => WireType::Length,
            Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64
            | Self::Bool
            | Self::Enum(_)
            | Self::Null => WireType::Varint,
        }
    }
}

impl WellKnown {
    fn of(full_name: &str) -> Option<Self> {
        Some(match full_name.strip_prefix("google.protobuf.")? {
            "Any" => Self::Any,
            "Timestamp" => Self::Timestamp,
            "Duration" => Self::Duration,
            "FieldMask" => Self::FieldMask,
            "Struct" => Self::Struct,
            "Value" => Self::Value,
            "ListValue" => Self::ListValue,
            "Empty" => Self::Empty,
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue" => Self::Wrapper,
            _ => return None,
        })
    }
}

impl EnumPlan {
    fn compile(descriptor: &EnumDescriptor) -> Self {
        let mut by_name = HashMap::default();
        let mut by_number = HashMap::default();
        for value in descriptor.values() {
            by_name.insert(value.name().to_owned(), value.number());
            // With allow_alias the first name is the one that is written.
            by_number.entry(value.number()).or_insert_with(|| quoted(value.name()));
        }
        Self { full_name: descriptor.full_name().to_owned(), by_name, by_number }
    }

    /// The number of a value's name.
    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.by_name.get(name).copied()
    }

    /// The quoted name of a value's number.
    pub(crate) fn quoted_name(&self, number: i32) -> Option<&str> {
        self.by_number.get(&number).map(String::as_str)
    }
}

/// What `message` uses that cannot be served, each with the path in the message's descriptor and a sentence.
pub(crate) fn unsupported(message: &MessageDescriptor) -> Vec<(Vec<i32>, String)> {
    let mut faults = Vec::new();
    for (field, n) in message.fields().zip(0..) {
        if field.is_group() {
            // 2 is DescriptorProto.field.
            let what = format!("field {} is a group, which has no JSON form; use a nested message", field.name());
            faults.push((vec![2, n], what));
        }
    }
    if message.descriptor_proto().options.as_ref().is_some_and(|options| options.message_set_wire_format()) {
        faults.push((vec![1], "message_set_wire_format has no JSON form; use google.protobuf.Any".to_owned()));
    }
    if message.extensions().next().is_some() {
        let names: Vec<_> = message.extensions().map(|extension| extension.full_name().to_owned()).collect();
        let what =
            format!("extensions of messages are not served ({}); use fields or google.protobuf.Any", names.join(", "));
        faults.push((vec![1], what));
    }
    faults
}

fn kind_of(
    kind: &prost_reflect::Kind,
    messages: &HashMap<String, MessageId, RandomState>,
    enums: &HashMap<String, EnumId, RandomState>,
) -> Kind {
    use prost_reflect::Kind as Described;
    match kind {
        Described::Double => Kind::Double,
        Described::Float => Kind::Float,
        Described::Int32 => Kind::Int32,
        Described::Int64 => Kind::Int64,
        Described::Uint32 => Kind::Uint32,
        Described::Uint64 => Kind::Uint64,
        Described::Sint32 => Kind::Sint32,
        Described::Sint64 => Kind::Sint64,
        Described::Fixed32 => Kind::Fixed32,
        Described::Fixed64 => Kind::Fixed64,
        Described::Sfixed32 => Kind::Sfixed32,
        Described::Sfixed64 => Kind::Sfixed64,
        Described::Bool => Kind::Bool,
        Described::String => Kind::String,
        Described::Bytes => Kind::Bytes,
        Described::Enum(one) if one.full_name() == "google.protobuf.NullValue" => Kind::Null,
        Described::Enum(one) => Kind::Enum(enums[one.full_name()]),
        Described::Message(message) => Kind::Message(messages[message.full_name()]),
    }
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
