//! One immutable set of message types, found by full name, or by alias and version.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use trestle_wire::{Reason, Refusal};

use crate::{
    MessageType, SchemaSource, builtin,
    compile::{compile, place},
    fault::{Fault, Faults},
    plan::{Plans, unsupported},
    queueing, route, source,
    suggest::nearest,
    validate::Validator,
    version::Version,
};

/// One immutable set of message types.
pub struct Catalogue {
    /// By full name.
    types: BTreeMap<String, Arc<MessageType>>,
    /// By alias; sorted by version, lowest first, never empty.
    aliases: BTreeMap<String, Vec<Arc<MessageType>>>,
    descriptor_set: Bytes,
}

impl Catalogue {
    /// Loads the schemas of `source`.
    ///
    /// # Errors
    /// [`Faults`] lists everything that is wrong with the set.
    pub fn load(source: &SchemaSource) -> Result<Self, Faults> {
        let (pool, mut faults) = compile(source::Read::from(source)?);
        let types = message_types(&pool, &mut faults);
        let aliases = by_alias(&types, &mut faults);
        Faults::check(faults)?;
        Ok(Self { types, aliases, descriptor_set: pool.encode_to_vec().into() })
    }

    /// The type of this full name, or of this alias in this version; the empty version means the highest.
    ///
    /// # Errors
    /// `unknown_type`, with a near name if there is one, or `unknown_version`, with the versions there are.
    pub fn resolve(&self, name: &str, version: &str) -> Result<&Arc<MessageType>, Refusal> {
        let one = self.types.get(name).map(std::slice::from_ref);
        let Some(versions) = one.or_else(|| self.aliases.get(name).map(Vec::as_slice)) else {
            return Err(self.unknown_type(name));
        };
        let found = if version.is_empty() {
            versions.last()
        } else {
            let wanted = Version::parse(version).ok();
            versions.iter().find(|kind| Some(&kind.parsed_version) == wanted.as_ref())
        };
        found.ok_or_else(|| unknown_version(name, version, versions))
    }

    /// The type of this full name.
    #[must_use]
    pub fn get(&self, full_name: &str) -> Option<&Arc<MessageType>> {
        self.types.get(full_name)
    }

    /// The company's types, sorted by full name; those of `google`, `buf` and `trestle.v1` are not among them.
    pub fn types(&self) -> impl Iterator<Item = &Arc<MessageType>> {
        self.types.values()
    }

    /// The types that go to `service`, sorted by full name.
    pub fn routed_to<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Arc<MessageType>> {
        self.types().filter(move |kind| kind.route().is_some_and(|route| route.service.as_str() == service))
    }

    /// Whether any type goes to `service`.
    #[must_use]
    pub fn has_service(&self, service: &str) -> bool {
        self.routed_to(service).next().is_some()
    }

    /// The whole set with its imports as an encoded `google.protobuf.FileDescriptorSet`.
    #[must_use]
    pub fn descriptor_set(&self) -> &Bytes {
        &self.descriptor_set
    }

    fn unknown_type(&self, name: &str) -> Refusal {
        let names = self.aliases.keys().chain(self.types.keys()).map(String::as_str);
        let hint = match nearest(name, names) {
            Some(near) => format!("; did you mean {near}?"),
            None => String::new(),
        };
        Refusal::new(Reason::UnknownType, format!("no message type or alias is named {:?}{hint}", short(name)))
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").field("types", &self.types).finish_non_exhaustive()
    }
}

fn unknown_version(name: &str, version: &str, versions: &[Arc<MessageType>]) -> Refusal {
    let served: Vec<&str> = versions.iter().map(|kind| kind.version()).collect();
    let (version, served) = (short(version), served.join(", "));
    Refusal::new(Reason::UnknownVersion, format!("{name} has no version {version:?}; there is {served}"))
}

/// The beginning of a name from outside, for a sentence.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The company's own types in `pool`, each with its route and rules.
fn message_types(pool: &DescriptorPool, faults: &mut Vec<Fault>) -> BTreeMap<String, Arc<MessageType>> {
    let ours = |message: &MessageDescriptor| !message.is_map_entry() && !builtin::owns_package(message.package_name());
    let plans = Arc::new(Plans::compile(pool));
    let mut types = BTreeMap::new();
    for message in pool.all_messages().filter(ours) {
        for (path, what) in unsupported(&message) {
            faults.push(fault_at(&message, &[&path], &what));
        }
        let mut fault = |what: String| faults.push(fault_of(&message, &what));
        let declared = route::declared(&message).unwrap_or_else(|all| {
            all.into_iter().for_each(&mut fault);
            None
        });
        let queueing = queueing::declared(&message).unwrap_or_else(|all| {
            all.into_iter().for_each(&mut fault);
            None
        });
        let validator = Validator::compile(&message).unwrap_or_else(|all| {
            all.into_iter().for_each(&mut fault);
            None
        });
        let kind = MessageType::new(message.clone(), plans.clone(), declared, queueing, validator);
        types.insert(message.full_name().to_owned(), Arc::new(kind));
    }
    types
}

fn by_alias(
    types: &BTreeMap<String, Arc<MessageType>>,
    faults: &mut Vec<Fault>,
) -> BTreeMap<String, Vec<Arc<MessageType>>> {
    let mut aliases: BTreeMap<String, Vec<Arc<MessageType>>> = BTreeMap::new();
    for kind in types.values() {
        let Some(alias) = kind.alias() else { continue };
        let versions = aliases.entry(alias.to_owned()).or_default();
        match versions.binary_search_by(|other| other.parsed_version.cmp(&kind.parsed_version)) {
            Err(place) => versions.insert(place, kind.clone()),
            Ok(place) => {
                let (version, other) = (kind.version(), versions[place].full_name());
                faults.push(fault_of(
                    kind.descriptor(),
                    &format!(
                        "the alias {alias} has version {version} already, in {other}; give one of them another version"
                    ),
                ));
            }
        }
    }
    aliases
}

/// A fault of a message: at its options if they are there, else at its name.
pub(crate) fn fault_of(message: &MessageDescriptor, what: &str) -> Fault {
    // 7 is DescriptorProto.options, 1 its name.
    fault_at(message, &[&[7], &[1]], what)
}

/// A fault at the first of `paths`, counted from the message's own, whose place the file knows.
pub(crate) fn fault_at(message: &MessageDescriptor, paths: &[&[i32]], what: &str) -> Fault {
    let file = message.parent_file_descriptor_proto();
    let places = paths.iter().map(|path| place(file, &[message.path(), path].concat()));
    let place = places.into_iter().find(|place| place.0 > 0).unwrap_or_default();
    Fault::of_file(file.name(), format!("{}: {what}", message.full_name())).at(place)
}
