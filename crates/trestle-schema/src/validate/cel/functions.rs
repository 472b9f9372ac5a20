//! The functions an expression may call: CEL's own, its strings extension, and those of protovalidate.

use std::borrow::Cow;

use prost_reflect::ReflectMessage;
use regex::RegexBuilder;

use super::super::datum::Datum;
use super::super::net::{self, IpVersion};
use super::super::{collection, format, octets, uri};
use super::convert::{to_double, to_int, to_text, to_uint};
use super::node::{Evaluated, Fault};
use super::types::Type;
use super::value::{List, Val};
use super::{calendar, strings};

/// A function, whatever its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    ToInt,
    ToUint,
    ToDouble,
    ToText,
    ToBytes,
    ToBool,
    ToDuration,
    ToTimestamp,
    ToDyn,
    Calendar(calendar::Part),
    Strings(strings::Operation),
    IsNan,
    IsInf,
    IsEmail,
    IsHostname,
    IsIp,
    IsIpPrefix,
    IsUri,
    IsUriRef,
    IsHostAndPort,
    Unique,
    GetField,
}

/// What a parameter takes, one letter each: `s`tring, `b`ytes, `i`nt, `u`int, `d`ouble, `o` for bool, `t`imestamp,
/// `p` for a period, `l`ist, `m`ap, `g` for a message; `*` takes all.
pub(super) type Takes = &'static str;

/// How a function is called: as a method, as a function, or both ways.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Method,
    Global,
    Both,
}

struct Signature {
    name: &'static str,
    function: Function,
    form: Form,
    takes: &'static [Takes],
    /// How many of the parameters may be left out, from the last.
    optional: usize,
    gives: Type,
}

const fn signature(
    name: &'static str,
    function: Function,
    form: Form,
    takes: &'static [Takes],
    optional: usize,
    gives: Type,
) -> Signature {
    Signature { name, function, form, takes, optional, gives }
}

const CORE: &[Signature] = {
    use Form::{Both, Global, Method};
    &[
        signature("size", Function::Size, Both, &["sblm"], 0, Type::Int),
        signature("contains", Function::Contains, Method, &["sb", "sb"], 0, Type::Bool),
        signature("startsWith", Function::StartsWith, Method, &["sb", "sb"], 0, Type::Bool),
        signature("endsWith", Function::EndsWith, Method, &["sb", "sb"], 0, Type::Bool),
        signature("matches", Function::Matches, Both, &["s", "s"], 0, Type::Bool),
        signature("int", Function::ToInt, Global, &["iudstp"], 0, Type::Int),
        signature("uint", Function::ToUint, Global, &["iuds"], 0, Type::Uint),
        signature("double", Function::ToDouble, Global, &["iuds"], 0, Type::Double),
        signature("string", Function::ToText, Global, &["iudsbotp"], 0, Type::Text),
        signature("bytes", Function::ToBytes, Global, &["sb"], 0, Type::Bytes),
        signature("bool", Function::ToBool, Global, &["so"], 0, Type::Bool),
        signature("duration", Function::ToDuration, Global, &["sp"], 0, Type::Duration),
        signature("timestamp", Function::ToTimestamp, Global, &["sit"], 0, Type::Timestamp),
        signature("dyn", Function::ToDyn, Global, &["*"], 0, Type::Dyn),
        signature("isNan", Function::IsNan, Method, &["d"], 0, Type::Bool),
        signature("isInf", Function::IsInf, Method, &["d", "i"], 1, Type::Bool),
        signature("isEmail", Function::IsEmail, Method, &["s"], 0, Type::Bool),
        signature("isHostname", Function::IsHostname, Method, &["s"], 0, Type::Bool),
        signature("isIp", Function::IsIp, Method, &["s", "i"], 1, Type::Bool),
        signature("isIpPrefix", Function::IsIpPrefix, Method, &["s", "io", "o"], 2, Type::Bool),
        signature("isUri", Function::IsUri, Method, &["s"], 0, Type::Bool),
        signature("isUriRef", Function::IsUriRef, Method, &["s"], 0, Type::Bool),
        signature("isHostAndPort", Function::IsHostAndPort, Method, &["s", "o"], 0, Type::Bool),
        signature("unique", Function::Unique, Method, &["l"], 0, Type::Bool),
        signature("getField", Function::GetField, Global, &["g", "s"], 0, Type::Dyn),
    ]
};

impl Function {
    /// The function `name` that takes arguments of the types `kinds`, and the type it gives.
    ///
    /// # Errors
    /// What is wrong, to follow "the CEL rule ...".
    pub(super) fn find(name: &str, as_method: bool, kinds: &[Type]) -> Result<(Function, Type), String> {
        if let Some((function, takes, optional, gives)) = strings::find(name).filter(|_| as_method) {
            fits(name, takes, optional, kinds)?;
            return Ok((Function::Strings(function), gives));
        }
        if let Some((part, takes)) = calendar::find(name).filter(|_| as_method) {
            fits(name, &[takes, "s"], 1, kinds)?;
            return Ok((Function::Calendar(part), Type::Int));
        }
        let form = if as_method { Form::Method } else { Form::Global };
        let found = CORE.iter().find(|row| row.name == name && (row.form == form || row.form == Form::Both));
        let row = found.ok_or_else(|| match as_method {
            true => format!("calls the method `{name}`, which is not known"),
            false => format!("calls the function `{name}`, which is not known"),
        })?;
        fits(name, row.takes, row.optional, kinds)?;
        Ok((row.function, row.gives.clone()))
    }

    /// Calls the function; the arguments have the types that [`Function::find`] let pass, as far as those were known.
    pub(super) fn call<'a>(self, arguments: Vec<Val<'a>>) -> Evaluated<'a> {
        match self {
            Function::Calendar(part) => return calendar::read(part, &arguments),
            Function::Strings(operation) => return strings::call(operation, &arguments),
            _ => {}
        }
        Ok(match (self, arguments.as_slice()) {
            (Function::Size, [of]) => Val::Int(size(of)?),
            (Function::Contains, [Val::Text(text), Val::Text(part)]) => Val::Bool(text.contains(&**part)),
            (Function::Contains, [Val::Bytes(all), Val::Bytes(part)]) => Val::Bool(octets::contains(all, part)),
            (Function::StartsWith, [Val::Text(text), Val::Text(part)]) => Val::Bool(text.starts_with(&**part)),
            (Function::StartsWith, [Val::Bytes(all), Val::Bytes(part)]) => Val::Bool(all.starts_with(part)),
            (Function::EndsWith, [Val::Text(text), Val::Text(part)]) => Val::Bool(text.ends_with(&**part)),
            (Function::EndsWith, [Val::Bytes(all), Val::Bytes(part)]) => Val::Bool(all.ends_with(part)),
            (Function::Matches, [Val::Text(text), Val::Text(pattern)]) => Val::Bool(matches(text, pattern)?),
            (Function::ToDyn, [value]) => value.clone(),
            (Function::ToInt, [value]) => Val::Int(to_int(value)?),
            (Function::ToUint, [value]) => Val::Uint(to_uint(value)?),
            (Function::ToDouble, [value]) => Val::Double(to_double(value)?),
            (Function::ToText, [value]) => to_text(value)?,
            (Function::ToBytes, [Val::Text(text)]) => Val::Bytes(Cow::Owned(text.as_bytes().to_vec())),
            (Function::ToBytes, [Val::Bytes(bytes)]) => Val::Bytes(bytes.clone()),
            (Function::ToBool, [Val::Bool(value)]) => Val::Bool(*value),
            (Function::ToBool, [Val::Text(text)]) => Val::Bool(text.parse().map_err(|_| cannot("bool", text))?),
            (Function::ToDuration, [Val::Duration(span)]) => Val::Duration(*span),
            (Function::ToDuration, [Val::Text(text)]) => {
                Val::Duration(calendar::duration(text).ok_or_else(|| cannot("duration", text))?)
            }
            (Function::ToTimestamp, [Val::Timestamp(moment)]) => Val::Timestamp(*moment),
            (Function::ToTimestamp, [Val::Int(seconds)]) => Val::Timestamp(calendar::at_second(*seconds)),
            (Function::ToTimestamp, [Val::Text(text)]) => {
                Val::Timestamp(calendar::timestamp(text).ok_or_else(|| cannot("timestamp", text))?)
            }
            (Function::IsNan, [Val::Double(value)]) => Val::Bool(value.is_nan()),
            (Function::IsInf, [Val::Double(value)]) => Val::Bool(value.is_infinite()),
            (Function::IsInf, [Val::Double(value), Val::Int(sign)]) => {
                let signed = *sign == 0 || (*sign > 0) == (*value > 0.0);
                Val::Bool(value.is_infinite() && signed)
            }
            (Function::IsEmail, [Val::Text(text)]) => Val::Bool(format::is_email(text)),
            (Function::IsHostname, [Val::Text(text)]) => Val::Bool(net::is_hostname(text)),
            (Function::IsIp, [Val::Text(text)]) => Val::Bool(net::is_ip(text, None)),
            (Function::IsIp, [Val::Text(text), Val::Int(version)]) => {
                Val::Bool(ip_version(*version).is_some_and(|version| net::is_ip(text, version)))
            }
            (Function::IsIpPrefix, [Val::Text(text), options @ ..]) => Val::Bool(is_ip_prefix(text, options)?),
            (Function::IsUri, [Val::Text(text)]) => Val::Bool(uri::is_uri(text)),
            (Function::IsUriRef, [Val::Text(text)]) => Val::Bool(uri::is_uri_ref(text)),
            (Function::IsHostAndPort, [Val::Text(text), Val::Bool(port)]) => {
                Val::Bool(net::is_host_and_port(text, *port))
            }
            (Function::Unique, [Val::List(list)]) => Val::Bool(unique(list)?),
            (Function::GetField, [Val::Message(message), Val::Text(name)]) => {
                let field = message.descriptor().get_field_by_name(name);
                let field = field.ok_or_else(|| Fault::new(format!("there is no field `{name}`")))?;
                Val::field(message.clone(), &field)
            }
            (function, arguments) => return Err(no_overload(&format!("{function:?}"), arguments)),
        })
    }
}

/// The fault of a call whose arguments have types the function does not take.
pub(super) fn no_overload(function: &str, arguments: &[Val<'_>]) -> Fault {
    let kinds: Vec<&str> = arguments.iter().map(Val::type_name).collect();
    Fault::new(format!("{function} does not take {}", kinds.join(", ")))
}

/// The fault of a text that is no `kind`.
pub(super) fn cannot(kind: &str, text: &str) -> Fault {
    Fault::new(format!("{text:?} is no {kind}"))
}

fn fits(name: &str, takes: &[Takes], optional: usize, kinds: &[Type]) -> Result<(), String> {
    if kinds.len() > takes.len() || kinds.len() + optional < takes.len() {
        return Err(format!("calls `{name}` with {} arguments", kinds.len()));
    }
    for (takes, kind) in takes.iter().zip(kinds) {
        let letter = match kind {
            Type::Dyn => continue,
            Type::Null => 'n',
            Type::Bool => 'o',
            Type::Int => 'i',
            Type::Uint => 'u',
            Type::Double => 'd',
            Type::Text => 's',
            Type::Bytes => 'b',
            Type::Duration => 'p',
            Type::Timestamp => 't',
            Type::List(_) => 'l',
            Type::Map(..) => 'm',
            Type::Message(_) => 'g',
        };
        if *takes != "*" && !takes.contains(letter) {
            return Err(format!("calls `{name}` with {kind}"));
        }
        // Bytes and text do not mix in `contains`, `startsWith` and `endsWith`.
        let mixes = takes.len() == 2 && kinds.iter().any(|other| *other != Type::Dyn && other != kind);
        if *takes == "sb" && mixes {
            return Err(format!("calls `{name}` with a string and bytes"));
        }
    }
    if name == "unique" && matches!(kinds, [Type::List(item)] if matches!(**item, Type::Message(_))) {
        return Err("asks for `unique` messages, which are not comparable".to_owned());
    }
    Ok(())
}

fn size(of: &Val<'_>) -> Result<i64, Fault> {
    let size = match of {
        Val::Text(text) => text.chars().count(),
        Val::Bytes(bytes) => bytes.len(),
        Val::List(list) => list.len(),
        Val::Map(map) => map.len(),
        other => return Err(Fault::new(format!("{} has no size", other.type_name()))),
    };
    Ok(i64::try_from(size).unwrap_or(i64::MAX))
}

/// A pattern that comes with the message is compiled here and may not become large: 64 KiB of automaton.
fn matches(text: &str, pattern: &str) -> Result<bool, Fault> {
    let regex = RegexBuilder::new(pattern).size_limit(64 << 10).build();
    let regex = regex.map_err(|_| cannot("regular expression", pattern))?;
    Ok(regex.is_match(text))
}

/// 4, 6, or 0 for either.
fn ip_version(number: i64) -> Option<Option<IpVersion>> {
    match number {
        0 => Some(None),
        4 => Some(Some(IpVersion::V4)),
        6 => Some(Some(IpVersion::V6)),
        _ => None,
    }
}

fn is_ip_prefix(text: &str, options: &[Val<'_>]) -> Result<bool, Fault> {
    let (version, strict) = match options {
        [] => (0, false),
        [Val::Int(version)] => (*version, false),
        [Val::Bool(strict)] => (0, *strict),
        [Val::Int(version), Val::Bool(strict)] => (*version, *strict),
        other => return Err(no_overload("isIpPrefix", other)),
    };
    Ok(ip_version(version).is_some_and(|version| net::is_ip_prefix(text, version, strict)))
}

fn unique(list: &List<'_>) -> Result<bool, Fault> {
    if let List::Field(items) = list {
        return Ok(collection::are_unique(items.iter().map(Datum::from)));
    }
    let items: Vec<Val<'_>> = list.iter().collect();
    let scalars = items.iter().map(|item| match item {
        Val::Bool(value) => Ok(Datum::Bool(*value)),
        Val::Int(value) => Ok(Datum::Int(*value)),
        Val::Uint(value) => Ok(Datum::Uint(*value)),
        Val::Double(value) => Ok(Datum::Float(*value)),
        Val::Text(value) => Ok(Datum::Text(value)),
        Val::Bytes(value) => Ok(Datum::Bytes(value)),
        other => Err(no_overload("unique", std::slice::from_ref(other))),
    });
    let scalars: Vec<Datum<'_>> = scalars.collect::<Result<_, _>>()?;
    Ok(collection::are_unique(scalars.into_iter()))
}
