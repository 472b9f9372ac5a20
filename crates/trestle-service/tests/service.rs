//! The SDK against a gateway that says what the test tells it to, over real gRPC.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use support::{ASK, Gateway, NOTE, Note, note, notes, run, soon};
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;
use trestle_service::{Context, Nack, PushError, Pusher, ServiceError, Target};
use trestle_wire::v1::{self, gateway_frame::Frame, push_stream_response::Outcome, service_frame::Frame as Said};

#[tokio::test]
async fn the_hello_says_what_is_taken_and_what_is_done_is_acked() {
    let mut gateway = Gateway::start().await;
    let (done, mut seen) = mpsc::channel(4);
    let running = run(
        &gateway,
        notes().instance("notes-1").max_in_flight(7).on(NOTE, move |context: Context, note: Note| {
            let done = done.clone();
            async move {
                let said = (note.text, context.sender().session.clone(), context.attempt());
                done.send(said).await.map_err(|_| Nack::again())
            }
        }),
    );
    let (mut stream, hello) = gateway.hello().await;
    assert_eq!((hello.service.as_str(), hello.instance.as_str(), hello.max_in_flight), ("notes", "notes-1", 7));
    assert_eq!(hello.types.iter().map(|taken| taken.message_type.as_str()).collect::<Vec<_>>(), [NOTE]);
    stream.say(Frame::Attached(v1::Attached::default())).await;
    let id = stream.deliver(NOTE, "hi").await;
    assert_eq!(soon("the handler", seen.recv()).await, Some(("hi".into(), "s1".into(), 1)));
    assert_eq!(stream.said().await, Said::Ack(v1::Ack { delivery_ids: vec![id] }));
    drop(running.service);
}

#[tokio::test]
async fn what_fails_comes_again_later_whether_it_says_so_or_breaks_down() {
    let mut gateway = Gateway::start().await;
    let _running = run(
        &gateway,
        notes().on(NOTE, |_: Context, note: Note| async move {
            match note.text.as_str() {
                "later" => Err(Nack::later(Duration::from_secs(7))),
                "number" => note.text.parse::<u32>().map(drop).map_err(Nack::from),
                "panic" => panic!("told to"),
                _ => Ok(()),
            }
        }),
    );
    let mut stream = gateway.attached().await;
    for (text, seconds) in [("later", 7), ("number", 1), ("panic", 1)] {
        let id = stream.deliver(NOTE, text).await;
        let Said::Nack(nack) = stream.said().await else { panic!("{text}: not nacked") };
        assert_eq!((nack.delivery_id, nack.delay.map(|delay| delay.seconds)), (id, Some(seconds)), "{text}");
    }
    let id = stream.deliver(NOTE, "fine").await;
    assert_eq!(stream.said().await, Said::Ack(v1::Ack { delivery_ids: vec![id] }));
}

#[tokio::test]
async fn a_request_is_answered_with_the_reply_or_the_services_own_error() {
    let mut gateway = Gateway::start().await;
    let _running = run(
        &gateway,
        notes().on_request(ASK, NOTE, |_: Context, ask: Note| async move {
            match ask.text.as_str() {
                "unknown" => Err(Nack::refuse(v1::Code::NotFound, "no_such_note", "there is no such note")),
                text => Ok(note(&text.to_uppercase())),
            }
        }),
    );
    let mut stream = gateway.attached().await;
    let id = stream.deliver(ASK, "hi").await;
    let Said::Reply(reply) = stream.said().await else { panic!("not replied") };
    let message = reply.message.expect("a message");
    assert_eq!((reply.delivery_id, message.message_type.as_str()), (id, NOTE));
    assert_eq!(Note::decode(message.payload).expect("a note"), note("HI"));

    stream.deliver(ASK, "unknown").await;
    let Said::Nack(nack) = stream.said().await else { panic!("not nacked") };
    let error = nack.error.expect("an error");
    assert_eq!((error.code(), error.reason.as_str()), (v1::Code::NotFound, "no_such_note"));
}

#[tokio::test]
async fn a_cancel_reaches_the_handler_and_its_result_is_not_sent() {
    let mut gateway = Gateway::start().await;
    let (told, mut heard) = mpsc::channel(1);
    let _running = run(
        &gateway,
        notes().on(NOTE, move |context: Context, note: Note| {
            let told = told.clone();
            async move {
                if note.text == "long" {
                    context.cancelled().await;
                    told.send(context.is_cancelled()).await.map_err(|_| Nack::again())?;
                }
                Ok(())
            }
        }),
    );
    let mut stream = gateway.attached().await;
    let long = stream.deliver(NOTE, "long").await;
    stream.say(Frame::Cancel(v1::Cancel { delivery_id: long })).await;
    assert_eq!(soon("the cancel", heard.recv()).await, Some(true));
    let short = stream.deliver(NOTE, "short").await;
    assert_eq!(stream.said().await, Said::Ack(v1::Ack { delivery_ids: vec![short] }));
}

#[tokio::test]
async fn handlers_push_on_the_stream_and_learn_what_became_of_it() {
    let mut gateway = Gateway::start().await;
    let (told, mut heard) = mpsc::channel(2);
    let _running = run(
        &gateway,
        notes().on(NOTE, move |context: Context, got: Note| {
            let told = told.clone();
            async move {
                let target = Target::Session(context.sender().session.clone());
                let result = context.push_counted(target, NOTE, &got).await;
                told.send(result).await.map_err(|_| Nack::again())
            }
        }),
    );
    let mut stream = gateway.attached().await;
    let report = v1::PushReport { delivered: 1, counted: true, ..v1::PushReport::default() };
    let refused = v1::Error { reason: "bus_away".into(), ..v1::Error::default() };
    for outcome in [Outcome::Report(report), Outcome::Error(refused)] {
        stream.deliver(NOTE, "hi").await;
        let Said::Push(push) = stream.said().await else { panic!("not pushed") };
        assert!(push.count);
        let target = push.push.expect("a push").target.and_then(|target| target.target);
        assert_eq!(target, Some(v1::target::Target::Session("s1".into())));
        stream.say(Frame::Pushed(v1::PushStreamResponse { seq: push.seq, outcome: Some(outcome.clone()) })).await;
        match (soon("the result", heard.recv()).await.expect("told"), outcome) {
            (Ok(got), Outcome::Report(report)) => assert_eq!(got, report),
            (Err(PushError::Refused(got)), Outcome::Error(error)) => assert_eq!(got, error),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
        assert!(matches!(stream.said().await, Said::Ack(_)));
    }
}

#[tokio::test]
async fn no_more_handlers_run_at_once_than_allowed() {
    let mut gateway = Gateway::start().await;
    let (running_now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let gate = Arc::new(Semaphore::new(0));
    let (started, mut starts) = mpsc::channel(16);
    let handler = {
        let (running_now, most, gate) = (running_now.clone(), most.clone(), gate.clone());
        move |_: Context, _: Note| {
            let (running_now, most, gate, started) = (running_now.clone(), most.clone(), gate.clone(), started.clone());
            async move {
                most.fetch_max(running_now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                started.send(()).await.map_err(|_| Nack::again())?;
                gate.acquire().await.map_err(Nack::from)?.forget();
                running_now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        }
    };
    let _running = run(&gateway, notes().max_in_flight(2).on(NOTE, handler));
    let mut stream = gateway.attached().await;
    // A gateway that gives more than it was asked for.
    for n in 0..6 {
        stream.deliver(NOTE, &n.to_string()).await;
    }
    for _ in 0..6 {
        soon("a start", starts.recv()).await;
        gate.add_permits(1);
    }
    let mut acked = 0;
    while acked < 6 {
        match stream.said().await {
            Said::Ack(ack) => acked += ack.delivery_ids.len(),
            other => panic!("not acked but {other:?}"),
        }
    }
    assert_eq!((acked, most.load(Ordering::SeqCst)), (6, 2));
}

#[tokio::test]
async fn a_lost_stream_is_attached_again_and_its_handlers_are_told() {
    let mut gateway = Gateway::start().await;
    let (told, mut heard) = mpsc::channel(1);
    let _running = run(
        &gateway,
        notes().on(NOTE, move |context: Context, note: Note| {
            let told = told.clone();
            async move {
                if note.text == "long" {
                    context.cancelled().await;
                    told.send(()).await.map_err(|_| Nack::again())?;
                }
                Ok(())
            }
        }),
    );
    let mut first = gateway.attached().await;
    first.deliver(NOTE, "long").await;
    first.say.send(Err(Status::unavailable("the gateway restarts"))).await.expect("the stream is open");
    soon("the cancel", heard.recv()).await.expect("told");
    let mut second = gateway.attached().await;
    let id = second.deliver(NOTE, "short").await;
    assert_eq!(second.said().await, Said::Ack(v1::Ack { delivery_ids: vec![id] }));
}

fn refusal(reason: &str, retryable: &str) -> Status {
    let mut status = Status::not_found("no route names the service notes");
    status.metadata_mut().insert("trestle-reason", reason.parse().expect("ASCII"));
    status.metadata_mut().insert("trestle-retryable", retryable.parse().expect("ASCII"));
    status
}

#[tokio::test]
async fn a_service_that_will_never_be_taken_says_so_at_once() {
    let mut gateway = Gateway::start().await;
    let running = run(&gateway, notes().on(NOTE, |_: Context, _: Note| async { Ok(()) }));
    let (stream, _) = gateway.hello().await;
    stream.say.send(Err(refusal("bus_away", "true"))).await.expect("open");
    drop(stream);
    // That one may pass; this one does not.
    let (stream, _) = gateway.hello().await;
    stream.say.send(Err(refusal("unknown_service", "false"))).await.expect("open");
    match soon("the end", running.service).await.expect("did not panic") {
        Err(ServiceError::Refused { reason, .. }) => assert_eq!(reason, "unknown_service"),
        other => panic!("not refused but {other:?}"),
    }
}

#[tokio::test]
async fn a_service_that_was_taken_before_does_not_give_up() {
    let mut gateway = Gateway::start().await;
    let _running = run(&gateway, notes().on(NOTE, |_: Context, _: Note| async { Ok(()) }));
    drop(gateway.attached().await);
    let (stream, _) = gateway.hello().await;
    stream.say.send(Err(refusal("unknown_service", "false"))).await.expect("open");
    drop(stream);
    gateway.attached().await;
}

#[tokio::test]
async fn at_shutdown_what_runs_may_finish_and_is_acked() {
    let mut gateway = Gateway::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let open = gate.clone();
    let (started, mut starts) = mpsc::channel(2);
    let running = run(
        &gateway,
        notes().on(NOTE, move |_: Context, _: Note| {
            let (gate, started) = (gate.clone(), started.clone());
            async move {
                started.send(()).await.map_err(|_| Nack::again())?;
                gate.acquire().await.map(|permit| permit.forget()).map_err(Nack::from)
            }
        }),
    );
    let mut stream = gateway.attached().await;
    let first = stream.deliver(NOTE, "one").await;
    soon("the start", starts.recv()).await;
    drop(running.stop);
    assert_eq!(stream.said().await, Said::Credit(v1::Credit { max_in_flight: 0 }));
    // Sent before the gateway knew.
    let second = stream.deliver(NOTE, "two").await;
    soon("the start", starts.recv()).await;
    open.add_permits(2);
    let mut acked: Vec<_> = stream
        .rest()
        .await
        .into_iter()
        .flat_map(|said| match said {
            Said::Ack(ack) => ack.delivery_ids,
            other => panic!("not acked but {other:?}"),
        })
        .collect();
    acked.sort_unstable();
    assert_eq!(acked, [first, second]);
    drop(stream);
    soon("the end", running.service).await.expect("did not panic").expect("stopped");
}

#[tokio::test]
async fn a_wrong_endpoint_is_named() {
    let error = notes().endpoint("not a uri").run(std::future::pending()).await.expect_err("no endpoint");
    assert!(error.to_string().contains("not a uri"), "{error}");
}

#[tokio::test]
async fn a_pusher_reports_and_refuses() {
    let gateway = Gateway::start().await;
    let pusher = Pusher::new(&gateway.endpoint).expect("a uri");
    let report = pusher.push(Target::User("ann".into()), NOTE, &note("hi")).await.expect("pushed");
    assert_eq!((report.delivered, report.counted), (2, true));
    match pusher.push(Target::Channel("nowhere:1".into()), NOTE, &note("hi")).await {
        Err(PushError::Refused(error)) => assert_eq!(error.reason, "unknown_namespace"),
        other => panic!("not refused but {other:?}"),
    }
}

#[tokio::test]
async fn a_stream_of_pushes_is_answered_within_its_window() {
    let gateway = Gateway::start().await;
    let pusher = Pusher::new(&gateway.endpoint).expect("a uri");
    let mut stream = soon("the stream", pusher.stream(8)).await.expect("begins");
    let mut receipts = Vec::new();
    for n in 0..100 {
        let note = note(&n.to_string());
        receipts.push(soon("room", stream.send(Target::Everyone, NOTE, &note)).await.expect("sent"));
    }
    soon("the end", stream.finish()).await;
    for (n, receipt) in (1_u64..).zip(receipts) {
        assert_eq!(receipt.await.expect("reported").offset, n);
    }
}
