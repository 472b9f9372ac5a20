//! One text WebSocket message in, its frames out; payloads go from the text straight into protobuf, without a tree.
//!
//! The text is read in one pass: [`object`] is the reader, [`list`] its part for arrays, [`frame`]
//! and [`control`] are the shapes it knows.

mod control;
mod frame;
mod list;
mod object;

use std::cell::Cell;

use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, value::RawValue};
use trestle_wire::{Reason, Refusal};

use self::{frame::FrameDraft, object::Trail};
use crate::{
    Inbound, Rejected,
    admit::{Admission, Draft},
    depth,
};

pub(crate) fn decode(message: &Bytes, admission: &Admission<'_>) -> Vec<Result<Inbound, Rejected>> {
    let frames = match split(message, admission.limits.frames_per_message_max) {
        Ok(frames) => frames,
        Err(refusal) => return vec![Err(Rejected { id: 0, refusal })],
    };
    let text = Text { message, json_depth_max: admission.limits.json_depth_max };
    let one = |frame| {
        let draft = text.read(frame).map_err(|refusal| Rejected { id: id_of(frame), refusal })?;
        admission.admit(draft)
    };
    frames.into_iter().map(one).collect()
}

/// A message is one frame, or an array of them; nothing recursive has seen a frame that leaves here.
fn split(message: &[u8], max: usize) -> Result<Vec<&str>, Refusal> {
    let text = std::str::from_utf8(message).map_err(|fault| {
        let said = format!("the text is not UTF-8 at byte {}", fault.valid_up_to() + 1);
        Refusal::new(Reason::InvalidUtf8, said)
    })?;
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('[') {
        return Ok(vec![text]);
    }
    let too_many = Cell::new(false);
    let mut json = Deserializer::from_str(text);
    match json.deserialize_seq(Batch { max, too_many: &too_many }).and_then(|frames| json.end().map(|()| frames)) {
        Ok(frames) if frames.is_empty() => Err(Refusal::new(Reason::EmptyFrame, "the array holds no frame")),
        Ok(frames) => Ok(frames),
        Err(_) if too_many.get() => {
            Err(Refusal::new(Reason::TooManyFrames, format!("the array holds more than {max} frames")))
        }
        Err(fault) => Err(Refusal::new(Reason::MalformedFrame, located(&fault, text, 0))),
    }
}

/// An array's elements as text.
struct Batch<'c> {
    max: usize,
    too_many: &'c Cell<bool>,
}

impl<'de> Visitor<'de> for Batch<'_> {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of frames")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut frames = Vec::new();
        while let Some(frame) = elements.next_element::<&'de RawValue>()? {
            if frames.len() == self.max {
                self.too_many.set(true);
                return Err(A::Error::custom("too many frames"));
            }
            frames.push(frame.get());
        }
        Ok(frames)
    }
}

/// The message that frames are parts of, to say where in it something is.
struct Text<'a> {
    message: &'a [u8],
    json_depth_max: usize,
}

impl Text<'_> {
    fn read<'de>(&self, frame: &'de str) -> Result<Draft<'de>, Refusal> {
        // Both are slices of one text, so the difference of their addresses is a position.
        let start = (frame.as_ptr() as usize).saturating_sub(self.message.as_ptr() as usize);
        if let Some(at) = depth::exceeded(frame, self.json_depth_max) {
            let (max, at) = (self.json_depth_max, start + at + 1);
            return Err(Refusal::new(Reason::TooDeep, format!("nested more than {max} deep at byte {at}")));
        }
        let trail = Trail::default();
        let mut draft = FrameDraft::default();
        let mut json = Deserializer::from_str(frame);
        object::read(&mut json, &mut draft, &trail)
            .and_then(|()| json.end())
            .map_err(|fault| trail.refusal(|| located(&fault, frame, start)))?;
        draft.finish()
    }
}

/// What `fault` says, with its place in the whole message, where `text` begins at `start`. The first byte is byte 1.
fn located(fault: &serde_json::Error, text: &str, start: usize) -> String {
    let said = fault.to_string();
    let said = said.rsplit_once(" at line ").map_or(&*said, |(said, _)| said);
    let before: usize = text.split_inclusive('\n').take(fault.line().saturating_sub(1)).map(str::len).sum();
    format!("{said}, at byte {}", start + before + fault.column())
}

/// The id of a frame that was refused, or 0. Looks past whatever else is wrong with it, as far as it is JSON.
fn id_of(frame: &str) -> u32 {
    let id = Cell::new(0);
    // What ends this early is the fault that was found already; the id before it counts all the same.
    let _ = Deserializer::from_str(frame).deserialize_map(IdOnly(&id));
    id.get()
}

struct IdOnly<'c>(&'c Cell<u32>);

impl<'de> Visitor<'de> for IdOnly<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a frame")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(object::Name)? {
            if name == "id" {
                let id = map.next_value_seed(object::Unsigned { max: u32::MAX.into() })?;
                self.0.set(id.and_then(|id| id.try_into().ok()).unwrap_or(0));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}
