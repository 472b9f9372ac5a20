//! When a client comes back, with what, and when it does not.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Gateway, Peer, connected, quick, reason};
use trestle_client::{Client, Closed, Error, Event, Options, Reconnect, State, Token};
use trestle_wire::v1::{self, server_frame::Frame};

fn busy(millis: i32) -> Frame {
    Frame::Error(v1::Error {
        code: v1::Code::Unavailable.into(),
        reason: "too_busy".into(),
        retryable: true,
        retry_after: Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 }),
        ..Default::default()
    })
}

fn unauthenticated() -> Frame {
    Frame::Error(v1::Error {
        code: v1::Code::Unauthenticated.into(),
        reason: "token_expired".into(),
        ..Default::default()
    })
}

/// Refuses a connect.
async fn refuse(gateway: &Gateway, error: Frame, close: u16) -> v1::Connect {
    let mut peer = gateway.accept().await;
    let (id, connect) = peer.connect().await;
    peer.answer(id, error).await;
    peer.close(close, "refused").await;
    connect
}

/// Tokens with a number, and how many were asked for.
fn counted() -> (Token, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let token = Token::asked(move || {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok::<_, std::io::Error>(format!("token {number}")) }
    });
    (token, asked)
}

const WAIT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn the_gateways_word_comes_before_the_clients_own_wait() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    let mut pushes = client.deliveries().expect("the first to ask");
    // Said before the close.
    let begun = Instant::now();
    peer.send(vec![v1::ServerFrame { reply_to: 0, frame: Some(busy(300)) }]).await;
    assert!(matches!(pushes.next().await, Some(Event::Error(_))));
    peer.close(4003, "busy").await;
    let mut state = client.state();
    let waits = state.wait_for(|state| matches!(state, State::Waiting { .. })).await.expect("lives").clone();
    assert!(matches!(waits, State::Waiting { until } if until >= begun + WAIT), "{waits:?}");
    // Said by HTTP.
    gateway.http("HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n").await;
    assert!(begun.elapsed() >= WAIT);
    // Said in answer to the connect.
    refuse(&gateway, busy(300), 4003).await;
    assert!(begun.elapsed() >= WAIT + Duration::from_secs(1));
    let _peer = gateway.begin(connected()).await;
    assert!(begun.elapsed() >= WAIT + Duration::from_secs(1) + WAIT);
    state.wait_for(|state| matches!(state, State::Connected { .. })).await.expect("lives");
}

#[tokio::test]
async fn a_first_connection_waits_for_a_gateway_that_says_when() {
    let gateway = Gateway::start().await;
    let begun = Instant::now();
    let (client, _) = tokio::join!(Client::connect(&gateway.url, Options::default()), async {
        refuse(&gateway, busy(300), 4003).await;
        gateway.begin(connected()).await
    });
    assert!(client.is_ok() && begun.elapsed() >= WAIT, "{client:?}");

    let options = Options { connect_timeout: WAIT, ..Options::default() };
    let (client, _) = tokio::join!(Client::connect(&gateway.url, options), refuse(&gateway, busy(900), 4003));
    assert_eq!(reason(client), "too_busy", "if there is time for that");
}

#[tokio::test]
async fn close_codes_decide() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    for code in [1001, 1011, 1012, 1013, 4000, 4001, 4499] {
        peer.close(code, "come again").await;
        peer = gateway.begin(connected()).await.0;
    }
    peer.close(4503, "kicked").await;
    assert_eq!(client.closed().await, Closed { code: Some(4503), reason: "kicked".into() });
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let gateway = Gateway::start().await;
    let (token, asked) = counted();
    let (client, peer) = gateway.client(Options { token: Some(token), ..quick() }).await;
    peer.close(4500, "token expired").await;
    let (peer, connect) = gateway.begin(connected()).await;
    assert_eq!(connect.token, "token 2");
    // Each connection has its own; the resume says the rest.
    peer.cut();
    assert_eq!(refuse(&gateway, unauthenticated(), 4500).await.token, "token 3");
    assert_eq!(refuse(&gateway, unauthenticated(), 4500).await.token, "token 4");
    assert_eq!(client.closed().await.code, Some(4500), "twice in a row is enough");
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_refused_token_that_stays_the_same_is_the_end() {
    let gateway = Gateway::start().await;
    let same = Token::asked(|| async { Ok::<_, std::io::Error>("same".to_owned()) });
    for token in [same, "fixed".into()] {
        let (client, peer) = gateway.client(Options { token: Some(token), ..quick() }).await;
        peer.close(4500, "token expired").await;
        assert_eq!(client.closed().await.code, Some(4500));
    }
    let (client, peer) = gateway.client(quick()).await;
    let refused = async {
        peer.cut();
        refuse(&gateway, unauthenticated(), 4500).await
    };
    let (closed, _) = tokio::join!(client.closed(), refused);
    assert_eq!(closed.code, Some(4500));
}

#[tokio::test]
async fn without_a_token_to_be_had_the_client_waits_for_one() {
    let gateway = Gateway::start().await;
    let count = Arc::new(AtomicUsize::new(0));
    let asked = count.clone();
    let token = Token::asked(move || {
        let first = asked.fetch_add(1, Ordering::Relaxed);
        async move { if first == 1 { Err("the login is away") } else { Ok("token".to_owned()) } }
    });
    let (_client, peer) = gateway.client(Options { token: Some(token), ..quick() }).await;
    peer.cut();
    assert_eq!(gateway.begin(connected()).await.1.token, "token");
    assert_eq!(count.load(Ordering::Relaxed), 3);

    let none = Options { token: Some(Token::asked(|| async { Err::<String, _>("away") })), ..quick() };
    let error = Client::connect(&gateway.url, none).await.expect_err("no token");
    assert!(matches!(&error, Error::Token(cause) if cause.to_string() == "away"), "{error}");
}

#[tokio::test]
async fn all_endpoints_get_their_turn() {
    let (one, two) = (Gateway::start().await, Gateway::start().await);
    let nobody = {
        let gone = Gateway::start().await;
        gone.url.clone()
    };
    let options = Options { endpoints: vec![two.url.clone(), nobody], ..quick() };
    let either = |connected: v1::Connected| {
        let (one, two) = (&one, &two);
        async move {
            tokio::select! {
                begun = one.begin(connected.clone()) => (1, begun.0),
                begun = two.begin(connected.clone()) => (2, begun.0),
            }
        }
    };
    let (client, (first, peer)) = tokio::join!(Client::connect(&one.url, options), either(connected()));
    let client = client.expect("one of three is enough");
    peer.cut();
    let (second, peer) = either(connected()).await;
    assert_ne!(first, second, "in turn");
    peer.cut();
    let (third, _peer) = either(connected()).await;
    assert_eq!(first, third);
    drop(client);
}

#[tokio::test]
async fn a_resume_that_is_refused_as_a_whole_is_not_asked_for_again() {
    let gateway = Gateway::start().await;
    let (_client, peer) = gateway.client(quick()).await;
    peer.cut();
    let malformed = Frame::Error(v1::Error { reason: "malformed_frame".into(), ..Default::default() });
    assert!(refuse(&gateway, malformed, 1002).await.resume.is_some());
    assert!(gateway.begin(connected()).await.1.resume.is_none());
}

async fn gone(gateway: Gateway, peer: Peer) {
    drop(gateway);
    peer.cut();
}

#[tokio::test]
async fn a_client_gives_up_when_it_was_told_to() {
    let gateway = Gateway::start().await;
    let give_up = Some(Duration::from_millis(100));
    let reconnect = Reconnect { base: Duration::from_millis(10), cap: Duration::from_millis(20), give_up };
    let (client, peer) = gateway.client(Options { reconnect: Some(reconnect), ..Options::default() }).await;
    gone(gateway, peer).await;
    let closed = client.closed().await;
    assert!(closed.reason.contains("cannot connect"), "{closed}");
}

#[tokio::test]
async fn a_client_without_a_connection_can_be_closed() {
    let gateway = Gateway::start().await;
    let slow = Reconnect { base: Duration::from_secs(3600), cap: Duration::from_secs(3600), give_up: None };
    let (client, peer) = gateway.client(Options { reconnect: Some(slow), ..Options::default() }).await;
    let mut pushes = client.deliveries().expect("the first to ask");
    gone(gateway, peer).await;
    let waits = client.send(trestle_client::Outgoing::new("A", ""));
    let close = async {
        let mut state = client.state();
        state.wait_for(|state| matches!(state, State::Waiting { .. })).await.expect("lives");
        client.close().await
    };
    let (waited, closed) = tokio::join!(waits, close);
    assert_eq!(closed.code, Some(1000));
    assert!(matches!(waited, Err(Error::Closed(how)) if how == closed));
    assert_eq!(pushes.next().await, None);
}
