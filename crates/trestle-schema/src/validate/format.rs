//! The well-known forms a string can be asked to have.

use prost_reflect::Value;

use super::net::{self, IpVersion};
use super::uri;
use super::violation::{Checked, Violation};

/// A well-known form, named as its rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    id: &'static str,
    words: &'static str,
    /// What is said of the empty string; empty where it needs no words of its own.
    empty_words: &'static str,
    accepts: fn(&str) -> bool,
}

/// Every rule that is a flag; `None` in the third column where the empty string is judged like any other.
type Row = (&'static str, &'static str, Option<&'static str>, fn(&str) -> bool);

const FORMATS: &[Row] = &[
    ("email", "a valid email address", Some("a valid email address"), is_email),
    ("hostname", "a valid hostname", Some("a valid hostname"), net::is_hostname),
    ("ip", "a valid IP address", Some("a valid IP address"), |text| net::is_ip(text, None)),
    ("ipv4", "a valid IPv4 address", Some("a valid IPv4 address"), |text| net::is_ip(text, Some(IpVersion::V4))),
    ("ipv6", "a valid IPv6 address", Some("a valid IPv6 address"), |text| net::is_ip(text, Some(IpVersion::V6))),
    ("uri", "a valid URI", Some("a valid URI"), uri::is_uri),
    ("uri_ref", "a valid URI Reference", None, uri::is_uri_ref),
    ("address", "a valid hostname, or ip address", Some("a valid hostname, or ip address"), is_address),
    ("uuid", "a valid UUID", Some("a valid UUID"), is_uuid),
    ("tuuid", "a valid trimmed UUID", Some("a valid trimmed UUID"), is_trimmed_uuid),
    ("ip_with_prefixlen", "a valid IP prefix", Some("a valid IP prefix"), |text| net::is_ip_prefix(text, None, false)),
    (
        "ipv4_with_prefixlen",
        "a valid IPv4 address with prefix length",
        Some("a valid IPv4 address with prefix length"),
        |text| net::is_ip_prefix(text, Some(IpVersion::V4), false),
    ),
    (
        "ipv6_with_prefixlen",
        "a valid IPv6 address with prefix length",
        Some("a valid IPv6 address with prefix length"),
        |text| net::is_ip_prefix(text, Some(IpVersion::V6), false),
    ),
    ("ip_prefix", "a valid IP prefix", Some("a valid IP prefix"), |text| net::is_ip_prefix(text, None, true)),
    ("ipv4_prefix", "a valid IPv4 prefix", Some("a valid IPv4 prefix"), |text| {
        net::is_ip_prefix(text, Some(IpVersion::V4), true)
    }),
    ("ipv6_prefix", "a valid IPv6 prefix", Some("a valid IPv6 prefix"), |text| {
        net::is_ip_prefix(text, Some(IpVersion::V6), true)
    }),
    (
        "host_and_port",
        "a valid host (hostname or IP address) and port pair",
        Some("a valid host and port pair"),
        |text| net::is_host_and_port(text, true),
    ),
    ("ulid", "a valid ULID", Some("a valid ULID"), is_ulid),
    (
        "protobuf_fqn",
        "a valid fully-qualified Protobuf name",
        Some("a valid fully-qualified Protobuf name"),
        is_full_name,
    ),
    (
        "protobuf_dot_fqn",
        "a valid fully-qualified Protobuf name with a leading dot",
        Some("a valid fully-qualified Protobuf name with a leading dot"),
        |text| text.strip_prefix('.').is_some_and(is_full_name),
    ),
];

const HEADER_NAME: &str = "a valid HTTP header name";
const HEADER_VALUE: &str = "a valid HTTP header value";

impl Format {
    /// The form that the rule `name` asks for; `strict` narrows the two of HTTP headers.
    pub(super) fn named(name: &str, value: &Value, strict: bool) -> Option<Format> {
        if name == "well_known_regex" {
            return Format::of_header(value.as_enum_number()?, strict);
        }
        let (id, words, empty, accepts) = FORMATS.iter().find(|(id, ..)| *id == name)?;
        Some(Format { id, words, empty_words: empty.unwrap_or_default(), accepts: *accepts })
    }

    /// `KNOWN_REGEX_HTTP_HEADER_NAME` is 1, `KNOWN_REGEX_HTTP_HEADER_VALUE` is 2.
    fn of_header(known_regex: i32, strict: bool) -> Option<Format> {
        let (id, words, empty_words) = match known_regex {
            1 => ("well_known_regex.header_name", HEADER_NAME, HEADER_NAME),
            2 => ("well_known_regex.header_value", HEADER_VALUE, ""),
            _ => return None,
        };
        let accepts = match (known_regex, strict) {
            (1, true) => is_header_name,
            (2, true) => is_header_value,
            (1, false) => |text: &str| !text.is_empty() && is_loose_header(text),
            (_, _) => is_loose_header,
        };
        Some(Format { id, words, empty_words, accepts })
    }

    /// Checks a string.
    pub(super) fn check(self, text: &str) -> Checked {
        let Format { id, empty_words, accepts, .. } = self;
        if text.is_empty() && !empty_words.is_empty() {
            let message = format!("value is empty, which is not {empty_words}");
            return Err(Violation::new(format!("string.{id}_empty"), message));
        }
        match accepts(text) {
            true => Ok(()),
            false => Err(Violation::new(format!("string.{id}"), self.message())),
        }
    }

    /// The rule's name without its family.
    pub(super) fn id(self) -> &'static str {
        self.id
    }

    /// What is said of a string that has not the form.
    pub(super) fn message(self) -> String {
        format!("must be {}", self.words)
    }
}

/// The form of WHATWG's `<input type="email">`, which is what the rule means, rather than RFC 5322's.
pub(super) fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let is_local = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
    !local.is_empty() && local.bytes().all(is_local) && domain.split('.').all(net::is_label)
}

fn is_address(text: &str) -> bool {
    net::is_hostname(text) || net::is_ip(text, None)
}

fn is_uuid(text: &str) -> bool {
    /// Digits of each group: 8-4-4-4-12.
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let mut groups = text.split('-');
    let kept = GROUPS.iter().all(|size| {
        let group = groups.next().unwrap_or_default();
        group.len() == *size && is_hex(group)
    });
    kept && groups.next().is_none()
}

fn is_trimmed_uuid(text: &str) -> bool {
    text.len() == 32 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// 26 digits of Crockford's base 32, of which the first is at most 7: 128 bits.
fn is_ulid(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() && !b"ILOU".contains(&byte.to_ascii_uppercase());
    text.len() == 26 && text.bytes().all(is_digit) && matches!(text.as_bytes()[0], b'0'..=b'7')
}

fn is_full_name(text: &str) -> bool {
    text.split('.').all(|part| {
        let starts = part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        starts && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// An optional colon (HTTP/2's pseudo headers) and a token.
///
/// The rule's character class has the range `+-.`, so the comma is in it, unlike in RFC 9110.
fn is_header_name(text: &str) -> bool {
    let name = text.strip_prefix(':').unwrap_or(text);
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+,-.^_|~`".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// No control characters but the tab.
fn is_header_value(text: &str) -> bool {
    text.chars().all(|c| !matches!(c, '\0'..='\u{8}' | '\u{A}'..='\u{1F}' | '\u{7F}'))
}

fn is_loose_header(text: &str) -> bool {
    !text.contains(['\0', '\n', '\r'])
}
