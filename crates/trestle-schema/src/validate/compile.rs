//! Turns the options of a message type, and of every type in it, into plans. Runs once, when a schema set is loaded.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::cel::{Program, Scope, Type};
use super::collection::{ListPlan, MapPlan};
use super::field::{Declared, ElementPlan, FieldPlan, FieldValue, Ignore, ValuePlan};
use super::message::{Group, MessagePlan, Plans};
use super::options::{CelRule, Extensions, Faults, RuleSet, flag, strings};
use super::rules::{Rules, family_of, name_of};

/// Compiles the plans of `root`, which is the first of them, and of all types in it.
///
/// `Ok(None)` when nothing is asked anywhere in the type.
pub(super) fn compile(root: &MessageDescriptor) -> Result<Option<Plans>, Vec<String>> {
    let mut compiler = Compiler {
        pool: root.parent_pool().clone(),
        extensions: Extensions::of(root.parent_pool()),
        faults: Faults::default(),
        places: HashMap::new(),
        waiting: Vec::new(),
    };
    let mut plans = Vec::new();
    compiler.place_of(root);
    // `place_of` puts a type here the first time it is met, so every type is compiled once, however types contain each other.
    while let Some(message) = compiler.waiting.get(plans.len()).cloned() {
        plans.push(compiler.message(&message));
    }
    let faults = compiler.faults.into_sentences();
    match faults.is_empty() {
        true => Ok(prune(plans)),
        false => Err(faults),
    }
}

/// Leaves out every field that leads to no rule, so that messages are walked only where something is asked.
fn prune(mut plans: Vec<MessagePlan>) -> Option<Plans> {
    let mut live: Vec<bool> = plans.iter().map(MessagePlan::has_rules).collect();
    loop {
        let mut grown = false;
        for (index, plan) in plans.iter_mut().enumerate() {
            let mut nested = plan.fields.iter_mut().filter_map(FieldPlan::nested);
            let leads = nested.any(|nested| nested.is_some_and(|nested| live[nested]));
            grown |= leads && !live[index];
            live[index] |= leads;
        }
        if !grown {
            break;
        }
    }
    for plan in &mut plans {
        plan.fields.retain_mut(|field| {
            let leads = match field.nested() {
                Some(nested) => {
                    *nested = nested.filter(|nested| live[*nested]);
                    nested.is_some()
                }
                None => false,
            };
            leads || field.has_rules()
        });
    }
    live.first()?.then_some(Plans(plans))
}

struct Compiler {
    pool: DescriptorPool,
    extensions: Extensions,
    faults: Faults,
    places: HashMap<String, usize>,
    /// Every type that was met, at its place.
    waiting: Vec<MessageDescriptor>,
}

impl Compiler {
    /// The place of `message`'s plan.
    fn place_of(&mut self, message: &MessageDescriptor) -> usize {
        let next = self.waiting.len();
        let place = *self.places.entry(message.full_name().to_owned()).or_insert(next);
        if place == next {
            self.waiting.push(message.clone());
        }
        place
    }

    fn message(&mut self, message: &MessageDescriptor) -> MessagePlan {
        let place = message.full_name();
        let mut plan = MessagePlan::default();
        if let Some(rules) = self.extensions.message(message, &mut self.faults) {
            let set = RuleSet::new(place, "message", &rules);
            super::closed::refuse_other(&set, &["cel", "cel_expression", "oneof"], &mut self.faults);
            set.refuse_unknown_fields(&mut self.faults);
            let scope = self.scope(Type::Message(message.clone()));
            plan.cel = self.programs(place, CelRule::all_in(&rules), &scope);
            plan.groups = self.groups(message, &rules);
        }
        for oneof in message.oneofs() {
            if let Some(rules) = self.extensions.oneof(&oneof, &mut self.faults) {
                let set = RuleSet::new(oneof.full_name(), "oneof", &rules);
                super::closed::refuse_other(&set, &["required"], &mut self.faults);
                set.refuse_unknown_fields(&mut self.faults);
                if flag(&rules, "required") {
                    plan.required_oneofs.push(oneof);
                }
            }
        }
        self.extensions.refuse_on_extensions(message, &mut self.faults);
        for field in message.fields() {
            let grouped = plan.groups.iter().any(|group| group.fields.contains(&field));
            plan.fields.extend(self.field(field, grouped));
        }
        plan
    }

    /// The groups of `(buf.validate.message).oneof`.
    fn groups(&mut self, message: &MessageDescriptor, rules: &DynamicMessage) -> Vec<Group> {
        let place = message.full_name();
        let list = rules.get_field_by_name("oneof");
        let list = list.as_deref().and_then(Value::as_list).unwrap_or_default();
        let mut groups = Vec::new();
        for rule in list.iter().filter_map(Value::as_message) {
            let mut fields: Vec<FieldDescriptor> = Vec::new();
            let names = strings(rule, "fields");
            if names.is_empty() {
                self.faults.add(place, "`oneof` names no field");
            }
            for name in names {
                match message.get_field_by_name(&name) {
                    None => {
                        let what = format!("`oneof` names the field `{name}`, which is not in the message");
                        self.faults.add(place, what);
                    }
                    Some(field) if fields.contains(&field) => {
                        self.faults.add(place, format!("`oneof` names the field `{name}` twice"));
                    }
                    Some(field) => fields.push(field),
                }
            }
            let required = flag(rule, "required");
            groups.push(Group { fields, required });
        }
        groups
    }

    /// `None` where nothing is asked, and can not be through a message in the field.
    fn field(&mut self, field: FieldDescriptor, grouped: bool) -> Option<FieldPlan> {
        let place = field.full_name().to_owned();
        let rules = self.extensions.field(&field, &mut self.faults);
        let rules = rules.map(|rules| Declared::read(&place, &rules, &mut self.faults));
        let declared = rules.unwrap_or_default();
        let value = if field.is_map() {
            FieldValue::Map(Box::new(self.map(&place, &field, &declared)))
        } else if field.is_list() {
            FieldValue::List(self.list(&place, &field, &declared))
        } else {
            FieldValue::Single(self.value(&place, &field.kind(), &declared))
        };
        let default = if grouped { Ignore::IfZeroValue } else { Ignore::Unspecified };
        let ignore = declared.ignore.unwrap_or(default);
        let required = declared.required;
        (ignore != Ignore::Always).then_some(FieldPlan { field, required, ignore, value })
    }

    fn value(&mut self, place: &str, kind: &Kind, declared: &Declared) -> ValuePlan {
        let mut plan = ValuePlan { wrapped: family_of(kind).1, ..ValuePlan::default() };
        let this = Type::of(kind);
        if let Some((family, rules)) = &declared.standard {
            let set = RuleSet::new(place, family, rules);
            plan.standard = Rules::read(&set, kind, &mut self.faults);
            plan.cel = self.predefined(&set, &this);
        }
        let scope = self.scope(this);
        plan.cel.extend(self.programs(place, declared.cel.clone(), &scope));
        if let Kind::Message(message) = kind {
            plan.nested = Some(self.place_of(message));
        }
        plan
    }

    fn list(&mut self, place: &str, field: &FieldDescriptor, declared: &Declared) -> ListPlan {
        let kind = field.kind();
        let this = Type::List(Box::new(Type::of(&kind)));
        let (mut plan, mut items) = (ListPlan::default(), None);
        if let Some((_, rules)) = self.of_family("repeated", place, declared, "a repeated field") {
            let set = RuleSet::new(place, "repeated", rules);
            plan = ListPlan::read(&set, &mut self.faults);
            plan.cel = self.predefined(&set, &this);
            items = message_in(rules, "items");
        }
        if plan.unique && matches!(kind, Kind::Message(_)) {
            let what = format!(
                "the rule `repeated.unique` does not fit items of the type {}, which is a message",
                name_of(&kind)
            );
            self.faults.add(place, what);
        }
        plan.cel.extend(self.programs(place, declared.cel.clone(), &self.scope(this)));
        plan.items = self.element(&format!("{place} (items)"), &kind, items);
        plan
    }

    fn map(&mut self, place: &str, field: &FieldDescriptor, declared: &Declared) -> MapPlan {
        let Kind::Message(entry) = field.kind() else {
            return MapPlan::default();
        };
        let key = entry.map_entry_key_field().kind();
        let value = entry.map_entry_value_field().kind();
        let this = Type::Map(Box::new(Type::of(&key)), Box::new(Type::of(&value)));
        let (mut plan, mut keys, mut values) = (MapPlan::default(), None, None);
        if let Some((_, rules)) = self.of_family("map", place, declared, "a map") {
            let set = RuleSet::new(place, "map", rules);
            plan = MapPlan::read(&set, &mut self.faults);
            plan.cel = self.predefined(&set, &this);
            keys = message_in(rules, "keys");
            values = message_in(rules, "values");
        }
        plan.cel.extend(self.programs(place, declared.cel.clone(), &self.scope(this)));
        plan.keys = keys.and_then(|keys| self.element(&format!("{place} (keys)"), &key, Some(keys)));
        plan.values = self.element(&format!("{place} (values)"), &value, values);
        plan
    }

    /// The rules of each item, key or value; `None` when they are always ignored or when there is nothing to ask.
    fn element(&mut self, place: &str, kind: &Kind, rules: Option<DynamicMessage>) -> Option<ElementPlan> {
        let rules = rules.map(|rules| Declared::read(place, &rules, &mut self.faults));
        let declared = rules.unwrap_or_default();
        let value = self.value(place, kind, &declared);
        let ignore = declared.ignore.unwrap_or_default();
        let asks = value.has_rules() || value.nested.is_some();
        let enum_zero = kind.as_enum().map_or(0, |kind| kind.default_value().number());
        (asks && ignore != Ignore::Always)
            .then_some(ElementPlan { zero_passes: (ignore == Ignore::IfZeroValue).then_some(enum_zero), value })
    }

    /// The standard rules, which must be of `family`.
    fn of_family<'a>(
        &mut self,
        family: &str,
        place: &str,
        declared: &'a Declared,
        what: &str,
    ) -> Option<(&'a str, &'a DynamicMessage)> {
        let (name, rules) = declared.standard.as_ref()?;
        if name != family {
            let what = format!("the rules `{name}` do not fit {what}, whose rules are in `{family}`");
            self.faults.add(place, what);
            return None;
        }
        Some((name, rules))
    }

    /// The rules that the set's authors defined by extending a message of rules.
    fn predefined(&mut self, set: &RuleSet<'_>, this: &Type) -> Vec<Program> {
        let mut programs = Vec::new();
        for (extension, value) in set.message().extensions() {
            let rules = self.extensions.predefined(&extension);
            if rules.is_empty() {
                let name = extension.full_name();
                let what = format!("`{name}` is set like a predefined rule, but has no (buf.validate.predefined).cel");
                self.faults.add(set.place(), what);
            }
            let scope = self.scope(this.clone()).with_rule(value, set.message());
            programs.extend(self.programs(set.place(), rules, &scope));
        }
        programs
    }

    fn scope(&self, this: Type) -> Scope {
        Scope::of(&self.pool, this)
    }

    fn programs(&mut self, place: &str, rules: Vec<CelRule>, scope: &Scope) -> Vec<Program> {
        let mut programs = Vec::new();
        for rule in rules {
            let id = rule.id.clone();
            match Program::compile(rule, scope) {
                Ok(program) => programs.push(program),
                Err(error) => self.faults.add(place, format!("the CEL rule `{id}` {error}")),
            }
        }
        programs
    }
}

/// The message in `holder`'s field `name`, if it is set.
fn message_in(holder: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let has = holder.has_field_by_name(name);
    let value = holder.get_field_by_name(name).filter(|_| has)?;
    value.as_message().cloned()
}
