//! Compiles operators, each against the types it takes.

use std::cmp::Ordering::{self, Equal, Greater, Less};

use cel::common::ast::operators;
use cel::parser::Expression;

use super::build::{Builder, Built};
use super::node::Node;
use super::types::Type;

impl Builder<'_> {
    /// The operators, which the parser gives as calls of functions with odd names.
    pub(super) fn operator(&mut self, name: &str, arguments: &[Expression]) -> Option<Built> {
        Some(match (name, arguments) {
            (operators::CONDITIONAL, [condition, then, otherwise]) => self.conditional(condition, then, otherwise),
            (operators::LOGICAL_AND, [a, b]) => self.booleans(a, b).map(|sides| (Node::And(sides), Type::Bool)),
            (operators::LOGICAL_OR, [a, b]) => self.booleans(a, b).map(|sides| (Node::Or(sides), Type::Bool)),
            (operators::LOGICAL_NOT, [of]) => self.boolean(of).map(|of| (Node::Not(Box::new(of)), Type::Bool)),
            (operators::NOT_STRICTLY_FALSE, [of]) => {
                self.boolean(of).map(|of| (Node::NotFalse(Box::new(of)), Type::Bool))
            }
            (operators::NEGATE, [of]) => self.build(of).and_then(|(of, kind)| match kind {
                Type::Int | Type::Double | Type::Duration | Type::Dyn => Ok((Node::Negate(Box::new(of)), kind)),
                kind => Err(format!("negates {kind}")),
            }),
            (operators::EQUALS, [a, b]) => self.equal(a, b),
            (operators::NOT_EQUALS, [a, b]) => self.equal(a, b).map(|(equal, kind)| (Node::Not(Box::new(equal)), kind)),
            (operators::LESS, [a, b]) => self.order(a, b, [Less, Less]),
            (operators::LESS_EQUALS, [a, b]) => self.order(a, b, [Less, Equal]),
            (operators::GREATER, [a, b]) => self.order(a, b, [Greater, Greater]),
            (operators::GREATER_EQUALS, [a, b]) => self.order(a, b, [Greater, Equal]),
            (operators::ADD, [a, b]) => self.arithmetic(a, '+', b),
            (operators::SUBSTRACT, [a, b]) => self.arithmetic(a, '-', b),
            (operators::MULTIPLY, [a, b]) => self.arithmetic(a, '*', b),
            (operators::DIVIDE, [a, b]) => self.arithmetic(a, '/', b),
            (operators::MODULO, [a, b]) => self.arithmetic(a, '%', b),
            (operators::IN, [item, holder]) => self.is_in(item, holder),
            (operators::INDEX, [of, index]) => self.index(of, index),
            _ => return None,
        })
    }

    fn pair(&mut self, a: &Expression, b: &Expression) -> Result<(Box<[Node; 2]>, Type, Type), String> {
        let (a, a_kind) = self.build(a)?;
        let (b, b_kind) = self.build(b)?;
        Ok((Box::new([a, b]), a_kind, b_kind))
    }

    fn boolean(&mut self, expression: &Expression) -> Result<Node, String> {
        match self.build(expression)? {
            (node, Type::Bool | Type::Dyn) => Ok(node),
            (_, kind) => Err(format!("uses {kind} where a bool must stand")),
        }
    }

    fn booleans(&mut self, a: &Expression, b: &Expression) -> Result<Box<[Node; 2]>, String> {
        Ok(Box::new([self.boolean(a)?, self.boolean(b)?]))
    }

    fn conditional(&mut self, condition: &Expression, then: &Expression, otherwise: &Expression) -> Built {
        let condition = self.boolean(condition)?;
        let (then, then_kind) = self.build(then)?;
        let (otherwise, otherwise_kind) = self.build(otherwise)?;
        let kind = then_kind.common(&otherwise_kind);
        Ok((Node::If(Box::new([condition, then, otherwise])), kind))
    }

    fn equal(&mut self, a: &Expression, b: &Expression) -> Built {
        let (sides, a, b) = self.pair(a, b)?;
        match a.meets(&b) {
            true => Ok((Node::Equal(sides), Type::Bool)),
            false => Err(format!("compares {a} with {b}, which are never equal")),
        }
    }

    fn order(&mut self, a: &Expression, b: &Expression, wanted: [Ordering; 2]) -> Built {
        let (sides, a, b) = self.pair(a, b)?;
        match a.is_ordered_with(&b) {
            true => Ok((Node::Order(sides, wanted), Type::Bool)),
            false => Err(format!("orders {a} and {b}, which have no order")),
        }
    }

    fn arithmetic(&mut self, a: &Expression, op: char, b: &Expression) -> Built {
        let (sides, a, b) = self.pair(a, b)?;
        let kind = a.arithmetic(op, &b);
        let kind = kind.ok_or_else(|| format!("has {a} {op} {b}, which is not possible"))?;
        let append = match (&*sides, op) {
            ([Node::Slot(slot), Node::List(_)], '+') => Some(*slot),
            _ => None,
        };
        // Only macros may take the list out of its variable: they write it back. No name of an author begins with '@'.
        let append = append.filter(|slot| self.variables[*slot].0.starts_with('@'));
        Ok(match (append, *sides) {
            (Some(slot), [_, Node::List(items)]) => (Node::Append(slot, items), kind),
            (_, sides) => (Node::Arithmetic(op, Box::new(sides)), kind),
        })
    }

    fn is_in(&mut self, item: &Expression, holder: &Expression) -> Built {
        let (sides, item, holder) = self.pair(item, holder)?;
        let possible = match &holder {
            Type::List(kind) => item.meets(kind),
            Type::Map(key, _) => item.meets(key),
            holder => *holder == Type::Dyn,
        };
        match possible {
            true => Ok((Node::In(sides), Type::Bool)),
            false => Err(format!("looks for {item} in {holder} that cannot hold it")),
        }
    }

    fn index(&mut self, of: &Expression, index: &Expression) -> Built {
        let (sides, of, index) = self.pair(of, index)?;
        let kind = match (of, index) {
            (Type::List(item), Type::Int | Type::Uint | Type::Dyn) => *item,
            (Type::Map(key, value), index) if index.meets(&key) => *value,
            (Type::Dyn, _) => Type::Dyn,
            (of, index) => return Err(format!("takes an item of {of} by {index}")),
        };
        Ok((Node::Index(sides), kind))
    }
}
