//! The text of a JSON number to an integer or a float, exactly.

use crate::json_reader::number_length;

/// Digits of the largest 64-bit integer; more cannot fit.
const DIGITS_MAX: usize = 20;

/// Why a text is not the integer that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotInteger {
    /// It has a fraction.
    Fraction,
    /// It has more than 64 bits.
    TooLarge,
}

/// Whether all of `text` is a number as JSON has it.
pub(crate) fn is_number(text: &str) -> bool {
    number_length(text.as_bytes()) == Some(text.len())
}

/// The value of a number's text (see [`is_number`]) if it is an integer, however it is written: `100`, `1e2`, `100.0`.
pub(crate) fn integer(number: &str) -> Result<i128, NotInteger> {
    if let Ok(value) = number.parse::<i64>() {
        return Ok(value.into());
    }
    if let Ok(value) = number.parse::<u64>() {
        return Ok(value.into());
    }
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    // An exponent of more than 64 bits is beyond every fraction's length and every integer.
    let exponent = match exponent.parse::<i64>() {
        Ok(exponent) => exponent,
        Err(_) if exponent.starts_with('-') => return Err(NotInteger::Fraction),
        Err(_) => return Err(NotInteger::TooLarge),
    };
    let zeros = exponent.saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX));
    let digits = if zeros < 0 {
        // Only what ends in zeros can be divided without a rest.
        let kept = digits.len().checked_sub(usize::try_from(zeros.unsigned_abs()).unwrap_or(usize::MAX));
        let kept = kept.filter(|&kept| kept > 0 && digits.as_bytes()[kept..].iter().all(|&digit| digit == b'0'));
        digits[..kept.ok_or(NotInteger::Fraction)?].to_owned()
    } else {
        let zeros = usize::try_from(zeros).unwrap_or(usize::MAX);
        if digits.len().saturating_add(zeros) > DIGITS_MAX {
            return Err(NotInteger::TooLarge);
        }
        format!("{digits}{}", "0".repeat(zeros))
    };
    if digits.len() > DIGITS_MAX {
        return Err(NotInteger::TooLarge);
    }
    let value: i128 = digits.parse().map_err(|_| NotInteger::TooLarge)?;
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_may_be_written_with_point_and_exponent() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0e5", 0),
            ("0e99999999999999999999999", 0),
            ("100", 100),
            ("1e2", 100),
            ("1E+2", 100),
            ("1.5e1", 15),
            ("100.0", 100),
            ("1200e-2", 12),
            ("0.00012e5", 12),
            ("-2147483648.0", -2_147_483_648),
            ("9223372036854775807", 9_223_372_036_854_775_807),
            ("18446744073709551615", 18_446_744_073_709_551_615),
            ("1.8446744073709551615e19", 18_446_744_073_709_551_615),
            ("-9.223372036854775808E18", -9_223_372_036_854_775_808),
        ] {
            assert!(is_number(text), "{text}");
            assert_eq!(integer(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn fractions_and_giants_are_not_integers() {
        for text in ["0.5", "1e-1", "-1.25", "15e-1", "1e-99999999999999999999999"] {
            assert_eq!(integer(text), Err(NotInteger::Fraction), "{text}");
        }
        for text in ["1e21", "123456789012345678901", "1e99999999999999999999999", "-1e300"] {
            assert_eq!(integer(text), Err(NotInteger::TooLarge), "{text}");
        }
    }

    #[test]
    fn only_what_json_calls_a_number_is_one() {
        for text in ["", "-", "+1", "01", "1.", ".5", "1e", "1e+", " 1", "1 ", "0x1", "NaN", "Infinity", "1_000", "--1"]
        {
            assert!(!is_number(text), "{text:?}");
        }
    }
}
