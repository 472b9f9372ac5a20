//! Services that do not keep to the bridge's rules.

use tokio_stream::wrappers::ReceiverStream;
use trestle_wire::v1::{self, gateway_frame::Frame as Got, service_frame::Frame as Say};

use crate::{
    service::{Instance, bridge},
    support::{gateway, quiet},
};

async fn first_answer(gateway: &trestle_testkit::Gateway, frame: Option<Say>) -> Result<Option<Got>, tonic::Status> {
    let (say, said) = tokio::sync::mpsc::channel(8);
    say.send(v1::ServiceFrame { frame }).await.expect("room");
    let mut hear = bridge(gateway).await.attach(ReceiverStream::new(said)).await?.into_inner();
    Ok(hear.message().await?.and_then(|frame| frame.frame))
}

#[tokio::test]
async fn a_bad_hello_ends_the_stream_with_a_status_that_says_why() {
    let gateway = quiet().await;
    let hello = |service: &str, types: Vec<v1::ConsumedType>| {
        Some(Say::Hello(v1::Hello { service: service.into(), types, ..v1::Hello::default() }))
    };
    let consumed = |name: &str, version: &str| v1::ConsumedType {
        message_type: name.into(),
        versions: Some(version.to_owned()).filter(|version| !version.is_empty()).into_iter().collect(),
    };
    let rows = [
        (None, tonic::Code::FailedPrecondition, "hello"),
        (Some(Say::Ack(v1::Ack::default())), tonic::Code::FailedPrecondition, "hello"),
        (hello("", vec![]), tonic::Code::InvalidArgument, "service"),
        (hello("Billing!", vec![]), tonic::Code::InvalidArgument, "Billing!"),
        (hello("nobody", vec![]), tonic::Code::NotFound, "billing"),
        (hello("billing", vec![consumed("shop.v1.Nothing", "")]), tonic::Code::NotFound, "shop.v1.Nothing"),
        (hello("billing", vec![consumed("ORDER_PAID", "9.9")]), tonic::Code::NotFound, "9.9"),
    ];
    for (frame, code, part) in rows {
        let shown = format!("{frame:?}");
        let status = first_answer(&gateway, frame).await.expect_err(&shown);
        assert_eq!(status.code(), code, "{shown}: {status:?}");
        assert!(status.message().contains(part), "{shown}: {status:?}");
    }
}

#[tokio::test]
async fn a_bad_frame_after_the_hello_is_told_and_the_stream_lives() {
    let gateway = quiet().await;
    let mut users = Instance::attach(&gateway, "users", &[], 8).await;
    let rows = [
        (Say::Ack(v1::Ack { delivery_ids: vec![4711] }), "unknown_delivery"),
        (Say::Nack(v1::Nack { delivery_id: 4711, ..v1::Nack::default() }), "unknown_delivery"),
        (Say::Reply(v1::Reply { delivery_id: 4711, message: None }), "unknown_delivery"),
        (Say::Hello(v1::Hello { service: "users".into(), ..v1::Hello::default() }), "hello_expected"),
    ];
    for (frame, reason) in rows {
        let shown = format!("{frame:?}");
        users.say(frame).await;
        match users.frame().await {
            Got::Error(error) => assert_eq!(error.reason, reason, "{shown}"),
            other => panic!("{shown}: {other:?}"),
        }
    }
    let nowhere = v1::PushStreamRequest { seq: 5, push: Some(v1::PushRequest::default()), count: true };
    users.say(Say::Push(nowhere)).await;
    match users.frame().await {
        Got::Pushed(v1::PushStreamResponse {
            seq: 5,
            outcome: Some(v1::push_stream_response::Outcome::Error(error)),
        }) => {
            assert_eq!(error.reason, "invalid_target");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bad_push_by_grpc_has_its_status() {
    let gateway = gateway(&[]).await;
    let mut bridge = bridge(&gateway).await;
    let push = |channel: &str, message: Option<v1::Envelope>| v1::PushRequest {
        target: Some(v1::Target { target: Some(v1::target::Target::Channel(channel.into())) }),
        message,
    };
    let comment = |payload: &[u8]| {
        Some(v1::Envelope {
            message_type: "chat.v1.Comment".into(),
            payload: payload.to_vec().into(),
            ..v1::Envelope::default()
        })
    };
    for (request, code) in [
        (v1::PushRequest::default(), tonic::Code::InvalidArgument),
        (push("live:1", None), tonic::Code::InvalidArgument),
        (push("live:*", comment(&[0x0a, 1, b'a'])), tonic::Code::InvalidArgument),
        (push("nowhere:1", comment(&[0x0a, 1, b'a'])), tonic::Code::NotFound),
        (push("live:1", comment(&[0x0a, 9, b'a'])), tonic::Code::InvalidArgument),
        (push("live:1", comment(&[])), tonic::Code::InvalidArgument),
    ] {
        let shown = format!("{request:?}");
        let status = bridge.push(request).await.expect_err(&shown);
        assert_eq!(status.code(), code, "{shown}: {status:?}");
    }
}
