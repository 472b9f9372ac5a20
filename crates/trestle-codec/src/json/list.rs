//! Reads a JSON array, and remembers which element is wrong.

use std::{fmt, marker::PhantomData};

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Unexpected, Visitor};

use super::object::{Fields, Object, Trail, Unsigned};

/// One kind of element.
pub(super) trait Element<'de> {
    /// What an element becomes.
    type Value;
    /// What the elements are, for people.
    const WHAT: &'static str;

    /// The next element; `None` at the end. A `null` is an error.
    fn next<A: SeqAccess<'de>>(&self, elements: &mut A, trail: &Trail) -> Result<Option<Self::Value>, A::Error>;
}

/// Objects with the fields of `T`.
pub(super) struct Objects<T>(PhantomData<T>);

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Fields<'de> + Default> Element<'de> for Objects<T> {
    type Value = T;
    const WHAT: &'static str = "objects";

    fn next<A: SeqAccess<'de>>(&self, elements: &mut A, trail: &Trail) -> Result<Option<T>, A::Error> {
        let mut target = T::default();
        match elements.next_element_seed(Object { target: &mut target, trail })? {
            Some(false) => Err(A::Error::invalid_type(Unexpected::Unit, &"an object")),
            given => Ok(given.map(|_| target)),
        }
    }
}

/// Whole numbers that fit 32 bits, also as strings.
pub(super) struct Numbers;

impl<'de> Element<'de> for Numbers {
    type Value = u32;
    const WHAT: &'static str = "whole numbers";

    fn next<A: SeqAccess<'de>>(&self, elements: &mut A, _: &Trail) -> Result<Option<u32>, A::Error> {
        let Some(number) = elements.next_element_seed(Unsigned { max: u32::MAX.into() })? else { return Ok(None) };
        let number = number.and_then(|number| u32::try_from(number).ok()); // it is at most u32::MAX
        number.map(Some).ok_or_else(|| A::Error::invalid_type(Unexpected::Unit, &"a whole number"))
    }
}

/// An array of `of`; `null` is an empty one. How many there may be is for the admission to say: both encodings have it.
pub(super) struct List<'t, E> {
    pub(super) of: E,
    pub(super) trail: &'t Trail,
}

impl<'de, E: Element<'de>> DeserializeSeed<'de> for List<'_, E> {
    type Value = Vec<E::Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, E: Element<'de>> Visitor<'de> for List<'_, E> {
    type Value = Vec<E::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", E::WHAT)
    }

    fn visit_unit<F>(self) -> Result<Self::Value, F> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        loop {
            self.trail.enter(format!("[{}]", values.len()));
            let Some(value) = self.of.next(&mut elements, self.trail)? else { break };
            self.trail.leave();
            values.push(value);
        }
        self.trail.leave();
        Ok(values)
    }
}
