//! All nodes are restarted under traffic, one after the other (SIGTERM).

use super::{
    fleet::{Fleet, NODES},
    run::Run,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_costs_nothing() {
    let mut run = Run::start("rolling restart", Fleet::start().await).await;
    run.breaks();
    for at in 0..NODES {
        run.fleet.stop(at).await;
        run.fleet.begin(at).await;
        run.flows(100).await;
    }
    let verdict = run.finish().await;
    assert!(verdict.gaps.is_empty(), "it costs nothing, not even what has no history: {:#?}", verdict.gaps);
}
