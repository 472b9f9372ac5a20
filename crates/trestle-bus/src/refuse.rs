//! What a client or service is told when the bus did not do it.

use std::time::Duration;

use trestle_wire::{Reason, Refusal};

use crate::BusError;

/// When to try again while the bus is away: it reconnects within seconds, or it does not.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<BusError> for Refusal {
    fn from(error: BusError) -> Self {
        let message = error.to_string();
        match error {
            BusError::Away => Self::new(Reason::BusAway, message).retry_after(RETRY_AFTER),
            BusError::NoResponders(_) => Self::new(Reason::NoInstance, "no instance of the service is attached"),
            BusError::Timeout(_) => Self::new(Reason::Timeout, message),
            BusError::TooLarge { .. } => Self::new(Reason::PayloadTooLarge, message),
            BusError::Full { .. } => Self::new(Reason::WorkFull, message),
            BusError::NoLog(_) | BusError::Refused(_) => {
                tracing::error!(%error, "the bus refused what the gateway needs; look at its permissions and limits");
                Self::new(Reason::Internal, "the bus refused it; the gateway's log says more")
            }
        }
    }
}
