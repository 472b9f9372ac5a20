//! A service's hello, checked against the routes: who attaches, and what it takes. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use trestle_schema::{Catalogue, MessageType};
use trestle_wire::{Reason, Refusal, ServiceName, v1};

use crate::Config;

/// Longest name of an instance, in bytes.
const INSTANCE_BYTES_MAX: usize = 128;

/// A hello that was accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The service.
    pub(crate) service: ServiceName,
    /// The instance's name, as given or made up.
    pub(crate) instance: String,
    /// Full names of the types it takes; never empty.
    pub(crate) takes: HashSet<Arc<str>>,
    /// The same, as the instance is told.
    pub(crate) types: Vec<v1::ConsumedType>,
    /// Most deliveries in flight.
    pub(crate) max_in_flight: u32,
    /// Whether it wants to know of sessions.
    pub(crate) session_events: bool,
}

/// Checks a hello.
///
/// # Errors
/// [`Reason::UnknownService`], naming those there are; an unknown type or version; [`Reason::NoRoute`] for a type that
/// does not come to this service over the bridge; [`Reason::InvalidName`].
pub(crate) fn check(hello: v1::Hello, catalogue: &Catalogue, config: &Config) -> Result<Accepted, Refusal> {
    let service = ServiceName::parse(&hello.service)
        .map_err(|error| Refusal::new(Reason::InvalidName, error.to_string()).field("hello.service"))?;
    if !catalogue.has_service(service.as_str()) {
        let there_are: BTreeSet<&str> =
            catalogue.types().filter_map(|kind| Some(kind.route()?.service.as_str())).collect();
        let there_are = there_are.into_iter().collect::<Vec<_>>().join(", ");
        let sentence = format!("no route names the service {service}; those there are: {there_are}");
        return Err(Refusal::new(Reason::UnknownService, sentence).field("hello.service"));
    }
    if hello.instance.len() > INSTANCE_BYTES_MAX || hello.instance.chars().any(char::is_control) {
        let sentence = format!("an instance's name is at most {INSTANCE_BYTES_MAX} bytes without control characters");
        return Err(Refusal::new(Reason::InvalidName, sentence).field("hello.instance"));
    }

    let mut taken = BTreeMap::<&str, &MessageType>::new();
    if hello.types.is_empty() {
        let routed = catalogue.routed_to(service.as_str()).filter(|kind| over_bridge(kind));
        taken.extend(routed.map(|kind| (kind.full_name(), &**kind)));
        if taken.is_empty() {
            let sentence = format!("every type that is routed to {service} goes over the bus itself, not the bridge");
            return Err(Refusal::new(Reason::NoRoute, sentence).field("hello.service"));
        }
    }
    for (index, consumed) in hello.types.iter().enumerate() {
        let path = format!("hello.types[{index}]");
        for kind in kinds(consumed, catalogue).map_err(|refusal| at(refusal, &path))? {
            routed_here(kind, &service).map_err(|refusal| at(refusal, &path))?;
            taken.insert(kind.full_name(), kind);
        }
    }

    let instance =
        if hello.instance.is_empty() { format!("{service}-{:08x}", fastrand::u32(..)) } else { hello.instance };
    let takes = taken.keys().map(|name| Arc::from(*name)).collect();
    let types = taken.values().map(|kind| v1::ConsumedType {
        message_type: kind.full_name().to_owned(),
        versions: vec![kind.version().to_owned()],
    });
    let types = types.collect();
    let max_in_flight = max_in_flight(hello.max_in_flight, config);
    Ok(Accepted { service, instance, takes, types, max_in_flight, session_events: hello.session_events })
}

/// The limit of an instance that asks for `wanted`; 0 is the default.
fn max_in_flight(wanted: u32, config: &Config) -> u32 {
    if wanted == 0 { config.max_in_flight_default } else { wanted.min(config.max_in_flight_max) }
}

/// The types that one entry names, which is a full name or an alias, in the versions it names.
fn kinds<'a>(consumed: &v1::ConsumedType, catalogue: &'a Catalogue) -> Result<Vec<&'a MessageType>, Refusal> {
    let name = &consumed.message_type;
    if consumed.versions.is_empty() {
        let named = |kind: &&Arc<MessageType>| kind.full_name() == name || kind.alias() == Some(name);
        let all: Vec<&MessageType> = catalogue.types().filter(named).map(|kind| &**kind).collect();
        if all.is_empty() {
            // Says so, and what may have been meant.
            return catalogue.resolve(name, "").map(|kind| vec![&**kind]);
        }
        return Ok(all);
    }
    consumed.versions.iter().map(|version| catalogue.resolve(name, version).map(|kind| &**kind)).collect()
}

fn routed_here(kind: &MessageType, service: &ServiceName) -> Result<(), Refusal> {
    let name = kind.full_name();
    let sentence = match kind.route() {
        Some(route) if route.service != *service => {
            format!("{name} is routed to the service {}, not to {service}", route.service)
        }
        Some(_) if !over_bridge(kind) => format!("{name} goes over the bus itself, not the bridge"),
        Some(_) => return Ok(()),
        None => format!("{name} has no route, so clients do not send it to services"),
    };
    Err(Refusal::new(Reason::NoRoute, sentence))
}

fn over_bridge(kind: &MessageType) -> bool {
    kind.route().is_some_and(|route| route.transport == v1::Transport::Bridge)
}

fn at(refusal: Refusal, path: &str) -> Refusal {
    let name = if refusal.reason == Reason::UnknownVersion { "versions" } else { "message_type" };
    Refusal { field: None, ..refusal }.field(format!("{path}.{name}"))
}
