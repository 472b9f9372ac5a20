//! What a message that breaks a rule is told: where, which rule, and a sentence.

/// The first rule a message breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path of the field, such as `lines[2].qty` or `labels["a"]`; empty for a rule of the whole message.
    pub field: String,
    /// Id of the rule, such as `string.min_len`, or the id its author gave it.
    pub rule: String,
    /// What the value must be, as a sentence without a full stop.
    pub message: String,
}

impl Violation {
    /// A broken `rule` at the value being looked at; those who hold the value add their step with [`Violation::under`].
    pub(super) fn new(rule: impl Into<String>, message: impl Into<String>) -> Violation {
        Violation { field: String::new(), rule: rule.into(), message: message.into() }
    }

    /// The same, seen from the holder that reaches the value by `step` (a field's name, or `[index]`).
    pub(super) fn under(mut self, step: &str) -> Violation {
        self.field = match self.field.as_str() {
            "" => step.to_owned(),
            rest if rest.starts_with('[') => format!("{step}{rest}"),
            rest => format!("{step}.{rest}"),
        };
        self
    }
}

/// What every check answers.
pub(super) type Checked = Result<(), Violation>;
