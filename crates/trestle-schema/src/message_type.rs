//! One message type: its names, its way, and what can be done with its messages.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use trestle_wire::{Reason, Refusal};

use crate::{
    route::{Declared, Route},
    validate::Validator,
    version::Version,
};

/// A message type of the company, with everything compiled that its messages need.
pub struct MessageType {
    descriptor: MessageDescriptor,
    alias: Option<String>,
    version: String,
    pub(crate) parsed_version: Version,
    route: Option<Route>,
    validator: Option<Validator>,
}

impl MessageType {
    pub(crate) fn new(descriptor: MessageDescriptor, declared: Option<Declared>, validator: Option<Validator>) -> Self {
        let (alias, version, route) = match declared {
            Some(declared) => (declared.alias, declared.version, Some(declared.route)),
            None => (None, "1".to_owned(), None),
        };
        let parsed_version = Version::parse(&version).expect("the route's version was checked when it was read");
        Self { descriptor, alias, version, parsed_version, route, validator }
    }

    /// The full protobuf name, such as `shop.v1.OrderPaid`.
    #[must_use]
    pub fn full_name(&self) -> &str {
        self.descriptor.full_name()
    }

    /// The short name for clients, such as `ORDER_PAID`.
    #[must_use]
    pub fn alias(&self) -> Option<&str> {
        self.alias.as_deref()
    }

    /// The version as the route declares it; `1` without a route.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The way to its service; `None` for types that are only published and pushed.
    #[must_use]
    pub fn route(&self) -> Option<&Route> {
        self.route.as_ref()
    }

    pub(crate) fn descriptor(&self) -> &MessageDescriptor {
        &self.descriptor
    }

    /// Turns canonical proto3 JSON into protobuf.
    ///
    /// # Errors
    /// `malformed_payload` or `too_deep`, with the path of the field, such as `payload.lines[2].qty`.
    pub fn json_to_protobuf(&self, json: &[u8]) -> Result<Bytes, Refusal> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let message = DynamicMessage::deserialize(self.descriptor.clone(), &mut json)
            .map_err(|error| Refusal::new(Reason::MalformedPayload, error.to_string()).field("payload"))?;
        Ok(message.encode_to_vec().into())
    }

    /// Turns protobuf into canonical proto3 JSON, put at the end of `out`. Fields that the type does not have are left out.
    ///
    /// # Errors
    /// `malformed_payload` or `too_deep`; `out` is then as it was.
    pub fn protobuf_to_json(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let message = self.decode(payload)?;
        serde_json::to_writer(out, &message)
            .map_err(|error| Refusal::new(Reason::MalformedPayload, error.to_string()).field("payload"))
    }

    /// Checks that `payload` is protobuf of this type and keeps the type's `buf.validate` rules.
    ///
    /// # Errors
    /// `malformed_payload`, `too_deep` or `rule_violated`, with the path of the field.
    pub fn validate(&self, payload: &[u8]) -> Result<(), Refusal> {
        let message = self.decode(payload)?;
        let Some(validator) = &self.validator else { return Ok(()) };
        validator.check(&message).map_err(|violation| {
            let path =
                if violation.field.is_empty() { "payload".to_owned() } else { format!("payload.{}", violation.field) };
            Refusal::new(Reason::RuleViolated, format!("{} [{}]", violation.message, violation.rule)).field(path)
        })
    }

    fn decode(&self, payload: &[u8]) -> Result<DynamicMessage, Refusal> {
        DynamicMessage::decode(self.descriptor.clone(), payload)
            .map_err(|error| Refusal::new(Reason::MalformedPayload, error.to_string()).field("payload"))
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageType")
            .field("full_name", &self.full_name())
            .field("alias", &self.alias)
            .field("version", &self.version)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}
