//! Nodes that leave in order.

use super::fleet::Fleet;

impl Fleet {
    /// Stops a node in order (SIGTERM); the balancer learns of it only when it is gone.
    pub(super) async fn stop(&mut self, at: usize) {
        self.remember(at).await;
        let status = self.nodes[at].take().expect("it runs").terminate().await.expect("it ends");
        assert!(status.success(), "node-{at} stopped with {status}");
        self.balance();
    }

    /// Waits until a node has ended by itself.
    pub(super) async fn ended(&mut self, at: usize) {
        let mut node = self.nodes[at].take().expect("it runs");
        let status = node.process().ended().await.expect("it ends");
        assert!(status.success(), "node-{at} stopped with {status}: {}", node.output());
        self.balance();
    }
}
