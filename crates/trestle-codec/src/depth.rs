//! JSON text in, its depth known before anything recursive sees it.

/// The byte at which `json` opens its `max + 1`st nested object or array, if it does.
///
/// Looks at brackets outside strings only; whether the text is JSON at all is for the parser to say.
pub(crate) fn exceeded(json: &str, max: usize) -> Option<usize> {
    // Ordinary frames have fewer brackets than may be nested, and counting them all is many bytes at a time.
    if json.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() <= max {
        return None;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = json.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (in_string, byte) {
            (_, b'"') => in_string = !in_string,
            (true, b'\\') => _ = bytes.next(),
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > max {
                    return Some(at);
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::exceeded;

    #[test]
    fn the_bracket_that_is_one_too_many_is_found() {
        assert_eq!(exceeded("[[]]", 2), None);
        assert_eq!(exceeded("[[[]]]", 2), Some(2));
        assert_eq!(exceeded("[[],[],[]]", 2), None);
        assert_eq!(exceeded(r#"{"a":{"b":{}}}"#, 2), Some(10));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        assert_eq!(exceeded(r#"["[[[", "\"[[", "\\", "]"]"#, 1), None);
        assert_eq!(exceeded(r#"["\\", [1]]"#, 1), Some(7));
    }
}
