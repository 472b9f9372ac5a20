//! Three nats-servers of which one dies, and a node that is cut off from them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::broadcast::error::TryRecvError,
    task::JoinSet,
    time::{Instant, sleep},
};
use trestle_bus::Fabric;
use trestle_bus_nats::{Nats, NatsConfig};
use trestle_cluster::{ClaimRefused, ClusterConfig, FIRST_EPOCH, NodeChange, Registry, Ticket};
use trestle_testkit::{Cut, CutMode, NatsCluster, NatsServer};
use trestle_wire::{Tags, v1};

use crate::{node, open, presence, registry::registry, session, soon, until};

/// As the defaults, at a third of their length.
fn thirds() -> ClusterConfig {
    ClusterConfig {
        heartbeat_interval: Duration::from_secs(1),
        node_timeout: Duration::from_secs(4),
        ..ClusterConfig::default()
    }
}

async fn connect(url: String, replicas: usize) -> Fabric {
    let config = NatsConfig { replicas, request_timeout: Duration::from_secs(1), ..NatsConfig::new(url) };
    Nats::connect(config).await.expect("connects")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_dead_because_a_server_of_three_died() {
    let mut cluster = NatsCluster::start().await.expect("starts");
    let (one, other) = (connect(cluster.url(), 3).await, connect(cluster.url(), 3).await);
    let a = open(&one, "a", thirds()).await.expect("starts");
    let b = open(&other, "b", thirds()).await.expect("starts");
    until(async || (a.lives(&node("b")) && b.lives(&node("a"))).then_some(())).await;
    let (mut of_a, mut of_b) = (a.changes(), b.changes());
    while of_a.try_recv().is_ok() || of_b.try_recv().is_ok() {}
    let leader = cluster.leader_of("KV_TRESTLE").await.expect("leads");
    cluster.kill(leader).await.expect("is killed");
    let killed = SystemTime::now();
    for (here, there) in [(&a, "b"), (&b, "a")] {
        // Until a heartbeat is stored that was sent after all that the death delayed.
        let late = killed + thirds().node_timeout * 2;
        until(async || {
            let info = here.alive().into_iter().find(|info| info.node == there)?;
            (SystemTime::try_from(info.heartbeat?).ok()? > late).then_some(())
        })
        .await;
    }
    assert_eq!(of_a.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(of_b.try_recv(), Err(TryRecvError::Empty));
    drop(b);
    assert_eq!(soon(of_a.recv()).await.expect("is told"), NodeChange::Down(node("b")));
}

/// Sessions that are claimed by two nodes all the time while a server dies: no token serves twice, and every session goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_serves_twice_while_a_server_dies() {
    const SESSIONS: usize = 8;
    let mut cluster = NatsCluster::start().await.expect("starts");
    let (one, other) = (connect(cluster.url(), 3).await, connect(cluster.url(), 3).await);
    let (a, b) = (registry(&one, "a").await, registry(&other, "b").await);
    let leader = cluster.leader_of("KV_TRESTLE").await.expect("leads");
    let mut walks = JoinSet::new();
    for n in 0..SESSIONS {
        walks.spawn(walk(n, [Arc::clone(&a), Arc::clone(&b)], Instant::now() + Duration::from_secs(12)));
    }
    sleep(Duration::from_secs(2)).await; // in the middle
    cluster.kill(leader).await.expect("is killed");
    let walked: Vec<_> = soon(walks.join_all()).await;
    assert!(walked.iter().all(|claims| *claims >= 3), "{walked:?}");
}

/// Claims one session by every token in turn, on both nodes at once, until `end`; gives how often that went well.
async fn walk(n: usize, nodes: [Arc<Registry>; 2], end: Instant) -> usize {
    let (id, mut epoch, mut well) = (session("a", n), FIRST_EPOCH, 0);
    let [a, _] = &nodes;
    a.note(v1::SessionRecord { session_id: id.as_str().into(), ..v1::SessionRecord::default() });
    while Instant::now() < end {
        let now = SystemTime::now();
        let ticket = Ticket {
            session: id.clone(),
            epoch,
            begun: FIRST_EPOCH,
            issued: now,
            expires: now + Duration::from_secs(60),
            identity_expires: None,
            user: None,
            scopes: Vec::new(),
            groups: Vec::new(),
            tags: Tags::new(),
        };
        let (one, other) = tokio::join!(nodes[0].claim(&ticket, "client"), nodes[1].claim(&ticket, "client"));
        let given = [&one, &other].iter().filter(|claim| claim.is_ok()).count();
        assert!(given <= 1, "one token served twice: {one:?} {other:?}");
        let spent = [&one, &other].iter().any(|claim| matches!(claim, Err(ClaimRefused::Spent)));
        // A claim whose answer was lost may have spent the token, for nobody.
        if given == 1 || spent {
            epoch += 1;
            well += given;
        }
    }
    well
}

/// A node that is cut off for longer than its timeout is gone for the others with its members, and is back with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_comes_back_with_its_members() {
    let server = NatsServer::start().await.expect("starts");
    let cut = Cut::before(&[server.address()]).await.expect("opens");
    let (one, other) = (connect(server.url(), 1).await, connect(cut.nats_url(), 1).await);
    let (a, b) = (presence::start(&one, "a", thirds()).await, presence::start(&other, "b", thirds()).await);
    let (_here, _there) = (a.enter(1, None).await, b.enter(2, None).await);
    a.sees(&[1, 2]).await;
    b.sees(&[1, 2]).await;
    for mode in [CutMode::Reset, CutMode::Stall] {
        cut.cut(mode).await.expect("is cut");
        let began = Instant::now();
        a.sees(&[1]).await;
        let bound = thirds().node_timeout + Duration::from_secs(2);
        assert!(began.elapsed() <= bound, "{mode:?}: {:?}", began.elapsed());
        let _late = b.enter(3, None).await;
        cut.mend().await.expect("is mended");
        let began = Instant::now();
        a.sees(&[1, 2, 3]).await;
        eprintln!("{mode:?}: members are back after {:?}", began.elapsed());
        let state = until(async || b.presence.state(&presence::room()).await.ok().filter(|state| state.sessions == 3));
        let names: BTreeSet<_> = state.await.members.into_iter().map(|member| member.session_id).collect();
        assert!(names.contains(session("a", 1).as_str()), "whoever was cut off thought nobody dead");
        drop(_late);
        a.sees(&[1, 2]).await;
        b.sees(&[1, 2]).await;
    }
}
