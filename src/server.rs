//! A server of this node: a task that is not to end before it is told to.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::{task::JoinHandle, time::timeout};

/// A server, and how it ended once it has.
pub(crate) struct Server {
    name: &'static str,
    task: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Server {
    /// Runs `serving`; `name` is what messages call it.
    pub(crate) fn start(
        name: &'static str,
        serving: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        Self { name, task: Some(tokio::spawn(serving)) }
    }

    /// One that this node does not have.
    pub(crate) fn none(name: &'static str) -> Self {
        Self { name, task: None }
    }

    /// Waits, for ever where all is well, until it has ended by itself; says why.
    pub(crate) async fn died(&mut self) -> anyhow::Error {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = task.await;
        self.task = None;
        match ended.map_err(anyhow::Error::from).flatten() {
            Ok(()) => anyhow!("{} has ended by itself", self.name),
            Err(error) => error.context(format!("{} died", self.name)),
        }
    }

    /// Waits until it has ended after it was told to, for `patience` at most; what is left then is cut.
    ///
    /// # Errors
    /// Why it died, unless [`Server::died`] has said so before.
    pub(crate) async fn ended(self, patience: Duration) -> anyhow::Result<()> {
        let Some(task) = self.task else { return Ok(()) };
        let cut = task.abort_handle();
        match timeout(patience, task).await {
            Ok(ended) => ended.map_err(anyhow::Error::from).flatten().with_context(|| format!("{} died", self.name)),
            Err(_) => {
                cut.abort();
                tracing::warn!(server = self.name, "what it still had in flight is cut off at the deadline");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_server_that_ends_by_itself_says_why() {
        let mut failed = Server::start("HTTP", async { Err(anyhow!("no socket").context("accept")) });
        assert_eq!(format!("{:#}", failed.died().await), "HTTP died: accept: no socket");
        assert!(failed.ended(PATIENCE).await.is_ok(), "it is said once");
        let mut gone = Server::start("gRPC", async { Ok(()) });
        assert_eq!(format!("{:#}", gone.died().await), "gRPC has ended by itself");
        let mut bug = Server::start("gRPC", async { panic!("a bug") });
        let said = format!("{:#}", bug.died().await);
        assert!(said.starts_with("gRPC died: task") && said.contains("a bug"), "{said}");
    }

    #[tokio::test]
    async fn a_server_that_fails_while_it_stops_says_so_too() {
        let server = Server::start("gRPC", async { Err(anyhow!("no socket")) });
        let error = server.ended(PATIENCE).await.expect_err("it failed");
        assert_eq!(format!("{error:#}"), "gRPC died: no socket");
        assert!(Server::none("gRPC").ended(PATIENCE).await.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_does_not_end_in_time_is_cut() {
        let (alive, mut cut) = tokio::sync::oneshot::channel::<()>();
        let server = Server::start("HTTP", async move {
            let _alive = alive;
            std::future::pending().await
        });
        assert!(server.ended(Duration::from_millis(20)).await.is_ok());
        assert!((&mut cut).await.is_err(), "its task is gone");
    }
}
