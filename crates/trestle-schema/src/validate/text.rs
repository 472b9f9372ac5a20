//! Rules of strings.

use prost_reflect::Value;
use regex::Regex;

use super::format::Format;
use super::number::listed;
use super::options::{Faults, RuleSet};
use super::violation::{Checked, Violation};

/// The rules of one string field, in the order of their numbers.
#[derive(Debug)]
pub(super) struct TextRules(Vec<TextRule>);

#[derive(Debug)]
enum TextRule {
    Const(String),
    Length(Measure, Unit),
    Pattern(Regex),
    Prefix(String),
    Suffix(String),
    Contains(String),
    NotContains(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Format(Format),
}

/// A bound of a length.
#[derive(Debug, Clone, Copy)]
enum Measure {
    Exactly(u64),
    AtLeast(u64),
    AtMost(u64),
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Characters,
    Bytes,
}

impl TextRules {
    /// Reads the rules of `set`.
    pub(super) fn read(set: &RuleSet<'_>, faults: &mut Faults) -> TextRules {
        let strict = set.message().has_field_by_name("strict");
        let strict = !strict || super::options::flag(set.message(), "strict");
        let mut rules = Vec::new();
        for (name, value) in set.rules() {
            let text = || value.as_str().unwrap_or_default().to_owned();
            let size = || value.as_u64().unwrap_or_default();
            rules.push(match name.as_str() {
                "const" => TextRule::Const(text()),
                "len" => TextRule::Length(Measure::Exactly(size()), Unit::Characters),
                "min_len" => TextRule::Length(Measure::AtLeast(size()), Unit::Characters),
                "max_len" => TextRule::Length(Measure::AtMost(size()), Unit::Characters),
                "len_bytes" => TextRule::Length(Measure::Exactly(size()), Unit::Bytes),
                "min_bytes" => TextRule::Length(Measure::AtLeast(size()), Unit::Bytes),
                "max_bytes" => TextRule::Length(Measure::AtMost(size()), Unit::Bytes),
                "pattern" => match pattern(set, value, faults) {
                    Some(pattern) => TextRule::Pattern(pattern),
                    None => continue,
                },
                "prefix" => TextRule::Prefix(text()),
                "suffix" => TextRule::Suffix(text()),
                "contains" => TextRule::Contains(text()),
                "not_contains" => TextRule::NotContains(text()),
                "in" => TextRule::In(texts(value)),
                "not_in" => TextRule::NotIn(texts(value)),
                "strict" | "example" => continue,
                name => match (Format::named(name, value, strict), value) {
                    (Some(_), Value::Bool(false)) => continue,
                    (Some(format), _) => TextRule::Format(format),
                    // The number 0 of `well_known_regex` asks for nothing.
                    (None, Value::EnumNumber(0)) => continue,
                    (None, _) => {
                        set.unknown(name, faults);
                        continue;
                    }
                },
            });
        }
        TextRules(rules)
    }

    /// Checks a string.
    pub(super) fn check(&self, text: &str) -> Checked {
        self.0.iter().try_for_each(|rule| rule.check(text))
    }
}

impl TextRule {
    fn check(&self, text: &str) -> Checked {
        match self {
            TextRule::Format(format) => format.check(text),
            rule if rule.holds(text) => Ok(()),
            rule => Err(rule.violation()),
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            TextRule::Const(only) => text == only,
            TextRule::Length(measure, unit) => measure.holds(unit.of(text)),
            TextRule::Pattern(regex) => regex.is_match(text),
            TextRule::Prefix(prefix) => text.starts_with(prefix),
            TextRule::Suffix(suffix) => text.ends_with(suffix),
            TextRule::Contains(part) => text.contains(part),
            TextRule::NotContains(part) => !text.contains(part),
            TextRule::In(list) => list.iter().any(|item| item == text),
            TextRule::NotIn(list) => list.iter().all(|item| item != text),
            TextRule::Format(format) => format.check(text).is_ok(),
        }
    }

    fn violation(&self) -> Violation {
        let (id, message) = match self {
            TextRule::Const(only) => ("const", format!("must equal `{only}`")),
            TextRule::Length(measure, unit) => {
                let message = format!("must be {} {}", measure.words(), unit.words());
                (measure.id(*unit), message)
            }
            TextRule::Pattern(regex) => ("pattern", format!("does not match regex pattern `{regex}`")),
            TextRule::Prefix(prefix) => ("prefix", format!("does not have prefix `{prefix}`")),
            TextRule::Suffix(suffix) => ("suffix", format!("does not have suffix `{suffix}`")),
            TextRule::Contains(part) => ("contains", format!("does not contain substring `{part}`")),
            TextRule::NotContains(part) => ("not_contains", format!("contains substring `{part}`")),
            TextRule::In(list) => ("in", format!("must be in list {}", listed(list))),
            TextRule::NotIn(list) => ("not_in", format!("must not be in list {}", listed(list))),
            TextRule::Format(format) => (format.id(), format.message()),
        };
        Violation::new(format!("string.{id}"), message)
    }
}

impl Measure {
    fn holds(self, size: u64) -> bool {
        match self {
            Measure::Exactly(bound) => size == bound,
            Measure::AtLeast(bound) => size >= bound,
            Measure::AtMost(bound) => size <= bound,
        }
    }

    fn id(self, unit: Unit) -> &'static str {
        match (self, unit) {
            (Measure::Exactly(_), Unit::Characters) => "len",
            (Measure::AtLeast(_), Unit::Characters) => "min_len",
            (Measure::AtMost(_), Unit::Characters) => "max_len",
            (Measure::Exactly(_), Unit::Bytes) => "len_bytes",
            (Measure::AtLeast(_), Unit::Bytes) => "min_bytes",
            (Measure::AtMost(_), Unit::Bytes) => "max_bytes",
        }
    }

    fn words(self) -> String {
        match self {
            Measure::Exactly(bound) => bound.to_string(),
            Measure::AtLeast(bound) => format!("at least {bound}"),
            Measure::AtMost(bound) => format!("at most {bound}"),
        }
    }
}

impl Unit {
    /// Characters are Unicode code points, as in every implementation of the rules.
    fn of(self, text: &str) -> u64 {
        let size = match self {
            Unit::Characters => text.chars().count(),
            Unit::Bytes => text.len(),
        };
        u64::try_from(size).unwrap_or(u64::MAX)
    }

    fn words(self) -> &'static str {
        match self {
            Unit::Characters => "characters",
            Unit::Bytes => "bytes",
        }
    }
}

/// Compiles the regular expression of a `pattern` rule; RE2's syntax is the one the `regex` crate has.
pub(super) fn pattern(set: &RuleSet<'_>, value: &Value, faults: &mut Faults) -> Option<Regex> {
    match Regex::new(value.as_str().unwrap_or_default()) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let family = set.family();
            faults.add(set.place(), format!("the rule `{family}.pattern` is no regular expression: {error}"));
            None
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_list().unwrap_or_default().iter();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
