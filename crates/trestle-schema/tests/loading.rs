//! Schemas from folders, sets and memory: what is served, and that every fault of a wrong set is told at once.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use bytes::Bytes;
use trestle_schema::{Catalogue, Faults, SchemaSource, Schemas, route};
use trestle_wire::{Reason, Subjects, v1};

fn files(files: &[(&str, &str)]) -> SchemaSource {
    SchemaSource::Files(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

fn faults(source: &SchemaSource) -> Vec<String> {
    Catalogue::load(source).expect_err("a wrong set").iter().map(ToString::to_string).collect()
}

/// One file with one message whose route is `route`.
fn routed(route: &str) -> String {
    format!(
        "syntax = \"proto3\";\npackage a.v1;\nimport \"trestle/v1/options.proto\";\nmessage A {{\n  option (trestle.v1.route) = {{ {route} }};\n}}\n"
    )
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn the_examples_are_served_with_their_routes() {
    let catalogue = Catalogue::load(&SchemaSource::examples()).expect("valid");
    let names: Vec<_> = catalogue.types().map(|kind| kind.full_name()).collect();
    assert_eq!(
        names,
        [
            "chat.v1.Comment",
            "shop.v1.GetQuote",
            "shop.v1.InventoryUpdated",
            "shop.v1.OrderPaid",
            "shop.v1.Quote",
            "shop.v1.Receipt",
            "shop.v1.UserCreated",
            "shop.v2.Money",
            "shop.v2.OrderPaid"
        ]
    );
    let subjects = Subjects::new("trestle");
    let rows: Vec<_> = route::table(&catalogue, &subjects)
        .into_iter()
        .map(|row| {
            format!(
                "{} {} {} {:?} {}",
                row.alias,
                row.version,
                row.destination,
                row.transport(),
                row.ack().as_str_name()
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            "GET_QUOTE 1.0 trestle.up.billing.shop.v1.GetQuote Bridge RECEIVED",
            "INVENTORY_UPDATED 1.0 trestle.up.stock.shop.v1.InventoryUpdated Bridge RECEIVED",
            "ORDER_PAID 1.0 trestle.work.billing.shop.v1.OrderPaid Bridge HANDLED",
            "USER_CREATED 1.0 trestle.work.users.shop.v1.UserCreated Bridge DURABLE",
            "ORDER_PAID 2.0 trestle.work.billing.shop.v2.OrderPaid Bridge HANDLED",
        ]
    );
    assert_eq!(catalogue.routed_to("billing").count(), 3);
    assert!(catalogue.has_service("stock") && !catalogue.has_service("nobody"));
    assert!(catalogue.get("chat.v1.Comment").unwrap().route().is_none());
}

#[test]
fn a_type_is_found_by_its_name_or_by_alias_and_version() {
    let catalogue = Catalogue::load(&SchemaSource::examples()).expect("valid");
    for (name, version, found) in [
        ("shop.v1.OrderPaid", "", "shop.v1.OrderPaid"),
        ("shop.v1.OrderPaid", "1.0", "shop.v1.OrderPaid"),
        ("shop.v1.OrderPaid", "1", "shop.v1.OrderPaid"),
        ("ORDER_PAID", "1.0", "shop.v1.OrderPaid"),
        ("ORDER_PAID", "2.0", "shop.v2.OrderPaid"),
        ("ORDER_PAID", "2", "shop.v2.OrderPaid"),
        ("ORDER_PAID", "", "shop.v2.OrderPaid"),
        ("chat.v1.Comment", "1", "chat.v1.Comment"),
    ] {
        assert_eq!(catalogue.resolve(name, version).unwrap().full_name(), found, "{name} {version}");
    }
    for (name, version, reason, said) in [
        ("ORDER_PIAD", "", Reason::UnknownType, "did you mean ORDER_PAID?"),
        ("chat.v1.Coment", "", Reason::UnknownType, "did you mean chat.v1.Comment?"),
        ("google.protobuf.Struct", "", Reason::UnknownType, "no message type"),
        ("trestle.v1.Envelope", "", Reason::UnknownType, "no message type"),
        ("", "", Reason::UnknownType, "no message type"),
        ("ORDER_PAID", "3.0", Reason::UnknownVersion, "there is 1.0, 2.0"),
        ("ORDER_PAID", "x", Reason::UnknownVersion, "there is 1.0, 2.0"),
        ("shop.v1.OrderPaid", "2.0", Reason::UnknownVersion, "there is 1.0"),
    ] {
        let refusal = catalogue.resolve(name, version).expect_err(name);
        assert_eq!(refusal.reason, reason, "{name} {version}");
        assert!(refusal.message.contains(said), "{refusal}");
    }
}

#[test]
fn the_highest_version_is_the_highest_number() {
    let version = |n: &str, version: &str| {
        let text = routed(&format!("alias: \"A\" version: \"{version}\" service: \"s\""))
            .replace("package a.v1", &format!("package a.v{n}"));
        (format!("a/v{n}.proto"), text)
    };
    let source = SchemaSource::Files(vec![version("1", "9.0"), version("2", "10.0"), version("3", "9.5")]);
    let catalogue = Catalogue::load(&source).expect("valid");
    assert_eq!(catalogue.resolve("A", "").unwrap().version(), "10.0");
    assert_eq!(catalogue.resolve("A", "4").unwrap_err().message, "A has no version \"4\"; there is 9.0, 9.5, 10.0");
}

#[test]
fn a_route_says_its_defaults_and_all_it_was_given() {
    let catalogue = Catalogue::load(&files(&[("a.proto", &routed("service: \"s\""))])).expect("valid");
    let kind = catalogue.get("a.v1.A").unwrap();
    let route = kind.route().unwrap();
    assert_eq!((kind.alias(), kind.version()), (None, "1"));
    assert_eq!((route.transport, route.ack, route.scopes.len()), (v1::Transport::Bridge, v1::AckLevel::Received, 0));

    let given = routed("service: \"s\" transport: NATS ack: DURABLE scopes: \"a\" scopes: \"b:c\"");
    let catalogue = Catalogue::load(&files(&[("a.proto", &given)])).expect("valid");
    let route = catalogue.get("a.v1.A").unwrap().route().unwrap();
    assert_eq!((route.transport, route.ack), (v1::Transport::Nats, v1::AckLevel::Durable));
    assert_eq!(route.scopes, ["a", "b:c"]);
}

#[test]
fn every_fault_of_every_file_is_told_with_its_place() {
    let source = files(&[
        ("good.proto", "syntax = \"proto3\";\npackage good;\nmessage Good {}\n"),
        ("syntax.proto", "syntax = \"proto3\";\nmessage {\n"),
        ("names.proto", "syntax = \"proto3\";\npackage n;\nmessage N {\n  Nope a = 1;\n  Neither b = 2;\n}\n"),
        ("numbers.proto", "syntax = \"proto3\";\npackage m;\nmessage M {\n  int32 a = 1;\n  int32 b = 1;\n}\n"),
        (
            "imports.proto",
            "syntax = \"proto3\";\npackage i;\nimport \"other/x.proto\";\nimport \"other/y.proto\";\nmessage I {}\n",
        ),
        ("on_broken.proto", "syntax = \"proto3\";\npackage o;\nimport \"syntax.proto\";\nmessage O {}\n"),
    ]);
    let faults = faults(&source);
    for said in [
        "imports.proto:3:1: import \"other/x.proto\" is not found: add the file other/x.proto to the schemas",
        "imports.proto:4:1: import \"other/y.proto\" is not found: add the file other/y.proto to the schemas",
        "names.proto:4:3: name 'Nope' is not defined",
        "names.proto:5:3: name 'Neither' is not defined",
        "numbers.proto:5:13: field number '1' is already used",
        "syntax.proto:2:9: expected",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(said)), "{said}\nin {faults:#?}");
    }
    assert_eq!(faults.len(), 6, "a file that imports a broken one has no fault of its own: {faults:#?}");
}

#[test]
fn every_fault_of_a_route_is_told() {
    let wrong = routed(
        "alias: \"order-paid\" version: \"v1\" transport: NATS ack: HANDLED scopes: \"\" service: \"No Service\"",
    );
    let told = faults(&files(&[("a.proto", &wrong)]));
    for said in [
        "the alias \"order-paid\" is not capital letters",
        "the version \"v1\" is not one to four numbers",
        "ack HANDLED needs transport BRIDGE",
        "the scope \"\" is empty",
        "the service \"No Service\" is not",
    ] {
        assert!(
            told.iter().any(|fault| fault.starts_with("a.proto:5:3: a.v1.A: ") && fault.contains(said)),
            "{said}\nin {told:#?}"
        );
    }
    assert_eq!(told.len(), 5, "{told:#?}");
    assert_eq!(
        faults(&files(&[("a.proto", &routed("alias: \"A\""))])),
        ["a.proto:5:3: a.v1.A: the route names no service"]
    );
    let unknown = faults(&files(&[("a.proto", &routed("service: \"s\" transport: PIGEON"))]));
    assert!(unknown.len() == 1 && unknown[0].starts_with("a.proto:5:"), "{unknown:#?}");
}

#[test]
fn two_types_cannot_have_the_same_alias_and_version() {
    let one = routed("alias: \"A\" version: \"1\" service: \"s\"");
    let other = routed("alias: \"A\" version: \"1.0\" service: \"t\"").replace("a.v1", "b.v1");
    let told = faults(&files(&[("a.proto", &one), ("b.proto", &other)]));
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("b.proto:5:3: b.v1.A: the alias A has version 1.0 already, in a.v1.A"), "{told:?}");
}

#[test]
fn what_cannot_be_served_is_a_fault() {
    let source = files(&[(
        "old.proto",
        "syntax = \"proto2\";\npackage old;\nmessage Old {\n  optional int32 a = 1;\n  optional group G = 2 {}\n  extensions 100 to 200;\n}\nextend Old { optional int32 more = 100; }\n",
    )]);
    let told = faults(&source);
    assert!(told.iter().any(|fault| fault.starts_with("old.proto:5:3: old.Old: field g is a group")), "{told:#?}");
    assert!(told.iter().any(|fault| fault.contains("extensions of messages are not served (old.more)")), "{told:#?}");
}

#[test]
fn a_circle_of_imports_is_a_fault() {
    let text = |import: &str| format!("syntax = \"proto3\";\nimport \"{import}\";\n");
    let told = faults(&files(&[("a.proto", &text("b.proto")), ("b.proto", &text("a.proto"))]));
    assert_eq!(told, ["b.proto:2:1: import \"a.proto\" closes a circle of imports"]);
}

#[test]
fn a_folder_is_the_root_of_its_imports() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "a/b.proto",
        "syntax = \"proto3\";\npackage a;\nimport \"a/c.proto\";\nmessage B { C c = 1; }\n",
    );
    write(folder.path(), "a/c.proto", "syntax = \"proto3\";\npackage a;\nmessage C { string x = 1; }\n");
    write(folder.path(), ".git/no.proto", "not a schema");
    write(folder.path(), "README.md", "not a schema");
    let catalogue = Catalogue::load(&SchemaSource::from_path(folder.path())).expect("valid");
    assert_eq!(catalogue.types().count(), 2);

    // Given one folder too high, the fault says which one is meant.
    let above = tempfile::tempdir().unwrap();
    write(
        above.path(),
        "proto/a/b.proto",
        "syntax = \"proto3\";\npackage a;\nimport \"a/c.proto\";\nmessage B { C c = 1; }\n",
    );
    write(above.path(), "proto/a/c.proto", "syntax = \"proto3\";\npackage a;\nmessage C { string x = 1; }\n");
    let told = faults(&SchemaSource::Folder(above.path().into()));
    assert!(told[0].contains("it is in \"proto\", so give that folder as the root"), "{told:?}");
}

#[test]
fn the_gateways_own_files_go_before_copies_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "trestle/v1/options.proto", "this is not what the gateway reads");
    write(folder.path(), "a.proto", &routed("service: \"s\""));
    let catalogue = Catalogue::load(&SchemaSource::Folder(folder.path().into())).expect("valid");
    assert!(catalogue.has_service("s"));
}

#[test]
fn a_folder_or_file_that_is_not_there_or_empty_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    for (source, said) in [
        (SchemaSource::Folder(folder.path().join("nope")), "cannot be read"),
        (SchemaSource::Folder(folder.path().into()), "holds no .proto files"),
        (SchemaSource::DescriptorSet(folder.path().join("nope.binpb")), "cannot be read"),
        (SchemaSource::Bytes(Bytes::from_static(b"\xff\xff")), "is not a FileDescriptorSet"),
        (SchemaSource::Bytes(Bytes::new()), "holds no files"),
    ] {
        let told = faults(&source);
        assert!(told.len() == 1 && told[0].contains(said), "{said}: {told:?}");
    }
    write(folder.path(), "latin.proto", "x");
    fs::write(folder.path().join("latin.proto"), b"// \xe9").unwrap();
    let told = faults(&SchemaSource::Folder(folder.path().into()));
    assert!(told[0].starts_with("latin.proto: cannot be read"), "{told:?}");
}

#[test]
fn a_descriptor_set_serves_what_its_files_would() {
    let from_files = Catalogue::load(&SchemaSource::examples()).expect("valid");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.binpb");
    fs::write(&path, from_files.descriptor_set()).unwrap();
    for source in [SchemaSource::from_path(&path), SchemaSource::Bytes(from_files.descriptor_set().clone())] {
        let from_set = Catalogue::load(&source).expect("valid");
        let subjects = Subjects::new("t");
        assert_eq!(route::table(&from_set, &subjects), route::table(&from_files, &subjects));
        assert_eq!(from_set.types().count(), from_files.types().count());
    }
}

#[test]
fn faults_print_one_a_line_as_editors_read_them() {
    let faults: Faults =
        Catalogue::load(&files(&[("a.proto", "syntax = \"proto3\";\nmessage A { B b = 1; C c = 2; }\n")])).unwrap_err();
    let text = faults.to_string();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| line.starts_with("a.proto:2:")), "{text}");
}

#[test]
fn an_open_set_is_the_one_in_use() {
    let schemas = Schemas::open(SchemaSource::examples()).expect("valid");
    assert_eq!(schemas.current().types().count(), 9);
    assert_eq!(schemas.reload().expect("the same again").types().count(), 9);
}
