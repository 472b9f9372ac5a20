//! A schema with everything in it, and messages made of choices.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part of it

use std::sync::{Arc, LazyLock};

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value,
};
use trestle_schema::{Catalogue, MessageType, SchemaSource};

pub(crate) static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let files = [("rich/rich.proto", include_str!("rich.proto")), ("rich/old.proto", include_str!("old.proto"))];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
    Catalogue::load(&SchemaSource::Files(files.into())).expect("the schema is valid")
});

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(CATALOGUE.descriptor_set().clone()).expect("a valid set"));

/// The type under test.
pub(crate) fn kind(name: &str) -> &'static Arc<MessageType> {
    CATALOGUE.get(name).expect("a type of the schema")
}

/// Its descriptor, for prost-reflect.
pub(crate) fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).expect("a type of the schema")
}

/// Choices taken from bytes; zeros when they are used up, so that fewer and smaller bytes make a smaller message.
pub(crate) struct Choices<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter() }
    }

    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or_default()
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    fn bits(&mut self) -> u64 {
        (0..8).fold(0, |bits, _| bits << 8 | u64::from(self.byte()))
    }

    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => i64::MAX.cast_unsigned(),
            4 => i64::MIN.cast_unsigned(),
            5 => u64::from(u32::MAX >> 1) << self.below(2),
            6 => u64::from(self.byte()),
            _ => self.bits(),
        }
    }

    fn text(&mut self) -> String {
        const TEXTS: [&str; 8] =
            ["", "a", "naïve", "\"\\/\u{8}\n\r\t\u{0}\u{1f}", "日本", "🦀\u{2028}", "</script>", "\u{7f}\u{80}"];
        (0..self.below(3)).map(|_| TEXTS[self.below(TEXTS.len())]).collect()
    }

    fn double(&mut self) -> f64 {
        match self.below(6) {
            0 => 1.5,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => f64::MAX,
            4 => f64::from_bits(1),
            _ => self.finite(),
        }
    }

    fn finite(&mut self) -> f64 {
        let value = f64::from_bits(self.bits());
        if value.is_finite() && value != 0.0 { value } else { 0.25 }
    }

    fn float(&mut self) -> f32 {
        let value = f32::from_bits(self.bits() as u32);
        if value.is_nan() || value == 0.0 { 0.1 } else { value }
    }

    /// A message of this type with some of its fields.
    pub(crate) fn message(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        match of.full_name() {
            "google.protobuf.Any" => self.any(&mut message, depth),
            "google.protobuf.Timestamp" => {
                set(&mut message, "seconds", Value::I64((self.bits() % 315_537_897_600) as i64 - 62_135_596_800));
                set(&mut message, "nanos", Value::I32(self.nanos()));
            }
            "google.protobuf.Duration" => {
                let sign = if self.byte() & 1 == 0 { 1 } else { -1 };
                set(&mut message, "seconds", Value::I64((self.bits() % 315_576_000_000) as i64 * i64::from(sign)));
                set(&mut message, "nanos", Value::I32(self.nanos() * sign));
            }
            "google.protobuf.FieldMask" => {
                let paths = ["a", "a_bc.d", "user.display_name"].map(|path| Value::String(path.to_owned()));
                set(&mut message, "paths", Value::List(paths[..self.below(4)].to_vec()));
            }
            "google.protobuf.Value" => self.value_message(&mut message, depth),
            // prost-reflect writes null for a wrapped infinity; the table of cases has it.
            "google.protobuf.DoubleValue" => set(&mut message, "value", Value::F64(self.finite())),
            "google.protobuf.FloatValue" => set(&mut message, "value", Value::F32(0.1)),
            _ => self.fields(&mut message, depth),
        }
        message
    }

    fn nanos(&mut self) -> i32 {
        match self.below(4) {
            0 => 0,
            1 => 500_000_000,
            2 => 1_000,
            _ => (self.bits() % 1_000_000_000) as i32,
        }
    }

    fn fields(&mut self, message: &mut DynamicMessage, depth: usize) {
        let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
        for field in fields.iter().filter(|field| field.is_required()) {
            message.set_field(field, self.one(&field.kind(), depth));
        }
        if fields.is_empty() {
            return;
        }
        for _ in 0..self.below(6) {
            let field = &fields[self.below(256) % fields.len()];
            let goes_on = matches!(field.kind(), Kind::Message(kind) if kind.full_name().starts_with("rich."));
            if depth > 0 || !goes_on {
                let value = self.field(field, depth);
                message.set_field(field, value);
            }
        }
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { unreachable!() };
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            let entries = 0..self.below(12);
            return Value::Map(entries.map(|_| (self.key(&key), self.one(&value, depth))).collect());
        }
        if field.is_list() {
            let elements = 0..self.below(4);
            return Value::List(elements.map(|_| self.one(&field.kind(), depth)).collect());
        }
        self.one(&field.kind(), depth)
    }

    fn key(&mut self, kind: &Kind) -> MapKey {
        match kind {
            Kind::Bool => MapKey::Bool(self.byte() & 1 == 1),
            Kind::String => MapKey::String(self.text()),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(self.number() as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(self.number().cast_signed()),
            Kind::Uint32 | Kind::Fixed32 => MapKey::U32(self.number() as u32),
            _ => MapKey::U64(self.number()),
        }
    }

    fn one(&mut self, kind: &Kind, depth: usize) -> Value {
        match kind {
            Kind::Double => Value::F64(self.double()),
            Kind::Float => Value::F32(self.float()),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.number() as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.number().cast_signed()),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.number() as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.number()),
            Kind::Bool => Value::Bool(self.byte() & 1 == 1),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes((0..self.below(7)).map(|_| self.byte()).collect()),
            Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => Value::EnumNumber(0),
            // Known or not: proto3 enums are open.
            Kind::Enum(_) => Value::EnumNumber(self.below(6) as i32 - 3),
            Kind::Message(kind) => Value::Message(self.message(kind, depth.saturating_sub(1))),
        }
    }

    fn any(&mut self, message: &mut DynamicMessage, depth: usize) {
        const TYPES: [&str; 5] = [
            "rich.v1.Leaf",
            "google.protobuf.Duration",
            "google.protobuf.Int64Value",
            "google.protobuf.Struct",
            "rich.v1.All",
        ];
        let name = TYPES[self.below(if depth > 0 { 5 } else { 3 })];
        let content = self.message(&descriptor(name), depth.saturating_sub(1));
        set(message, "type_url", Value::String(format!("type.googleapis.com/{name}")));
        set(message, "value", Value::Bytes(content.encode_to_vec().into()));
    }

    fn value_message(&mut self, message: &mut DynamicMessage, depth: usize) {
        let nested =
            |choices: &mut Self, name| Value::Message(choices.message(&descriptor(name), depth.saturating_sub(1)));
        match self.below(if depth > 0 { 6 } else { 4 }) {
            0 => set(message, "null_value", Value::EnumNumber(0)),
            1 => set(message, "number_value", Value::F64(self.finite())),
            2 => set(message, "string_value", Value::String(self.text())),
            3 => set(message, "bool_value", Value::Bool(self.byte() & 1 == 1)),
            4 => {
                let value = nested(self, "google.protobuf.Struct");
                set(message, "struct_value", value);
            }
            _ => {
                let value = nested(self, "google.protobuf.ListValue");
                set(message, "list_value", value);
            }
        }
    }
}

/// A message that prints as text: the descriptors of a recursive type never end.
#[derive(Clone)]
pub(crate) struct Sample {
    pub name: &'static str,
    pub message: DynamicMessage,
}

impl Sample {
    /// The message that these choices make, as it comes off the wire: defaults without presence are not there.
    pub(crate) fn new(name: &'static str, choices: &[u8], depth: usize) -> Self {
        let wire = Choices::new(choices).message(&descriptor(name), depth).encode_to_vec();
        Self { name, message: DynamicMessage::decode(descriptor(name), &wire[..]).expect("valid wire bytes") }
    }
}

impl std::fmt::Debug for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.message)
    }
}

/// Equal, with the content of an Any decoded: its bytes may hold a map's entries in any order.
pub(crate) fn equal(a: &DynamicMessage, b: &DynamicMessage) -> bool {
    let content = |message: &DynamicMessage| {
        let any: prost_types::Any = message.transcode_to().expect("an Any");
        let name = any.type_url.strip_prefix("type.googleapis.com/").map(descriptor);
        (any.type_url, name.map(|name| DynamicMessage::decode(name, &any.value[..]).expect("valid wire bytes")))
    };
    if a.descriptor().full_name() == "google.protobuf.Any" {
        return match (content(a), content(b)) {
            ((a_url, Some(a)), (b_url, Some(b))) => a_url == b_url && equal(&a, &b),
            (a, b) => a == b,
        };
    }
    let fields = |message: &DynamicMessage| message.fields().map(|(field, _)| field.number()).collect::<Vec<_>>();
    fields(a) == fields(b) && a.fields().zip(b.fields()).all(|((_, a), (_, b))| equal_values(a, b))
}

fn equal_values(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Message(a), Value::Message(b)) => equal(a, b),
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal_values(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal_values(a, b)))
        }
        (a, b) => a == b,
    }
}

fn set(message: &mut DynamicMessage, name: &str, value: Value) {
    message.set_field_by_name(name, value);
}
