//! The rules' own definitions: `validate.proto` says in CEL what each standard rule means, by which id and in which
//! words. Whatever the plain Rust of this crate answers must be what those expressions answer.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};

use super::table::{ROWS, json_of, proto_of};
use super::{from_json, message, pool, validator};
use crate::validate::Violation;
use crate::validate::cel::{Program, Scope, Type};
use crate::validate::datum::Datum;
use crate::validate::options::{Extensions, Faults};

/// Compiles the expression of every standard rule that `field` has.
pub(super) fn definitions(field: &FieldDescriptor) -> Vec<Program> {
    let pool = field.parent_pool();
    let extensions = Extensions::of(pool);
    let rules = extensions.field(field, &mut Faults::default());
    let rules = rules.expect("the test's field has rules");
    let standard = rules.fields().find_map(|(_, value)| value.as_message().cloned());
    let Some(standard) = standard else {
        return Vec::new();
    };
    let option = pool.get_extension_by_name("buf.validate.predefined");
    let option = option.expect("validate.proto is in the pool");
    let mut programs = Vec::new();
    for (rule, value) in standard.fields() {
        let scope = Scope::of(pool, this_of(field)).with_rule(value, &standard);
        let options = rule.options();
        let definition = options.get_extension(&option);
        let definition = definition.as_message().expect("the option is a message");
        for cel in crate::validate::options::CelRule::all_in(definition) {
            let id = cel.id.clone();
            match Program::compile(cel, &scope) {
                Ok(program) => programs.push(program),
                Err(error) => panic!("{id} {error}"),
            }
        }
    }
    programs
}

/// Wrappers are judged by what is in them, lists and maps as a whole.
fn this_of(field: &FieldDescriptor) -> Type {
    match field.kind() {
        _ if field.is_list() => Type::List(Box::new(Type::Dyn)),
        _ if field.is_map() => Type::Map(Box::new(Type::Dyn), Box::new(Type::Dyn)),
        kind => Type::of(&kind),
    }
}

/// Every rule that the definitions find broken in the field `v` of `message`.
pub(super) fn judged(programs: &[Program], message: &DynamicMessage) -> Vec<Violation> {
    let value = message.get_field_by_name("v").expect("the row's field is v");
    let check = |program: &Program| program.check(Datum::from(&*value)).err();
    programs.iter().filter_map(check).collect()
}

/// Whether `definitions` say all there is to say: not where a rule has none, or is of the items or of presence.
fn is_defined(field: &FieldDescriptor, rule: &str) -> bool {
    let has_none = ["required", "ignore", "any", "defined_only", "items", "keys", "values"];
    let kept = has_none.iter().all(|name| !rule.contains(name));
    kept && !matches!(field.kind(), Kind::Message(kind) if kind.name() == "Inner")
}

#[test]
fn plain_rust_and_the_rules_own_definitions_agree_on_every_row() {
    let pool = pool(&proto_of(ROWS));
    let mut compared = 0;
    for (index, row) in ROWS.iter().enumerate() {
        let kind = message(&pool, &format!("Row{index}"));
        let field = kind.get_field_by_name("v").expect("the row's field is v");
        let given = from_json(kind, &json_of(row));
        let skipped = field.supports_presence() && !given.has_field(&field);
        if skipped || !is_defined(&field, row.1) {
            continue;
        }
        compared += 1;
        let expected = judged(&definitions(&field), &given);
        let validator = validator(&pool, &format!("Row{index}"));
        match validator.map_or(Ok(()), |validator| validator.check(&given)) {
            Ok(()) => assert!(expected.is_empty(), "{row:?}: {expected:?}"),
            Err(told) => assert!(is_one_of(&told, &expected), "{row:?}: {told:?} is none of {expected:?}"),
        }
    }
    assert!(compared > 150, "only {compared} rows were compared");
}

/// The same id and the same sentence; lists of bytes are written here in hexadecimal and there as text.
pub(super) fn is_one_of(told: &Violation, expected: &[Violation]) -> bool {
    let same_words = |other: &Violation| other.message == told.message || told.rule.starts_with("bytes.");
    let same = |other: &Violation| other.rule == told.rule && same_words(other);
    expected.iter().any(same)
}

#[test]
fn the_definitions_themselves_can_be_broken() {
    let pool = pool(&proto_of(&[("string", "string.min_len = 3", "", "")]));
    let field = message(&pool, "Row0").get_field_by_name("v").expect("the row's field is v");
    let programs = definitions(&field);
    let value = Value::String("ab".to_owned());
    let told = programs[0].check(Datum::from(&value)).expect_err("two are fewer than three");
    assert_eq!(told.rule, "string.min_len");
    assert_eq!(told.message, "must be at least 3 characters");
}
