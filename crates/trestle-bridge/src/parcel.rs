//! A message on its way from the bus to an instance, and what is owed to the bus for it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use trestle_bus::{Subject, Work};
use trestle_telemetry::Span;
use trestle_wire::v1;

use crate::ticket::Ticket;

/// A message that has no instance yet.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// What the instance gets.
    pub(crate) envelope: v1::Envelope,
    /// From 1; how often it was taken off the bus, without the times of which it is known that no instance saw it.
    pub(crate) attempt: u32,
    /// When it comes again, or when its sender stops waiting.
    pub(crate) deadline: Option<Instant>,
    /// What is owed for it.
    pub(crate) task: Task,
}

/// What is owed to the bus, or to a client, for a delivery. Whoever holds it settles it.
#[derive(Debug)]
pub(crate) struct Task {
    /// What kind of promise was made.
    pub(crate) job: Job,
    /// Full name of the message's type.
    pub(crate) message_type: Arc<str>,
    /// When it was taken off the bus.
    pub(crate) taken: Instant,
    /// From taking it to settling it; `None` where the trace is not sampled.
    pub(crate) span: Option<Span>,
}

/// The kinds of promise.
#[derive(Debug)]
pub(crate) enum Job {
    /// DURABLE or HANDLED: acked on the bus when the service acks.
    Stored {
        /// The bus's side of it.
        work: Work,
        /// For HANDLED: the node that waits, and what it is told.
        handled: Option<(Subject, Bytes)>,
    },
    /// RECEIVED: nothing is owed.
    Live,
    /// A request: an answer is owed.
    Request {
        /// Where it is awaited.
        reply_to: Subject,
        /// Binds the answer to the request.
        correlation_id: String,
        /// By which it is cancelled; `None` if it came without a correlation id.
        ticket: Option<Ticket>,
    },
}

impl Task {
    /// Whether a reply is awaited.
    pub(crate) fn is_request(&self) -> bool {
        matches!(self.job, Job::Request { .. })
    }

    /// The ticket of a request that has one.
    pub(crate) fn ticket(&self) -> Option<&Ticket> {
        match &self.job {
            Job::Request { ticket, .. } => ticket.as_ref(),
            Job::Stored { .. } | Job::Live => None,
        }
    }

    /// Whether it is a request that nobody waits for any more.
    pub(crate) fn is_over(&self) -> bool {
        self.ticket().is_some_and(Ticket::is_over)
    }

    /// Marks the span as failed.
    pub(crate) fn fail(&mut self, what: &str) {
        if let Some(span) = &mut self.span {
            span.fail(what);
        }
    }
}
