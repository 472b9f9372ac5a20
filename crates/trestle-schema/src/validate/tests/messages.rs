//! Rules of whole messages, messages in messages, and the paths that name what is wrong.

use super::{broken, check, message, pool};
use crate::validate::Validator;

const PROTO: &str = r#"
message Order {
  string id = 1 [(buf.validate.field).string.min_len = 1];
  repeated Line lines = 2 [(buf.validate.field).repeated.max_items = 3];
  map<string, string> labels = 3 [(buf.validate.field).map = {
    keys: {string: {pattern: "^[a-z]+$"}}, values: {string: {max_len: 3}}
  }];
  map<int32, Line> by_number = 4;
  Line first = 5;
  Line unchecked = 6 [(buf.validate.field).ignore = IGNORE_ALWAYS];
}
message Line {
  int32 qty = 1 [(buf.validate.field).int32.gt = 0];
  Line part = 2;
}
message Plain { string a = 1; Plain again = 2; repeated Other others = 3; }
message Other { int32 n = 1; Plain plain = 2; }
message Tree { Tree left = 1; Tree right = 2; Leaf leaf = 3; }
message Leaf { Tree back = 1; string name = 2 [(buf.validate.field).required = true]; }
message Choice {
  oneof value {
    option (buf.validate.oneof).required = true;
    string a = 1 [(buf.validate.field).string.min_len = 2];
    int32 b = 2;
  }
}
message OneOfThese {
  option (buf.validate.message).oneof = { fields: ["a", "b"] };
  option (buf.validate.message).oneof = { fields: ["c", "d"], required: true };
  string a = 1 [(buf.validate.field).string.min_len = 2];
  repeated int32 b = 2;
  bytes c = 3;
  int32 d = 4;
}
"#;

#[test]
fn a_violation_names_the_path_to_the_value() {
    let pool = pool(PROTO);
    let rows = [
        (r#"{"id": "1"}"#, ""),
        ("{}", "id: string.min_len"),
        (r#"{"id": "1", "lines": [{"qty": 1}, {"qty": 1}, {"qty": 0}]}"#, "lines[2].qty: int32.gt"),
        (r#"{"id": "1", "lines": [{}, {}, {}, {}]}"#, "lines: repeated.max_items"),
        (r#"{"id": "1", "labels": {"a": "long"}}"#, "labels[\"a\"]: string.max_len"),
        (r#"{"id": "1", "labels": {"A\"": "s"}}"#, "labels[\"A\\\"\"]: string.pattern"),
        (r#"{"id": "1", "byNumber": {"-7": {"qty": 0}}}"#, "by_number[-7].qty: int32.gt"),
        (r#"{"id": "1", "first": {"qty": 1, "part": {"qty": 1, "part": {}}}}"#, "first.part.part.qty: int32.gt"),
        (r#"{"id": "1", "unchecked": {"qty": -1}}"#, ""),
    ];
    for (json, expected) in rows {
        assert_eq!(broken(&pool, "Order", json), expected, "{json}");
    }
}

#[test]
fn a_broken_key_is_told_apart_from_a_broken_value() {
    let told = check(&pool(PROTO), "Order", r#"{"id": "1", "labels": {"A": "s"}}"#);
    let told = told.expect_err("the key is upper case");
    assert_eq!(told.message, "the key does not match regex pattern `^[a-z]+$`");
}

#[test]
fn a_type_without_rules_has_no_validator_however_it_contains_itself() {
    let pool = pool(PROTO);
    for name in ["Plain", "Other"] {
        let validator = Validator::compile(&message(&pool, name)).expect("there is nothing to refuse");
        assert!(validator.is_none(), "{name}");
    }
}

#[test]
fn rules_are_found_through_types_that_contain_each_other() {
    let pool = pool(PROTO);
    let rows = [
        ("{}", ""),
        (r#"{"left": {"right": {"leaf": {"name": "x"}}}}"#, ""),
        (r#"{"left": {"right": {"leaf": {}}}}"#, "left.right.leaf.name: required"),
        (r#"{"leaf": {"name": "x", "back": {"leaf": {}}}}"#, "leaf.back.leaf.name: required"),
    ];
    for (json, expected) in rows {
        assert_eq!(broken(&pool, "Tree", json), expected, "{json}");
    }
}

#[test]
fn a_required_oneof_needs_a_field_and_its_fields_keep_their_rules() {
    let pool = pool(PROTO);
    let rows = [
        ("{}", "value: required"),
        (r#"{"b": 0}"#, ""),
        (r#"{"a": "x"}"#, "a: string.min_len"),
        (r#"{"a": "xy"}"#, ""),
    ];
    for (json, expected) in rows {
        assert_eq!(broken(&pool, "Choice", json), expected, "{json}");
    }
}

#[test]
fn a_messages_oneof_counts_the_fields_that_are_set() {
    let pool = pool(PROTO);
    let rows = [
        ("{}", ": message.oneof"),
        (r#"{"d": 1}"#, ""),
        (r#"{"c": "YQ==", "d": 1}"#, ": message.oneof"),
        (r#"{"d": 1, "a": "xy", "b": [1]}"#, ": message.oneof"),
        (r#"{"d": 1, "b": [1]}"#, ""),
        (r#"{"d": 1, "a": "x"}"#, "a: string.min_len"),
    ];
    for (json, expected) in rows {
        assert_eq!(broken(&pool, "OneOfThese", json), expected, "{json}");
    }
}
