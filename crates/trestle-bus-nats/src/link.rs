//! The one connection to NATS that everything here shares: whether it is usable, and who must hear when it was not.
//!
//! In: the client's events. Out: the state of the bus, [`Heard::Lost`](trestle_bus::Heard::Lost) for every subscription
//! after a break. Always: nothing is given to a client that is not connected, because it would keep it silently.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Event, connection::State, jetstream::stream};
use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use trestle_bus::{BusError, BusState, Feed};

use crate::{
    barrier::Barrier,
    config::NatsConfig,
    connections::{Connections, Look, Verdict},
};

/// Appends on their way at once. The server drops what it cannot queue above 10,000 per stream, unheard by the client;
/// 8 nodes x 1,024 stay below that, and the way is full at about 64 (MiB and round trips measured).
const APPENDS_MAX: usize = 1_024;

/// What the headers of a stored message may take of the server's largest message, in bytes.
const HEADERS_BYTES: usize = 4 << 10;

/// How often the connection is looked at though the client has told of nothing: a lost event is mended within two.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the client's events say, as they come.
pub(crate) struct Signals {
    pub(crate) state: watch::Sender<BusState>,
    /// How often the connection broke.
    pub(crate) breaks: watch::Sender<u64>,
    /// Whether the client has dropped messages since somebody looked.
    slow: AtomicBool,
    /// Wakes who follows the connection.
    told: Notify,
}

impl Signals {
    pub(crate) fn new() -> Arc<Self> {
        let (state, breaks) = (watch::Sender::new(BusState::Away), watch::Sender::new(0));
        Arc::new(Self { state, breaks, slow: AtomicBool::new(false), told: Notify::new() })
    }

    /// Takes note of what the client tells. Never waits.
    pub(crate) fn hear(&self, event: &Event) {
        match event {
            Event::Disconnected => self.broke(),
            Event::Connected => self.told.notify_one(),
            Event::SlowConsumer(_) => {
                self.slow.store(true, Ordering::Release);
                self.told.notify_one();
            }
            Event::ServerError(error) => tracing::warn!(%error, "NATS server"),
            Event::ClientError(error) => tracing::debug!(%error, "NATS client"),
            Event::LameDuckMode => tracing::info!("the NATS server is about to stop"),
            Event::Closed | Event::Draining => {}
        }
    }

    /// The connection broke.
    pub(crate) fn broke(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
        self.state.send_if_modified(|state| {
            let open = *state != BusState::Closed && *state != BusState::Away;
            if open {
                *state = BusState::Away;
            }
            open
        });
    }

    /// The connection stands again, unless it has broken since `breaks` were counted.
    pub(crate) fn restored(&self, breaks: u64, connection: u64) -> bool {
        self.state.send_if_modified(|state| {
            let still = *state == BusState::Away && *self.breaks.borrow() == breaks;
            if still {
                *state = BusState::Connected(connection);
            }
            still
        })
    }
}

/// The connection.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) config: NatsConfig,
    pub(crate) signals: Arc<Signals>,
    pub(crate) barrier: Barrier,
    /// True once the bus is being closed and all that was heard before has come.
    pub(crate) closing: watch::Sender<bool>,
    /// Held by every subscription's task; closing waits until none is left.
    pub(crate) alive: Mutex<Option<mpsc::Sender<()>>>,
    pub(crate) gone: tokio::sync::Mutex<mpsc::Receiver<()>>,
    feeds: Mutex<HashMap<u64, Feed>>,
    ids: AtomicU64,
    /// Streams that this process has made sure of.
    pub(crate) streams: Mutex<HashMap<String, stream::Config>>,
    pub(crate) appends: Semaphore,
}

impl Link {
    pub(crate) fn new(client: Client, config: NatsConfig, signals: Arc<Signals>, barrier: Barrier) -> Arc<Self> {
        let (alive, gone) = mpsc::channel(1);
        Arc::new(Self {
            client,
            config,
            signals,
            barrier,
            closing: watch::Sender::new(false),
            alive: Mutex::new(Some(alive)),
            gone: tokio::sync::Mutex::new(gone),
            feeds: Mutex::default(),
            ids: AtomicU64::new(0),
            streams: Mutex::default(),
            appends: Semaphore::new(APPENDS_MAX),
        })
    }

    /// Whether something can be sent now.
    pub(crate) fn check(&self) -> Result<(), BusError> {
        let connected = matches!(*self.signals.state.borrow(), BusState::Connected(_));
        // The client knows a moment before its event has come.
        if connected { self.check_client() } else { Err(BusError::Away) }
    }

    /// Whether the client is connected, be its subscriptions in force or not.
    pub(crate) fn check_client(&self) -> Result<(), BusError> {
        if self.client.connection_state() == State::Connected { Ok(()) } else { Err(BusError::Away) }
    }

    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.client.max_payload().saturating_sub(HEADERS_BYTES)
    }

    pub(crate) fn fits(&self, payload: &Bytes) -> Result<(), BusError> {
        let (bytes, max) = (payload.len(), self.payload_bytes_max());
        if bytes > max { Err(BusError::TooLarge { bytes, max }) } else { Ok(()) }
    }

    /// Ends when the connection breaks from now on.
    pub(crate) fn breaks(&self) -> watch::Receiver<u64> {
        self.signals.breaks.subscribe()
    }

    /// Returns once the server has seen everything that was sent before.
    pub(crate) async fn barrier(&self) -> Result<(), BusError> {
        let (began, mut breaks) = (Instant::now(), self.breaks());
        self.check()?;
        tokio::select! {
            passed = self.barrier.pass() => passed.ok_or_else(|| BusError::Timeout(began.elapsed())),
            _ = breaks.changed() => Err(BusError::Away),
        }
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps `feed` among those that hear of losses, until [`Link::forget`].
    pub(crate) fn remember(&self, id: u64, feed: Feed) {
        self.feeds.lock().insert(id, feed);
    }

    pub(crate) fn forget(&self, id: u64) {
        self.feeds.lock().remove(&id);
    }

    fn tell_lost(&self) {
        self.feeds.lock().values().for_each(|feed| feed.lost(0));
    }

    /// Follows the connection until the bus is let go.
    pub(crate) async fn supervise(link: Weak<Self>, signals: Arc<Signals>, mut connections: Connections) {
        let mut number = 1;
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look = tokio::select! {
                () = signals.told.notified() => Look::Told,
                _ = tick.tick() => Look::Tick,
            };
            let Some(link) = link.upgrade() else { return };
            if signals.slow.swap(false, Ordering::AcqRel) {
                tracing::warn!("the NATS client has dropped messages it could not queue");
                // The client names the subscription by a number that it tells nobody: it may be any.
                link.tell_lost();
            }
            let made = link.client.statistics().connects.load(Ordering::Relaxed);
            let (state, stands) = (*signals.state.borrow(), link.check_client().is_ok());
            let mut verdict = connections.judge(state, stands, made, look);
            if verdict == Verdict::Broke {
                tracing::warn!("the connection to NATS broke unheard");
                signals.broke();
                verdict = connections.judge(BusState::Away, stands, made, look);
            }
            if verdict == Verdict::Restore && link.restore(number + 1).await {
                number += 1;
                connections.stands(made);
            }
        }
    }

    /// After the client has connected anew: waits until its subscriptions are in force, sees to the logs, tells everyone
    /// that something may have been missed. False if it broke again meanwhile.
    async fn restore(self: &Arc<Self>, connection: u64) -> bool {
        let breaks = *self.breaks().borrow_and_update();
        let broken = || *self.signals.breaks.borrow() != breaks || *self.signals.state.borrow() == BusState::Closed;
        while self.barrier.pass().await.is_none() {
            if broken() {
                return false;
            }
        }
        if self.config.replicas == 1 {
            // A server that came back without its data would refuse every append until somebody makes the streams again.
            self.make_streams().await;
        } else {
            // Other servers have the data; and nobody may be there to answer before a leader has been elected.
            let link = self.clone();
            tokio::spawn(async move { link.make_streams().await });
        }
        let restored = self.signals.restored(breaks, connection);
        if restored {
            self.tell_lost();
        }
        restored
    }

    async fn make_streams(&self) {
        let streams: Vec<stream::Config> = self.streams.lock().values().cloned().collect();
        let making = streams.iter().map(async |config| {
            if let Err(fault) = self.make_stream(config).await {
                tracing::warn!(stream = config.name, ?fault, "the stream could not be made sure of after the break");
            }
        });
        join_all(making).await;
    }
}

/// Between 0.75 and 1.25 times `pause`, so that those who lost one server do not all come back at one moment.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 2.0)
}
