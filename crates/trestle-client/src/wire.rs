//! The two ways a connection can write its frames; everything above and below is the same for both.

use prost::Message as _;
use serde_json::{Value, value::RawValue};
use tokio_tungstenite::tungstenite::Message;
use trestle_wire::v1;

use crate::json::JsonFrame;

/// How frames become WebSocket messages and back.
pub(crate) trait Wire: Send + Sync + 'static {
    /// Its name in `Sec-WebSocket-Protocol`.
    const SUBPROTOCOL: &'static str;
    /// A client's frame, without its id.
    type Ask: Send;
    /// A server's frame.
    type Frame: Send;

    fn pack(id: u32, ask: Self::Ask) -> Message;
    /// The frames of a message that is not a control frame; else what is wrong with it.
    fn unpack(message: Message) -> Result<Vec<Self::Frame>, String>;
    /// The id of the frame that this one answers; 0 for what comes unasked.
    fn reply_to(frame: &Self::Frame) -> u32;
}

/// `ClientFrames` and `ServerFrames`.
pub(crate) enum Protobuf {}

impl Wire for Protobuf {
    const SUBPROTOCOL: &'static str = "trestle.v1.proto";
    type Ask = v1::client_frame::Frame;
    type Frame = v1::ServerFrame;

    fn pack(id: u32, ask: Self::Ask) -> Message {
        let frames = vec![v1::ClientFrame { id, frame: Some(ask) }];
        Message::binary(v1::ClientFrames { frames }.encode_to_vec())
    }

    fn unpack(message: Message) -> Result<Vec<v1::ServerFrame>, String> {
        let Message::Binary(bytes) = message else { return Err("text on the protobuf subprotocol".to_owned()) };
        v1::ServerFrames::decode(bytes).map(|message| message.frames).map_err(|fault| fault.to_string())
    }

    fn reply_to(frame: &v1::ServerFrame) -> u32 {
        frame.reply_to
    }
}

/// JSON objects and arrays of them.
pub(crate) enum Json {}

impl Wire for Json {
    const SUBPROTOCOL: &'static str = "trestle.v1.json";
    type Ask = serde_json::Map<String, Value>;
    type Frame = JsonFrame;

    fn pack(id: u32, mut ask: Self::Ask) -> Message {
        ask.insert("id".to_owned(), id.into());
        Message::text(Value::Object(ask).to_string())
    }

    fn unpack(message: Message) -> Result<Vec<JsonFrame>, String> {
        let Message::Text(text) = message else { return Err("binary on the JSON subprotocol".to_owned()) };
        let texts: Vec<&RawValue> = if text.starts_with('[') {
            serde_json::from_str(&text).map_err(|fault| fault.to_string())?
        } else {
            vec![serde_json::from_str(&text).map_err(|fault| fault.to_string())?]
        };
        texts.into_iter().map(|text| JsonFrame::parse(text.get()).map_err(|fault| fault.to_string())).collect()
    }

    fn reply_to(frame: &JsonFrame) -> u32 {
        frame.reply_to()
    }
}
