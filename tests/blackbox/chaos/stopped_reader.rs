//! Clients stop reading while much is said: the node's memory is bounded, and those who read do not notice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trestle_testkit::Gateway;

use crate::{
    support::{Ws, metric, number},
    two::configured,
};

/// Clients that stop.
const STOPPED: usize = 60;
/// Messages that are said to each of them, of about half a kilobyte: 2 MB, many times what is kept for one.
const MESSAGES: u64 = 4_000;
/// What one of them may cost, by the defaults: outbox 256 KiB, replay 64 KiB, the frames' places 192 KiB at worst.
const EACH_MAX_KB: u64 = 512;
/// Longest time that a message may take to one who reads: a busy machine's scheduling, no queue.
const DELAY_MAX: Duration = Duration::from_secs(2);

/// Nothing but their outboxes parts from those who stop, however long a slow machine takes.
const PATIENT: &str = "[edge]\nwrite_timeout = \"10m\"\n[session]\nping_interval = \"2m\"\npong_timeout = \"1m\"\n";

/// Resident memory of the process, in KB.
fn resident(gateway: &mut Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process().pid())).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a number")
}

/// Much is said to clients of which most have stopped; their namespace has this overflow policy. Gives one of them.
async fn said_to_stopped(overflow: &str, parted: bool) -> (Gateway, Ws) {
    let mut gateway = configured(&format!("{PATIENT}[channels.namespaces.live]\noverflow = \"{overflow}\"\n")).await;
    let mut stopped = Vec::new();
    for _ in 0..STOPPED {
        stopped.push(Ws::on(&gateway, "live:1").await);
    }
    let (mut reader, mut speaker) = (Ws::on(&gateway, "live:1").await, Ws::connect(&gateway).await);
    let before = resident(&mut gateway);
    let (mut slowest, pad) = (Duration::ZERO, "x".repeat(480));
    for at in 1..=MESSAGES {
        let message = json!({"messageType": "chat.v1.Comment", "payload": {"text": format!("{at} {pad}")}});
        let began = Instant::now();
        speaker.send(json!({"publish": {"channel": "live:1", "message": message}})).await;
        let delivery = reader.delivery().await;
        slowest = slowest.max(began.elapsed());
        assert_eq!(first_word(&delivery), at.to_string(), "in order, each of them");
    }
    let after = resident(&mut gateway);
    let slow = metric(&gateway, "trestle_hub_slow_clients_total").await;
    println!(
        "stopped readers, {overflow}: {STOPPED} of them, {MESSAGES} messages of 0.5 KB; memory {before} KB before, {after} KB \
         after; {slow} parted from; slowest delivery to a reader {slowest:.1?}"
    );
    assert!(after < before + STOPPED as u64 * EACH_MAX_KB, "{before} KB before, {after} KB after");
    assert!(slowest < DELAY_MAX, "a reader waited {slowest:?}");
    assert_eq!(slow, if parted { STOPPED as f64 } else { 0.0 });
    (gateway, stopped.pop().expect("some"))
}

fn first_word(delivery: &Value) -> String {
    let text = delivery["payload"]["text"].as_str().expect("a comment");
    text.split(' ').next().expect("a word").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_are_parted_from_and_cost_little() {
    let (gateway, stopped) = said_to_stopped("disconnect", true).await;
    let stay = stopped.cut();
    let (mut ws, connected) = Ws::resume(&gateway, &stay).await;
    assert_eq!(connected["resumed"], true, "{connected}");
    loop {
        let frame = ws.next().await;
        if frame["gap"]["channel"] == "live:1" {
            break; // and is told
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_cost_a_bounded_amount_where_the_oldest_is_dropped() {
    let (_gateway, mut ws) = said_to_stopped("drop_oldest", false).await;
    let mut at = 0;
    while at < MESSAGES {
        let frame = ws.next().await;
        if frame["gap"].is_object() {
            at += number(&frame["gap"]["count"]);
        } else {
            at += 1;
            assert_eq!(first_word(&frame["delivery"]), at.to_string());
        }
    }
}
