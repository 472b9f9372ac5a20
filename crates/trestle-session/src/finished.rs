//! What outboxes, rings and sockets hold of a message: its finished frame, and its label.

use std::{ops::Deref, sync::Arc};

use trestle_codec::Encoded;

use crate::Label;

/// A finished frame with its label; without one it is an answer of the gateway.
///
/// One for each message and encoding, shared by all who get it: a clone is one pointer and one count, which matters where a
/// message has ten thousand receivers on all processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    frame: Encoded,
    label: Option<Label>,
}

impl Finished {
    /// The frame of a message.
    #[must_use]
    pub fn labelled(frame: Encoded, label: Label) -> Self {
        Self(Arc::new(Inner { frame, label: Some(label) }))
    }

    /// What is known of the message; `None` for an answer of the gateway.
    #[must_use]
    pub fn label(&self) -> Option<&Label> {
        self.0.label.as_ref()
    }
}

impl From<Encoded> for Finished {
    /// An answer of the gateway.
    fn from(frame: Encoded) -> Self {
        Self(Arc::new(Inner { frame, label: None }))
    }
}

impl AsRef<Encoded> for Finished {
    fn as_ref(&self) -> &Encoded {
        &self.0.frame
    }
}

impl Deref for Finished {
    type Target = Encoded;

    fn deref(&self) -> &Encoded {
        &self.0.frame
    }
}
