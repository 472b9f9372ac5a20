//! Whether a new set still serves what clients and services of the old one use.
//!
//! Adding is always fine. What is gone or means something else is a fault: a client that is connected now would find its
//! frames refused, or worse, read wrongly.

use std::collections::HashSet;

use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::{
    Catalogue, MessageType,
    catalogue::{fault_at, fault_of},
    fault::Fault,
};

/// Everything in which `new` breaks what `old` serves.
pub(crate) fn breaks(old: &Catalogue, new: &Catalogue) -> Vec<Fault> {
    let mut check = Check { faults: Vec::new(), seen: HashSet::new() };
    for served in old.types() {
        check.names(served, new);
        match new.get(served.full_name()) {
            Some(next) => check.message(served.descriptor(), next.descriptor()),
            None => {
                check.faults.push(Fault::of_set(format!("{} is served and missing in the new set", served.full_name())))
            }
        }
    }
    check.faults
}

struct Check {
    faults: Vec<Fault>,
    /// Full names of the enums and messages compared, since types share them.
    seen: HashSet<String>,
}

impl Check {
    /// What clients call the type must still find a type, and a service.
    fn names(&mut self, served: &MessageType, new: &Catalogue) {
        let Some(next) = new.get(served.full_name()) else { return };
        let resolved = served.alias().is_none_or(|alias| new.resolve(alias, served.version()).is_ok());
        if !resolved {
            let (alias, version) = (served.alias().unwrap_or_default(), served.version());
            let what = format!("alias {alias} version {version} is served and missing in the new set");
            self.faults.push(fault_of(next.descriptor(), &what));
        } else if next.parsed_version != served.parsed_version {
            let what = format!("version {} is served and is {} in the new set", served.version(), next.version());
            self.faults.push(fault_of(next.descriptor(), &what));
        }
        if served.route().is_some() && next.route().is_none() {
            self.faults.push(fault_of(next.descriptor(), "its route is served and missing in the new set"));
        }
    }

    fn message(&mut self, old: &MessageDescriptor, new: &MessageDescriptor) {
        if !self.seen.insert(old.full_name().to_owned()) {
            return;
        }
        for field in old.fields() {
            match new.get_field(field.number()) {
                Some(next) => self.field(&field, &next),
                None => {
                    let what = match new.get_field_by_name(field.name()) {
                        Some(moved) => {
                            format!("field {} has number {} and gets {}", field.name(), field.number(), moved.number())
                        }
                        None => format!("field {} ({}) is served and removed", field.name(), field.number()),
                    };
                    self.faults.push(fault_of(new, &what));
                }
            }
        }
    }

    fn field(&mut self, old: &FieldDescriptor, new: &FieldDescriptor) {
        let mut fault = |what: String| {
            let message = new.parent_message();
            self.faults.push(fault_at(message, &[new.path().strip_prefix(message.path()).unwrap_or(&[1])], &what));
        };
        let name = old.name();
        if new.json_name() != old.json_name() {
            fault(format!(
                "field {name} ({}) is called {} in JSON and gets {}",
                old.number(),
                old.json_name(),
                new.json_name()
            ));
        }
        if shape(old) != shape(new) {
            fault(format!("field {name} is {} and gets {}", shape(old), shape(new)));
        } else if kind(old) != kind(new) {
            fault(format!("field {name} is of type {} and gets {}", kind(old), kind(new)));
        } else {
            self.within(&old.kind(), &new.kind());
        }
    }

    /// Types that a field holds and that are not themselves message types of the company: enums and maps' entries.
    fn within(&mut self, old: &Kind, new: &Kind) {
        match (old, new) {
            (Kind::Enum(old), Kind::Enum(new)) => self.values(old, new),
            (Kind::Message(old), Kind::Message(new)) => self.message(old, new),
            _ => {}
        }
    }

    fn values(&mut self, old: &EnumDescriptor, new: &EnumDescriptor) {
        if !self.seen.insert(old.full_name().to_owned()) {
            return;
        }
        for value in old.values() {
            let what = match new.get_value_by_name(value.name()) {
                Some(next) if next.number() == value.number() => continue,
                Some(next) => format!("value {} is {} and gets {}", value.name(), value.number(), next.number()),
                None => format!("value {} ({}) is served and removed", value.name(), value.number()),
            };
            let what = format!("{}: {what}", new.full_name());
            self.faults.push(Fault::of_file(new.parent_file().name(), what));
        }
    }
}

fn shape(field: &FieldDescriptor) -> &'static str {
    match field.cardinality() {
        _ if field.is_map() => "a map",
        Cardinality::Repeated => "repeated",
        Cardinality::Required => "required",
        Cardinality::Optional => "singular",
    }
}

/// The type as the schema spells it; a map by its key and value.
fn kind(field: &FieldDescriptor) -> String {
    let named = |kind: &Kind| match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(one) => one.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    };
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let part = |field: FieldDescriptor| named(&field.kind());
            format!("map<{}, {}>", part(entry.map_entry_key_field()), part(entry.map_entry_value_field()))
        }
        kind => named(&kind),
    }
}
