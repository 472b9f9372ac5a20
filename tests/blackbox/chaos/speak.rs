//! Those who speak: clients that publish, order and ask; a service that pushes, handles and answers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use trestle_client::{Client, Error, Options, Outgoing};
use trestle_service::{Context, Nack, Pusher, Service, Target};

use super::{check::Said, listen::CHANNELS};
use crate::support::OrderPaid;

/// How often a speaker says something.
const SAY_EVERY: Duration = Duration::from_millis(25);
/// How long a question waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The number of the service as a speaker.
pub(super) const SERVICE: u32 = 100;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Comment {
    #[prost(string, tag = "1")]
    pub(super) text: String,
}

impl prost::Name for Comment {
    const NAME: &'static str = "Comment";
    const PACKAGE: &'static str = "chat.v1";
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetQuote {
    #[prost(string, tag = "1")]
    sku: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Quote {
    #[prost(string, tag = "1")]
    sku: String,
}

impl prost::Name for Quote {
    const NAME: &'static str = "Quote";
    const PACKAGE: &'static str = "shop.v1";
}

/// What was said, and what came of it; shared by all speakers.
#[derive(Default)]
pub(super) struct Book {
    said: Mutex<Vec<Said>>,
    acked: AtomicUsize,
    /// Orders that were acked.
    pub(super) orders: Mutex<Vec<String>>,
    /// Orders that the service handled, and how often.
    pub(super) handled: Mutex<HashMap<String, u32>>,
    pub(super) answered: AtomicUsize,
    /// Questions that failed, with the reason.
    pub(super) unanswered: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
    slowest_order: Mutex<Duration>,
}

impl Book {
    fn said(&self, said: Said, took: Duration) {
        if said.acked.is_some() {
            self.acked.fetch_add(1, Ordering::Relaxed);
            let mut slowest = self.slowest.lock().unwrap();
            *slowest = took.max(*slowest);
        }
        self.said.lock().unwrap().push(said);
    }

    /// How many were acked so far.
    pub(super) fn acked(&self) -> usize {
        self.acked.load(Ordering::Relaxed)
    }

    /// Longest time that an ack took.
    pub(super) fn slowest(&self) -> Duration {
        *self.slowest.lock().unwrap()
    }

    /// Longest time until an order was acked.
    pub(super) fn slowest_order(&self) -> Duration {
        *self.slowest_order.lock().unwrap()
    }

    pub(super) fn all(&self) -> Vec<Said> {
        self.said.lock().unwrap().clone()
    }
}

/// A client that speaks until `stop`: on each channel in turn, then an order, then a question.
pub(super) async fn speaker(url: &str, speaker: u32, book: Arc<Book>, stop: CancellationToken) -> JoinHandle<()> {
    let client = Client::connect(url, Options::default()).await.expect("connected");
    tokio::spawn(async move {
        let mut ticks = interval(SAY_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        while !stop.is_cancelled() {
            number += 1;
            for channel in CHANNELS {
                ticks.tick().await;
                let began = Instant::now();
                let message = Outgoing::of(&Comment { text: format!("{speaker} {number}") });
                let acked = client.publish(channel, message).await.map(|accepted| accepted.offset);
                book.said(Said { channel, speaker, number, acked: acked.ok(), at: Instant::now() }, began.elapsed());
            }
            ticks.tick().await;
            order(&client, &book, format!("{speaker}-{number}")).await;
            ticks.tick().await;
            ask(&client, &book, format!("{speaker}-{number}")).await;
        }
        client.close().await;
    })
}

async fn order(client: &Client, book: &Book, order_id: String) {
    let began = Instant::now();
    let order = prost::Message::encode_to_vec(&OrderPaid { order_id: order_id.clone(), cents: 1 });
    if client.send(Outgoing::new("shop.v1.OrderPaid", order).version("1.0")).await.is_ok() {
        book.orders.lock().unwrap().push(order_id);
        let mut slowest = book.slowest_order.lock().unwrap();
        *slowest = began.elapsed().max(*slowest);
    }
}

async fn ask(client: &Client, book: &Book, sku: String) {
    let question = prost::Message::encode_to_vec(&GetQuote { sku: sku.clone() });
    let question = Outgoing::new("shop.v1.GetQuote", question).idempotent();
    match client.request_as::<Quote>(question, PATIENCE).await {
        Ok(quote) => {
            assert_eq!(quote.sku, sku, "the answer to another question");
            book.answered.fetch_add(1, Ordering::Relaxed);
        }
        Err(Error::Refused(error)) => book.unanswered.lock().unwrap().push(error.reason),
        Err(other) => book.unanswered.lock().unwrap().push(other.to_string()),
    }
}

/// A service that pushes on a channel with a history until `stop`. A push that fails may have gone out.
pub(super) fn pusher(endpoint: &str, book: Arc<Book>, stop: CancellationToken) -> JoinHandle<()> {
    let pusher = Pusher::new(endpoint).expect("an address");
    tokio::spawn(async move {
        let mut ticks = interval(SAY_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        while !stop.is_cancelled() {
            ticks.tick().await;
            number += 1;
            let (channel, began) = (CHANNELS[1], Instant::now());
            let comment = Comment { text: format!("{SERVICE} {number}") };
            let pushed = pusher.push(Target::Channel(channel.into()), "chat.v1.Comment", &comment).await;
            let acked = pushed.map(|report| report.offset).ok();
            book.said(Said { channel, speaker: SERVICE, number, acked, at: Instant::now() }, began.elapsed());
        }
    })
}

/// An instance of the service that handles orders and answers questions.
pub(super) fn instance(endpoint: &str, book: Arc<Book>, stop: CancellationToken) -> JoinHandle<()> {
    let service = Service::builder("billing")
        .endpoint(endpoint)
        .on("shop.v1.OrderPaid", move |_: Context, order: OrderPaid| {
            let book = book.clone();
            async move {
                *book.handled.lock().unwrap().entry(order.order_id).or_default() += 1;
                Ok::<(), Nack>(())
            }
        })
        .on_request("shop.v1.GetQuote", "shop.v1.Quote", |_: Context, question: GetQuote| async move {
            Ok::<_, Nack>(Quote { sku: question.sku })
        });
    tokio::spawn(async move { service.run(stop.cancelled_owned()).await.expect("it is taken") })
}
