//! More clients at once than a node takes: the rest is told when to come.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trestle_testkit::Gateway;

use crate::{
    support::{End, Ws, metric},
    two::configured,
};

/// Clients that come all at once, of whom [`BURST`] are taken.
const CLIENTS: usize = 40;
const BURST: usize = 10;
const CONFIG: &str = "[edge]\nadmission_burst = 10\nadmission_rate = 20\n";

/// Taken in, or how long to wait.
async fn come(gateway: &Gateway) -> Result<Ws, Duration> {
    let mut ws = Ws::open(gateway).await;
    // One that is turned away may be closed before it can say anything.
    let text = json!({"id": 1, "connect": {}}).to_string();
    let _sent = futures_util::SinkExt::send(ws.socket(), tokio_tungstenite::tungstenite::Message::text(text)).await;
    let first = ws.next().await;
    if first["connected"].is_object() {
        return Ok(ws);
    }
    let (_, end) = ws.end().await;
    Err(told(&first, end))
}

fn told(frame: &Value, end: End) -> Duration {
    let error = &frame["error"];
    assert_eq!((&error["reason"], &error["retryable"]), (&json!("too_busy"), &json!(true)), "{frame}");
    assert_eq!(end.map(|(code, _)| code), Some(4003));
    let wait = error["retryAfter"].as_str().and_then(|wait| wait.strip_suffix('s')).expect("a duration");
    Duration::from_secs_f64(wait.parse().expect("seconds"))
}

#[tokio::test]
async fn a_storm_is_taken_in_at_the_rate_and_each_is_told_its_time() {
    let gateway = configured(CONFIG).await;
    let began = Instant::now();
    let came = join_all((0..CLIENTS).map(|_| come(&gateway))).await;
    let (mut inside, mut waits) = (Vec::new(), Vec::new());
    for came in came {
        match came {
            Ok(ws) => inside.push(ws),
            Err(wait) => waits.push(wait),
        }
    }
    assert!(inside.len() >= BURST, "{} were taken", inside.len());
    assert!(waits.len() > BURST, "{} were told to wait", waits.len());
    // Whoever comes when told is taken; two that are a little early and a little late may meet, and one waits once more.
    let again = join_all(waits.iter().map(|wait| async {
        sleep(*wait).await;
        let mut told = 1;
        loop {
            match come(&gateway).await {
                Ok(ws) => return (ws, told),
                Err(wait) => sleep(wait).await,
            }
            told += 1;
        }
    }));
    let (again, told): (Vec<_>, Vec<_>) = again.await.into_iter().unzip();
    inside.extend(again);
    assert_eq!(inside.len(), CLIENTS);
    assert!(began.elapsed() < Duration::from_secs(5), "all are in after {:?}", began.elapsed());
    assert_eq!(metric(&gateway, "trestle_edge_turned_away_total").await, told.iter().sum::<i32>() as f64);
    assert!(told.iter().filter(|told| **told > 1).count() <= waits.len() / 2, "the times that are told hold: {told:?}");
}
