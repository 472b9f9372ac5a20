//! How frames become WebSocket messages and back, in protobuf and in JSON.

use prost::Message as _;
use serde_json::{Map, Value, value::RawValue};
use tokio_tungstenite::tungstenite::Message;
use trestle_wire::v1;

use crate::json::JsonFrame;

/// The subprotocol whose messages are `ClientFrames` and `ServerFrames`.
pub(crate) const PROTOBUF: &str = "trestle.v1.proto";
/// The subprotocol whose messages are JSON objects and arrays of them.
pub(crate) const JSON: &str = "trestle.v1.json";

/// A message with one frame, and the frame back.
pub(crate) fn pack(frame: v1::ClientFrame) -> (Message, v1::ClientFrame) {
    let mut frames = v1::ClientFrames { frames: vec![frame] };
    let message = Message::binary(frames.encode_to_vec());
    (message, frames.frames.pop().unwrap_or_default())
}

/// The frames of a message; else what is wrong with it.
pub(crate) fn unpack(message: Message) -> Result<Vec<v1::ServerFrame>, String> {
    let Message::Binary(bytes) = message else { return Err("text on the protobuf subprotocol".to_owned()) };
    v1::ServerFrames::decode(bytes).map(|message| message.frames).map_err(|fault| fault.to_string())
}

/// As [`pack`], in JSON.
pub(crate) fn pack_json(id: u32, mut frame: Map<String, Value>) -> Message {
    frame.insert("id".to_owned(), id.into());
    Message::text(Value::Object(frame).to_string())
}

/// As [`unpack`], in JSON.
pub(crate) fn unpack_json(message: Message) -> Result<Vec<JsonFrame>, String> {
    let Message::Text(text) = message else { return Err("binary on the JSON subprotocol".to_owned()) };
    let texts: Vec<&RawValue> = if text.starts_with('[') {
        serde_json::from_str(&text).map_err(|fault| fault.to_string())?
    } else {
        vec![serde_json::from_str(&text).map_err(|fault| fault.to_string())?]
    };
    texts.into_iter().map(|text| JsonFrame::parse(text.get()).map_err(|fault| fault.to_string())).collect()
}
