//! Tokens, identities, permissions; says yes or no, and why.
//!
//! [`Gate`] turns a token into an [`Identity`]; [`Channels`] says what an identity may do on a channel. Neither does I/O
//! once it is open, so a session can ask them in the middle of a decision.

mod channels;
mod claims;
mod gate;
mod inbox;

pub use channels::{Channels, ChannelsConfig, History, Namespace, OverflowPolicy, Who};
pub use gate::{AuthConfig, AuthError, Gate};
pub use inbox::InboxConfig;

use std::time::SystemTime;

use trestle_wire::{GroupName, Reason, Refusal, Tags, UserId};

/// Who a session is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The authenticated subject; `None` for an anonymous client.
    pub user: Option<UserId>,
    /// What the token grants.
    pub scopes: Vec<String>,
    /// The groups that its sessions are in, each once.
    pub groups: Vec<GroupName>,
    /// The tags that its sessions begin with.
    pub tags: Tags,
    /// When its token expires; `None` for an anonymous client.
    pub expires: Option<SystemTime>,
}

impl Identity {
    /// Whether this identity has every one of `scopes`.
    ///
    /// # Errors
    /// [`Reason::MissingScope`], naming those it lacks.
    pub fn has_scopes(&self, scopes: &[String]) -> Result<(), Refusal> {
        let missing: Vec<&str> =
            scopes.iter().filter(|scope| !self.scopes.contains(scope)).map(String::as_str).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Refusal::new(Reason::MissingScope, format!("the token lacks the scope {}", missing.join(" and "))))
    }
}
