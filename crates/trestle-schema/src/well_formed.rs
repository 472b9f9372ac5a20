//! Whether wire bytes are a message of their type, without decoding it.
//!
//! In come wire bytes, out comes yes or where they are wrong. What passes can be decoded by every protobuf library: wire
//! types fit, lengths end where they say, strings are UTF-8, required fields are there, and nothing is nested too deep.

use crate::{
    bits::Bits,
    misfit::{Fit, Misfit},
    plan::{FieldPlan, Kind, MESSAGE_DEPTH_MAX, MessageId, MessagePlan, Plans, Shape, WellKnown},
    wire::{Fields, Packed, Raw, WireType},
};

/// Checks `payload` as a message of type `id`. Fields that the type does not have are only skipped.
pub(crate) fn check(plans: &Plans, id: MessageId, payload: &[u8]) -> Fit {
    message(plans, &plans[id], payload, 1)
}

fn message(plans: &Plans, plan: &MessagePlan, wire: &[u8], depth: usize) -> Fit {
    if depth > MESSAGE_DEPTH_MAX {
        return Err(Misfit::too_deep(MESSAGE_DEPTH_MAX));
    }
    let mut seen = Bits::default();
    let mut fields = Fields::new(wire);
    loop {
        let here = fields.clone();
        let Some((number, raw)) = fields.next()? else { break };
        let Some(n) = plan.by_number(number) else { continue };
        let field = &plan.fields[n];
        value(plans, field, raw, depth).map_err(|misfit| locate(misfit, field, wire, here))?;
        if !plan.required.is_empty() {
            seen.insert(n);
        }
    }
    match plan.required.iter().find(|&&n| !seen.contains(n)) {
        Some(&n) => Err(Misfit::new("the field is required").in_field(&plan.fields[n].json_name)),
        None => Ok(()),
    }
}

fn value(plans: &Plans, field: &FieldPlan, raw: Raw<'_>, depth: usize) -> Fit {
    check_wire_type(field, raw)?;
    match (field.shape, field.kind, raw) {
        // An entry has no field that could hold it, so it counts with its value.
        (Shape::Map { entry }, _, Raw::Length(wire)) => message(plans, &plans[entry], wire, depth),
        (_, Kind::Message(id), Raw::Length(wire)) => {
            let plan = &plans[id];
            // A Value counts with the Struct or ListValue in it.
            let own = usize::from(plan.well_known != Some(WellKnown::Value));
            message(plans, plan, wire, depth + own)
        }
        (_, Kind::String, Raw::Length(bytes)) => text(bytes).map(drop),
        (_, Kind::Bytes, _) => Ok(()),
        (Shape::Many { .. }, kind, Raw::Length(list)) => {
            let mut packed = Packed::new(list, kind.wire_type());
            while packed.next()?.is_some() {}
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Says in which field and element it is; only now are the elements before it counted.
fn locate(misfit: Box<Misfit>, field: &FieldPlan, wire: &[u8], here: Fields<'_>) -> Box<Misfit> {
    // Of what can be packed, many elements may stand at one place.
    let counted = matches!(field.shape, Shape::Many { .. }) && field.kind.wire_type() == WireType::Length;
    let misfit = if counted { misfit.at_index(elements_before(field.number, wire, here)) } else { misfit };
    misfit.in_field(&field.json_name)
}

fn elements_before(number: u32, wire: &[u8], here: Fields<'_>) -> usize {
    let before = &wire[..wire.len() - here.left()];
    let mut fields = Fields::new(before);
    std::iter::from_fn(|| fields.next().ok().flatten()).filter(|(other, _)| *other == number).count()
}

/// Whether a value may stand in this field: in its own form, or packed.
pub(crate) fn check_wire_type(field: &FieldPlan, raw: Raw<'_>) -> Fit {
    let (own, found) = (field.kind.wire_type(), raw.wire_type());
    let packed = matches!(field.shape, Shape::Many { .. }) && found == WireType::Length;
    if found == own || packed {
        return Ok(());
    }
    Err(Misfit::new("the value is not of its field's type"))
}

/// The text of a string field.
pub(crate) fn text(bytes: &[u8]) -> Fit<&str> {
    std::str::from_utf8(bytes)
        .map_err(|error| Misfit::new(format!("the string is not UTF-8 at byte {}", error.valid_up_to())))
}
