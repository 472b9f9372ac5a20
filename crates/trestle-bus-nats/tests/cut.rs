//! What is true for a node that is cut off NATS, while NATS and the other nodes go on.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use trestle_bus::{BusError, BusState, Fabric, Heard, LogSpec, Subject, promise::log_spec};
use trestle_bus_nats::{Nats, NatsConfig};
use trestle_testkit::{Cut, CutMode, NatsServer};

const PATIENCE: Duration = Duration::from_secs(30);

/// Three unanswered signs of life, 2 s apart, and a busy machine.
const NOTICED_MAX: Duration = Duration::from_secs(12);

fn subject(text: &str) -> Subject {
    Subject::from_trusted(text)
}

async fn state(fabric: &Fabric, is: impl FnMut(&BusState) -> bool) -> BusState {
    let mut state = fabric.bus.state();
    *timeout(PATIENCE, state.wait_for(is)).await.expect("the state changes").expect("the bus lives")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_hears_that_it_missed_something_and_reads_it() {
    let server = NatsServer::start().await.expect("starts");
    let cut = Cut::before(&[server.address()]).await.expect("opens");
    let node = Nats::connect(NatsConfig::new(cut.nats_url())).await.expect("connects");
    let other = Nats::connect(NatsConfig::new(server.url())).await.expect("connects");
    let spec = LogSpec { republish: Some(("t.log".into(), "t.ch".into())), ..log_spec("LOG", &["t.log.>"]) };
    node.log.ensure(&spec).await.expect("makes the log");
    let at = subject("t.log.a");
    let append = async |what: &str| other.log.append(&at, None, what.to_owned().into()).await.expect("appends").offset;
    let mut live = node.bus.subscribe(&subject("t.ch.a"), None).await.expect("subscribes");
    let mut keys = node.kv.watch("node.").await.expect("watches");
    for (round, mode) in [CutMode::Reset, CutMode::Stall].into_iter().enumerate() {
        append("before").await;
        let heard = timeout(PATIENCE, live.next()).await.expect("it is heard");
        let Some(Heard::Message(before)) = heard else { panic!("{heard:?}") };
        let before = before.place.expect("from the log").offset;

        cut.cut(mode).await.expect("is cut");
        let began = Instant::now();
        state(&node, |state| *state == BusState::Away).await;
        let noticed = began.elapsed();
        println!("{mode:?} noticed after {noticed:?}");
        assert!(noticed < NOTICED_MAX, "{mode:?}: {noticed:?}");
        let refused = node.bus.publish(&subject("t.ch.a"), "x".into()).await;
        assert!(matches!(refused, Err(BusError::Away)), "{refused:?}");
        let missed = append("missed").await;
        let revision = other.kv.put(&format!("node.{round}"), "up".into(), None).await.expect("puts");

        cut.mend().await.expect("is mended");
        let again = state(&node, |state| matches!(state, BusState::Connected(_))).await;
        assert_eq!(again, BusState::Connected(round as u64 + 2));
        let heard = timeout(PATIENCE, live.next()).await.expect("it is heard");
        assert!(matches!(heard, Some(Heard::Lost(0))), "{mode:?}: {heard:?}");
        let read = node.log.read("LOG", &at, before + 1, 10).await.expect("reads");
        assert_eq!(read.iter().map(|stored| stored.offset).collect::<Vec<_>>(), [missed]);
        let event = timeout(PATIENCE, keys.recv()).await.expect("it is heard").expect("the watch goes on");
        assert_eq!(event.entry.map(|entry| entry.revision), Some(revision));
    }
}
