//! The rules of a field: whether it must be set, when its rules count, and the rules of its value.

use prost_reflect::{DynamicMessage, FieldDescriptor, Value};

use super::cel::Program;
use super::collection::{ListPlan, MapPlan};
use super::datum::{self, Datum};
use super::message::Plans;
use super::options::{CelRule, Faults};
use super::rules::Rules;
use super::violation::{Checked, Violation};

/// When a field's rules do not count, apart from being unset where that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Ignore {
    #[default]
    Unspecified,
    IfZeroValue,
    Always,
}

/// A `buf.validate.FieldRules`, taken apart.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) required: bool,
    /// `None` when the author left it open.
    pub(super) ignore: Option<Ignore>,
    pub(super) cel: Vec<CelRule>,
    /// Name and message of the standard rules, such as `string` and its `StringRules`.
    pub(super) standard: Option<(String, DynamicMessage)>,
}

impl Declared {
    /// Takes `rules` apart; what is set there and not known is a fault.
    pub(super) fn read(place: &str, rules: &DynamicMessage, faults: &mut Faults) -> Declared {
        let mut declared = Declared { cel: CelRule::all_in(rules), ..Declared::default() };
        super::options::RuleSet::new(place, "field", rules).refuse_unknown_fields(faults);
        for (field, value) in rules.fields() {
            match (field.name(), value) {
                ("cel" | "cel_expression", _) => {}
                ("required", value) => declared.required = value.as_bool() == Some(true),
                ("ignore", Value::EnumNumber(0)) => declared.ignore = Some(Ignore::Unspecified),
                ("ignore", Value::EnumNumber(1)) => declared.ignore = Some(Ignore::IfZeroValue),
                ("ignore", Value::EnumNumber(3)) => declared.ignore = Some(Ignore::Always),
                (name, Value::Message(rules)) => {
                    declared.standard = Some((name.to_owned(), rules.clone()));
                }
                (name, _) => {
                    faults.add(place, format!("`{name}` is set to what is not known here and could not be enforced"))
                }
            }
        }
        declared
    }
}

/// The rules of one field.
#[derive(Debug)]
pub(super) struct FieldPlan {
    pub(super) field: FieldDescriptor,
    pub(super) required: bool,
    pub(super) ignore: Ignore,
    pub(super) value: FieldValue,
}

/// The rules of what a field holds.
#[derive(Debug)]
pub(super) enum FieldValue {
    Single(ValuePlan),
    List(ListPlan),
    Map(Box<MapPlan>),
}

impl FieldPlan {
    /// Checks the field in `message`.
    pub(super) fn check(&self, message: &DynamicMessage, plans: &Plans) -> Checked {
        let name = self.field.name();
        if !message.has_field(&self.field) {
            if self.required {
                return Err(Violation::new("required", "value is required").under(name));
            }
            if self.field.supports_presence() || self.ignore == Ignore::IfZeroValue {
                return Ok(());
            }
        }
        let value = message.get_field(&self.field);
        let checked = match (&self.value, &*value) {
            (FieldValue::Single(plan), value) => plan.check(Datum::from(value), plans),
            (FieldValue::List(plan), Value::List(items)) => plan.check(items, plans),
            (FieldValue::Map(plan), Value::Map(entries)) => plan.check(entries, plans),
            (FieldValue::List(_) | FieldValue::Map(_), _) => Ok(()),
        };
        checked.map_err(|violation| violation.under(name))
    }

    /// Whether anything is asked of the field itself.
    pub(super) fn has_rules(&self) -> bool {
        self.required
            || match &self.value {
                FieldValue::Single(plan) => plan.has_rules(),
                FieldValue::List(plan) => plan.has_rules(),
                FieldValue::Map(plan) => plan.has_rules(),
            }
    }

    /// The plan of the messages in the field, cleared to leave it out.
    pub(super) fn nested(&mut self) -> Option<&mut Option<usize>> {
        match &mut self.value {
            FieldValue::Single(plan) => Some(&mut plan.nested),
            FieldValue::List(plan) => plan.items.as_mut().map(|items| &mut items.value.nested),
            FieldValue::Map(plan) => plan.values.as_mut().map(|values| &mut values.value.nested),
        }
    }
}

/// The rules of one value.
#[derive(Debug, Default)]
pub(super) struct ValuePlan {
    /// Whether the standard rules are of the value inside a wrapper such as `google.protobuf.Int32Value`.
    pub(super) wrapped: bool,
    pub(super) standard: Option<Rules>,
    pub(super) cel: Vec<Program>,
    /// The plan of the message, where the value is one.
    pub(super) nested: Option<usize>,
}

impl ValuePlan {
    /// Checks a value that is there.
    pub(super) fn check(&self, datum: Datum<'_>, plans: &Plans) -> Checked {
        if let Some(rules) = &self.standard {
            match datum {
                Datum::Message(wrapper) if self.wrapped => {
                    /// Every wrapper's only field.
                    const VALUE: u32 = 1;
                    if let Some(inner) = wrapper.get_field_by_number(VALUE) {
                        rules.check(Datum::from(&*inner))?;
                    }
                }
                datum => rules.check(datum)?,
            }
        }
        self.cel.iter().try_for_each(|rule| rule.check(datum))?;
        match (self.nested, datum) {
            (Some(plan), Datum::Message(message)) => plans.check(plan, message),
            _ => Ok(()),
        }
    }

    /// Whether anything is asked of the value itself.
    pub(super) fn has_rules(&self) -> bool {
        self.standard.is_some() || !self.cel.is_empty()
    }
}

/// The rules of each item of a list, each key or each value of a map.
#[derive(Debug)]
pub(super) struct ElementPlan {
    /// Whether the zero value passes; with the number of the zero of the enum, where it is one.
    pub(super) zero_passes: Option<i32>,
    pub(super) value: ValuePlan,
}

impl ElementPlan {
    /// Checks one element, which counts as set.
    pub(super) fn check(&self, datum: Datum<'_>, plans: &Plans) -> Checked {
        match self.zero_passes {
            Some(enum_zero) if datum::is_zero(datum, enum_zero) => Ok(()),
            _ => self.value.check(datum, plans),
        }
    }
}
