//! Compiles a parsed expression: resolves its names, checks its types, refuses what could not be evaluated.

use std::borrow::Cow;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, SelectExpr};
use cel::parser::Expression;
use prost_reflect::MessageDescriptor;
use regex::Regex;

use super::Scope;
use super::functions::Function;
use super::node::{Fold, Node};
use super::types::Type;
use super::value::Val;

/// A node and its type, or what is wrong, to follow "the CEL rule ...".
pub(super) type Built = Result<(Node, Type), String>;

/// Compiles one expression.
pub(super) struct Builder<'a> {
    scope: &'a Scope,
    /// The variables in scope, the innermost last, each in the slot of its place.
    pub(super) variables: Vec<(String, Type)>,
    slots: usize,
}

impl<'a> Builder<'a> {
    /// A builder for an expression in `scope`.
    pub(super) fn new(scope: &'a Scope) -> Self {
        Builder { scope, variables: Vec::new(), slots: 0 }
    }

    /// How many variables were in scope at once, at most.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Compiles `expression`, and what is in it.
    pub(super) fn build(&mut self, expression: &Expression) -> Built {
        match &expression.expr {
            Expr::Literal(literal) => Ok(constant(literal)),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => {
                let (mut entries, mut kinds) = (Vec::new(), None);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err("has a map with a field, which is no CEL".to_owned());
                    };
                    let (key, key_kind) = self.build(&entry.key)?;
                    let (value, value_kind) = self.build(&entry.value)?;
                    entries.push((key, value));
                    kinds = common(kinds, (key_kind, value_kind));
                }
                let (key, value) = kinds.unwrap_or((Type::Dyn, Type::Dyn));
                Ok((Node::Map(entries), Type::Map(Box::new(key), Box::new(value))))
            }
            Expr::Comprehension(fold) => self.fold(fold),
            Expr::Struct(literal) => Err(format!("makes a message `{}`, which is not supported", literal.type_name)),
            Expr::Unspecified => Err("is empty".to_owned()),
        }
    }

    fn name(&self, name: &str) -> Built {
        let variable = self.variables.iter().rposition(|(other, _)| other == name);
        if let Some(slot) = variable {
            return Ok((Node::Slot(slot), self.variables[slot].1.clone()));
        }
        match (name, &self.scope.rule) {
            ("this", _) => Ok((Node::This, self.scope.this.clone())),
            ("now", _) => Ok((Node::Now, Type::Timestamp)),
            ("rule", Some((rule, _))) => Ok((Node::Const(rule.clone()), Type::Dyn)),
            ("rules", Some((_, rules))) => Ok((Node::Const(rules.clone()), Type::Dyn)),
            _ => Err(format!("uses the name `{name}`, which means nothing here")),
        }
    }

    /// `a.b` and `has(a.b)`.
    fn select(&mut self, select: &SelectExpr) -> Built {
        if let Some(number) = self.enum_constant(select) {
            return Ok((Node::Const(Val::Int(i64::from(number))), Type::Int));
        }
        let (of, kind) = self.build(&select.operand)?;
        let (of, name) = (Box::new(of), select.field.clone());
        match (kind, select.test) {
            (Type::Message(message), _) if message.full_name() == "google.protobuf.Any" => {
                Err(format!("reads `{name}` of a google.protobuf.Any, which is not unpacked here"))
            }
            (Type::Message(message), test) => {
                let field = message
                    .get_field_by_name(&name)
                    .ok_or_else(|| format!("reads the field `{name}`, which is not in {}", message.full_name()))?;
                match test {
                    true => Ok((Node::HasField(of, field), Type::Bool)),
                    false => {
                        let kind = kind_of_field(&field);
                        Ok((Node::Field(of, field), kind))
                    }
                }
            }
            (Type::Map(..) | Type::Dyn, true) => Ok((Node::HasKey(of, name), Type::Bool)),
            (Type::Map(_, value), false) => Ok((Node::Key(of, name), *value)),
            (Type::Dyn, false) => Ok((Node::Key(of, name), Type::Dyn)),
            (kind, _) => Err(format!("reads the field `{name}` of {kind}")),
        }
    }

    /// The number behind `package.Enum.VALUE`, if that is what `select` is.
    fn enum_constant(&self, select: &SelectExpr) -> Option<i32> {
        let mut parts = Vec::new();
        let mut at = &select.operand.expr;
        loop {
            match at {
                Expr::Select(inner) if !inner.test => {
                    parts.push(inner.field.as_str());
                    at = &inner.operand.expr;
                }
                Expr::Ident(first) if self.name(first).is_err() => {
                    parts.push(first);
                    break;
                }
                _ => return None,
            }
        }
        parts.reverse();
        let kind = self.scope.pool.get_enum_by_name(&parts.join("."))?;
        Some(kind.get_value_by_name(&select.field)?.number())
    }

    fn list(&mut self, list: &ListExpr) -> Built {
        let (mut items, mut kinds) = (Vec::new(), None);
        for item in &list.elements {
            let (item, kind) = self.build(item)?;
            items.push(item);
            kinds = common(kinds, (kind, Type::Dyn));
        }
        let kind = kinds.map_or(Type::Dyn, |(kind, _)| kind);
        Ok((Node::List(items), Type::List(Box::new(kind))))
    }

    fn fold(&mut self, fold: &ComprehensionExpr) -> Built {
        let (range, kind) = self.build(&fold.iter_range)?;
        let item = match kind {
            Type::List(item) => *item,
            Type::Map(key, _) => *key,
            Type::Dyn => Type::Dyn,
            kind => return Err(format!("uses a macro such as `all` on {kind}, which is no list")),
        };
        let (start, total) = self.build(&fold.accu_init)?;
        let base = self.variables.len();
        self.variables.push((fold.iter_var.clone(), item));
        self.variables.push((fold.accu_var.clone(), total));
        self.slots = self.slots.max(self.variables.len());
        let (condition, _) = self.build(&fold.loop_cond)?;
        let (step, _) = self.build(&fold.loop_step)?;
        let (result, kind) = self.build(&fold.result)?;
        self.variables.truncate(base);
        let fold = Fold { range, item: base, total: base + 1, start, condition, step, result };
        Ok((Node::Fold(Box::new(fold)), kind))
    }

    fn call(&mut self, call: &CallExpr) -> Built {
        if call.target.is_none()
            && let Some(built) = self.operator(&call.func_name, &call.args)
        {
            return built;
        }
        let (mut arguments, mut kinds) = (Vec::new(), Vec::new());
        let target = call.target.as_deref();
        for argument in target.into_iter().chain(&call.args) {
            let (argument, kind) = self.build(argument)?;
            arguments.push(argument);
            kinds.push(kind);
        }
        let (function, kind) = Function::find(&call.func_name, target.is_some(), &kinds)?;
        match (function, arguments.as_slice()) {
            (Function::Matches, [_, Node::Const(Val::Text(pattern))]) => {
                let regex = Regex::new(pattern)
                    .map_err(|error| format!("matches `{pattern}`, which is no regular expression: {error}"))?;
                let text = arguments.swap_remove(0);
                Ok((Node::Matches(Box::new(text), regex), kind))
            }
            _ => Ok((Node::Call(function, arguments), kind)),
        }
    }
}

fn constant(literal: &LiteralValue) -> (Node, Type) {
    let (value, kind) = match literal {
        LiteralValue::Null => (Val::Null, Type::Null),
        LiteralValue::Boolean(value) => (Val::Bool(*value.inner()), Type::Bool),
        LiteralValue::Int(value) => (Val::Int(*value.inner()), Type::Int),
        LiteralValue::UInt(value) => (Val::Uint(*value.inner()), Type::Uint),
        LiteralValue::Double(value) => (Val::Double(*value.inner()), Type::Double),
        LiteralValue::String(value) => (Val::text(value.inner()), Type::Text),
        LiteralValue::Bytes(value) => (Val::Bytes(Cow::Owned(value.inner().to_vec())), Type::Bytes),
    };
    (Node::Const(value), kind)
}

/// The type of what a field holds.
fn kind_of_field(field: &prost_reflect::FieldDescriptor) -> Type {
    let kind = field.kind();
    let entry = kind.as_message().filter(|_| field.is_map());
    match entry.map(map_types) {
        Some((key, value)) => Type::Map(Box::new(key), Box::new(value)),
        None if field.is_list() => Type::List(Box::new(Type::of(&kind))),
        None => Type::of(&kind),
    }
}

fn map_types(entry: &MessageDescriptor) -> (Type, Type) {
    let key = Type::of(&entry.map_entry_key_field().kind());
    let value = Type::of(&entry.map_entry_value_field().kind());
    (key, value)
}

/// What is common to all elements so far and to the next.
fn common(so_far: Option<(Type, Type)>, next: (Type, Type)) -> Option<(Type, Type)> {
    Some(match so_far {
        None => next,
        Some((key, value)) => (key.common(&next.0), value.common(&next.1)),
    })
}
