//! What the works are done with: a message type of five fields, and a message of it.

use bytes::Bytes;
use prost::Message as _;
use trestle_auth::{Channels, ChannelsConfig, InboxConfig};
use trestle_codec::{Encoding, Frame, Inbound, Limits, decode};
use trestle_schema::{Catalogue, SchemaSource, Schemas};
use trestle_wire::v1::{self, client_frame, server_frame};

/// The channel that everything is published on; its namespace keeps no history.
pub(crate) const CHANNEL: &str = "live:1";

const TYPE: &str = "instructions.v1.Sale";

const SCHEMA: &str = r#"
    syntax = "proto3";
    package instructions.v1;
    message Sale {
      string sku = 1;
      string text = 2;
      int64 at = 3;
      double price = 4;
      bool paid = 5;
    }
"#;

/// 112 bytes.
const SALE: &str = r#"{"sku":"A-1047","text":"forty-two crates of \"apples\", sorted","at":"1763999999123","price":12.625,"paid":true}"#;

/// The types in use.
pub(crate) fn schemas() -> Schemas {
    let files = vec![("instructions/v1/sale.proto".to_owned(), SCHEMA.to_owned())];
    Schemas::open(SchemaSource::Files(files)).expect("the schema is right")
}

/// The namespaces as they are where nobody sets them up.
pub(crate) fn channels() -> Channels {
    Channels::new(&ChannelsConfig::default(), &InboxConfig::default()).expect("the defaults are right")
}

/// A client's WebSocket message that publishes the sale, and has it answered.
pub(crate) fn publish(encoding: Encoding, catalogue: &Catalogue) -> Bytes {
    let json = format!(
        r#"{{"id":7,"publish":{{"channel":"{CHANNEL}","message":{{"messageType":"{TYPE}","payload":{SALE}}}}}}}"#
    );
    let json = Bytes::from(json);
    match encoding {
        Encoding::Json => json,
        Encoding::Protobuf => {
            let message = envelope(published(Encoding::Json, &json, catalogue));
            let publish = v1::Publish { channel: CHANNEL.to_owned(), message: Some(message) };
            frames(7, client_frame::Frame::Publish(publish))
        }
    }
}

/// A client's WebSocket message in protobuf.
pub(crate) fn frames(id: u32, frame: client_frame::Frame) -> Bytes {
    v1::ClientFrames { frames: vec![v1::ClientFrame { id, frame: Some(frame) }] }.encode_to_vec().into()
}

/// The one frame of a message.
pub(crate) fn published(encoding: Encoding, message: &Bytes, catalogue: &Catalogue) -> Inbound {
    let mut frames = decode(encoding, message, catalogue, &Limits::default());
    frames.pop().expect("there is one frame").expect("it is right")
}

fn envelope(inbound: Inbound) -> v1::Envelope {
    match inbound.frame {
        Frame::Publish { message, .. } => v1::Envelope { channel: String::new(), ..message.envelope },
        other => unreachable!("it publishes, and does not {other:?}"),
    }
}

/// The sale as the gateway stamps it.
pub(crate) fn stamped(catalogue: &Catalogue) -> v1::Envelope {
    let message = publish(Encoding::Json, catalogue);
    v1::Envelope {
        id: "019ab1c2-7d3e-7f10-8a4b-5c6d7e8f9a0b".to_owned(),
        channel: CHANNEL.to_owned(),
        time: Some(prost_types::Timestamp { seconds: 1_763_999_999, nanos: 123_456_789 }),
        source: Some(v1::Source {
            session: "n.000102030405060708090a0b0c0d0e0f".to_owned(),
            node: "n".to_owned(),
            ..v1::Source::default()
        }),
        ..envelope(published(Encoding::Json, &message, catalogue))
    }
}

/// The same on its way to a client.
pub(crate) fn delivery(catalogue: &Catalogue) -> v1::ServerFrame {
    v1::ServerFrame { reply_to: 0, frame: Some(server_frame::Frame::Delivery(stamped(catalogue))) }
}
