//! How a type says that it queues, what is wrong with saying it so, and the key out of its messages' bytes.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::LazyLock};

use proptest::{collection, prelude::*, sample};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value};
use trestle_schema::{Catalogue, MessageType, SchemaSource, Schemas};
use trestle_wire::v1::{Overflow, Priority};

/// Fields of each kind; `N` is within every type that is tested.
const FIELDS: &str = r#"
    int32 a = 1; int64 b = 2; uint32 c = 3; uint64 d = 4; sint32 e = 5; sint64 f = 6;
    fixed32 g = 7; fixed64 h = 8; sfixed32 i = 9; sfixed64 j = 10; float k = 11; double l = 12;
    bool m = 13; string n = 14; bytes o = 15; Color p = 16; N q = 17;
    oneof choice { string r = 18; int32 s = 19; N t = 20; }
    optional int32 u = 21;
    repeated string list = 22; map<string, int32> map = 23; google.protobuf.Timestamp at = 24; Empty empty = 600;
"#;

/// Every kind of value that can be a key, at the top, below, and in oneofs.
const PATHS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "i",
    "j",
    "k",
    "l",
    "m",
    "n",
    "o",
    "p",
    "r",
    "s",
    "u",
    "q.n",
    "q.a",
    "q.r",
    "q.s",
    "t.n",
    "t.r",
    "t.u",
    "q.q.n",
    "q.t.a",
    "t.t.t.s",
    "at.seconds",
];

fn schema(messages: &str) -> String {
    format!(
        "syntax = \"proto3\";\npackage a.v1;\nimport \"trestle/v1/options.proto\";\nimport \"google/protobuf/timestamp.proto\";\n\
         enum Color {{ RED = 0; GREEN = 1; BLUE = -1; }}\nmessage Empty {{}}\nmessage N {{ {FIELDS} }}\n{messages}"
    )
}

fn keyed(name: &str, queueing: &str) -> String {
    format!("message {name} {{\n  option (trestle.v1.queueing) = {{ {queueing} }};\n  {FIELDS} }}\n")
}

fn source(text: &str) -> SchemaSource {
    SchemaSource::Files(vec![("a.proto".to_owned(), text.to_owned())])
}

fn load(messages: &str) -> Catalogue {
    Catalogue::load(&source(&schema(messages))).unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(queueing: &str) -> Vec<String> {
    let faults = Catalogue::load(&source(&schema(&keyed("A", queueing)))).expect_err(queueing);
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_type_says_how_it_queues_or_leaves_it_to_the_namespace() {
    let catalogue = load(
        &[
            keyed("Said", "overflow: CONFLATE key: \"q.n\" priority: HIGH"),
            keyed("Dropped", "overflow: DROP_OLDEST"),
            keyed("Keyed", "key: \"a\""),
            keyed("Plain", ""),
        ]
        .concat(),
    );
    let of = |name: &str| {
        let queueing = catalogue.get(name).unwrap().queueing().unwrap();
        (queueing.overflow, queueing.priority, queueing.key.as_ref().map(|key| key.as_str().to_owned()))
    };
    assert_eq!(of("a.v1.Said"), (Some(Overflow::Conflate), Priority::High, Some("q.n".to_owned())));
    assert_eq!(of("a.v1.Dropped"), (Some(Overflow::DropOldest), Priority::Normal, None));
    assert_eq!(of("a.v1.Keyed"), (None, Priority::Normal, Some("a".to_owned())), "for a namespace that conflates");
    assert_eq!(of("a.v1.Plain"), (None, Priority::Normal, None));
    let without = catalogue.get("a.v1.N").unwrap();
    assert!(without.queueing().is_none());
    assert_eq!(without.conflation_key(b""), None);
    assert_eq!(catalogue.get("a.v1.Dropped").unwrap().conflation_key(b""), None);
}

#[test]
fn what_is_wrong_with_a_queueing_names_the_field_and_the_way_out() {
    let deep = vec!["q"; 33].join(".");
    let rows = [
        ("overflow: CONFLATE", "CONFLATE needs a key"),
        (
            "overflow: SAMPLE key: \"a\"",
            "the key \"a\" has no use with overflow SAMPLE; leave it out, or choose CONFLATE",
        ),
        ("overflow: CONFLATE key: \"x\"", "the key \"x\": a.v1.A has no field \"x\"; it has a, b, "),
        ("overflow: CONFLATE key: \"q.x\"", "the key \"q.x\": a.v1.N has no field \"x\""),
        ("overflow: CONFLATE key: \"empty.x\"", "a.v1.Empty has no field \"x\"; it has no fields"),
        (
            "overflow: CONFLATE key: \"q\"",
            "it leads to a message, a.v1.N, and a key is one value; go on to one of its fields, such as \"q.a\"",
        ),
        (
            "overflow: CONFLATE key: \"empty\"",
            "it leads to a message, a.v1.Empty, and a key is one value; choose another field",
        ),
        ("overflow: CONFLATE key: \"at\"", "such as \"at.seconds\""),
        ("overflow: CONFLATE key: \"list\"", "list of a.v1.A is repeated, and a key is one value"),
        ("overflow: CONFLATE key: \"q.map\"", "map of a.v1.N is a map, and a key is one value"),
        ("overflow: CONFLATE key: \"map.key\"", "map of a.v1.A is a map"),
        ("overflow: CONFLATE key: \"n.x\"", "n has no fields, so it must end there"),
        ("overflow: CONFLATE key: \"q.\"", "a.v1.N has no field \"\""),
        ("overflow: CONFLATE key: \".\"", "a.v1.A has no field \"\""),
        (&format!("overflow: CONFLATE key: \"{deep}\""), "it is longer than the 32 names"),
    ];
    for (queueing, said) in rows {
        let told = faults(queueing);
        assert!(told.len() == 1 && told[0].contains("a.v1.A: ") && told[0].contains(said), "{queueing}: {told:#?}");
        assert!(told[0].starts_with("a.proto:16:3: "), "at the option: {told:#?}");
    }
    let unknown = faults("overflow: BLOCK");
    assert!(unknown.len() == 1 && unknown[0].starts_with("a.proto:16:"), "{unknown:#?}");
}

/// A set in which the option was written by a compiler that knows more than this gateway.
#[test]
fn a_field_or_value_of_a_later_version_is_a_fault() {
    for (extra, said) in [
        (&[0x78, 0x01][..], "the queueing has a field with number 15 that this gateway does not know"),
        (&[0x08, 0x63], "the overflow has number 99, which this gateway does not know"),
        (&[0x18, 0x63], "the priority has number 99, which this gateway does not know"),
    ] {
        let set = load(&keyed("A", "overflow: DROP_NEWEST")).descriptor_set().clone();
        // The option: field 51235 with a length, and in it overflow = DROP_NEWEST.
        let mut option = Vec::new();
        encode_key(51235, WireType::LengthDelimited, &mut option);
        let now = [&option[..], &[2, 0x08, 3]].concat();
        let later = [&option[..], &[2], extra].concat();
        let at = set.windows(now.len()).position(|bytes| bytes == now).unwrap();
        let set = [&set[..at], &later, &set[at + now.len()..]].concat();
        let told = Catalogue::load(&SchemaSource::Bytes(set.into())).expect_err(said).to_string();
        assert!(told.contains(said), "{said}: {told}");
    }
}

#[test]
fn a_reload_may_change_how_a_type_queues() {
    let folder = tempfile::tempdir().unwrap();
    let put = |queueing: &str| std::fs::write(folder.path().join("a.proto"), schema(&keyed("A", queueing))).unwrap();
    put("overflow: CONFLATE key: \"n\"");
    let schemas = Schemas::open(SchemaSource::Folder(folder.path().to_owned())).unwrap();
    put("overflow: SPILL priority: LOW");
    let queueing = schemas.reload().unwrap().get("a.v1.A").unwrap().queueing().unwrap().clone();
    assert_eq!(
        (queueing.overflow, queueing.priority, queueing.key.is_some()),
        (Some(Overflow::Spill), Priority::Low, false)
    );
}

#[test]
fn two_types_with_the_same_value_have_two_keys_and_one_type_has_one_on_every_node() {
    let messages = [keyed("A", "overflow: CONFLATE key: \"n\""), keyed("B", "overflow: CONFLATE key: \"n\"")].concat();
    let (here, there) = (load(&messages), load(&messages));
    let key = |of: &Catalogue, name: &str| of.get(name).unwrap().conflation_key(b"\x72\x01x").unwrap();
    assert_ne!(key(&here, "a.v1.A"), key(&here, "a.v1.B"));
    assert_eq!(key(&here, "a.v1.A"), key(&there, "a.v1.A"));
}

#[test]
fn what_is_no_message_of_the_type_has_no_key() {
    let catalogue = load(&keyed("A", "overflow: CONFLATE key: \"q.n\""));
    let kind = catalogue.get("a.v1.A").unwrap();
    for payload in [&b"\x72"[..], b"\x8a\x01\x05\x72", b"\x88\x01\x01", b"\x8a\x01\x02\x70\x01"] {
        assert_eq!(kind.conflation_key(payload), None, "{payload:x?}");
    }
    assert!(kind.conflation_key(b"").is_some());
}

#[test]
fn the_default_of_an_older_schema_is_the_key_of_a_message_without_the_field() {
    let text = "syntax = \"proto2\";\npackage a.v1;\nimport \"trestle/v1/options.proto\";\nmessage A {\n\
                option (trestle.v1.queueing) = { overflow: CONFLATE key: \"n\" };\noptional string n = 1 [default = \"x\"];\n}";
    let catalogue = Catalogue::load(&source(text)).unwrap();
    let key = |payload: &[u8]| catalogue.get("a.v1.A").unwrap().conflation_key(payload).unwrap();
    assert_eq!(key(b""), key(b"\x0a\x01x"));
    assert_ne!(key(b""), key(b"\x0a\x00"));
}

/// A type for each of [`PATHS`], all with the same fields.
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let keyed = |(n, path): (usize, &&str)| keyed(&format!("K{n}"), &format!("overflow: CONFLATE key: \"{path}\""));
    load(&PATHS.iter().enumerate().map(keyed).collect::<String>())
});

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(CATALOGUE.descriptor_set().clone()).unwrap());

fn kind(path: usize) -> (&'static MessageType, MessageDescriptor) {
    let name = format!("a.v1.K{path}");
    (CATALOGUE.get(&name).unwrap(), POOL.get_message_by_name(&name).unwrap())
}

/// Wire bytes of the fields, in any order and as often as they like; few values, so that some are equal.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let field = |number: u32, wire_type: WireType, value: Vec<u8>| {
        let mut out = Vec::new();
        encode_key(number, wire_type, &mut out);
        if wire_type == WireType::LengthDelimited {
            encode_varint(value.len() as u64, &mut out);
        }
        [out, value].concat()
    };
    let varint = |number: u64| {
        let mut out = Vec::new();
        encode_varint(number, &mut out);
        out
    };
    let numbers = sample::select(vec![0, 1, 2, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX]);
    let varints = (sample::select(vec![1, 2, 3, 4, 5, 6, 13, 16, 19, 21]), numbers)
        .prop_map(move |(number, value)| field(number, WireType::Varint, varint(value)));
    let four = (sample::select(vec![7, 9, 11]), sample::select(vec![0.0_f32, -0.0, 1.5, f32::NAN, -f32::NAN]))
        .prop_map(move |(number, value)| field(number, WireType::ThirtyTwoBit, value.to_le_bytes().to_vec()));
    let eight = (sample::select(vec![8, 10, 12]), sample::select(vec![0.0_f64, -0.0, 1.5, f64::NAN, f64::INFINITY]))
        .prop_map(move |(number, value)| field(number, WireType::SixtyFourBit, value.to_le_bytes().to_vec()));
    let texts = (sample::select(vec![14, 15, 18]), "[ab]{0,2}")
        .prop_map(move |(number, value)| field(number, WireType::LengthDelimited, value.into_bytes()));
    let time = (0_u64..3)
        .prop_map(move |seconds| field(24, WireType::LengthDelimited, field(1, WireType::Varint, varint(seconds))));
    let unknown = sample::select(vec![vec![0xc0, 0x3e, 1], vec![0xc3, 0x3e, 0xa8, 0x06, 1, 0xc4, 0x3e]]);
    let flat = prop_oneof![4 => varints, 1 => four, 1 => eight, 4 => texts, 1 => time, 1 => unknown].boxed();
    let message = collection::vec(flat.clone(), 0..8).prop_map(|fields| fields.concat()).boxed();
    message.prop_recursive(3, 24, 4, move |inner| {
        let nested = (sample::select(vec![17, 20]), inner)
            .prop_map(move |(number, value)| field(number, WireType::LengthDelimited, value));
        collection::vec(prop_oneof![2 => flat.clone(), 1 => nested], 0..6).prop_map(|fields| fields.concat())
    })
}

/// The value at `path`, by reflection.
fn reflected(descriptor: MessageDescriptor, payload: &[u8], path: &str) -> String {
    let message = DynamicMessage::decode(descriptor, payload).expect("valid");
    let mut value = Value::Message(message);
    for name in path.split('.') {
        let Value::Message(message) = &value else { panic!("{path}") };
        let field = message.descriptor().get_field_by_name(name).expect(path);
        value = message.get_field(&field).into_owned();
    }
    match value {
        Value::F32(0.0) | Value::F64(0.0) => "0".to_owned(), // -0 too
        other => format!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn two_messages_have_the_same_key_exactly_if_reflection_finds_the_same_value(
        path in 0..PATHS.len(), payloads in collection::vec(wire(), 2..6),
    ) {
        let (kind, descriptor) = kind(path);
        let mut found = BTreeMap::new();
        for payload in &payloads {
            prop_assert!(kind.validate(payload).is_ok());
            let key = kind.conflation_key(payload).expect("the type has one");
            let value = reflected(descriptor.clone(), payload, PATHS[path]);
            let before = found.entry(value.clone()).or_insert(key);
            prop_assert_eq!(*before, key, "two keys of {} = {}", PATHS[path], value);
        }
        let keys: std::collections::BTreeSet<u64> = found.values().copied().collect();
        prop_assert_eq!(keys.len(), found.len(), "one key of two values: {:?}", found);
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(path in 0..PATHS.len(), payload in collection::vec(any::<u8>(), 0..64)) {
        let (kind, _) = kind(path);
        if kind.validate(&payload).is_ok() {
            prop_assert!(kind.conflation_key(&payload).is_some());
        } else {
            let _ = kind.conflation_key(&payload);
        }
    }
}
