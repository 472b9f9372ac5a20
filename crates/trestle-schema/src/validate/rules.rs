//! The rules of one value that is no list and no map, and which of them fit which type.

use prost_reflect::Kind;

use super::closed::{AnyRules, EnumRules, FieldMaskRules, refuse_other};
use super::datum::Datum;
use super::number::OrderedRules;
use super::octets::OctetRules;
use super::options::{Faults, RuleSet};
use super::text::TextRules;
use super::time::{Span, TimestampRules};
use super::violation::{Checked, Violation};

/// The standard rules of one value.
#[derive(Debug)]
pub(super) enum Rules {
    Int(OrderedRules<i64>),
    Uint(OrderedRules<u64>),
    Float(OrderedRules<f64>),
    /// The only value that will do, if one is set.
    Bool(Option<bool>),
    Text(TextRules),
    Octets(OctetRules),
    Enum(EnumRules),
    Any(AnyRules),
    Duration(OrderedRules<Span>),
    Timestamp(TimestampRules),
    FieldMask(FieldMaskRules),
}

impl Rules {
    /// Reads the rules of `set` for a value of the type `kind`; rules of another type are a fault.
    pub(super) fn read(set: &RuleSet<'_>, kind: &Kind, faults: &mut Faults) -> Option<Rules> {
        let (family, _) = family_of(kind);
        if family != Some(set.family()) {
            let what = format!("the rules `{}` do not fit a value of the type {}", set.family(), name_of(kind));
            faults.add(set.place(), what);
            return None;
        }
        set.refuse_unknown_fields(faults);
        Some(match (set.family(), kind) {
            ("int32" | "int64" | "sint32" | "sint64" | "sfixed32" | "sfixed64", _) => {
                Rules::Int(OrderedRules::read(set, faults, |_, _| false))
            }
            ("uint32" | "uint64" | "fixed32" | "fixed64", _) => {
                Rules::Uint(OrderedRules::read(set, faults, |_, _| false))
            }
            ("float" | "double", _) => Rules::Float(OrderedRules::read(set, faults, |_, _| false)),
            ("bool", _) => {
                refuse_other(set, &["const", "example"], faults);
                let has = set.message().has_field_by_name("const");
                Rules::Bool(has.then(|| super::options::flag(set.message(), "const")))
            }
            ("string", _) => Rules::Text(TextRules::read(set, faults)),
            ("bytes", _) => Rules::Octets(OctetRules::read(set, faults)),
            ("enum", Kind::Enum(kind)) => Rules::Enum(EnumRules::read(set, kind, faults)),
            ("any", _) => Rules::Any(AnyRules::read(set, faults)),
            ("duration", _) => Rules::Duration(OrderedRules::read(set, faults, |_, _| false)),
            ("timestamp", _) => Rules::Timestamp(TimestampRules::read(set, faults)),
            ("field_mask", _) => Rules::FieldMask(FieldMaskRules::read(set, faults)),
            (family, _) => {
                set.unknown(family, faults);
                return None;
            }
        })
    }

    /// Checks a value of the type the rules were read for.
    pub(super) fn check(&self, datum: Datum<'_>) -> Checked {
        match (self, datum) {
            (Rules::Int(rules), datum) => rules.check(datum),
            (Rules::Uint(rules), datum) => rules.check(datum),
            (Rules::Float(rules), datum) => rules.check(datum),
            (Rules::Duration(rules), datum) => rules.check(datum),
            (Rules::Timestamp(rules), datum) => rules.check(datum),
            (Rules::Bool(Some(only)), Datum::Bool(value)) if *only != value => {
                Err(Violation::new("bool.const", format!("must equal {only}")))
            }
            (Rules::Text(rules), Datum::Text(text)) => rules.check(text),
            (Rules::Octets(rules), Datum::Bytes(octets)) => rules.check(octets),
            (Rules::Enum(rules), Datum::Enum(number)) => rules.check(number),
            (Rules::Any(rules), Datum::Message(any)) => rules.check(any),
            (Rules::FieldMask(rules), Datum::Message(mask)) => rules.check(mask),
            (
                Rules::Bool(_)
                | Rules::Text(_)
                | Rules::Octets(_)
                | Rules::Enum(_)
                | Rules::Any(_)
                | Rules::FieldMask(_),
                _,
            ) => Ok(()),
        }
    }
}

/// The family of rules that fits `kind`, and whether `kind` is a wrapper whose inner value they are of.
pub(super) fn family_of(kind: &Kind) -> (Option<&'static str>, bool) {
    let plain = match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Enum(_) => "enum",
        Kind::Message(message) => return family_of_message(message.full_name()),
    };
    (Some(plain), false)
}

fn family_of_message(full_name: &str) -> (Option<&'static str>, bool) {
    let (family, wrapper) = match full_name.strip_prefix("google.protobuf.") {
        Some("Any") => ("any", false),
        Some("Duration") => ("duration", false),
        Some("Timestamp") => ("timestamp", false),
        Some("FieldMask") => ("field_mask", false),
        Some("DoubleValue") => ("double", true),
        Some("FloatValue") => ("float", true),
        Some("Int64Value") => ("int64", true),
        Some("UInt64Value") => ("uint64", true),
        Some("Int32Value") => ("int32", true),
        Some("UInt32Value") => ("uint32", true),
        Some("BoolValue") => ("bool", true),
        Some("StringValue") => ("string", true),
        Some("BytesValue") => ("bytes", true),
        _ => return (None, false),
    };
    (Some(family), wrapper)
}

/// The type's name as a schema's author wrote it.
pub(super) fn name_of(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(kind) => kind.full_name().to_owned(),
        plain => family_of(plain).0.unwrap_or_default().to_owned(),
    }
}
