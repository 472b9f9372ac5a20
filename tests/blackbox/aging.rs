//! Connections have an age at which their clients are asked to come again, and resumes an end.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::Message as _;
use serde_json::json;
use tokio::time::timeout;
use trestle_client::{Client, Event, Options, Outgoing, State, v1::ResumeClaims};

use crate::{
    support::{PATIENCE, Ws, until},
    two::{configured, token},
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

#[tokio::test]
async fn no_resume_outlives_the_token_of_its_client() {
    let gateway = configured("").await;
    let soon = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() + 60;
    let mut ws = Ws::open(&gateway).await;
    let connect = json!({"id": 1, "connect": {"token": token(&json!({"sub": "ann", "exp": soon}))}});
    let connected = ws.ask(connect).await;
    let stay = ws.cut();
    let (_again, resumed) = Ws::resume(&gateway, &stay).await;
    assert_eq!(resumed["resumed"], true, "{resumed}");
    for connected in [&connected["connected"], &resumed] {
        let resume_token = connected["resumeToken"].as_str().expect("a resume token");
        let (claims, _) = resume_token.split_once('.').expect("claims and signature");
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64url");
        let claims = ResumeClaims::decode(&*claims).expect("claims");
        assert_eq!(claims.expires.map(|at| at.seconds), i64::try_from(soon).ok(), "{connected}");
    }
}
