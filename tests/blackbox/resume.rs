//! A client loses its connection and goes on with its session: on the same node here, between nodes in `moving`.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use trestle_testkit::Gateway;

use crate::{
    service::{Instance, envelope},
    support::{EXAMPLES, QUOTE, Stay, Ws, comment, file, gateway, metric, number, push, quiet, text, until},
};

mod moving;

/// A sample of the metrics: sessions that wait for their clients.
const PENDING: &str = "trestle_edge_pending";

/// Listens to a channel with a history and to one without.
async fn listener(gateway: &Gateway) -> Ws {
    let mut ws = Ws::on(gateway, "room:1").await;
    assert!(ws.ask(json!({"id": 3, "subscribe": {"channel": "live:1"}})).await["subscribed"].is_object());
    ws
}

/// Publishes one comment on each of the two channels.
async fn say(ws: &mut Ws, text: &str) {
    ws.publish("room:1", text).await;
    ws.publish("live:1", text).await;
}

/// Reads until both channels have said the last of `texts`: of each, these and no others have come, in this order. Gives what
/// else came.
async fn hears(ws: &mut Ws, texts: &[&str]) -> Vec<Value> {
    hears_each(ws, texts, texts).await
}

/// As [`hears`], with other texts for each channel. Of different channels the order is not promised.
async fn hears_each(ws: &mut Ws, room: &[&str], live: &[&str]) -> Vec<Value> {
    let (mut heard, mut others) = ([Vec::new(), Vec::new()], Vec::new());
    let done = |heard: &[String], texts: &[&str]| heard.last().map(String::as_str) == texts.last().copied();
    while !done(&heard[0], room) || !done(&heard[1], live) {
        let frame = ws.next().await;
        let text = || frame["delivery"]["payload"]["text"].as_str().expect("a comment").to_owned();
        match frame["delivery"]["channel"].as_str() {
            Some("room:1") => heard[0].push(text()),
            Some("live:1") => heard[1].push(text()),
            _ => others.push(frame),
        }
    }
    assert_eq!(heard, [room, live], "and besides: {others:?}");
    others
}

/// What became of a push to a session.
#[derive(Debug, PartialEq)]
enum Became {
    Delivered,
    /// The session waits for its client, and the message with it.
    Queued,
    Offline,
}

async fn push_to(gateway: &Gateway, session: &str, text: &str) -> Became {
    let (status, report) = push(gateway, &json!({"target": {"session": session}, "message": comment(text)})).await;
    assert_eq!(status, 200, "{report}");
    let count = |key: &str| report["report"][key].as_u64().expect("a count");
    match (count("delivered"), count("queued"), count("offline")) {
        (1, 0, 0) => Became::Delivered,
        (0, 1, 0) => Became::Queued,
        (0, 0, 1) => Became::Offline,
        _ => panic!("{report}"),
    }
}

/// The gaps among frames: channel and reason.
fn gaps(frames: &[Value]) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let gaps = frames.iter().filter(|frame| frame["gap"].is_object());
    gaps.map(|frame| (word(&frame["gap"]["channel"]), word(&frame["gap"]["reason"]))).collect()
}

/// The texts among frames.
fn texts(frames: &[Value]) -> Vec<String> {
    frames.iter().filter(|frame| frame["delivery"].is_object()).map(|frame| text(&frame["delivery"])).collect()
}

/// Reads until the session was told how each of its two channels gets on, and all of `texts` have come.
async fn all(ws: &mut Ws, texts: &[&str]) -> Vec<Value> {
    let mut frames = Vec::new();
    let told = |frames: &[Value], channel: &str| frames.iter().any(|frame| frame["subscribed"]["channel"] == channel);
    while !(told(&frames, "room:1") && told(&frames, "live:1") && texts.iter().all(|text| said(&frames, text))) {
        frames.push(ws.next().await);
    }
    frames
}

fn said(frames: &[Value], text: &str) -> bool {
    texts(frames).iter().any(|said| said == text)
}

/// The channel with a history was recovered, the other one and what has no channel are told of.
fn is_recovered(frames: &[Value]) {
    let recovered = |channel: &str| {
        let found = frames.iter().find(|frame| frame["subscribed"]["channel"] == channel);
        found.expect("subscribed")["subscribed"]["recovered"].clone()
    };
    assert_eq!((recovered("room:1"), recovered("live:1")), (json!(true), json!(false)), "{frames:?}");
    is_told(frames);
}

/// What has no history may be missing.
fn is_told(frames: &[Value]) {
    let mut gaps = gaps(frames);
    gaps.sort();
    assert_eq!(gaps, ["", "live:1"].map(|channel| (channel.to_owned(), "FAILOVER".to_owned())));
}

/// The session does not go on: another one has begun.
fn is_new(connected: &Value, stay: &Stay) {
    assert_eq!(connected["resumed"], false, "{connected}");
    assert_ne!(connected["sessionId"], stay.session);
}

#[tokio::test]
async fn what_was_missed_comes_before_what_is_new_and_nothing_twice() {
    let gateway = quiet().await;
    let (mut a, mut b) = (listener(&gateway).await, Ws::connect(&gateway).await);
    say(&mut b, "one").await;
    hears(&mut a, &["one"]).await;
    let session = a.stay().session;
    let stay = a.cut();
    until(&gateway, PENDING, |pending| pending == 1.0).await;
    for text in ["two", "three"] {
        say(&mut b, text).await;
    }
    assert_eq!(push_to(&gateway, &session, "to you").await, Became::Queued);

    let (mut a, connected) = Ws::resume(&gateway, &stay).await;
    assert_eq!((&connected["resumed"], &connected["sessionId"]), (&json!(true), &json!(session)), "{connected}");
    assert_eq!(number(&connected["received"]), stay.received, "the stream goes on at the client's count");
    assert_ne!(connected["resumeToken"], stay.token);
    let mut channels: Vec<_> = connected["subscriptions"].as_array().expect("a list").clone();
    channels.sort_by_key(|subscribed| subscribed["channel"].to_string());
    assert_eq!(channels.len(), 2, "{connected}");
    for (subscribed, channel) in channels.iter().zip(["live:1", "room:1"]) {
        assert_eq!((&subscribed["channel"], &subscribed["recovered"]), (&json!(channel), &json!(true)), "{subscribed}");
    }
    say(&mut b, "four").await;
    let others = hears(&mut a, &["two", "three", "four"]).await;
    assert_eq!((texts(&others), gaps(&others)), (vec!["to you".to_owned()], Vec::new()));
    assert_eq!(metric(&gateway, "trestle_edge_resumes_total{outcome=\"here\"}").await, 1.0);
    assert_eq!(metric(&gateway, PENDING).await, 0.0);
}

#[tokio::test]
async fn what_was_written_and_never_came_is_written_again() {
    let gateway = quiet().await;
    let (mut a, mut b) = (Ws::on(&gateway, "room:1").await, Ws::connect(&gateway).await);
    for text in ["one", "two", "three"] {
        b.publish("room:1", text).await;
    }
    assert_eq!(a.texts(3).await, ["room:1 one", "room:1 two", "room:1 three"]);
    // As if the last two had been on their way when the connection broke.
    let mut stay = a.cut();
    stay.received -= 2;
    let (mut a, connected) = Ws::resume(&gateway, &stay).await;
    assert_eq!(number(&connected["received"]), stay.received, "{connected}");
    b.publish("room:1", "four").await;
    assert_eq!(a.texts(3).await, ["room:1 two", "room:1 three", "room:1 four"]);
}

#[tokio::test]
async fn a_client_that_does_not_count_goes_on_by_its_offsets() {
    let gateway = quiet().await;
    let (mut a, mut b) = (listener(&gateway).await, Ws::connect(&gateway).await);
    say(&mut b, "one").await;
    hears(&mut a, &["one"]).await;
    let stay = a.cut();
    say(&mut b, "two").await;
    let mut resume = stay.resume();
    resume.as_object_mut().expect("an object").remove("received");
    let (mut a, connected) = Ws::resume_with(&gateway, &stay, resume).await;
    assert_eq!((&connected["resumed"], number(&connected["received"])), (&json!(true), 0), "{connected}");
    assert_eq!(connected["sessionId"], stay.session);
    let frames = all(&mut a, &["room:1 two"]).await;
    is_recovered(&frames);
    assert_eq!(texts(&frames), ["room:1 two"]);
    say(&mut b, "three").await;
    assert_eq!(hears(&mut a, &["three"]).await, [json!(null); 0], "and then all goes on");
}

#[tokio::test]
async fn a_stream_that_is_longer_than_what_is_kept_goes_on_by_the_offsets() {
    let config = file("[session]\nreplay_frames_max = 8\n");
    let gateway = gateway(&["--schemas", EXAMPLES, "--config", config.path().to_str().unwrap()]).await;
    let (mut a, mut b) = (Ws::on(&gateway, "room:1").await, Ws::connect(&gateway).await);
    let before = a.stay();
    for number in 0..20 {
        b.publish("room:1", &number.to_string()).await;
    }
    a.texts(20).await;
    // As if none of them had come.
    let stay = Stay { received: before.received, places: before.places, ..a.cut() };
    let (mut a, connected) = Ws::resume(&gateway, &stay).await;
    assert_eq!((&connected["resumed"], number(&connected["received"])), (&json!(true), 0), "{connected}");
    let expected: Vec<_> = (0..20).map(|number| format!("room:1 {number}")).collect();
    assert_eq!(a.texts(20).await, expected);
}

#[tokio::test]
async fn a_resume_token_serves_once() {
    let gateway = quiet().await;
    let (a, mut b) = (listener(&gateway).await, Ws::connect(&gateway).await);
    let stay = a.cut();
    let (mut a, connected) = Ws::resume(&gateway, &stay).await;
    assert_eq!(connected["resumed"], true, "{connected}");
    a.so_far().await; // it has `connected`, and says so by saying anything
    let (_thief, connected) = Ws::resume(&gateway, &stay).await;
    is_new(&connected, &stay);
    say(&mut b, "one").await;
    hears(&mut a, &["one"]).await;
    let (_a, connected) = Ws::resume(&gateway, &a.cut()).await;
    assert_eq!(connected["resumed"], true, "the token of the last `connected` does: {connected}");
}

#[tokio::test]
async fn a_connected_that_never_came_costs_no_session() {
    let gateway = quiet().await;
    let (mut a, mut b) = (listener(&gateway).await, Ws::connect(&gateway).await);
    say(&mut b, "one").await;
    hears(&mut a, &["one"]).await;
    let stay = a.cut();
    for tries in [1.0, 2.0] {
        let mut lost = Ws::open(&gateway).await;
        lost.send(json!({"id": 1, "connect": {"resume": stay.resume()}})).await;
        until(&gateway, "trestle_edge_resumes_total{outcome=\"here\"}", |resumes| resumes == tries).await;
        lost.cut();
    }
    say(&mut b, "two").await;
    let (mut a, connected) = Ws::resume(&gateway, &stay).await;
    assert_eq!((&connected["resumed"], &connected["sessionId"]), (&json!(true), &json!(stay.session)), "{connected}");
    assert_eq!(number(&connected["received"]), stay.received, "{connected}");
    assert_eq!(hears(&mut a, &["two"]).await, [json!(null); 0]);
}

#[tokio::test]
async fn a_token_that_is_not_the_sessions_own_is_good_for_nothing() {
    let gateway = quiet().await;
    let (a, b) = (Ws::connect(&gateway).await.cut(), Ws::connect(&gateway).await.cut());
    let mut forged = a.token.clone();
    let last = forged.pop().expect("a token");
    forged.push(if last == 'A' { 'B' } else { 'A' });
    for token in [b.token.clone(), forged, "nonsense".to_owned(), String::new()] {
        let stay = Stay { token, ..a.clone() };
        let mut ws = Ws::open(&gateway).await;
        let answer = ws.ask(json!({"id": 1, "connect": {"resume": stay.resume()}})).await;
        match &answer["connected"] {
            Value::Object(_) => is_new(&answer["connected"], &stay),
            _ => assert_eq!(answer["error"]["code"], "INVALID_ARGUMENT", "{answer}"),
        }
    }
    for stay in [a, b] {
        assert_eq!(Ws::resume(&gateway, &stay).await.1["resumed"], true, "and nothing was spent");
    }
}

#[tokio::test]
async fn a_session_is_over_when_its_window_is_or_its_client_said_goodbye() {
    let config = file("[session]\nresume_window = \"1s\"\n");
    let gateway = gateway(&["--schemas", EXAMPLES, "--config", config.path().to_str().unwrap()]).await;
    let mut a = Ws::open(&gateway).await;
    let connected = a.ask(json!({"id": 1, "connect": {}})).await;
    assert_eq!(connected["connected"]["resumeWindow"], "1s", "{connected}");
    let late = a.cut();
    until(&gateway, PENDING, |pending| pending == 1.0).await;
    until(&gateway, PENDING, |pending| pending == 0.0).await;
    let closed = Ws::connect(&gateway).await;
    let gone = closed.stay();
    closed.close().await;
    for stay in [late, gone] {
        assert_eq!(push_to(&gateway, &stay.session, "nobody").await, Became::Offline);
        is_new(&Ws::resume(&gateway, &stay).await.1, &stay);
    }
}

#[tokio::test]
async fn in_another_encoding_it_goes_on_by_the_offsets() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use prost::Message as _;
    use trestle_wire::v1::{self, client_frame::Frame as Say, server_frame::Frame as Got};

    let gateway = quiet().await;
    let (mut a, mut b) = (Ws::on(&gateway, "room:1").await, Ws::connect(&gateway).await);
    b.publish("room:1", "one").await;
    a.texts(1).await;
    let stay = a.cut();
    b.publish("room:1", "two").await;

    let mut request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(format!(
        "ws://{}/ws",
        gateway.listen()
    ))
    .expect("an address");
    request.headers_mut().insert("sec-websocket-protocol", "trestle.v1.proto".parse().expect("a header"));
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.expect("upgraded");
    let resume = v1::Resume {
        session_id: stay.session.clone(),
        token: stay.token.clone(),
        received: Some(stay.received),
        channels: vec![v1::Position { channel: "room:1".into(), offset: stay.places["room:1"] }],
        outstanding: Vec::new(),
    };
    let connect = v1::Connect { token: String::new(), resume: Some(resume) };
    let frames = vec![v1::ClientFrame { id: 1, frame: Some(Say::Connect(connect)) }];
    socket.send(Message::binary(v1::ClientFrames { frames }.encode_to_vec())).await.expect("sent");
    let mut frames = Vec::new();
    while !frames.iter().any(|frame| matches!(frame, Some(Got::Delivery(_)))) {
        let message = socket.next().await.expect("a message").expect("a healthy socket");
        if let Message::Binary(bytes) = message {
            frames.extend(v1::ServerFrames::decode(bytes).expect("frames").frames.into_iter().map(|frame| frame.frame));
        }
    }
    let Some(Some(Got::Connected(connected))) = frames.first() else { panic!("not connected: {frames:?}") };
    assert_eq!((connected.resumed, connected.received, &connected.session_id), (true, 0, &stay.session));
    let Some(Some(Got::Delivery(delivery))) = frames.last() else { panic!("no delivery: {frames:?}") };
    assert_eq!((delivery.offset, &delivery.payload[..]), (2, &b"\x0a\x03two"[..]));
}

#[tokio::test]
async fn answers_that_were_on_their_way_still_come_and_lost_ones_are_told() {
    let gateway = quiet().await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let mut a = Ws::connect(&gateway).await;
    let ask = json!({"message": {"messageType": "GET_QUOTE", "payload": {"sku": "a1"}}, "timeout": "20s"});
    let paid = json!({"messageType": "ORDER_PAID", "version": "1.0", "payload": {"orderId": "o1", "cents": "5"}});
    a.send(json!([{"id": 5, "request": ask}, {"id": 6, "message": paid}])).await;
    let (one, two) = (billing.delivery().await, billing.delivery().await);
    let (quote, order) = if one.request { (one, two) } else { (two, one) };
    let stay = a.cut();
    until(&gateway, PENDING, |pending| pending == 1.0).await;
    // One is answered while nobody is there, the other afterwards.
    billing.reply(quote.delivery_id, "shop.v1.Quote", QUOTE.to_vec()).await;
    let mut resume = stay.resume();
    resume["outstanding"] = json!([5, 6, 77]);
    let (mut a, connected) = Ws::resume_with(&gateway, &stay, resume).await;
    assert_eq!(number(&connected["received"]), stay.received, "{connected}");
    let lost = a.answer(&json!(77)).await;
    assert_eq!(
        (&lost["error"]["reason"], &lost["error"]["retryable"]),
        (&json!("answer_lost"), &json!(true)),
        "{lost}"
    );
    assert_eq!(a.answer(&json!(5)).await["reply"]["payload"]["cents"], "199");
    assert_eq!(envelope(&order).message_type, "shop.v1.OrderPaid");
    billing.ack(order.delivery_id).await;
    assert_eq!(a.answer(&json!(6)).await["accepted"]["level"], "HANDLED");
    assert!(billing.soon(std::time::Duration::from_millis(200)).await.is_none(), "nothing is asked twice");
}

#[tokio::test]
async fn a_connection_that_is_only_half_dead_is_replaced() {
    let gateway = quiet().await;
    let (mut old, mut b) = (listener(&gateway).await, Ws::connect(&gateway).await);
    say(&mut b, "one").await;
    hears(&mut old, &["one"]).await;
    let stay = old.stay();
    let (mut new, connected) = Ws::resume(&gateway, &stay).await;
    assert_eq!(number(&connected["received"]), stay.received, "{connected}");
    let (frames, end) = old.end().await;
    assert_eq!((frames, end.map(|(code, _)| code)), (Vec::new(), Some(4502)));
    say(&mut b, "two").await;
    hears(&mut new, &["two"]).await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_kept_and_goes_on() {
    let config = file("[session]\nping_interval = \"1s\"\npong_timeout = \"500ms\"\n");
    let gateway = gateway(&["--schemas", EXAMPLES, "--config", config.path().to_str().unwrap()]).await;
    let silent = listener(&gateway).await;
    let stay = silent.stay();
    // It is there, and reads nothing, so no pong goes out.
    until(&gateway, PENDING, |pending| pending == 1.0).await;
    say(&mut Ws::connect(&gateway).await, "one").await;
    let (mut new, connected) = Ws::resume(&gateway, &stay).await;
    assert_eq!(number(&connected["received"]), stay.received, "{connected}");
    hears(&mut new, &["one"]).await;
    let (_, end) = silent.end().await;
    assert_eq!(end.map(|(code, _)| code), Some(4001));
}
