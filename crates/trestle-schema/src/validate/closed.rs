//! Rules of the small types: enums, `google.protobuf.Any`, `google.protobuf.FieldMask`.

use prost_reflect::{DynamicMessage, EnumDescriptor, Value};

use super::number::{OrderedRules, listed};
use super::options::{Faults, RuleSet, string, strings};
use super::violation::{Checked, Violation};

/// The rules of an enum.
#[derive(Debug)]
pub(super) struct EnumRules {
    numbers: OrderedRules<i64>,
    /// Where only the values of the schema will do.
    defined: Option<EnumDescriptor>,
}

impl EnumRules {
    /// Reads the rules of `set` for a field of the type `kind`.
    pub(super) fn read(set: &RuleSet<'_>, kind: &EnumDescriptor, faults: &mut Faults) -> EnumRules {
        let mut defined = None;
        let numbers = OrderedRules::read(set, faults, |name, value| {
            if name == "defined_only" && value.as_bool() == Some(true) {
                defined = Some(kind.clone());
            }
            name == "defined_only"
        });
        EnumRules { numbers, defined }
    }

    /// Checks the number of an enum's value.
    pub(super) fn check(&self, number: i32) -> Checked {
        let defined = self.defined.as_ref();
        if defined.is_some_and(|kind| kind.get_value(number).is_none()) {
            let message = "must be one of the defined enum values";
            return Err(Violation::new("enum.defined_only", message));
        }
        self.numbers.check(super::datum::Datum::Enum(number))
    }
}

/// Which types a `google.protobuf.Any` may hold, by type URL.
#[derive(Debug)]
pub(super) struct AnyRules {
    among: Vec<String>,
    never: Vec<String>,
}

impl AnyRules {
    /// Reads the rules of `set`.
    pub(super) fn read(set: &RuleSet<'_>, faults: &mut Faults) -> AnyRules {
        refuse_other(set, &["in", "not_in"], faults);
        AnyRules { among: strings(set.message(), "in"), never: strings(set.message(), "not_in") }
    }

    /// Checks a `google.protobuf.Any`.
    pub(super) fn check(&self, any: &DynamicMessage) -> Checked {
        let url = string(any, "type_url");
        if !self.among.is_empty() && !self.among.contains(&url) {
            let message = format!("type URL must be in list {}", listed(&self.among));
            return Err(Violation::new("any.in", message));
        }
        if self.never.contains(&url) {
            let message = format!("type URL must not be in list {}", listed(&self.never));
            return Err(Violation::new("any.not_in", message));
        }
        Ok(())
    }
}

/// Which paths a `google.protobuf.FieldMask` may name.
#[derive(Debug)]
pub(super) struct FieldMaskRules {
    constant: Option<Vec<String>>,
    among: Vec<String>,
    never: Vec<String>,
}

impl FieldMaskRules {
    /// Reads the rules of `set`.
    pub(super) fn read(set: &RuleSet<'_>, faults: &mut Faults) -> FieldMaskRules {
        refuse_other(set, &["const", "in", "not_in", "example"], faults);
        let constant = match set.message().has_field_by_name("const") {
            true => set.message().get_field_by_name("const"),
            false => None,
        };
        let constant = constant.as_deref().and_then(Value::as_message);
        FieldMaskRules {
            constant: constant.map(|mask| strings(mask, "paths")),
            among: strings(set.message(), "in"),
            never: strings(set.message(), "not_in"),
        }
    }

    /// Checks a `google.protobuf.FieldMask`.
    pub(super) fn check(&self, mask: &DynamicMessage) -> Checked {
        let paths = strings(mask, "paths");
        let broken = |rule: &str, message: String| Err(Violation::new(rule, message));
        if let Some(constant) = &self.constant
            && *constant != paths
        {
            let message = format!("must equal paths {}", listed(constant));
            return broken("field_mask.const", message);
        }
        if !self.among.is_empty() && !paths.iter().all(|path| covers(&self.among, path)) {
            let message = format!("must only contain paths in {}", listed(&self.among));
            return broken("field_mask.in", message);
        }
        if paths.iter().any(|path| covers(&self.never, path)) {
            let message = format!("must not contain any paths in {}", listed(&self.never));
            return broken("field_mask.not_in", message);
        }
        Ok(())
    }
}

/// Whether `path` is one of `paths` or lies under one.
fn covers(paths: &[String], path: &str) -> bool {
    paths.iter().any(|above| match path.strip_prefix(above.as_str()) {
        Some(rest) => rest.is_empty() || rest.starts_with('.'),
        None => false,
    })
}

/// Notes every rule of `set` that is not one of `known`.
pub(super) fn refuse_other(set: &RuleSet<'_>, known: &[&str], faults: &mut Faults) {
    for (name, _) in set.rules() {
        if !known.contains(&name.as_str()) {
            set.unknown(&name, faults);
        }
    }
}
