//! One binary WebSocket message in, its frames out; payloads stay where they are.

use bytes::{Buf, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use trestle_wire::{Reason, Refusal, v1};

use crate::{
    Inbound, Rejected,
    admit::{Admission, Draft, Payload},
};

/// Field `frames` of `ClientFrames`.
const FRAMES: u32 = 1;
/// Field `id` of `ClientFrame`.
const ID: u32 = 1;

pub(crate) fn decode(message: &Bytes, admission: &Admission<'_>) -> Vec<Result<Inbound, Rejected>> {
    match split(message.clone(), admission.limits.frames_per_message_max) {
        Ok(frames) => frames.into_iter().map(|frame| one(frame, admission)).collect(),
        Err(refusal) => vec![Err(Rejected { id: 0, refusal })],
    }
}

/// Takes a `ClientFrames` apart, so that each frame is decoded, and can fail, by itself, and so that a message of two-byte
/// frames cannot make thousands of them before they are counted.
fn split(mut message: Bytes, max: usize) -> Result<Vec<Bytes>, Refusal> {
    let mut frames = Vec::new();
    while message.has_remaining() {
        match next(&mut message).map_err(|fault| malformed(&fault))? {
            Some(_) if frames.len() == max => {
                let said = format!("the message holds more than {max} frames");
                return Err(Refusal::new(Reason::TooManyFrames, said));
            }
            Some(frame) => frames.push(frame),
            None => {}
        }
    }
    if frames.is_empty() {
        return Err(Refusal::new(Reason::EmptyFrame, "the message holds no frame"));
    }
    Ok(frames)
}

/// The next field of a `ClientFrames`: a frame's bytes, or `None` for one that is not known here.
fn next(message: &mut Bytes) -> Result<Option<Bytes>, DecodeError> {
    let (field, wire_type) = decode_key(message)?;
    if field != FRAMES {
        skip_field(wire_type, field, message, DecodeContext::default())?;
        return Ok(None);
    }
    let mut frame = Bytes::new();
    prost::encoding::bytes::merge(wire_type, &mut frame, message, DecodeContext::default())?;
    Ok(Some(frame))
}

fn one(frame: Bytes, admission: &Admission<'_>) -> Result<Inbound, Rejected> {
    match v1::ClientFrame::decode(frame.clone()) {
        Ok(v1::ClientFrame { id, frame }) => {
            admission.admit(Draft { id, frame, payload: Payload::InEnvelope, shorthand: false })
        }
        Err(fault) => Err(Rejected { id: id_of(frame).unwrap_or(0), refusal: malformed(&fault) }),
    }
}

/// The id of a frame that cannot be decoded, if it stands before the fault.
fn id_of(mut frame: Bytes) -> Option<u32> {
    let mut id = None;
    while let Ok((field, wire_type)) = decode_key(&mut frame) {
        if (field, wire_type) == (ID, WireType::Varint) {
            // Longer varints are cut to the field's width, as prost does.
            #[allow(clippy::cast_possible_truncation)]
            let value = decode_varint(&mut frame).ok()? as u32;
            id = Some(value);
        } else if skip_field(wire_type, field, &mut frame, DecodeContext::default()).is_err() {
            break;
        }
    }
    id
}

fn malformed(fault: &DecodeError) -> Refusal {
    Refusal::new(Reason::MalformedFrame, format!("not a ClientFrames message: {fault}"))
}
