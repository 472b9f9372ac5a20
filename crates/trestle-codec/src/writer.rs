//! JSON text, written field by field: server frames have few shapes, and none needs a tree.

use std::fmt::Display;
use std::io::Write as _;

/// An object being written; [`end`](Self::end) closes it.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    pub(crate) fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }

    /// Writes the name; the caller writes the value behind it. Names are the protocol's own and need no escapes.
    pub(crate) fn field(&mut self, name: &'static str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Writes the field by `write`, or, if that fails halfway, leaves the object as it was.
    pub(crate) fn attempt<E>(
        &mut self,
        name: &'static str,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (length, empty) = (self.out.len(), self.empty);
        write(self.field(name)).inspect_err(|_| {
            self.out.truncate(length);
            self.empty = empty;
        })
    }

    pub(crate) fn object(&mut self, name: &'static str) -> Object<'_> {
        Object::begin(self.field(name))
    }

    /// An array of objects, each written and ended by `write`.
    pub(crate) fn objects<T>(&mut self, name: &'static str, values: &[T], write: impl Fn(Object<'_>, &T)) {
        let out = self.field(name);
        out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index != 0 {
                out.push(b',');
            }
            write(Object::begin(out), value);
        }
        out.push(b']');
    }

    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        write_text(self.field(name), value);
    }

    /// Text, unless it is empty.
    pub(crate) fn text_if(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    pub(crate) fn boolean(&mut self, name: &'static str, value: bool) {
        self.field(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A 32-bit number, as a number; 64-bit ones go as [`quoted`](Self::quoted), since JavaScript would round them.
    pub(crate) fn number(&mut self, name: &'static str, value: i64) {
        let _ = write!(self.field(name), "{value}"); // a Vec takes all
    }

    /// What prints as itself and needs no escapes, in quotes: 64-bit numbers, times, durations.
    pub(crate) fn quoted(&mut self, name: &'static str, value: impl Display) {
        let _ = write!(self.field(name), "\"{value}\""); // a Vec takes all
    }

    /// A 64-bit number in quotes, unless it is 0.
    pub(crate) fn quoted_if(&mut self, name: &'static str, value: u64) {
        if value != 0 {
            self.quoted(name, value);
        }
    }

    /// A field named by someone else.
    pub(crate) fn entry(&mut self, name: &str, value: &str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        write_text(self.out, name);
        self.out.push(b':');
        write_text(self.out, value);
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // A Vec takes all, and text is always JSON.
    let _ = serde_json::to_writer(out, text);
}
