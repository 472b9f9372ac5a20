//! URIs and URI references, by the grammar of RFC 3986 (and RFC 6874 for the zone of an IPv6 address).

use super::net::{IpVersion, is_ip};

/// A URI: it has a scheme.
pub(super) fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    is_scheme(scheme) && is_after_scheme(rest, false)
}

/// A URI, or a reference that is relative to one.
pub(super) fn is_uri_ref(text: &str) -> bool {
    is_uri(text) || is_after_scheme(text, true)
}

/// `hier-part` or `relative-part`, then query and fragment.
fn is_after_scheme(text: &str, relative: bool) -> bool {
    let (text, fragment) = split_at(text, '#');
    let (text, query) = split_at(text, '?');
    let tail_kept = [query, fragment].into_iter().flatten().all(|part| is_made_of(part, b"!$&'()*+,;=:@/?"));
    tail_kept && is_hierarchy(text, relative)
}

fn split_at(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// An authority and a path, or a path alone.
fn is_hierarchy(text: &str, relative: bool) -> bool {
    if let Some(rest) = text.strip_prefix("//") {
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        return is_authority(authority) && is_path(path);
    }
    // Without a scheme, a colon in the first segment would make the segment look like one.
    let first = text.split('/').next().unwrap_or_default();
    is_path(text) && !(relative && first.contains(':'))
}

fn is_path(text: &str) -> bool {
    is_made_of(text, b"!$&'()*+,;=:@/")
}

fn is_authority(text: &str) -> bool {
    let (user, rest) = match text.split_once('@') {
        Some((user, rest)) => (user, rest),
        None => ("", text),
    };
    if !is_made_of(user, b"!$&'()*+,;=:") {
        return false;
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((literal, after)) if is_ip_literal(literal) => ("", after),
            _ => return false,
        },
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let port_kept = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => port.is_empty(),
    };
    port_kept && is_reg_name(host)
}

/// What stands between the brackets: an IPv6 address, one with a zone, or a future kind.
fn is_ip_literal(text: &str) -> bool {
    if let Some(future) = text.strip_prefix(['v', 'V']) {
        let Some((version, address)) = future.split_once('.') else {
            return false;
        };
        let is_plain = |byte: u8| is_unreserved(byte) || b"!$&'()*+,;=:".contains(&byte);
        return !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(is_plain);
    }
    match text.split_once('%') {
        Some((address, zone)) => {
            let zone = zone.strip_prefix("25").unwrap_or_default();
            !zone.is_empty() && is_reg_name(zone) && is_made_of(zone, b"") && is_v6(address)
        }
        None => is_v6(text),
    }
}

fn is_v6(text: &str) -> bool {
    !text.contains('%') && is_ip(text, Some(IpVersion::V6))
}

/// A registered name; what is percent-encoded in it must be UTF-8.
fn is_reg_name(text: &str) -> bool {
    is_made_of(text, b"!$&'()*+,;=") && String::from_utf8(percent_decoded(text)).is_ok()
}

/// Unreserved characters, percent-encoded ones, and those in `also`.
fn is_made_of(text: &str, also: &[u8]) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let kept = match byte {
            b'%' => {
                [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit()))
            }
            byte => is_unreserved(byte) || also.contains(&byte),
        };
        if !kept {
            return false;
        }
    }
    true
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// The bytes that `text` stands for; what is no percent-encoding stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let high = digit(bytes.get(at + 1));
        let low = digit(bytes.get(at + 2));
        match (byte, high, low) {
            (b'%', Some(high), Some(low)) => {
                decoded.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            (byte, ..) => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}
