//! A new set is put in use whole, or refused whole: what clients use now must go on working.

#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf, sync::Arc};

use trestle_schema::{SchemaSource, Schemas};

/// A folder with one file, whose message has these fields.
struct House {
    folder: tempfile::TempDir,
    schemas: Schemas,
}

const FIELDS: &str = "string order_id = 1; repeated Line lines = 2; Size size = 3; map<string, int64> cents = 4;";

fn file(fields: &str) -> String {
    format!(
        "syntax = \"proto3\";\npackage shop.v1;\nimport \"trestle/v1/options.proto\";\n\
         message Order {{\n  option (trestle.v1.route) = {{ alias: \"ORDER\" version: \"1.0\" service: \"billing\" }};\n  {fields}\n\
         message Line {{ string sku = 1; uint32 quantity = 2; }}\n\
         enum Size {{ SMALL = 0; LARGE = 1; }}\n}}\n"
    )
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("shop.proto"), file(FIELDS)).unwrap();
        let schemas = Schemas::open(SchemaSource::Folder(folder.path().into())).expect("valid");
        Self { folder, schemas }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("shop.proto")
    }

    /// The faults that this text of the file is refused with.
    fn refused(&self, text: &str) -> Vec<String> {
        let before = self.schemas.current();
        fs::write(self.path(), text).unwrap();
        let faults = self.schemas.reload().expect_err("a set that breaks something");
        assert!(Arc::ptr_eq(&before, &self.schemas.current()), "the old set stays");
        faults.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn what_only_adds_is_put_in_use() {
    let house = House::new();
    let other = house.schemas.clone();
    let more = file(&format!("{FIELDS} bool gift = 5; oneof paid {{ string card = 6; bool cash = 7; }}"))
        .replace("LARGE = 1;", "LARGE = 1; HUGE = 2;")
        .replace("quantity = 2;", "quantity = 2; string note = 3;");
    fs::write(house.path(), format!("{more}message Another {{}}\n")).unwrap();
    house.schemas.reload().expect("only more");
    assert!(other.current().get("shop.v1.Another").is_some(), "clones see it too");
    let order = other.current().get("shop.v1.Order").unwrap().clone();
    assert!(order.json_to_protobuf(br#"{"orderId":"1","gift":true,"size":"HUGE"}"#).is_ok());
}

#[test]
fn a_set_with_faults_is_refused_and_the_old_one_serves_on() {
    let house = House::new();
    let faults = house.refused("syntax = \"proto3\";\nmessage Order { Nope a = 1; }\n");
    assert!(faults[0].starts_with("shop.proto:2:17: name 'Nope' is not defined"), "{faults:?}");
    let order = house.schemas.current().get("shop.v1.Order").unwrap().clone();
    assert!(order.json_to_protobuf(br#"{"orderId":"1"}"#).is_ok());
}

#[test]
fn every_break_of_a_served_type_is_told() {
    let changed = |from: &str, to: &str| file(FIELDS).replace(from, to);
    for (what, text, said) in [
        ("a field removed", changed("string order_id = 1;", ""), "field order_id (1) is served and removed"),
        ("a field renumbered", changed("order_id = 1", "order_id = 9"), "field order_id has number 1 and gets 9"),
        ("a field renamed", changed("order_id", "id"), "field order_id (1) is called orderId in JSON and gets id"),
        (
            "a type changed",
            changed("string order_id", "bytes order_id"),
            "field order_id is of type string and gets bytes",
        ),
        ("a list made one", changed("repeated Line", "Line"), "field lines is repeated and gets singular"),
        (
            "a map's value changed",
            changed("int64>", "sint64>"),
            "field cents is of type map<string, int64> and gets map<string, sint64>",
        ),
        (
            "a nested field removed",
            changed("string sku = 1;", ""),
            "shop.v1.Order.Line: field sku (1) is served and removed",
        ),
        ("a value removed", changed("LARGE = 1;", ""), "shop.v1.Order.Size: value LARGE (1) is served and removed"),
        ("a value renumbered", changed("LARGE = 1;", "LARGE = 7;"), "value LARGE is 1 and gets 7"),
        (
            "the type renamed",
            changed("message Order", "message Purchase"),
            "shop.v1.Order is served and missing in the new set",
        ),
        (
            "the alias renamed",
            changed("\"ORDER\"", "\"PURCHASE\""),
            "alias ORDER version 1.0 is served and missing in the new set",
        ),
        (
            "the version raised",
            changed("\"1.0\"", "\"1.1\""),
            "alias ORDER version 1.0 is served and missing in the new set",
        ),
        (
            "the route removed",
            changed("option (trestle.v1.route)", "//"),
            "its route is served and missing in the new set",
        ),
    ] {
        let faults = House::new().refused(&text);
        assert!(faults.iter().any(|fault| fault.contains(said)), "{what}: {faults:#?}");
    }
}

#[test]
fn all_breaks_are_told_at_once_with_their_places() {
    let faults = House::new().refused(&file("bytes order_id = 1; Line lines = 2;"));
    assert_eq!(faults.len(), 4, "{faults:#?}");
    assert!(
        faults.iter().any(|fault| fault.starts_with("shop.proto:6:3: shop.v1.Order: field order_id is of type")),
        "{faults:#?}"
    );
    assert!(faults.iter().any(|fault| fault.contains("field size (3) is served and removed")), "{faults:#?}");
}

#[test]
fn a_new_version_beside_the_old_one_is_only_more() {
    let house = House::new();
    let second = file("string number = 1;").replace("shop.v1", "shop.v2").replace("\"1.0\"", "\"2.0\"");
    fs::write(house.folder.path().join("shop2.proto"), second).unwrap();
    let catalogue = house.schemas.reload().expect("only more");
    assert_eq!(catalogue.resolve("ORDER", "").unwrap().full_name(), "shop.v2.Order");
    assert_eq!(catalogue.resolve("ORDER", "1.0").unwrap().full_name(), "shop.v1.Order");
    let one = catalogue.resolve("ORDER", "1.0").unwrap().json_to_protobuf(br#"{"orderId":"1"}"#);
    let two = catalogue.resolve("ORDER", "2.0").unwrap().json_to_protobuf(br#"{"orderId":"1"}"#);
    assert!(one.is_ok() && two.is_err());
}

#[test]
fn the_service_and_the_ack_level_of_a_type_may_change() {
    let house = House::new();
    fs::write(house.path(), file(FIELDS).replace("service: \"billing\"", "service: \"ledger\" ack: DURABLE")).unwrap();
    let catalogue = house.schemas.reload().expect("clients see no difference");
    assert!(catalogue.has_service("ledger") && !catalogue.has_service("billing"));
}
