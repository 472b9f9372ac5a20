//! Message type to service, transport and subject, as the type's `trestle.v1.route` option says.

use prost_reflect::MessageDescriptor;
use trestle_wire::{ServiceName, Subject, Subjects, v1};

use crate::{Catalogue, MessageType, option, version::Version};

/// The way of one message type to its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The service that gets it.
    pub service: ServiceName,
    /// How it gets there; never `TRANSPORT_UNSPECIFIED`.
    pub transport: v1::Transport,
    /// What the sender waits for; never `ACK_LEVEL_UNSPECIFIED`.
    pub ack: v1::AckLevel,
    /// A client needs all of these to send it.
    pub scopes: Vec<String>,
}

/// What a route option says, with the parts that name the type.
#[derive(Debug)]
pub(crate) struct Declared {
    pub alias: Option<String>,
    pub version: String,
    pub route: Route,
}

/// Where a message of this type goes on the bus: `up` for RECEIVED, `work` for DURABLE and HANDLED; `None` without a route.
///
/// Requests go to `up` whatever the route's ack level is: their answer is their acknowledgement.
#[must_use]
pub fn destination(kind: &MessageType, subjects: &Subjects) -> Option<Subject> {
    let route = kind.route()?;
    Some(match route.ack {
        v1::AckLevel::Durable | v1::AckLevel::Handled => subjects.work(&route.service, kind.full_name()),
        v1::AckLevel::Received | v1::AckLevel::Unspecified => subjects.up(&route.service, kind.full_name()),
    })
}

/// The routing table, sorted by full name.
#[must_use]
pub fn table(catalogue: &Catalogue, subjects: &Subjects) -> Vec<v1::RouteEntry> {
    let entry = |kind: &MessageType| {
        let route = kind.route()?;
        Some(v1::RouteEntry {
            message_type: kind.full_name().to_owned(),
            alias: kind.alias().unwrap_or_default().to_owned(),
            version: kind.version().to_owned(),
            service: route.service.to_string(),
            transport: route.transport.into(),
            destination: destination(kind, subjects)?.to_string(),
            ack: route.ack.into(),
            scopes: route.scopes.clone(),
        })
    };
    catalogue.types().filter_map(|kind| entry(kind)).collect()
}

/// Reads the route option of `message`; `None` if it has none.
///
/// # Errors
/// Every fault of the option, each as a sentence.
pub(crate) fn declared(message: &MessageDescriptor) -> Result<Option<Declared>, Vec<String>> {
    let Some(option) = option::read(message, "trestle.v1.route", "the route")? else { return Ok(None) };
    let mut faults = Vec::new();
    read(option, &mut faults).filter(|_| faults.is_empty()).map(Some).ok_or(faults)
}

fn read(option: v1::Route, faults: &mut Vec<String>) -> Option<Declared> {
    let alias = Some(option.alias).filter(|alias| !alias.is_empty());
    if let Some(alias) = alias.as_deref().filter(|alias| !is_alias(alias)) {
        faults.push(format!("the alias {alias:?} is not capital letters, digits and '_', beginning with a letter"));
    }
    let version = if option.version.is_empty() { "1".to_owned() } else { option.version };
    if let Err(error) = Version::parse(&version) {
        faults.push(format!("the version {version:?} {error}"));
    }
    let transport = match v1::Transport::try_from(option.transport) {
        Ok(v1::Transport::Unspecified) => v1::Transport::Bridge,
        Ok(transport) => transport,
        Err(_) => {
            faults.push(format!("the transport has number {}, which this gateway does not know", option.transport));
            v1::Transport::Bridge
        }
    };
    let ack = match v1::AckLevel::try_from(option.ack) {
        Ok(v1::AckLevel::Unspecified) => v1::AckLevel::Received,
        Ok(ack) => ack,
        Err(_) => {
            faults.push(format!("the ack level has number {}, which this gateway does not know", option.ack));
            v1::AckLevel::Received
        }
    };
    if (transport, ack) == (v1::Transport::Nats, v1::AckLevel::Handled) {
        faults.push("ack HANDLED needs transport BRIDGE: a service on NATS has no way to tell the gateway".to_owned());
    }
    for scope in &option.scopes {
        if scope.is_empty() || scope.contains(char::is_whitespace) {
            faults.push(format!("the scope {scope:?} is empty or has white space, so that no token can carry it"));
        }
    }
    match ServiceName::parse(&option.service) {
        Ok(service) => {
            Some(Declared { alias, version, route: Route { service, transport, ack, scopes: option.scopes } })
        }
        Err(_) if option.service.is_empty() => {
            faults.push("the route names no service".to_owned());
            None
        }
        Err(error) => {
            faults.push(format!("the {error}"));
            None
        }
    }
}

fn is_alias(alias: &str) -> bool {
    alias.starts_with(|c: char| c.is_ascii_uppercase())
        && alias.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}
