//! What cannot be enforced is refused when it is loaded, with a sentence that names the field.

use prost_reflect::DescriptorPool;

use super::{VALIDATE_PROTO, faults, pool, pool_of};
use crate::validate::Validator;

/// A message `M` with `body` has exactly one fault, which begins with `place` and contains `words`.
fn refused(body: &str, place: &str, words: &str) {
    let pool = pool(&format!("message Inner {{ int32 n = 1; }}\nmessage M {{ {body} }}"));
    let faults = faults(&pool, "M");
    assert_eq!(faults.len(), 1, "{body}: {faults:?}");
    assert!(faults[0].starts_with(&format!("test.{place}: ")), "{body}: {faults:?}");
    assert!(faults[0].contains(words), "{body}: {faults:?}");
}

#[test]
fn rules_that_do_not_fit_the_fields_type() {
    let rows = [
        ("string v = 1 [(buf.validate.field).int32.gt = 0];", "`int32` do not fit a value of the type string"),
        ("int64 v = 1 [(buf.validate.field).int32.gt = 0];", "type int64"),
        ("sint32 v = 1 [(buf.validate.field).int32.gt = 0];", "type sint32"),
        ("Inner v = 1 [(buf.validate.field).string.min_len = 1];", "type test.Inner"),
        ("google.protobuf.Int64Value v = 1 [(buf.validate.field).int32.gt = 0];", "google.protobuf.Int64Value"),
        ("google.protobuf.Duration v = 1 [(buf.validate.field).timestamp.lt_now = true];", "google.protobuf.Duration"),
        ("repeated string v = 1 [(buf.validate.field).string.min_len = 1];", "`string` do not fit a repeated field"),
        ("map<string, string> v = 1 [(buf.validate.field).repeated.min_items = 1];", "do not fit a map"),
        ("string v = 1 [(buf.validate.field).repeated.min_items = 1];", "`repeated`"),
        ("repeated Inner v = 1 [(buf.validate.field).repeated.unique = true];", "repeated.unique"),
        ("double v = 1 [(buf.validate.field).double = {lt: nan}];", "not a number"),
        ("string v = 1 [(buf.validate.field).string.pattern = \"(\"];", "regular expression"),
        ("bytes v = 1 [(buf.validate.field).bytes.pattern = \"[\"];", "regular expression"),
    ];
    for (body, words) in rows {
        refused(body, "M.v", words);
    }
}

#[test]
fn rules_of_items_keys_and_values_that_do_not_fit() {
    let items = "repeated string v = 1 [(buf.validate.field).repeated.items.int32.gt = 0];";
    refused(items, "M.v (items)", "`int32`");
    let keys = "map<string, int32> v = 1 [(buf.validate.field).map.keys.int32.gt = 0];";
    refused(keys, "M.v (keys)", "`int32`");
    let values = "map<string, int32> v = 1 [(buf.validate.field).map.values.string.min_len = 1];";
    refused(values, "M.v (values)", "`string`");
}

#[test]
fn a_message_oneof_that_names_what_is_not_there() {
    let absent = "option (buf.validate.message).oneof = {fields: [\"x\"]}; string v = 1;";
    refused(absent, "M", "`x`, which is not in the message");
    let twice = "option (buf.validate.message).oneof = {fields: [\"v\", \"v\"]}; string v = 1;";
    refused(twice, "M", "twice");
    let none = "option (buf.validate.message).oneof = {required: true}; string v = 1;";
    refused(none, "M", "names no field");
}

#[test]
fn expressions_that_cannot_be_evaluated() {
    let rows = [
        ("this >", "does not parse"),
        ("this.nothing > 0", "`nothing`, which is not in test.M"),
        ("this.v > 'a'", "orders an int and a string"),
        ("this.v == 'a'", "never equal"),
        ("this.v", "must give a bool or a string, and gives an int"),
        ("this.v + 1u > 0", "has an int + a uint"),
        ("that.v > 0", "the name `that`"),
        ("this.v.isEmail()", "calls `isEmail` with an int"),
        ("this.v.frobnicate()", "method `frobnicate`, which is not known"),
        ("frobnicate(this)", "function `frobnicate`, which is not known"),
        ("this.s.startsWith()", "calls `startsWith` with 1 arguments"),
        ("this.s.contains(b'a')", "a string and bytes"),
        ("this.s.all(c, c == 'a')", "no list"),
        ("'a' in this.list", "cannot hold it"),
        ("this.list['a'] == 1", "takes an item"),
        ("this.s.matches('(')", "no regular expression"),
        ("test.Inner{n: 1} == this.inner", "makes a message"),
        ("this.any.type_url == ''", "not unpacked"),
        ("this.v && true", "where a bool must stand"),
        ("-this.s == ''", "negates a string"),
        ("rule == 1", "the name `rule`"),
        ("this.inners.unique()", "`unique` messages"),
        ("has(this.s.x)", "reads the field `x` of a string"),
    ];
    for (expression, words) in rows {
        let body = format!(
            "option (buf.validate.message).cel_expression = \"{expression}\"; int32 v = 1; string s = 2; \
             repeated int32 list = 3; Inner inner = 4; google.protobuf.Any any = 5; repeated Inner inners = 6;"
        );
        refused(&body, "M", words);
    }
}

#[test]
fn every_fault_is_listed_not_only_the_first() {
    let pool = pool(
        "message M { string a = 1 [(buf.validate.field).int32.gt = 0]; N n = 2; }\n\
         message N { int32 b = 1 [(buf.validate.field).string.min_len = 1, (buf.validate.field).cel_expression = \"x\"]; }",
    );
    let faults = faults(&pool, "M");
    let places: Vec<&str> = faults.iter().filter_map(|fault| fault.split(": ").next()).collect();
    assert_eq!(places, ["test.M.a", "test.N.b", "test.N.b"], "{faults:?}");
}

#[test]
fn rules_of_a_newer_validate_proto_are_refused_not_skipped() {
    // A set whose own validate.proto has one more string rule than this gateway knows.
    let rules = VALIDATE_PROTO;
    let newer =
        rules.replacen("optional bool strict = 25;", "optional bool strict = 25; optional bool palindrome = 99;", 1);
    assert_ne!(newer, VALIDATE_PROTO);
    let pool = pool_with(&newer, "string.palindrome = true");
    let faults = faults(&pool, "M");
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("`string.palindrome` is not known here"), "{faults:?}");
}

#[test]
fn rules_without_a_validate_proto_to_read_them_by_are_refused() {
    let full = pool_with(VALIDATE_PROTO, "required = true");
    let encoded = full.get_file_by_name("test.proto").expect("the file is there").encode_to_vec();
    let mut bare = DescriptorPool::new();
    let result = bare.decode_file_descriptor_proto(encoded.as_slice());
    assert!(result.is_err(), "the import is needed while it is named");
    // Without the import the options stay what they are: bytes with the number 1159.
    let stripped = without_imports(&encoded);
    bare.decode_file_descriptor_proto(stripped.as_slice()).expect("nothing is imported any more");
    let faults = faults(&bare, "M");
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("no buf/validate/validate.proto"), "{faults:?}");
}

/// `M` with the field `v`, compiled with `rules` as the validate.proto.
fn pool_with(rules: &str, rule: &str) -> DescriptorPool {
    let file = format!(
        "syntax = \"proto3\"; package test; import \"buf/validate/validate.proto\";\n\
         message M {{ string v = 1 [(buf.validate.field).{rule}]; }}"
    );
    pool_of(file, rules)
}

/// Drops field 3, `dependency`, from an encoded FileDescriptorProto, whose other fields follow it untouched.
fn without_imports(file: &[u8]) -> Vec<u8> {
    let name = b"\x1a\x1bbuf/validate/validate.proto";
    let at = file.windows(name.len()).position(|window| window == name);
    let at = at.expect("the file imports the rules");
    [&file[..at], &file[at + name.len()..]].concat()
}

#[test]
fn a_type_without_faults_compiles_beside_one_with() {
    let pool = pool(
        "message Good { string v = 1 [(buf.validate.field).required = true]; }\nmessage Bad { string v = 1 [(buf.validate.field).bool.const = true]; }",
    );
    assert!(matches!(Validator::compile(&super::message(&pool, "Good")), Ok(Some(_))));
    assert_eq!(faults(&pool, "Bad").len(), 1);
}

#[test]
fn rules_on_an_extension_are_refused_as_nobody_enforces_them() {
    let extended = pool_of(
        "syntax = \"proto2\"; package test; import \"buf/validate/validate.proto\";\n\
         message M { extensions 100 to 200; }\n\
         extend M { optional int32 extra = 100 [(buf.validate.field).required = true]; }"
            .to_owned(),
        VALIDATE_PROTO,
    );
    let faults = faults(&extended, "M");
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("test.extra: "), "{faults:?}");
}
