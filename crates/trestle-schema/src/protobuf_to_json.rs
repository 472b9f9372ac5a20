//! Wire bytes to canonical proto3 JSON, in one pass and without a tree.
//!
//! In come the wire bytes of one message, out goes its JSON: names in lowerCamelCase, in the order of the field numbers,
//! defaults of fields without presence left out, unknown fields too. Of what is there more than once the last counts, as
//! protobuf has it: values, keys of maps, members of a oneof; messages are merged.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::{
    bits::Bits,
    json_text,
    map_entry::{Entry, Key, last_of_each_key},
    misfit::{Fit, Misfit, shown},
    plan::{FieldPlan, Kind, MESSAGE_DEPTH_MAX, MessageId, MessagePlan, Plans, Shape, WellKnown},
    well_formed::{check_wire_type, text},
    well_known,
    wire::{Fields, Packed, Raw, WireType, unzigzag},
};

/// Writes the JSON of `payload`, a message of type `id`, at the end of `out`. What is written before a fault stays there.
pub(crate) fn protobuf_to_json(plans: &Plans, id: MessageId, payload: &[u8], out: &mut Vec<u8>) -> Fit {
    Printer { plans, out, tokens: Vec::new() }.message(id, payload, 1)
}

struct Printer<'p, 'o, 'w> {
    plans: &'p Plans,
    out: &'o mut Vec<u8>,
    /// The known fields of the messages that are open, each message's above its parent's.
    tokens: Vec<Token<'w>>,
}

/// One known field as it is on the wire.
#[derive(Clone, Copy)]
struct Token<'w> {
    /// Index in the plan.
    field: usize,
    raw: Raw<'w>,
}

impl<'p, 'w> Printer<'p, '_, 'w> {
    /// The JSON of one message, `depth` messages deep.
    fn message(&mut self, id: MessageId, wire: &'w [u8], depth: usize) -> Fit {
        if depth > MESSAGE_DEPTH_MAX {
            return Err(Misfit::too_deep(MESSAGE_DEPTH_MAX));
        }
        let plan = &self.plans[id];
        match plan.well_known {
            None | Some(WellKnown::Empty) => {
                self.out.push(b'{');
                self.fields(plan, wire, depth, true)?;
                self.out.push(b'}');
                Ok(())
            }
            Some(WellKnown::Any) => self.any(wire, depth),
            Some(WellKnown::Timestamp) => self.text_form(wire, well_known::print_timestamp),
            Some(WellKnown::Duration) => self.text_form(wire, well_known::print_duration),
            Some(WellKnown::FieldMask) => self.text_form(wire, well_known::print_mask),
            Some(WellKnown::Struct | WellKnown::ListValue | WellKnown::Wrapper | WellKnown::Value) => {
                self.bare(plan, wire, depth)
            }
        }
    }

    /// A message whose JSON is the value of its one field.
    fn bare(&mut self, plan: &'p MessagePlan, wire: &'w [u8], depth: usize) -> Fit {
        let start = self.gather(plan, wire)?;
        match self.tokens.get(start) {
            Some(token) => {
                let field = &plan.fields[token.field];
                let not_finite = matches!(token.raw, Raw::Fixed64(bits) if !f64::from_bits(bits).is_finite());
                if plan.well_known == Some(WellKnown::Value) && field.kind == Kind::Double && not_finite {
                    return Err(Misfit::new("a google.protobuf.Value cannot be NaN or infinite"));
                }
                self.group(field, start, self.tokens.len(), depth)?;
            }
            None if plan.well_known == Some(WellKnown::Value) => self.out.extend_from_slice(b"null"),
            None => self.empty(&plan.fields[0], depth)?,
        }
        self.tokens.truncate(start);
        Ok(())
    }

    /// The JSON of the one field of a message that has none.
    fn empty(&mut self, field: &FieldPlan, depth: usize) -> Fit {
        match field.shape {
            Shape::Map { .. } => self.out.extend_from_slice(b"{}"),
            Shape::Many { .. } => self.out.extend_from_slice(b"[]"),
            Shape::One => self.default(field.kind, depth)?,
        }
        Ok(())
    }

    /// The fields of an object; `first` if nothing stands before them.
    fn fields(&mut self, plan: &'p MessagePlan, wire: &'w [u8], depth: usize, mut first: bool) -> Fit {
        let start = self.gather(plan, wire)?;
        let mut at = start;
        while let Some(&Token { field: n, .. }) = self.tokens.get(at) {
            let mut end = at + 1;
            while self.tokens.get(end).is_some_and(|token| token.field == n) {
                end += 1;
            }
            let field = &plan.fields[n];
            if !self.is_left_out(field, at, end) {
                if !first {
                    self.out.push(b',');
                }
                first = false;
                self.out.extend_from_slice(&field.json_prefix);
                self.group(field, at, end, depth).map_err(|misfit| misfit.in_field(&field.json_name))?;
            }
            at = end;
        }
        self.tokens.truncate(start);
        Ok(())
    }

    /// Puts the known fields of a message on the stack, sorted by number and otherwise as they came; returns where they begin.
    fn gather(&mut self, plan: &'p MessagePlan, wire: &'w [u8]) -> Fit<usize> {
        let start = self.tokens.len();
        let (mut sorted, mut last, mut contested) = (true, 0, false);
        let mut oneofs = Bits::default();
        let mut fields = Fields::new(wire);
        while let Some((number, raw)) = fields.next()? {
            let Some(n) = plan.by_number(number) else { continue };
            let field = &plan.fields[n];
            check_wire_type(field, raw).map_err(|misfit| misfit.in_field(&field.json_name))?;
            contested |= field.oneof.is_some_and(|oneof| !oneofs.insert(oneof));
            sorted &= last <= n;
            last = n;
            self.tokens.push(Token { field: n, raw });
        }
        if contested {
            self.settle_oneofs(plan, start);
        }
        if !sorted {
            self.tokens[start..].sort_by_key(|token| token.field);
        }
        Ok(start)
    }

    /// Of each oneof only the last member stays, with what it had since another was set.
    fn settle_oneofs(&mut self, plan: &MessagePlan, start: usize) {
        // From the end, so that one pass is enough whatever a client sends.
        let mut winners: HashMap<usize, Option<usize>, RandomState> = HashMap::default();
        let mut kept = self.tokens.split_off(start);
        kept.reverse();
        kept.retain(|token| {
            let Some(oneof) = plan.fields[token.field].oneof else { return true };
            let winner = winners.entry(oneof).or_insert(Some(token.field));
            if *winner != Some(token.field) {
                *winner = None; // before another member nothing counts
            }
            winner.is_some()
        });
        kept.reverse();
        self.tokens.append(&mut kept);
    }

    /// Whether a field is as good as not there: a default without presence, or an empty packed list.
    fn is_left_out(&self, field: &FieldPlan, at: usize, end: usize) -> bool {
        let empty = |raw| matches!(raw, Raw::Varint(0) | Raw::Fixed64(0) | Raw::Fixed32(0) | Raw::Length([]));
        match field.shape {
            Shape::One => !field.presence && empty(self.tokens[end - 1].raw),
            Shape::Many { .. } => {
                let packable = field.kind.wire_type() != WireType::Length;
                packable && self.tokens[at..end].iter().all(|token| token.raw == Raw::Length(&[]))
            }
            Shape::Map { .. } => false,
        }
    }

    /// The value of one field from all its tokens.
    fn group(&mut self, field: &'p FieldPlan, at: usize, end: usize, depth: usize) -> Fit {
        match field.shape {
            Shape::One => self.one(field.kind, at, end, depth),
            Shape::Many { .. } => self.list(field, at, end, depth),
            Shape::Map { entry } => self.map(&self.plans[entry], at, end, depth),
        }
    }

    fn one(&mut self, kind: Kind, at: usize, end: usize, depth: usize) -> Fit {
        match kind {
            Kind::Message(_) if end - at > 1 => {
                // Merging messages is joining their bytes. Rare, so it may have a buffer and a stack of its own.
                let parts = self.tokens[at..end].iter();
                let joined: Vec<u8> = parts.flat_map(|token| body(token.raw).iter().copied()).collect();
                let mut printer = Printer { plans: self.plans, out: &mut *self.out, tokens: Vec::new() };
                printer.value(kind, Raw::Length(&joined), depth)
            }
            _ => self.value(kind, self.tokens[end - 1].raw, depth),
        }
    }

    fn list(&mut self, field: &'p FieldPlan, at: usize, end: usize, depth: usize) -> Fit {
        let unpacked = field.kind.wire_type();
        let mut index = 0;
        self.out.push(b'[');
        for at in at..end {
            let raw = self.tokens[at].raw;
            if raw.wire_type() == unpacked {
                self.element(field.kind, raw, &mut index, depth)?;
            } else {
                let mut packed = Packed::new(body(raw), unpacked);
                while let Some(raw) = packed.next()? {
                    self.element(field.kind, raw, &mut index, depth)?;
                }
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn element(&mut self, kind: Kind, raw: Raw<'w>, index: &mut usize, depth: usize) -> Fit {
        if *index > 0 {
            self.out.push(b',');
        }
        self.value(kind, raw, depth).map_err(|misfit| misfit.at_index(*index))?;
        *index += 1;
        Ok(())
    }

    fn map(&mut self, entry: &'p MessagePlan, at: usize, end: usize, depth: usize) -> Fit {
        let [key_field, value_field] = &entry.fields[..] else { return Err(Misfit::new("the map has no entries")) };
        let entries = (at..end).map(|at| Entry::read(entry, key_field, body(self.tokens[at].raw)));
        let entries = entries.collect::<Fit<Vec<_>>>()?;
        let mut first = true;
        self.out.push(b'{');
        for entry in last_of_each_key(&entries) {
            if !first {
                self.out.push(b',');
            }
            first = false;
            let key_at = self.out.len();
            self.map_key(key_field.kind, entry.key)?;
            let after_key = self.out.len();
            self.out.push(b':');
            let written = match entry.value {
                Some(raw) if !entry.merged => self.value(value_field.kind, raw, depth),
                Some(_) => self.merged_value(value_field, entry.wire, depth),
                None => self.default(value_field.kind, depth),
            };
            written.map_err(|misfit| misfit.at_key(&self.written_key(key_at, after_key)))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// A map's key as it was written, without its quotes.
    fn written_key(&self, from: usize, to: usize) -> String {
        String::from_utf8_lossy(&self.out[from + 1..to - 1]).into_owned()
    }

    /// Keys are always in quotes.
    fn map_key(&mut self, kind: Kind, key: Key<'w>) -> Fit {
        let raw = match (key, kind.wire_type()) {
            (Key::Text(text), _) => Raw::Length(text),
            (Key::Number(bits), WireType::Fixed64) => Raw::Fixed64(bits),
            (Key::Number(bits), WireType::Fixed32) => Raw::Fixed32(bits as u32),
            (Key::Number(bits), _) => Raw::Varint(bits),
        };
        let quoted = matches!(kind, Kind::String) || is_quoted_number(kind);
        if !quoted {
            self.out.push(b'"');
        }
        self.value(kind, raw, MESSAGE_DEPTH_MAX)?;
        if !quoted {
            self.out.push(b'"');
        }
        Ok(())
    }

    /// A map's value that is a message in several parts.
    fn merged_value(&mut self, field: &'p FieldPlan, wire: &'w [u8], depth: usize) -> Fit {
        let start = self.tokens.len();
        let mut fields = Fields::new(wire);
        while let Some((number, raw)) = fields.next()? {
            if number == field.number {
                self.tokens.push(Token { field: 1, raw });
            }
        }
        self.one(field.kind, start, self.tokens.len(), depth)?;
        self.tokens.truncate(start);
        Ok(())
    }

    /// The value of a map's entry that has none.
    fn default(&mut self, kind: Kind, depth: usize) -> Fit {
        let raw = match kind.wire_type() {
            WireType::Varint | WireType::Group => Raw::Varint(0),
            WireType::Fixed64 => Raw::Fixed64(0),
            WireType::Fixed32 => Raw::Fixed32(0),
            WireType::Length => Raw::Length(&[]),
        };
        self.value(kind, raw, depth)
    }

    /// One value.
    fn value(&mut self, kind: Kind, raw: Raw<'w>, depth: usize) -> Fit {
        let bits = match raw {
            Raw::Varint(bits) | Raw::Fixed64(bits) => bits,
            Raw::Fixed32(bits) => bits.into(),
            Raw::Length(_) | Raw::Group => 0,
        };
        if is_quoted_number(kind) {
            self.out.push(b'"');
        }
        match kind {
            Kind::String => json_text::string(text(body(raw))?, self.out),
            Kind::Bytes => json_text::base64(body(raw), self.out),
            Kind::Bool => self.out.extend_from_slice(if bits == 0 { b"false" } else { b"true" }),
            Kind::Int32 | Kind::Sfixed32 => json_text::integer(bits as i32, self.out),
            Kind::Uint32 | Kind::Fixed32 => json_text::integer(bits as u32, self.out),
            Kind::Sint32 => json_text::integer(unzigzag(bits & u64::from(u32::MAX)) as i32, self.out),
            Kind::Int64 | Kind::Sfixed64 => json_text::integer(bits.cast_signed(), self.out),
            Kind::Uint64 | Kind::Fixed64 => json_text::integer(bits, self.out),
            Kind::Sint64 => json_text::integer(unzigzag(bits), self.out),
            Kind::Double => json_text::float(f64::from_bits(bits), self.out),
            Kind::Float => json_text::float(f32::from_bits(bits as u32), self.out),
            Kind::Null => self.out.extend_from_slice(b"null"),
            Kind::Enum(id) => match self.plans[id].quoted_name(bits as i32) {
                Some(name) => self.out.extend_from_slice(name.as_bytes()),
                None => json_text::integer(bits as i32, self.out),
            },
            Kind::Message(id) => {
                // A Value counts with the Struct or ListValue in it.
                let own = usize::from(self.plans[id].well_known != Some(WellKnown::Value));
                self.message(id, body(raw), depth + own)?;
            }
        }
        if is_quoted_number(kind) {
            self.out.push(b'"');
        }
        Ok(())
    }

    fn any(&mut self, wire: &'w [u8], depth: usize) -> Fit {
        let (mut url, mut content): (&str, &[u8]) = ("", &[]);
        let mut fields = Fields::new(wire);
        while let Some((number, raw)) = fields.next()? {
            match (number, raw) {
                (1, Raw::Length(bytes)) => url = text(bytes).map_err(|misfit| misfit.in_field("@type"))?,
                (2, Raw::Length(bytes)) => content = bytes,
                (1 | 2, _) => return Err(Misfit::new("the value is not of its field's type")),
                _ => {}
            }
        }
        if url.is_empty() && content.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        let id = url.rsplit_once('/').and_then(|(_, name)| self.plans.find(name));
        let id = id.ok_or_else(|| {
            Misfit::new(format!("{:?} is not <prefix>/<full name of a known type>", shown(url))).in_field("@type")
        })?;
        if depth >= MESSAGE_DEPTH_MAX {
            return Err(Misfit::too_deep(MESSAGE_DEPTH_MAX));
        }
        self.out.extend_from_slice(b"{\"@type\":");
        json_text::string(url, self.out);
        if self.plans[id].well_known.is_some() {
            self.out.extend_from_slice(b",\"value\":");
            self.message(id, content, depth + 1)?;
        } else {
            self.fields(&self.plans[id], content, depth + 1, false)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn text_form<M>(&mut self, wire: &[u8], print: impl Fn(&M) -> Result<String, &'static str>) -> Fit
    where
        M: prost::Message + Default,
    {
        let message = M::decode(wire).map_err(|error| Misfit::new(error.to_string()))?;
        json_text::string(&print(&message).map_err(Misfit::new)?, self.out);
        Ok(())
    }
}

/// The bytes of a length-delimited value.
fn body(raw: Raw<'_>) -> &[u8] {
    match raw {
        Raw::Length(bytes) => bytes,
        Raw::Varint(_) | Raw::Fixed64(_) | Raw::Fixed32(_) | Raw::Group => &[],
    }
}

/// 64-bit integers are strings, because JavaScript's numbers have 53 bits.
fn is_quoted_number(kind: Kind) -> bool {
    matches!(kind, Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64)
}
