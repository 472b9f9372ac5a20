//! Groups that sessions are in by rule: a group's name, and a selector over tags.

use trestle_wire::{GroupName, Selector, Tags};

use crate::SessionConfig;

/// Most rules of a node: each costs every session a look at its tags whenever they change, 64 of them some microseconds.
const RULES_MAX: usize = 64;

/// The rules of `session.groups`, parsed.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<(GroupName, Selector)>);

impl Rules {
    /// Parses the rules of `config`.
    ///
    /// # Errors
    /// A sentence per rule that is wrong.
    pub fn parse(config: &SessionConfig) -> Result<Self, Vec<String>> {
        let (mut rules, mut faults) = (Vec::with_capacity(config.groups.len()), Vec::new());
        if config.groups.len() > RULES_MAX {
            faults.push(format!("session.groups has {} rules; at most {RULES_MAX} are allowed", config.groups.len()));
        }
        for (name, selector) in &config.groups {
            match (GroupName::parse(name), Selector::parse(selector)) {
                (Ok(group), Ok(selector)) => rules.push((group, selector)),
                (Err(fault), _) => faults.push(format!("session.groups.{name}: {fault}")),
                (_, Err(fault)) => faults.push(format!("session.groups.{name}: {fault} of {selector:?}")),
            }
        }
        if faults.is_empty() { Ok(Self(rules)) } else { Err(faults) }
    }

    /// The groups that a session with these tags is in.
    pub(crate) fn groups<'a>(&'a self, tags: &'a Tags) -> impl Iterator<Item = &'a GroupName> {
        self.0.iter().filter(|(_, selector)| selector.matches(tags)).map(|(group, _)| group)
    }
}
