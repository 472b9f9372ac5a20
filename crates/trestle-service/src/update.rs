//! Groups and tags of sessions, changed by services.

use tonic::transport::Channel;
use trestle_wire::v1::{self, bridge_client::BridgeClient};

use crate::{PushError, Target};

/// A change of the groups and tags of sessions.
///
/// ```
/// use trestle_service::Update;
///
/// let update = Update::new().join("vips").set("plan", "pro").remove("trial");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "an update changes nothing until it is sent"]
pub struct Update(v1::UpdateSessionsRequest);

impl Update {
    /// An update that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the sessions into a group.
    pub fn join(mut self, group: impl Into<String>) -> Self {
        self.0.join_groups.push(group.into());
        self
    }

    /// Takes the sessions out of a group; a session that a claim or a rule puts there stays.
    pub fn leave(mut self, group: impl Into<String>) -> Self {
        self.0.leave_groups.push(group.into());
        self
    }

    /// Sets a tag of the sessions.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.set_tags.insert(key.into(), value.into());
        self
    }

    /// Removes a tag of the sessions.
    pub fn remove(mut self, key: impl Into<String>) -> Self {
        self.0.remove_tags.push(key.into());
        self
    }

    /// Asks for it; returns how many sessions have it.
    pub(crate) async fn send(self, mut client: BridgeClient<Channel>, target: Target) -> Result<u32, PushError> {
        let request = v1::UpdateSessionsRequest { target: Some(target.into()), ..self.0 };
        Ok(client.update_sessions(request).await?.into_inner().sessions)
    }
}
