//! Enforces the rules of `buf/validate/validate.proto` (v1.2) on messages of types that are known only at run time.
//!
//! A type's rules are read off its descriptor once and become plans ([`compile`]); a message is then walked along its
//! plan and the first broken rule is named by the id that every implementation of these rules gives it.
//! Standard rules are plain Rust (`number`, `text`, `octets`, `format`, ...); what authors write in CEL, the predefined
//! rules included, is compiled to a tree that reads the message in place (`cel`).
//! Always: a rule that cannot be enforced here is a fault of the set, found when it is loaded; no rule is skipped.

mod cel;
mod closed;
mod collection;
mod compile;
mod datum;
mod field;
mod format;
mod message;
mod net;
mod number;
mod octets;
mod options;
mod rules;
mod text;
mod time;
mod uri;
mod violation;

#[cfg(test)]
mod tests;

use prost_reflect::{DynamicMessage, MessageDescriptor};

use self::message::Plans;
pub(crate) use self::violation::Violation;

/// The rules of one message type and of all types in it, ready to be checked. Cheap to share, never changes.
#[derive(Debug)]
pub(crate) struct Validator {
    /// The first is the type's own.
    plans: Plans,
}

impl Validator {
    /// Compiles the rules of `message`; `Ok(None)` when there are none in it or in any type it can contain.
    ///
    /// # Errors
    /// One sentence for every rule that cannot be enforced, each beginning with the full name of the field, oneof or
    /// message that has it: unknown rules, rules that do not fit the type, expressions that do not compile.
    pub(crate) fn compile(message: &MessageDescriptor) -> Result<Option<Validator>, Vec<String>> {
        let plans = compile::compile(message)?;
        Ok(plans.map(|plans| Validator { plans }))
    }

    /// Checks `message`, which must be of the type the validator was compiled for.
    ///
    /// # Errors
    /// The first rule that is broken; fields are looked at in the order of their numbers, depth first.
    pub(crate) fn check(&self, message: &DynamicMessage) -> Result<(), Violation> {
        self.plans.check(0, message)
    }
}
