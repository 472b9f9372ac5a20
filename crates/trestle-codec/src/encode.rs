//! A frame for a client in, its bytes in one encoding out.
//!
//! Nothing here can fail: what is delivered was checked when it came in.

mod json;

use prost::{Message as _, encoding};
use trestle_schema::Catalogue;
use trestle_wire::v1;

use crate::{
    Encoding,
    message::{Encoded, Message},
};

/// What an ordinary delivery has in JSON: 150-250 bytes without its payload.
const DELIVERY_BYTES: usize = 512;
/// The tag and the length before a frame: 1 + 5 bytes.
const TAG_BYTES_MAX: usize = 6;

/// Encodes one frame.
///
/// A payload whose type is not in `catalogue`, or that does not fit it, goes to JSON clients as `payloadBase64`, the bytes of
/// protobuf: schemas may have been reloaded since it was stored, and a delivery with a hole would be worse.
#[must_use]
pub fn encode(encoding: Encoding, frame: &v1::ServerFrame, catalogue: &Catalogue) -> Encoded {
    match encoding {
        Encoding::Protobuf => {
            // The encoding of ServerFrames { frames: vec![frame] }, without the clone.
            let mut message = Message::with_capacity(frame.encoded_len() + TAG_BYTES_MAX);
            encoding::message::encode(1, frame, message.payload());
            message.shrunk().finish(encoding)
        }
        Encoding::Json => {
            let mut message = Message::with_capacity(DELIVERY_BYTES);
            json::write_frame(message.payload(), frame, catalogue);
            message.shrunk().finish(encoding)
        }
    }
}
