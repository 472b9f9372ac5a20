//! Where and how a payload does not fit its type.

use trestle_wire::{Reason, Refusal};

/// Longest name or key shown in a path: keys come from outside and may be a megabyte.
const SHOWN_CHARS_MAX: usize = 64;

/// What a check or a transcoding gives.
///
/// Boxed, because it is returned through every level and almost never made.
pub(crate) type Fit<T = ()> = Result<T, Box<Misfit>>;

/// A payload that does not fit. Its path is gathered on the way out, so that a payload that fits pays nothing for it.
#[derive(Debug)]
pub(crate) struct Misfit {
    reason: Reason,
    what: String,
    /// Innermost first.
    path: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Index(usize),
    Key(String),
}

impl Misfit {
    /// A payload that is wrong; `what` is the sentence for whoever sent it.
    pub(crate) fn new(what: impl Into<String>) -> Box<Self> {
        Box::new(Self { reason: Reason::MalformedPayload, what: what.into(), path: Vec::new() })
    }

    /// A payload that is nested more than `most` messages deep.
    pub(crate) fn too_deep(most: usize) -> Box<Self> {
        let what = format!("messages are nested more than {most} deep");
        Box::new(Self { reason: Reason::TooDeep, what, path: Vec::new() })
    }

    /// It is within this field.
    pub(crate) fn in_field(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.path.push(Step::Field(shown(name)));
        self
    }

    /// It is within this element of a list, from 0.
    pub(crate) fn at_index(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.path.push(Step::Index(index));
        self
    }

    /// It is within the value of this key of a map.
    pub(crate) fn at_key(mut self: Box<Self>, key: &str) -> Box<Self> {
        self.path.push(Step::Key(shown(key)));
        self
    }

    fn path(&self) -> String {
        let mut path = String::from("payload");
        for step in self.path.iter().rev() {
            match step {
                Step::Field(name) => path.extend([".", name]),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Key(key) => path.push_str(&format!("[{key:?}]")),
            }
        }
        path
    }
}

impl From<Box<Misfit>> for Refusal {
    fn from(misfit: Box<Misfit>) -> Self {
        let path = misfit.path();
        Self::new(misfit.reason, misfit.what).field(path)
    }
}

/// The beginning of a name from outside.
pub(crate) fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_reads_from_the_outside_in() {
        let misfit =
            Misfit::new("is wrong").in_field("qty").at_index(2).in_field("lines").at_key("a.b").in_field("orders");
        let refusal = Refusal::from(misfit);
        assert_eq!(refusal.field.as_deref(), Some(r#"payload.orders["a.b"].lines[2].qty"#));
        assert_eq!(refusal.reason, Reason::MalformedPayload);
    }
}
