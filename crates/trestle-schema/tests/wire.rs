//! What is well-formed protobuf of a type, and how deep it may be.

mod rich;

use rich::kind;
use trestle_wire::Reason;

/// Wire bytes, and the path where they are wrong.
const WRONG: &[(&str, &[u8], &str)] = &[
    ("a key that is cut off", &[0x80], "payload"),
    ("a key longer than 64 bits", &[0xff; 11], "payload"),
    ("field number 0", &[0x00, 1], "payload"),
    ("a field number beyond 29 bits", &[0x80, 0x80, 0x80, 0x80, 0x10, 1], "payload"),
    ("wire type 6", &[0x1e, 1], "payload"),
    ("a varint that is cut off", &[0x18, 0x80], "payload"),
    ("a fixed64 that is cut off", &[0x09, 1, 2], "payload"),
    ("a fixed32 that is cut off", &[0x15, 1, 2], "payload"),
    ("a length beyond the end", &[0x72, 5, b'a'], "payload"),
    ("a length of 64 bits", &[0x72, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "payload"),
    ("a string that is not UTF-8", &[0x72, 1, 0xff], "payload.aString"),
    ("a number in a string's field", &[0x70, 1], "payload.aString"),
    ("a string in a number's field", &[0x1a, 1, b'1'], "payload.anInt32"),
    ("a fixed32 in a varint's field", &[0x1d, 0, 0, 0, 0], "payload.anInt32"),
    ("a group in a message's field", &[0x8b, 1, 0x8c, 1], "payload.aLeaf"),
    ("a packed list whose last number is cut off", &[0xba, 1, 2, 1, 0x80], "payload.int32s"),
    ("a packed list of fixed32 with 5 bytes", &[0xea, 1, 5, 0, 0, 0, 0, 0], "payload.fixed32s"),
    ("a nested string that is not UTF-8", &[0xaa, 2, 0, 0xaa, 2, 3, 0x0a, 1, 0xff], "payload.leaves[1].name"),
    ("a map's value that is not UTF-8", &[0xca, 2, 3, 0x12, 1, 0xff], "payload.byInt32.value"),
    ("a map's key that is not UTF-8", &[0xa2, 3, 3, 0x0a, 1, 0xff], "payload.byString.key"),
    ("an unknown group that does not end", &[0xfb, 0x3e, 8, 1], "payload"),
    ("a group that ends and did not begin", &[0xfc, 0x3e], "payload"),
    ("a group that another ends", &[0xfb, 0x3e, 0x84, 0x3f], "payload"),
];

#[test]
fn what_is_not_protobuf_of_the_type_is_refused_and_located() {
    for (what, wire, field) in WRONG {
        let refusal = kind("rich.v1.All").validate(wire).expect_err(what);
        assert_eq!(refusal.reason, Reason::MalformedPayload, "{what}");
        assert_eq!(refusal.field.as_deref(), Some(*field), "{what}: {refusal}");
    }
}

#[test]
fn lists_may_be_packed_or_not_whatever_the_schema_says() {
    let all = kind("rich.v1.All");
    // int32s (packed by the schema) loose, then packed; loose (not packed by the schema) packed.
    let wire = [0xb8, 1, 1, 0xba, 1, 2, 2, 3, 0xb8, 1, 4, 0xb2, 2, 2, 5, 6];
    assert_eq!(all.validate(&wire), Ok(()));
    let mut out = Vec::new();
    all.protobuf_to_json(&wire, &mut out).expect("valid");
    assert_eq!(String::from_utf8_lossy(&out), r#"{"int32s":[1,2,3,4],"loose":[5,6]}"#);
}

#[test]
fn of_equal_keys_of_a_map_the_last_counts_however_they_are_written() {
    let all = kind("rich.v1.All");
    // by_int32: -1 as ten bytes, then as five; the value is missing in the second.
    let wire = [
        &[0xca, 2, 14, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0x12, 1, b'a'][..],
        &[0xca, 2, 6, 8, 0xff, 0xff, 0xff, 0xff, 0x0f],
    ];
    let mut out = Vec::new();
    all.protobuf_to_json(&wire.concat(), &mut out).expect("valid");
    assert_eq!(String::from_utf8_lossy(&out), r#"{"byInt32":{"-1":""}}"#);
}

/// JSON of a chain of `messages` messages, the outermost counted.
fn chain(open: &str, close: &str, messages: usize) -> String {
    format!("{}{{}}{}", open.repeat(messages - 1), close.repeat(messages - 1))
}

#[test]
fn thirty_two_messages_within_each_other_are_taken_and_no_more() {
    let all = kind("rich.v1.All");
    for (open, close) in
        [(r#"{"child":"#, "}"), (r#"{"children":["#, "]}"), (r#"{"named":{"a":"#, "}}"), (r#"{"choiceAll":"#, "}")]
    {
        let wire = all
            .json_to_protobuf(chain(open, close, 32).as_bytes())
            .unwrap_or_else(|refusal| panic!("{open}: {refusal}"));
        assert_eq!(all.validate(&wire), Ok(()), "{open}");
        let mut json = Vec::new();
        assert_eq!(all.protobuf_to_json(&wire, &mut json), Ok(()), "{open}");
        let refusal = all.json_to_protobuf(chain(open, close, 33).as_bytes()).expect_err(open);
        assert_eq!(refusal.reason, Reason::TooDeep, "{open}");
    }
}

#[test]
fn the_wire_is_held_to_the_same_depth() {
    let all = kind("rich.v1.All");
    let nested = |messages: usize| {
        (1..messages).fold(Vec::new(), |inner: Vec<u8>, _| {
            let mut outer = vec![0xfa, 0x06];
            prost::encoding::encode_varint(inner.len() as u64, &mut outer);
            outer.extend(inner);
            outer
        })
    };
    let mut json = Vec::new();
    assert_eq!(all.validate(&nested(32)), Ok(()));
    assert_eq!(all.protobuf_to_json(&nested(32), &mut json), Ok(()));
    for messages in [33, 34, 100, 10_000] {
        assert_eq!(all.validate(&nested(messages)).expect_err("too deep").reason, Reason::TooDeep);
        assert_eq!(all.protobuf_to_json(&nested(messages), &mut json).expect_err("too deep").reason, Reason::TooDeep);
    }
}

#[test]
fn the_deepest_struct_that_is_taken_can_be_read_by_other_decoders() {
    let all = kind("rich.v1.All");
    // The outermost message and the field's Struct are two of the 32.
    let deep = |levels: usize| format!(r#"{{"struct":{}1{}}}"#, r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let wire = all.json_to_protobuf(deep(31).as_bytes()).expect("31 below the outermost");
    assert_eq!(all.validate(&wire), Ok(()));
    let mut json = Vec::new();
    assert_eq!(all.protobuf_to_json(&wire, &mut json), Ok(()));
    prost_reflect::DynamicMessage::decode(rich::descriptor("rich.v1.All"), wire).expect("within the limit of prost");
    assert_eq!(all.json_to_protobuf(deep(32).as_bytes()).expect_err("32 below").reason, Reason::TooDeep);
    let brackets = format!(r#"{{"value":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(all.json_to_protobuf(brackets.as_bytes()).expect_err("100,000 below").reason, Reason::TooDeep);
}

#[test]
fn an_any_within_an_any_counts() {
    let all = kind("rich.v1.All");
    let nested = |levels: usize| {
        let open = r#"{"@type":"type.googleapis.com/google.protobuf.Any","value":"#.repeat(levels);
        format!(r#"{{"any":{open}{{}}{}}}"#, "}".repeat(levels))
    };
    let wire = all.json_to_protobuf(nested(30).as_bytes()).expect("32 in all");
    let mut json = Vec::new();
    assert_eq!(all.protobuf_to_json(&wire, &mut json), Ok(()));
    for levels in [31, 32, 1_000] {
        assert_eq!(all.json_to_protobuf(nested(levels).as_bytes()).expect_err("too deep").reason, Reason::TooDeep);
    }
}

#[test]
fn what_was_written_before_stays_when_a_payload_is_refused() {
    let mut out = b"before".to_vec();
    let refusal = kind("rich.v1.All").protobuf_to_json(&[0x18, 1, 0x72, 1, 0xff], &mut out).expect_err("not UTF-8");
    assert_eq!((out.as_slice(), refusal.field.as_deref()), (&b"before"[..], Some("payload.aString")));
}

/// Work must grow with the bytes and not with their square, or this does not end.
#[test]
fn a_oneof_set_half_a_million_times_is_settled_in_one_pass() {
    let all = kind("rich.v1.All");
    // choice_int 1, choice_string "", an element of loose: each turn sets the oneof twice.
    let wire = [0xb8, 4, 1, 0xc2, 4, 0, 0xb0, 2, 7].repeat(250_000);
    assert_eq!(all.validate(&wire), Ok(()));
    let mut json = Vec::new();
    all.protobuf_to_json(&wire, &mut json).expect("valid");
    assert!(json.ends_with(br#",7,7],"choiceString":""}"#));
}

#[test]
fn a_key_that_comes_in_many_entries_is_written_once() {
    let all = kind("rich.v1.All");
    // by_uint32 { 1..=20: false }, then the same keys with true.
    let entries = |value: u8| (1..=20_u8).flat_map(move |key| [0xda, 2, 4, 8, key, 0x10, value]);
    let wire: Vec<u8> = entries(0).chain(entries(1)).collect();
    let mut json = Vec::new();
    all.protobuf_to_json(&wire, &mut json).expect("valid");
    let expected: Vec<String> = (1..=20).map(|key| format!("\"{key}\":true")).collect();
    assert_eq!(String::from_utf8_lossy(&json), format!("{{\"byUint32\":{{{}}}}}", expected.join(",")));
}

#[test]
fn a_maps_value_in_two_parts_is_merged() {
    let all = kind("rich.v1.All");
    // by_string { "k": Leaf { name: "x" } and Leaf { number: 7 } } in one entry.
    let wire = [0xa2, 3, 12, 0x0a, 1, b'k', 0x12, 3, 0x0a, 1, b'x', 0x12, 2, 0x10, 7];
    let mut json = Vec::new();
    assert_eq!(all.validate(&wire), Ok(()));
    all.protobuf_to_json(&wire, &mut json).expect("valid");
    assert_eq!(String::from_utf8_lossy(&json), r#"{"byString":{"k":{"name":"x","number":7}}}"#);
}
