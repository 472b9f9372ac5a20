//! Rules of `buf.validate` through the front door: which field, which rule, and what cannot be enforced.

#![allow(clippy::unwrap_used)]

use trestle_schema::{Catalogue, SchemaSource};
use trestle_wire::Reason;

fn examples() -> Catalogue {
    Catalogue::load(&SchemaSource::examples()).expect("valid")
}

#[test]
fn a_broken_rule_names_the_field_and_the_rule() {
    let catalogue = examples();
    for (name, json, field, rule) in [
        ("chat.v1.Comment", r#"{"author":"a"}"#, "payload.text", "string.min_len"),
        ("shop.v1.OrderPaid", r#"{"orderId":"1","cents":"-5"}"#, "payload.cents", "int64.gt"),
        ("shop.v1.UserCreated", r#"{"email":"a@b"}"#, "payload.userId", "string.min_len"),
        ("shop.v2.OrderPaid", r#"{"orderId":"1"}"#, "payload.total", "required"),
        (
            "shop.v2.OrderPaid",
            r#"{"orderId":"1","total":{"currency":"EURO","cents":1}}"#,
            "payload.total.currency",
            "string.len",
        ),
    ] {
        let kind = catalogue.get(name).unwrap();
        let wire = kind.json_to_protobuf(json.as_bytes()).unwrap();
        let refusal = kind.validate(&wire).expect_err(json);
        assert_eq!(refusal.reason, Reason::RuleViolated, "{refusal}");
        assert_eq!(refusal.field.as_deref(), Some(field), "{refusal}");
        assert!(refusal.message.contains(rule), "{refusal}");
    }
}

#[test]
fn a_message_that_keeps_the_rules_passes() {
    let catalogue = examples();
    for (name, json) in [
        ("chat.v1.Comment", r#"{"text":"hi"}"#),
        ("shop.v1.OrderPaid", r#"{"orderId":"1","cents":"5"}"#),
        ("shop.v1.Receipt", r#"{}"#),
        ("shop.v2.OrderPaid", r#"{"orderId":"1","total":{"currency":"EUR","cents":1}}"#),
    ] {
        let kind = catalogue.get(name).unwrap();
        let wire = kind.json_to_protobuf(json.as_bytes()).unwrap();
        assert_eq!(kind.validate(&wire), Ok(()), "{json}");
    }
}

#[test]
fn what_is_not_protobuf_is_said_before_any_rule() {
    let catalogue = examples();
    let refusal = catalogue.get("chat.v1.Comment").unwrap().validate(&[0x0a, 5, b'h']).expect_err("cut off");
    assert_eq!(refusal.reason, Reason::MalformedPayload);
}

#[test]
fn a_rule_that_cannot_be_enforced_is_a_fault_of_the_set() {
    let text = "syntax = \"proto3\";\npackage a.v1;\nimport \"buf/validate/validate.proto\";\nmessage A {\n  string x = 1 [(buf.validate.field).cel = { id: \"x\" expression: \"this is not CEL\" }];\n}\n";
    let faults = Catalogue::load(&SchemaSource::Files(vec![("a.proto".to_owned(), text.to_owned())])).unwrap_err();
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|fault| fault.starts_with("a.proto:") && fault.contains("a.v1.A")), "{told:#?}");
}
