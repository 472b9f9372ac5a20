//! Host names, IP addresses and networks as strings.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The family of an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}

/// RFC 1034's preferred name syntax; a name has at most 253 characters and may end in a dot.
///
/// The last label is not all digits, so that nothing is both a host name and an IPv4 address.
pub(super) fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// 1 to 63 letters, digits and hyphens, neither first nor last a hyphen.
pub(super) fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// An address of `version`, or of either; an IPv6 address may have a zone (RFC 4007), as in `fe80::1%eth0`.
pub(super) fn is_ip(text: &str, version: Option<IpVersion>) -> bool {
    let v4 = || text.parse::<Ipv4Addr>().is_ok();
    let v6 = || match text.split_once('%') {
        Some((address, zone)) => !zone.is_empty() && !zone.contains('\0') && is_plain_v6(address),
        None => is_plain_v6(text),
    };
    match version {
        Some(IpVersion::V4) => v4(),
        Some(IpVersion::V6) => v6(),
        None => v4() || v6(),
    }
}

fn is_plain_v6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// An address and the length of a prefix, as in `10.0.0.0/8`; `strict` wants all bits after the prefix to be zero.
pub(super) fn is_ip_prefix(text: &str, version: Option<IpVersion>, strict: bool) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let v4 = || {
        let bits = address.parse::<Ipv4Addr>().map(u32::from);
        let kept = |bits: u32, length: u32| bits & u32::MAX.checked_shr(length).unwrap_or(0) == 0;
        match (bits, decimal(length, 32)) {
            (Ok(bits), Some(length)) => !strict || kept(bits, length),
            _ => false,
        }
    };
    let v6 = || {
        let bits = address.parse::<Ipv6Addr>().map(u128::from);
        let kept = |bits: u128, length: u32| bits & u128::MAX.checked_shr(length).unwrap_or(0) == 0;
        match (bits, decimal(length, 128)) {
            (Ok(bits), Some(length)) => !strict || kept(bits, length),
            _ => false,
        }
    };
    match version {
        Some(IpVersion::V4) => v4(),
        Some(IpVersion::V6) => v6(),
        None => v4() || v6(),
    }
}

/// A host name or an address and a port, as in `example.com:443` or `[::1]:443`; the port may be left out unless `port_required`.
pub(super) fn is_host_and_port(text: &str, port_required: bool) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.rsplit_once(']') else {
            return false;
        };
        let port_kept = match after.strip_prefix(':') {
            Some(port) => is_port(port),
            None => after.is_empty() && !port_required,
        };
        return port_kept && is_ip(address, Some(IpVersion::V6));
    }
    let is_host = |host: &str| is_hostname(host) || is_ip(host, Some(IpVersion::V4));
    match text.rsplit_once(':') {
        Some((host, port)) => is_host(host) && is_port(port),
        None => !port_required && is_host(text),
    }
}

fn is_port(text: &str) -> bool {
    decimal(text, 65_535).is_some()
}

/// A decimal number up to `most`, without sign and without leading zeros.
fn decimal(text: &str, most: u32) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let leads = text.len() > 1 && text.starts_with('0');
    let number: u32 = text.parse().ok()?;
    (plain && !leads && number <= most).then_some(number)
}
