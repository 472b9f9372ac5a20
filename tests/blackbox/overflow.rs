//! A client that stops reading: by the policy of the namespace or the type, and told exactly what it missed.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::{MaybeTlsStream, client_async};
use trestle_testkit::Gateway;

use crate::{
    support::{Ws, metric, number, until},
    two::configured_with,
};

/// Small outboxes and small buffers of the kernel, and a namespace for each policy.
const CONFIG: &str = r#"
[session]
outbox_bytes_max = 16384
outbox_frames_max = 16
[cluster]
presence_members_max = 64
[edge]
frame_bytes_max = 8192
send_buffer_bytes = 4096
unsent_bytes_max = 4096
[channels.namespaces.parting]
[channels.namespaces.kept]
history = { size = 1000, ttl = "5m" }
[channels.namespaces.oldest]
overflow = "drop_oldest"
[channels.namespaces.newest]
overflow = "drop_newest"
[channels.namespaces.latest]
overflow = "conflate"
[channels.namespaces.fair]
overflow = "sample"
[channels.namespaces.disk]
overflow = "spill"
"#;

const SCHEMA: &str = r#"syntax = "proto3";
package t.v1;
import "trestle/v1/options.proto";
message Note { int64 number = 1; string pad = 2; }
message Tick { option (trestle.v1.queueing) = { overflow: CONFLATE key: "sku" }; int64 number = 1; string pad = 2; string sku = 3; }
message Alarm { option (trestle.v1.queueing) = { priority: HIGH }; int64 number = 1; }
message Chatter { option (trestle.v1.queueing) = { priority: LOW }; int64 number = 1; }
"#;

/// Messages that are published while the client reads nothing: 600 x 1 KB are much more than the kernel's buffers on both
/// sides (some 20 KB) and the outbox (16 KB) hold.
const MESSAGES: u64 = 600;
/// Read buffer of the client's socket.
const RECEIVE_BYTES: u32 = 4096;

async fn node() -> Gateway {
    let schemas = tempfile::tempdir().expect("a folder");
    std::fs::write(schemas.path().join("t.proto"), SCHEMA).expect("written");
    configured_with(CONFIG, &["--schemas", schemas.path().to_str().unwrap()]).await
}

/// A client whose kernel takes little for it, on `channel`.
async fn narrow(gateway: &Gateway, channel: &str) -> Ws {
    let mut ws = Ws::over(narrow_socket(gateway.listen()).await);
    assert!(ws.ask(json!({"id": 1, "connect": {}})).await["connected"].is_object());
    ws.subscribe(json!({"channel": channel})).await;
    ws
}

async fn narrow_socket(
    address: SocketAddr,
) -> tokio_tungstenite::WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BYTES).expect("it may be small");
    let stream = MaybeTlsStream::Plain(socket.connect(address).await.expect("connected"));
    client_async(format!("ws://{address}/ws"), stream).await.expect("upgraded").0
}

/// Publishes numbered messages of a kilobyte, and returns when all have been put into the outboxes.
struct Speaker {
    ws: Ws,
    channel: String,
}

impl Speaker {
    async fn on(gateway: &Gateway, channel: &str) -> Self {
        Self { ws: Ws::on(gateway, channel).await, channel: channel.to_owned() }
    }

    /// It listens itself, and has its own message only after everybody before it had a chance.
    async fn say(&mut self, message_type: &str, payload: impl Fn(u64) -> Value) {
        for at in 1..=MESSAGES {
            self.one(message_type, payload(at)).await;
        }
    }

    async fn one(&mut self, message_type: &str, payload: Value) {
        let message = json!({"messageType": message_type, "payload": payload});
        self.ws.send(json!({"publish": {"channel": self.channel, "message": message}})).await;
        let heard = self.ws.delivery().await;
        assert_eq!(heard["payload"]["number"], payload["number"].to_string().trim_matches('"'), "{heard}");
    }
}

fn note(number: u64) -> Value {
    json!({"number": number, "pad": "x".repeat(1000)})
}

/// What a client has got in the end: numbers, with the gaps at their places.
#[derive(Debug, PartialEq)]
enum Got {
    Number(u64),
    Gap(u64, String),
}

/// Reads until `last` has come.
async fn read(ws: &mut Ws, last: u64) -> Vec<Got> {
    let mut got = Vec::new();
    while got.last() != Some(&Got::Number(last)) {
        let frame = ws.next().await;
        if frame["delivery"].is_object() {
            got.push(Got::Number(number(&frame["delivery"]["payload"]["number"])));
        } else if frame["gap"].is_object() {
            let reason = frame["gap"]["reason"].as_str().expect("a reason").to_owned();
            got.push(Got::Gap(number(&frame["gap"]["count"]), reason));
        }
    }
    got
}

/// Each message has come or is counted in a gap at its place; returns how many were dropped.
fn account(got: &[Got], reason: &str) -> u64 {
    let (mut at, mut dropped) = (0, 0);
    for got in got {
        match got {
            Got::Number(number) => {
                assert_eq!(*number, at + 1, "{got:?} has no place after {at} were accounted for");
                at += 1;
            }
            Got::Gap(count, why) => {
                assert_eq!(why, reason);
                assert_ne!(*count, 0);
                at += count;
                dropped += count;
            }
        }
    }
    dropped
}

/// What a client that stopped has got of `channel`, and how many were dropped as the gateway counts.
async fn stopped_on(channel: &str, policy: &str) -> (Vec<Got>, f64) {
    let gateway = node().await;
    let mut ws = narrow(&gateway, channel).await;
    let mut speaker = Speaker::on(&gateway, channel).await;
    speaker.say("t.v1.Note", note).await;
    let got = if policy == "drop_newest" || policy == "sample" {
        // What comes last may be dropped: read all, then say one more.
        let mut got = Vec::new();
        let mut at = 0;
        while at < MESSAGES {
            match read_one(&mut ws).await {
                Got::Gap(count, why) => {
                    at += count;
                    got.push(Got::Gap(count, why));
                }
                number => {
                    at += 1;
                    got.push(number);
                }
            }
        }
        speaker.one("t.v1.Note", json!({"number": MESSAGES + 1})).await;
        got.extend(read(&mut ws, MESSAGES + 1).await);
        got
    } else {
        read(&mut ws, MESSAGES).await
    };
    (got, metric(&gateway, &format!("trestle_hub_dropped_total{{policy=\"{policy}\"}}")).await)
}

async fn read_one(ws: &mut Ws) -> Got {
    loop {
        let frame = ws.next().await;
        if frame["delivery"].is_object() {
            return Got::Number(number(&frame["delivery"]["payload"]["number"]));
        }
        if frame["gap"].is_object() {
            return Got::Gap(
                number(&frame["gap"]["count"]),
                frame["gap"]["reason"].as_str().expect("a reason").to_owned(),
            );
        }
    }
}

#[tokio::test]
async fn of_the_oldest_it_is_told_how_many_are_gone() {
    let (got, _) = stopped_on("oldest:1", "drop_oldest").await;
    let dropped = account(&got, "SLOW");
    assert!(dropped > MESSAGES / 2, "{dropped} of {MESSAGES} were dropped");
    let tail: Vec<_> = got.iter().rev().take_while(|got| matches!(got, Got::Number(_))).collect();
    assert!(tail.len() >= 8, "the latest are there: {}", tail.len());
}

#[tokio::test]
async fn of_the_newest_it_is_told_how_many_are_gone() {
    let (got, dropped) = stopped_on("newest:1", "drop_newest").await;
    assert_eq!(account(&got, "SLOW") as f64, dropped);
    assert!(dropped > MESSAGES as f64 / 2.0, "{dropped} of {MESSAGES} were dropped");
    assert!(matches!(got[..], [Got::Number(1), .., Got::Number(_)]), "the first and the one after are there");
}

#[tokio::test]
async fn a_fair_share_comes_and_the_rest_is_told_as_sampled() {
    let (got, dropped) = stopped_on("fair:1", "sample").await;
    assert_eq!(account(&got, "SAMPLED") as f64, dropped);
    assert!(dropped > 0.0);
}

#[tokio::test]
async fn what_waits_on_disk_comes_all_of_it() {
    let (got, _) = stopped_on("disk:1", "spill").await;
    assert_eq!(got, (1..=MESSAGES).map(Got::Number).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_each_key_the_latest_comes() {
    const KEYS: u64 = 5;
    let gateway = node().await;
    let mut ws = narrow(&gateway, "parting:1").await;
    let mut speaker = Speaker::on(&gateway, "parting:1").await;
    let tick = |number: u64| json!({"number": number, "pad": "x".repeat(1000), "sku": format!("k{}", number % KEYS)});
    speaker.say("t.v1.Tick", tick).await;
    let got = read(&mut ws, MESSAGES).await;
    let numbers: Vec<u64> =
        got.iter().filter_map(|got| if let Got::Number(number) = got { Some(*number) } else { None }).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let latest: Vec<_> = (MESSAGES + 1 - KEYS..=MESSAGES).collect();
    assert!(numbers.ends_with(&latest), "{numbers:?}");
    let gone: u64 = got.iter().map(|got| if let Got::Gap(count, _) = got { *count } else { 0 }).sum();
    assert_eq!(numbers.len() as u64 + gone, MESSAGES, "each came or is counted: {got:?}");
    assert!(gone > MESSAGES / 2);
}

#[tokio::test]
async fn a_client_that_is_parted_from_recovers_all_that_has_a_history() {
    let gateway = node().await;
    let mut ws = narrow(&gateway, "kept:1").await;
    let mut speaker = Speaker::on(&gateway, "kept:1").await;
    speaker.say("t.v1.Note", note).await;
    until(&gateway, "trestle_edge_pending", |pending| pending == 1.0).await;
    let mut numbers = Vec::new();
    let end = loop {
        match ws.next_or_end().await {
            Ok(frame) => numbers.push(number(&frame["delivery"]["payload"]["number"])),
            Err(end) => break end,
        }
    };
    assert_eq!(end.map(|(code, _)| code), Some(4000));
    let (mut ws, connected) = Ws::resume(&gateway, &ws.stay()).await;
    assert_eq!(connected["resumed"], true, "{connected}");
    while numbers.last() != Some(&MESSAGES) {
        numbers.push(number(&ws.delivery().await["payload"]["number"]));
    }
    assert_eq!(numbers, (1..=MESSAGES).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_urgent_overtakes_what_waits_and_what_is_not_waits_behind() {
    let gateway = node().await;
    let mut ws = narrow(&gateway, "oldest:1").await;
    let mut speaker = Speaker::on(&gateway, "oldest:1").await;
    speaker.one("t.v1.Chatter", json!({"number": 9999})).await;
    speaker.say("t.v1.Note", note).await;
    for number in [MESSAGES + 1, MESSAGES + 2] {
        speaker.one("t.v1.Chatter", json!({"number": number})).await;
        speaker.one("t.v1.Alarm", json!({"number": number + 2})).await;
    }
    let got = read(&mut ws, MESSAGES + 2).await;
    let place = |number: u64| got.iter().position(|got| *got == Got::Number(number));
    let (last, low, high) = (place(MESSAGES), place(MESSAGES + 2), place(MESSAGES + 4));
    assert!(high < last && last < low, "alarm at {high:?}, the last note at {last:?}, chatter at {low:?}");
    assert!(place(MESSAGES + 3) < high, "among the urgent, order stays");
}

#[tokio::test]
async fn who_reads_is_not_slowed_by_who_does_not() {
    let gateway = node().await;
    let mut stopped = Vec::new();
    for _ in 0..20 {
        stopped.push(narrow(&gateway, "newest:1").await);
    }
    let mut reader = Ws::on(&gateway, "newest:1").await;
    let mut speaker = Speaker::on(&gateway, "newest:1").await;
    for at in 1..=MESSAGES {
        speaker.one("t.v1.Note", note(at)).await;
        assert_eq!(number(&reader.delivery().await["payload"]["number"]), at);
    }
    assert_eq!(metric(&gateway, "trestle_edge_connections").await, 22.0);
    drop(stopped);
}
