//! The proto3 JSON mapping, row by row: what must be read, how it is written back, and what must be refused and where.
//!
//! Written from the mapping's specification (protobuf.dev, "ProtoJSON Format"), not from the code.

mod rich;

use rich::kind;
use serde_json::Value as Json;
use trestle_wire::Reason;

/// What is read, and the canonical JSON of the same message.
const READ: &[(&str, &str)] = &[
    // Names
    (r#"{}"#, r#"{}"#),
    (r#" { "aString" : "x" } "#, r#"{"aString":"x"}"#),
    (r#"{"a_string":"x"}"#, r#"{"aString":"x"}"#),
    (r#"{"\u0061String":"x"}"#, r#"{"aString":"x"}"#),
    (r#"{"@other":"x"}"#, r#"{"@other":"x"}"#),
    (r#"{"renamed":"x"}"#, r#"{"@other":"x"}"#),
    (r#"{"far":"x","farthest":{"1":2}}"#, r#"{"far":"x","farthest":{"1":2}}"#),
    // Defaults and null
    (r#"{"anInt32":0,"aString":"","aBool":false,"someBytes":"","aColour":"COLOUR_UNSPECIFIED","aDouble":0}"#, r#"{}"#),
    (
        r#"{"maybeInt":0,"maybeString":"","maybeBool":false,"maybeColour":0,"maybeBytes":"","maybeDouble":0}"#,
        r#"{"maybeInt":0,"maybeString":"","maybeBool":false,"maybeColour":"COLOUR_UNSPECIFIED","maybeBytes":"","maybeDouble":0.0}"#,
    ),
    (
        r#"{"anInt32":null,"aString":null,"aLeaf":null,"int32s":null,"byString":null,"maybeInt":null,"aColour":null,"time":null}"#,
        r#"{}"#,
    ),
    (r#"{"aLeaf":{}}"#, r#"{"aLeaf":{}}"#),
    (r#"{"strings":[],"byString":{}}"#, r#"{}"#),
    // 32-bit integers
    (r#"{"anInt32":2147483647,"aUint32":4294967295}"#, r#"{"anInt32":2147483647,"aUint32":4294967295}"#),
    (r#"{"anInt32":-2147483648,"aSint32":-2147483648}"#, r#"{"anInt32":-2147483648,"aSint32":-2147483648}"#),
    (r#"{"anInt32":"12","aFixed32":"13","aSfixed32":"-14"}"#, r#"{"anInt32":12,"aFixed32":13,"aSfixed32":-14}"#),
    (r#"{"anInt32":1e5}"#, r#"{"anInt32":100000}"#),
    (r#"{"anInt32":100000.000}"#, r#"{"anInt32":100000}"#),
    (r#"{"anInt32":"1.5e1"}"#, r#"{"anInt32":15}"#),
    (r#"{"anInt32":-0}"#, r#"{}"#),
    // 64-bit integers
    (
        r#"{"anInt64":"9223372036854775807","aUint64":"18446744073709551615"}"#,
        r#"{"anInt64":"9223372036854775807","aUint64":"18446744073709551615"}"#,
    ),
    (
        r#"{"anInt64":-9223372036854775808,"aUint64":18446744073709551615}"#,
        r#"{"anInt64":"-9223372036854775808","aUint64":"18446744073709551615"}"#,
    ),
    (r#"{"aSint64":"-1","aFixed64":1,"aSfixed64":-1}"#, r#"{"aSint64":"-1","aFixed64":"1","aSfixed64":"-1"}"#),
    // Floats
    (r#"{"aDouble":1,"aFloat":0.1}"#, r#"{"aDouble":1.0,"aFloat":0.1}"#),
    (r#"{"aDouble":"1.5","aFloat":"-2e3"}"#, r#"{"aDouble":1.5,"aFloat":-2000.0}"#),
    (
        r#"{"doubles":["NaN","Infinity","-Infinity"],"floats":["NaN","Infinity","-Infinity"]}"#,
        r#"{"doubles":["NaN","Infinity","-Infinity"],"floats":["NaN","Infinity","-Infinity"]}"#,
    ),
    (r#"{"aDouble":-3.1694035567891767e-137}"#, r#"{"aDouble":-3.1694035567891767e-137}"#),
    (r#"{"aDouble":5e-324,"aFloat":3.4028235e38}"#, r#"{"aDouble":5e-324,"aFloat":3.4028235e38}"#),
    (r#"{"aDouble":-0.0}"#, r#"{"aDouble":-0.0}"#),
    // Strings
    (r#"{"aString":"\"\\\/\b\f\n\r\t\u00e9\ud83e\udd80"}"#, r#"{"aString":"\"\\/\b\f\n\r\té🦀"}"#),
    (r#"{"aString":"日本"}"#, r#"{"aString":"日本"}"#),
    // Bytes
    (r#"{"someBytes":"AQID"}"#, r#"{"someBytes":"AQID"}"#),
    (r#"{"someBytes":"-_8="}"#, r#"{"someBytes":"+/8="}"#),
    (r#"{"someBytes":"+/8"}"#, r#"{"someBytes":"+/8="}"#),
    (r#"{"someBytes":"-_8"}"#, r#"{"someBytes":"+/8="}"#),
    // Enums
    (r#"{"aColour":"GREEN"}"#, r#"{"aColour":"GREEN"}"#),
    (r#"{"aColour":2}"#, r#"{"aColour":"GREEN"}"#),
    (r#"{"aColour":-3}"#, r#"{"aColour":"DARK"}"#),
    (r#"{"aColour":77}"#, r#"{"aColour":77}"#),
    (r#"{"colours":["RED",2,0]}"#, r#"{"colours":["RED","GREEN","COLOUR_UNSPECIFIED"]}"#),
    (r#"{"aTwice":"TWICE_NONE"}"#, r#"{}"#),
    (r#"{"aTwice":"TWICE_ONE"}"#, r#"{"aTwice":"TWICE_ONE"}"#),
    // Lists and maps
    (
        r#"{"int32s":[1,"2",3e0],"loose":[4,5],"bools":[true,false],"strings":["",""]}"#,
        r#"{"int32s":[1,2,3],"bools":[true,false],"strings":["",""],"loose":[4,5]}"#,
    ),
    (
        r#"{"byInt32":{"-1":"a"},"byInt64":{"-9223372036854775808":1},"byUint64":{"18446744073709551615":"AQ=="}}"#,
        r#"{"byInt32":{"-1":"a"},"byInt64":{"-9223372036854775808":1.0},"byUint64":{"18446744073709551615":"AQ=="}}"#,
    ),
    (r#"{"byBool":{"true":"1","false":2}}"#, r#"{"byBool":{"true":"1","false":"2"}}"#),
    (r#"{"byString":{"":{},"a.b":{"name":"x"}}}"#, r#"{"byString":{"":{},"a.b":{"name":"x"}}}"#),
    (r#"{"byUint32":{"7":false}}"#, r#"{"byUint32":{"7":false}}"#),
    // Oneofs
    (r#"{"choiceInt":0}"#, r#"{"choiceInt":0}"#),
    (r#"{"choiceInt":null,"choiceString":"x"}"#, r#"{"choiceString":"x"}"#),
    (r#"{"choiceInt":1,"choiceString":null}"#, r#"{"choiceInt":1}"#),
    (r#"{"choiceNull":null}"#, r#"{"choiceNull":null}"#),
    (r#"{"choiceNull":"NULL_VALUE"}"#, r#"{"choiceNull":null}"#),
    (r#"{"choiceValue":null}"#, r#"{"choiceValue":null}"#),
    (r#"{"choiceInt":1,"otherBool":true}"#, r#"{"choiceInt":1,"otherBool":true}"#),
    // Timestamp, Duration, FieldMask
    (r#"{"time":"2026-11-24T12:00:00.5+02:00"}"#, r#"{"time":"2026-11-24T10:00:00.500Z"}"#),
    (r#"{"time":"0001-01-01T00:00:00Z"}"#, r#"{"time":"0001-01-01T00:00:00Z"}"#),
    (r#"{"times":["9999-12-31T23:59:59.999999999Z"]}"#, r#"{"times":["9999-12-31T23:59:59.999999999Z"]}"#),
    (r#"{"duration":"-1.5s"}"#, r#"{"duration":"-1.500s"}"#),
    (r#"{"duration":"3.000001s"}"#, r#"{"duration":"3.000001s"}"#),
    (r#"{"mask":"aColour,aLeaf.name"}"#, r#"{"mask":"aColour,aLeaf.name"}"#),
    (r#"{"mask":""}"#, r#"{"mask":""}"#),
    // Struct, Value, ListValue, NullValue, Empty
    (r#"{"struct":{"a":[1,"x",true,null,{"b":{}}]}}"#, r#"{"struct":{"a":[1.0,"x",true,null,{"b":{}}]}}"#),
    (r#"{"value":null}"#, r#"{"value":null}"#),
    (r#"{"value":[[],{}]}"#, r#"{"value":[[],{}]}"#),
    (r#"{"manyValues":[null,1,"a"]}"#, r#"{"manyValues":[null,1.0,"a"]}"#),
    (r#"{"values":{"a":null}}"#, r#"{"values":{"a":null}}"#),
    (r#"{"list":[null]}"#, r#"{"list":[null]}"#),
    (r#"{"struct":{},"list":[],"empty":{}}"#, r#"{"struct":{},"list":[],"empty":{}}"#),
    // Wrappers
    (
        r#"{"wrappedDouble":0,"wrappedInt64":"0","wrappedBool":false,"wrappedString":"","wrappedBytes":""}"#,
        r#"{"wrappedDouble":0.0,"wrappedInt64":"0","wrappedBool":false,"wrappedString":"","wrappedBytes":""}"#,
    ),
    (
        r#"{"wrappedDouble":"Infinity","wrappedFloat":1.5,"wrappedUint64":"5","wrappedInt32":-1,"wrappedUint32":1}"#,
        r#"{"wrappedDouble":"Infinity","wrappedFloat":1.5,"wrappedUint64":"5","wrappedInt32":-1,"wrappedUint32":1}"#,
    ),
    (r#"{"wrappedInt32":null}"#, r#"{}"#),
    (r#"{"manyWrapped":["1",0]}"#, r#"{"manyWrapped":["1","0"]}"#),
    // Any
    (
        r#"{"any":{"@type":"type.googleapis.com/rich.v1.Leaf","name":"x"}}"#,
        r#"{"any":{"@type":"type.googleapis.com/rich.v1.Leaf","name":"x"}}"#,
    ),
    (
        r#"{"any":{"name":"x","number":2,"@type":"example.com/a/rich.v1.Leaf"}}"#,
        r#"{"any":{"@type":"example.com/a/rich.v1.Leaf","name":"x","number":2}}"#,
    ),
    (
        r#"{"any":{"value":"1.5s","@type":"type.googleapis.com/google.protobuf.Duration"}}"#,
        r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.500s"}}"#,
    ),
    (
        r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Any","value":{"@type":"type.googleapis.com/rich.v1.Leaf"}}}"#,
        r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Any","value":{"@type":"type.googleapis.com/rich.v1.Leaf"}}}"#,
    ),
    (
        r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Empty"}}"#,
        r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Empty","value":{}}}"#,
    ),
    (
        r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Value","value":null}}"#,
        r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Value","value":null}}"#,
    ),
    (r#"{"any":{}}"#, r#"{"any":{}}"#),
];

/// What is refused, and the path of the field that is named.
const REFUSED: &[(&str, &str)] = &[
    // Not JSON, or not an object
    ("", "payload"),
    ("{", "payload"),
    ("null", "payload"),
    ("[]", "payload"),
    ("\"x\"", "payload"),
    ("{} {}", "payload"),
    ("{}x", "payload"),
    (r#"{"aString":"x",}"#, "payload"),
    (r#"{,}"#, "payload"),
    (r#"{'aString':"x"}"#, "payload"),
    (r#"{aString:"x"}"#, "payload"),
    (r#"{"aString" "x"}"#, "payload"),
    (r#"{"aString":}"#, "payload.aString"),
    (r#"{"aString":"x"/* */}"#, "payload"),
    // Names
    (r#"{"nope":1}"#, "payload.nope"),
    (r#"{"AString":"x"}"#, "payload.AString"),
    (r#"{"aLeaf":{"nope":null}}"#, "payload.aLeaf.nope"),
    (r#"{"aString":"x","aString":"y"}"#, "payload.aString"),
    (r#"{"aString":"x","a_string":"y"}"#, "payload.a_string"),
    (r#"{"aString":null,"aString":"y"}"#, "payload.aString"),
    // Integers
    (r#"{"anInt32":2147483648}"#, "payload.anInt32"),
    (r#"{"anInt32":-2147483649}"#, "payload.anInt32"),
    (r#"{"aUint32":-1}"#, "payload.aUint32"),
    (r#"{"aUint32":4294967296}"#, "payload.aUint32"),
    (r#"{"anInt64":"9223372036854775808"}"#, "payload.anInt64"),
    (r#"{"aUint64":"18446744073709551616"}"#, "payload.aUint64"),
    (r#"{"aUint64":1e300}"#, "payload.aUint64"),
    (r#"{"anInt32":0.5}"#, "payload.anInt32"),
    (r#"{"anInt32":"0.5"}"#, "payload.anInt32"),
    (r#"{"anInt32":""}"#, "payload.anInt32"),
    (r#"{"anInt32":" 1"}"#, "payload.anInt32"),
    (r#"{"anInt32":"1 "}"#, "payload.anInt32"),
    (r#"{"anInt32":"+1"}"#, "payload.anInt32"),
    (r#"{"anInt32":"0x1"}"#, "payload.anInt32"),
    (r#"{"anInt32":01}"#, "payload"),
    (r#"{"anInt32":true}"#, "payload.anInt32"),
    (r#"{"anInt32":[1]}"#, "payload.anInt32"),
    (r#"{"anInt32":{}}"#, "payload.anInt32"),
    // Floats
    (r#"{"aDouble":1e999}"#, "payload.aDouble"),
    (r#"{"aFloat":3.5e38}"#, "payload.aFloat"),
    (r#"{"aFloat":"-1e39"}"#, "payload.aFloat"),
    (r#"{"aDouble":"nan"}"#, "payload.aDouble"),
    (r#"{"aDouble":"inf"}"#, "payload.aDouble"),
    (r#"{"aDouble":NaN}"#, "payload.aDouble"),
    (r#"{"aDouble":""}"#, "payload.aDouble"),
    (r#"{"aDouble":.5}"#, "payload.aDouble"),
    // Booleans, strings, bytes
    (r#"{"aBool":"true"}"#, "payload.aBool"),
    (r#"{"aBool":0}"#, "payload.aBool"),
    (r#"{"aBool":tru}"#, "payload.aBool"),
    (r#"{"aString":1}"#, "payload.aString"),
    (r#"{"aString":"\ud800"}"#, "payload.aString"),
    (r#"{"aString":"\udd80\ud83e"}"#, "payload.aString"),
    (r#"{"aString":"\ud83e\u0061"}"#, "payload.aString"),
    (r#"{"aString":"\x"}"#, "payload.aString"),
    (r#"{"aString":"\u12"}"#, "payload.aString"),
    ("{\"aString\":\"a\nb\"}", "payload.aString"),
    (r#"{"someBytes":"a"}"#, "payload.someBytes"),
    (r#"{"someBytes":"!!!!"}"#, "payload.someBytes"),
    (r#"{"someBytes":[1]}"#, "payload.someBytes"),
    // Enums
    (r#"{"aColour":"BLUE"}"#, "payload.aColour"),
    (r#"{"aColour":"green"}"#, "payload.aColour"),
    (r#"{"aColour":"2"}"#, "payload.aColour"),
    (r#"{"aColour":2147483648}"#, "payload.aColour"),
    (r#"{"aColour":1.5}"#, "payload.aColour"),
    (r#"{"aColour":true}"#, "payload.aColour"),
    // Lists and maps
    (r#"{"int32s":1}"#, "payload.int32s"),
    (r#"{"int32s":{}}"#, "payload.int32s"),
    (r#"{"int32s":[1,null]}"#, "payload.int32s[1]"),
    (r#"{"int32s":[1,"a"]}"#, "payload.int32s[1]"),
    (r#"{"int32s":[1,]}"#, "payload.int32s"),
    (r#"{"int32s":[1 2]}"#, "payload.int32s"),
    (r#"{"leaves":[{},{"number":"x"}]}"#, "payload.leaves[1].number"),
    (r#"{"leaves":[null]}"#, "payload.leaves[0]"),
    (r#"{"byString":[]}"#, "payload.byString"),
    (r#"{"byString":{"a":null}}"#, r#"payload.byString["a"]"#),
    (r#"{"byString":{"a":{"nope":1}}}"#, r#"payload.byString["a"].nope"#),
    (r#"{"byInt32":{"a":"x"}}"#, r#"payload.byInt32["a"]"#),
    (r#"{"byInt32":{"1.5":"x"}}"#, r#"payload.byInt32["1.5"]"#),
    (r#"{"byInt32":{"2147483648":"x"}}"#, r#"payload.byInt32["2147483648"]"#),
    (r#"{"byBool":{"TRUE":1}}"#, r#"payload.byBool["TRUE"]"#),
    (r#"{"named":{"x":{"children":[{},{},{"anInt32":""}]}}}"#, r#"payload.named["x"].children[2].anInt32"#),
    // Oneofs
    (r#"{"choiceInt":1,"choiceString":"x"}"#, "payload.choiceString"),
    (r#"{"choiceNull":null,"choiceInt":1}"#, "payload.choiceInt"),
    // Well-known types
    (r#"{"time":"2026-11-24T12:00:00"}"#, "payload.time"),
    (r#"{"time":"0000-12-31T23:59:59Z"}"#, "payload.time"),
    (r#"{"time":1}"#, "payload.time"),
    (r#"{"time":{"seconds":1}}"#, "payload.time"),
    (r#"{"times":["2026-11-24T12:00:00Z",null]}"#, "payload.times[1]"),
    (r#"{"duration":"1"}"#, "payload.duration"),
    (r#"{"duration":"315576000001s"}"#, "payload.duration"),
    (r#"{"mask":"a_colour"}"#, "payload.mask"),
    (r#"{"struct":[]}"#, "payload.struct"),
    (r#"{"list":{}}"#, "payload.list"),
    (r#"{"value":1e999}"#, "payload.value"),
    (r#"{"struct":{"a":[1,tru]}}"#, r#"payload.struct["a"][1]"#),
    (r#"{"null":0.5}"#, "payload.null"),
    (r#"{"null":"null"}"#, "payload.null"),
    (r#"{"empty":{"a":1}}"#, "payload.empty.a"),
    (r#"{"wrappedInt32":"x"}"#, "payload.wrappedInt32"),
    (r#"{"wrappedInt32":{"value":1}}"#, "payload.wrappedInt32"),
    (r#"{"manyWrapped":[null]}"#, "payload.manyWrapped[0]"),
    (r#"{"any":{"name":"x"}}"#, "payload.any.@type"),
    (r#"{"any":{"@type":"rich.v1.Leaf"}}"#, "payload.any.@type"),
    (r#"{"any":{"@type":"type.googleapis.com/rich.v1.Nope"}}"#, "payload.any.@type"),
    (r#"{"any":{"@type":1}}"#, "payload.any.@type"),
    (
        r#"{"any":{"@type":"type.googleapis.com/rich.v1.Leaf","@type":"type.googleapis.com/rich.v1.Leaf"}}"#,
        "payload.any.@type",
    ),
    (r#"{"any":{"@type":"type.googleapis.com/rich.v1.Leaf","nope":1}}"#, "payload.any.nope"),
    (r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Duration"}}"#, "payload.any.value"),
    (r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1"}}"#, "payload.any.value"),
    (r#"{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s","more":1}}"#, "payload.any.more"),
];

#[test]
fn what_the_mapping_allows_is_read_and_written_canonically() {
    let all = kind("rich.v1.All");
    for (json, canonical) in READ {
        let wire = all.json_to_protobuf(json.as_bytes()).unwrap_or_else(|refusal| panic!("{json}: {refusal}"));
        let mut out = Vec::new();
        all.protobuf_to_json(&wire, &mut out).unwrap_or_else(|refusal| panic!("{json}: {refusal}"));
        let written = String::from_utf8(out).expect("JSON is UTF-8");
        let (ours, expected): (Json, Json) =
            (serde_json::from_str(&written).expect(json), serde_json::from_str(canonical).expect(canonical));
        assert_eq!(ours, expected, "{json} became {written}");
        assert_eq!(all.validate(&wire), Ok(()), "{json}");
    }
}

#[test]
fn what_the_mapping_forbids_is_refused_and_located() {
    let all = kind("rich.v1.All");
    for (json, field) in REFUSED {
        let Err(refusal) = all.json_to_protobuf(json.as_bytes()) else { panic!("accepted: {json}") };
        assert_eq!(refusal.reason, Reason::MalformedPayload, "{json}");
        assert_eq!(refusal.field.as_deref(), Some(*field), "{json}: {refusal}");
        assert!(!refusal.message.is_empty(), "{json}");
    }
}

#[test]
fn a_payload_that_is_not_utf8_is_refused() {
    let refusal = kind("rich.v1.All").json_to_protobuf(b"{\"aString\":\"\xff\"}").expect_err("not UTF-8");
    assert_eq!(refusal.message, "the JSON is not UTF-8 at byte 12");
}

#[test]
fn what_has_no_json_form_is_refused_and_located() {
    let all = kind("rich.v1.All");
    let rows: &[(&str, &[u8], &str)] = &[
        ("a time after the year 9999", &[0x92, 0x5, 0x7, 0x8, 0x80, 0x83, 0xd1, 0xff, 0xaf, 0x7], "payload.time"),
        (
            "a time with negative nanos",
            &[0x92, 5, 11, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "payload.time",
        ),
        (
            "a duration of mixed signs",
            &[0x9a, 5, 13, 8, 1, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "payload.duration",
        ),
        ("a mask that does not come back", &[0xa2, 5, 4, 0x0a, 2, b'a', b'_'], "payload.mask"),
        ("a value that is NaN", &[0xb2, 5, 9, 0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f], "payload.value"),
        ("an Any of a type that is not known", &[0x8a, 5, 4, 0x0a, 2, b'/', b'x'], "payload.any.@type"),
    ];
    for (what, wire, field) in rows {
        let mut out = Vec::new();
        let refusal = all.protobuf_to_json(wire, &mut out).expect_err(what);
        assert_eq!(refusal.reason, Reason::MalformedPayload, "{what}");
        assert_eq!(refusal.field.as_deref(), Some(*field), "{what}: {refusal}");
        assert!(out.is_empty(), "{what}");
    }
}

#[test]
fn proto2_asks_for_its_required_fields() {
    let old = kind("rich.old.Old");
    let refusal = old.json_to_protobuf(br#"{"name":"a","child":{"count":0}}"#).expect_err("no name");
    assert_eq!(refusal.field.as_deref(), Some("payload.child.name"));
    let wire = old.json_to_protobuf(br#"{"name":"","count":0,"size":"SMALL"}"#).expect("valid");
    let mut out = Vec::new();
    old.protobuf_to_json(&wire, &mut out).expect("valid");
    assert_eq!(String::from_utf8_lossy(&out), r#"{"name":"","count":0,"size":"SMALL"}"#);
    assert_eq!(old.validate(&[]).expect_err("no name").field.as_deref(), Some("payload.name"));
}
