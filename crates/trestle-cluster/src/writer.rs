//! Writes what [`Records`](crate::records::Records) says is due, in the background.
//!
//! Always: at most [`WRITES_MAX`] writes under way; nothing is tried while the bus is away.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use prost::Message as _;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use trestle_bus::{BusError, BusState};
use trestle_wire::v1;

use crate::{
    records::{Found, Write},
    registry::Inner,
    store::session_key,
};

/// Writes under way at once: with 1 ms each that is 64,000 a second, more than a node's sessions ever change.
pub(crate) const WRITES_MAX: usize = 64;

/// Writes until the bus is closed.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut state = inner.fabric.bus.state();
    let mut connection = *state.borrow_and_update();
    let mut writes = JoinSet::new();
    loop {
        let usable = matches!(connection, BusState::Connected(_));
        while usable && writes.len() < WRITES_MAX {
            let next = inner.change(|records| records.next(Instant::now(), SystemTime::now()));
            let Some(write) = next else { break };
            writes.spawn(store(Arc::clone(&inner), write));
        }
        let next_at = if usable { inner.change(|records| records.next_at(Instant::now())) } else { None };
        let room = writes.len() < WRITES_MAX;
        tokio::select! {
            biased; // what comes seldom, first; the others only wake it, and what is due is done whatever has
            changed = state.changed() => {
                let now = *state.borrow_and_update();
                if changed.is_err() || now == BusState::Closed {
                    return;
                }
                if now != connection && matches!(now, BusState::Connected(_)) {
                    inner.change(|records| records.rewrite_all(Instant::now()));
                }
                connection = now;
            }
            Some(_ended) = writes.join_next() => {}
            () = sleep_until(next_at.unwrap_or_else(Instant::now)), if room && next_at.is_some() => {}
            () = inner.wake.notified() => {}
        }
    }
}

/// One write, and what it teaches.
async fn store(inner: Arc<Inner>, write: Write) {
    let (kv, key) = (&inner.fabric.kv, session_key(&write.session));
    let outcome = match kv.compare_and_set(&key, write.expected, write.value.clone(), Some(write.ttl)).await {
        Ok(Some(revision)) => {
            inner.metrics.written.inc();
            if inner.failing.swap(false, Ordering::Relaxed) {
                tracing::info!("records of sessions are written again");
            }
            return inner.change(|records| records.wrote(&write, revision, Instant::now()));
        }
        Ok(None) => look(&inner, &key).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(found) => {
            let lost = inner.change(|records| records.found(&write, found, Instant::now()));
            if lost {
                inner.metrics.lost.inc();
                tracing::info!(session = %write.session, "a session of this node has gone on elsewhere");
                let _nobody_listens = inner.lost.send(write.session);
            }
        }
        Err(error) => {
            inner.metrics.failed.inc();
            if !inner.failing.swap(true, Ordering::Relaxed) {
                tracing::warn!(session = %write.session, %error, "records of sessions are not written; they are tried again");
            }
            inner.change(|records| records.failed(&write, &error, Instant::now()));
        }
    }
}

/// What is there instead of what this node wrote last.
async fn look(inner: &Inner, key: &str) -> Result<Found, BusError> {
    let Some(entry) = inner.fabric.kv.get(key).await? else { return Ok(Found::Nothing) };
    Ok(match v1::SessionRecord::decode(entry.value) {
        Ok(record) if record.node == inner.node.as_str() => {
            let expired = record.state() == v1::SessionState::Expired;
            Found::Ours { revision: entry.revision, epoch: record.epoch, expired }
        }
        _ => Found::Theirs,
    })
}
