//! Rules that authors write in the Common Expression Language.
//!
//! The `cel` crate parses; the tree it gives is checked against the schema (names, fields, types, functions) and
//! compiled to nodes that read the message in place. Its interpreter is not used, because a gateway needs what it does
//! not promise: no copy of the message, a bound on the work, protobuf's presence in `has()`, and never a panic.

mod build;
mod calendar;
mod convert;
mod functions;
mod node;
mod operate;
mod operators;
mod strings;
mod types;
mod value;

use std::panic::{AssertUnwindSafe, catch_unwind};

use prost_reflect::{DescriptorPool, DynamicMessage, Value};

use self::build::Builder;
use self::node::{Environment, Node};
pub(super) use self::types::Type;
use self::value::Val;
use super::datum::Datum;
use super::options::CelRule;
use super::violation::{Checked, Violation};

/// What the names in an expression stand for.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// Where enum constants are looked up.
    pool: DescriptorPool,
    /// Type of `this`.
    this: Type,
    /// For a predefined rule: `rule`, the value it was given, and `rules`, the message it was given in.
    rule: Option<(Val<'static>, Val<'static>)>,
}

impl Scope {
    /// The scope of a rule that is written where it counts.
    pub(super) fn of(pool: &DescriptorPool, this: Type) -> Scope {
        Scope { pool: pool.clone(), this, rule: None }
    }

    /// The scope of a predefined rule that was given `value` in the message `rules`.
    pub(super) fn with_rule(mut self, value: &Value, rules: &DynamicMessage) -> Scope {
        let rule = Val::from(Datum::from(value)).into_owned();
        let rules = Val::from(Datum::Message(rules)).into_owned();
        self.rule = Some((rule, rules));
        self
    }
}

/// A compiled rule.
#[derive(Debug)]
pub(super) struct Program {
    rule: CelRule,
    root: Node,
    /// How many variables the expression's macros bind at once.
    slots: usize,
}

impl Program {
    /// Compiles `rule`.
    ///
    /// # Errors
    /// What is wrong with the expression, to follow "the CEL rule ...".
    pub(super) fn compile(rule: CelRule, scope: &Scope) -> Result<Program, String> {
        // The parser is generated code that has panicked on strange input; a schema must not take the node with it.
        let parse = || cel::parser::Parser::new().parse(&rule.expression);
        let parsed = catch_unwind(AssertUnwindSafe(parse));
        let parsed = parsed.map_err(|_| "does not parse".to_owned())?;
        let expression = parsed.map_err(|error| {
            let error = error.to_string();
            let line = error.lines().next().unwrap_or_default().to_owned();
            format!("does not parse: {}", line.trim_start_matches("ERROR: "))
        })?;
        let mut builder = Builder::new(scope);
        let (root, kind) = builder.build(&expression)?;
        match kind {
            Type::Bool | Type::Text | Type::Dyn => Ok(Program { rule, root, slots: builder.slots() }),
            kind => Err(format!("must give a bool or a string, and gives {kind}")),
        }
    }

    /// Judges `this`. An expression that cannot be evaluated for it counts as broken.
    pub(super) fn check(&self, this: Datum<'_>) -> Checked {
        let mut environment = Environment::new(Val::from(this), self.slots);
        let message = match self.root.evaluate(&mut environment) {
            Ok(Val::Bool(true)) => return Ok(()),
            Ok(Val::Text(text)) if text.is_empty() => return Ok(()),
            Ok(Val::Text(text)) if self.rule.message.is_empty() => text.into_owned(),
            Ok(Val::Bool(false)) if self.rule.message.is_empty() => {
                format!("\"{}\" returned false", self.rule.expression)
            }
            Ok(Val::Text(_) | Val::Bool(false)) => self.rule.message.clone(),
            Ok(other) => format!("could not be judged: the rule gave {}", other.type_name()),
            Err(fault) => format!("could not be judged: {fault}"),
        };
        Err(Violation::new(self.rule.id.clone(), message))
    }
}
