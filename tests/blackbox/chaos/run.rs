//! One run: everybody comes, traffic flows, something breaks, traffic flows on, and the logs are read.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use trestle_client::{Client, Options, Outgoing};

use super::{
    check::{Bus, LAST, Log, Verdict, check},
    fleet::{Fleet, NODE_TIMEOUT},
    json,
    listen::{self, CHANNELS},
    speak::{self, Book, Comment},
};
use crate::support::LOOK_EVERY;

/// Listeners on the SDK, in protobuf, and by hand, in JSON; speakers; instances of the service.
const LISTENERS: usize = 8;
const JSON_LISTENERS: usize = 4;
const SPEAKERS: u32 = 3;
const INSTANCES: usize = 2;
/// Acked messages before the fault.
const WARM: usize = 150;
/// Longest wait for traffic to flow, and for all to have heard everything.
const PATIENCE: Duration = Duration::from_secs(60);
/// A node that died is known to be gone this much after its timeout, and presence is told this often.
const GHOST_MAX: Duration = Duration::from_secs(3);
/// Between two times that the last word is said, for those who come back late.
const LAST_EVERY: Duration = Duration::from_millis(500);

/// Everybody, and what they write down.
pub(super) struct Run {
    name: &'static str,
    pub(super) fleet: Fleet,
    book: Arc<Book>,
    listeners: Vec<Client>,
    logs: Vec<JoinHandle<Log>>,
    json: Vec<JoinHandle<Vec<Log>>>,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    services: CancellationToken,
    fault: Option<Instant>,
    bus: Bus,
}

impl Run {
    /// Everybody comes, and traffic flows.
    pub(super) async fn start(name: &'static str, fleet: Fleet) -> Self {
        let (address, endpoint) = (fleet.clients(), fleet.services());
        let url = format!("ws://{address}/ws");
        let (stop, services) = (CancellationToken::new(), CancellationToken::new());
        let (book, mut listeners, mut logs) = (Arc::new(Book::default()), Vec::new(), Vec::new());
        for number in 0..LISTENERS {
            let (client, more) = listen::listener(&url, format!("protobuf {number}")).await;
            listeners.push(client);
            logs.extend(more);
        }
        let mut json = Vec::new();
        for number in 0..JSON_LISTENERS {
            let (ready, begun) = oneshot::channel();
            json.push(tokio::spawn(json::listener(address, format!("json {number}"), ready)));
            timeout(PATIENCE, begun).await.expect("in time").expect("it listens");
        }
        let mut tasks = Vec::new();
        for _ in 0..INSTANCES {
            tasks.push(speak::instance(&endpoint, book.clone(), services.clone()));
        }
        for speaker in 0..SPEAKERS {
            tasks.push(speak::speaker(&url, speaker, book.clone(), stop.clone()).await);
        }
        tasks.push(speak::pusher(&endpoint, book.clone(), stop.clone()));
        let run =
            Self { name, fleet, book, listeners, logs, json, tasks, stop, services, fault: None, bus: Bus::Whole };
        run.flows(WARM).await;
        run
    }

    /// Returns when so many more messages have been acked.
    pub(super) async fn flows(&self, messages: usize) {
        let goal = self.book.acked() + messages;
        let flows = async {
            while self.book.acked() < goal {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, flows).await.unwrap_or_else(|_| panic!("{}: traffic does not flow", self.name));
    }

    /// Something breaks now.
    pub(super) fn breaks(&mut self) {
        self.fault.get_or_insert_with(Instant::now);
    }

    /// A server of the bus is about to die.
    pub(super) fn breaks_the_bus(&mut self) {
        self.breaks();
        self.bus = Bus::Broken;
    }

    /// Says the last words, reads the logs, prints what they come to, and fails if a promise was broken.
    pub(super) async fn finish(mut self) -> Verdict {
        self.stop.cancel();
        let ghosts = self.no_ghosts().await;
        let services = self.tasks.drain(..INSTANCES).collect::<Vec<_>>();
        for task in self.tasks.drain(..) {
            timeout(PATIENCE, task).await.expect("a speaker ends").expect("without a panic");
        }
        let logs = self.hear_out().await;
        self.all_handled().await;
        self.services.cancel();
        for service in services {
            timeout(PATIENCE, service).await.expect("the service ends").expect("without a panic");
        }
        let verdict = check(&self.book.all(), &logs, self.bus);
        self.print(&verdict, ghosts).await;
        assert!(verdict.faults.is_empty(), "{}: {:#?}", self.name, verdict.faults);
        verdict
    }

    /// The last word on every channel, again and again until all listeners have heard it.
    async fn hear_out(&mut self) -> Vec<Log> {
        let url = format!("ws://{}/ws", self.fleet.clients());
        let last = tokio::spawn(async move {
            let client = Client::connect(&url, Options::default()).await.expect("connected");
            for number in 1.. {
                for channel in CHANNELS {
                    let message = Outgoing::of(&Comment { text: format!("{LAST} {number}") });
                    // Who has not heard it hears the next.
                    let _said = client.publish(channel, message).await;
                }
                sleep(LAST_EVERY).await;
            }
        });
        let logs = join_all(self.logs.drain(..));
        let json = join_all(self.json.drain(..));
        let (logs, json) = timeout(PATIENCE, futures_util::future::join(logs, json))
            .await
            .unwrap_or_else(|_| panic!("{}: not all listeners have heard the last word", self.name));
        last.abort();
        let json = json.into_iter().flat_map(|logs| logs.expect("a listener without a panic"));
        logs.into_iter().map(|log| log.expect("a listener without a panic")).chain(json).collect()
    }

    /// Exactly those are shown as present who listen; how long after the fault that was seen.
    async fn no_ghosts(&self) -> Option<Duration> {
        let bound = NODE_TIMEOUT + GHOST_MAX;
        let bound = self.fault.map_or(bound, |fault| bound.saturating_sub(fault.elapsed())).max(GHOST_MAX);
        let mut shown = 0;
        let right = async {
            loop {
                if let Ok(presence) = self.listeners[0].presence(CHANNELS[0]).await {
                    shown = presence.sessions as usize;
                    if shown == LISTENERS + JSON_LISTENERS {
                        break;
                    }
                }
                sleep(LOOK_EVERY).await;
            }
        };
        let right = timeout(bound, right).await;
        assert!(right.is_ok(), "{}: {shown} are shown, {} are there", self.name, LISTENERS + JSON_LISTENERS);
        self.fault.map(|fault| fault.elapsed())
    }

    /// What was acked was handled.
    async fn all_handled(&self) {
        let handled = async {
            loop {
                let missing = {
                    let (orders, handled) = (self.book.orders.lock().unwrap(), self.book.handled.lock().unwrap());
                    orders.iter().filter(|order| !handled.contains_key(*order)).count()
                };
                if missing == 0 {
                    break;
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, handled).await.unwrap_or_else(|_| panic!("{}: acked orders are not handled", self.name));
    }

    async fn print(&self, verdict: &Verdict, ghosts: Option<Duration>) {
        let Verdict { said, acked, checked, told, gaps, unheard, lag, faults } = verdict;
        let (orders, handled) = (self.book.orders.lock().unwrap().len(), self.book.handled.lock().unwrap().clone());
        let again = handled.values().filter(|times| **times > 1).count();
        let mut reasons = std::mem::take(&mut *self.book.unanswered.lock().unwrap());
        let (answered, unanswered) = (self.book.answered.load(Ordering::Relaxed), reasons.len());
        reasons.sort();
        reasons.dedup();
        println!(
            "chaos {}: {said} said, {acked} acked, {checked} deliveries checked, {} faults; {} gaps told, {told} messages \
             in them, {unheard} not heard where the bus broke; recovered within {lag:.1?}, slowest ack {:.1?}; {orders} orders acked, the slowest after {:.1?}, {again} handled twice; \
             {answered} questions answered, {unanswered} not {reasons:?}; presence right after {ghosts:.1?}; resumes: {}",
            self.name,
            faults.len(),
            gaps.len(),
            self.book.slowest(),
            self.book.slowest_order(),
            self.fleet.resumes().await,
        );
    }
}
