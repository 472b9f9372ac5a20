//! JSON text to tokens, strictly as RFC 8259 has it. Numbers stay text, so that none loses a digit.

use std::borrow::Cow;

use crate::misfit::{Fit, Misfit};

/// What begins at the reader's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

impl Begins {
    /// For sentences: what was found.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::True => "true",
            Self::False => "false",
            Self::Null => "null",
        }
    }
}

/// Reads one JSON text from its beginning to its end. Never recurses.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(json: &'a [u8]) -> Fit<Self> {
        let text = std::str::from_utf8(json)
            .map_err(|error| Misfit::new(format!("the JSON is not UTF-8 at byte {}", error.valid_up_to())))?;
        Ok(Self { text, at: 0 })
    }

    /// The place, to come back to with [`Self::rewind`].
    pub(crate) fn place(&self) -> usize {
        self.at
    }

    /// Goes back to a place where the reader was.
    pub(crate) fn rewind(&mut self, place: usize) {
        self.at = place;
    }

    /// What comes next; takes nothing but white space.
    pub(crate) fn peek(&mut self) -> Fit<Begins> {
        Ok(match self.skip_space() {
            Some(b'{') => Begins::Object,
            Some(b'[') => Begins::Array,
            Some(b'"') => Begins::String,
            Some(b'-' | b'0'..=b'9') => Begins::Number,
            Some(b't') => Begins::True,
            Some(b'f') => Begins::False,
            Some(b'n') => Begins::Null,
            _ => return Err(self.expected("a value")),
        })
    }

    /// Takes the `{` or `[` that was peeked.
    pub(crate) fn open(&mut self) {
        self.at += 1;
    }

    /// The next key of an object, or `None` after taking its `}`. `first` is true once, after [`Self::open`].
    pub(crate) fn key(&mut self, first: bool) -> Fit<Option<Cow<'a, str>>> {
        if !self.another(first, b'}', "',' or '}'")? {
            return Ok(None);
        }
        if self.skip_space() != Some(b'"') {
            return Err(self.expected("a key in quotes"));
        }
        let key = self.string()?;
        if self.skip_space() != Some(b':') {
            return Err(self.expected("':'"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether an array has another element; takes its `]` if not. `first` is true once, after [`Self::open`].
    pub(crate) fn element(&mut self, first: bool) -> Fit<bool> {
        self.another(first, b']', "',' or ']'")
    }

    /// Takes the string that was peeked.
    pub(crate) fn string(&mut self) -> Fit<Cow<'a, str>> {
        self.at += 1;
        let run = self.run()?;
        if self.byte() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(run));
        }
        let mut text = run.to_owned();
        loop {
            let closed = self.byte() == Some(b'"');
            self.at += 1;
            if closed {
                return Ok(Cow::Owned(text));
            }
            text.push(self.escape()?);
            text.push_str(self.run()?);
        }
    }

    /// Takes the number that was peeked, as text.
    pub(crate) fn number(&mut self) -> Fit<&'a str> {
        let rest = &self.text[self.at..];
        let Some(length) = number_length(rest.as_bytes()) else { return Err(self.expected("a number")) };
        self.at += length;
        Ok(&rest[..length])
    }

    /// Takes the `true`, `false` or `null` that was peeked.
    pub(crate) fn word(&mut self, word: &'static str) -> Fit {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.expected(word));
        }
        self.at += word.len();
        Ok(())
    }

    /// Skips one value, looking only at quotes and brackets: whoever skips reads it again, strictly, later.
    pub(crate) fn skip(&mut self) -> Fit {
        let mut depth = 0_usize;
        loop {
            match self.skip_space() {
                None => return Err(self.expected("a value")),
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                Some(b'}' | b']') => {
                    depth = depth.checked_sub(1).ok_or_else(|| self.expected("a value"))?;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                Some(b',' | b':') => return Err(self.expected("a value")),
                Some(_) => {
                    let rest = &self.text[self.at..];
                    // The same white space that `skip_space` skips, or a form feed would never be passed.
                    let ends =
                        |c: char| matches!(c, ',' | ':' | ']' | '}' | '{' | '[' | '"' | ' ' | '\n' | '\r' | '\t');
                    self.at += rest.find(ends).unwrap_or(rest.len());
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Nothing may follow but white space.
    pub(crate) fn end(&mut self) -> Fit {
        match self.skip_space() {
            None => Ok(()),
            Some(_) => Err(self.expected("nothing more")),
        }
    }

    /// What was expected here, and what is here.
    fn expected(&self, what: &str) -> Box<Misfit> {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => format!("{c:?}"),
            None => "the end".to_owned(),
        };
        Misfit::new(format!("the JSON is broken at byte {}: expected {what}, found {found}", self.at))
    }

    fn another(&mut self, first: bool, close: u8, expected: &str) -> Fit<bool> {
        match self.skip_space() {
            Some(byte) if byte == close => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !first => self.at += 1,
            Some(_) if first => return Ok(true),
            _ => return Err(self.expected(expected)),
        }
        // A comma promises another.
        match self.skip_space() {
            Some(byte) if byte != close => Ok(true),
            _ => Err(self.expected("another after ','")),
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Takes the plain characters up to the next quote or backslash.
    fn run(&mut self) -> Fit<&'a str> {
        let rest = &self.text[self.at..];
        let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..=0x1f);
        let length = rest.as_bytes().iter().take_while(|byte| plain(byte)).count();
        self.at += length;
        match self.byte() {
            Some(b'"' | b'\\') => Ok(&rest[..length]),
            _ => Err(self.expected("the end of a string")),
        }
    }

    /// The character of an escape whose backslash was taken.
    fn escape(&mut self) -> Fit<char> {
        let Some(byte) = self.byte() else { return Err(self.expected("an escape")) };
        let character = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.expected("an escape")),
        };
        self.at += 1;
        Ok(character)
    }

    /// `XXXX`, or `XXXX\uXXXX` for a pair of surrogates.
    fn unicode(&mut self) -> Fit<char> {
        let high = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).ok_or_else(|| self.expected("a surrogate's other half before it"));
        }
        if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Err(self.expected("a surrogate's other half"));
        }
        self.at += 2;
        let low = self.hex4()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(self.expected("a surrogate's other half before it"));
        }
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
            .ok_or_else(|| self.expected("a pair of surrogates"))
    }

    fn hex4(&mut self) -> Fit<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let value = digits.iter().try_fold(0, |value, &byte| Some(value << 4 | char::from(byte).to_digit(16)?));
        match value {
            Some(value) if digits.len() == 4 => {
                self.at += 4;
                Ok(value)
            }
            _ => Err(self.expected("four hexadecimal digits")),
        }
    }
}

/// How many bytes at the beginning are a number as JSON has it; `None` if it begins otherwise.
pub(crate) fn number_length(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at += match bytes.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}
