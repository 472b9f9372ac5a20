//! Small facts in this process: [`Kv`], in memory, and on disk beside it if there is one.
//!
//! In: [`Change`]s. Out: revisions, entries, events. Always: a key that has expired is not seen by anybody, and its expiry
//! is one event like any other change; a change is seen by nobody before it is on disk, if there is one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    ops::Bound,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};

use super::{
    clock::{Clock, millis},
    disk::{DataDir, Disk, Segment},
    journal::{Journal, Journaled, Pending},
    live::Live,
    record::Record,
};
use crate::{BusError, BusState, ENTRIES_MAX, Entry, Kv, KvEvent, pattern};

/// Events that wait for one watcher; one that falls further behind is let go. 4 Ki x about 200 B = 800 KiB.
const EVENTS_MAX: usize = 4 << 10;

/// Keys that [`Kv::each`] takes at once: 1 Ki x about 1 KiB = 1 MiB.
const PAGE: usize = 1 << 10;

/// A file of keys is closed when a group would make it larger. 1 MiB x the 8 that are left alone = 8 MiB beside four
/// times what is set.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;

/// What a key counts for on disk beside its text and its value: head, kind, revision, expiry, length.
const RECORD_BYTES: usize = 27;

/// The key-value store of an embedded bus.
pub(super) struct Facts {
    live: Arc<Live>,
    clock: Clock,
    state: Mutex<State>,
    sooner: Notify,
    journal: Option<Journal<Facts>>,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<Arc<str>, Fact>,
    expiries: BTreeSet<(u64, Arc<str>)>,
    watchers: Vec<Watcher>,
    revision: u64,
    /// What the records of all keys take.
    bytes: u64,
    /// Revisions that keys are about to have, 0 for one that is about to go: of a group on its way to disk.
    staged: HashMap<Arc<str>, u64>,
}

struct Fact {
    entry: Entry,
    /// When it goes, in ms; 0 for never.
    expires_ms: u64,
    /// The file that holds it.
    segment: Option<Arc<Segment>>,
}

struct Watcher {
    prefix: String,
    events: mpsc::Sender<KvEvent>,
}

/// What happens to a key.
pub(super) enum Change {
    Set {
        key: Arc<str>,
        value: Bytes,
        ttl: Option<Duration>,
        /// The revision it must have; 0 for none.
        expected: Option<u64>,
    },
    Remove(Arc<str>),
}

/// A change that has its place in the order and is about to land.
enum Staged {
    /// Nothing changes: the revision is not the expected one.
    Unexpected,
    /// Nothing changes: there is no such key.
    Missing,
    Set {
        key: Arc<str>,
        entry: Entry,
        expires_ms: u64,
    },
    Remove {
        key: Arc<str>,
        revision: u64,
    },
}

impl Facts {
    /// The keys in memory only.
    pub(super) fn new(live: Arc<Live>, clock: Clock) -> Arc<Self> {
        let (state, sooner) = (Mutex::default(), Notify::new());
        Arc::new(Self { live, clock, state, sooner, journal: None })
    }

    /// The keys that are kept under the data directory. Blocks.
    pub(super) fn open(live: Arc<Live>, clock: Clock, data: &DataDir, segment_bytes_max: u64) -> io::Result<Arc<Self>> {
        let mut state = State::default();
        let segment_bytes_max = segment_bytes_max.min(SEGMENT_BYTES_MAX);
        let disk = Disk::open(&data.keys(), segment_bytes_max, |record, place| state.take(record, place.segment))?;
        state.revision = state.revision.max(disk.first_of_newest() - 1);
        let (journal, writer) = Journal::new(disk);
        let (state, sooner) = (Mutex::new(state), Notify::new());
        let facts = Arc::new(Self { live, clock, state, sooner, journal: Some(journal) });
        if let Some(journal) = &facts.journal {
            journal.run(&facts, writer)?;
        }
        Ok(facts)
    }

    /// The state, with what has expired gone from it and told.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let now_ms = self.clock.now_ms();
        while let Some((moment_ms, key)) = state.expiries.first()
            && *moment_ms <= now_ms
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

    /// Makes the change and returns the key's revision once it is stored; `None` if it did not have the expected one.
    async fn change(&self, change: Change) -> Result<Option<u64>, BusError> {
        let lasts = matches!(change, Change::Set { ttl: None, .. } | Change::Remove(_));
        let revision = match &self.journal {
            Some(journal) => journal.change(change).await?,
            None => {
                let mut state = self.state();
                let staged = state.stage(change, self.clock.now_ms());
                state.staged.clear();
                state.land(staged, None)
            }
        };
        if !lasts {
            self.sooner.notify_one();
        }
        Ok(revision)
    }

    /// Gives back the files that nothing needs.
    pub(super) fn sweep(&self) {
        if let Some(journal) = &self.journal {
            journal.tidy();
        }
    }

    /// Lets what was begun reach the disk.
    pub(super) async fn close(self: &Arc<Self>) {
        let facts = self.clone();
        let closed = tokio::task::spawn_blocking(move || facts.journal.iter().for_each(Journal::close));
        if let Err(error) = closed.await {
            tracing::error!(%error, "could not close the keys");
        }
    }

    /// Expires keys at their moment until the bus is closed or let go.
    pub(super) async fn expire(facts: Weak<Self>) {
        while let Some(facts) = facts.upgrade() {
            let next_ms = facts.state().expiries.first().map(|(moment_ms, _)| *moment_ms);
            let mut closed = facts.live.state();
            // A second at most, so that a bus that was let go is noticed.
            let wait_ms = next_ms.map_or(1_000, |next_ms| next_ms.saturating_sub(facts.clock.now_ms()).min(1_000));
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                () = facts.sooner.notified() => {}
                _ = closed.wait_for(|state| *state == BusState::Closed) => {
                    facts.state.lock().watchers.clear();
                    return;
                }
            }
        }
    }
}

impl State {
    /// Takes what is found on disk. What has expired meanwhile goes at the first look.
    fn take(&mut self, record: Record<'_>, segment: Arc<Segment>) {
        match record {
            Record::Set { revision, expires_ms, key, value } => {
                let entry = Entry { value: Bytes::copy_from_slice(value), revision };
                self.insert(key.into(), Fact { entry, expires_ms, segment: Some(segment) });
                self.revision = self.revision.max(revision);
            }
            Record::Unset { revision, key } => {
                self.take_out(key);
                self.revision = self.revision.max(revision);
            }
            // These say nothing of keys.
            Record::Message { .. } | Record::Gone { .. } | Record::Done { .. } | Record::Flushed { .. } => {}
        }
    }

    /// Gives the change its place in the order.
    fn stage(&mut self, change: Change, now_ms: u64) -> Staged {
        let revision = |key: &str| {
            let staged = self.staged.get(key).copied();
            staged.unwrap_or_else(|| self.keys.get(key).map_or(0, |fact| fact.entry.revision))
        };
        match change {
            Change::Set { key, expected: Some(expected), .. } if revision(&key) != expected => Staged::Unexpected,
            Change::Remove(key) if revision(&key) == 0 => Staged::Missing,
            Change::Set { key, value, ttl, .. } => {
                self.revision += 1;
                self.staged.insert(key.clone(), self.revision);
                // One more, as the clock's last millisecond is not over.
                let expires_ms = ttl.map_or(0, |ttl| now_ms.saturating_add(millis(ttl)).saturating_add(1));
                Staged::Set { key, entry: Entry { value, revision: self.revision }, expires_ms }
            }
            Change::Remove(key) => {
                self.revision += 1;
                self.staged.insert(key.clone(), 0);
                Staged::Remove { key, revision: self.revision }
            }
        }
    }

    /// Lets the change be seen and says what its caller is told.
    fn land(&mut self, staged: Staged, segment: Option<Arc<Segment>>) -> Option<u64> {
        match staged {
            Staged::Unexpected => None,
            Staged::Missing => Some(0),
            Staged::Set { key, entry, expires_ms } => {
                self.insert(key.clone(), Fact { entry: entry.clone(), expires_ms, segment });
                let revision = entry.revision;
                self.tell(&key, Some(entry));
                Some(revision)
            }
            Staged::Remove { key, revision } => {
                self.remove(&key);
                Some(revision)
            }
        }
    }

    fn insert(&mut self, key: Arc<str>, fact: Fact) {
        self.take_out(&key);
        if fact.expires_ms > 0 {
            self.expiries.insert((fact.expires_ms, key.clone()));
        }
        self.bytes += cost(&key, &fact.entry);
        self.keys.insert(key, fact);
    }

    fn take_out(&mut self, key: &str) -> bool {
        let Some((key, fact)) = self.keys.remove_entry(key) else { return false };
        self.bytes -= cost(&key, &fact.entry);
        self.expiries.remove(&(fact.expires_ms, key));
        true
    }

    fn remove(&mut self, key: &str) {
        if self.take_out(key) {
            self.tell(key, None);
        }
    }

    fn tell(&mut self, key: &str, entry: Option<Entry>) {
        self.watchers.retain(|watcher| {
            let event = || KvEvent { key: key.into(), entry: entry.clone() };
            !key.starts_with(&watcher.prefix) || watcher.events.try_send(event()).is_ok()
        });
    }
}

/// What the record of a key takes on disk.
fn cost(key: &str, entry: &Entry) -> u64 {
    (key.len() + entry.value.len() + RECORD_BYTES) as u64
}

impl Staged {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Staged::Unexpected | Staged::Missing => {}
            Staged::Set { key, entry: Entry { value, revision }, expires_ms } => {
                Record::Set { revision: *revision, expires_ms: *expires_ms, key, value }.write(out);
            }
            Staged::Remove { key, revision } => Record::Unset { revision: *revision, key }.write(out),
        }
    }
}

impl Journaled for Facts {
    type Change = Change;
    type Answer = Option<u64>;

    fn name(&self) -> &str {
        "keys"
    }

    fn bytes(change: &Change) -> usize {
        if let Change::Set { value, .. } = change { value.len() } else { 0 }
    }

    fn commit(&self, disk: &mut Disk, group: Vec<Pending<Self>>) {
        let now_ms = self.clock.now_ms();
        let (mut staged, mut bytes) = (Vec::with_capacity(group.len()), Vec::new());
        let next = {
            let mut state = self.state();
            for Pending { change, answer } in group {
                staged.push((state.stage(change, now_ms), answer));
            }
            state.staged.clear(); // this thread stages nothing else before they have landed
            state.revision + 1
        };
        staged.iter().for_each(|(staged, _)| staged.write(&mut bytes));
        let written = if bytes.is_empty() { Ok(None) } else { disk.write(&bytes, next, now_ms).map(Some) };
        if let Err(error) = &written {
            tracing::error!(%error, "the keys cannot be written");
            if disk.has_failed() {
                self.fail(); // before anybody is answered
            }
        }
        let mut state = self.state();
        for (staged, answer) in staged {
            // Who asked may have gone; what was asked is done all the same.
            let _ = answer.send(match &written {
                Ok(place) => Ok(state.land(staged, place.as_ref().map(|(segment, _)| segment.clone()))),
                Err(error) => Err(BusError::Refused(format!("the keys cannot be written: {error}"))),
            });
        }
    }

    fn needs(&self) -> (u64, u64) {
        (u64::MAX, self.state().bytes)
    }

    fn rewrite(&self, disk: &mut Disk, oldest: &Arc<Segment>) -> io::Result<()> {
        let (mut bytes, mut moved) = (Vec::new(), Vec::new());
        let next = {
            let state = self.state();
            let inside = |fact: &Fact| fact.segment.as_ref().is_some_and(|segment| Arc::ptr_eq(segment, oldest));
            for (key, fact) in state.keys.iter().filter(|(_, fact)| inside(fact)) {
                let (revision, expires_ms, value) = (fact.entry.revision, fact.expires_ms, &fact.entry.value);
                Record::Set { revision, expires_ms, key, value }.write(&mut bytes);
                moved.push(key.clone());
            }
            state.revision + 1
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let (segment, _) = disk.write(&bytes, next, self.clock.now_ms())?;
        let mut state = self.state();
        for key in moved {
            // Only this thread sets keys, so the fact is the same if it has not expired.
            if let Some(fact) = state.keys.get_mut(&key) {
                fact.segment = Some(segment.clone());
            }
        }
        Ok(())
    }

    fn fail(&self) {
        self.live.fail();
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

    async fn each(&self, prefix: &str, visit: &mut (dyn FnMut(String, Entry) + Send)) -> Result<(), BusError> {
        self.0.check(&format!("{prefix}x"))?;
        let mut from = Bound::Included(prefix.to_owned());
        loop {
            // A page at a time, so that nobody waits for the lock while all are shown.
            let page: Vec<_> = {
                let state = self.0.state();
                let below = state.keys.range::<str, _>((from.as_ref().map(String::as_str), Bound::Unbounded));
                let below = below.take_while(|(key, _)| key.starts_with(prefix)).take(PAGE);
                below.map(|(key, fact)| (key.to_string(), fact.entry.clone())).collect()
            };
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = Bound::Excluded(last.clone());
            page.into_iter().for_each(|(key, entry)| visit(key, entry));
        }
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, BusError> {
        self.0.check(key)?;
        self.0.live.fits(&value)?;
        let change = Change::Set { key: key.into(), value, ttl, expected: None };
        self.0.change(change).await.map(Option::unwrap_or_default)
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
        self.0.change(Change::Set { key: key.into(), value, ttl, expected: Some(expected) }).await
    }

    async fn delete(&self, key: &str) -> Result<(), BusError> {
        self.0.check(key)?;
        self.0.change(Change::Remove(key.into())).await.map(|_| ())
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
        let kv = FactsKv(Facts::new(Live::new(EmbeddedConfig::default()), Clock::start()));
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
