//! Small facts in this process: [`Kv`], in memory.
//!
//! Always: a key that has expired is not seen by anybody, and its expiry is one event like any other change.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::live::Live;
use crate::{BusError, ENTRIES_MAX, Entry, Kv, KvEvent, pattern};

/// Events that wait for one watcher; one that falls further behind is let go. 4 Ki x about 200 B = 800 KiB.
const EVENTS_MAX: usize = 4 << 10;

/// The key-value store of an embedded bus.
pub(super) struct Facts {
    live: Arc<Live>,
    state: Mutex<State>,
    sooner: Notify,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<Arc<str>, Fact>,
    expiries: BTreeSet<(Instant, Arc<str>)>,
    watchers: Vec<Watcher>,
    revision: u64,
}

struct Fact {
    entry: Entry,
    expires: Option<Instant>,
}

struct Watcher {
    prefix: String,
    events: mpsc::Sender<KvEvent>,
}

impl Facts {
    pub(super) fn new(live: Arc<Live>) -> Arc<Self> {
        Arc::new(Self { live, state: Mutex::default(), sooner: Notify::new() })
    }

    /// The state, with what has expired gone from it and told.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let now = Instant::now();
        while let Some((moment, key)) = state.expiries.first()
            && *moment <= now
        {
            let key = key.clone();
            state.remove(&key);
        }
        state
    }

    fn check(&self, key: &str) -> Result<(), BusError> {
        self.live.is_open()?;
        if pattern::is_valid_key(key) { Ok(()) } else { Err(BusError::Refused(format!("{key:?} is not a key"))) }
    }

    fn set(&self, mut state: MutexGuard<'_, State>, key: &str, value: Bytes, ttl: Option<Duration>) -> u64 {
        let revision = state.set(key, value, ttl.map(|ttl| Instant::now() + ttl));
        drop(state);
        if ttl.is_some() {
            self.sooner.notify_one();
        }
        revision
    }

    /// Expires keys at their moment until the bus is closed or let go.
    pub(super) async fn expire(facts: Weak<Self>) {
        while let Some(facts) = facts.upgrade() {
            let next = facts.state().expiries.first().map(|(moment, _)| *moment);
            let mut closed = facts.live.state();
            let wait = async {
                match next {
                    Some(moment) => tokio::time::sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            // A second at most, so that a bus that was let go is noticed.
            let look = tokio::time::sleep(Duration::from_secs(1));
            tokio::select! {
                () = wait => {}
                () = facts.sooner.notified() => {}
                () = look => {}
                _ = closed.wait_for(|state| *state == crate::BusState::Closed) => {
                    facts.state.lock().watchers.clear();
                    return;
                }
            }
        }
    }
}

impl State {
    fn set(&mut self, key: &str, value: Bytes, expires: Option<Instant>) -> u64 {
        self.revision += 1;
        let (key, entry) = (Arc::<str>::from(key), Entry { value, revision: self.revision });
        if let Some(moment) = expires {
            self.expiries.insert((moment, key.clone()));
        }
        let old = self.keys.insert(key.clone(), Fact { entry: entry.clone(), expires });
        if let Some(moment) = old.and_then(|old| old.expires).filter(|moment| Some(*moment) != expires) {
            self.expiries.remove(&(moment, key.clone()));
        }
        self.tell(&key, Some(entry));
        self.revision
    }

    fn remove(&mut self, key: &Arc<str>) {
        let Some(fact) = self.keys.remove(key) else { return };
        if let Some(moment) = fact.expires {
            self.expiries.remove(&(moment, key.clone()));
        }
        self.revision += 1;
        self.tell(key, None);
    }

    fn tell(&mut self, key: &str, entry: Option<Entry>) {
        self.watchers.retain(|watcher| {
            let event = || KvEvent { key: key.into(), entry: entry.clone() };
            !key.starts_with(&watcher.prefix) || watcher.events.try_send(event()).is_ok()
        });
    }
}

/// [`Kv`] in this process.
pub(super) struct FactsKv(pub(super) Arc<Facts>);

#[async_trait]
impl Kv for FactsKv {
    async fn get(&self, key: &str) -> Result<Option<Entry>, BusError> {
        self.0.check(key)?;
        Ok(self.0.state().keys.get(key).map(|fact| fact.entry.clone()))
    }

    async fn entries(&self, prefix: &str) -> Result<Vec<(String, Entry)>, BusError> {
        self.0.check(&format!("{prefix}x"))?;
        let state = self.0.state();
        let below = state.keys.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let below = below.take_while(|(key, _)| key.starts_with(prefix)).take(ENTRIES_MAX + 1);
        let entries: Vec<_> = below.map(|(key, fact)| (key.to_string(), fact.entry.clone())).collect();
        if entries.len() > ENTRIES_MAX { Err(BusError::too_many_keys(prefix)) } else { Ok(entries) }
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, BusError> {
        self.0.check(key)?;
        self.0.live.fits(&value)?;
        Ok(self.0.set(self.0.state(), key, value, ttl))
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: u64,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Option<u64>, BusError> {
        self.0.check(key)?;
        self.0.live.fits(&value)?;
        let state = self.0.state();
        let revision = state.keys.get(key).map_or(0, |fact| fact.entry.revision);
        Ok((revision == expected).then(|| self.0.set(state, key, value, ttl)))
    }

    async fn delete(&self, key: &str) -> Result<(), BusError> {
        self.0.check(key)?;
        self.0.state().remove(&key.into());
        Ok(())
    }

    async fn watch(&self, prefix: &str) -> Result<mpsc::Receiver<KvEvent>, BusError> {
        self.0.check(&format!("{prefix}x"))?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let mut state = self.0.state();
        state.watchers.retain(|watcher| !watcher.events.is_closed());
        state.watchers.push(Watcher { prefix: prefix.into(), events });
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::EmbeddedConfig;

    #[tokio::test]
    async fn more_entries_than_are_given_at_once_are_refused() {
        let kv = FactsKv(Facts::new(Live::new(EmbeddedConfig::default())));
        for at in 0..ENTRIES_MAX {
            kv.put(&format!("many.{at}"), Bytes::new(), None).await.expect("puts");
        }
        assert_eq!(kv.entries("many.").await.expect("reads").len(), ENTRIES_MAX);
        kv.put("many.more", Bytes::new(), None).await.expect("puts");
        let error = kv.entries("many.").await.expect_err("too many").to_string();
        assert!(error.contains("\"many.\""), "{error}");
        assert_eq!(kv.entries("many.1000").await.expect("reads").len(), 11, "1000 and 10000 to 10009");
    }
}
