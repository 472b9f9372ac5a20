//! Random values: nothing panics, and plain Rust agrees with the rules' definitions.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::oracle::{definitions, is_one_of, judged};
use super::table::{ROWS, proto_of};
use super::{message, pool};
use crate::validate::Validator;

/// Pieces that make up what the forms of strings look for.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z0-9]{0,4}",
        "[.:/@%#?\\[\\]_-]",
        "%[0-9a-f]{2}",
        Just("://".to_owned()),
        Just("::".to_owned()),
        Just("10.0.0.1".to_owned()),
        Just("example.com".to_owned()),
        any::<char>().prop_map(String::from),
    ];
    let pieces = proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    prop_oneof![3 => pieces, 1 => any::<String>()]
}

/// Values near those in the rules, and far from them.
fn scalar() -> impl Strategy<Value = (i64, f64, String, Vec<u8>)> {
    let number = prop_oneof![3 => -12_i64..12, 1 => any::<i64>()];
    let float = prop_oneof![3 => -6.0..6.0, 1 => any::<f64>()];
    let bytes =
        prop_oneof![proptest::collection::vec(b'a'..b'd', 0..4), proptest::collection::vec(any::<u8>(), 0..20),];
    (number, float, text(), bytes)
}

/// A value for `kind` made of the drawn scalars.
fn value(kind: &Kind, drawn: &(i64, f64, String, Vec<u8>), depth: usize) -> Value {
    let (number, float, text, bytes) = drawn;
    match kind {
        Kind::Double => Value::F64(*float),
        Kind::Float => Value::F32(*float as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(*number as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(*number),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(*number as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(*number as u64),
        Kind::Bool => Value::Bool(number % 2 == 0),
        Kind::String => Value::String(text.clone()),
        Kind::Bytes => Value::Bytes(Bytes::from(bytes.clone())),
        Kind::Enum(_) => Value::EnumNumber(*number as i32),
        Kind::Message(kind) => Value::Message(filled(kind, drawn, depth)),
    }
}

/// A message whose fields are all set, down to a depth; oneofs keep the last.
fn filled(kind: &MessageDescriptor, drawn: &(i64, f64, String, Vec<u8>), depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    for field in kind.fields().filter(|_| depth < 3) {
        message.set_field(&field, value_of_field(&field, drawn, depth + 1));
    }
    message
}

fn value_of_field(field: &FieldDescriptor, drawn: &(i64, f64, String, Vec<u8>), depth: usize) -> Value {
    let count = drawn.0.unsigned_abs() as usize % 4;
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let key = value(&entry.map_entry_key_field().kind(), drawn, depth);
            let held = value(&entry.map_entry_value_field().kind(), drawn, depth);
            let key: MapKey = key.into_map_key().expect("the kind is a key's");
            Value::Map(HashMap::from([(key, held)]))
        }
        kind if field.is_list() => Value::List(vec![value(&kind, drawn, depth); count]),
        kind => value(&kind, drawn, depth),
    }
}

/// A failure prints its input; no file is kept.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn random_values_never_panic_and_are_told_what_the_definitions_say() {
    let pool = pool(&proto_of(ROWS));
    let skipped = ["required", "ignore", "any", "defined_only", "items", "keys", "values", "_now", "within"];
    let rows: Vec<_> = ROWS
        .iter()
        .enumerate()
        .map(|(index, row)| {
            let kind = message(&pool, &format!("Row{index}"));
            let field = kind.get_field_by_name("v").expect("the row's field is v");
            let validator = Validator::compile(&kind).expect("the table compiles");
            let defined = skipped.iter().all(|name| !row.1.contains(name));
            let programs = defined.then(|| definitions(&field));
            (field, validator, programs)
        })
        .collect();
    proptest!(config(), |(drawn in scalar())| {
        for (field, validator, programs) in &rows {
            let mut given = DynamicMessage::new(field.parent_message().clone());
            given.set_field(field, value_of_field(field, &drawn, 0));
            let told = validator.as_ref().map_or(Ok(()), |validator| validator.check(&given));
            let Some(programs) = programs else { continue };
            let expected = judged(programs, &given);
            match told {
                _ if field.supports_presence() && !given.has_field(field) => {}
                Ok(()) => prop_assert!(expected.is_empty(), "{given}: {expected:?}"),
                Err(told) => prop_assert!(is_one_of(&told, &expected), "{given}: {told:?} is none of {expected:?}"),
            }
        }
    });
}

#[test]
fn expressions_never_panic_on_random_messages() {
    let pool = pool(super::expressions::PROTO);
    let kinds: Vec<_> =
        pool.all_messages().filter(|kind| kind.package_name() == "test" && !kind.is_map_entry()).collect();
    let validators: Vec<_> =
        kinds.iter().map(|kind| Validator::compile(kind).expect("the expressions compile")).collect();
    proptest!(config(), |(drawn in scalar())| {
        for (kind, validator) in kinds.iter().zip(&validators) {
            if let Some(validator) = validator {
                // Either answer will do: what is asked is that there is one.
                let told = validator.check(&filled(kind, &drawn, 0));
                prop_assert!(told.is_ok() || told.is_err_and(|told| !told.rule.is_empty()));
            }
        }
    });
}
