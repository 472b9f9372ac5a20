//! Connections have an age at which their clients are asked to come again.

use tokio::time::timeout;
use trestle_client::{Client, Event, Options, Outgoing, State};

use crate::{
    support::{PATIENCE, Ws, until},
    two::configured,
};

const YOUNG: &str = "[edge]\nconnection_age_max = \"2s\"\ndrain_grace = \"1s\"\n";

#[tokio::test]
async fn an_old_connection_is_replaced_and_nothing_is_missed() {
    let gateway = configured(YOUNG).await;
    let client =
        Client::connect(&format!("ws://{}/ws", gateway.listen()), Options::default()).await.expect("connected");
    let session = client.session().session_id.clone();
    let mut live = client.subscribe("live:1").await.expect("subscribed");
    // The new connection goes on with the session before the old one is dropped.
    until(&gateway, "trestle_edge_resumes_total{outcome=\"here\"}", |resumes| resumes >= 1.0).await;
    let comment = Outgoing::new("chat.v1.Comment", b"\x0a\x02hi".to_vec());
    client.publish("live:1", comment).await.expect("published");
    let heard = timeout(PATIENCE, live.next()).await.expect("in time");
    assert!(matches!(heard, Some(Event::Message(_))), "{heard:?}");
    assert_eq!(client.session().session_id, session);
    assert!(matches!(*client.state().borrow(), State::Connected { .. }));
}

#[tokio::test]
async fn a_client_that_stays_is_told_and_parted_from() {
    let gateway = configured(YOUNG).await;
    let ws = Ws::connect(&gateway).await;
    let (frames, end) = ws.end().await;
    let told = frames.iter().find(|frame| frame["draining"].is_object()).unwrap_or_else(|| panic!("{frames:?}"));
    assert_eq!(told["draining"]["deadline"], "1s", "{told}");
    assert_eq!(end.map(|(code, _)| code), Some(1012));
}
