//! One message type: its names, its way, and what can be done with its messages.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use trestle_wire::{Reason, Refusal};

use crate::{
    json_path::json_path,
    json_to_protobuf::json_to_protobuf,
    plan::{MessageId, Plans},
    protobuf_to_json::protobuf_to_json,
    queueing::Queueing,
    route::{Declared, Route},
    validate::Validator,
    version::Version,
    well_formed,
};

/// A message type of the company, with everything compiled that its messages need.
pub struct MessageType {
    descriptor: MessageDescriptor,
    /// Plans of the whole set, of which this type's is `id`.
    plans: Arc<Plans>,
    id: MessageId,
    alias: Option<String>,
    version: String,
    pub(crate) parsed_version: Version,
    route: Option<Route>,
    queueing: Option<Queueing>,
    validator: Option<Validator>,
}

impl MessageType {
    pub(crate) fn new(
        descriptor: MessageDescriptor,
        plans: Arc<Plans>,
        declared: Option<Declared>,
        queueing: Option<Queueing>,
        validator: Option<Validator>,
    ) -> Self {
        let (alias, version, route) = match declared {
            Some(declared) => (declared.alias, declared.version, Some(declared.route)),
            None => (None, "1".to_owned(), None),
        };
        let parsed_version = Version::parse(&version).expect("the route's version was checked when it was read");
        let id = plans.find(descriptor.full_name()).expect("the plans are of the pool that the type is in");
        Self { descriptor, plans, id, alias, version, parsed_version, route, queueing, validator }
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

    /// How its messages queue for slow clients; `None` where the type does not say.
    #[must_use]
    pub fn queueing(&self) -> Option<&Queueing> {
        self.queueing.as_ref()
    }

    /// A hash of the field of `payload` that the type's queueing has as its key: the same value gives the same hash, on every
    /// node; a field that is missing has its default value. `None` if the type has no key, or `payload` is not of the type.
    #[must_use]
    pub fn conflation_key(&self, payload: &[u8]) -> Option<u64> {
        self.queueing.as_ref()?.key.as_ref()?.hash_in(payload)
    }

    pub(crate) fn descriptor(&self) -> &MessageDescriptor {
        &self.descriptor
    }

    /// Turns canonical proto3 JSON into protobuf.
    ///
    /// # Errors
    /// `malformed_payload` or `too_deep`, with the path of the field, such as `payload.lines[2].qty`.
    pub fn json_to_protobuf(&self, json: &[u8]) -> Result<Bytes, Refusal> {
        Ok(json_to_protobuf(&self.plans, self.id, json)?)
    }

    /// Turns protobuf into canonical proto3 JSON, put at the end of `out`. Fields that the type does not have are left out.
    ///
    /// # Errors
    /// `malformed_payload` or `too_deep`, with the path of the field; `out` is then as it was.
    pub fn protobuf_to_json(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        let before = out.len();
        protobuf_to_json(&self.plans, self.id, payload, out).map_err(|misfit| {
            out.truncate(before);
            misfit.into()
        })
    }

    /// Checks that `payload` is protobuf of this type and keeps the type's `buf.validate` rules.
    ///
    /// # Errors
    /// `malformed_payload`, `too_deep` or `rule_violated`, with the path of the field.
    pub fn validate(&self, payload: &[u8]) -> Result<(), Refusal> {
        well_formed::check(&self.plans, self.id, payload)?;
        let Some(validator) = &self.validator else { return Ok(()) };
        // Only types with rules pay for a tree.
        let message = DynamicMessage::decode(self.descriptor.clone(), payload)
            .map_err(|error| Refusal::new(Reason::MalformedPayload, error.to_string()).field("payload"))?;
        validator.check(&message).map_err(|violation| {
            let path = json_path(&self.descriptor, &violation.field);
            Refusal::new(Reason::RuleViolated, format!("{} [{}]", violation.message, violation.rule)).field(path)
        })
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageType")
            .field("full_name", &self.full_name())
            .field("alias", &self.alias)
            .field("version", &self.version)
            .field("route", &self.route)
            .field("queueing", &self.queueing)
            .finish_non_exhaustive()
    }
}
