//! CEL's extension for strings.

use super::super::octets::hex;
use super::functions::{Takes, no_overload};
use super::node::{Evaluated, Fault};
use super::types::Type;
use super::value::{List, Val};

/// A method of a string, or `join` of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    CharAt,
    Format,
    IndexOf,
    Join,
    LastIndexOf,
    LowerAscii,
    Replace,
    Reverse,
    Split,
    Substring,
    Trim,
    UpperAscii,
}

/// The operation `name`, what it takes, how many of those may be left out, and what it gives.
pub(super) fn find(name: &str) -> Option<(Operation, &'static [Takes], usize, Type)> {
    let texts = || Type::List(Box::new(Type::Text));
    Some(match name {
        "charAt" => (Operation::CharAt, &["s", "i"], 0, Type::Text),
        "format" => (Operation::Format, &["s", "l"], 0, Type::Text),
        "indexOf" => (Operation::IndexOf, &["s", "s", "i"], 1, Type::Int),
        "join" => (Operation::Join, &["l", "s"], 1, Type::Text),
        "lastIndexOf" => (Operation::LastIndexOf, &["s", "s"], 0, Type::Int),
        "lowerAscii" => (Operation::LowerAscii, &["s"], 0, Type::Text),
        "replace" => (Operation::Replace, &["s", "s", "s", "i"], 1, Type::Text),
        "reverse" => (Operation::Reverse, &["s"], 0, Type::Text),
        "split" => (Operation::Split, &["s", "s", "i"], 1, texts()),
        "substring" => (Operation::Substring, &["s", "i", "i"], 1, Type::Text),
        "trim" => (Operation::Trim, &["s"], 0, Type::Text),
        "upperAscii" => (Operation::UpperAscii, &["s"], 0, Type::Text),
        _ => return None,
    })
}

/// Calls an operation; positions count characters, not bytes.
pub(super) fn call<'a>(operation: Operation, arguments: &[Val<'a>]) -> Evaluated<'a> {
    Ok(match (operation, arguments) {
        (Operation::CharAt, [Val::Text(text), Val::Int(at)]) => {
            Val::text(slice(text, *at, Some(at.saturating_add(1)))?)
        }
        (Operation::Format, [Val::Text(template), Val::List(list)]) => Val::text(format(template, list)?),
        (Operation::IndexOf, [Val::Text(text), Val::Text(part)]) => Val::Int(position(text, text.find(&**part))),
        (Operation::IndexOf, [Val::Text(text), Val::Text(part), Val::Int(from)]) => {
            let rest = slice(text, *from, None)?;
            match position(&rest, rest.find(&**part)) {
                -1 => Val::Int(-1),
                at => Val::Int(at + from),
            }
        }
        (Operation::LastIndexOf, [Val::Text(text), Val::Text(part)]) => Val::Int(position(text, text.rfind(&**part))),
        (Operation::Join, [Val::List(list)]) => Val::text(join(list, "")?),
        (Operation::Join, [Val::List(list), Val::Text(between)]) => Val::text(join(list, between)?),
        (Operation::LowerAscii, [Val::Text(text)]) => Val::text(text.to_ascii_lowercase()),
        (Operation::UpperAscii, [Val::Text(text)]) => Val::text(text.to_ascii_uppercase()),
        (Operation::Reverse, [Val::Text(text)]) => Val::text(text.chars().rev().collect::<String>()),
        (Operation::Trim, [Val::Text(text)]) => Val::text(text.trim()),
        (Operation::Replace, [Val::Text(text), Val::Text(old), Val::Text(new)]) => {
            Val::text(replace(text, old, new, None)?)
        }
        (Operation::Replace, [Val::Text(text), Val::Text(old), Val::Text(new), Val::Int(most)]) => {
            Val::text(replace(text, old, new, usize::try_from(*most).ok())?)
        }
        (Operation::Split, [Val::Text(text), Val::Text(by)]) => split(text, by, None),
        (Operation::Split, [Val::Text(text), Val::Text(by), Val::Int(most)]) => {
            split(text, by, usize::try_from(*most).ok())
        }
        (Operation::Substring, [Val::Text(text), Val::Int(from)]) => Val::text(slice(text, *from, None)?),
        (Operation::Substring, [Val::Text(text), Val::Int(from), Val::Int(to)]) => {
            Val::text(slice(text, *from, Some(*to))?)
        }
        (operation, arguments) => return Err(no_overload(&format!("{operation:?}"), arguments)),
    })
}

/// The characters from `from` up to `to`, or to the end; the end itself is a place where nothing is left.
fn slice(text: &str, from: i64, to: Option<i64>) -> Result<String, Fault> {
    let size = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let to = to.unwrap_or(size).min(size);
    let outside = || Fault::new("a position is outside of the text");
    if from > to {
        return Err(outside());
    }
    let from = usize::try_from(from).map_err(|_| outside())?;
    let to = usize::try_from(to).map_err(|_| outside())?;
    Ok(text.chars().skip(from).take(to - from).collect())
}

/// The position in characters of a position in bytes; -1 for none.
fn position(text: &str, at: Option<usize>) -> i64 {
    match at {
        Some(at) => i64::try_from(text[..at].chars().count()).unwrap_or(i64::MAX),
        None => -1,
    }
}

fn join(list: &List<'_>, between: &str) -> Result<String, Fault> {
    let mut joined = String::new();
    for (index, item) in list.iter().enumerate() {
        let Val::Text(item) = &item else {
            return Err(no_overload("join", &[item]));
        };
        if index > 0 {
            joined.push_str(between);
        }
        joined.push_str(item);
    }
    Ok(joined)
}

/// How large a text made from a message may become: replacing could square its size.
const REPLACED_BYTES_MAX: usize = 1 << 20;

fn replace(text: &str, old: &str, new: &str, most: Option<usize>) -> Result<String, Fault> {
    let times = text.matches(old).count().min(most.unwrap_or(usize::MAX));
    if times.saturating_mul(new.len()) > REPLACED_BYTES_MAX {
        return Err(Fault::new("`replace` would make a text of more than 1 MiB"));
    }
    Ok(text.replacen(old, new, times))
}

fn split<'a>(text: &str, by: &str, most: Option<usize>) -> Val<'a> {
    let pieces: Vec<&str> = match (most, by) {
        (Some(0), _) => Vec::new(),
        // Rust would give an empty piece before and after.
        (most, "") => {
            let cuts = text.char_indices().skip(1).map(|(at, _)| at);
            let cuts = cuts.take(most.map_or(usize::MAX, |most| most - 1));
            let ends = cuts.chain([text.len()]);
            let mut from = 0;
            ends.map(|to| &text[std::mem::replace(&mut from, to)..to]).collect()
        }
        (Some(most), by) => text.splitn(most, by).collect(),
        (None, by) => text.split(by).collect(),
    };
    Val::list(pieces.into_iter().map(Val::text).collect())
}

/// `%s`, `%d`, `%f`, `%e`, `%x`, `%X`, `%o`, `%b` and `%%`, with a precision for `%f` and `%e`.
fn format(template: &str, list: &List<'_>) -> Result<String, Fault> {
    let mut made = String::new();
    let mut items = list.iter();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        made.push_str(before);
        let end = after.find(|c: char| c.is_ascii_alphabetic() || c == '%');
        let (precision, verb) = after.split_at(end.ok_or_else(|| Fault::new("a `%` has no verb"))?);
        rest = &verb[1..];
        if verb.starts_with('%') {
            made.push('%');
            continue;
        }
        let item = items.next().ok_or_else(|| Fault::new("`format` has more verbs than values"))?;
        let digits = match precision.strip_prefix('.') {
            Some(digits) => digits.parse().ok().filter(|digits: &usize| *digits <= 100),
            None => Some(6),
        };
        let digits = digits.ok_or_else(|| Fault::new("a precision of `format` is not 0 to 100"))?;
        made.push_str(&formatted(&verb[..1], digits, &item)?);
    }
    Ok(made + rest)
}

fn formatted(verb: &str, digits: usize, item: &Val<'_>) -> Result<String, Fault> {
    Ok(match (verb, item) {
        ("s", item) => written(item),
        ("d", Val::Int(_) | Val::Uint(_)) => written(item),
        ("f", Val::Double(value)) => format!("{value:.digits$}"),
        ("e", Val::Double(value)) => format!("{value:.digits$e}"),
        ("b", Val::Bool(value)) => u8::from(*value).to_string(),
        ("b", Val::Int(value)) => signed(*value, |value| format!("{value:b}")),
        ("b", Val::Uint(value)) => format!("{value:b}"),
        ("o", Val::Int(value)) => signed(*value, |value| format!("{value:o}")),
        ("o", Val::Uint(value)) => format!("{value:o}"),
        ("x", Val::Int(value)) => signed(*value, |value| format!("{value:x}")),
        ("x", Val::Uint(value)) => format!("{value:x}"),
        ("x", Val::Text(text)) => hex(text.as_bytes()),
        ("x", Val::Bytes(bytes)) => hex(bytes),
        ("X", item) => formatted("x", digits, item)?.to_ascii_uppercase(),
        (verb, item) => return Err(Fault::new(format!("`format` has no %{verb} of {}", item.type_name()))),
    })
}

fn signed(value: i64, write: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", write(value.unsigned_abs()))
}

/// A value as `string()` and `%s` write it.
pub(super) fn written(value: &Val<'_>) -> String {
    let all = |items: Vec<String>| items.join(", ");
    match value {
        Val::Null => "null".to_owned(),
        Val::Bool(value) => value.to_string(),
        Val::Int(value) => value.to_string(),
        Val::Uint(value) => value.to_string(),
        Val::Double(value) if value.is_infinite() => match *value > 0.0 {
            true => "Infinity".to_owned(),
            false => "-Infinity".to_owned(),
        },
        Val::Double(value) => value.to_string(),
        Val::Text(text) => text.to_string(),
        Val::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Val::Duration(span) => span.to_string(),
        Val::Timestamp(moment) => moment.to_string(),
        Val::List(list) => format!("[{}]", all(list.iter().map(|item| written(&item)).collect())),
        Val::Map(map) => {
            let entries = map.iter().map(|(key, value)| format!("{}: {}", written(&key), written(&value)));
            format!("{{{}}}", all(entries.collect()))
        }
        Val::Message(message) => message.to_string(),
    }
}
