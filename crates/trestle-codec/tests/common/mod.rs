//! What the tests of the codec share: a schema set, and short ways to decode and to say what is expected.
#![allow(dead_code)] // each test file uses its own part

pub(crate) mod random;

use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message;
use trestle_codec::{Encoding, Inbound, Limits, Rejected, decode};
use trestle_schema::{Catalogue, SchemaSource};
use trestle_wire::v1::{self, client_frame::Frame};

/// A type with one field of each kind that JSON and protobuf write differently.
const THING: &str = r#"
    syntax = "proto3";
    package test.v1;
    import "google/protobuf/timestamp.proto";
    message Thing {
      int64 big = 1;
      bytes raw = 2;
      repeated string words = 3;
      map<string, int32> counts = 4;
      Thing inner = 5;
      google.protobuf.Timestamp at = 6;
      optional bool flag = 7;
    }
"#;

/// The example schemas of the project, and `test.v1.Thing`.
pub(crate) fn catalogue() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let SchemaSource::Files(mut files) = SchemaSource::examples() else { panic!("the examples are in memory") };
        files.push(("test/v1/thing.proto".to_owned(), THING.to_owned()));
        Catalogue::load(&SchemaSource::Files(files)).expect("the schemas of the tests are right")
    })
}

pub(crate) fn json(text: &str) -> Vec<Result<Inbound, Rejected>> {
    decode(Encoding::Json, &Bytes::copy_from_slice(text.as_bytes()), catalogue(), &Limits::default())
}

/// The one frame that `text` holds.
pub(crate) fn json_one(text: &str) -> Result<Inbound, Rejected> {
    one(json(text), text)
}

pub(crate) fn protobuf(frames: Vec<v1::ClientFrame>) -> Vec<Result<Inbound, Rejected>> {
    let message = Bytes::from(v1::ClientFrames { frames }.encode_to_vec());
    decode(Encoding::Protobuf, &message, catalogue(), &Limits::default())
}

/// That frame, decoded.
pub(crate) fn protobuf_one(id: u32, frame: Frame) -> Result<Inbound, Rejected> {
    one(protobuf(vec![v1::ClientFrame { id, frame: Some(frame) }]), "a protobuf frame")
}

fn one(mut frames: Vec<Result<Inbound, Rejected>>, of: &str) -> Result<Inbound, Rejected> {
    assert_eq!(frames.len(), 1, "{of}: {frames:?}");
    frames.remove(0)
}

/// `chat.v1.Comment { text }` in protobuf.
pub(crate) fn comment(text: &str) -> Bytes {
    let mut payload = Vec::new();
    prost::encoding::string::encode(1, &text.to_owned(), &mut payload);
    payload.into()
}

/// An envelope of a type, with a payload.
pub(crate) fn envelope(message_type: &str, payload: Bytes) -> v1::Envelope {
    v1::Envelope { message_type: message_type.to_owned(), payload, ..Default::default() }
}
