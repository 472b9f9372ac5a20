//! The client against a gateway that says what the test wants, over a real socket.

mod common;

use std::time::Duration;

use common::{Gateway, LONG, accepted, delivery, offset, reason, refusal, subscribed};
use trestle_client::{Client, Closed, Error, Event, Options, Outgoing};
use trestle_wire::v1::{self, client_frame::Frame as Ask, server_frame::Frame};

#[tokio::test]
async fn a_session_begins_with_the_token_and_the_headers_of_the_options() {
    let gateway = Gateway::start().await;
    let options = Options { headers: vec![("origin".into(), "http://here".into())], ..Options::with_token("abc") };
    let begin = async {
        let mut peer = gateway.accept().await;
        let v1::ClientFrame { id, frame: Some(Ask::Connect(connect)) } = peer.next().await else { panic!() };
        peer.answer(id, Frame::Connected(v1::Connected { user: "ann".into(), ..common::connected() })).await;
        (connect.token, peer.headers)
    };
    let (client, (token, headers)) = tokio::join!(Client::connect(&gateway.url, options), begin);
    assert_eq!(client.expect("a session").session().user, "ann");
    assert_eq!(token, "abc");
    assert_eq!(headers["sec-websocket-protocol"], "trestle.v1.proto");
    assert_eq!(headers["origin"], "http://here");
}

#[tokio::test]
async fn a_refused_token_is_the_gateways_own_error() {
    let gateway = Gateway::start().await;
    let refuse = async {
        let mut peer = gateway.accept().await;
        let id = peer.next().await.id;
        peer.answer(id, refusal("token_expired")).await;
        peer
    };
    let (client, _peer) = tokio::join!(Client::connect(&gateway.url, Options::with_token("old")), refuse);
    assert_eq!(reason(client), "token_expired");
}

#[tokio::test]
async fn what_is_no_gateway_is_told_apart() {
    let gateway = Gateway::start().await;
    let refuse = gateway.http("HTTP/1.1 403 Forbidden\r\ncontent-length: 13\r\n\r\norigin_denied");
    let (client, ()) = tokio::join!(Client::connect(&gateway.url, Options::default()), refuse);
    match client {
        Err(Error::Upgrade { status: 403, body, retry_after: None }) => assert_eq!(body, "origin_denied"),
        other => panic!("{other:?}"),
    }

    let nobody = gateway.url.clone();
    drop(gateway);
    for url in [nobody.as_str(), "http//no", "ftp://127.0.0.1/"] {
        let error = Client::connect(url, Options::default()).await.expect_err(url);
        assert!(matches!(&error, Error::Connect { url: at, .. } if at == url), "{error:?}");
    }
}

#[tokio::test]
async fn answers_find_their_askers_in_whatever_order_they_come() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(Options::default()).await;
    let answer = async {
        let first = peer.next().await;
        let second = peer.next().await;
        let frame = |id, offset| v1::ServerFrame { reply_to: id, frame: Some(accepted(offset)) };
        peer.send(vec![frame(second.id, 2), frame(99_999, 9), frame(first.id, 1)]).await;
        (first.frame, second.frame)
    };
    let one = Outgoing::new("A", "1").version("2.0").traceparent("00-ab-cd-01");
    let two = Outgoing::new("B", "2").id("mine");
    let (first, second, (sent, published)) =
        tokio::join!(client.send(one.clone()), client.publish("room:1", two.clone()), answer);
    assert_eq!((first.expect("accepted").offset, second.expect("accepted").offset), (1, 2));
    assert_eq!(sent, Some(Ask::Message(one.envelope().clone())));
    assert_eq!(one.envelope().headers["traceparent"], "00-ab-cd-01");
    let message = Some(two.envelope().clone());
    assert_eq!(published, Some(Ask::Publish(v1::Publish { channel: "room:1".into(), message })));
}

#[tokio::test]
async fn a_request_brings_the_reply_or_the_refusal() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(Options::default()).await;
    let ask = client.request(Outgoing::new("GET_QUOTE", "a1"), Duration::from_millis(2500));
    let reply = async {
        let v1::ClientFrame { id, frame: Some(Ask::Request(request)) } = peer.next().await else { panic!() };
        assert_eq!(request.timeout, Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }));
        peer.answer(id, Frame::Reply(v1::Envelope { message_type: "shop.v1.Quote".into(), ..Default::default() }))
            .await;
    };
    assert_eq!(tokio::join!(ask, reply).0.expect("a reply").message_type, "shop.v1.Quote");

    let ask = client.request(Outgoing::new("GET_QUOTE", "a1"), LONG);
    let refuse = async {
        let id = peer.next().await.id;
        peer.answer(id, refusal("no_instance")).await;
    };
    assert_eq!(reason(tokio::join!(ask, refuse).0), "no_instance");
}

#[tokio::test]
async fn each_subscription_gets_its_channel_and_pushes_go_their_own_way() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(Options::default()).await;
    let mut one = subscribed(&client, &mut peer, "room:1").await;
    let mut two = subscribed(&client, &mut peer, "room:2").await;
    let mut again = client.subscribe("room:2").await.expect("the same channel");
    let mut pushes = client.deliveries().expect("the first to ask");
    assert!(client.deliveries().is_none());
    assert_eq!(one.offset(), 6);

    let gap = v1::Gap { channel: "room:1".into(), from: 8, to: 9, count: 2, reason: v1::GapReason::Failover.into() };
    let told = v1::ServerFrame { reply_to: 0, frame: Some(Frame::Gap(gap.clone())) };
    let fault = v1::ServerFrame { reply_to: 0, frame: Some(refusal("too_many_faults")) };
    peer.send(vec![delivery("room:1", 7), delivery("room:2", 7), told, delivery("room:9", 5)]).await;
    peer.send(vec![delivery("room:1", 10), delivery("", 3), fault]).await;

    assert_eq!(offset(one.next().await), 7);
    assert_eq!(one.next().await, Some(Event::Gap(gap)));
    assert_eq!(offset(one.next().await), 10);
    assert_eq!((offset(two.next().await), offset(again.next().await)), (7, 7));
    assert_eq!(offset(pushes.next().await), 3);
    assert!(matches!(pushes.next().await, Some(Event::Error(error)) if error.reason == "too_many_faults"));
}

#[tokio::test]
async fn a_program_that_does_not_read_keeps_its_answers_and_learns_what_it_missed() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(Options { queue_messages_max: 2, ..Options::default() }).await;
    let mut room = subscribed(&client, &mut peer, "room:1").await;
    peer.send((7..=1007).map(|offset| delivery("room:1", offset)).collect()).await;
    let pong = async {
        let id = peer.next().await.id;
        peer.answer(id, Frame::Pong(v1::Pong {})).await;
    };
    tokio::join!(client.ping(), pong).0.expect("answered past the unread messages");

    assert_eq!((offset(room.next().await), offset(room.next().await)), (7, 8));
    let Some(Event::Gap(gap)) = room.next().await else { panic!("no gap") };
    assert_eq!((gap.channel.as_str(), gap.from, gap.to, gap.count), ("room:1", 9, 1007, 999));
    peer.send(vec![delivery("room:1", 1008)]).await;
    assert_eq!(offset(room.next().await), 1008);
}

#[tokio::test]
async fn a_channel_is_left_with_its_last_subscription() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(Options::default()).await;
    let one = subscribed(&client, &mut peer, "room:1").await;
    let two = client.subscribe("room:1").await.expect("without a word to the gateway");
    assert_eq!(two.offset(), 6);
    one.unsubscribe().await.expect("the other still listens");
    drop(two);
    let v1::ClientFrame { id, frame } = peer.next().await;
    assert_eq!(frame, Some(Ask::Unsubscribe(v1::Unsubscribe { channel: "room:1".into() })));
    peer.answer(id, Frame::Unsubscribed(v1::Unsubscribed { channel: "room:1".into() })).await;

    let three = subscribed(&client, &mut peer, "room:1").await;
    let leave = async {
        let id = peer.next().await.id;
        peer.answer(id, Frame::Unsubscribed(v1::Unsubscribed { channel: "room:1".into() })).await;
    };
    tokio::join!(three.unsubscribe(), leave).0.expect("left");
}

#[tokio::test]
async fn a_refused_subscription_leaves_nothing_behind() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(Options::default()).await;
    let refuse = async {
        let id = peer.next().await.id;
        peer.answer(id, refusal("channel_subscribe")).await;
    };
    assert_eq!(reason(tokio::join!(client.subscribe("room:1"), refuse).0), "channel_subscribe");
    drop(client);
    assert_eq!(peer.closed().await, Some(1000), "and not an unsubscribe before that");
}

#[tokio::test]
async fn when_the_gateway_closes_everyone_who_waits_is_told_how() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(Options::default()).await;
    let mut room = subscribed(&client, &mut peer, "room:1").await;
    let close = async {
        peer.next().await;
        peer.send(vec![delivery("room:1", 7)]).await;
        peer.close(4500, "token expired").await;
    };
    let (sent, ()) = tokio::join!(client.send(Outgoing::new("A", "")), close);
    let closed = Closed { code: Some(4500), reason: "token expired".into() };
    assert!(matches!(sent, Err(Error::Closed(how)) if how == closed));
    assert!(!closed.reconnect());
    assert_eq!(client.closed().await, closed);
    assert_eq!(offset(room.next().await), 7);
    assert_eq!(room.next().await, None);
    assert!(matches!(client.ping().await, Err(Error::Closed(how)) if how == closed));
}

#[tokio::test]
async fn a_connection_that_breaks_is_worth_another() {
    let gateway = Gateway::start().await;
    let (client, peer) = gateway.client(Options { reconnect: None, ..Options::default() }).await;
    drop(peer);
    let closed = client.closed().await;
    assert_eq!(closed.code, None);
    assert!(closed.reconnect(), "{closed}");
}

#[tokio::test]
async fn a_client_says_goodbye() {
    let gateway = Gateway::start().await;
    let (client, peer) = gateway.client(Options::default()).await;
    let (closed, code) = tokio::join!(client.close(), peer.closed());
    assert_eq!((closed.code, code), (Some(1000), Some(1000)));
    assert!(matches!(client.send(Outgoing::new("A", "")).await, Err(Error::Closed(_))));

    let (client, mut peer) = gateway.client(Options::default()).await;
    let room = subscribed(&client, &mut peer, "room:1").await;
    drop(client);
    peer.send(vec![delivery("room:1", 7)]).await;
    let mut room = room;
    assert_eq!(offset(room.next().await), 7, "a subscription keeps the connection");
    drop(room);
    peer.next().await; // unsubscribe
    assert_eq!(peer.closed().await, Some(1000));
}

#[tokio::test]
async fn a_frame_larger_than_the_gateway_takes_is_not_sent() {
    let gateway = Gateway::start().await;
    let (client, peer) = gateway.client(Options::default()).await;
    let error = client.send(Outgoing::new("A", vec![0; 1000])).await.expect_err("too large");
    assert!(matches!(error, Error::TooLarge { bytes: 1001.., max: 1000 }), "{error}");
    drop(client);
    assert_eq!(peer.closed().await, Some(1000));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for_longer_than_said() {
    let gateway = Gateway::start().await;
    let patience = Duration::from_secs(40);
    let (client, _peer) = gateway.client(Options { answer_timeout: patience, ..Options::default() }).await;
    tokio::time::pause(); // the clock jumps whenever everyone waits
    assert!(matches!(client.send(Outgoing::new("A", "")).await, Err(Error::Timeout(after)) if after == patience));
}

#[tokio::test]
async fn a_gateway_that_falls_silent_is_given_up() {
    let gateway = Gateway::start().await;
    let (client, _peer) = gateway.client(Options { reconnect: None, ..Options::default() }).await;
    tokio::time::pause();
    let closed = client.closed().await;
    assert!(closed.reason.contains("nothing heard for 60s"), "{closed}"); // 2 x 25 s + 10 s
    assert!(closed.reconnect());
}

#[tokio::test]
async fn a_gateway_that_sends_garbage_is_given_up() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(Options { reconnect: None, ..Options::default() }).await;
    peer.text("{}").await;
    assert!(client.closed().await.reason.contains("no frame"));
}
