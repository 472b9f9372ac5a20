//! The rules of whole messages: their fields, their oneofs, and what is said of several fields at once.

use prost_reflect::{DynamicMessage, FieldDescriptor, OneofDescriptor};

use super::cel::Program;
use super::datum::Datum;
use super::field::FieldPlan;
use super::violation::{Checked, Violation};

/// The plans of a message type and of all types in it; a plan refers to another by its place here, so types may contain themselves.
#[derive(Debug, Default)]
pub(super) struct Plans(pub(super) Vec<MessagePlan>);

impl Plans {
    /// Checks `message` by the plan at `index`.
    pub(super) fn check(&self, index: usize, message: &DynamicMessage) -> Checked {
        match self.0.get(index) {
            Some(plan) => plan.check(message, self),
            None => Ok(()),
        }
    }
}

/// The rules of one message type.
#[derive(Debug, Default)]
pub(super) struct MessagePlan {
    pub(super) fields: Vec<FieldPlan>,
    pub(super) required_oneofs: Vec<OneofDescriptor>,
    pub(super) groups: Vec<Group>,
    pub(super) cel: Vec<Program>,
}

/// Fields of which at most one, or exactly one, is set: `(buf.validate.message).oneof`.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) fields: Vec<FieldDescriptor>,
    pub(super) required: bool,
}

impl MessagePlan {
    /// Checks `message`: the fields first, as they are named the most exactly, and what costs the most last.
    fn check(&self, message: &DynamicMessage, plans: &Plans) -> Checked {
        for field in &self.fields {
            field.check(message, plans)?;
        }
        for oneof in &self.required_oneofs {
            if !oneof.fields().any(|field| message.has_field(&field)) {
                let violation = Violation::new("required", "exactly one field is required in oneof");
                return Err(violation.under(oneof.name()));
            }
        }
        for group in &self.groups {
            group.check(message)?;
        }
        for rule in &self.cel {
            rule.check(Datum::Message(message))?;
        }
        Ok(())
    }

    /// Whether anything is asked of messages of this type, apart from the messages in them.
    pub(super) fn has_rules(&self) -> bool {
        !self.required_oneofs.is_empty()
            || !self.groups.is_empty()
            || !self.cel.is_empty()
            || self.fields.iter().any(FieldPlan::has_rules)
    }
}

impl Group {
    fn check(&self, message: &DynamicMessage) -> Checked {
        let set = self.fields.iter().filter(|field| message.has_field(field)).count();
        let (before, after) = match set {
            0 if self.required => ("one of", "must be set"),
            0 | 1 => return Ok(()),
            _ => ("only one of", "can be set"),
        };
        let names: Vec<&str> = self.fields.iter().map(FieldDescriptor::name).collect();
        let message = format!("{before} {} {after}", names.join(", "));
        Err(Violation::new("message.oneof", message))
    }
}
