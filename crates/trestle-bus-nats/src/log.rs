//! Stored messages in JetStream: [`Log`].

use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, header, jetstream::stream};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use trestle_bus::{Appended, BusError, Consumer, ConsumerSpec, Log, LogSpec, Stored, Subject, pattern};

use crate::{
    consumer::PullConsumer,
    jetstream::{Ack, Fault, code},
    link::{Link, jittered},
};

/// What the server says when a stream's `max_bytes` is reached; its code stands for any failed store.
const MAX_BYTES_SAID: &str = "maximum bytes exceeded";

/// Before a dedup id that is being stored is tried again: replicas agree within a few round trips.
const SAME_ID_PAUSE: Duration = Duration::from_millis(5);

impl Link {
    /// Makes the stream, or changes it, and sees to it again after a break.
    pub(crate) async fn make_stream(&self, config: &stream::Config) -> Result<(), Fault> {
        match self.api(&format!("STREAM.UPDATE.{}", config.name), config).await {
            Err(Fault::Refused { code: code::STREAM_NOT_FOUND, .. }) => {
                self.api(&format!("STREAM.CREATE.{}", config.name), config).await?;
            }
            other => drop(other?),
        }
        self.streams.lock().insert(config.name.clone(), config.clone());
        Ok(())
    }

    /// What no listener means: a stream that we have made sure of is there, but has no leader at the moment.
    pub(crate) fn unanswered(&self, fault: Fault, what: &str, ours: impl Fn(&stream::Config) -> bool) -> BusError {
        match fault {
            Fault::Nobody if self.streams.lock().values().any(ours) => BusError::Away,
            fault => fault.about(what),
        }
    }
}

impl Link {
    /// Stores a message; one whose dedup id is just being stored waits until that has ended, this way or that.
    async fn store_settled(&self, subject: &Subject, headers: HeaderMap, payload: Bytes) -> Result<Ack, Fault> {
        let began = Instant::now();
        loop {
            match self.store(subject.to_string(), headers.clone(), payload.clone()).await {
                Err(Fault::Refused { code: code::SAME_ID_IN_PROCESS, .. }) => {}
                settled => return settled,
            }
            if began.elapsed() >= self.config.request_timeout {
                return Err(BusError::Timeout(began.elapsed()).into());
            }
            sleep(jittered(SAME_ID_PAUSE)).await;
        }
    }

    /// The error for a stream of ours that stores as much as it may.
    fn full(&self, ours: impl Fn(&stream::Config) -> bool) -> Option<BusError> {
        let streams = self.streams.lock();
        let full = streams.values().find(|config| config.max_bytes > 0 && ours(config))?;
        Some(BusError::Full { log: full.name.clone(), max: full.max_bytes.unsigned_abs() })
    }
}

fn stream_config(spec: &LogSpec, replicas: usize) -> stream::Config {
    stream::Config {
        name: spec.name.clone(),
        subjects: spec.subjects.iter().map(ToString::to_string).collect(),
        retention: if spec.work_queue { stream::RetentionPolicy::WorkQueue } else { stream::RetentionPolicy::Limits },
        storage: stream::StorageType::File,
        num_replicas: replicas,
        max_messages: -1,
        max_bytes: spec.bytes_max.and_then(|most| i64::try_from(most).ok()).unwrap_or(-1),
        max_consumers: -1,
        max_messages_per_subject: spec.per_subject_max.and_then(|most| i64::try_from(most).ok()).unwrap_or(-1),
        max_age: spec.age_max.unwrap_or_default(),
        discard: if spec.bytes_max.is_some() { stream::DiscardPolicy::New } else { stream::DiscardPolicy::Old },
        duplicate_window: spec.dedup_window,
        allow_direct: true,
        republish: spec.republish.as_ref().map(|(from, to)| stream::Republish {
            source: format!("{from}.>"),
            destination: format!("{to}.>"),
            headers_only: false,
        }),
        ..stream::Config::default()
    }
}

/// [`Log`] in JetStream.
pub(crate) struct StreamLog(pub(crate) Arc<Link>);

#[async_trait]
impl Log for StreamLog {
    async fn ensure(&self, spec: &LogSpec) -> Result<(), BusError> {
        self.0.check()?;
        let config = stream_config(spec, self.0.config.replicas);
        self.0.make_stream(&config).await.map_err(|fault| fault.without_jetstream().about(&spec.name))
    }

    async fn append(&self, subject: &Subject, dedup: Option<&str>, payload: Bytes) -> Result<Appended, BusError> {
        self.0.check()?;
        self.0.fits(&payload)?;
        let mut headers = HeaderMap::new();
        if let Some(id) = dedup.filter(|id| !id.is_empty()) {
            let id = id.parse::<header::HeaderValue>();
            headers
                .insert(header::NATS_MESSAGE_ID, id.map_err(|error| BusError::Refused(format!("dedup id: {error}")))?);
        }
        let patience = self.0.config.request_timeout;
        // On its way at the first poll, also when the caller's task has used up its turn.
        let stored = tokio::task::coop::unconstrained(async {
            let one_of_few = timeout(patience, self.0.appends.acquire()).await;
            let _one_of_few = one_of_few.map_err(|_| BusError::Timeout(patience))?;
            self.0.store_settled(subject, headers, payload).await
        })
        .await;
        let covers = |config: &stream::Config| config.subjects.iter().any(|at| pattern::matches(at, subject.as_str()));
        let ack = stored.map_err(|fault| match &fault {
            Fault::Refused { code: code::STORE_FAILED, said } if said == MAX_BYTES_SAID => {
                self.0.full(covers).unwrap_or_else(|| fault.about(subject.as_str()))
            }
            _ => self.0.unanswered(fault, subject.as_str(), covers),
        })?;
        Ok(Appended { offset: ack.sequence, duplicate: ack.duplicate })
    }

    async fn read(&self, log: &str, subject: &Subject, from: u64, most: usize) -> Result<Vec<Stored>, BusError> {
        self.0.check()?;
        let read = self.0.read(log, subject.as_str(), from, most).await;
        let read = read.map_err(|fault| self.0.unanswered(fault, log, |config| config.name == log))?;
        Ok(read.into_iter().map(|m| Stored { offset: m.sequence, payload: m.payload }).collect())
    }

    async fn last(&self, log: &str, subject: &Subject) -> Result<u64, BusError> {
        self.0.check()?;
        let last = self.0.last_of(log, subject.as_str()).await;
        let last = last.map_err(|fault| self.0.unanswered(fault, log, |config| config.name == log))?;
        Ok(last.map_or(0, |message| message.sequence))
    }

    async fn reached(&self, log: &str) -> Result<u64, BusError> {
        self.0.check()?;
        let reached = self.0.reached(log).await;
        reached.map_err(|fault| self.0.unanswered(fault, log, |config| config.name == log))
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Arc<dyn Consumer>, BusError> {
        self.0.check()?;
        let consumer = PullConsumer::new(self.0.clone(), spec.clone());
        consumer.make().await?;
        Ok(Arc::new(consumer))
    }
}
