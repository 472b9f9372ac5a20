//! Canonical proto3 JSON to wire bytes, in one pass and without a tree.
//!
//! In comes the JSON of one message, out go its wire bytes, in the order of the JSON's keys. Every key is known to the type
//! and comes once, every value is in the range of its field, and nothing is nested deeper than [`MESSAGE_DEPTH_MAX`].

use bytes::Bytes;

use crate::{
    bits::Bits,
    json_number::is_number,
    json_reader::{Begins, Reader},
    misfit::{Fit, Misfit, shown},
    plan::{FieldPlan, Kind, MESSAGE_DEPTH_MAX, MessageId, MessagePlan, Plans, Shape, WellKnown},
    well_known,
    wire_writer::{Slot, WireWriter, wrong},
};

/// The wire bytes of the message of type `id` whose JSON this is.
pub(crate) fn json_to_protobuf(plans: &Plans, id: MessageId, json: &[u8]) -> Fit<Bytes> {
    // What is written is seldom longer than its JSON: a key costs a byte or two there, its name and quotes here.
    let mut writer = Writer { plans, json: Reader::new(json)?, out: WireWriter::with_capacity(json.len()) };
    writer.message(id, 1)?;
    writer.json.end()?;
    Ok(writer.out.into_bytes())
}

struct Writer<'p, 'j> {
    plans: &'p Plans,
    json: Reader<'j>,
    out: WireWriter,
}

impl<'p> Writer<'p, '_> {
    /// The body of a message, `depth` messages deep.
    fn message(&mut self, id: MessageId, depth: usize) -> Fit {
        let plan = &self.plans[id];
        if depth > MESSAGE_DEPTH_MAX {
            return Err(Misfit::too_deep(MESSAGE_DEPTH_MAX));
        }
        match plan.well_known {
            None | Some(WellKnown::Empty) => {
                self.open(Begins::Object, || format!("an object of {}", plan.full_name))?;
                self.fields(plan, depth, None)
            }
            Some(WellKnown::Any) => self.any(depth),
            Some(WellKnown::Timestamp) => self.text_form(well_known::parse_timestamp),
            Some(WellKnown::Duration) => self.text_form(well_known::parse_duration),
            Some(WellKnown::FieldMask) => self.text_form(well_known::parse_mask),
            Some(WellKnown::Struct) => {
                let Shape::Map { entry } = plan.fields[0].shape else { return Err(Misfit::new("Struct has no map")) };
                self.open(Begins::Object, || "an object".to_owned())?;
                self.map(&self.plans[entry], &plan.fields[0].key, depth)
            }
            Some(WellKnown::ListValue) => {
                self.open(Begins::Array, || "an array".to_owned())?;
                self.list(plan.fields[0].kind, &plan.fields[0].key, depth)
            }
            Some(WellKnown::Value) => self.value_message(plan, depth),
            Some(WellKnown::Wrapper) => {
                let field = &plan.fields[0];
                self.value(field.kind, Slot { key: &field.key, omit_default: true }, depth)
            }
        }
    }

    /// The fields of an object whose `{` is taken, but for the key `except`.
    fn fields(&mut self, plan: &'p MessagePlan, depth: usize, except: Option<&str>) -> Fit {
        let (mut seen, mut oneofs) = (Bits::default(), Bits::default());
        let (mut first, mut expected) = (true, 0);
        while let Some(key) = self.json.key(first)? {
            first = false;
            if except == Some(&*key) {
                self.json.skip()?;
                continue;
            }
            let Some(n) = plan.by_name(&key, expected) else {
                return Err(Misfit::new(format!("{} has no such field", plan.full_name)).in_field(&key));
            };
            expected = n + 1;
            let field = &plan.fields[n];
            if !seen.insert(n) {
                return Err(Misfit::new("the field is given twice").in_field(&key));
            }
            let set = self.field(field, depth).map_err(|misfit| misfit.in_field(&field.json_name))?;
            if set && field.oneof.is_some_and(|oneof| !oneofs.insert(oneof)) {
                return Err(Misfit::new("another field of the same oneof is given too").in_field(&key));
            }
        }
        match plan.required.iter().find(|&&n| !seen.contains(n)) {
            Some(&n) => Err(Misfit::new("the field is required").in_field(&plan.fields[n].json_name)),
            None => Ok(()),
        }
    }

    /// One field's value; says whether it was set, which `null` does not do.
    fn field(&mut self, field: &'p FieldPlan, depth: usize) -> Fit<bool> {
        let begins = self.json.peek()?;
        if begins == Begins::Null && !(field.shape == Shape::One && self.takes_null(field.kind)) {
            self.json.word("null")?;
            return Ok(false);
        }
        match field.shape {
            Shape::One => {
                let slot = Slot { key: &field.key, omit_default: !field.presence };
                self.value(field.kind, slot, depth)?;
            }
            Shape::Many { packed } => {
                self.open(Begins::Array, || "an array".to_owned())?;
                if packed { self.packed(field, depth)? } else { self.list(field.kind, &field.key, depth)? }
            }
            Shape::Map { entry } => {
                self.open(Begins::Object, || "an object".to_owned())?;
                self.map(&self.plans[entry], &field.key, depth)?;
            }
        }
        Ok(true)
    }

    fn takes_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Null => true,
            Kind::Message(id) => self.plans[id].well_known == Some(WellKnown::Value),
            _ => false,
        }
    }

    fn packed(&mut self, field: &'p FieldPlan, depth: usize) -> Fit {
        let start = self.out.begin(&field.key);
        self.list(field.kind, &[], depth)?;
        if self.out.is_empty_since(start) {
            self.out.forget(&field.key); // an empty list is no field
        } else {
            self.out.finish(start);
        }
        Ok(())
    }

    /// The elements of an array whose `[` is taken, each after `key`.
    fn list(&mut self, kind: Kind, key: &'p [u8], depth: usize) -> Fit {
        let mut index = 0;
        while self.json.element(index == 0)? {
            self.value(kind, Slot::always(key), depth).map_err(|misfit| misfit.at_index(index))?;
            index += 1;
        }
        Ok(())
    }

    /// The entries of an object whose `{` is taken, each after `key`.
    fn map(&mut self, entry: &'p MessagePlan, key: &'p [u8], depth: usize) -> Fit {
        let [key_field, value_field] = &entry.fields[..] else { return Err(Misfit::new("the map has no entries")) };
        let mut first = true;
        while let Some(text) = self.json.key(first)? {
            first = false;
            let start = self.out.begin(key);
            self.map_key(key_field, &text)
                .and_then(|()| self.value(value_field.kind, Slot::always(&value_field.key), depth))
                .map_err(|misfit| misfit.at_key(&text))?;
            self.out.finish(start);
        }
        Ok(())
    }

    fn map_key(&mut self, field: &'p FieldPlan, text: &str) -> Fit {
        let slot = Slot::always(&field.key);
        match (field.kind, text) {
            (Kind::String, text) => self.out.bytes(slot, text.as_bytes()),
            (Kind::Bool, "true") => self.out.varint(slot, 1),
            (Kind::Bool, "false") => self.out.varint(slot, 0),
            (Kind::Bool, _) => return Err(Misfit::new("expected the key \"true\" or \"false\"")),
            (kind, text) if is_number(text) => self.out.integer(kind, slot, text)?,
            _ => return Err(Misfit::new("expected an integer as the key")),
        }
        Ok(())
    }

    /// One value in its slot.
    fn value(&mut self, kind: Kind, slot: Slot<'p>, depth: usize) -> Fit {
        let begins = self.json.peek()?;
        match (kind, begins) {
            (Kind::Message(id), _) => self.nested(id, slot, depth)?,
            (Kind::String, Begins::String) => {
                let text = self.json.string()?;
                self.out.bytes(slot, text.as_bytes());
            }
            (Kind::Bytes, Begins::String) => {
                let text = self.json.string()?;
                self.out.base64(slot, &text)?;
            }
            (Kind::Bool, Begins::True) => {
                self.json.word("true")?;
                self.out.varint(slot, 1);
            }
            (Kind::Bool, Begins::False) => {
                self.json.word("false")?;
                self.out.varint(slot, 0);
            }
            (Kind::Double | Kind::Float, Begins::Number) => {
                let text = self.json.number()?;
                self.out.float(kind, slot, text)?;
            }
            (Kind::Double | Kind::Float, Begins::String) => {
                let text = self.json.string()?;
                self.out.float(kind, slot, &text)?;
            }
            (Kind::Enum(id), Begins::String) => {
                let name = self.json.string()?;
                let plan = &self.plans[id];
                let number = plan
                    .number(&name)
                    .ok_or_else(|| Misfit::new(format!("{} has no value {:?}", plan.full_name, shown(&name))))?;
                self.out.varint(slot, i64::from(number).cast_unsigned());
            }
            (Kind::Null, Begins::Null) => {
                self.json.word("null")?;
                self.out.varint(slot, 0);
            }
            (Kind::Null, Begins::String) => match &*self.json.string()? {
                "NULL_VALUE" => self.out.varint(slot, 0),
                _ => return Err(wrong(kind, begins)),
            },
            (Kind::String | Kind::Bytes | Kind::Bool, _) => return Err(wrong(kind, begins)),
            (_, Begins::Number) => {
                let text = self.json.number()?;
                self.out.integer(kind, slot, text)?;
            }
            (Kind::Double | Kind::Float | Kind::Enum(_) | Kind::Null, _) => return Err(wrong(kind, begins)),
            (_, Begins::String) => match &*self.json.string()? {
                text if is_number(text) => self.out.integer(kind, slot, text)?,
                _ => return Err(wrong(kind, begins)),
            },
            _ => return Err(wrong(kind, begins)),
        }
        Ok(())
    }

    fn nested(&mut self, id: MessageId, slot: Slot<'p>, depth: usize) -> Fit {
        let start = self.out.begin(slot.key);
        // A Value counts with the Struct or ListValue in it.
        let own = usize::from(self.plans[id].well_known != Some(WellKnown::Value));
        self.message(id, depth + own)?;
        self.out.finish(start);
        Ok(())
    }

    /// The body of a `google.protobuf.Value`.
    fn value_message(&mut self, plan: &'p MessagePlan, depth: usize) -> Fit {
        let number = match self.json.peek()? {
            Begins::Null => 1,
            Begins::Number => 2,
            Begins::String => 3,
            Begins::True | Begins::False => 4,
            Begins::Object => 5,
            Begins::Array => 6,
        };
        let field = plan.by_number(number).map(|n| &plan.fields[n]);
        let field = field.ok_or_else(|| Misfit::new("google.protobuf.Value lacks a field in this schema"))?;
        self.value(field.kind, Slot::always(&field.key), depth)
    }

    /// The body of a `google.protobuf.Any`: `@type` says how the rest is read, wherever it stands.
    fn any(&mut self, depth: usize) -> Fit {
        self.open(Begins::Object, || "an object with \"@type\"".to_owned())?;
        let place = self.json.place();
        let Some(url) = self.type_url()? else { return Ok(()) };
        let id = url.rsplit_once('/').and_then(|(_, name)| self.plans.find(name)).ok_or_else(|| {
            Misfit::new(format!("{:?} is not <prefix>/<full name of a known type>", shown(&url))).in_field("@type")
        })?;
        self.out.bytes(Slot { key: &[0x0a], omit_default: true }, url.as_bytes());
        self.json.rewind(place);
        let start = self.out.begin(&[0x12]);
        if depth >= MESSAGE_DEPTH_MAX {
            return Err(Misfit::too_deep(MESSAGE_DEPTH_MAX));
        }
        match self.plans[id].well_known {
            None => self.fields(&self.plans[id], depth + 1, Some("@type"))?,
            Some(_) => self.any_value(id, depth + 1)?,
        }
        self.out.finish(start);
        Ok(())
    }

    /// Reads the whole object for its `@type`; `None` for an empty object, which is an empty Any.
    fn type_url(&mut self) -> Fit<Option<String>> {
        let (mut url, mut first) = (None, true);
        while let Some(key) = self.json.key(first)? {
            first = false;
            if key != "@type" {
                self.json.skip()?;
            } else if url.is_some() {
                return Err(Misfit::new("the field is given twice").in_field("@type"));
            } else if self.json.peek()? == Begins::String {
                url = Some(self.json.string()?.into_owned());
            } else {
                return Err(Misfit::new("expected a string").in_field("@type"));
            }
        }
        if url.is_none() && !first {
            return Err(Misfit::new("the field is required").in_field("@type"));
        }
        Ok(url)
    }

    /// A type with a JSON form of its own stands under `value` in an Any.
    fn any_value(&mut self, id: MessageId, depth: usize) -> Fit {
        let (mut found, mut first) = (false, true);
        while let Some(key) = self.json.key(first)? {
            first = false;
            match &*key {
                "@type" => self.json.skip()?,
                "value" if !found => {
                    found = true;
                    self.message(id, depth).map_err(|misfit| misfit.in_field("value"))?;
                }
                "value" => return Err(Misfit::new("the field is given twice").in_field("value")),
                other => return Err(Misfit::new("expected only \"@type\" and \"value\"").in_field(other)),
            }
        }
        if found || self.plans[id].well_known == Some(WellKnown::Empty) {
            return Ok(());
        }
        Err(Misfit::new("the field is required").in_field("value"))
    }

    fn text_form<M: prost::Message>(&mut self, parse: impl Fn(&str) -> Result<M, &'static str>) -> Fit {
        let begins = self.json.peek()?;
        if begins != Begins::String {
            return Err(Misfit::new(format!("expected a string, found {}", begins.noun())));
        }
        let message = parse(&self.json.string()?).map_err(Misfit::new)?;
        self.out.append(&message.encode_to_vec());
        Ok(())
    }

    fn open(&mut self, wanted: Begins, noun: impl Fn() -> String) -> Fit {
        let begins = self.json.peek()?;
        if begins != wanted {
            return Err(Misfit::new(format!("expected {}, found {}", noun(), begins.noun())));
        }
        self.json.open();
        Ok(())
    }
}
