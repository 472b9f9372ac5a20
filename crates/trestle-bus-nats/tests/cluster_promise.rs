//! NATS keeps the promise with three replicas: the suite against a cluster of three real nats-servers.
//!
//! Starting a cluster takes seconds, so tests that run at the same time share one, each in an account of its own.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, Weak},
};

use tokio::runtime::Runtime;
use trestle_bus::Fabric;
use trestle_bus_nats::{Nats, NatsConfig};
use trestle_testkit::NatsCluster;

/// Accounts of one cluster: more than there are promises.
const ACCOUNTS: usize = 100;

/// A cluster that lives as long as some test uses it, on a runtime of its own, as a test's ends with it.
struct Shared {
    urls: Vec<String>,
    next: Mutex<usize>,
    cluster: Option<NatsCluster>,
    runtime: Option<Runtime>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.cluster.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

fn start() -> Shared {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut accounts = String::from("accounts {\n");
    for at in 0..ACCOUNTS {
        writeln!(accounts, "A{at} {{ jetstream: enabled, users: [{{ user: u{at}, password: p }}] }}").expect("fits");
    }
    accounts.push('}');
    let cluster = runtime.block_on(NatsCluster::start_with(&accounts)).expect("the cluster starts");
    let urls = (0..NatsCluster::SERVERS).map(|at| cluster.server(at).address().to_string()).collect();
    Shared { urls, next: Mutex::new(0), cluster: Some(cluster), runtime: Some(runtime) }
}

/// The cluster, and the number of an account that nobody else has.
fn shared() -> (Arc<Shared>, usize) {
    let mut held = SHARED.lock().expect("no test fails in here");
    let shared = held.upgrade().unwrap_or_else(|| {
        let shared = Arc::new(start());
        *held = Arc::downgrade(&shared);
        shared
    });
    let mut next = shared.next.lock().expect("no test fails in here");
    *next += 1;
    assert!(*next <= ACCOUNTS, "more tests than accounts");
    let account = *next - 1;
    drop(next);
    (shared, account)
}

async fn on_cluster() -> (Fabric, Arc<Shared>) {
    let (shared, account) = tokio::task::spawn_blocking(shared).await.expect("starts");
    let servers: Vec<_> = shared.urls.iter().map(|address| format!("nats://u{account}:p@{address}")).collect();
    let config = NatsConfig { queue_messages_max: 8_000, replicas: 3, ..NatsConfig::new(servers.join(",")) };
    (Nats::connect(config).await.expect("connects"), shared)
}

trestle_bus::promise_suite!(on_cluster);
