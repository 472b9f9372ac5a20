//! A message's place in a trace, as `traceparent` writes it.

use std::collections::BTreeMap;

/// The header that carries a context.
pub const TRACEPARENT: &str = "traceparent";

/// Length of a version 00 `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
const LENGTH: usize = 55;

/// A message's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, never 0.
    pub trace_id: u128,
    /// The span that what comes next belongs to; 0 in a trace that has no span yet.
    pub span_id: u64,
    /// Whether spans of this trace are recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`. `None` if it is not one; by the specification it is then as if there were none.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let text = traceparent.as_bytes();
        let version = hex(text.get(..2)?)?;
        // Version 00 is exactly this long; later ones may go on after a dash; ff is forbidden.
        let long_enough = match version {
            0 => text.len() == LENGTH,
            0xff => false,
            _ => text.len() == LENGTH || text.get(LENGTH) == Some(&b'-'),
        };
        if !long_enough || [text[2], text[35], text[52]] != [b'-'; 3] {
            return None;
        }
        let trace_id = hex(&text[3..35])?;
        let span_id = u64::try_from(hex(&text[36..52])?).ok()?;
        let flags = hex(&text[53..55])?;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    /// Writes a version 00 `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }

    /// The context in an envelope's headers.
    #[must_use]
    pub fn of(headers: &BTreeMap<String, String>) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT)?)
    }

    /// Puts the context into an envelope's headers, over the one that is there. A trace that has no span yet is left
    /// out: nobody could belong to it.
    pub fn carry(&self, headers: &mut BTreeMap<String, String>) {
        if self.span_id == 0 {
            return;
        }
        match headers.get_mut(TRACEPARENT) {
            Some(value) => *value = self.traceparent(),
            None => drop(headers.insert(TRACEPARENT.into(), self.traceparent())),
        }
    }
}

/// Lower-case hexadecimal digits, at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specifications_example_is_read_and_written() {
        let context = TraceContext::parse(EXAMPLE).expect("valid");
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.span_id, 0x00f0_67aa_0ba9_02b7);
        assert!(context.sampled);
        assert_eq!(context.traceparent(), EXAMPLE);
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = format!("cc-{}-what the future brings", &EXAMPLE[3..]);
        assert_eq!(TraceContext::parse(&later), TraceContext::parse(EXAMPLE));
    }

    #[test]
    fn what_is_not_a_traceparent_is_as_if_there_were_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_trace_without_a_span_is_not_carried() {
        let mut headers = BTreeMap::new();
        TraceContext { trace_id: 1, span_id: 0, sampled: true }.carry(&mut headers);
        assert!(headers.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_carried_is_found_again(trace_id in 1_u128.., span_id in 1_u64.., sampled: bool, was in ".*") {
            let context = TraceContext { trace_id, span_id, sampled };
            let mut headers = BTreeMap::from([(TRACEPARENT.to_owned(), was)]);
            context.carry(&mut headers);
            prop_assert_eq!(TraceContext::of(&headers), Some(context));
        }

        #[test]
        fn no_text_breaks_the_parser(text in "\\PC{0,70}") {
            let _ = TraceContext::parse(&text);
        }
    }
}
