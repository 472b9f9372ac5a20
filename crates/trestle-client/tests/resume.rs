//! A session over several connections, against a gateway that says what the test wants.

mod common;

use std::time::Duration;

use common::{Gateway, Peer, accepted, connected, delivery, offset, quick, subscribed};
use trestle_client::{Client, Error, Event, Options, Outgoing, State};
use trestle_wire::v1::{self, client_frame::Frame as Ask, server_frame::Frame};

fn error(reason: &str) -> Frame {
    Frame::Error(v1::Error { reason: reason.into(), retryable: true, ..Default::default() })
}

/// The next `connected`, which goes on with the session.
fn resumed(received: u64, channels: &[&str]) -> v1::Connected {
    let there = |channel: &&str| v1::Subscribed { channel: (*channel).into(), recovered: true, offset: 7 };
    let subscriptions = channels.iter().map(there).collect();
    v1::Connected { resumed: true, received, subscriptions, resume_token: "token 2".into(), ..connected() }
}

/// The next state that is none of those on the way to a connection.
async fn settled(client: &Client) -> State {
    let mut state = client.state();
    let settled = state.wait_for(|state| matches!(state, State::Connected { .. } | State::Closed(_))).await;
    settled.expect("the client lives").clone()
}

fn numbered(id: u64) -> v1::ServerFrame {
    let envelope = v1::Envelope { id: id.to_string(), ..Default::default() };
    v1::ServerFrame { reply_to: 0, frame: Some(Frame::Delivery(envelope)) }
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_the_session_goes_on() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    assert_eq!(settled(&client).await, State::Connected { resumed: false });
    let mut room = subscribed(&client, &mut peer, "room:1").await;
    peer.send(vec![delivery("room:1", 7)]).await;
    assert_eq!(offset(room.next().await), 7);
    let ask = client.request(Outgoing::new("GET_QUOTE", "a1"), Duration::from_secs(10));
    let go_on = async {
        let asked = peer.next().await.id;
        peer.cut();
        let (mut peer, connect) = gateway.begin(resumed(2, &["room:1"])).await;
        let resume = connect.resume.expect("a resume");
        assert_eq!((resume.session_id.as_str(), resume.token.as_str(), resume.received), ("n.1", "token 1", Some(2)));
        assert_eq!(resume.channels, [v1::Position { channel: "room:1".into(), offset: 7 }]);
        assert_eq!(resume.outstanding, [asked]);
        let reply = v1::ServerFrame { reply_to: asked, frame: Some(Frame::Reply(v1::Envelope::default())) };
        peer.send(vec![delivery("room:1", 8), reply, delivery("room:1", 9)]).await;
        peer
    };
    let (reply, mut peer) = tokio::join!(ask, go_on);
    assert!(reply.is_ok(), "the answer came over the other connection: {reply:?}");
    assert_eq!((offset(room.next().await), offset(room.next().await)), (8, 9));
    assert_eq!(settled(&client).await, State::Connected { resumed: true });
    assert_eq!(client.session().resume_token, "token 2");

    // The next resume counts on from what `connected` said.
    peer.send(vec![delivery("room:1", 10)]).await;
    assert_eq!(offset(room.next().await), 10);
    peer.cut();
    let (_peer, connect) = gateway.begin(resumed(6, &["room:1"])).await;
    let resume = connect.resume.expect("a resume");
    assert_eq!((resume.token.as_str(), resume.received), ("token 2", Some(6)));
}

#[tokio::test]
async fn what_was_sent_is_repeated_under_its_id_until_it_is_accepted() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    let one = Outgoing::new("A", "1");
    let id = one.envelope().id.clone();
    let again = async {
        assert!(matches!(peer.next().await.frame, Some(Ask::Message(message)) if message.id == id));
        peer.cut();
        // The first new session is lost before it answers, the second is refused for the moment.
        let (mut peer, _) = gateway.begin(connected()).await;
        assert!(matches!(peer.next().await.frame, Some(Ask::Message(message)) if message.id == id));
        peer.cut();
        let (mut peer, _) = gateway.begin(connected()).await;
        let asked = peer.next().await;
        assert!(matches!(asked.frame, Some(Ask::Message(message)) if message.id == id));
        peer.answer(asked.id, error("bus_away")).await;
        let asked = peer.next().await;
        assert!(matches!(asked.frame, Some(Ask::Message(message)) if message.id == id));
        peer.answer(asked.id, accepted(3)).await;
        peer
    };
    let (sent, _peer) = tokio::join!(client.send(one), again);
    assert_eq!(sent.expect("accepted").offset, 3);
}

#[tokio::test]
async fn a_request_is_repeated_only_if_that_does_no_harm() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    let once = client.request(Outgoing::new("PAY", ""), Duration::from_secs(10));
    let often = client.request(Outgoing::new("GET_QUOTE", "").idempotent(), Duration::from_secs(10));
    let lose = async {
        let ids = [peer.next().await.id, peer.next().await.id];
        peer.cut();
        let (mut peer, connect) = gateway.begin(resumed(0, &[])).await;
        assert_eq!(connect.resume.expect("a resume").outstanding, ids);
        for id in ids {
            peer.answer(id, error("answer_lost")).await;
        }
        let v1::ClientFrame { id, frame: Some(Ask::Request(request)) } = peer.next().await else { panic!() };
        assert_eq!(request.message.expect("a message").message_type, "GET_QUOTE");
        peer.answer(id, Frame::Reply(v1::Envelope::default())).await;
        peer
    };
    let (once, often, peer) = tokio::join!(once, often, lose);
    assert_eq!(common::reason(once), "answer_lost");
    assert!(often.is_ok(), "{often:?}");

    // A new session knows nothing of it.
    let mut peer = peer;
    let ask = client.request(Outgoing::new("PAY", ""), Duration::from_secs(10));
    let lose = async {
        peer.next().await;
        peer.cut();
        gateway.begin(connected()).await
    };
    let (lost, _peer) = tokio::join!(ask, lose);
    assert!(matches!(lost, Err(Error::Closed(_))), "{lost:?}");
}

#[tokio::test]
async fn a_new_session_goes_on_where_the_program_was_and_tells_what_it_cannot_know() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    let mut room = subscribed(&client, &mut peer, "room:1").await;
    let mut pushes = client.deliveries().expect("the first to ask");
    peer.send(vec![delivery("room:1", 7)]).await;
    assert_eq!(offset(room.next().await), 7);
    peer.cut();
    let (mut peer, _) = gateway.begin(v1::Connected { session_id: "m.1".into(), ..connected() }).await;
    let v1::ClientFrame { id, frame: Some(Ask::Subscribe(subscribe)) } = peer.next().await else { panic!() };
    assert_eq!(subscribe.from, Some(v1::subscribe::From::Offset(7)));
    peer.answer(id, Frame::Subscribed(v1::Subscribed { channel: "room:1".into(), recovered: true, offset: 12 })).await;
    // Some were had before, and something is missing that the gateway does not tell.
    let missing = v1::ServerFrame {
        reply_to: 0,
        frame: Some(Frame::Delivery(v1::Envelope {
            channel: "room:1".into(),
            offset: 12,
            prev_offset: 10,
            ..Default::default()
        })),
    };
    peer.send(vec![delivery("room:1", 7), delivery("room:1", 8), delivery("room:1", 8), missing]).await;
    assert_eq!(offset(room.next().await), 8);
    let gap = v1::Gap { from: 9, to: 10, reason: v1::GapReason::Failover.into(), channel: "room:1".into(), count: 0 };
    assert_eq!(room.next().await, Some(Event::Gap(gap)));
    assert_eq!(offset(room.next().await), 12);
    let gap = v1::Gap { reason: v1::GapReason::Failover.into(), ..Default::default() };
    assert_eq!(pushes.next().await, Some(Event::Gap(gap)));
    assert_eq!(client.session().session_id, "m.1");
    assert_eq!(settled(&client).await, State::Connected { resumed: false });

    // Where it may no longer listen, the subscription says so and ends.
    peer.cut();
    let (mut peer, _) = gateway.begin(v1::Connected { session_id: "l.1".into(), ..connected() }).await;
    let id = peer.next().await.id;
    peer.answer(id, common::refusal("channel_subscribe")).await;
    assert!(matches!(room.next().await, Some(Event::Error(error)) if error.reason == "channel_subscribe"));
    assert_eq!(room.next().await, None);
}

#[tokio::test]
async fn what_has_come_is_acked_after_256_frames() {
    let gateway = Gateway::start().await;
    let (_client, mut peer) = gateway.client(quick()).await;
    peer.send((0..256).map(numbered).collect()).await;
    let ack = Some(Ask::Ack(v1::ClientAck { received: 256, inbox_offset: 0 }));
    assert_eq!(peer.next().await, v1::ClientFrame { id: 0, frame: ack });
}

/// A gateway that keeps a session's frames, and writes to each connection only some of what is still to come.
async fn cut_at_random(gateway: &Gateway, mut peer: Peer, frames: u64) {
    let (mut written, mut count) = (0, 0);
    while count < frames {
        let most = (frames - written).min(40);
        let some = fastrand::u64(0..=most);
        let mut next: Vec<_> = (written..written + some).map(numbered).collect();
        while !next.is_empty() {
            let later = next.split_off(fastrand::usize(1..=next.len()));
            peer.send(next).await;
            next = later;
        }
        written += some;
        match fastrand::u8(0..4) {
            0 => peer.reset(),
            1 => peer.break_off().await,
            _ => peer.cut(),
        }
        let mut next = gateway.accept().await;
        let (id, connect) = next.connect().await;
        count = connect.resume.expect("a resume").received.expect("counts");
        assert!(count <= written, "counts what was never written");
        next.answer(id, Frame::Connected(resumed(count, &[]))).await;
        (peer, written) = (next, count);
    }
    peer.close(4503, "done").await;
}

#[tokio::test]
async fn over_random_cuts_each_message_comes_once_and_in_order() {
    const MESSAGES: u64 = 2_000;
    let gateway = Gateway::start().await;
    let (client, peer) = gateway.client(Options { queue_messages_max: MESSAGES as usize, ..quick() }).await;
    let mut pushes = client.deliveries().expect("the first to ask");
    let read = async {
        let mut ids = Vec::new();
        while let Some(event) = pushes.next().await {
            match event {
                Event::Message(envelope) => ids.push(envelope.id.parse::<u64>().expect("a number")),
                other => panic!("{other:?}"),
            }
        }
        ids
    };
    let (ids, ()) = tokio::join!(read, cut_at_random(&gateway, peer, MESSAGES));
    assert_eq!(ids, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(client.closed().await.code, Some(4503));
}
