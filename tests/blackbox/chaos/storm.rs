//! Two thousand clients lose their node at once and come to the others.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout;
use trestle_client::{Client, Event, Options, Outgoing, State, Subscription};

use super::{fleet::Fleet, speak::Comment};
use crate::support::metric;

/// Clients on the node that dies.
const CLIENTS: usize = 2_000;
/// Messages that are said while they are away.
const MISSED: u64 = 20;
/// Times that a node may read the log for a thousand clients: once for all who come while the room has what it read, and
/// again for those who come later on a slow machine.
const LOG_READS_MAX: f64 = 20.0;
const PATIENCE: Duration = Duration::from_secs(60);

async fn listener(url: &str) -> (Client, Subscription) {
    let options = Options { connect_timeout: PATIENCE, ..Options::default() };
    let client = Client::connect(url, options).await.expect("connected");
    let room = client.subscribe("room:1").await.expect("subscribed");
    (client, room)
}

/// The next comment's text.
async fn hear(room: &mut Subscription) -> String {
    match timeout(PATIENCE, room.next()).await.expect("in time") {
        Some(Event::Message(envelope)) => String::from_utf8(envelope.payload[2..].to_vec()).expect("text"),
        other => panic!("no message: {other:?}"),
    }
}

async fn log_reads(fleet: &Fleet) -> Vec<f64> {
    join_all(fleet.living().map(|node| metric(node, "trestle_hub_log_reads_total"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_come_back_at_once_and_miss_nothing() {
    // Of 2,000 clients in one process some answer late.
    let mut fleet = Fleet::start_with(false, "").await;
    let url = format!("ws://{}/ws", fleet.clients());
    let other = format!("ws://{}/ws", fleet.node(1).listen());
    fleet.only(0);
    let mut clients = Vec::new();
    while clients.len() < CLIENTS {
        clients.extend(join_all((0..100).map(|_| listener(&url))).await);
    }
    let (speaker, _) = listener(&other).await;
    let say = async |number: u64| {
        let message = Outgoing::of(&Comment { text: number.to_string() });
        speaker.publish("room:1", message).await.expect("published");
    };

    fleet.kill(0).await;
    let began = Instant::now();
    for number in 1..=MISSED {
        say(number).await;
    }
    let back = clients.iter().map(|(client, _)| async {
        let mut state = client.state();
        let back = state.wait_for(|state| *state == State::Connected { resumed: true });
        timeout(PATIENCE, back).await.expect("in time").expect("the client lives");
        began.elapsed()
    });
    let mut back = join_all(back).await;
    for (_, room) in &mut clients {
        for number in 1..=MISSED {
            assert_eq!(hear(room).await, number.to_string());
        }
    }
    let complete = began.elapsed();
    say(MISSED + 1).await;
    for (client, room) in &mut clients {
        assert_eq!(hear(room).await, (MISSED + 1).to_string());
        assert_ne!(client.session().node, "node-0");
    }
    back.sort();
    let reads = log_reads(&fleet).await;
    println!(
        "storm: {CLIENTS} clients back on two nodes: half after {:.1?}, all after {:.1?}, with all {MISSED} missed messages \
         read after {complete:.1?}; log reads by node {reads:?}; resumes: {}",
        back[CLIENTS / 2],
        back[CLIENTS - 1],
        fleet.resumes().await,
    );
    assert!(reads.iter().all(|reads| *reads <= LOG_READS_MAX), "a log is read for many, not for each: {reads:?}");
}
