//! JSON payloads of a type with every kind of field: what is taken comes back, and then always the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let kind = trestle_fuzz::catalogue().get("fuzz.v1.E").expect("in the catalogue");
    let Ok(payload) = kind.json_to_protobuf(json) else { return };
    kind.validate(&payload).expect("what the transcoder writes is well formed");
    let mut text = Vec::new();
    kind.protobuf_to_json(&payload, &mut text).expect("and can be written as JSON");
    let again = kind.json_to_protobuf(&text).expect("which can be read");
    let mut text_again = Vec::new();
    kind.protobuf_to_json(&again, &mut text_again).expect("and written");
    assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(&text_again));
});
