//! What happens to sessions reaches one instance of each service that wants to know.

mod support;

use std::{collections::BTreeSet, time::Duration};

use prost::Message as _;
use support::{House, Instance, shop, soon};
use trestle_wire::v1::{self, gateway_frame::Frame};

/// How long an answer is waited for that never comes: whether somebody listens is known before.
const A_MOMENT: Duration = Duration::from_millis(1);

fn listener(service: &str) -> v1::Hello {
    v1::Hello { service: service.into(), max_in_flight: 4, session_events: true, ..v1::Hello::default() }
}

impl House {
    async fn happened(&self, session: &str) {
        let event = v1::SessionEvent {
            change: v1::SessionChange::SessionConnected.into(),
            session_id: session.into(),
            user: "ann".into(),
            node: "edge-1".into(),
            time: None,
        };
        let body = event.encode_to_vec().into();
        self.fabric.bus.publish(&self.subjects.session_events(), body).await.expect("published");
    }
}

async fn told(instance: &mut Instance) -> String {
    match instance.frame().await {
        Frame::SessionEvent(event) => {
            assert_eq!((event.change(), event.user.as_str()), (v1::SessionChange::SessionConnected, "ann"));
            event.session_id
        }
        other => panic!("not a session event but {other:?}"),
    }
}

#[tokio::test]
async fn instances_that_want_events_share_them_and_others_get_none() {
    let house = House::start().await;
    let mut one = house.attach_as(listener("billing")).await;
    let mut two = house.attach_as(listener("billing")).await;
    let mut deaf = house.attach("billing", 4).await;
    let mut other_service = house.attach_as(listener("users")).await;
    for n in 0..10 {
        house.happened(&format!("s{n}")).await;
    }
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        seen.insert(told(&mut one).await);
        seen.insert(told(&mut two).await);
    }
    assert_eq!(seen.len(), 10, "each once: {seen:?}");
    for n in 0..10 {
        assert_eq!(told(&mut other_service).await, format!("s{n}"), "in order");
    }
    deaf.settled().await;
    let line = r#"trestle_bridge_session_events_total{service="billing",outcome="told"} 10"#;
    assert!(house.metrics().contains(line), "{}", house.metrics());
}

#[tokio::test]
async fn the_bus_is_listened_to_only_while_somebody_wants_events() {
    let house = House::start().await;
    let unheard = || async {
        let asked = house.fabric.bus.request(&house.subjects.session_events(), "".into(), A_MOMENT).await;
        matches!(asked, Err(trestle_bus::BusError::NoResponders(_)))
    };
    let deaf = house.attach("billing", 4).await;
    assert!(unheard().await);
    let one = house.attach_as(listener("billing")).await;
    let mut two = house.attach_as(listener("billing")).await;
    drop(one);
    // The event goes to the one that is left, whichever notices first.
    loop {
        house.happened("s1").await;
        tokio::select! {
            session = told(&mut two) => { assert_eq!(session, "s1"); break }
            () = tokio::task::yield_now() => {}
        }
    }
    drop((two, deaf));
    soon("the end of the subscription", async {
        while !unheard().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn events_come_outside_of_credit_and_do_not_hold_up_deliveries() {
    let house = House::start().await;
    let mut billing = house.attach_as(v1::Hello { max_in_flight: 1, ..listener("billing") }).await;
    house.store("billing", "shop.v1.OrderPaid", &shop::order(1)).await;
    let held = billing.delivery().await;
    house.happened("s1").await;
    assert_eq!(told(&mut billing).await, "s1", "with all credit in use");
    house.store("billing", "shop.v1.OrderPaid", &shop::order(2)).await;
    billing.ack([held.delivery_id]).await;
    billing.delivery().await;
}

#[tokio::test]
async fn an_instance_that_does_not_read_loses_events_and_that_is_counted() {
    let house = House::start().await;
    let _asleep = house.attach_as(listener("billing")).await;
    let line = r#"trestle_bridge_session_events_total{service="billing",outcome="no_room"}"#;
    let lost = || house.metrics().lines().find_map(|said| said.strip_prefix(line)?.trim().parse::<u64>().ok());
    soon("a loss", async {
        // HTTP/2's windows hold some; beyond them the queue fills.
        while lost().is_none_or(|lost| lost == 0) {
            house.happened(&"s".repeat(1000)).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
}
