//! The way to another connection before the old one ends.

mod common;

use std::time::{Duration, Instant};

use common::{Gateway, Peer, accepted, connected, delivery, offset, quick, subscribed};
use futures_util::SinkExt as _;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use trestle_client::{Client, Closed, Outgoing, State};
use trestle_wire::v1::{self, client_frame::Frame as Ask, server_frame::Frame};

fn draining(endpoint: &str, millis: i32) -> v1::ServerFrame {
    let reconnect_after = Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 });
    let notice = v1::DrainNotice { endpoint: endpoint.into(), reconnect_after, deadline: None };
    v1::ServerFrame { reply_to: 0, frame: Some(Frame::Draining(notice)) }
}

fn moved(received: u64) -> v1::Connected {
    let there = v1::Subscribed { channel: "room:1".into(), recovered: true, offset: 6 };
    v1::Connected { resumed: true, received, subscriptions: vec![there], node: "other".into(), ..connected() }
}

/// Answers the question by which the client knows that all before it was read.
async fn settle(peer: &mut Peer) {
    let v1::ClientFrame { id, frame: Some(Ask::Ping(_)) } = peer.next().await else { panic!("no ping") };
    peer.answer(id, Frame::Pong(v1::Pong {})).await;
}

async fn arrives(client: &Client) {
    let mut state = client.state();
    state.wait_for(|state| *state == State::Connected { resumed: true }).await.expect("the client lives");
}

#[tokio::test]
async fn the_session_is_elsewhere_before_its_connection_ends() {
    let (gateway, other) = (Gateway::start().await, Gateway::start().await);
    let (client, mut old) = gateway.client(quick()).await;
    let mut room = subscribed(&client, &mut old, "room:1").await;
    let mut states = client.state();
    states.mark_unchanged();
    let told = Instant::now();
    old.send(vec![draining(&other.url, 200), delivery("room:1", 7)]).await;

    let mut new = other.accept().await;
    assert!(told.elapsed() >= Duration::from_millis(200), "not before it was asked to");
    settle(&mut old).await;
    let (id, connect) = new.connect().await;
    let resume = connect.resume.expect("a resume");
    assert_eq!(resume.received, Some(4), "subscribed, draining, a message, pong");
    // What still comes on the old one is replayed by the count.
    old.send(vec![delivery("room:1", 8)]).await;
    let (sent, late) = tokio::join!(client.send(Outgoing::new("A", "")), async {
        new.answer(id, Frame::Connected(moved(4))).await;
        new.send(vec![delivery("room:1", 8), delivery("room:1", 9)]).await;
        let late = new.next().await;
        new.answer(late.id, accepted(0)).await;
        late
    });
    assert!(
        sent.is_ok() && matches!(late.frame, Some(Ask::Message(_))),
        "what was begun meanwhile goes to the new one"
    );
    assert_eq!(offset(room.next().await), 7);
    assert_eq!((offset(room.next().await), offset(room.next().await)), (8, 9));
    assert_eq!(client.session().node, "other");
    arrives(&client).await;
    assert_eq!(*states.borrow_and_update(), State::Connected { resumed: true }, "and was never without one");

    // It is the gateway that closes the old one.
    old.close(4502, "moved").await;
    let (closed, code) = tokio::join!(client.close(), new.closed());
    assert_eq!((closed.code, code), (Some(1000), Some(1000)));
}

#[tokio::test]
async fn on_the_way_nothing_is_acked_that_the_resume_does_not_count() {
    let gateway = Gateway::start().await;
    let (client, mut old) = gateway.client(quick()).await;
    old.send(vec![draining("", 0)]).await;
    let mut new = gateway.accept().await;
    settle(&mut old).await;
    let (id, connect) = new.connect().await;
    assert_eq!(connect.resume.expect("a resume").received, Some(2));
    // The pong to this would say that three frames have come.
    old.send(vec![delivery("", 0)]).await;
    old.socket.send(Message::Ping(3_u64.to_be_bytes().to_vec().into())).await.expect("the client is there");
    let pong = timeout(Duration::from_millis(100), old.message()).await;
    assert!(pong.is_err(), "{pong:?}");
    new.answer(id, Frame::Connected(moved(2))).await;
    arrives(&client).await;
    old.close(4502, "moved").await;
}

#[tokio::test]
async fn while_there_is_no_other_connection_the_old_one_goes_on() {
    let (gateway, other) = (Gateway::start().await, Gateway::start().await);
    let (client, mut old) = gateway.client(quick()).await;
    let mut room = subscribed(&client, &mut old, "room:1").await;
    old.send(vec![draining(&other.url, 0)]).await;
    // The first try is refused, the second breaks off when the session is already on its way.
    other.http("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let mut second = gateway.accept().await;
    settle(&mut old).await;
    let (_, connect) = second.connect().await;
    assert_eq!(connect.resume.expect("a resume").received, Some(3));
    second.cut();
    old.send(vec![delivery("room:1", 7)]).await;
    assert_eq!(offset(room.next().await), 7);
    let mut third = gateway.accept().await;
    settle(&mut old).await;
    let (id, connect) = third.connect().await;
    assert_eq!(connect.resume.expect("a resume").received, Some(5));
    third.answer(id, Frame::Connected(moved(5))).await;
    third.send(vec![delivery("room:1", 8)]).await;
    assert_eq!(offset(room.next().await), 8);
}

#[tokio::test]
async fn a_move_whose_answer_was_lost_does_not_end_the_client() {
    let gateway = Gateway::start().await;
    let (client, mut old) = gateway.client(quick()).await;
    old.send(vec![draining("", 0)]).await;
    let mut new = gateway.accept().await;
    settle(&mut old).await;
    new.connect().await;
    // The gateway has taken the resume, but its answer does not arrive.
    new.cut();
    let _next_try = gateway.accept().await;
    old.close(4502, "moved").await;
    let (_peer, connect) = gateway.begin(connected()).await;
    assert!(connect.resume.is_some(), "asks to go on");
    assert_eq!(client.session().session_id, "n.1");
}

#[tokio::test]
async fn a_connection_that_somebody_else_has_taken_over_is_the_end() {
    let gateway = Gateway::start().await;
    let (client, peer) = gateway.client(quick()).await;
    peer.close(4502, "moved").await;
    assert_eq!(client.closed().await, Closed { code: Some(4502), reason: "moved".into() });
}

#[tokio::test]
async fn what_was_written_to_the_old_connection_is_answered_on_the_new_one() {
    let gateway = Gateway::start().await;
    let (client, mut old) = gateway.client(quick()).await;
    let ask = client.request(Outgoing::new("PAY", ""), Duration::from_secs(10));
    let go = async {
        let asked = old.next().await.id;
        old.send(vec![draining("", 0)]).await;
        let mut new = gateway.accept().await;
        settle(&mut old).await;
        let (id, connect) = new.connect().await;
        assert_eq!(connect.resume.expect("a resume").outstanding, [asked]);
        new.answer(id, Frame::Connected(moved(2))).await;
        new.answer(asked, Frame::Reply(v1::Envelope::default())).await;
        new
    };
    let (reply, _new) = tokio::join!(ask, go);
    assert!(reply.is_ok(), "{reply:?}");
}
