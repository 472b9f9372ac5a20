//! A node is cut off from NATS for a while, and its clients stay with it.

use std::time::Duration;

use tokio::time::sleep;
use trestle_testkit::CutMode;

use super::{
    fleet::{Fleet, QUICK_PINGS},
    run::Run,
};

/// How long the cables are pulled.
const AWAY: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_cut_off_reads_what_it_missed() {
    let mut run = Run::start("gateway cut off for 20 s", Fleet::start_with(true, QUICK_PINGS).await).await;
    run.breaks();
    run.fleet.cut.as_ref().expect("asked for").cut(CutMode::Stall).await.expect("cut");
    sleep(AWAY).await;
    run.fleet.cut.as_ref().expect("asked for").mend().await.expect("mended");
    run.flows(300).await;
    run.finish().await;
}
