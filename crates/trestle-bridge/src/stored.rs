//! The intake of stored messages of one type: from the work log to the service's instances.
//!
//! It takes no more than there is room for. What finds no room all the same, because another type's intake was faster,
//! waits [`Config::credit_wait`](crate::Config::credit_wait) and is then given back, so that another node gets it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use trestle_bus::{BusError, Consumer, ConsumerSpec, Work, logs};
use trestle_wire::{ServiceName, v1};

use crate::{
    Shared,
    parcel::{Job, Parcel},
    serve::Backoff,
    service::Service,
};

/// Most messages taken at once; as many as fit in one frame to a service.
const FETCH_MAX: u32 = 64;
/// How long one call to the bus waits for a message. Only bounds the call: the loop asks again.
const FETCH_WAIT: Duration = Duration::from_secs(5);
/// How many messages are remembered that were given back before an instance saw them. 1024 ids of at most 300 bytes are
/// 300 KiB a type; more are not given back in the second that each of them waits.
const UNSEEN_MAX: usize = 1024;
/// How often a type that is not stored is looked at again: a reload may have changed its ack level, here or where it is
/// sent from.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Runs until `stop`. `ready` becomes true once the consumer is there.
pub(crate) async fn run(
    shared: Arc<Shared>,
    service: Arc<Service>,
    message_type: Arc<str>,
    stop: CancellationToken,
    ready: watch::Sender<bool>,
) {
    while !is_stored(&shared, &message_type) && !has_backlog(&shared, &service, &message_type).await {
        ready.send_replace(true);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let error = match consumer(&shared, &service, &message_type).await {
            Ok(consumer) => {
                backoff = Backoff::default();
                ready.send_replace(true);
                let mut intake = Stored {
                    shared: &shared,
                    service: &service,
                    message_type: &message_type,
                    stop: &stop,
                    unseen: Unseen::default(),
                };
                match intake.pump(&*consumer).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        ready.send_replace(false);
        tracing::warn!(service = %service.name, %message_type, %error, "stored messages cannot be taken; trying again");
        backoff.pause(&stop).await;
    }
}

/// Whether clients' messages of this type are kept in the work log.
fn is_stored(shared: &Shared, message_type: &str) -> bool {
    let catalogue = shared.schemas.current();
    let ack = catalogue.get(message_type).and_then(|kind| kind.route()).map(|route| route.ack);
    matches!(ack, Some(v1::AckLevel::Durable | v1::AckLevel::Handled))
}

/// Whether the work log still has messages of this type, from a time when it was stored.
async fn has_backlog(shared: &Shared, service: &Service, message_type: &str) -> bool {
    let subject = shared.subjects.work(&service.name, message_type);
    match shared.fabric.log.last(&logs::work(&shared.subjects).name, &subject).await {
        Ok(last) => last > 0,
        Err(error) => {
            tracing::debug!(service = %service.name, message_type, %error, "cannot look into the work log; looking again");
            false
        }
    }
}

/// Names the consumer of one type: its dots are no part of a consumer's name, and `-` no part of a type's.
fn consumer_name(service: &ServiceName, message_type: &str) -> String {
    format!("{service}__{}", message_type.replace('.', "-"))
}

/// The durable consumer that all nodes share for this type.
async fn consumer(shared: &Shared, service: &Service, message_type: &str) -> Result<Arc<dyn Consumer>, BusError> {
    let log = logs::work(&shared.subjects);
    shared.fabric.log.ensure(&log).await?;
    let spec = ConsumerSpec {
        log: log.name,
        name: consumer_name(&service.name, message_type),
        filter: shared.subjects.work(&service.name, message_type),
        ack_wait: shared.config.ack_wait,
    };
    shared.fabric.log.consumer(&spec).await
}

struct Stored<'a> {
    shared: &'a Shared,
    service: &'a Service,
    message_type: &'a Arc<str>,
    stop: &'a CancellationToken,
    unseen: Unseen,
}

impl Stored<'_> {
    /// Takes and offers until `stop`.
    async fn pump(&mut self, consumer: &dyn Consumer) -> Result<(), BusError> {
        let mut freed = self.service.freed();
        loop {
            let room = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                room = self.room(&mut freed) => room,
            };
            let works = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                works = consumer.fetch(room.min(FETCH_MAX) as usize, FETCH_WAIT) => works?,
            };
            self.hand_out(works, &mut freed).await;
        }
    }

    /// Waits until some instance has room; returns how much there is.
    async fn room(&self, freed: &mut watch::Receiver<()>) -> u32 {
        loop {
            freed.borrow_and_update();
            let room = self.service.free(self.message_type);
            if room > 0 {
                return room;
            }
            // The sender lives as long as the service, which is borrowed here.
            let _ = freed.changed().await;
        }
    }

    async fn hand_out(&mut self, works: Vec<Work>, freed: &mut watch::Receiver<()>) {
        let taken = Instant::now();
        let patience = taken + self.shared.config.credit_wait;
        for work in works {
            let parcel = self.shared.parcel_of_work(self.service, self.message_type, work, taken).await;
            let Some(mut parcel) = parcel else { continue };
            let unseen = self.unseen.recall(&parcel);
            // The bus counts every take; a service is to hear of those that a service may have seen.
            parcel.attempt = parcel.attempt.saturating_sub(unseen).max(1);
            if let Some(parcel) = self.offer_until(parcel, patience, freed).await {
                self.unseen.remember(&parcel, unseen + 1);
                self.give_back(*parcel).await;
            }
        }
    }

    /// Offers until it is taken, or patience is over, or the intake stops; then returns it.
    async fn offer_until(
        &self,
        mut parcel: Box<Parcel>,
        patience: Instant,
        freed: &mut watch::Receiver<()>,
    ) -> Option<Box<Parcel>> {
        loop {
            freed.borrow_and_update();
            parcel = self.service.offer(parcel).err()?;
            tokio::select! {
                () = self.stop.cancelled() => return Some(parcel),
                () = tokio::time::sleep_until(patience) => return Some(parcel),
                _ = freed.changed() => {}
            }
        }
    }

    async fn give_back(&self, mut parcel: Parcel) {
        parcel.task.fail("no_credit");
        if let Job::Stored { work, .. } = &parcel.task.job
            && let Err(error) = work.nak(Duration::ZERO).await
        {
            tracing::debug!(service = %self.service.name, %error, "could not give a message back; it comes again later");
        }
    }
}

/// How often messages were taken here, and given back, without an instance seeing them. What other nodes do with a
/// message is not known here: then too many attempts are counted, never too few.
#[derive(Debug, Default)]
struct Unseen(HashMap<String, u32>);

impl Unseen {
    /// How often that is for a message that was taken; forgets it.
    fn recall(&mut self, parcel: &Parcel) -> u32 {
        if self.0.is_empty() {
            return 0;
        }
        Self::key(parcel).and_then(|key| self.0.remove(&key)).unwrap_or(0)
    }

    fn remember(&mut self, parcel: &Parcel, times: u32) {
        if self.0.len() >= UNSEEN_MAX {
            self.0.clear(); // those that another node took are never recalled
        }
        self.0.extend(Self::key(parcel).map(|key| (key, times)));
    }

    /// An id is unique per source; whoever stores without one is not told apart.
    fn key(parcel: &Parcel) -> Option<String> {
        let v1::Envelope { id, source, .. } = &parcel.envelope;
        let session = source.as_ref().map_or("", |source| &source.session);
        (!id.is_empty()).then(|| format!("{session}/{id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_types_have_different_consumers() {
        let service = ServiceName::parse("users").expect("valid");
        assert_eq!(consumer_name(&service, "shop.v1.UserCreated"), "users__shop-v1-UserCreated");
        assert_ne!(consumer_name(&service, "a.v1.X_Y"), consumer_name(&service, "a.v1.X.Y"));
    }
}
