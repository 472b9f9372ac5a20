//! Tags of a session, and the selector language that picks sessions by them.
//!
//! ```text
//! selector = all { "OR" all }         all  = term { "AND" term }
//! term     = "NOT" term | "(" selector ")" | test
//! test     = key "=" value | key "!=" value | key "IN" list | key "NOT" "IN" list | key "EXISTS"
//! list     = "(" value { "," value } ")"
//! ```
//! Keys and bare values are letters, digits and `-_.:/@+`; any other value stands in single quotes, a quote in it doubled.
//! Words of the language are upper or lower case. A session without the key matches neither `=` nor `IN`, but `!=` and
//! `NOT IN`.

use std::{collections::BTreeMap, fmt};

/// Tags of a session.
pub type Tags = BTreeMap<String, String>;

/// Most tags of a session: 32 x (64 + 256) bytes are 10 KiB at worst.
pub const TAGS_MAX: usize = 32;
/// Longest key of a tag, in bytes.
pub const TAG_KEY_BYTES_MAX: usize = 64;
/// Longest value of a tag, in bytes.
pub const TAG_VALUE_BYTES_MAX: usize = 256;
/// Longest selector, in bytes; bounds its depth too.
pub const SELECTOR_BYTES_MAX: usize = 1024;
/// How deep parentheses and NOT may nest.
const DEPTH_MAX: u32 = 32;

/// What is wrong with a tag, if anything.
///
/// # Errors
/// A sentence that names the tag.
pub fn check_tag(key: &str, value: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > TAG_KEY_BYTES_MAX || !key.bytes().all(is_bare) || is_word(key) {
        let shown: String = key.chars().take(TAG_KEY_BYTES_MAX).collect();
        return Err(format!(
            "tag key {shown:?} is not 1 to {TAG_KEY_BYTES_MAX} letters, digits and -_.:/@+, or is a word of selectors"
        ));
    }
    if value.len() > TAG_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(format!(
            "the value of tag {key} is longer than {TAG_VALUE_BYTES_MAX} bytes or has control characters"
        ));
    }
    Ok(())
}

/// A selector that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector: {said} at byte {at}")]
pub struct InvalidSelector {
    said: String,
    /// From 1.
    at: usize,
}

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    text: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Any(Vec<Test>),
    All(Vec<Test>),
    Not(Box<Test>),
    OneOf(String, Vec<String>),
    Exists(String),
}

impl Selector {
    /// Parses `text`.
    ///
    /// # Errors
    /// [`InvalidSelector`] says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > SELECTOR_BYTES_MAX {
            let said = format!("longer than {SELECTOR_BYTES_MAX} bytes");
            return Err(InvalidSelector { said, at: SELECTOR_BYTES_MAX + 1 });
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0, end: text.len() + 1, depth: 0 };
        let test = parser.any()?;
        match parser.peek() {
            None => Ok(Self { text: text.to_owned(), test }),
            Some(_) => Err(parser.fault("expected AND, OR or the end")),
        }
    }

    /// Whether a session with these tags is picked.
    #[must_use]
    pub fn matches(&self, tags: &Tags) -> bool {
        self.test.holds(tags)
    }

    /// The selector as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Test {
    fn holds(&self, tags: &Tags) -> bool {
        match self {
            Self::Any(tests) => tests.iter().any(|test| test.holds(tags)),
            Self::All(tests) => tests.iter().all(|test| test.holds(tags)),
            Self::Not(test) => !test.holds(tags),
            Self::OneOf(key, values) => tags.get(key).is_some_and(|value| values.contains(value)),
            Self::Exists(key) => tags.contains_key(key),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Text(String),
    Quoted(String),
    Sign(&'static str),
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.:/@+".contains(&byte)
}

fn is_word(text: &str) -> bool {
    ["AND", "OR", "NOT", "IN", "EXISTS"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, InvalidSelector> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text.len() - rest.len() + 1;
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let (token, length) = if let Some(sign) = ["!=", "=", "(", ")", ","].into_iter().find(|s| rest.starts_with(s)) {
            (Token::Sign(sign), sign.len())
        } else if first == '\'' {
            let (value, length) =
                quoted(rest).ok_or_else(|| InvalidSelector { said: "a quote without its end".into(), at })?;
            (Token::Quoted(value), length)
        } else {
            let length = rest.bytes().take_while(|byte| is_bare(*byte)).count();
            if length == 0 {
                return Err(InvalidSelector { said: format!("{first:?} has no meaning outside quotes"), at });
            }
            (Token::Text(rest[..length].to_owned()), length)
        };
        tokens.push((token, at));
        rest = &rest[length..];
    }
}

/// The text in quotes that `text` begins with, and how many bytes it takes there.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut at = 1;
    loop {
        let end = at + text[at..].find('\'')?;
        value.push_str(&text[at..end]);
        at = end + 1;
        if !text[at..].starts_with('\'') {
            return Some((value, at));
        }
        value.push('\'');
        at += 1;
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    end: usize,
    depth: u32,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn fault(&self, said: &str) -> InvalidSelector {
        let at = self.tokens.get(self.next).map_or(self.end, |(_, at)| *at);
        InvalidSelector { said: said.to_owned(), at }
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Text(found)) if found.eq_ignore_ascii_case(word));
        self.next += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<Test, InvalidSelector> {
        let mut tests = vec![self.all()?];
        while self.word("OR") {
            tests.push(self.all()?);
        }
        Ok(Test::Any(tests))
    }

    fn all(&mut self) -> Result<Test, InvalidSelector> {
        let mut tests = vec![self.term()?];
        while self.word("AND") {
            tests.push(self.term()?);
        }
        Ok(Test::All(tests))
    }

    fn term(&mut self) -> Result<Test, InvalidSelector> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.fault("nested too deep"));
        }
        let test = if self.word("NOT") {
            Test::Not(Box::new(self.term()?))
        } else if self.sign("(") {
            let test = self.any()?;
            if !self.sign(")") {
                return Err(self.fault("expected )"));
            }
            test
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(test)
    }

    fn test(&mut self) -> Result<Test, InvalidSelector> {
        let key = match self.peek() {
            Some(Token::Text(key)) if !is_word(key) => key.clone(),
            _ => return Err(self.fault("expected the key of a tag")),
        };
        self.next += 1;
        if self.sign("=") {
            return Ok(Test::OneOf(key, vec![self.value()?]));
        }
        if self.sign("!=") {
            return Ok(Test::Not(Box::new(Test::OneOf(key, vec![self.value()?]))));
        }
        if self.word("EXISTS") {
            return Ok(Test::Exists(key));
        }
        let not = self.word("NOT");
        if !self.word("IN") {
            return Err(self.fault("expected =, !=, IN, NOT IN or EXISTS"));
        }
        let test = Test::OneOf(key, self.list()?);
        Ok(if not { Test::Not(Box::new(test)) } else { test })
    }

    fn list(&mut self) -> Result<Vec<String>, InvalidSelector> {
        if !self.sign("(") {
            return Err(self.fault("expected ("));
        }
        let mut values = vec![self.value()?];
        while self.sign(",") {
            values.push(self.value()?);
        }
        if self.sign(")") { Ok(values) } else { Err(self.fault("expected , or )")) }
    }

    fn value(&mut self) -> Result<String, InvalidSelector> {
        let value = match self.peek() {
            Some(Token::Quoted(value)) => value.clone(),
            Some(Token::Text(value)) if !is_word(value) => value.clone(),
            _ => return Err(self.fault("expected a value")),
        };
        self.next += 1;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags() -> Tags {
        [("plan", "pro"), ("region", "eu"), ("name", "O'Hara & co")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn selectors_pick_by_tags() {
        for (selector, picked) in [
            ("plan=pro AND region IN (eu, us)", true),
            ("plan=pro and region in (us)", false),
            ("plan=free OR region=eu", true),
            ("plan=free OR region=eu AND plan=pro", true),
            ("(plan=free OR region=eu) AND plan=free", false),
            ("NOT plan=free", true),
            ("NOT (plan=pro AND region=eu)", false),
            ("age EXISTS", false),
            ("plan EXISTS", true),
            ("age=3", false),
            ("age != 3", true),
            ("age NOT IN (3,4)", true),
            ("name='O''Hara & co'", true),
        ] {
            assert_eq!(Selector::parse(selector).unwrap().matches(&tags()), picked, "{selector}");
        }
    }

    #[test]
    fn faults_say_what_and_where() {
        for (selector, said) in [
            ("", "the key of a tag at byte 1"),
            ("plan", "expected =, !=, IN, NOT IN or EXISTS at byte 5"),
            ("plan=", "expected a value at byte 6"),
            ("plan=pro region=eu", "expected AND, OR or the end at byte 10"),
            ("region IN eu", "expected ( at byte 11"),
            ("region IN (eu", "expected , or ) at byte 14"),
            ("(plan=pro", "expected ) at byte 10"),
            ("plan=pro; x", "';' has no meaning outside quotes at byte 9"),
            ("name='x", "a quote without its end at byte 6"),
            ("AND=1", "the key of a tag at byte 1"),
        ] {
            let fault = Selector::parse(selector).unwrap_err().to_string();
            assert!(fault.contains(said), "{selector}: {fault}");
        }
        assert!(Selector::parse(&"NOT ".repeat(200)).is_err());
        assert!(Selector::parse(&"x".repeat(2000)).is_err());
    }

    #[test]
    fn tags_are_checked() {
        assert_eq!(check_tag("plan", "pro"), Ok(()));
        assert!(check_tag("and", "x").is_err() && check_tag("", "x").is_err() && check_tag("a b", "x").is_err());
        assert!(check_tag("a", "\n").is_err() && check_tag("a", &"x".repeat(257)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_a_fault(text in ".{0,60}") {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn any_value_can_be_quoted(value in "[^\\x00-\\x1f]{0,20}") {
            let tags: Tags = [("k".to_owned(), value.clone())].into();
            let selector = Selector::parse(&format!("k = '{}'", value.replace('\'', "''"))).unwrap();
            prop_assert!(selector.matches(&tags));
        }
    }
}
