//! Rules of repeated fields and maps.

use std::collections::{HashMap, HashSet};

use prost_reflect::{MapKey, Value};

use super::cel::Program;
use super::datum::Datum;
use super::field::ElementPlan;
use super::message::Plans;
use super::options::{Faults, RuleSet, flag};
use super::violation::{Checked, Violation};

/// The rules of a repeated field.
#[derive(Debug, Default)]
pub(super) struct ListPlan {
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) unique: bool,
    pub(super) items: Option<ElementPlan>,
    pub(super) cel: Vec<Program>,
}

impl ListPlan {
    /// Reads the `RepeatedRules` in `set`, apart from those of the items.
    pub(super) fn read(set: &RuleSet<'_>, faults: &mut Faults) -> ListPlan {
        let known = ["min_items", "max_items", "unique", "items"];
        super::closed::refuse_other(set, &known, faults);
        set.refuse_unknown_fields(faults);
        ListPlan {
            min_items: size(set, "min_items"),
            max_items: size(set, "max_items"),
            unique: flag(set.message(), "unique"),
            ..ListPlan::default()
        }
    }

    /// Checks a list; the list's own rules come before its items'.
    pub(super) fn check(&self, items: &[Value], plans: &Plans) -> Checked {
        let broken = |rule: &str, message: String| Err(Violation::new(rule, message));
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        if let Some(min) = self.min_items.filter(|min| count < *min) {
            return broken("repeated.min_items", format!("must contain at least {min} item(s)"));
        }
        if let Some(max) = self.max_items.filter(|max| count > *max) {
            let message = format!("must contain no more than {max} item(s)");
            return broken("repeated.max_items", message);
        }
        if self.unique && !are_unique(items.iter().map(Datum::from)) {
            let message = "repeated value must contain unique items";
            return broken("repeated.unique", message.to_owned());
        }
        self.cel.iter().try_for_each(|rule| rule.check(Datum::List(items)))?;
        let Some(plan) = &self.items else {
            return Ok(());
        };
        items.iter().enumerate().try_for_each(|(index, item)| {
            let checked = plan.check(Datum::from(item), plans);
            checked.map_err(|violation| violation.under(&format!("[{index}]")))
        })
    }

    /// Whether anything is asked of the list or its items, apart from messages in it.
    pub(super) fn has_rules(&self) -> bool {
        self.min_items.is_some()
            || self.max_items.is_some()
            || self.unique
            || !self.cel.is_empty()
            || self.items.as_ref().is_some_and(|items| items.value.has_rules())
    }
}

/// The rules of a map.
#[derive(Debug, Default)]
pub(super) struct MapPlan {
    pub(super) min_pairs: Option<u64>,
    pub(super) max_pairs: Option<u64>,
    pub(super) keys: Option<ElementPlan>,
    pub(super) values: Option<ElementPlan>,
    pub(super) cel: Vec<Program>,
}

impl MapPlan {
    /// Reads the `MapRules` in `set`, apart from those of the keys and values.
    pub(super) fn read(set: &RuleSet<'_>, faults: &mut Faults) -> MapPlan {
        let known = ["min_pairs", "max_pairs", "keys", "values"];
        super::closed::refuse_other(set, &known, faults);
        set.refuse_unknown_fields(faults);
        MapPlan { min_pairs: size(set, "min_pairs"), max_pairs: size(set, "max_pairs"), ..MapPlan::default() }
    }

    /// Checks a map; which of several broken entries is named is not said, as maps have no order.
    pub(super) fn check(&self, entries: &HashMap<MapKey, Value>, plans: &Plans) -> Checked {
        let broken = |rule: &str, message: String| Err(Violation::new(rule, message));
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        if let Some(min) = self.min_pairs.filter(|min| count < *min) {
            return broken("map.min_pairs", format!("map must be at least {min} entries"));
        }
        if let Some(max) = self.max_pairs.filter(|max| count > *max) {
            return broken("map.max_pairs", format!("map must be at most {max} entries"));
        }
        self.cel.iter().try_for_each(|rule| rule.check(Datum::Map(entries)))?;
        if self.keys.is_none() && self.values.is_none() {
            return Ok(());
        }
        entries.iter().try_for_each(|(key, value)| {
            let checked = self.check_entry(key, value, plans);
            checked.map_err(|violation| violation.under(&step(key)))
        })
    }

    fn check_entry(&self, key: &MapKey, value: &Value, plans: &Plans) -> Checked {
        if let Some(plan) = &self.keys {
            plan.check(Datum::from(key), plans).map_err(|violation| {
                let message = format!("the key {}", violation.message);
                Violation { message, ..violation }
            })?;
        }
        match &self.values {
            Some(plan) => plan.check(Datum::from(value), plans),
            None => Ok(()),
        }
    }

    /// Whether anything is asked of the map or its entries, apart from messages in it.
    pub(super) fn has_rules(&self) -> bool {
        let asks = |plan: &Option<ElementPlan>| plan.as_ref().is_some_and(|plan| plan.value.has_rules());
        self.min_pairs.is_some()
            || self.max_pairs.is_some()
            || !self.cel.is_empty()
            || asks(&self.keys)
            || asks(&self.values)
    }
}

/// A key as a step of a path: `["a"]`, `[7]`, `[true]`.
fn step(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => format!("[{key}]"),
        MapKey::I32(key) => format!("[{key}]"),
        MapKey::I64(key) => format!("[{key}]"),
        MapKey::U32(key) => format!("[{key}]"),
        MapKey::U64(key) => format!("[{key}]"),
        MapKey::String(key) => format!("[{key:?}]"),
    }
}

fn size(set: &RuleSet<'_>, name: &str) -> Option<u64> {
    let has = set.message().has_field_by_name(name);
    let value = set.message().get_field_by_name(name).filter(|_| has)?;
    value.as_u64()
}

/// Whether no scalar occurs twice. Two NaN are two values; what is no scalar is not compared.
pub(super) fn are_unique<'a>(items: impl Iterator<Item = Datum<'a>>) -> bool {
    /// A scalar that can be hashed.
    #[derive(PartialEq, Eq, Hash)]
    enum Scalar<'a> {
        Int(i64),
        Uint(u64),
        Float(u64),
        Text(&'a str),
        Bytes(&'a [u8]),
    }
    let mut seen = HashSet::new();
    for item in items {
        let scalar = match item {
            Datum::Bool(value) => Scalar::Int(i64::from(value)),
            Datum::Int(value) => Scalar::Int(value),
            Datum::Enum(value) => Scalar::Int(i64::from(value)),
            Datum::Uint(value) => Scalar::Uint(value),
            Datum::Float(value) if value.is_nan() => continue,
            // Adding 0.0 turns -0.0 into 0.0, which equals it.
            Datum::Float(value) => Scalar::Float((value + 0.0).to_bits()),
            Datum::Text(value) => Scalar::Text(value),
            Datum::Bytes(value) => Scalar::Bytes(value),
            Datum::Message(_) | Datum::List(_) | Datum::Map(_) => continue,
        };
        if !seen.insert(scalar) {
            return false;
        }
    }
    true
}
