//! The WebSocket message that carries frames (RFC 6455, 5.2), as a server sends it: whole, and not masked.

use bytes::{BufMut as _, Bytes};

use crate::Encoding;

/// The longest header of a message: two bytes, and eight that say how long its payload is.
const HEADER_BYTES_MAX: usize = 10;
/// `FIN`: no message goes in fragments.
const FINAL: u8 = 0x80;
/// Where the first byte says what kind of message it is.
const OPCODE: u8 = 0x0f;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
/// Payloads of which the second byte says the length.
const SHORT_MAX: usize = 125;
/// Payloads of which two bytes more do, behind this number.
const MEDIUM: u8 = 126;
/// Payloads of which eight bytes more do, behind this number.
const LONG: u8 = 127;

/// One server frame, finished for one encoding down to the WebSocket message that carries it alone, or several that share one.
///
/// Cheap to clone: the fan-out makes one and gives it to every session of the encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded(Bytes);

impl Encoded {
    /// Takes bytes that are one frame of `encoding`.
    #[must_use]
    pub fn from_payload(encoding: Encoding, payload: &[u8]) -> Self {
        let mut message = Message::with_capacity(payload.len());
        message.payload().put_slice(payload);
        message.finish(encoding)
    }

    /// How the payload is written.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        if self.0[0] & OPCODE == TEXT { Encoding::Json } else { Encoding::Protobuf }
    }

    /// The WebSocket message.
    #[must_use]
    pub fn message(&self) -> &Bytes {
        &self.0
    }

    /// What is in it: a JSON object, or a `ServerFrames` with one frame; as [`join`] says, if it is of several.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0[self.header_len()..]
    }

    /// How many bytes the payload has; what the outbox counts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() - self.header_len()
    }

    /// Never: a frame has at least its braces or its tag.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn header_len(&self) -> usize {
        match self.0[1] {
            MEDIUM => 4,
            LONG => HEADER_BYTES_MAX,
            _ => 2,
        }
    }
}

impl AsRef<Self> for Encoded {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl From<Encoded> for Bytes {
    /// The WebSocket message.
    fn from(encoded: Encoded) -> Self {
        encoded.0
    }
}

/// A message being written, with room for a header before its payload.
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn with_capacity(payload_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + payload_bytes);
        bytes.resize(HEADER_BYTES_MAX, 0);
        Self(bytes)
    }

    /// Where the payload goes.
    pub(crate) fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Lets go of room that is not needed, in one that may be kept for a while.
    pub(crate) fn shrunk(mut self) -> Self {
        self.0.shrink_to_fit();
        self
    }

    /// Writes the header that the payload needs.
    pub(crate) fn finish(mut self, encoding: Encoding) -> Encoded {
        let opcode = match encoding {
            Encoding::Json => TEXT,
            Encoding::Protobuf => BINARY,
        };
        let payload = self.0.len() - HEADER_BYTES_MAX;
        let (length, more) = match u16::try_from(payload) {
            Ok(_) if payload <= SHORT_MAX => (payload as u8, 0),
            Ok(_) => (MEDIUM, 2),
            Err(_) => (LONG, 8),
        };
        let start = HEADER_BYTES_MAX - 2 - more;
        self.0[start] = FINAL | opcode;
        self.0[start + 1] = length;
        // The last of the eight bytes that a long length has, in network order.
        self.0[start + 2..HEADER_BYTES_MAX].copy_from_slice(&(payload as u64).to_be_bytes()[8 - more..]);
        Encoded(Bytes::from(self.0).slice(start..))
    }
}

/// One WebSocket message out of frames of the same encoding: the frame's own, or an array of them in JSON; in protobuf
/// the concatenation, which is how protobuf joins repeated fields.
#[must_use]
pub fn join<F: AsRef<Encoded>>(encoding: Encoding, frames: &[F]) -> Encoded {
    if let [frame] = frames {
        return frame.as_ref().clone();
    }
    let bytes: usize = frames.iter().map(|frame| frame.as_ref().len()).sum();
    let between = match encoding {
        Encoding::Protobuf => 0,
        Encoding::Json => frames.len().max(1) + 1,
    };
    // Exactly: what is to be sent once is not to be moved to where it fits better.
    let mut message = Message::with_capacity(bytes + between);
    let out = message.payload();
    let payloads = frames.iter().map(|frame| frame.as_ref().payload());
    match encoding {
        Encoding::Protobuf => payloads.for_each(|payload| out.put_slice(payload)),
        Encoding::Json => {
            let mut before = b'[';
            for payload in payloads {
                out.put_u8(before);
                out.put_slice(payload);
                before = b',';
            }
            out.put_slice(if frames.is_empty() { b"[]" } else { b"]" });
        }
    }
    message.finish(encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header and payload of the frames that carry `payload`, as RFC 6455 has it.
    fn header(encoding: Encoding, length: usize) -> Vec<u8> {
        let encoded = Encoded::from_payload(encoding, &vec![b'x'; length]);
        assert_eq!((encoded.len(), encoded.payload()), (length, &*vec![b'x'; length]));
        encoded.message()[..encoded.message().len() - length].to_vec()
    }

    #[test]
    fn a_length_has_as_many_bytes_as_it_needs() {
        assert_eq!(header(Encoding::Json, 1), [0x81, 1]);
        assert_eq!(header(Encoding::Protobuf, 125), [0x82, 125]);
        assert_eq!(header(Encoding::Protobuf, 126), [0x82, 126, 0, 126]);
        assert_eq!(header(Encoding::Json, 65_535), [0x81, 126, 0xff, 0xff]);
        assert_eq!(header(Encoding::Json, 65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn frames_are_joined_under_one_header() {
        let [a, b] = ["{}", "{\"pong\":{}}"].map(|frame| Encoded::from_payload(Encoding::Json, frame.as_bytes()));
        assert_eq!(join(Encoding::Json, &[a.clone(), b]).message(), &b"\x81\x10[{},{\"pong\":{}}]"[..]);
        assert_eq!(join(Encoding::Json, std::slice::from_ref(&a)), a);
        let [a, b] = [&[1, 2], &[3, 4]].map(|frame| Encoded::from_payload(Encoding::Protobuf, frame));
        assert_eq!(join(Encoding::Protobuf, &[a, b]).message(), &b"\x82\x04\x01\x02\x03\x04"[..]);
    }
}
