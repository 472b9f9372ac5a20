//! Listeners on the Rust SDK, which comes back by itself.

use std::time::Instant;

use tokio::task::JoinHandle;
use trestle_client::{Client, Event, Options, Subscription};
use trestle_wire::v1;

use super::check::{Heard, LAST, Log};

/// Channels that everyone listens to: two with a history, one without.
pub(super) const CHANNELS: [&str; 3] = ["room:1", "room:2", "live:1"];

/// What a comment says, as speakers write it: `speaker number`.
pub(super) fn comment(text: &str, offset: u64) -> Heard {
    let (speaker, number) = text.split_once(' ').expect("a speaker and a number");
    let number = number.parse().expect("a number");
    Heard::Message { speaker: speaker.parse().expect("a speaker"), number, offset }
}

/// Whether this is the last word on a channel.
pub(super) fn is_last(heard: &Heard) -> bool {
    matches!(heard, Heard::Message { speaker: LAST, .. })
}

/// A client that listens to all channels, each until its last word.
pub(super) async fn listener(url: &str, name: String) -> (Client, Vec<JoinHandle<Log>>) {
    let client = Client::connect(url, Options::default()).await.expect("connected");
    let mut logs = Vec::new();
    for channel in CHANNELS {
        let subscription = client.subscribe(channel).await.expect("subscribed");
        let log = Log { listener: name.clone(), channel, start: subscription.offset(), heard: Vec::new() };
        logs.push(tokio::spawn(listen(subscription, log)));
    }
    (client, logs)
}

async fn listen(mut subscription: Subscription, mut log: Log) -> Log {
    while let Some(event) = subscription.next().await {
        let heard = match event {
            Event::Message(envelope) => comment(&text(&envelope), envelope.offset),
            Event::Gap(gap) => Heard::Gap { from: gap.from, to: gap.to },
            Event::Error(error) => panic!("{} on {}: {error:?}", log.listener, log.channel),
            Event::Presence(_) => continue,
        };
        let last = is_last(&heard);
        log.heard.push((Instant::now(), heard));
        if last {
            return log;
        }
    }
    panic!("{} on {}: the client has ended", log.listener, log.channel);
}

/// The text of a chat.v1.Comment, its first field.
fn text(envelope: &v1::Envelope) -> String {
    String::from_utf8(envelope.payload[2..].to_vec()).expect("text")
}
