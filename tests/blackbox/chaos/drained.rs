//! A node is drained under traffic.

use super::{fleet::Fleet, run::Run};
use crate::sessions::trestle;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_gateway_costs_nothing_by_command() {
    let mut run = Run::start("gateway drained", Fleet::start().await).await;
    run.breaks();
    let (done, said) = trestle(run.fleet.node(1), &["drain", "node-0"]).await;
    assert!(done, "{said}");
    run.fleet.ended(0).await;
    run.flows(150).await;
    let verdict = run.finish().await;
    assert!(verdict.gaps.is_empty(), "a drain costs nothing, not even what has no history: {:#?}", verdict.gaps);
}
