//! RFC 6455 as a server reads it: bytes in, messages and control frames out. No I/O.
//!
//! What always holds: of a message no more is held than has come, and never more than its limit; between two messages
//! nothing is held.

use bytes::Bytes;
use trestle_wire::{Reason, Refusal};

/// The longest header of a client's frame: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;
/// Payload of a control frame (5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A text message, which is UTF-8.
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    /// A close frame, with its code if it has one.
    Close(Option<u16>),
}

/// The reader of one client.
pub(super) struct Inbound {
    message_bytes_max: usize,
    /// The header of the frame that comes, as far as it has.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload comes.
    frame: Option<Head>,
    /// Whether the message that comes is text; `None` between messages.
    text: Option<bool>,
    /// The payload of the message that comes, as far as it has.
    message: Vec<u8>,
    /// The same of a control frame.
    control: Vec<u8>,
}

/// The frame whose payload comes.
#[derive(Clone, Copy)]
struct Head {
    is_final: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes that are still to come.
    left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl Inbound {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            frame: None,
            text: None,
            message: Vec::new(),
            control: Vec::new(),
        }
    }

    /// Takes from `input` what belongs to the next message or control frame, which it gives if it is whole.
    ///
    /// # Errors
    /// Which rule the client broke; nothing is to be read after that.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Received>, Refusal> {
        loop {
            if self.frame.is_none() {
                self.frame = self.head(input)?;
            }
            let Some(frame) = &mut self.frame else { return Ok(None) };
            let (bytes, rest) = input.split_at(frame.left.min(input.len()));
            *input = rest;
            let payload = if frame.opcode.is_control() { &mut self.control } else { &mut self.message };
            let from = payload.len();
            payload.extend_from_slice(bytes);
            unmask(&mut payload[from..], frame.mask);
            frame.mask.rotate_left(bytes.len() % 4);
            frame.left -= bytes.len();
            if frame.left > 0 {
                return Ok(None);
            }
            let frame = *frame;
            self.frame = None;
            if let Some(received) = self.whole(frame)? {
                return Ok(Some(received));
            }
        }
    }

    /// The header of the next frame, if it is whole.
    fn head(&mut self, input: &mut &[u8]) -> Result<Option<Head>, Refusal> {
        loop {
            let have = usize::from(self.header_len);
            let need = if have < 2 { 2 } else { header_len(self.header[1]) };
            if have == need {
                break;
            }
            let (bytes, rest) = input.split_at((need - have).min(input.len()));
            if bytes.is_empty() {
                return Ok(None);
            }
            *input = rest;
            self.header[have..have + bytes.len()].copy_from_slice(bytes);
            self.header_len += bytes.len() as u8;
        }
        let length = usize::from(self.header_len);
        self.header_len = 0;
        self.judged(&self.header[..length]).map(Some)
    }

    /// The head that `header` says, if it may come now.
    fn judged(&self, header: &[u8]) -> Result<Head, Refusal> {
        let (first, second) = (header[0], header[1]);
        let is_final = first & 0x80 != 0;
        let opcode = Opcode::of(first & 0x0f).ok_or_else(|| broken(format!("opcode {} is not known", first & 0x0f)))?;
        if first & 0x70 != 0 {
            return Err(broken("a reserved bit is set, and no extension was agreed on"));
        }
        if second & 0x80 == 0 {
            return Err(broken("a client's frame is not masked"));
        }
        let (length, mask) = header[2..].split_at(header.len() - 6);
        let length = match length {
            [] => u64::from(second & 0x7f),
            bytes => bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let left = usize::try_from(length).unwrap_or(usize::MAX);
        if opcode.is_control() {
            if !is_final {
                return Err(broken("a control frame is fragmented"));
            }
            if left > CONTROL_BYTES_MAX {
                return Err(broken(format!(
                    "a control frame of {left} bytes; at most {CONTROL_BYTES_MAX} are allowed"
                )));
            }
        } else {
            match (opcode == Opcode::Continuation, self.text.is_some()) {
                (true, false) => return Err(broken("a continuation of no message")),
                (false, true) => return Err(broken("a new message inside of another")),
                _ => {}
            }
            let (size, most) = (self.message.len().saturating_add(left), self.message_bytes_max);
            if size > most {
                let message = format!("a message of {size} bytes; at most {most} are taken");
                return Err(Refusal::new(Reason::FrameTooLarge, message));
            }
        }
        Ok(Head { is_final, opcode, mask: mask.try_into().expect("four bytes are left"), left })
    }

    /// A frame's payload is all there.
    fn whole(&mut self, frame: Head) -> Result<Option<Received>, Refusal> {
        match frame.opcode {
            Opcode::Ping => return Ok(Some(Received::Ping(std::mem::take(&mut self.control).into()))),
            Opcode::Pong => return Ok(Some(Received::Pong(std::mem::take(&mut self.control).into()))),
            Opcode::Close => return close_code(&std::mem::take(&mut self.control)).map(Received::Close).map(Some),
            Opcode::Text => self.text = Some(true),
            Opcode::Binary => self.text = Some(false),
            Opcode::Continuation => {}
        }
        if !frame.is_final {
            return Ok(None);
        }
        let message = Bytes::from(std::mem::take(&mut self.message));
        if self.text.take() == Some(false) {
            return Ok(Some(Received::Binary(message)));
        }
        if std::str::from_utf8(&message).is_err() {
            return Err(Refusal::new(Reason::InvalidUtf8, "the text message is not UTF-8"));
        }
        Ok(Some(Received::Text(message)))
    }
}

/// How long a header is whose second byte is `second`.
fn header_len(second: u8) -> usize {
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

/// The code of a close frame (5.5.1), of those that may be sent (7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Refusal> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(broken("a close frame with half a code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(broken(format!("close code {code} may not be sent")));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Refusal::new(Reason::InvalidUtf8, "the reason of the close frame is not UTF-8")),
    }
}

/// Takes the mask off `bytes` (5.3), of which the first is masked by the first of `mask`.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

fn broken(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::ProtocolError, message)
}
