//! Places in a channel's history, presence, inboxes and typed messages.

mod common;

use std::time::{Duration, SystemTime};

use common::{Gateway, Peer, delivery, offset, quick, subscribed};
use trestle_client::{Client, Error, Event, Listen, Outgoing, Page, Since, Subscription, Typed};
use trestle_wire::v1::{self, client_frame::Frame as Ask, read_history, server_frame::Frame, subscribe::From};

#[derive(Clone, PartialEq, prost::Message)]
struct Comment {
    #[prost(string, tag = 1)]
    text: String,
}

impl prost::Name for Comment {
    const NAME: &'static str = "Comment";
    const PACKAGE: &'static str = "chat.v1";
}

/// Answers the next question, and what that was.
async fn answer(peer: &mut Peer, frame: Frame) -> Ask {
    let asked = peer.next().await;
    peer.answer(asked.id, frame).await;
    asked.frame.expect("a frame")
}

async fn listening(client: &Client, peer: &mut Peer, listen: Listen) -> (Subscription, v1::Subscribe) {
    let agreed = Frame::Subscribed(v1::Subscribed { channel: "room:1".into(), recovered: true, offset: 9 });
    let (subscription, asked) = tokio::join!(client.listen("room:1", listen), answer(peer, agreed));
    let Ask::Subscribe(subscribe) = asked else { panic!("{asked:?}") };
    (subscription.expect("subscribed"), subscribe)
}

async fn left(subscription: Subscription, peer: &mut Peer) {
    let agreed = Frame::Unsubscribed(v1::Unsubscribed { channel: subscription.channel().into() });
    tokio::join!(subscription.unsubscribe(), answer(peer, agreed)).0.expect("left");
}

#[tokio::test]
async fn listening_begins_where_the_program_wants() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
    let since = prost_types::Timestamp { seconds: 1, nanos: 500_000_000 };
    for (wanted, from) in [
        (Since::Now, None),
        (Since::Offset(0), Some(From::Offset(0))),
        (Since::Last(20), Some(From::Last(20))),
        (Since::Time(time), Some(From::Since(since))),
    ] {
        let (subscription, asked) = listening(&client, &mut peer, Listen::since(wanted)).await;
        assert_eq!((asked.from, asked.presence), (from, false));
        assert!(subscription.recovered());
        left(subscription, &mut peer).await;
    }
    let (_subscription, _) = listening(&client, &mut peer, Listen::default()).await;
    let twice = client.listen("room:1", Listen::since(Since::Last(1))).await;
    assert!(matches!(twice, Err(Error::AlreadySubscribed { channel }) if channel == "room:1"));
    let twice = client.listen("room:1", Listen::default().presence()).await;
    assert!(matches!(twice, Err(Error::AlreadySubscribed { .. })));
}

#[tokio::test]
async fn who_comes_and_goes_is_an_event_and_who_is_there_an_answer() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    let (mut room, asked) = listening(&client, &mut peer, Listen::default().presence()).await;
    assert!(asked.presence);
    let ann = v1::PresenceMember { session_id: "n.2".into(), user: "ann".into() };
    let event =
        v1::PresenceEvent { channel: "room:1".into(), joined: vec![ann.clone()], sessions: 2, ..Default::default() };
    peer.send(vec![v1::ServerFrame { reply_to: 0, frame: Some(Frame::PresenceEvent(event.clone())) }]).await;
    assert_eq!(room.next().await, Some(Event::Presence(event)));

    let state = v1::PresenceState { channel: "room:1".into(), sessions: 2, members: vec![ann], ..Default::default() };
    let (there, asked) = tokio::join!(client.presence("room:1"), answer(&mut peer, Frame::Presence(state.clone())));
    assert_eq!(there.expect("an answer"), state);
    assert_eq!(asked, Ask::Presence(v1::ReadPresence { channel: "room:1".into() }));
}

#[tokio::test]
async fn history_is_read_page_by_page() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    for (page, asked) in
        [(Page::After(7), read_history::Page::After(7)), (Page::Before(0), read_history::Page::Before(0))]
    {
        let answered = v1::HistoryPage { channel: "room:1".into(), more: true, offset: 9, ..Default::default() };
        let history = client.history("room:1", page, 20);
        let (history, ask) = tokio::join!(history, answer(&mut peer, Frame::History(answered.clone())));
        assert_eq!(history.expect("an answer"), answered);
        assert_eq!(ask, Ask::History(v1::ReadHistory { channel: "room:1".into(), page: Some(asked), limit: 20 }));
    }
}

#[tokio::test]
async fn an_inbox_is_acked_and_goes_on_after_what_was_read() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    let agreed = Frame::Subscribed(v1::Subscribed { channel: "inbox:ann".into(), recovered: true, offset: 9 });
    let (inbox, asked) = tokio::join!(client.inbox(), answer(&mut peer, agreed));
    let mut inbox = inbox.expect("subscribed");
    assert_eq!(asked, Ask::Subscribe(v1::Subscribe { channel: "inbox".into(), ..Default::default() }));
    peer.send(vec![delivery("inbox:ann", 4), delivery("inbox:ann", 5)]).await;
    assert_eq!((offset(inbox.next().await), offset(inbox.next().await)), (4, 5));

    // The ack is repeated over a cut.
    let ack = Some(Ask::Ack(v1::ClientAck { received: 3, inbox_offset: 4 }));
    let cut = async {
        assert_eq!(peer.next().await.frame, ack);
        peer.cut();
        let (mut peer, connect) = gateway.begin(common::connected()).await;
        let position = v1::Position { channel: "inbox:ann".into(), offset: 5 };
        assert_eq!(connect.resume.expect("a resume").channels, [position]);
        let v1::ClientFrame { id, frame: Some(Ask::Subscribe(subscribe)) } = peer.next().await else { panic!() };
        assert_eq!((subscribe.channel.as_str(), subscribe.from), ("inbox", Some(From::Offset(5))));
        peer.answer(id, Frame::Subscribed(v1::Subscribed { channel: "inbox:ann".into(), recovered: true, offset: 9 }))
            .await;
        let ack = answer(&mut peer, Frame::Accepted(v1::Accepted::default())).await;
        assert!(matches!(ack, Ask::Ack(ack) if ack.inbox_offset == 4));
        peer.send(vec![delivery("inbox:ann", 6)]).await;
        peer
    };
    let (acked, _peer) = tokio::join!(inbox.ack(4), cut);
    acked.expect("taken");
    assert_eq!(offset(inbox.next().await), 6);
}

#[tokio::test]
async fn messages_are_read_as_their_types() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = gateway.client(quick()).await;
    let mut room = subscribed(&client, &mut peer, "room:1").await;
    let hi = Comment { text: "hi".into() };
    let of = |message_type: &str, payload: &'static [u8]| v1::Envelope {
        channel: "room:1".into(),
        message_type: message_type.into(),
        payload: payload.into(),
        ..Default::default()
    };
    let comment = v1::Envelope { channel: "room:1".into(), ..Outgoing::of(&hi).envelope().clone() };
    let (broken, other) = (of("chat.v1.Comment", &[0x0a, 9]), of("chat.v1.Like", &[]));
    let frames = [&comment, &broken, &other]
        .map(|envelope| v1::ServerFrame { reply_to: 0, frame: Some(Frame::Delivery(envelope.clone())) });
    peer.send(frames.into()).await;
    assert_eq!(room.next_as::<Comment>().await, Some(Typed::Message(hi.clone(), comment.clone())));
    assert!(matches!(room.next_as::<Comment>().await, Some(Typed::Malformed(envelope, _)) if envelope == broken));
    assert_eq!(room.next_as::<Comment>().await, Some(Typed::Other(Event::Message(other.clone()))));

    let patience = Duration::from_secs(2);
    let ask = client.request_as::<Comment>(Outgoing::of(&hi), patience);
    let (reply, _) = tokio::join!(ask, answer(&mut peer, Frame::Reply(comment)));
    assert_eq!(reply.expect("a reply"), hi);
    for wrong in [broken, other] {
        let ask = client.request_as::<Comment>(Outgoing::of(&hi), patience);
        let (reply, _) = tokio::join!(ask, answer(&mut peer, Frame::Reply(wrong)));
        assert!(matches!(&reply, Err(Error::Reply { expected, .. }) if expected == "chat.v1.Comment"), "{reply:?}");
    }
}
