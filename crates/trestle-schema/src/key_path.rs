//! The path of a field, and the field's value out of wire bytes: one pass, no tree.

use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::quality::FixedState;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::{
    misfit::{Fit, Misfit},
    plan::MESSAGE_DEPTH_MAX,
    wire::{Fields, Raw, unzigzag},
};

/// Any number does; the same one always, so that a value has one hash on every node and in every run of a simulation.
const SEED: u64 = 0x7472_6573_746c_6500;

/// The way to a field with one value, compiled to field numbers.
#[derive(Clone, Debug)]
pub struct KeyPath {
    path: String,
    /// From the message down; never empty.
    steps: Vec<Step>,
    kind: Kind,
    /// Hash of the value that a message has without the field.
    default: u64,
    hash: FixedState,
}

/// One field on the way.
#[derive(Clone, Debug)]
struct Step {
    number: u32,
    /// The other fields of its oneof: one that follows takes the value away.
    rivals: Vec<u32>,
}

/// A value, the same however it was written.
enum Datum<'a> {
    Bits(u64),
    Bytes(&'a [u8]),
}

impl KeyPath {
    /// Finds the field that `path`, names with dots between, leads to from `message`.
    ///
    /// # Errors
    /// A sentence that names the field where it ends, and the way out.
    pub(crate) fn compile(message: &MessageDescriptor, path: &str) -> Result<Self, String> {
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        let mut within = message.clone();
        for name in path.split('.') {
            if fields.len() == MESSAGE_DEPTH_MAX {
                return Err(format!(
                    "it is longer than the {MESSAGE_DEPTH_MAX} names that messages can be nested deep"
                ));
            }
            if let Some(last) = fields.last() {
                within = inner(last).ok_or_else(|| format!("{} has no fields, so it must end there", last.name()))?;
            }
            fields.push(field(&within, name)?);
        }
        let last = fields.last().ok_or("it is empty")?;
        if let Kind::Message(of) = last.kind() {
            return Err(ends_early(path, &of));
        }
        // Types of one channel may have keys of the same value: their hashes are two.
        let hash = FixedState::with_seed(FixedState::with_seed(SEED).hash_one(message.full_name()));
        let default = hashed(&hash, &Datum::of_value(&last.default_value()));
        Ok(Self {
            path: path.to_owned(),
            steps: fields.iter().map(Step::of).collect(),
            kind: last.kind(),
            default,
            hash,
        })
    }

    /// The path as the schema has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// A hash of the field's value in `payload`; `None` if that is no message of the type.
    pub(crate) fn hash_in(&self, payload: &[u8]) -> Option<u64> {
        let mut found = None;
        find(&self.steps, payload, &mut found).ok()?;
        match found {
            Some(raw) => Datum::of_raw(&self.kind, raw).map(|datum| hashed(&self.hash, &datum)),
            None => Some(self.default),
        }
    }
}

fn hashed(hash: &FixedState, datum: &Datum<'_>) -> u64 {
    let mut hasher = hash.build_hasher();
    match datum {
        Datum::Bits(bits) => hasher.write_u64(*bits),
        Datum::Bytes(bytes) => hasher.write(bytes),
    }
    hasher.finish()
}

fn field(within: &MessageDescriptor, name: &str) -> Result<FieldDescriptor, String> {
    let of = within.full_name();
    let Some(field) = within.get_field_by_name(name) else {
        let names: Vec<String> = within.fields().map(|field| field.name().to_owned()).collect();
        let has = if names.is_empty() { "no fields".to_owned() } else { names.join(", ") };
        return Err(format!("{of} has no field {name:?}; it has {has}"));
    };
    if field.is_list() || field.is_map() {
        let many = if field.is_map() { "a map" } else { "repeated" };
        return Err(format!("{name} of {of} is {many}, and a key is one value; choose a field that is not"));
    }
    Ok(field)
}

fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

fn ends_early(path: &str, of: &MessageDescriptor) -> String {
    let next = of.fields().find(|field| !field.is_list() && !field.is_map());
    let hint = match next {
        Some(field) => format!("go on to one of its fields, such as \"{path}.{}\"", field.name()),
        None => "choose another field".to_owned(),
    };
    format!("it leads to a message, {}, and a key is one value; {hint}", of.full_name())
}

impl Step {
    fn of(field: &FieldDescriptor) -> Self {
        let number = field.number();
        let rivals = field.containing_oneof().into_iter().flat_map(|oneof| {
            let numbers: Vec<u32> = oneof.fields().map(|field| field.number()).collect();
            numbers
        });
        Self { number, rivals: rivals.filter(|&other| other != number).collect() }
    }
}

/// Puts the last value at the end of `steps` into `found`. Parts of a message that stand apart are one message, merged, as
/// protobuf has it; so what was found in the part before stays.
fn find<'a>(steps: &[Step], wire: &'a [u8], found: &mut Option<Raw<'a>>) -> Fit {
    let Some((step, below)) = steps.split_first() else { return Ok(()) };
    let mut fields = Fields::new(wire);
    while let Some((number, raw)) = fields.next()? {
        if number == step.number {
            match raw {
                _ if below.is_empty() => *found = Some(raw),
                Raw::Length(inner) => find(below, inner, found)?,
                _ => return Err(Misfit::new("the value is not of its field's type")),
            }
        } else if step.rivals.contains(&number) {
            *found = None;
        }
    }
    Ok(())
}

impl<'a> Datum<'a> {
    /// A value as it is written; `None` if a value of this kind is not written so.
    fn of_raw(kind: &Kind, raw: Raw<'a>) -> Option<Self> {
        Some(match (kind, raw) {
            // 32-bit values are cut to their width, as every decoder does.
            (Kind::Int32 | Kind::Enum(_), Raw::Varint(value)) => Self::signed((value as i32).into()),
            (Kind::Uint32, Raw::Varint(value)) => Self::Bits((value as u32).into()),
            (Kind::Sint32, Raw::Varint(value)) => Self::signed(unzigzag((value as u32).into())),
            (Kind::Int64 | Kind::Uint64, Raw::Varint(value)) => Self::Bits(value),
            (Kind::Sint64, Raw::Varint(value)) => Self::signed(unzigzag(value)),
            (Kind::Bool, Raw::Varint(value)) => Self::Bits(u64::from(value != 0)),
            (Kind::Fixed32, Raw::Fixed32(value)) => Self::Bits(value.into()),
            (Kind::Sfixed32, Raw::Fixed32(value)) => Self::signed(value.cast_signed().into()),
            (Kind::Float, Raw::Fixed32(value)) => Self::float(f32::from_bits(value).into()),
            (Kind::Fixed64 | Kind::Sfixed64, Raw::Fixed64(value)) => Self::Bits(value),
            (Kind::Double, Raw::Fixed64(value)) => Self::float(f64::from_bits(value)),
            (Kind::String | Kind::Bytes, Raw::Length(value)) => Self::Bytes(value),
            _ => return None,
        })
    }

    /// The same of a value that is not written.
    fn of_value(value: &'a Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bits(u64::from(*value)),
            Value::I32(value) | Value::EnumNumber(value) => Self::signed((*value).into()),
            Value::I64(value) => Self::signed(*value),
            Value::U32(value) => Self::Bits((*value).into()),
            Value::U64(value) => Self::Bits(*value),
            Value::F32(value) => Self::float((*value).into()),
            Value::F64(value) => Self::float(*value),
            Value::String(value) => Self::Bytes(value.as_bytes()),
            Value::Bytes(value) => Self::Bytes(value),
            // A path ends at none of these.
            Value::Message(_) | Value::List(_) | Value::Map(_) => Self::Bytes(&[]),
        }
    }

    fn signed(value: i64) -> Self {
        Self::Bits(value.cast_unsigned())
    }

    /// There are two zeros and many NaNs, and each is one key.
    fn float(value: f64) -> Self {
        let one = match value {
            _ if value.is_nan() => f64::NAN,
            _ if value == 0.0 => 0.0,
            _ => value,
        };
        Self::Bits(one.to_bits())
    }
}
