//! The bus that needs nothing but this process.
//!
//! Live messages never leave memory. Logs are in memory, or under a data directory where every append is on disk
//! before it returns, and keys with their values beside them.

mod clock;
mod commit;
mod disk;
mod facts;
mod index;
mod journal;
mod kept;
mod live;
mod record;
mod stored;
mod stream;
mod taking;

use std::{path::PathBuf, sync::Arc, time::Duration};

use self::{
    clock::Clock,
    disk::DataDir,
    facts::{Facts, FactsKv},
    live::{Live, LiveBus},
    stored::{Stored, StoredLog},
};
use crate::Fabric;

/// How often logs that nobody touches are looked through for what is too old.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How an embedded bus is set up.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Where logs and keys are kept; `None` keeps them in memory and loses them with the process.
    pub data_dir: Option<PathBuf>,
    /// Largest payload, in bytes.
    pub payload_bytes_max: usize,
    /// Most messages that wait in one subscription.
    pub queue_messages_max: usize,
    /// Most bytes of payload that wait in one subscription.
    pub queue_bytes_max: usize,
    /// Size of the files of a log, in bytes; what is not needed any more is given back file by file.
    pub segment_bytes_max: u64,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            // What a nats-server takes unless told otherwise, so that moving to one changes nothing.
            payload_bytes_max: 1 << 20,
            // 16 Ki messages x about 100 B of queue = 1.6 MiB when full; a reader that is a second behind at 16 k/s.
            queue_messages_max: 16 << 10,
            // Payloads are shared between queues, so this is worst for one channel of large messages: 32 x 1 MiB.
            queue_bytes_max: 32 << 20,
            segment_bytes_max: disk::SEGMENT_BYTES_MAX,
        }
    }
}

/// The embedded bus.
///
/// What it promises beyond the traits: a log under [`EmbeddedConfig::data_dir`] has each append and each ack on disk
/// (flushed, in groups) before the call returns. Beginning again, [`Log::ensure`](crate::Log::ensure) finds what was
/// stored, what is done and the dedup ids; attempts are counted anew. Keys are there again from the start, with their
/// revisions; a lifetime goes on while nothing runs, by the clock on the wall.
pub struct Embedded;

/// Why an embedded bus could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the data directory {path}")]
pub struct OpenError {
    path: PathBuf,
    source: std::io::Error,
}

impl Embedded {
    /// Opens the bus. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`] if the data directory cannot be made, another process uses it, or its keys are damaged.
    pub fn open(config: EmbeddedConfig) -> Result<Fabric, OpenError> {
        let (segment_bytes_max, path) = (config.segment_bytes_max, config.data_dir.clone());
        let (live, clock) = (Live::new(config), Clock::start());
        let (data, facts) = match path {
            Some(path) => {
                let failed = |source| OpenError { path: path.clone(), source };
                let data = DataDir::open(&path).map_err(failed)?;
                let facts = Facts::open(live.clone(), clock, &data, segment_bytes_max).map_err(failed)?;
                (Some(data), facts)
            }
            None => (None, Facts::new(live.clone(), clock)),
        };
        let stored = Stored::new(live.clone(), clock, data, segment_bytes_max);
        tokio::spawn(Facts::expire(Arc::downgrade(&facts)));
        let swept = (Arc::downgrade(&stored), Arc::downgrade(&facts));
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(SWEEP_EVERY);
            loop {
                tick.tick().await;
                match (swept.0.upgrade(), swept.1.upgrade()) {
                    (None, None) => return,
                    (stored, facts) => {
                        stored.iter().for_each(|stored| stored.sweep());
                        facts.iter().for_each(|facts| facts.sweep());
                    }
                }
            }
        });
        let bus = LiveBus { live, stored: stored.clone(), facts: facts.clone() };
        Ok(Fabric { bus: Arc::new(bus), log: Arc::new(StoredLog(stored)), kv: Arc::new(FactsKv(facts)) })
    }
}
