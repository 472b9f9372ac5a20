//! A message on its way out.

use bytes::Bytes;
use trestle_wire::v1;

/// A message to send, to publish or to ask with.
///
/// It has an id from the beginning: sending the same one again, after a timeout or on another connection, is the same
/// message to the gateway, which then does not do it twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    envelope: v1::Envelope,
    idempotent: bool,
}

impl Outgoing {
    /// A message of a type, named in full (`shop.v1.OrderPaid`) or by its alias (`ORDER_PAID`), with its protobuf.
    #[must_use]
    pub fn new(message_type: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        let envelope = v1::Envelope {
            id: v1::Envelope::new_id(),
            message_type: message_type.into(),
            payload: payload.into(),
            ..Default::default()
        };
        Self { envelope, idempotent: false }
    }

    /// A message from its generated type.
    #[must_use]
    pub fn of<M: prost::Message + prost::Name>(message: &M) -> Self {
        Self::new(M::full_name(), message.encode_to_vec())
    }

    /// Asks for this version of the type; without, the gateway takes the highest.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.envelope.version = version.into();
        self
    }

    /// Replaces the id, which deduplicates: 1 to 128 bytes without control characters.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.envelope.id = id.into();
        self
    }

    /// Adds a header; keys are lower case.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.envelope.headers.insert(key.into(), value.into());
        self
    }

    /// Continues a trace, by its W3C `traceparent`.
    #[must_use]
    pub fn traceparent(self, traceparent: impl Into<String>) -> Self {
        self.header("traceparent", traceparent)
    }

    /// Says that asking twice does no harm: a request whose answer was lost is then repeated. Messages that are sent or
    /// published need no such word, their id keeps them from being done twice.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// The envelope as it goes out.
    #[must_use]
    pub fn envelope(&self) -> &v1::Envelope {
        &self.envelope
    }

    pub(crate) fn into_envelope(self) -> v1::Envelope {
        self.envelope
    }
}
