//! What stands before the nodes: TCP in turn to those that take connections, as a simple load balancer does.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// One address for many nodes.
pub(super) struct Balancer {
    address: SocketAddr,
    nodes: Arc<Mutex<Vec<SocketAddr>>>,
    task: AbortHandle,
}

impl Balancer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let nodes = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let task = tokio::spawn(accept(listener, nodes.clone())).abort_handle();
        Self { address, nodes, task }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on new connections go to these.
    pub(super) fn set(&self, nodes: Vec<SocketAddr>) {
        *self.nodes.lock().unwrap() = nodes;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, nodes: Arc<Mutex<Vec<SocketAddr>>>) {
    let mut turn = 0;
    while let Ok((client, _)) = listener.accept().await {
        let mut order = nodes.lock().unwrap().clone();
        if !order.is_empty() {
            let first = turn % order.len();
            order.rotate_left(first);
        }
        turn += 1;
        tokio::spawn(pass(client, order));
    }
}

/// To the first node that takes the connection; to none if none does.
async fn pass(mut client: TcpStream, order: Vec<SocketAddr>) {
    for node in order {
        if let Ok(mut node) = TcpStream::connect(node).await {
            let (_, _) = (client.set_nodelay(true), node.set_nodelay(true));
            // One side that breaks breaks the other.
            let _ended = copy_bidirectional(&mut client, &mut node).await;
            return;
        }
    }
}
