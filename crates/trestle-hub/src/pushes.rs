//! Pushes to single sessions, and to those that a selector picks.
//!
//! What always holds: a node answers for a session only if it holds it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use trestle_bus::{Heard, Message, Subject, Subscription};
use trestle_wire::{
    Selector, SessionId,
    v1::{self, Overflow},
};

use crate::{
    Member,
    fanout::Parcel,
    listen::{Core, Scope},
    slices::{Load, Run},
};

/// Parsed selectors that are kept: services push by few of them, over and over. 64 x 4 KiB at worst.
const SELECTORS_MAX: usize = 64;

/// Selectors by their text; all are let go when there are too many.
pub(crate) type Selectors = HashMap<String, Arc<Selector>>;

impl Core {
    /// Carries pushes to the sessions that this node began, and what is to be done with them, until the bus is closed.
    pub(crate) async fn pump_sessions(self: Arc<Self>, mut subscription: Subscription) {
        let pattern = self.subjects.sessions_of(&self.node);
        let stem = pattern.as_str().trim_end_matches('>').to_owned();
        while let Some(heard) = subscription.next().await {
            let message = match heard {
                Heard::Message(message) => message,
                Heard::Lost(count) => {
                    self.lost_pushes("sessions", Scope::Some, count).await;
                    continue;
                }
            };
            // <prefix>.session.<node>.<random>[.control]
            let Some(rest) = message.subject.as_str().strip_prefix(&stem) else { continue };
            match rest.split_once('.') {
                None => {
                    let Ok(session) = SessionId::parse(&format!("{}.{rest}", self.node)) else { continue };
                    self.push_to(&session, message).await;
                }
                Some((_, "control")) => self.control(message).await,
                Some(_) => {}
            }
        }
    }

    /// Delivers a push to one session. Whoever counts hears nothing from a node that does not hold it.
    pub(crate) async fn push_to(&self, session: &SessionId, message: Message) {
        let Some(member) = self.sessions.lock().get(session).cloned() else { return };
        let Some(envelope) = self.read_as(&message) else { return };
        self.send(self.pushed(envelope, message.reply_to), &member).await;
    }

    /// Carries pushes by selectors, until the bus is closed.
    pub(crate) async fn pump_selected(self: Arc<Self>, mut subscription: Subscription) {
        while let Some(heard) = subscription.next().await {
            match heard {
                Heard::Message(message) => {
                    if let Some(push) = self.read_as::<v1::SelectedPush>(&message) {
                        self.push_selected(push, message.reply_to).await;
                    }
                }
                Heard::Lost(count) => self.lost_pushes("selected sessions", Scope::Some, count).await,
            }
        }
    }

    async fn push_selected(&self, push: v1::SelectedPush, reply_to: Option<Subject>) {
        let v1::SelectedPush { selector, except_sessions, envelope } = push;
        let (Some(selector), Some(envelope)) = (self.selector(&selector), envelope) else { return };
        let except: HashSet<String> = except_sessions.into_iter().collect();
        let pick = move |member: &Member| {
            !except.contains(member.session.as_str())
                && selector.as_ref().is_none_or(|selector| selector.matches(&member.facts.lock().tags))
        };
        let run = self.pushed(envelope, reply_to).only(Box::new(pick));
        let run = self.spread(&self.everyone, |_| run).await;
        self.report(run).await;
    }

    /// A push on its way to those whom it is for.
    fn pushed(&self, mut envelope: v1::Envelope, reply_to: Option<Subject>) -> Box<Run> {
        let (span, catalogue) = (self.span(&mut envelope), self.schemas.current());
        let parcel = Parcel::delivery(envelope, None, Overflow::Disconnect, &catalogue);
        Run::new(vec![Load::new(Arc::new(parcel), span, reply_to)], catalogue)
    }

    /// The selector in `text`, `Some(None)` if it is empty and picks all; `None` if it cannot be read.
    pub(crate) fn selector(&self, text: &str) -> Option<Option<Arc<Selector>>> {
        if text.is_empty() {
            return Some(None);
        }
        let mut known = self.selectors.lock();
        if let Some(selector) = known.get(text) {
            return Some(Some(Arc::clone(selector)));
        }
        match Selector::parse(text) {
            Ok(selector) => {
                if known.len() >= SELECTORS_MAX {
                    known.clear();
                }
                let selector = Arc::new(selector);
                known.insert(text.to_owned(), Arc::clone(&selector));
                Some(Some(selector))
            }
            Err(error) => {
                self.metrics.malformed.inc();
                tracing::warn!(%error, "a message on the bus has a selector that cannot be read");
                None
            }
        }
    }
}
