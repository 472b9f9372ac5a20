//! The compiled form of an expression, and its evaluation.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::mem;
use std::sync::Arc;

use prost_reflect::FieldDescriptor;
use regex::Regex;

use super::super::time::Moment;
use super::functions::Function;
use super::operate::{append, arithmetic, boolean, index_of, key_of, negate, no_field};
use super::value::{List, Map, Val};

/// How many nodes one rule may evaluate for one value.
///
/// 1 M nodes at some 20 ns are 20 ms of one core, the most that one rule can cost; `all` over a list of 10 k items
/// with a comparison takes 60 k. An operation on something large counts as the nodes of [`Val::weight`].
const STEPS_MAX: u32 = 1_000_000;

/// An expression whose names, fields and functions are resolved.
#[derive(Debug)]
pub(super) enum Node {
    Const(Val<'static>),
    This,
    Now,
    /// A variable that a macro binds.
    Slot(usize),
    Field(Box<Node>, FieldDescriptor),
    HasField(Box<Node>, FieldDescriptor),
    /// `a.b` where `a` is a map, or known only when evaluated.
    Key(Box<Node>, String),
    HasKey(Box<Node>, String),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    If(Box<[Node; 3]>),
    Equal(Box<[Node; 2]>),
    /// True where the order is one of the two.
    Order(Box<[Node; 2]>, [Ordering; 2]),
    Arithmetic(char, Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    Index(Box<[Node; 2]>),
    Matches(Box<Node>, Regex),
    Call(Function, Vec<Node>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// What `map` and `filter` do at each step, without copying the list.
    Append(usize, Vec<Node>),
    /// Whether the node is anything but false; `all` and `exists` go on over errors by it.
    NotFalse(Box<Node>),
    Fold(Box<Fold>),
}

/// A macro over a list or the keys of a map.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) range: Node,
    pub(super) item: usize,
    pub(super) total: usize,
    pub(super) start: Node,
    pub(super) condition: Node,
    pub(super) step: Node,
    pub(super) result: Node,
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Evaluation(String),
    TooManySteps,
}

impl Fault {
    /// A fault in words.
    pub(super) fn new(words: impl Into<String>) -> Fault {
        Fault::Evaluation(words.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Evaluation(words) => f.write_str(words),
            Fault::TooManySteps => write!(f, "the rule takes more than {STEPS_MAX} steps"),
        }
    }
}

/// The value of an expression, or why it has none.
pub(super) type Evaluated<'a> = Result<Val<'a>, Fault>;

/// What an evaluation knows and may still spend.
#[derive(Debug)]
pub(super) struct Environment<'a> {
    this: Val<'a>,
    slots: Vec<Evaluated<'a>>,
    steps: u32,
    /// Read once, so that `now` is the same everywhere in a rule.
    now: Option<Moment>,
}

impl<'a> Environment<'a> {
    /// The environment of a program with `slots` variables.
    pub(super) fn new(this: Val<'a>, slots: usize) -> Self {
        Environment { this, slots: vec![Ok(Val::Null); slots], steps: 0, now: None }
    }

    fn spend(&mut self, steps: usize) -> Result<(), Fault> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(steps);
        match self.steps <= STEPS_MAX {
            true => Ok(()),
            false => Err(Fault::TooManySteps),
        }
    }
}

impl Node {
    /// Evaluates the expression.
    ///
    /// # Errors
    /// What CEL calls a runtime error, and too much work.
    pub(super) fn evaluate<'a>(&'a self, env: &mut Environment<'a>) -> Evaluated<'a> {
        env.spend(1)?;
        Ok(match self {
            Node::Const(value) => value.lend(),
            Node::This => env.this.clone(),
            Node::Now => Val::Timestamp(*env.now.get_or_insert_with(Moment::now)),
            Node::Slot(slot) => return env.slots[*slot].clone(),
            Node::Field(of, field) => match of.evaluate(env)? {
                Val::Message(message) => Val::field(message, field),
                other => return Err(no_field(&other, field.name())),
            },
            Node::HasField(of, field) => match of.evaluate(env)? {
                Val::Message(message) => Val::Bool(message.has_field(field)),
                other => return Err(no_field(&other, field.name())),
            },
            Node::Key(of, name) => return key_of(of.evaluate(env)?, name),
            Node::HasKey(of, name) => match of.evaluate(env)? {
                Val::Message(message) => Val::Bool(message.has_field_by_name(name)),
                Val::Map(map) => Val::Bool(map.get(&Val::Text(Cow::Borrowed(name))).is_some()),
                other => return Err(no_field(&other, name)),
            },
            Node::Not(of) => Val::Bool(!boolean(of.evaluate(env)?)?),
            Node::Negate(of) => return negate(of.evaluate(env)?),
            Node::And(sides) => return both(sides, env, false),
            Node::Or(sides) => return both(sides, env, true),
            Node::If(parts) => {
                let [condition, then, otherwise] = &**parts;
                return match boolean(condition.evaluate(env)?)? {
                    true => then.evaluate(env),
                    false => otherwise.evaluate(env),
                };
            }
            Node::Equal(sides) => {
                let [a, b] = evaluate_both(sides, env)?;
                Val::Bool(a.equals(&b))
            }
            Node::Order(sides, wanted) => {
                let [a, b] = evaluate_both(sides, env)?;
                let Some(order) = a.compare(&b) else {
                    let (a, b) = (a.type_name(), b.type_name());
                    return Err(Fault::new(format!("{a} has no order with {b}")));
                };
                Val::Bool(order.is_some_and(|order| wanted.contains(&order)))
            }
            Node::Arithmetic(op, sides) => {
                let [a, b] = evaluate_both(sides, env)?;
                return arithmetic(a, *op, b);
            }
            Node::In(sides) => match evaluate_both(sides, env)? {
                [item, Val::List(list)] => Val::Bool(list.iter().any(|other| other.equals(&item))),
                [key, Val::Map(map)] => Val::Bool(map.get(&key).is_some()),
                [_, other] => return Err(Fault::new(format!("{} holds nothing", other.type_name()))),
            },
            Node::Index(sides) => {
                let [of, index] = evaluate_both(sides, env)?;
                return index_of(of, &index);
            }
            Node::Matches(of, regex) => {
                let of = of.evaluate(env)?;
                env.spend(of.weight())?;
                match of {
                    Val::Text(text) => Val::Bool(regex.is_match(&text)),
                    other => return Err(Fault::new(format!("{} is no text", other.type_name()))),
                }
            }
            Node::Call(function, arguments) => {
                let arguments = evaluate_all(arguments, env)?;
                return function.call(arguments);
            }
            Node::List(items) => Val::list(evaluate_all(items, env)?),
            Node::Map(entries) => {
                let mut made = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    made.push((key.evaluate(env)?, value.evaluate(env)?));
                }
                Val::Map(Map::Made(Arc::new(made)))
            }
            Node::Append(slot, items) => {
                let items = evaluate_all(items, env)?;
                return append(mem::replace(&mut env.slots[*slot], Ok(Val::Null))?, items);
            }
            Node::NotFalse(of) => match of.evaluate(env) {
                Err(Fault::TooManySteps) => return Err(Fault::TooManySteps),
                value => Val::Bool(!matches!(value, Ok(Val::Bool(false)))),
            },
            Node::Fold(fold) => return fold.evaluate(env),
        })
    }
}

impl Fold {
    fn evaluate<'a>(&'a self, env: &mut Environment<'a>) -> Evaluated<'a> {
        let items: List<'a> = match self.range.evaluate(env)? {
            Val::List(list) => list,
            Val::Map(map) => List::Made(Arc::new(map.iter().map(|(key, _)| key).collect())),
            other => return Err(Fault::new(format!("{} is no list", other.type_name()))),
        };
        env.slots[self.total] = self.start.evaluate(env);
        for item in items.iter() {
            if !boolean(self.condition.evaluate(env)?)? {
                break;
            }
            env.slots[self.item] = Ok(item);
            let total = self.step.evaluate(env);
            if total == Err(Fault::TooManySteps) {
                return total;
            }
            env.slots[self.total] = total;
        }
        self.result.evaluate(env)
    }
}

/// Evaluates operands and pays for what an operation may have to look at.
fn evaluate_all<'a>(nodes: &'a [Node], env: &mut Environment<'a>) -> Result<Vec<Val<'a>>, Fault> {
    let values: Vec<Val<'a>> = nodes.iter().map(|node| node.evaluate(env)).collect::<Result<_, _>>()?;
    env.spend(values.iter().map(Val::weight).sum())?;
    Ok(values)
}

fn evaluate_both<'a>(sides: &'a [Node; 2], env: &mut Environment<'a>) -> Result<[Val<'a>; 2], Fault> {
    let [a, b] = [sides[0].evaluate(env)?, sides[1].evaluate(env)?];
    env.spend(a.weight() + b.weight())?;
    Ok([a, b])
}

/// `&&` and `||`: the side that is `decisive` decides, even if the other has no value.
fn both<'a>(sides: &'a [Node; 2], env: &mut Environment<'a>, decisive: bool) -> Evaluated<'a> {
    let left = sides[0].evaluate(env).and_then(boolean);
    if left == Ok(decisive) || left == Err(Fault::TooManySteps) {
        return left.map(Val::Bool);
    }
    let right = sides[1].evaluate(env).and_then(boolean)?;
    match right == decisive {
        true => Ok(Val::Bool(decisive)),
        false => left.map(Val::Bool),
    }
}
