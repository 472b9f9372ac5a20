//! One message to every subscriber of a channel.

use super::{size, thousands};
use crate::{
    bench::{self, Bench, Running},
    crowd::Crowd,
    publisher::{Load, Publisher},
    turns::{Found, Outcome, in_turns},
};

/// Subscribers, channels that they are spread over, bytes of a message.
const GATHERINGS: [(usize, usize, &[usize]); 3] =
    [(1_000, 1, &[128, 1024]), (1_000, 100, &[128]), (10_000, 1, &[128, 1024])];
/// Messages on their way at once.
const OUTSTANDING: [usize; 2] = [1, 16];
/// Messages that warm up the connections of a gathering.
const FIRST: usize = 2;

/// Measures all servers, in turns.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    // With more outstanding each delivery costs less, so more of them are measured.
    let deliveries = |outstanding| bench.scaled(100_000, 20_000) * if outstanding == 1 { 1 } else { 4 };
    let measure = async |running: &mut Running| {
        let mut found = Vec::new();
        for (subscribers, channels, payloads) in GATHERINGS {
            let mut crowd = Crowd::new();
            crowd.gather_all(running, subscribers, |number| vec![number % channels]).await?;
            let publisher = Publisher::open(running, channels).await?;
            for (payload_bytes, outstanding) in payloads.iter().flat_map(|bytes| OUTSTANDING.map(|some| (*bytes, some)))
            {
                let messages = (deliveries(outstanding) * channels / subscribers).next_multiple_of(outstanding);
                let load = Load { messages, outstanding, payload_bytes, channels, subscribers: subscribers / channels };
                publisher
                    .burst(&crowd, &Load { messages: outstanding * FIRST.max(channels / outstanding), ..load })
                    .await?;
                let cost = publisher.burst(&crowd, &load).await?;
                let figures = vec![
                    ("cpu_us", cost.cpu_us),
                    ("p50_us", cost.p50_us),
                    ("p99_us", cost.p99_us),
                    ("per_second", cost.per_second),
                    ("delivery_bytes", cost.delivery_bytes),
                ];
                let load = describe(subscribers, channels, payload_bytes, outstanding);
                found.push(Found { load, lost: cost.lost, figures });
            }
            crowd.leave().await?;
        }
        Ok(found)
    };
    Ok(in_turns("fanout", bench.rounds(), bench::start(bench.sides()).await?, measure).await)
}

fn describe(subscribers: usize, channels: usize, payload_bytes: usize, outstanding: usize) -> String {
    let channels = if channels == 1 { "1 channel".to_owned() } else { format!("{channels} channels") };
    let subscribers = thousands(subscribers);
    format!("{subscribers} subscribers, {channels}, {}, {outstanding} at once", size(payload_bytes))
}
