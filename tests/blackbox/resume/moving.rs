//! A session goes on on another node.

use serde_json::json;
use trestle_testkit::{Gateway, process::Signal};

use super::{Became, all, gaps, hears, hears_each, is_recovered, is_told, listener, push_to, say, texts};
use crate::{
    service::Instance,
    support::{QUOTE, Stay, Ws, comment, metric, number, post, push, text, until},
    two::Two,
};

async fn resumes(gateway: &Gateway, outcome: &str) -> f64 {
    metric(gateway, &format!("trestle_edge_resumes_total{{outcome=\"{outcome}\"}}")).await
}

#[tokio::test]
async fn another_node_takes_over_all_that_was_missed() {
    let Two { one, two, nats: _nats } = Two::start().await;
    let (mut a, mut b) = (listener(&one).await, Ws::connect(&two).await);
    say(&mut b, "one").await;
    hears(&mut a, &["one"]).await;
    let stay = a.cut();
    until(&one, super::PENDING, |pending| pending == 1.0).await;
    say(&mut b, "two").await;
    assert_eq!(push_to(&two, &stay.session, "to you").await, Became::Queued);

    let (mut a, connected) = Ws::resume(&two, &stay).await;
    assert_eq!((&connected["resumed"], &connected["node"]), (&json!(true), &json!("two")), "{connected}");
    assert_eq!(connected["sessionId"], stay.session, "it keeps its name");
    assert_eq!(number(&connected["received"]), stay.received, "{connected}");
    say(&mut b, "three").await;
    assert_eq!(push_to(&one, &stay.session, "again").await, Became::Delivered, "pushes find it where it is now");
    let others = hears(&mut a, &["two", "three"]).await;
    let mut pushed = texts(&others);
    while pushed.len() < 2 {
        pushed.push(text(&a.delivery().await));
    }
    assert_eq!((pushed, gaps(&others)), (vec!["to you".to_owned(), "again".to_owned()], Vec::new()));
    assert_eq!(resumes(&two, "handed_over").await, 1.0);

    // And back again, while the connection there is still open.
    let stay = a.stay();
    let (mut back, connected) = Ws::resume(&one, &stay).await;
    assert_eq!(number(&connected["received"]), stay.received, "{connected}");
    say(&mut b, "four").await;
    hears(&mut back, &["four"]).await;
    let (frames, end) = a.end().await;
    assert_eq!((texts(&frames), end.map(|(code, _)| code)), (Vec::new(), Some(4502)));
}

#[tokio::test]
async fn a_node_that_was_killed_costs_nothing_that_has_a_history() {
    let Two { mut one, two, nats: _nats } = Two::start().await;
    let (mut a, mut b) = (listener(&one).await, Ws::connect(&two).await);
    say(&mut b, "one").await;
    hears(&mut a, &["one"]).await;
    one.kill().await.expect("killed");
    let stay = a.stay();
    let (_, end) = a.end().await;
    assert_eq!(end, None, "no goodbye");
    say(&mut b, "two").await;

    let mut resume = stay.resume();
    resume["outstanding"] = json!([31]);
    let (mut a, connected) = Ws::resume_with(&two, &stay, resume).await;
    assert_eq!((&connected["resumed"], number(&connected["received"])), (&json!(true), 0), "{connected}");
    assert_eq!(connected["sessionId"], stay.session);
    assert_eq!(a.answer(&json!(31)).await["error"]["reason"], "answer_lost");
    let frames = all(&mut a, &["room:1 two"]).await;
    is_recovered(&frames);
    assert_eq!(texts(&frames), ["room:1 two"]);
    say(&mut b, "three").await;
    hears(&mut a, &["three"]).await;
    assert_eq!(push_to(&two, &stay.session, "to you").await, Became::Delivered);
    assert_eq!(a.texts(1).await, ["to you"]);
    assert_eq!(resumes(&two, "recovered").await, 1.0);
}

#[tokio::test]
async fn a_node_that_stops_lets_its_clients_go_on_elsewhere_before_they_leave() {
    let Two { mut one, two, nats: _nats } = Two::start().await;
    let (mut a, mut b) = (listener(&one).await, Ws::connect(&two).await);
    one.process().signal(Signal::TERM).expect("signalled");
    let notice = loop {
        let mut frame = a.next().await;
        if frame["draining"].is_object() {
            break frame["draining"].take();
        }
    };
    assert_eq!(notice["deadline"], "5s", "{notice}");
    say(&mut b, "one").await;
    hears(&mut a, &["one"]).await; // the old connection still serves

    let stay = a.stay();
    let (mut new, connected) = Ws::resume(&two, &stay).await;
    assert_eq!(number(&connected["received"]), stay.received, "{connected}");
    say(&mut b, "two").await;
    hears(&mut new, &["two"]).await;
    let (frames, _) = a.end().await;
    assert_eq!(texts(&frames), [""; 0], "and nothing comes on both");
    assert!(one.process().ended().await.expect("it ends").success());
    assert_eq!(resumes(&two, "handed_over").await, 1.0);
    say(&mut b, "three").await;
    hears(&mut new, &["three"]).await;
}

#[tokio::test]
async fn a_node_that_stops_leaves_what_it_has_for_those_that_come_late() {
    let Two { mut one, two, nats: _nats } = Two::start().await;
    let (mut a, mut b) = (listener(&one).await, Ws::connect(&two).await);
    say(&mut b, "one").await;
    hears(&mut a, &["one"]).await;
    let lost: Stay = a.cut();
    until(&one, super::PENDING, |pending| pending == 1.0).await;
    say(&mut b, "two").await;
    // Both texts on both channels: what is only on its way when the node stops is lost where there is no history.
    until(&one, "trestle_hub_delivered_total", |frames| frames == 4.0).await;
    assert!(one.terminate().await.expect("it ends").success());
    b.publish("room:1", "three").await;

    let (mut a, connected) = Ws::resume(&two, &lost).await;
    assert_eq!(number(&connected["received"]), lost.received, "the stream goes on: {connected}");
    let others = hears_each(&mut a, &["two", "three"], &["two"]).await;
    // What was sent between the two nodes cannot be known where there is no history.
    is_told(&[others, a.so_far().await].concat());
    assert_eq!(resumes(&two, "parked").await, 1.0);
}

#[tokio::test]
async fn a_request_is_answered_on_the_node_that_the_client_moved_to() {
    let Two { one, two, nats: _nats } = Two::start().await;
    let mut billing = Instance::attach(&one, "billing", &[], 8).await;
    let mut a = Ws::connect(&one).await;
    let ask = json!({"message": {"messageType": "GET_QUOTE", "payload": {"sku": "a1"}}, "timeout": "20s"});
    a.send(json!({"id": 5, "request": ask})).await;
    let delivery = billing.delivery().await;
    let stay = a.cut();
    let mut resume = stay.resume();
    resume["outstanding"] = json!([5]);
    let (mut a, connected) = Ws::resume_with(&two, &stay, resume).await;
    assert_eq!(number(&connected["received"]), stay.received, "{connected}");
    billing.reply(delivery.delivery_id, "shop.v1.Quote", QUOTE.to_vec()).await;
    assert_eq!(a.answer(&json!(5)).await["reply"]["payload"]["cents"], "199");
}

#[tokio::test]
async fn groups_and_tags_that_a_service_gave_move_along() {
    let Two { mut one, two, nats: _nats } = Two::start().await;
    let a = Ws::connect(&one).await;
    let update = json!({"target": {"session": a.stay().session}, "joinGroups": ["staff"], "setTags": {"plan": "pro"}});
    let (status, answer) = post(&two, "/v1/sessions/update", &update).await;
    assert_eq!((status, &answer["sessions"]), (200, &json!(1)), "{answer}");
    let (mut a, connected) = Ws::resume(&two, &a.cut()).await;
    assert_eq!(connected["resumed"], true, "{connected}");
    for target in [json!({"group": "staff"}), json!({"tags": "plan=pro"})] {
        let body = json!({"target": target, "message": comment("hi")});
        let (status, report) = push(&one, &body).await;
        assert_eq!((status, &report["report"]["delivered"]), (200, &json!(1)), "{report}");
        assert_eq!(a.texts(1).await, ["hi"]);
    }
    // Also when the node dies that has them, as soon as they are given.
    let (a, connected) = Ws::resume(&one, &a.cut()).await;
    assert_eq!(connected["node"], "one", "{connected}");
    let update = json!({"target": {"session": a.stay().session}, "joinGroups": ["late"], "setTags": {"plan": "max"}});
    let (status, answer) = post(&two, "/v1/sessions/update", &update).await;
    assert_eq!((status, &answer["sessions"]), (200, &json!(1)), "{answer}");
    one.kill().await.expect("killed");
    let (mut a, connected) = Ws::resume(&two, &a.stay()).await;
    assert_eq!(connected["resumed"], true, "{connected}");
    a.so_far().await;
    for target in [json!({"group": "staff"}), json!({"group": "late"}), json!({"tags": "plan=max"})] {
        let body = json!({"target": target, "message": comment("hi")});
        let (status, report) = push(&two, &body).await;
        assert_eq!((status, &report["report"]["delivered"]), (200, &json!(1)), "{report}");
        assert_eq!(a.texts(1).await, ["hi"]);
    }
}
