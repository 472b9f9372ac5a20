//! The bus of one simulated node: the three traits, over its link to the world.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use trestle_bus::{
    Appended, Bus, BusError, BusState, Consumer, ConsumerSpec, Ends, Entry, Fabric, Kv, KvEvent, Log, LogSpec, Message,
    Stored, Subject, Subscription,
};

use crate::{
    stream::Stream,
    world::{Fact, Listening, State, Watching, World},
};

/// Messages that a subscription holds: so few that a burst is too much at times.
const QUEUE_MESSAGES: usize = 24;
const QUEUE_BYTES: usize = 1 << 20;
/// As NATS: 1 MiB.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Answers that a gather waits for at most.
const ANSWERS_MAX: usize = 16;
/// How far a replica is behind at most.
const BEHIND: Duration = Duration::from_millis(900);

/// A node's side of its link.
pub(crate) struct Port {
    world: Arc<World>,
    link: u64,
    inboxes: AtomicU64,
}

/// Connects a node called `name`.
pub(crate) fn connect(world: &Arc<World>, name: &str) -> (u64, Fabric) {
    let link = world.with(|state| state.connect(name));
    let port = Arc::new(Port { world: Arc::clone(world), link, inboxes: AtomicU64::new(0) });
    (link, Fabric { bus: port.clone(), log: port.clone(), kv: port })
}

impl Port {
    /// Asks, and hands the answers to `take` until it has enough.
    async fn asks(&self, subject: &Subject, payload: Bytes) -> Result<(usize, mpsc::Receiver<Bytes>, Inbox), BusError> {
        let number = self.inboxes.fetch_add(1, Ordering::Relaxed);
        let reply_to = Subject::from_trusted(format!("_INBOX.{}.{number}", self.link));
        let (tell, answers) = mpsc::channel(ANSWERS_MAX);
        let (link, to) = (self.link, reply_to.clone());
        self.world.with(|state| state.inboxes.insert(to, (link, tell)));
        let inbox = Inbox { world: Arc::clone(&self.world), subject: reply_to.clone() };
        let message = Message { subject: subject.clone(), reply_to: Some(reply_to), payload, place: None };
        let heard = self.world.call(self.link, move |state| state.route(message)).await?;
        Ok((heard, answers, inbox))
    }
}

/// Where answers come; dropping it ends that.
struct Inbox {
    world: Arc<World>,
    subject: Subject,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.world.with(|state| state.inboxes.remove(&self.subject));
    }
}

#[async_trait]
impl Bus for Port {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.world.say(self.link, Message { subject: subject.clone(), reply_to: None, payload, place: None })
    }

    async fn publish_with_reply(&self, subject: &Subject, reply_to: &Subject, payload: Bytes) -> Result<(), BusError> {
        let message = Message { subject: subject.clone(), reply_to: Some(reply_to.clone()), payload, place: None };
        self.world.say(self.link, message)
    }

    async fn subscribe(&self, pattern: &Subject, group: Option<&str>) -> Result<Subscription, BusError> {
        let id = self.world.with(State::number);
        let (world, over) = (Arc::clone(&self.world), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&over);
        let ends = Ends::with(move || {
            ended.store(true, Ordering::Relaxed);
            world.with(|state| state.listening.remove(&id));
        });
        let (feed, subscription) = Subscription::bounded(QUEUE_MESSAGES, QUEUE_BYTES, ends);
        let (link, pattern, group) = (self.link, pattern.clone(), group.map(str::to_owned));
        let begun = self.world.call(self.link, move |state| {
            // Whoever asked may have gone meanwhile.
            if !over.load(Ordering::Relaxed) {
                state.listening.insert(id, Listening { link, pattern, group, feed });
            }
        });
        begun.await?;
        Ok(subscription)
    }

    async fn request(&self, subject: &Subject, payload: Bytes, patience: Duration) -> Result<Bytes, BusError> {
        let answer = timeout(patience, async {
            let (heard, mut answers, _inbox) = self.asks(subject, payload).await?;
            if heard == 0 {
                return Err(BusError::NoResponders(subject.clone()));
            }
            answers.recv().await.ok_or(BusError::Away)
        });
        answer.await.unwrap_or(Err(BusError::Timeout(patience)))
    }

    async fn gather(
        &self,
        subject: &Subject,
        payload: Bytes,
        most: usize,
        quiet: Duration,
    ) -> Result<Vec<Bytes>, BusError> {
        let (_, mut answers, _inbox) = self.asks(subject, payload).await?;
        let mut gathered = Vec::new();
        while gathered.len() < most
            && let Ok(Some(answer)) = timeout(quiet, answers.recv()).await
        {
            gathered.push(answer);
        }
        Ok(gathered)
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.world.with(|state| state.bus_state(self.link))
    }

    fn payload_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX
    }

    fn nodes_max(&self) -> Option<usize> {
        None
    }

    async fn close(&self) {
        self.world.with(|state| state.close(self.link));
    }
}

#[async_trait]
impl Log for Port {
    async fn ensure(&self, spec: &LogSpec) -> Result<(), BusError> {
        let spec = spec.clone();
        let made = self.world.call(self.link, move |state| {
            state.streams.entry(spec.name.clone()).or_insert_with(|| Stream::new(spec));
        });
        made.await
    }

    async fn append(&self, subject: &Subject, dedup: Option<&str>, payload: Bytes) -> Result<Appended, BusError> {
        let (subject, dedup) = (subject.clone(), dedup.map(str::to_owned));
        let stored = self.world.call(self.link, move |state| {
            let stream = state.streams.values_mut().find(|stream| stream.covers(&subject));
            let stream = stream.ok_or_else(|| BusError::NoLog(subject.to_string()))?;
            let (appended, live) = stream.append(&subject, dedup.as_deref(), payload.clone());
            if !appended.duplicate {
                state.judge.lock().appended(&subject, appended.offset, &payload);
            }
            if let Some((subject, place)) = live {
                state.republish(subject, place, payload);
            }
            Ok(appended)
        });
        stored.await?
    }

    async fn read(&self, log: &str, subject: &Subject, from: u64, most: usize) -> Result<Vec<Stored>, BusError> {
        let (log, subject) = (log.to_owned(), subject.clone());
        let read = self.world.call(self.link, move |state| {
            let behind = state.chance(state.weather.behind);
            let until = if behind { Instant::now() - BEHIND } else { Instant::now() };
            let stream = state.streams.get_mut(&log).ok_or_else(|| BusError::NoLog(log.clone()))?;
            Ok(stream.read(&subject, from, most, until))
        });
        read.await?
    }

    async fn last(&self, log: &str, subject: &Subject) -> Result<u64, BusError> {
        let (log, subject) = (log.to_owned(), subject.clone());
        let last = self.world.call(self.link, move |state| {
            let stream = state.streams.get_mut(&log).ok_or_else(|| BusError::NoLog(log.clone()))?;
            Ok(stream.last(&subject))
        });
        last.await?
    }

    async fn reached(&self, log: &str) -> Result<u64, BusError> {
        let log = log.to_owned();
        let reached = self.world.call(self.link, move |state| {
            state.streams.get(&log).map(Stream::reached).ok_or_else(|| BusError::NoLog(log.clone()))
        });
        reached.await?
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Arc<dyn Consumer>, BusError> {
        Err(BusError::Refused(format!("no service takes {} in this simulation", spec.filter)))
    }
}

#[async_trait]
impl Kv for Port {
    async fn get(&self, key: &str) -> Result<Option<Entry>, BusError> {
        let key = key.to_owned();
        self.world.call(self.link, move |state| state.facts.get(&key).map(|fact| fact.entry.clone())).await
    }

    async fn entries(&self, prefix: &str) -> Result<Vec<(String, Entry)>, BusError> {
        let prefix = prefix.to_owned();
        let entries = self.world.call(self.link, move |state| {
            let all = state.facts.iter().filter(|(key, _)| key.starts_with(&prefix));
            all.map(|(key, fact)| (key.clone(), fact.entry.clone())).collect()
        });
        entries.await
    }

    async fn each(&self, prefix: &str, visit: &mut (dyn FnMut(String, Entry) + Send)) -> Result<(), BusError> {
        self.entries(prefix).await?.into_iter().for_each(|(key, entry)| visit(key, entry));
        Ok(())
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, BusError> {
        let key = key.to_owned();
        self.world.call(self.link, move |state| state.set(key, value, ttl)).await
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: u64,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Option<u64>, BusError> {
        let key = key.to_owned();
        let set = self.world.call(self.link, move |state| {
            let there = state.facts.get(&key).map_or(0, |fact| fact.entry.revision);
            (there == expected).then(|| state.set(key, value, ttl))
        });
        set.await
    }

    async fn delete(&self, key: &str) -> Result<(), BusError> {
        let key = key.to_owned();
        self.world.call(self.link, move |state| state.unset(&key)).await
    }

    async fn watch(&self, prefix: &str) -> Result<mpsc::Receiver<KvEvent>, BusError> {
        let (tell, events) = mpsc::channel(1024);
        let (link, prefix) = (self.link, prefix.to_owned());
        let watching = Watching { link, prefix, tell, missed: Vec::new() };
        self.world
            .call(self.link, move |state| {
                let id = state.number();
                state.watches.insert(id, watching);
            })
            .await?;
        Ok(events)
    }
}

/// Keys.
impl State {
    fn set(&mut self, key: String, value: Bytes, ttl: Option<Duration>) -> u64 {
        let revision = self.revise();
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        let entry = Entry { value, revision };
        self.facts.insert(key.clone(), Fact { entry: entry.clone(), expires });
        self.tell(&KvEvent { key: key.clone(), entry: Some(entry) });
        if let Some(at) = expires {
            self.at(at, move |state| {
                if state.facts.get(&key).is_some_and(|fact| fact.entry.revision == revision && fact.expires == Some(at))
                {
                    state.unset(&key);
                }
            });
        }
        revision
    }

    fn unset(&mut self, key: &str) {
        if self.facts.remove(key).is_some() {
            self.revise();
            self.tell(&KvEvent { key: key.to_owned(), entry: None });
        }
    }

    fn tell(&mut self, event: &KvEvent) {
        let watching: Vec<(u64, u64)> = self
            .watches
            .iter()
            .filter(|(_, one)| event.key.starts_with(&one.prefix))
            .map(|(id, one)| (*id, one.link))
            .collect();
        for (id, link) in watching {
            let event = event.clone();
            let Some((generation, due)) = self.arrives(link) else {
                if let Some(one) = self.watches.get_mut(&id) {
                    one.missed.push(event);
                }
                continue;
            };
            self.at(due, move |state| {
                let whole = state.is(link, generation) || state.is_up(link);
                let Some(one) = state.watches.get_mut(&id) else { return };
                if whole {
                    let _full = one.tell.try_send(event);
                } else {
                    one.missed.push(event);
                }
            });
        }
    }
}
