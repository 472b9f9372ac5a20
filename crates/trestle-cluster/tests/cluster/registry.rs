//! Whose session it is.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prometheus_client::registry::Registry as Metrics;
use prost::Message as _;
use tokio::task::JoinSet;
use trestle_bus::{BusError, BusState, Fabric, logs};
use trestle_cluster::{ClaimRefused, FIRST_EPOCH, GRACE, Registry, RegistryParts, Ticket, TokenRefused};
use trestle_wire::{ChannelName, SessionId, Subjects, Tags, UserId, v1};

use crate::{Two, config, connect, embedded, node, on_both, session, soon, until};

on_both! {
    a_token_of_one_node_is_read_on_another
    of_many_claims_of_one_token_one_is_given
    a_session_goes_from_node_to_node_and_each_token_serves_once
    a_token_serves_again_while_its_client_was_not_heard
    what_is_noted_now_is_there_when_that_is_told
    what_is_noted_is_written_within_a_second_or_two
    what_another_node_has_claimed_is_not_overwritten
    without_a_record_only_a_young_first_token_is_believed
    no_token_of_an_ended_session_works
    the_end_of_a_session_that_has_gone_elsewhere_does_not_end_it
    a_parked_session_is_taken_once
    a_parked_session_that_is_too_large_is_shortened
    the_highest_inbox_ack_wins
    an_inbox_ack_goes_no_further_than_the_log_has_come
}

const WINDOW: Duration = Duration::from_secs(60);

pub(crate) async fn registry(fabric: &Fabric, name: &str) -> Arc<Registry> {
    let parts = RegistryParts {
        node: node(name),
        fabric: fabric.clone(),
        subjects: Subjects::new("trestle"),
        config: config(),
        resume_window: WINDOW,
        inbox_ttl: Duration::from_secs(3600),
        registry: &mut Metrics::default(),
    };
    Registry::open(parts).await.expect("opens")
}

async fn both(two: &Two) -> [Arc<Registry>; 2] {
    [registry(&two.a, "a").await, registry(&two.b, "b").await]
}

pub(crate) fn ticket(session: &SessionId, epoch: u64) -> Ticket {
    let now = SystemTime::now();
    Ticket {
        session: session.clone(),
        epoch,
        begun: FIRST_EPOCH,
        issued: now,
        expires: now + WINDOW,
        identity_expires: None,
        user: Some(UserId::parse("anna").expect("valid")),
        scopes: vec!["chat".into()],
        groups: Vec::new(),
        tags: Tags::new(),
    }
}

pub(crate) fn noted(session: &SessionId, epoch: u64, state: v1::SessionState) -> v1::SessionRecord {
    v1::SessionRecord {
        session_id: session.as_str().into(),
        epoch,
        state: state.into(),
        user: "anna".into(),
        subscriptions: vec!["room:1".into()],
        ..v1::SessionRecord::default()
    }
}

pub(crate) async fn stored(fabric: &Fabric, session: &SessionId) -> Option<v1::SessionRecord> {
    let entry = fabric.kv.get(&format!("session.{session}")).await.expect("reads")?;
    Some(v1::SessionRecord::decode(entry.value).expect("a record"))
}

async fn a_token_of_one_node_is_read_on_another(two: Two) {
    let [a, b] = both(&two).await;
    let ticket = ticket(&session("a", 1), 3);
    let token = a.issue(&ticket);
    assert_eq!(b.read(&token), Ok(ticket));
    let elsewhere = embedded().await;
    let stranger = registry(&elsewhere.a, "a").await;
    assert_eq!(stranger.read(&token), Err(TokenRefused::Forged));
}

async fn of_many_claims_of_one_token_one_is_given(two: Two) {
    let [a, b] = both(&two).await;
    for round in 0..20 {
        let id = session("a", round);
        let ticket = ticket(&id, FIRST_EPOCH);
        if round % 2 == 0 {
            a.note(noted(&id, FIRST_EPOCH, v1::SessionState::Active));
            a.flush().await;
        }
        let mut claims = JoinSet::new();
        for n in 0..24 {
            let (registry, ticket) = (Arc::clone([&a, &b][n % 2]), ticket.clone());
            claims.spawn(async move { registry.claim(&ticket, &format!("client-{n}")).await });
            if round % 3 == 0 {
                a.note(noted(&id, FIRST_EPOCH, v1::SessionState::Pending)); // while it is being claimed
            }
        }
        let mut given = Vec::new();
        while let Some(claim) = soon(claims.join_next()).await {
            match claim.expect("no panic") {
                Ok(claimed) => given.push(claimed),
                Err(ClaimRefused::Spent | ClaimRefused::Unheard { .. }) => {}
                Err(error) => panic!("round {round}: {error:?}"),
            }
        }
        assert_eq!(given.len(), 1, "round {round}");
        assert_eq!(given[0].epoch, FIRST_EPOCH + 1);
    }
}

/// Every token is tried on both nodes at once, many times, while the records are being written.
async fn a_session_goes_from_node_to_node_and_each_token_serves_once(two: Two) {
    let [a, b] = both(&two).await;
    let id = session("a", 1);
    a.note(noted(&id, FIRST_EPOCH, v1::SessionState::Active));
    for epoch in FIRST_EPOCH..FIRST_EPOCH + 20 {
        let ticket = ticket(&id, epoch);
        let mut claims = JoinSet::new();
        for registry in [&a, &b, &a, &b] {
            let (registry, ticket) = (Arc::clone(registry), ticket.clone());
            claims.spawn(async move {
                let claimed = registry.claim(&ticket, "client").await.ok()?;
                registry.note(noted(&ticket.session, claimed.epoch, v1::SessionState::Active));
                Some(claimed.epoch)
            });
        }
        let given: Vec<_> = soon(claims.join_all()).await.into_iter().flatten().collect();
        assert_eq!(given, [epoch + 1]);
        for registry in [&a, &b] {
            registry.flush().await;
        }
        for registry in [&a, &b] {
            assert!(matches!(registry.claim(&ticket, "late").await, Err(ClaimRefused::Spent)));
        }
    }
    assert_eq!(stored(&two.a, &id).await.expect("is there").epoch, FIRST_EPOCH + 20);
}

async fn a_token_serves_again_while_its_client_was_not_heard(two: Two) {
    let [a, b] = both(&two).await;
    let id = session("a", 1);
    a.note(noted(&id, FIRST_EPOCH, v1::SessionState::Active));
    a.flush().await;
    let first = ticket(&id, FIRST_EPOCH);
    b.claim(&first, "one").await.expect("given");
    // Also several times: `connected` may be lost again.
    for (registry, node, epoch) in [(&a, "b", 2), (&b, "a", 3)] {
        // Who was asked of the one before has to be asked again.
        for asked in 0..epoch {
            let Err(ClaimRefused::Unheard { node: at, epoch: now }) = registry.claim_again(&first, "two", asked).await
            else {
                panic!("not unheard of");
            };
            assert_eq!((at.as_str(), now), (node, epoch));
        }
        assert_eq!(registry.claim_again(&first, "two", epoch).await.expect("given").epoch, epoch + 1);
    }
    assert!(matches!(a.claim_again(&ticket(&id, 0), "x", 4).await, Err(ClaimRefused::Spent)), "nor do older ones");
    // The client speaks on the last of them.
    let heard = v1::SessionRecord { heard: 4, ..noted(&id, 4, v1::SessionState::Active) };
    assert!(soon(b.note_now(heard)).await.expect("written"));
    for registry in [&a, &b] {
        assert!(matches!(registry.claim_again(&first, "late", 4).await, Err(ClaimRefused::Spent)));
    }
    assert_eq!(a.claim(&ticket(&id, 4), "next").await.expect("given").epoch, 5);
}

async fn what_is_noted_now_is_there_when_that_is_told(two: Two) {
    let [a, b] = both(&two).await;
    let id = session("a", 1);
    for group in ["one", "two"] {
        let record =
            v1::SessionRecord { groups: vec![group.into()], ..noted(&id, FIRST_EPOCH, v1::SessionState::Active) };
        assert!(soon(a.note_now(record)).await.expect("written"));
        assert_eq!(stored(&two.b, &id).await.expect("is there").groups, [group]);
    }
    let claimed = b.claim(&ticket(&id, FIRST_EPOCH), "client").await.expect("given");
    assert_eq!(claimed.previous.expect("a record").groups, ["two"]);
    let late = a.note_now(noted(&id, FIRST_EPOCH, v1::SessionState::Active));
    assert!(!soon(late).await.expect("known"), "it has gone elsewhere");
    drop(soon(a.end(&id)).await);
    let ended = a.note_now(noted(&id, FIRST_EPOCH, v1::SessionState::Active));
    assert!(!soon(ended).await.expect("known"));
}

async fn what_is_noted_is_written_within_a_second_or_two(two: Two) {
    let a = registry(&two.a, "a").await;
    let ids: Vec<_> = (0..500).map(|n| session("a", n)).collect();
    for id in &ids {
        a.note(noted(id, FIRST_EPOCH, v1::SessionState::Active));
    }
    let began = std::time::Instant::now();
    until(async || stored(&two.b, &ids[499]).await).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    a.note(noted(&ids[0], FIRST_EPOCH, v1::SessionState::Pending));
    soon(a.flush()).await;
    for (n, id) in ids.iter().enumerate() {
        let record = stored(&two.b, id).await.expect("is there");
        let state = if n == 0 { v1::SessionState::Pending } else { v1::SessionState::Active };
        assert_eq!((record.state(), &*record.node, record.epoch), (state, "a", FIRST_EPOCH));
        assert_eq!(record.subscriptions, ["room:1"]);
        assert!(record.written.is_some());
    }
}

async fn what_another_node_has_claimed_is_not_overwritten(two: Two) {
    let [a, b] = both(&two).await;
    let id = session("a", 1);
    let mut lost = a.lost();
    a.note(noted(&id, FIRST_EPOCH, v1::SessionState::Active));
    a.flush().await;
    let claimed = b.claim(&ticket(&id, FIRST_EPOCH), "client").await.expect("is given");
    let previous = claimed.previous.expect("was written");
    assert_eq!((&*previous.node, previous.epoch, &*previous.user), ("a", FIRST_EPOCH, "anna"));
    assert_eq!(previous.subscriptions, ["room:1"]);
    a.note(noted(&id, FIRST_EPOCH, v1::SessionState::Pending));
    soon(a.flush()).await;
    assert_eq!(soon(lost.recv()).await.expect("is told"), id);
    let record = stored(&two.a, &id).await.expect("is there");
    assert_eq!((&*record.node, record.epoch, record.state()), ("b", FIRST_EPOCH + 1, v1::SessionState::Active));
    assert_eq!((&*record.address, record.subscriptions.len()), ("client", 1), "what was known is kept");
    b.note(noted(&id, claimed.epoch, v1::SessionState::Pending));
    soon(b.flush()).await;
    assert_eq!(stored(&two.a, &id).await.expect("is there").state(), v1::SessionState::Pending);
}

async fn without_a_record_only_a_young_first_token_is_believed(two: Two) {
    let [_, b] = both(&two).await;
    let young = ticket(&session("a", 1), FIRST_EPOCH);
    let old = Ticket { session: session("a", 2), issued: young.issued - GRACE, ..young.clone() };
    let later = Ticket { session: session("a", 3), epoch: FIRST_EPOCH + 1, ..young.clone() };
    let ahead = Ticket { session: session("a", 4), issued: young.issued + GRACE * 2, ..young.clone() };
    let over = Ticket { session: session("a", 5), expires: young.issued, ..young.clone() };
    for ticket in [old, later, ahead, over] {
        let refused = b.claim(&ticket, "client").await;
        assert!(matches!(refused, Err(ClaimRefused::Expired)), "{ticket:?}: {refused:?}");
    }
    let claimed = b.claim(&young, "client").await.expect("is given");
    assert_eq!((claimed.previous, claimed.epoch), (None, FIRST_EPOCH + 1));
    let record = stored(&two.a, &young.session).await.expect("is there");
    assert_eq!((&*record.user, &*record.node), ("anna", "b"));
}

async fn no_token_of_an_ended_session_works(two: Two) {
    let [a, b] = both(&two).await;
    // Written, not yet written, and never noted.
    for (n, wait) in [(1, true), (2, false), (3, false)] {
        let id = session("a", n);
        if n < 3 {
            a.note(noted(&id, FIRST_EPOCH, v1::SessionState::Active));
        }
        if wait {
            a.flush().await;
        }
        assert!(soon(a.end(&id)).await.expect("is written"), "it was this node's");
        for registry in [&a, &b] {
            let refused = registry.claim(&ticket(&id, FIRST_EPOCH), "client").await;
            assert!(matches!(refused, Err(ClaimRefused::Expired)), "{n}: {refused:?}");
        }
    }
    let id = session("a", 4);
    let claimed = b.claim(&ticket(&id, FIRST_EPOCH), "client").await.expect("is given");
    assert!(soon(b.end(&id)).await.expect("is written"));
    for epoch in [FIRST_EPOCH, claimed.epoch] {
        assert!(a.claim(&ticket(&id, epoch), "client").await.is_err());
    }
}

async fn the_end_of_a_session_that_has_gone_elsewhere_does_not_end_it(two: Two) {
    let [a, b] = both(&two).await;
    let id = session("a", 1);
    a.note(noted(&id, FIRST_EPOCH, v1::SessionState::Active));
    a.flush().await;
    let claimed = b.claim(&ticket(&id, FIRST_EPOCH), "client").await.expect("is given");
    assert!(!soon(a.end(&id)).await.expect("is known"), "it went elsewhere");
    a.claim(&ticket(&id, claimed.epoch), "client").await.expect("it lives, and comes back");
}

fn handover(id: &SessionId, frames: usize, bytes: usize) -> v1::Handover {
    v1::Handover {
        session_id: id.as_str().into(),
        first: 5,
        frames: vec![Bytes::from(vec![7; bytes]); frames],
        groups: vec!["staff".into()],
        ..v1::Handover::default()
    }
}

async fn a_parked_session_is_taken_once(two: Two) {
    let [a, b] = both(&two).await;
    let id = session("a", 1);
    assert_eq!(b.unpark(&id).await.expect("reads"), None);
    a.park(&handover(&id, 3, 10)).await.expect("is kept");
    assert_eq!(b.unpark(&id).await.expect("reads"), Some(handover(&id, 3, 10)));
    assert_eq!(b.unpark(&id).await.expect("reads"), None);
}

async fn a_parked_session_that_is_too_large_is_shortened(two: Two) {
    let [a, b] = both(&two).await;
    let id = session("a", 1);
    let frames = two.a.bus.payload_bytes_max() / 10_000 + 50;
    a.park(&handover(&id, frames, 10_000)).await.expect("is kept");
    let left = b.unpark(&id).await.expect("reads").expect("is there");
    let dropped = frames - left.frames.len();
    assert!((50..=52).contains(&dropped), "{dropped}");
    assert_eq!(left.first, 5 + dropped as u64, "the count says what is missing");
    let groups = vec!["g".repeat(100); two.a.bus.payload_bytes_max() / 100];
    let hopeless = v1::Handover { groups, ..handover(&id, 3, 10) };
    assert!(matches!(a.park(&hopeless).await, Err(BusError::TooLarge { .. })));
}

async fn the_highest_inbox_ack_wins(two: Two) {
    let [a, b] = both(&two).await;
    let user = UserId::parse("Anna Ö / .*>").expect("valid");
    fill_inbox(&two.a, &user, 30).await;
    assert_eq!(a.inbox_acked(&user).await.expect("reads"), 0);
    let mut acks = JoinSet::new();
    for n in 1..=30_u64 {
        let (registry, user) = (Arc::clone([&a, &b][usize::from(n % 2 == 0)]), user.clone());
        acks.spawn(async move { registry.ack_inbox(&user, n * 7 % 31).await.expect("is written") });
    }
    let answers: BTreeSet<_> = soon(acks.join_all()).await.into_iter().collect();
    assert_eq!(answers.last(), Some(&30));
    assert_eq!(b.inbox_acked(&user).await.expect("reads"), 30);
    assert_eq!(a.ack_inbox(&user, 29).await.expect("is read"), 30, "it never goes back");
}

/// Puts so many messages into the inbox of `user`; gives the offset of the last.
async fn fill_inbox(fabric: &Fabric, user: &UserId, count: usize) -> u64 {
    let subjects = Subjects::new("trestle");
    fabric.log.ensure(&logs::inbox(&subjects, 100, Duration::from_secs(3600))).await.expect("makes the log");
    let subject = subjects.log(&ChannelName::inbox(user));
    let mut last = 0;
    for _ in 0..count {
        last = fabric.log.append(&subject, None, Bytes::from_static(b"x")).await.expect("appends").offset;
    }
    last
}

async fn an_inbox_ack_goes_no_further_than_the_log_has_come(two: Two) {
    let [a, b] = both(&two).await;
    let (anna, bob) = (UserId::parse("anna").expect("valid"), UserId::parse("bob").expect("valid"));
    let anna_has = fill_inbox(&two.a, &anna, 3).await;
    let reached = fill_inbox(&two.a, &bob, 2).await;
    assert_eq!(a.ack_inbox(&anna, anna_has + 1000).await.expect("is written"), reached, "as far as the log has come");
    assert_eq!(b.inbox_acked(&anna).await.expect("reads"), reached);
    let later = fill_inbox(&two.a, &anna, 1).await;
    assert!(later > b.inbox_acked(&anna).await.expect("reads"), "what comes later is not taken for done");
    // Of a log that was lost.
    let key = format!("inbox.{}", base64(&bob));
    two.a.kv.put(&key, Bytes::from_static(b"1000000"), None).await.expect("puts");
    assert_eq!(b.inbox_acked(&bob).await.expect("reads"), 0);
    assert_eq!(b.ack_inbox(&bob, reached).await.expect("is written"), reached);
    assert_eq!(a.inbox_acked(&bob).await.expect("reads"), reached);
}

/// As keys carry users.
fn base64(user: &UserId) -> String {
    use ::base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(user.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_noted_while_the_bus_is_away_is_written_when_it_is_back() {
    let mut server = trestle_testkit::NatsServer::start().await.expect("starts");
    let fabric = connect(&server).await;
    let a = registry(&fabric, "a").await;
    let (kept, ended) = (session("a", 1), session("a", 2));
    a.note(noted(&kept, FIRST_EPOCH, v1::SessionState::Active));
    a.note(noted(&ended, FIRST_EPOCH, v1::SessionState::Active));
    a.flush().await;
    server.kill().await.expect("is killed");
    soon(fabric.bus.state().wait_for(|state| *state == BusState::Away)).await.expect("the bus lives");
    a.note(noted(&kept, FIRST_EPOCH, v1::SessionState::Pending));
    let end = tokio::spawn({
        let (a, ended) = (Arc::clone(&a), ended.clone());
        async move { a.end(&ended).await }
    });
    until(async || {
        matches!(a.claim(&ticket(&ended, FIRST_EPOCH), "x").await, Err(ClaimRefused::Expired)).then_some(())
    })
    .await; // known here at once
    let unknown = a.claim(&ticket(&kept, FIRST_EPOCH), "x").await;
    assert!(matches!(unknown, Err(ClaimRefused::Away(_))), "{unknown:?}");
    server.restart().await.expect("starts again");
    soon(a.flush()).await;
    soon(end).await.expect("no panic").expect("is written in the end");
    assert_eq!(stored(&fabric, &kept).await.expect("is there").state(), v1::SessionState::Pending);
    assert_eq!(stored(&fabric, &ended).await.expect("is there").state(), v1::SessionState::Expired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_break_a_node_learns_that_its_session_has_gone_elsewhere() {
    let mut server = trestle_testkit::NatsServer::start().await.expect("starts");
    let (one, other) = (connect(&server).await, connect(&server).await);
    let (a, b) = (registry(&one, "a").await, registry(&other, "b").await);
    let id = session("a", 1);
    let mut lost = a.lost();
    a.note(noted(&id, FIRST_EPOCH, v1::SessionState::Active));
    a.flush().await;
    b.claim(&ticket(&id, FIRST_EPOCH), "client").await.expect("is given");
    server.restart().await.expect("starts again");
    assert_eq!(soon(lost.recv()).await.expect("is told"), id);
}

#[tokio::test]
async fn a_secret_from_a_file_is_checked_and_shared() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    let open = |fabric: Fabric| {
        let config = trestle_cluster::ClusterConfig { resume_secret_file: Some(path.clone()), ..config() };
        async move {
            let parts = RegistryParts {
                node: node("a"),
                fabric,
                subjects: Subjects::new("trestle"),
                config,
                resume_window: WINDOW,
                inbox_ttl: WINDOW,
                registry: &mut Metrics::default(),
            };
            Registry::open(parts).await
        }
    };
    let (one, other) = (embedded().await, embedded().await);
    let missing = open(one.a.clone()).await.err().expect("there is none").to_string();
    assert!(missing.contains("cluster.resume_secret_file"), "{missing}");
    std::fs::write(&path, "short\n").expect("writes");
    let short = open(one.a.clone()).await.err().expect("too short").to_string();
    assert!(short.contains("5 bytes") && short.contains("32"), "{short}");
    std::fs::write(&path, "a secret that is long enough, really\n").expect("writes");
    let (here, there) = (open(one.a.clone()).await.expect("opens"), open(other.a.clone()).await.expect("opens"));
    let ticket = ticket(&session("a", 1), 1);
    assert_eq!(there.read(&here.issue(&ticket)), Ok(ticket));
    assert!(one.a.kv.get("key.resume").await.expect("reads").is_none(), "nothing is shared by the bus");
}
