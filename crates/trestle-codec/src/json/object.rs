//! Reads a JSON object into a value that knows its fields, and remembers the way to what is wrong in it.
//!
//! The rules are those of canonical proto3 JSON: a field goes by its JSON name or its proto name, `null` leaves it at its
//! default, whole numbers may be strings. Stricter where it helps people: unknown and repeated fields are refused.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;
use trestle_wire::{Reason, Refusal};

use super::list::{List, Numbers, Objects};

/// A value that is read from an object, field by field.
pub(super) trait Fields<'de> {
    /// What it is, for people, with its article.
    const WHAT: &'static str;
    /// JSON name and proto name of every field; at most 32.
    const FIELDS: &'static [(&'static str, &'static str)];

    /// Takes the value of the field with this JSON name. A caller has seen to it that each comes once.
    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error>;
}

/// Fills `target` from the object that `json` stands before. `null` leaves it as it is.
pub(super) fn read<'de, D, T>(json: D, target: &mut T, trail: &Trail) -> Result<(), D::Error>
where
    D: Deserializer<'de>,
    T: Fields<'de>,
{
    Object { target, trail }.deserialize(json).map(|_| ())
}

/// Names from the frame down to where the reader is, and a refusal that is more than a malformed frame.
#[derive(Default)]
pub(super) struct Trail {
    path: RefCell<Vec<Cow<'static, str>>>,
    found: RefCell<Option<Refusal>>,
}

impl Trail {
    /// Goes down to a field, until [`leave`](Self::leave); not left on an error, so that the error finds its place.
    pub(super) fn enter(&self, name: impl Into<Cow<'static, str>>) {
        self.path.borrow_mut().push(name.into());
    }

    pub(super) fn leave(&self) {
        self.path.borrow_mut().pop();
    }

    /// Keeps a refusal that has a row of its own; the error that ends the reading.
    pub(super) fn found<E: Error>(&self, refusal: Refusal) -> E {
        *self.found.borrow_mut() = Some(refusal);
        E::custom("refused")
    }

    /// The refusal after an error: the one that was found, or a malformed frame with the sentence of the error.
    pub(super) fn refusal(self, said: impl FnOnce() -> String) -> Refusal {
        let refusal = self.found.into_inner().unwrap_or_else(|| Refusal::new(Reason::MalformedFrame, said()));
        let path = joined(&self.path.into_inner());
        if path.is_empty() { refusal } else { refusal.field(path) }
    }
}

/// A path: names with dots between, and places in lists, `[2]`, right behind their names.
fn joined(names: &[Cow<'static, str>]) -> String {
    let mut path = String::new();
    for name in names {
        if !path.is_empty() && !name.starts_with('[') {
            path.push('.');
        }
        path.push_str(name);
    }
    path
}

/// The value of a field, not yet read.
pub(super) struct Value<'v, A> {
    map: &'v mut A,
    /// Where it is.
    pub(super) trail: &'v Trail,
}

impl<'de, A: MapAccess<'de>> Value<'_, A> {
    /// Text; `None` for `null`.
    pub(super) fn text(self) -> Result<Option<String>, A::Error> {
        self.map.next_value_seed(Text)
    }

    /// A whole number, also as a string; `None` for `null`.
    pub(super) fn unsigned_64(self) -> Result<Option<u64>, A::Error> {
        self.map.next_value_seed(Unsigned { max: u64::MAX })
    }

    /// A whole number that fits 32 bits, also as a string; `None` for `null`.
    pub(super) fn unsigned_32(self) -> Result<Option<u32>, A::Error> {
        let number = self.map.next_value_seed(Unsigned { max: u32::MAX.into() })?;
        Ok(number.and_then(|number| number.try_into().ok())) // it is at most u32::MAX
    }

    /// `true` or `false`; `null` is `false`.
    pub(super) fn boolean(self) -> Result<bool, A::Error> {
        self.map.next_value_seed(Boolean)
    }

    /// Any value, as the text it is; `None` for `null`.
    pub(super) fn raw(self) -> Result<Option<&'de RawValue>, A::Error> {
        let value = self.map.next_value::<&'de RawValue>()?;
        Ok(Some(value).filter(|value| value.get() != "null"))
    }

    /// An object of texts by any name; `null` is an empty one.
    pub(super) fn texts(self) -> Result<BTreeMap<String, String>, A::Error> {
        self.map.next_value_seed(Texts { trail: self.trail })
    }

    /// An object; `None` for `null`.
    pub(super) fn object<T: Fields<'de> + Default>(self) -> Result<Option<T>, A::Error> {
        let mut target = T::default();
        let given = self.map.next_value_seed(Object { target: &mut target, trail: self.trail })?;
        Ok(given.then_some(target))
    }

    /// An array of objects; `null` is an empty one.
    pub(super) fn objects<T: Fields<'de> + Default>(self) -> Result<Vec<T>, A::Error> {
        self.map.next_value_seed(List { of: Objects::default(), trail: self.trail })
    }

    /// An array of whole numbers that fit 32 bits; `null` is an empty one.
    pub(super) fn numbers(self) -> Result<Vec<u32>, A::Error> {
        self.map.next_value_seed(List { of: Numbers, trail: self.trail })
    }
}

/// Whether there was an object to fill `target` from.
pub(super) struct Object<'o, T> {
    pub(super) target: &'o mut T,
    pub(super) trail: &'o Trail,
}

impl<'de, T: Fields<'de>> DeserializeSeed<'de> for Object<'_, T> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: Fields<'de>> Visitor<'de> for Object<'_, T> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as an object", T::WHAT)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut seen = 0_u32;
        while let Some(name) = map.next_key_seed(Name)? {
            let Some(index) = T::FIELDS.iter().position(|(json, proto)| name == *json || name == *proto) else {
                self.trail.enter(short(&name));
                return Err(unknown::<T, A::Error>());
            };
            let name = T::FIELDS[index].0;
            self.trail.enter(name);
            let bit = 1 << index;
            if seen & bit != 0 {
                return Err(A::Error::custom("the field is there twice"));
            }
            seen |= bit;
            self.target.take(name, Value { map: &mut map, trail: self.trail })?;
            self.trail.leave();
        }
        Ok(true)
    }
}

/// A name from outside, as much of it as fits a sentence.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

fn unknown<'de, T: Fields<'de>, E: Error>() -> E {
    let mut said = format!("unknown field; {} has ", T::WHAT);
    for (index, (json, _)) in T::FIELDS.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(said, "{comma}`{json}`");
    }
    if T::FIELDS.is_empty() {
        said.push_str("no fields");
    }
    E::custom(said)
}

/// The name of a field; borrowed unless it has escapes.
pub(super) struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl Visitor<'_> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }
}

pub(super) struct Unsigned {
    pub(super) max: u64,
}

impl<'de> DeserializeSeed<'de> for Unsigned {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl Visitor<'_> for Unsigned {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {}, or a string with one", self.max)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        if number > self.max {
            return Err(E::invalid_value(Unexpected::Unsigned(number), &self));
        }
        Ok(Some(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        // Digits only: parse() would take a plus sign too.
        let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(number) if number <= self.max => Ok(Some(number)),
            _ => Err(E::invalid_value(Unexpected::Str(&short(text)), &self)),
        }
    }
}

struct Boolean;

impl<'de> DeserializeSeed<'de> for Boolean {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl Visitor<'_> for Boolean {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

struct Texts<'t> {
    trail: &'t Trail,
}

impl<'de> DeserializeSeed<'de> for Texts<'_> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some(name) = map.next_key_seed(Name)? {
            self.trail.enter(short(&name));
            let Some(text) = map.next_value_seed(Text)? else {
                return Err(A::Error::invalid_type(Unexpected::Unit, &"a string"));
            };
            if texts.insert(name.into_owned(), text).is_some() {
                return Err(A::Error::custom("the key is there twice"));
            }
            self.trail.leave();
        }
        Ok(texts)
    }
}
