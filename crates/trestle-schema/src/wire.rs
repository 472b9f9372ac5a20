//! Wire bytes to fields, without knowing their types.

use crate::misfit::{Fit, Misfit};

/// Most groups within each other in what is skipped, as protobuf's own decoders have it.
const GROUP_DEPTH_MAX: usize = 100;
/// Highest field number: 29 bits.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
    Group = 3,
    Fixed32 = 5,
}

/// A value as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Length(&'a [u8]),
    /// A group with all that it holds: skipped, since no type that is served has one.
    Group,
    Fixed32(u32),
}

impl Raw<'_> {
    /// How the value is written.
    pub(crate) fn wire_type(self) -> WireType {
        match self {
            Self::Varint(_) => WireType::Varint,
            Self::Fixed64(_) => WireType::Fixed64,
            Self::Length(_) => WireType::Length,
            Self::Group => WireType::Group,
            Self::Fixed32(_) => WireType::Fixed32,
        }
    }
}

/// The fields of one message, in the order they are written.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// How many bytes are not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next field's number and value; `None` at the end.
    pub(crate) fn next(&mut self) -> Fit<Option<(u32, Raw<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            4 => return Err(Misfit::new(format!("a group ends that did not begin (field {number})"))),
            3 => {
                self.skip_group(number)?;
                Raw::Group
            }
            _ => self.value(wire_type)?,
        };
        Ok(Some((number, value)))
    }

    fn key(&mut self) -> Fit<(u32, u64)> {
        let key = varint(&mut self.rest)?;
        let number = key >> 3;
        if number == 0 || number > NUMBER_MAX {
            return Err(Misfit::new(format!("{number} is not a field number")));
        }
        Ok((u32::try_from(number).expect("at most 29 bits"), key & 7))
    }

    fn value(&mut self, wire_type: u64) -> Fit<Raw<'a>> {
        Ok(match wire_type {
            0 => Raw::Varint(varint(&mut self.rest)?),
            1 => Raw::Fixed64(fixed64(&mut self.rest)?),
            2 => {
                let length = varint(&mut self.rest)?;
                let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
                let (value, rest) = split.ok_or_else(cut)?;
                self.rest = rest;
                Raw::Length(value)
            }
            5 => Raw::Fixed32(fixed32(&mut self.rest)?),
            other => return Err(Misfit::new(format!("{other} is not a wire type"))),
        })
    }

    /// Skips what is left of the group with this number.
    fn skip_group(&mut self, number: u32) -> Fit {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, wire_type) = self.key()?;
            match wire_type {
                3 if open.len() == GROUP_DEPTH_MAX => return Err(Misfit::too_deep(GROUP_DEPTH_MAX)),
                3 => open.push(number),
                4 if number != innermost => return Err(Misfit::new("a group ends that did not begin")),
                4 => {
                    open.pop();
                }
                _ => {
                    self.value(wire_type)?;
                }
            }
        }
        Ok(())
    }
}

/// The values of a packed list of `wire_type`, which is not [`WireType::Length`].
pub(crate) struct Packed<'a> {
    rest: &'a [u8],
    wire_type: WireType,
}

impl<'a> Packed<'a> {
    pub(crate) fn new(list: &'a [u8], wire_type: WireType) -> Self {
        Self { rest: list, wire_type }
    }

    /// The next value; `None` at the end.
    pub(crate) fn next(&mut self) -> Fit<Option<Raw<'a>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.wire_type {
            WireType::Fixed64 => Raw::Fixed64(fixed64(&mut self.rest)?),
            WireType::Fixed32 => Raw::Fixed32(fixed32(&mut self.rest)?),
            WireType::Varint | WireType::Length | WireType::Group => Raw::Varint(varint(&mut self.rest)?),
        }))
    }
}

fn varint(rest: &mut &[u8]) -> Fit<u64> {
    if let [first, after @ ..] = *rest
        && *first < 0x80
    {
        *rest = after;
        return Ok(u64::from(*first));
    }
    prost::encoding::decode_varint(rest)
        .map_err(|_| Misfit::new("a number on the wire is cut off or longer than 10 bytes"))
}

/// A `sint32` or `sint64` out of its varint.
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn fixed64(rest: &mut &[u8]) -> Fit<u64> {
    let (value, after) = rest.split_first_chunk().ok_or_else(cut)?;
    *rest = after;
    Ok(u64::from_le_bytes(*value))
}

fn fixed32(rest: &mut &[u8]) -> Fit<u32> {
    let (value, after) = rest.split_first_chunk().ok_or_else(cut)?;
    *rest = after;
    Ok(u32::from_le_bytes(*value))
}

fn cut() -> Box<Misfit> {
    Misfit::new("the bytes end within a value")
}
