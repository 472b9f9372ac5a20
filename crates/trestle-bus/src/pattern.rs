//! Subjects and patterns: tokens between dots, where `*` stands for one token and a last `>` for one or more.

/// Whether `pattern` matches `subject`, which has no wildcards.
#[must_use]
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in pattern.split('.') {
        match (token, subject.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(there)) if token == there => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

/// Whether some subject is matched by both patterns.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

/// Whether `pattern` holds a wildcard.
#[must_use]
pub fn is_wild(pattern: &str) -> bool {
    pattern.split('.').any(|token| token == "*" || token == ">")
}

/// Whether a bus can take `subject`: no empty token, no white space or control character, `>` only at the end, and
/// wildcards at all only where they are `allowed`.
#[must_use]
pub fn is_valid(subject: &str, wildcards: bool) -> bool {
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        let wild = token == "*" || (token == ">" && tokens.peek().is_none());
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
        if token.is_empty() || (token.contains(odd) && !(wild && wildcards)) {
            return false;
        }
    }
    true
}

/// Whether a key-value store takes `key`.
#[must_use]
pub fn is_valid_key(key: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=' | b'/' | b'.');
    (1..=256).contains(&key.len()) && key.bytes().all(fits) && !key.starts_with('.') && !key.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_token_and_a_tail_is_one_or_more() {
        for (pattern, subject, is) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.b.c", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*", "a.b", false),
        ] {
            assert_eq!(matches(pattern, subject), is, "{pattern} {subject}");
        }
    }

    #[test]
    fn patterns_overlap_when_a_subject_fits_both() {
        for (one, other, is) in [
            ("a.*", "a.b", true),
            ("a.*", "*.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("w.x.>", "w.y.>", false),
        ] {
            assert_eq!(overlap(one, other), is, "{one} {other}");
            assert_eq!(overlap(other, one), is, "{other} {one}");
        }
    }

    #[test]
    fn what_a_bus_cannot_take_is_seen() {
        for (subject, wildcards, is) in [
            ("a.b", false, true),
            ("a..b", false, false),
            ("", false, false),
            ("a b", false, false),
            ("a\r\n", true, false),
            ("a.*", false, false),
            ("a.*", true, true),
            ("a.>", true, true),
            ("a.>.b", true, false),
            ("a.b*", true, false),
        ] {
            assert_eq!(is_valid(subject, wildcards), is, "{subject:?} {wildcards}");
        }
    }
}
