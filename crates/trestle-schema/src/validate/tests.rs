//! The rules against a table, against their official definitions, and against random messages.

mod expressions;
mod messages;
mod oracle;
mod random;
mod refused;
mod table;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::{Validator, Violation};

const VALIDATE_PROTO: &str = include_str!("../../../../third_party/buf/validate/validate.proto");

/// One file of a test, and the file with the rules.
struct InTest {
    test: String,
    rules: String,
}

impl FileResolver for InTest {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "test.proto" => File::from_source(name, &self.test),
            "buf/validate/validate.proto" => File::from_source(name, &self.rules),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Compiles `body` as a proto3 file of the package `test`, which may use the rules and the well-known types.
fn pool(body: &str) -> DescriptorPool {
    let imports: String = ["any", "duration", "field_mask", "struct", "timestamp", "wrappers"]
        .iter()
        .map(|name| format!("import \"google/protobuf/{name}.proto\";\n"))
        .collect();
    let file = format!(
        "syntax = \"proto3\";\npackage test;\nimport \"buf/validate/validate.proto\";\n\
         import \"google/protobuf/descriptor.proto\";\n{imports}{body}"
    );
    pool_of(file, VALIDATE_PROTO)
}

/// Compiles `test`, a whole file, with `rules` as the file with the rules.
fn pool_of(test: String, rules: &str) -> DescriptorPool {
    let mut resolver = ChainFileResolver::new();
    resolver.add(InTest { test, rules: rules.to_owned() });
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    if let Err(error) = compiler.open_file("test.proto") {
        panic!("the test's proto does not compile: {error:?}");
    }
    compiler.descriptor_pool()
}

fn message(pool: &DescriptorPool, name: &str) -> MessageDescriptor {
    pool.get_message_by_name(&format!("test.{name}")).expect("the test names a message of its proto")
}

/// The compiled rules of `name`; `None` when it has none that count.
fn validator(pool: &DescriptorPool, name: &str) -> Option<Validator> {
    match Validator::compile(&message(pool, name)) {
        Ok(validator) => validator,
        Err(faults) => panic!("{name} does not compile: {faults:?}"),
    }
}

fn from_json(kind: MessageDescriptor, json: &str) -> DynamicMessage {
    let mut json_reader = serde_json::Deserializer::from_str(json);
    match DynamicMessage::deserialize(kind, &mut json_reader) {
        Ok(message) => message,
        Err(error) => panic!("{json}: {error}"),
    }
}

/// What `json`, a message of the type `name`, is told.
fn check(pool: &DescriptorPool, name: &str, json: &str) -> Result<(), Violation> {
    let given = from_json(message(pool, name), json);
    validator(pool, name).map_or(Ok(()), |validator| validator.check(&given))
}

/// Field and rule that `json` breaks, as `field: rule`; empty when it breaks none.
fn broken(pool: &DescriptorPool, name: &str, json: &str) -> String {
    match check(pool, name, json) {
        Ok(()) => String::new(),
        Err(violation) => format!("{}: {}", violation.field, violation.rule),
    }
}

/// The faults of the type `name`.
fn faults(pool: &DescriptorPool, name: &str) -> Vec<String> {
    match Validator::compile(&message(pool, name)) {
        Ok(_) => Vec::new(),
        Err(faults) => faults,
    }
}
