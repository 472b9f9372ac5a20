//! Rules of everything that has an order: numbers, durations, points in time.

use std::fmt::Display;

use prost_reflect::Value;

use super::datum::Datum;
use super::options::{Faults, RuleSet};
use super::violation::{Checked, Violation};

/// A type that can be compared with the bounds of a rule.
pub(super) trait Ordered: Copy + PartialOrd + Display {
    /// The value of a message, if it is of this type.
    fn of(datum: Datum<'_>) -> Option<Self>;
    /// False for what breaks `finite`: not a number, and the infinities.
    fn finite(self) -> bool {
        true
    }
}

impl Ordered for i64 {
    fn of(datum: Datum<'_>) -> Option<i64> {
        match datum {
            Datum::Int(value) => Some(value),
            Datum::Enum(value) => Some(i64::from(value)),
            _ => None,
        }
    }
}

impl Ordered for u64 {
    fn of(datum: Datum<'_>) -> Option<u64> {
        match datum {
            Datum::Uint(value) => Some(value),
            _ => None,
        }
    }
}

impl Ordered for f64 {
    fn of(datum: Datum<'_>) -> Option<f64> {
        match datum {
            Datum::Float(value) => Some(value),
            _ => None,
        }
    }

    fn finite(self) -> bool {
        self.is_finite()
    }
}

/// The rules of one ordered family, such as `int32` or `duration`.
#[derive(Debug)]
pub(super) struct OrderedRules<T> {
    family: String,
    constant: Option<T>,
    range: Range<T>,
    among: Vec<T>,
    never: Vec<T>,
    finite: bool,
}

impl<T: Ordered> OrderedRules<T> {
    /// Reads the rules of `set`; a rule with another name is given to `other`, which says whether it knew it.
    pub(super) fn read(
        set: &RuleSet<'_>,
        faults: &mut Faults,
        mut other: impl FnMut(&str, &Value) -> bool,
    ) -> OrderedRules<T> {
        let mut rules = OrderedRules {
            family: set.family().to_owned(),
            constant: None,
            range: Range { lower: None, upper: None },
            among: Vec::new(),
            never: Vec::new(),
            finite: false,
        };
        for (name, value) in set.rules() {
            let bound = || T::of(Datum::from(value));
            match name.as_str() {
                "const" => rules.constant = bound(),
                "lt" => rules.range.upper = bound().map(|value| Bound::new(value, false)),
                "lte" => rules.range.upper = bound().map(|value| Bound::new(value, true)),
                "gt" => rules.range.lower = bound().map(|value| Bound::new(value, false)),
                "gte" => rules.range.lower = bound().map(|value| Bound::new(value, true)),
                "in" => rules.among = list(value),
                "not_in" => rules.never = list(value),
                "finite" => rules.finite = value.as_bool() == Some(true),
                "example" => {}
                name if other(name, value) => {}
                name => set.unknown(name, faults),
            }
        }
        if rules.range.is_unordered() {
            faults.add(
                set.place(),
                format!("a bound of `{}` is not a number, so nothing can be compared with it", set.family()),
            );
        }
        rules
    }

    /// Checks a value of another type as if it had no rules: the compiler has made sure of the type.
    pub(super) fn check(&self, datum: Datum<'_>) -> Checked {
        match T::of(datum) {
            Some(value) => self.check_value(value),
            None => Ok(()),
        }
    }

    fn check_value(&self, value: T) -> Checked {
        let broken = |rule: &str, message: String| Err(Violation::new(format!("{}.{rule}", self.family), message));
        if let Some(constant) = self.constant
            && value != constant
        {
            return broken("const", format!("must equal {constant}"));
        }
        if !self.range.contains(value) {
            return broken(self.range.id(), format!("must be {}", self.range.words()));
        }
        if !self.among.is_empty() && !self.among.contains(&value) {
            return broken("in", format!("must be in list {}", listed(&self.among)));
        }
        if self.never.contains(&value) {
            let list = listed(&self.never);
            return broken("not_in", format!("must not be in list {list}"));
        }
        if self.finite && !value.finite() {
            return broken("finite", "must be finite".to_owned());
        }
        Ok(())
    }
}

/// One end of a range.
#[derive(Debug, Clone, Copy)]
struct Bound<T> {
    value: T,
    inclusive: bool,
}

impl<T> Bound<T> {
    fn new(value: T, inclusive: bool) -> Self {
        Bound { value, inclusive }
    }
}

/// What lies between two bounds, or, when the upper one is the smaller, what lies outside them.
#[derive(Debug)]
struct Range<T> {
    lower: Option<Bound<T>>,
    upper: Option<Bound<T>>,
}

impl<T: Ordered> Range<T> {
    /// Not a number is in no range but the one without bounds.
    fn contains(&self, value: T) -> bool {
        let above = |bound: Bound<T>| value > bound.value || bound.inclusive && value == bound.value;
        let below = |bound: Bound<T>| value < bound.value || bound.inclusive && value == bound.value;
        match (self.lower, self.upper) {
            (None, None) => true,
            (Some(lower), None) => above(lower),
            (None, Some(upper)) => below(upper),
            (Some(lower), Some(upper)) if self.is_reversed() => above(lower) || below(upper),
            (Some(lower), Some(upper)) => above(lower) && below(upper),
        }
    }

    fn is_reversed(&self) -> bool {
        matches!((self.lower, self.upper), (Some(lower), Some(upper)) if upper.value < lower.value)
    }

    fn is_unordered(&self) -> bool {
        [self.lower, self.upper].into_iter().flatten().any(|bound| bound.value.partial_cmp(&bound.value).is_none())
    }

    /// The rule's name without its family, such as `gte_lt_exclusive`.
    fn id(&self) -> &'static str {
        let lower = self.lower.map(|bound| bound.inclusive);
        let upper = self.upper.map(|bound| bound.inclusive);
        match (lower, upper, self.is_reversed()) {
            (None, Some(false), _) => "lt",
            (None, _, _) => "lte",
            (Some(false), None, _) => "gt",
            (Some(true), None, _) => "gte",
            (Some(false), Some(false), false) => "gt_lt",
            (Some(false), Some(false), true) => "gt_lt_exclusive",
            (Some(false), Some(true), false) => "gt_lte",
            (Some(false), Some(true), true) => "gt_lte_exclusive",
            (Some(true), Some(false), false) => "gte_lt",
            (Some(true), Some(false), true) => "gte_lt_exclusive",
            (Some(true), Some(true), false) => "gte_lte",
            (Some(true), Some(true), true) => "gte_lte_exclusive",
        }
    }

    fn words(&self) -> String {
        let side = |bound: Bound<T>, word: &str| match bound.inclusive {
            true => format!("{word} than or equal to {}", bound.value),
            false => format!("{word} than {}", bound.value),
        };
        let lower = self.lower.map(|bound| side(bound, "greater"));
        let upper = self.upper.map(|bound| side(bound, "less"));
        let join = if self.is_reversed() { " or " } else { " and " };
        [lower, upper].into_iter().flatten().collect::<Vec<_>>().join(join)
    }
}

/// Every item of a rule's list that is of the rule's type.
fn list<T: Ordered>(value: &Value) -> Vec<T> {
    let items = value.as_list().unwrap_or_default();
    items.iter().filter_map(|item| T::of(Datum::from(item))).collect()
}

/// A rule's list as it stands in a sentence: `[1, 2, 3]`.
pub(super) fn listed<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    format!("[{}]", items.join(", "))
}
