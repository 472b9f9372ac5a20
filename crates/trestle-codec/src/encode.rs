//! A frame for a client in, its bytes in one encoding out; several of them joined into one WebSocket message.
//!
//! Nothing here can fail: what is delivered was checked when it came in.

mod json;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{Message as _, encoding};
use trestle_schema::Catalogue;
use trestle_wire::v1;

use crate::Encoding;

/// One server frame, finished for one encoding: a JSON object, or a `ServerFrames` with one frame.
///
/// Cheap to clone: the fan-out makes one and gives it to every session of the encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded(Bytes);

impl Encoded {
    /// Takes bytes that are one finished frame of the encoding they will be written in.
    #[must_use]
    pub fn from_finished(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// What goes into the WebSocket message if the frame goes alone.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// How many bytes that is; what the outbox counts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a frame has at least its braces or its tag.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Encodes one frame.
///
/// A payload whose type is not in `catalogue`, or that does not fit it, goes to JSON clients as `payloadBase64`, the bytes of
/// protobuf: schemas may have been reloaded since it was stored, and a delivery with a hole would be worse.
#[must_use]
pub fn encode(encoding: Encoding, frame: &v1::ServerFrame, catalogue: &Catalogue) -> Encoded {
    match encoding {
        Encoding::Protobuf => {
            // The encoding of ServerFrames { frames: vec![frame] }, without the clone.
            let mut bytes = BytesMut::with_capacity(frame.encoded_len() + 8);
            encoding::message::encode(1, frame, &mut bytes);
            Encoded(bytes.freeze())
        }
        Encoding::Json => {
            let mut out = Vec::with_capacity(256); // an ordinary delivery has 150-250 bytes without its payload
            json::write_frame(&mut out, frame, catalogue);
            Encoded(out.into())
        }
    }
}

/// One WebSocket message out of frames of the same encoding: the frame itself, or an array of them in JSON; in protobuf
/// the concatenation, which is how protobuf joins repeated fields.
#[must_use]
pub fn join(encoding: Encoding, frames: &[Encoded]) -> Bytes {
    if let [frame] = frames {
        return frame.0.clone();
    }
    let bytes: usize = frames.iter().map(Encoded::len).sum();
    let mut out = BytesMut::with_capacity(bytes + frames.len() + 1);
    match encoding {
        Encoding::Protobuf => frames.iter().for_each(|frame| out.put_slice(&frame.0)),
        Encoding::Json => {
            let mut before = b'[';
            for frame in frames {
                out.put_u8(before);
                out.put_slice(&frame.0);
                before = b',';
            }
            out.put_slice(if frames.is_empty() { b"[]" } else { b"]" });
        }
    }
    out.freeze()
}
