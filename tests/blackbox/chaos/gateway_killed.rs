//! A node is killed (SIGKILL) under traffic.

use super::{fleet::Fleet, run::Run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_costs_nothing_that_was_acked() {
    let mut run = Run::start("gateway killed", Fleet::start().await).await;
    run.breaks();
    run.fleet.kill(0).await;
    run.flows(300).await;
    run.finish().await;
}
