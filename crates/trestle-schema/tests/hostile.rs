//! Whatever comes in, nothing panics, and what is accepted is what it should be.

mod rich;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use rich::{Choices, descriptor, kind};
use serde_json::Value as Json;

const NAMES: [&str; 3] = ["rich.v1.All", "rich.old.Old", "rich.v1.Leaf"];

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMES[..])
}

/// The wire bytes of a message, some of them changed.
fn damaged() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    (names(), prop::collection::vec(any::<u8>(), 0..300), edits).prop_map(|(name, bytes, edits)| {
        let mut wire = Choices::new(&bytes).message(&descriptor(name), 3).encode_to_vec();
        for (place, byte) in edits {
            match (wire.len(), byte % 3) {
                (0, _) => {}
                (len, 0) => wire.truncate(place.index(len)),
                (len, 1) => wire.insert(place.index(len), byte),
                (len, _) => wire[place.index(len)] = byte,
            }
        }
        (name, wire)
    })
}

/// JSON, some of its characters changed.
fn damaged_json() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let edits = prop::collection::vec(
        (any::<prop::sample::Index>(), prop::sample::select(br#"{}[],:"\0-.eEntfu1 "#.to_vec())),
        0..4,
    );
    (names(), prop::collection::vec(any::<u8>(), 0..300), edits).prop_map(|(name, bytes, edits)| {
        let message = Choices::new(&bytes).message(&descriptor(name), 3);
        let mut json = serde_json::to_vec(&message).expect("every generated message has a JSON form");
        for (place, byte) in edits {
            let at = place.index(json.len());
            if byte == b'u' { json.insert(at, byte) } else { json[at] = byte }
        }
        (name, json)
    })
}

fn check_wire(name: &str, wire: &[u8]) -> Result<(), TestCaseError> {
    let accepted = kind(name).validate(wire);
    let theirs = DynamicMessage::decode(descriptor(name), wire);
    if accepted.is_ok() {
        prop_assert!(theirs.is_ok(), "accepted, but {:?}", theirs.err());
    }
    let mut json = b"before".to_vec();
    match kind(name).protobuf_to_json(wire, &mut json) {
        Ok(()) => {
            let json = json.strip_prefix(b"before").expect("what was there stays");
            prop_assert!(serde_json::from_slice::<Json>(json).is_ok(), "{}", String::from_utf8_lossy(json));
            if accepted.is_ok() {
                prop_assert!(kind(name).json_to_protobuf(json).is_ok(), "{}", String::from_utf8_lossy(json));
            }
        }
        Err(_) => prop_assert_eq!(&json, b"before"),
    }
    Ok(())
}

fn check_json(name: &str, json: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(wire) = kind(name).json_to_protobuf(json) {
        prop_assert!(serde_json::from_slice::<Json>(json).is_ok(), "{}", String::from_utf8_lossy(json));
        prop_assert_eq!(kind(name).validate(&wire), Ok(()));
        let mut back = Vec::new();
        prop_assert_eq!(kind(name).protobuf_to_json(&wire, &mut back), Ok(()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_as_wire(name in names(), wire in prop::collection::vec(any::<u8>(), 0..200)) {
        check_wire(name, &wire)?;
    }

    #[test]
    fn damaged_wire((name, wire) in damaged()) {
        check_wire(name, &wire)?;
    }

    #[test]
    fn arbitrary_bytes_as_json(name in names(), json in prop::collection::vec(any::<u8>(), 0..200)) {
        check_json(name, &json)?;
    }

    #[test]
    fn arbitrary_text_as_json(name in names(), json in r#"[{}\[\],:"\\a-f0-9eE.+\- tnu]{0,60}"#) {
        check_json(name, json.as_bytes())?;
    }

    #[test]
    fn damaged_json_is_refused_or_sound((name, json) in damaged_json()) {
        check_json(name, &json)?;
    }

    /// A Value takes any JSON at all, so it shows that the reader reads what another writer writes.
    #[test]
    fn any_json_fits_a_value(json in any_json()) {
        let text = serde_json::json!({ "value": json }).to_string();
        let wire = kind("rich.v1.All").json_to_protobuf(text.as_bytes()).expect("any JSON");
        let mut back = Vec::new();
        kind("rich.v1.All").protobuf_to_json(&wire, &mut back).expect("its own bytes");
        let back: Json = serde_json::from_slice(&back).expect("valid JSON");
        prop_assert_eq!(&back["value"], &json);
    }
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<f64>().prop_filter("JSON has no NaN", |value| value.is_finite()).prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Found by fuzzing: what one part of the reader takes for white space, another must too, or it never ends.
#[test]
fn white_space_that_json_does_not_have_is_refused() {
    for odd in ["\u{c}", "\u{b}", "\u{a0}", "\u{feff}", "\u{2028}"] {
        let any = format!(r#"{{"any":{{"x":{odd}1,"@type":"type.googleapis.com/rich.v1.Leaf"}}}}"#);
        assert!(kind("rich.v1.All").json_to_protobuf(any.as_bytes()).is_err(), "{odd:?}");
    }
}
