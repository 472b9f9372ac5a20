//! A nats-server of three is killed (SIGKILL) under traffic.

use trestle_testkit::NatsCluster;

use super::{fleet::Fleet, run::Run};

/// The stream that holds the history of `room`.
const HISTORY: &str = "TRESTLE_CH_ROOM";

/// Kills a server, as far behind the leader of the history as said, and brings it back.
async fn killed(name: &'static str, behind: usize) {
    let mut run = Run::start(name, Fleet::start().await).await;
    let leader = run.fleet.nats.leader_of(HISTORY).await.expect("somebody leads it");
    let at = (leader + behind) % NatsCluster::SERVERS;
    run.breaks_the_bus();
    run.fleet.nats.kill(at).await.expect("killed");
    run.flows(300).await;
    run.fleet.nats.restart(at).await.expect("it comes back");
    run.flows(150).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_a_history_is_killed_and_nothing_that_was_acked_is_lost() {
    killed("leader of a history killed", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_is_killed_and_nothing_that_was_acked_is_lost() {
    killed("another nats-server killed", 1).await;
}
