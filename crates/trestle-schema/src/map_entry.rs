//! Entries of maps on the wire, and which of them count.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::{
    misfit::Fit,
    plan::{FieldPlan, Kind, MessagePlan},
    well_formed::check_wire_type,
    wire::{Fields, Raw},
};

/// Maps up to this size are searched for a repeated key by comparing each with each.
const FEW_ENTRIES: usize = 8;

/// One entry of a map.
pub(crate) struct Entry<'w> {
    pub key: Key<'w>,
    /// `None` if it is not on the wire: the default.
    pub value: Option<Raw<'w>>,
    /// Whether the value came in several parts.
    pub merged: bool,
    pub wire: &'w [u8],
}

/// A map's key; equal keys are equal here, however they were written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key<'w> {
    Number(u64),
    Text(&'w [u8]),
}

impl<'w> Entry<'w> {
    pub(crate) fn read(plan: &MessagePlan, key_field: &FieldPlan, wire: &'w [u8]) -> Fit<Self> {
        let no_key = if key_field.kind == Kind::String { Key::Text(&[]) } else { Key::Number(0) };
        let mut entry = Self { key: no_key, value: None, merged: false, wire };
        let mut fields = Fields::new(wire);
        while let Some((number, raw)) = fields.next()? {
            let Some(n) = plan.by_number(number) else { continue };
            check_wire_type(&plan.fields[n], raw)?;
            if n == 0 {
                entry.key = Key::of(key_field.kind, raw);
            } else {
                entry.merged = entry.value.is_some() && matches!(plan.fields[n].kind, Kind::Message(_));
                entry.value = Some(raw);
            }
        }
        Ok(entry)
    }
}

impl<'w> Key<'w> {
    fn of(kind: Kind, raw: Raw<'w>) -> Self {
        match (raw, kind) {
            (Raw::Length(text), _) => Self::Text(text),
            (Raw::Varint(bits), Kind::Bool) => Self::Number(u64::from(bits != 0)),
            // Of 32-bit kinds only the lower half counts.
            (Raw::Varint(bits), Kind::Int32 | Kind::Uint32 | Kind::Sint32) => Self::Number(bits & u64::from(u32::MAX)),
            (Raw::Varint(bits) | Raw::Fixed64(bits), _) => Self::Number(bits),
            (Raw::Fixed32(bits), _) => Self::Number(bits.into()),
            (Raw::Group, _) => Self::Number(0),
        }
    }
}

/// The entries that count: of those with the same key, the last.
pub(crate) fn last_of_each_key<'e, 'w>(entries: &'e [Entry<'w>]) -> Vec<&'e Entry<'w>> {
    if entries.len() <= FEW_ENTRIES {
        let later = |n: usize| entries[n + 1..].iter().any(|other| other.key == entries[n].key);
        return (0..entries.len()).filter(|&n| !later(n)).map(|n| &entries[n]).collect();
    }
    let mut keys = HashSet::with_capacity_and_hasher(entries.len(), RandomState::default());
    let mut kept: Vec<_> = entries.iter().rev().filter(|entry| keys.insert(entry.key)).collect();
    kept.reverse();
    kept
}
