//! Reads the options of `buf/validate/validate.proto` off descriptors, and keeps every fault found on the way.
//!
//! Whatever is set there and not understood is a fault: a rule that would be skipped in silence is worse than none.

use std::fmt::Display;

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, MessageDescriptor, OneofDescriptor, Value,
};

/// Number of the options `(buf.validate.field)`, `(buf.validate.message)` and `(buf.validate.oneof)`.
const RULES_OPTION: u32 = 1159;

/// Everything that is wrong with the rules of a type and of the types in it, one sentence each.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    /// Adds a fault at `place`, the full name of a message, field or oneof.
    pub(super) fn add(&mut self, place: &str, what: impl Display) {
        self.0.push(format!("{place}: {what}"));
    }

    /// The sentences, in the order of discovery.
    pub(super) fn into_sentences(self) -> Vec<String> {
        self.0
    }
}

/// The options that hold rules, as the set at hand defines them.
#[derive(Debug)]
pub(super) struct Extensions {
    message: Option<ExtensionDescriptor>,
    oneof: Option<ExtensionDescriptor>,
    field: Option<ExtensionDescriptor>,
    predefined: Option<ExtensionDescriptor>,
}

impl Extensions {
    /// Looks the options up in `pool`; a pool whose types use no rules has none of them.
    pub(super) fn of(pool: &DescriptorPool) -> Extensions {
        let find = |name: &str| pool.get_extension_by_name(&format!("buf.validate.{name}"));
        Extensions {
            message: find("message"),
            oneof: find("oneof"),
            field: find("field"),
            predefined: find("predefined"),
        }
    }

    /// The `MessageRules` of a message.
    pub(super) fn message(&self, message: &MessageDescriptor, faults: &mut Faults) -> Option<DynamicMessage> {
        let place = message.full_name();
        rules_in(&message.options(), self.message.as_ref(), place, faults)
    }

    /// The `OneofRules` of a oneof.
    pub(super) fn oneof(&self, oneof: &OneofDescriptor, faults: &mut Faults) -> Option<DynamicMessage> {
        let place = oneof.full_name();
        rules_in(&oneof.options(), self.oneof.as_ref(), place, faults)
    }

    /// The `FieldRules` of a field.
    pub(super) fn field(&self, field: &FieldDescriptor, faults: &mut Faults) -> Option<DynamicMessage> {
        let place = field.full_name();
        rules_in(&field.options(), self.field.as_ref(), place, faults)
    }

    /// Notes rules on extensions of `message`, which no implementation of the rules looks at.
    pub(super) fn refuse_on_extensions(&self, message: &MessageDescriptor, faults: &mut Faults) {
        for extension in message.extensions() {
            let place = extension.full_name();
            if rules_in(&extension.options(), self.field.as_ref(), place, faults).is_some() {
                faults.add(place, "has rules, but is an extension, whose rules are not enforced");
            }
        }
    }

    /// The expressions behind a predefined rule, which is an extension of one of the rule messages.
    pub(super) fn predefined(&self, rule: &ExtensionDescriptor) -> Vec<CelRule> {
        let options = rule.options();
        let Some(option) = &self.predefined else {
            return Vec::new();
        };
        match options.get_extension(option).as_message() {
            Some(rules) => CelRule::all_in(rules),
            None => Vec::new(),
        }
    }
}

/// The message in the option `extension` of `options`, if it is set.
fn rules_in(
    options: &DynamicMessage,
    extension: Option<&ExtensionDescriptor>,
    place: &str,
    faults: &mut Faults,
) -> Option<DynamicMessage> {
    let Some(extension) = extension.filter(|extension| options.has_extension(extension)) else {
        let mut unknown = options.unknown_fields();
        if unknown.any(|field| field.number() == RULES_OPTION) {
            let what = "has buf.validate rules, but the set has no buf/validate/validate.proto to read them by";
            faults.add(place, what);
        }
        return None;
    };
    let rules = options.get_extension(extension).as_message().cloned();
    if rules.is_none() {
        faults.add(place, format!("the set's `{}` is no message of rules", extension.full_name()));
    }
    rules
}

/// One message of rules, such as `buf.validate.Int32Rules`, and where it stands.
#[derive(Debug)]
pub(super) struct RuleSet<'a> {
    place: &'a str,
    family: &'a str,
    message: &'a DynamicMessage,
}

impl<'a> RuleSet<'a> {
    /// The rules `message` at `place`; `family` is the first half of their ids.
    pub(super) fn new(place: &'a str, family: &'a str, message: &'a DynamicMessage) -> Self {
        RuleSet { place, family, message }
    }

    /// Full name of the field, oneof or message that has the rules.
    pub(super) fn place(&self) -> &'a str {
        self.place
    }

    /// First half of the rules' ids, such as `int32`.
    pub(super) fn family(&self) -> &'a str {
        self.family
    }

    /// The message itself.
    pub(super) fn message(&self) -> &'a DynamicMessage {
        self.message
    }

    /// Name and value of every rule that is set, in the order of the field numbers.
    pub(super) fn rules(&self) -> impl Iterator<Item = (String, &'a Value)> + use<'a> {
        let fields = self.message.fields();
        fields.map(|(field, value)| (field.name().to_owned(), value))
    }

    /// Notes a rule that this gateway does not know.
    pub(super) fn unknown(&self, name: &str, faults: &mut Faults) {
        let family = self.family;
        faults.add(self.place, format!("the rule `{family}.{name}` is not known here and could not be enforced"));
    }

    /// Notes rules that not even the set's own validate.proto defines.
    pub(super) fn refuse_unknown_fields(&self, faults: &mut Faults) {
        for field in self.message.unknown_fields() {
            let (family, number) = (self.family, field.number());
            faults.add(
                self.place,
                format!("`{family}` has a rule with the number {number}, which the set's buf/validate/validate.proto does not define"),
            );
        }
    }
}

/// A rule written in CEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CelRule {
    /// The author's id, or the expression where there is none.
    pub(super) id: String,
    /// The author's sentence; empty when the expression itself says what is wrong.
    pub(super) message: String,
    pub(super) expression: String,
}

impl CelRule {
    /// The rules in the fields `cel` and `cel_expression` of `holder`.
    pub(super) fn all_in(holder: &DynamicMessage) -> Vec<CelRule> {
        let short = strings(holder, "cel_expression").into_iter();
        let short = short.map(|expression| CelRule { id: expression.clone(), message: String::new(), expression });
        let long = holder.get_field_by_name("cel");
        let long = long.as_deref().and_then(Value::as_list).unwrap_or_default();
        let long = long.iter().filter_map(Value::as_message).map(|rule| {
            let expression = string(rule, "expression");
            let id = Some(string(rule, "id")).filter(|id| !id.is_empty());
            CelRule { id: id.unwrap_or_else(|| expression.clone()), message: string(rule, "message"), expression }
        });
        short.chain(long).collect()
    }
}

/// The text of `message`'s field `name`; empty when it is unset or no text.
pub(super) fn string(message: &DynamicMessage, name: &str) -> String {
    let value = message.get_field_by_name(name);
    let text = value.as_deref().and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// The texts of `message`'s repeated field `name`.
pub(super) fn strings(message: &DynamicMessage, name: &str) -> Vec<String> {
    let value = message.get_field_by_name(name);
    let list = value.as_deref().and_then(Value::as_list);
    let texts = list.unwrap_or_default().iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Whether `message`'s field `name` is true.
pub(super) fn flag(message: &DynamicMessage, name: &str) -> bool {
    let value = message.get_field_by_name(name);
    value.as_deref().and_then(Value::as_bool) == Some(true)
}
