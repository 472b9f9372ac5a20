//! Both transcoders agree with prost-reflect, which knows nothing of plans, on random messages of a rich schema.

mod rich;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DynamicMessage, SerializeOptions};
use rich::{Sample, descriptor, equal, kind};
use serde_json::Value as Json;

const TYPES: [&str; 3] = ["rich.v1.All", "rich.old.Old", "rich.v1.Leaf"];

fn samples() -> impl Strategy<Value = Sample> {
    (prop::sample::select(&TYPES[..]), prop::collection::vec(any::<u8>(), 0..400))
        .prop_map(|(name, choices)| Sample::new(name, &choices, 4))
}

/// prost-reflect's JSON as text: a `serde_json::Value` would widen 32-bit floats.
fn reflected(message: &DynamicMessage, options: &SerializeOptions) -> String {
    let mut json = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut json, options).expect("every generated message has a JSON form");
    String::from_utf8(json.into_inner()).expect("JSON is UTF-8")
}

fn parsed(json: &[u8]) -> Json {
    serde_json::from_slice(json).expect("valid JSON")
}

fn to_json(name: &str, wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    kind(name).protobuf_to_json(wire, &mut out).unwrap_or_else(|refusal| panic!("{refusal}"));
    out
}

fn to_message(name: &str, json: &[u8]) -> DynamicMessage {
    let wire = kind(name)
        .json_to_protobuf(json)
        .unwrap_or_else(|refusal| panic!("{refusal}: {}", String::from_utf8_lossy(json)));
    DynamicMessage::decode(descriptor(name), wire).expect("valid wire bytes")
}

/// Equal, field by field; told in text, because the descriptors of a recursive type never end.
fn same(name: &str, ours: &DynamicMessage, theirs: &DynamicMessage) -> Result<(), TestCaseError> {
    prop_assert!(equal(ours, theirs), "{name}\n  ours: {ours}\ntheirs: {theirs}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn the_json_of_a_message_is_what_reflection_writes(sample in samples()) {
        let Sample { name, message } = sample;
        let ours = to_json(name, &message.encode_to_vec());
        prop_assert_eq!(parsed(&ours), parsed(reflected(&message, &SerializeOptions::new()).as_bytes()));
    }

    #[test]
    fn a_message_comes_back_from_its_json(sample in samples()) {
        let Sample { name, message } = sample;
        let ours = to_json(name, &message.encode_to_vec());
        same(name, &to_message(name, &ours), &message)?;
    }

    #[test]
    fn what_reflection_writes_is_read_in_every_style(sample in samples()) {
        let Sample { name, message } = sample;
        let styles = [
            SerializeOptions::new(),
            SerializeOptions::new().use_proto_field_name(true),
            SerializeOptions::new().use_enum_numbers(true).stringify_64_bit_integers(false),
        ];
        for style in styles {
            let json = reflected(&message, &style);
            same(name, &to_message(name, json.as_bytes()), &message)?;
        }
    }

    #[test]
    fn what_is_read_is_what_reflection_reads(sample in samples()) {
        let Sample { name, message } = sample;
        let json = reflected(&message, &SerializeOptions::new());
        let theirs = DynamicMessage::deserialize(descriptor(name), &mut serde_json::Deserializer::from_str(&json));
        same(name, &to_message(name, json.as_bytes()), &theirs.expect("their own JSON"))?;
    }

    #[test]
    fn a_random_message_is_well_formed(sample in samples()) {
        let Sample { name, message } = sample;
        prop_assert_eq!(kind(name).validate(&message.encode_to_vec()), Ok(()));
    }

    /// Two encodings one after the other are one message: last values count, messages merge, oneofs and keys are replaced.
    #[test]
    fn a_message_in_two_parts_is_merged(first in samples(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let second = Sample::new(first.name, &bytes, 3);
        let wire = [first.message.encode_to_vec(), second.message.encode_to_vec()].concat();
        let message = DynamicMessage::decode(descriptor(first.name), &wire[..]).expect("valid wire bytes");
        let mut ours = Vec::new();
        if let Err(refusal) = kind(first.name).protobuf_to_json(&wire, &mut ours) {
            // The seconds of one and the nanos of the other are no duration; reflection lets them pass. The type of one Any
            // and the value of the other are no Any; reflection has no JSON for them either.
            let odd_duration = refusal.message.ends_with("its nanos do not fit its seconds");
            let json = message.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new());
            prop_assert!(odd_duration || json.is_err(), "{refusal}");
            return Ok(());
        }
        let theirs = reflected(&message, &SerializeOptions::new());
        prop_assert_eq!(parsed(&ours), parsed(theirs.as_bytes()));
    }

    /// Fields that a newer version of the type has are skipped, whatever their wire type.
    #[test]
    fn fields_that_the_type_does_not_have_are_left_out(sample in samples()) {
        let Sample { name, message } = sample;
        let wire = message.encode_to_vec();
        let unknown: [&[u8]; 5] =
            [&[0xf8, 0x3e, 1], &[0xf9, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8], &[0xfa, 0x3e, 2, 1, 2], &[0xfd, 0x3e, 1, 2, 3, 4], &[0xfb, 0x3e, 8, 1, 0xfc, 0x3e]];
        let longer = [unknown[0], unknown[4], &wire, unknown[1], unknown[2], unknown[3]].concat();
        prop_assert_eq!(kind(name).validate(&longer), Ok(()));
        prop_assert_eq!(to_json(name, &longer), to_json(name, &wire));
    }
}
