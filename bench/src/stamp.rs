//! A payload that says when it was sent. ASCII without quotes and line ends, so that it stands as it is in every
//! protocol.

use std::{sync::LazyLock, time::Instant};

use anyhow::Context as _;

/// Stands before the time, and nowhere else in what a server sends.
const MARK: &[u8] = b"@t:";
/// Hexadecimal digits of the time.
const DIGITS: usize = 16;

static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the bench began.
pub(crate) fn now() -> u64 {
    u64::try_from(BEGUN.elapsed().as_nanos()).expect("a bench does not take centuries")
}

/// `bytes` of payload, sent now.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    let mut payload = format!("@t:{:016x}", now()).into_bytes();
    payload.resize(bytes, b'x');
    payload
}

/// How long ago the payload in `delivery` was sent, in nanoseconds.
pub(crate) fn age(delivery: &[u8]) -> anyhow::Result<u64> {
    let at = delivery.windows(MARK.len()).position(|three| three == MARK).context("a delivery without its time")?;
    let digits = delivery.get(at + MARK.len()..at + MARK.len() + DIGITS).context("a delivery that ends in its time")?;
    Ok(now().saturating_sub(u64::from_str_radix(std::str::from_utf8(digits)?, 16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_as_large_as_said_and_knows_its_age() {
        let begun = now();
        let payload = payload(128);
        assert_eq!(payload.len(), 128);
        let framed = [b"MSG c0 1 128\r\n", &payload[..]].concat();
        let age = age(&framed).expect("has its time");
        assert!(age <= now() - begun, "{age}");
        assert!(super::age(b"nothing").is_err());
    }
}
