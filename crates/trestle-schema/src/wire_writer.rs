//! JSON scalars to wire values: their forms, their ranges, and the place they are written to.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::{
    json_number::{NotInteger, integer, is_number},
    json_reader::Begins,
    misfit::{Fit, Misfit},
    plan::Kind,
};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What to write before a value, and whether to write it at all.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'p> {
    pub key: &'p [u8],
    pub omit_default: bool,
}

impl<'p> Slot<'p> {
    /// Every value, after `key`.
    pub(crate) fn always(key: &'p [u8]) -> Self {
        Self { key, omit_default: false }
    }
}

/// Wire bytes while they are written.
pub(crate) struct WireWriter(Vec<u8>);

impl WireWriter {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// What was written.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0.into()
    }

    /// Puts an encoded message behind what is there.
    pub(crate) fn append(&mut self, encoded: &[u8]) {
        self.0.extend_from_slice(encoded);
    }

    /// An integer or an enum number, from the text of a JSON number.
    pub(crate) fn integer(&mut self, kind: Kind, slot: Slot<'_>, text: &str) -> Fit {
        let value = integer(text).map_err(|fault| match fault {
            NotInteger::Fraction => Misfit::new("expected an integer, found a fraction"),
            NotInteger::TooLarge => out_of_range(kind),
        })?;
        let signed = |bits: u32| -(1_i128 << (bits - 1))..=(1_i128 << (bits - 1)) - 1;
        let range = match kind {
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Enum(_) => signed(32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => signed(64),
            Kind::Uint32 | Kind::Fixed32 => 0..=u32::MAX.into(),
            Kind::Uint64 | Kind::Fixed64 => 0..=u64::MAX.into(),
            Kind::Null => 0..=0,
            Kind::Double | Kind::Float | Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) => {
                return Err(Misfit::new("expected no number"));
            }
        };
        if !range.contains(&value) {
            return Err(out_of_range(kind));
        }
        // Within 64 bits, as the range says; negative ones keep their sign through both casts.
        let bits = value as u64;
        match kind {
            Kind::Sint32 | Kind::Sint64 => {
                let value = bits.cast_signed();
                self.varint(slot, ((value << 1) ^ (value >> 63)).cast_unsigned());
            }
            Kind::Fixed32 | Kind::Sfixed32 => self.fixed(slot, &(bits as u32).to_le_bytes()),
            Kind::Fixed64 | Kind::Sfixed64 => self.fixed(slot, &bits.to_le_bytes()),
            _ => self.varint(slot, bits),
        }
        Ok(())
    }

    /// A float, from the text of a JSON number or string.
    pub(crate) fn float(&mut self, kind: Kind, slot: Slot<'_>, text: &str) -> Fit {
        let special = match text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ if is_number(text) => None,
            _ => return Err(wrong(kind, Begins::String)),
        };
        if kind == Kind::Float {
            // Parsed as what it is: by way of a double it would be rounded twice.
            let value = match special {
                Some(value) => value as f32,
                None => text.parse().ok().filter(|value: &f32| value.is_finite()).ok_or_else(|| out_of_range(kind))?,
            };
            self.fixed(slot, &value.to_le_bytes());
        } else {
            let value = match special {
                Some(value) => value,
                None => text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| out_of_range(kind))?,
            };
            self.fixed(slot, &value.to_le_bytes());
        }
        Ok(())
    }

    /// Bytes, from base64 of either alphabet, padded or not.
    pub(crate) fn base64(&mut self, slot: Slot<'_>, text: &str) -> Fit {
        if text.is_empty() && slot.omit_default {
            return Ok(());
        }
        let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        let start = self.begin(slot.key);
        engine.decode_vec(text, &mut self.0).map_err(|error| Misfit::new(format!("expected base64: {error}")))?;
        self.finish(start);
        Ok(())
    }

    /// A varint, a bool or an enum number.
    pub(crate) fn varint(&mut self, slot: Slot<'_>, value: u64) {
        if value != 0 || !slot.omit_default {
            self.0.extend_from_slice(slot.key);
            encode_varint(value, &mut self.0);
        }
    }

    /// The default of every fixed-size kind is all zeros; -0.0 is not.
    pub(crate) fn fixed(&mut self, slot: Slot<'_>, value: &[u8]) {
        if !slot.omit_default || value.iter().any(|&byte| byte != 0) {
            self.0.extend_from_slice(slot.key);
            self.0.extend_from_slice(value);
        }
    }

    /// Bytes or a string.
    pub(crate) fn bytes(&mut self, slot: Slot<'_>, value: &[u8]) {
        if !value.is_empty() || !slot.omit_default {
            self.0.extend_from_slice(slot.key);
            encode_varint(value.len() as u64, &mut self.0);
            self.0.extend_from_slice(value);
        }
    }

    /// Begins a length-delimited value: leaves one byte for its length, and returns where its body starts.
    pub(crate) fn begin(&mut self, key: &[u8]) -> usize {
        self.0.extend_from_slice(key);
        self.0.push(0);
        self.0.len()
    }

    /// Takes back a [`Self::begin`] with nothing behind it.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        self.0.truncate(self.0.len() - 1 - key.len());
    }

    /// Whether nothing was written since [`Self::begin`] returned `start`.
    pub(crate) fn is_empty_since(&self, start: usize) -> bool {
        self.0.len() == start
    }

    /// Writes the length of the body that starts at `start`, moving the body if one byte is not enough.
    pub(crate) fn finish(&mut self, start: usize) {
        let length = self.0.len() - start;
        if let Ok(byte @ 0..0x80) = u8::try_from(length) {
            self.0[start - 1] = byte;
            return;
        }
        let more = encoded_len_varint(length as u64) - 1;
        self.0.resize(self.0.len() + more, 0);
        self.0.copy_within(start..start + length, start + more);
        let mut place = &mut self.0[start - 1..start + more];
        encode_varint(length as u64, &mut place);
    }
}

/// The sentence for a value that cannot be of this kind.
pub(crate) fn wrong(kind: Kind, found: Begins) -> Box<Misfit> {
    let expected = match kind {
        Kind::Double | Kind::Float => "a number, \"NaN\", \"Infinity\" or \"-Infinity\"",
        Kind::Bool => "true or false",
        Kind::String => "a string",
        Kind::Bytes => "a string of base64",
        Kind::Enum(_) => "the name or the number of an enum value",
        Kind::Null => "null",
        Kind::Message(_) => "a message",
        _ => "an integer",
    };
    Misfit::new(format!("expected {expected}, found {}", found.noun()))
}

fn out_of_range(kind: Kind) -> Box<Misfit> {
    let what = match kind {
        Kind::Double => "a 64-bit float",
        Kind::Float => "a 32-bit float",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a signed 32-bit integer",
        Kind::Uint32 | Kind::Fixed32 => "an unsigned 32-bit integer",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a signed 64-bit integer",
        Kind::Uint64 | Kind::Fixed64 => "an unsigned 64-bit integer",
        _ => "an enum value",
    };
    Misfit::new(format!("the number is out of the range of {what}"))
}
