//! Messages of `trestle.v1` in canonical proto3 JSON, by their own descriptors.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use trestle_wire::{DESCRIPTORS, Reason, Refusal};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build has made the descriptors"));

/// A message of `trestle.v1` that has JSON; the name is the one of its proto.
fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("trestle.v1.{name}")).expect("named as in the proto")
}

/// `message` in JSON; fields that have their default value are said too, so that a reader sees what there is.
pub(super) fn write(name: &str, message: &impl Message) -> Vec<u8> {
    let mut dynamic = DynamicMessage::new(descriptor(name));
    dynamic.merge(&*message.encode_to_vec()).expect("a message is one of its own type");
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut json);
    let options = SerializeOptions::new().skip_default_fields(false);
    dynamic.serialize_with_options(&mut serializer, &options).expect("memory takes everything");
    json
}

/// The message that `json` is; nothing is left over, and no field is unknown.
///
/// # Errors
/// [`Reason::MalformedFrame`].
pub(super) fn read<M: Message + Default>(name: &str, json: &[u8]) -> Result<M, Refusal> {
    let malformed =
        |error: &dyn std::fmt::Display| Refusal::new(Reason::MalformedFrame, format!("the body is no {name}: {error}"));
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor(name), &mut deserializer, &options)
        .map_err(|error| malformed(&error))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    M::decode(&*dynamic.encode_to_vec()).map_err(|error| malformed(&error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trestle_wire::v1;

    use super::*;

    #[test]
    fn a_message_is_written_with_all_its_fields() {
        let node = v1::NodeInfo {
            node: "a".into(),
            started: Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }),
            ..v1::NodeInfo::default()
        };
        let json: serde_json::Value = serde_json::from_slice(&write("NodeInfo", &node)).expect("JSON");
        assert_eq!(json["started"], json!("1970-01-01T00:00:01.500Z"));
        assert_eq!((&json["roles"], &json["active"], &json["draining"]), (&json!([]), &json!(0), &json!(false)));
        let session = v1::SessionInfo {
            state: v1::SessionState::Pending.into(),
            heartbeat_age: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
            queue_bytes: 7,
            ..v1::SessionInfo::default()
        };
        let json: serde_json::Value = serde_json::from_slice(&write("SessionInfo", &session)).expect("JSON");
        let said = (&json["state"], &json["heartbeatAge"], &json["queueBytes"]);
        assert_eq!(said, (&json!("PENDING"), &json!("2s"), &json!("7")));
    }

    #[test]
    fn what_is_no_such_message_is_refused() {
        let read = |json: &str| read::<v1::KickRequest>("KickRequest", json.as_bytes());
        let kick = read(r#"{"target":{"user":"ann"},"reason":"bye"}"#).expect("valid");
        assert_eq!((kick.reason.as_str(), kick.target.is_some()), ("bye", true));
        for bad in
            ["", "[]", "{", r#"{"reasons":"x"}"#, r#"{"reason":1}"#, "{} {}", r#"{"target":{"user":"a","group":"b"}}"#]
        {
            assert_eq!(read(bad).map_err(|refusal| refusal.reason), Err(Reason::MalformedFrame), "{bad}");
        }
    }
}
