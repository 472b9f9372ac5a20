//! The sessions of all nodes: their records, the tokens that resume them, and who may have them.
//!
//! A session is one node's at a time. Its record in the Kv says whose; a node changes it only against the revision that it
//! wrote or claimed last, so of all who want it exactly one has it, and a token serves once.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus_client::registry::Registry as Metrics;
use tokio::{
    sync::{Notify, broadcast, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use trestle_bus::{BusError, Fabric};
use trestle_wire::{NodeId, SessionId, Subjects, UserId, v1};

use crate::{
    config::ClusterConfig,
    inbox::Inboxes,
    metrics::{Outcome, RecordMetrics},
    records::{Lifetimes, Records},
    stamp::Stamp,
    store,
    token::{KEY_BYTES, Signer, Ticket, TokenRefused},
    writer,
};

/// How much longer than the resume window the record of a session without a connection is kept: the node that holds it
/// ends it.
const PENDING_SLACK: Duration = Duration::from_secs(10);
/// Lost sessions that wait for one reader: 4 Ki x about 50 B.
const LOST_MAX: usize = 4 << 10;

/// What [`Registry`] is made of.
pub struct RegistryParts<'a> {
    /// This node.
    pub node: NodeId,
    /// The bus.
    pub fabric: Fabric,
    /// The subjects of the bus.
    pub subjects: Subjects,
    /// What is kept for how long, and the secret.
    pub config: ClusterConfig,
    /// How long a session waits for its client (`session.resume_window`).
    pub resume_window: Duration,
    /// How long an inbox keeps messages (`inbox.ttl`); acks are kept twice as long.
    pub inbox_ttl: Duration,
    /// Where its metrics are registered.
    pub registry: &'a mut Metrics,
}

/// Why there is no registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The secret cannot be read.
    #[error("cluster.resume_secret_file: cannot read {path}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The secret is too short to be one.
    #[error(
        "cluster.resume_secret_file: {path} holds {bytes} bytes, at least {KEY_BYTES} are needed (openssl rand -hex 32)"
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// How long it is.
        bytes: usize,
    },
    /// The shared key cannot be had.
    #[error("cannot read the key of resume tokens from the bus")]
    Bus(#[from] BusError),
}

/// A session that is this node's now.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// Its record before; its `node` held the session. `None` if none was written yet: ask the node that opened it.
    pub previous: Option<v1::SessionRecord>,
    /// Its epoch now, which the next token carries.
    pub epoch: u64,
    /// When it began, on whatever node.
    pub connected: SystemTime,
}

/// Why a session is not given to this node.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClaimRefused {
    /// The token has served.
    #[error("the resume token has been used")]
    Spent,
    /// The token has served, and by the record nothing was heard of its client since: the `connected` with the next token may
    /// be lost. The node that has the session knows better; [`Registry::claim_again`] takes it if that says so too.
    #[error("the resume token has been used, by a client that may not know it")]
    Unheard {
        /// The node that has the session by the record.
        node: String,
        /// Its epoch there.
        epoch: u64,
    },
    /// The session is over.
    #[error("the session is over")]
    Expired,
    /// Whether it may be is not known, as the bus did not say. The token may have been spent by this try.
    #[error("the session's record cannot be read")]
    Away(#[source] BusError),
}

/// The sessions of all nodes.
pub struct Registry {
    inner: Arc<Inner>,
    /// Ended with this.
    _tasks: JoinSet<()>,
}

/// What the registry shares with its background.
pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) fabric: Fabric,
    signer: Signer,
    record_ttl: Duration,
    resume_window: Duration,
    inboxes: Inboxes,
    records: Mutex<Records>,
    /// Wakes the background.
    pub(crate) wake: Notify,
    dirty: watch::Sender<usize>,
    pub(crate) lost: broadcast::Sender<SessionId>,
    /// Whether the last write failed, so that this is said once.
    pub(crate) failing: AtomicBool,
    stamp: Stamp,
    pub(crate) metrics: RecordMetrics,
}

impl Registry {
    /// Reads the secret, or the key that all nodes share, and begins to write records.
    ///
    /// # Errors
    /// [`RegistryError`] if the secret cannot be read or is too short, or the bus does not give the shared key.
    pub async fn open(parts: RegistryParts<'_>) -> Result<Arc<Self>, RegistryError> {
        let signer = match &parts.config.resume_secret_file {
            Some(path) => Signer::new(&read_secret(path)?),
            None => Signer::new(&store::shared_key(&*parts.fabric.kv).await?),
        };
        let lifetimes = Lifetimes { active: parts.config.record_ttl, pending: parts.resume_window + PENDING_SLACK };
        let inboxes = Inboxes { fabric: parts.fabric.clone(), subjects: parts.subjects, ttl: parts.inbox_ttl * 2 };
        let inner = Arc::new(Inner {
            records: Mutex::new(Records::new(parts.node.clone(), lifetimes)),
            node: parts.node,
            fabric: parts.fabric,
            signer,
            record_ttl: parts.config.record_ttl,
            resume_window: parts.resume_window,
            inboxes,
            wake: Notify::new(),
            dirty: watch::Sender::new(0),
            lost: broadcast::Sender::new(LOST_MAX),
            failing: AtomicBool::new(false),
            stamp: Stamp::default(),
            metrics: RecordMetrics::register(parts.registry),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(writer::run(Arc::clone(&inner)));
        Ok(Arc::new(Self { inner, _tasks: tasks }))
    }

    /// The resume token that says `ticket`.
    #[must_use]
    pub fn issue(&self, ticket: &Ticket) -> String {
        self.inner.signer.issue(ticket)
    }

    /// What a resume token from outside says. That it was not used before is only known by [`Registry::claim`].
    ///
    /// # Errors
    /// [`TokenRefused`] if it was not signed here, or its time is over.
    pub fn read(&self, token: &str) -> Result<Ticket, TokenRefused> {
        self.inner.signer.read(token, SystemTime::now())
    }

    /// Keeps `record` of a session of this node, written in the background within a second or so and kept up until
    /// [`Registry::end`] or [`Registry::forget`]. `node`, `written` and a higher epoch are filled in.
    pub fn note(&self, record: v1::SessionRecord) {
        match SessionId::parse(&record.session_id) {
            Ok(session) => self.inner.change(|records| records.note(session, record, Instant::now())),
            Err(error) => tracing::error!(%error, "a record without a session was noted"),
        }
        self.inner.wake.notify_one();
    }

    /// As [`Registry::note`], but written at once. Gives when it is written whether the session was still this node's, or why
    /// it is not written yet: it is tried until it is.
    pub fn note_now(&self, record: v1::SessionRecord) -> impl Future<Output = Result<bool, BusError>> + use<> {
        let (told, written) = oneshot::channel();
        match SessionId::parse(&record.session_id) {
            Ok(session) => self.inner.change(|records| records.note_now(session, record, told, Instant::now())),
            Err(error) => tracing::error!(%error, "a record without a session was noted"),
        }
        self.inner.wake.notify_one();
        async { written.await.unwrap_or(Err(BusError::Away)) }
    }

    /// Takes the session of `ticket` for this node and the client at `address`, and keeps its record up from now on, until
    /// [`Registry::end`] or [`Registry::forget`]: if nothing comes of it, end it. However many try at once, on whatever node,
    /// one has it; a ticket that has served is [`ClaimRefused::Unheard`] at best.
    ///
    /// # Errors
    /// [`ClaimRefused`] says why not; the client begins anew.
    pub async fn claim(&self, ticket: &Ticket, address: &str) -> Result<Claimed, ClaimRefused> {
        self.count(self.inner.claim(ticket, address, 0).await)
    }

    /// As [`Registry::claim`], also with a ticket that has served: of a client that was not heard since by the node that had the
    /// session in the epoch `unheard`, nor by the record as it is now.
    ///
    /// # Errors
    /// [`ClaimRefused`] says why not; the client begins anew.
    pub async fn claim_again(&self, ticket: &Ticket, address: &str, unheard: u64) -> Result<Claimed, ClaimRefused> {
        self.count(self.inner.claim(ticket, address, unheard).await)
    }

    fn count(&self, claimed: Result<Claimed, ClaimRefused>) -> Result<Claimed, ClaimRefused> {
        self.inner.metrics.claim(match &claimed {
            Ok(_) => Outcome::Claimed,
            Err(ClaimRefused::Spent) => Outcome::Spent,
            Err(ClaimRefused::Unheard { .. }) => Outcome::Unheard,
            Err(ClaimRefused::Expired) => Outcome::Expired,
            Err(ClaimRefused::Away(_)) => Outcome::Away,
        });
        claimed
    }

    /// Ends a session for good: no token of it works any more, here at once, elsewhere when this returns. Gives whether it
    /// was still this node's; false: it has gone on elsewhere, and lives.
    ///
    /// # Errors
    /// [`BusError`] if that could not be written yet; it is tried until it can, also if this future is dropped.
    pub async fn end(&self, session: &SessionId) -> Result<bool, BusError> {
        let (told, written) = oneshot::channel();
        self.inner.change(|records| records.end(session, told, Instant::now()));
        self.inner.wake.notify_one();
        written.await.unwrap_or(Err(BusError::Away))
    }

    /// The session has gone over to another node, which claimed it: nothing is written about it here any more.
    pub fn forget(&self, session: &SessionId) {
        self.inner.change(|records| records.forget(session));
    }

    /// Whether the session is this node's in `epoch`, as far as is known here.
    #[must_use]
    pub fn holds(&self, session: &SessionId, epoch: u64) -> bool {
        self.inner.records.lock().epoch(session) == Some(epoch)
    }

    /// Whether a record of the session is kept up by this node, or its end is to be written.
    pub(crate) fn has(&self, session: &SessionId) -> bool {
        self.inner.records.lock().has(session)
    }

    /// Sessions that were noted here and turn out to be another node's, or over: what is left of them here ends without
    /// a word to the cluster. Found when a record is written; after a break of the bus all are.
    #[must_use]
    pub fn lost(&self) -> broadcast::Receiver<SessionId> {
        self.inner.lost.subscribe()
    }

    /// Writes what is to be written without waiting for more, and returns when it is written. As long as the bus is away
    /// that is never: give it a timeout.
    pub async fn flush(&self) {
        let _flushing = Flushing::begin(&self.inner);
        let mut dirty = self.inner.dirty.subscribe();
        drop(dirty.wait_for(|dirty| *dirty == 0).await); // an error is the registry's end
    }

    /// Leaves a session for the node that its client comes to, for the resume window. Where it is larger than the bus takes,
    /// its oldest frames are left out, and `first` says so.
    ///
    /// # Errors
    /// [`BusError`]: it is not kept. [`BusError::TooLarge`] if it is too large even without frames.
    pub async fn park(&self, handover: &v1::Handover) -> Result<(), BusError> {
        let most = self.inner.fabric.bus.payload_bytes_max();
        store::park(&*self.inner.fabric.kv, handover, most, self.inner.resume_window).await
    }

    /// Takes what a node that stopped has left of a session; for the one who has claimed it.
    ///
    /// # Errors
    /// [`BusError`] if it cannot be read or taken away.
    pub async fn unpark(&self, session: &SessionId) -> Result<Option<v1::Handover>, BusError> {
        store::unpark(&*self.inner.fabric.kv, session).await
    }

    /// Up to which offset of the inbox `user` is done; 0 if nothing was acked, or that log was lost.
    ///
    /// # Errors
    /// [`BusError`] if it cannot be read.
    pub async fn inbox_acked(&self, user: &UserId) -> Result<u64, BusError> {
        self.inner.inboxes.acked(user).await
    }

    /// `user` is done up to `offset` of the inbox, at most up to where its log has come; gives up to where by all devices. It
    /// never goes back, unless the log was lost.
    ///
    /// # Errors
    /// [`BusError`] if it cannot be written.
    pub async fn ack_inbox(&self, user: &UserId, offset: u64) -> Result<u64, BusError> {
        self.inner.inboxes.ack(user, offset).await
    }
}

impl Inner {
    /// Changes the records, and says how many are to be written.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Records) -> T) -> T {
        let mut records = self.records.lock();
        let result = change(&mut records);
        let (dirty, kept) = (records.dirty(), records.len());
        // Under the lock, so that the last word is the latest.
        self.dirty.send_if_modified(|told| std::mem::replace(told, dirty) != dirty);
        self.metrics.dirty.set(i64::try_from(dirty).unwrap_or(i64::MAX));
        self.metrics.records.set(i64::try_from(kept).unwrap_or(i64::MAX));
        result
    }

    async fn claim(&self, ticket: &Ticket, address: &str, unheard: u64) -> Result<Claimed, ClaimRefused> {
        let now = UNIX_EPOCH + Duration::from_nanos(self.stamp.next());
        if ticket.expires <= now || self.records.lock().has_ended(&ticket.session) {
            return Err(ClaimRefused::Expired);
        }
        let claimant = store::Claimant { ticket, node: &self.node, address, ttl: self.record_ttl, unheard, now };
        let stored = store::claim(&*self.fabric.kv, &claimant).await?;
        let (record, revision) = (stored.record, stored.revision);
        let was_ours = stored.claimed.previous.as_ref().is_none_or(|previous| previous.node == self.node.as_str());
        let claimed =
            self.change(|records| records.claimed(&ticket.session, record, revision, was_ours, Instant::now()));
        self.wake.notify_one();
        if claimed { Ok(stored.claimed) } else { Err(ClaimRefused::Expired) }
    }
}

/// Somebody who wants everything written now.
struct Flushing<'a>(&'a Inner);

impl<'a> Flushing<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.change(|records| records.flushing += 1);
        inner.wake.notify_one();
        Self(inner)
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.change(|records| records.flushing -= 1);
    }
}

fn read_secret(path: &PathBuf) -> Result<Vec<u8>, RegistryError> {
    let secret = std::fs::read(path).map_err(|source| RegistryError::Secret { path: path.clone(), source })?;
    let secret = secret.trim_ascii_end();
    if secret.len() < KEY_BYTES {
        return Err(RegistryError::Short { path: path.clone(), bytes: secret.len() });
    }
    Ok(secret.to_vec())
}
