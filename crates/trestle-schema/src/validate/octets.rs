//! Rules of `bytes`.

use std::fmt::Write;

use prost_reflect::Value;
use regex::Regex;

use super::options::{Faults, RuleSet};
use super::text::pattern;
use super::violation::{Checked, Violation};

/// The rules of one `bytes` field, in the order of their numbers.
#[derive(Debug)]
pub(super) struct OctetRules(Vec<OctetRule>);

#[derive(Debug)]
enum OctetRule {
    Const(Vec<u8>),
    Len(u64),
    MinLen(u64),
    MaxLen(u64),
    Pattern(Regex),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Contains(Vec<u8>),
    In(Vec<Vec<u8>>),
    NotIn(Vec<Vec<u8>>),
    Form(&'static Form),
}

/// A well-known form, told by its sizes alone.
#[derive(Debug)]
struct Form {
    name: &'static str,
    words: &'static str,
    sizes: &'static [usize],
}

const FORMS: &[Form] = &[
    Form { name: "ip", words: "a valid IP address", sizes: &[4, 16] },
    Form { name: "ipv4", words: "a valid IPv4 address", sizes: &[4] },
    Form { name: "ipv6", words: "a valid IPv6 address", sizes: &[16] },
    Form { name: "uuid", words: "a valid UUID", sizes: &[16] },
];

impl OctetRules {
    /// Reads the rules of `set`.
    pub(super) fn read(set: &RuleSet<'_>, faults: &mut Faults) -> OctetRules {
        let mut rules = Vec::new();
        for (name, value) in set.rules() {
            let octets = || value.as_bytes().map(|octets| octets.to_vec()).unwrap_or_default();
            let size = || value.as_u64().unwrap_or_default();
            rules.push(match name.as_str() {
                "const" => OctetRule::Const(octets()),
                "len" => OctetRule::Len(size()),
                "min_len" => OctetRule::MinLen(size()),
                "max_len" => OctetRule::MaxLen(size()),
                "pattern" => match pattern(set, value, faults) {
                    Some(pattern) => OctetRule::Pattern(pattern),
                    None => continue,
                },
                "prefix" => OctetRule::Prefix(octets()),
                "suffix" => OctetRule::Suffix(octets()),
                "contains" => OctetRule::Contains(octets()),
                "in" => OctetRule::In(list(value)),
                "not_in" => OctetRule::NotIn(list(value)),
                "example" => continue,
                name => match FORMS.iter().find(|form| form.name == name) {
                    Some(_) if value.as_bool() != Some(true) => continue,
                    Some(form) => OctetRule::Form(form),
                    None => {
                        set.unknown(name, faults);
                        continue;
                    }
                },
            });
        }
        OctetRules(rules)
    }

    /// Checks a byte string.
    pub(super) fn check(&self, octets: &[u8]) -> Checked {
        self.0.iter().try_for_each(|rule| rule.check(octets))
    }
}

impl OctetRule {
    fn check(&self, octets: &[u8]) -> Checked {
        match self {
            OctetRule::Form(form) => form.check(octets),
            rule if rule.holds(octets) => Ok(()),
            rule => Err(rule.violation()),
        }
    }

    fn holds(&self, octets: &[u8]) -> bool {
        let size = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        match self {
            OctetRule::Const(only) => octets == only,
            OctetRule::Len(len) => size == *len,
            OctetRule::MinLen(len) => size >= *len,
            OctetRule::MaxLen(len) => size <= *len,
            OctetRule::Pattern(regex) => matches(regex, octets),
            OctetRule::Prefix(prefix) => octets.starts_with(prefix),
            OctetRule::Suffix(suffix) => octets.ends_with(suffix),
            OctetRule::Contains(part) => contains(octets, part),
            OctetRule::In(list) => list.iter().any(|item| item == octets),
            OctetRule::NotIn(list) => list.iter().all(|item| item != octets),
            OctetRule::Form(form) => form.sizes.contains(&octets.len()),
        }
    }

    fn violation(&self) -> Violation {
        let (id, message) = match self {
            OctetRule::Const(only) => ("const", format!("must be {}", hex(only))),
            OctetRule::Len(len) => ("len", format!("must be {len} bytes")),
            OctetRule::MinLen(len) => ("min_len", format!("must be at least {len} bytes")),
            OctetRule::MaxLen(len) => ("max_len", format!("must be at most {len} bytes")),
            OctetRule::Pattern(regex) => ("pattern", format!("must match regex pattern `{regex}`")),
            OctetRule::Prefix(prefix) => ("prefix", format!("does not have prefix {}", hex(prefix))),
            OctetRule::Suffix(suffix) => ("suffix", format!("does not have suffix {}", hex(suffix))),
            OctetRule::Contains(part) => ("contains", format!("does not contain {}", hex(part))),
            OctetRule::In(list) => ("in", format!("must be in list {}", hex_list(list))),
            OctetRule::NotIn(list) => ("not_in", format!("must not be in list {}", hex_list(list))),
            OctetRule::Form(form) => (form.name, format!("must be {}", form.words)),
        };
        Violation::new(format!("bytes.{id}"), message)
    }
}

impl Form {
    fn check(&self, octets: &[u8]) -> Checked {
        let Form { name, words, sizes } = self;
        if octets.is_empty() {
            let message = format!("value is empty, which is not {words}");
            return Err(Violation::new(format!("bytes.{name}_empty"), message));
        }
        match sizes.contains(&octets.len()) {
            true => Ok(()),
            false => Err(Violation::new(format!("bytes.{name}"), format!("must be {words}"))),
        }
    }
}

/// A pattern speaks of text, so what is no UTF-8 does not match.
fn matches(regex: &Regex, octets: &[u8]) -> bool {
    std::str::from_utf8(octets).is_ok_and(|text| regex.is_match(text))
}

/// Whether `part` occurs in `octets`; the empty part occurs in all.
pub(super) fn contains(octets: &[u8], part: &[u8]) -> bool {
    part.is_empty() || octets.windows(part.len()).any(|window| window == part)
}

/// Two lower-case digits a byte.
pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}"); // writing to a String cannot fail
        text
    })
}

fn hex_list(list: &[Vec<u8>]) -> String {
    let items: Vec<String> = list.iter().map(|item| hex(item)).collect();
    format!("[{}]", items.join(", "))
}

fn list(value: &Value) -> Vec<Vec<u8>> {
    let items = value.as_list().unwrap_or_default().iter();
    items.filter_map(Value::as_bytes).map(|octets| octets.to_vec()).collect()
}
