//! Versions of message types: numbers joined by dots, compared number by number.

use std::fmt;

/// Most numbers in a version; more is a mistake, not a version.
const PARTS_MAX: usize = 4;

/// A version such as `1` or `10.0`; `1` and `1.0` are the same, and `10.0` is higher than `9.0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Version(Vec<u32>);

/// The text is not 1 to 4 numbers joined by dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not one to four numbers joined by dots, such as 1 or 1.0")]
pub(crate) struct InvalidVersion;

impl Version {
    /// Parses a version; trailing zeros do not count.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidVersion> {
        if text.split('.').count() > PARTS_MAX {
            return Err(InvalidVersion);
        }
        let number = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse().map_err(|_| InvalidVersion),
            false => Err(InvalidVersion),
        };
        let mut parts = text.split('.').map(number).collect::<Result<Vec<u32>, _>>()?;
        while parts.len() > 1 && parts.last() == Some(&0) {
            parts.pop();
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(".")?;
            }
            part.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).expect(text)
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(version("10.0") > version("9.0"));
        assert!(version("1.10") > version("1.9.9"));
        assert!(version("2") > version("1.99"));
        assert_eq!(version("1"), version("1.0"));
        assert_eq!(version("01.2"), version("1.2"));
    }

    #[test]
    fn what_is_not_numbers_and_dots_is_refused() {
        for text in ["", ".", "1.", ".1", "v1", "1.0-beta", "1..0", "-1", "+1", "1.0.0.0.0", "99999999999", " 1", "١"]
        {
            assert_eq!(Version::parse(text), Err(InvalidVersion), "{text:?}");
        }
    }
}
