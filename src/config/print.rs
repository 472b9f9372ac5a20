//! Prints the default configuration with the doc comment of every key above it.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Config;

/// Widest line of a comment.
const WIDTH: usize = 100;

/// The default configuration, as a file to start from.
#[must_use]
pub(crate) fn commented() -> String {
    let schema = schemars::schema_for!(Config).to_value();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut page = String::from("# Every key of trestle, with its default. Printed by `trestle config print`.\n\n");
    let printer = Printer { definitions: schema.get("$defs").cloned().unwrap_or_default() };
    printer.table(&mut page, "", &schema, &defaults);
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

struct Printer {
    definitions: Value,
}

impl Printer {
    /// Prints the keys of one table, then the tables below it.
    fn table(&self, page: &mut String, path: &str, schema: &Value, defaults: &Value) {
        let none = Map::new();
        let keys = self.resolve(schema)["properties"].as_object().unwrap_or(&none).clone();
        let mut tables = Vec::new();
        for (key, described) in &keys {
            let value = &defaults[key];
            if value.is_object() {
                tables.push((key, described, value));
                continue;
            }
            comment(page, described);
            match toml_value(value) {
                Some(text) => writeln!(page, "{key} = {text}\n"),
                None => writeln!(page, "# {key} =\n"),
            }
            .unwrap_or_default();
        }
        for (key, described, value) in tables {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            self.section(page, &path, described, value);
        }
    }

    /// Prints one table, or a table for each entry of a map.
    fn section(&self, page: &mut String, path: &str, described: &Value, value: &Value) {
        let resolved = self.resolve(described);
        let Some(entry) = resolved.get("additionalProperties").filter(|entry| entry.is_object()) else {
            comment(page, described);
            let _ = writeln!(page, "[{path}]");
            return self.table(page, path, described, value);
        };
        comment(page, described);
        for (name, value) in value.as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let _ = writeln!(page, "[{path}]");
            self.table(page, &path, entry, value);
        }
    }

    /// Follows a reference, also that of an optional value.
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let any = schema["anyOf"].as_array().and_then(|any| any.iter().find(|one| one.get("$ref").is_some()));
        let schema = any.unwrap_or(schema);
        match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
            Some(name) => &self.definitions[name],
            None => schema,
        }
    }
}

/// The doc comment, wrapped.
fn comment(page: &mut String, described: &Value) {
    let Some(text) = described["description"].as_str() else { return };
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(page, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(page, "{line}");
}

/// A value as TOML; `None` for one that is not set.
fn toml_value(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        value => toml::Value::try_from(value).ok().map(|value| value.to_string()),
    }
}
