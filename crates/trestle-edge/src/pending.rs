//! A stay without a socket: kept for the resume window, its outbox filling, its requests going on.
//!
//! In: a stay whose connection is lost. Out: given up to whoever has the client's next socket, expired, or parked by a
//! node that stops. What always holds: what cannot be kept any more is given up, and the client will be told.

use std::{future::poll_fn, task::Poll, time::Duration};

use tokio::time::{Instant, sleep_until};
use trestle_hub::Mail;
use trestle_session::{Event, State};

use crate::{handover, lane::Done, stay::Stay, wish::Told};

/// How long a stay that is parked lets its requests end: what comes later has nobody to be told.
const PARK_WAIT: Duration = Duration::from_secs(2);

/// What came first.
#[allow(clippy::large_enum_variant)] // one at a time, on the stack, and gone before the next
enum Came {
    Mail(Mail),
    Done(Done),
    Overflow,
    Window,
    Drain,
    Stop,
}

/// Keeps `stay` until its client comes back or its time is over.
pub(crate) async fn keep(mut stay: Box<Stay>) {
    let (mut drain, mut stop) = (stay.edge.drain.raised(), stay.edge.stop.raised());
    // Once the node stops: until when requests may end.
    let mut leaving = None;
    let _counted = stay.edge.metrics.pend();
    let most = i64::try_from(stay.edge.config.pending_max).unwrap_or(i64::MAX);
    if stay.edge.metrics.pending.get() > most {
        // Its channels can still be recovered from their logs.
        stay.give_up_stream();
    }
    while stay.session.state() == State::Pending {
        if leaving.is_some() && stay.lane.is_idle() {
            return handover::park(stay).await;
        }
        let ends = leaving.unwrap_or_else(|| Instant::from_std(stay.session.wakes_at()));
        let mut window = std::pin::pin!(sleep_until(ends));
        let came = poll_fn(|context| {
            if let Poll::Ready(mail) = stay.member.mail.poll_next(context) {
                return Poll::Ready(Came::Mail(mail));
            }
            if let Poll::Ready(done) = stay.lane.poll_next(context) {
                return Poll::Ready(Came::Done(done));
            }
            if !stay.broken && stay.member.outbox.poll_overflow(context).is_ready() {
                return Poll::Ready(Came::Overflow);
            }
            if leaving.is_none() && drain.as_mut().poll(context).is_ready() {
                return Poll::Ready(Came::Drain);
            }
            if leaving.is_some() && stop.as_mut().poll(context).is_ready() {
                return Poll::Ready(Came::Stop);
            }
            window.as_mut().poll(context).map(|()| Came::Window)
        });
        match came.await {
            Came::Mail(mail) => {
                if let Told::Yield(give) = stay.told(mail) {
                    match give.send(stay) {
                        Ok(()) => return,
                        // Whoever asked has given up: it stays here.
                        Err(kept) => stay = kept,
                    }
                }
            }
            Came::Done(done) => _ = stay.done(done),
            Came::Overflow => stay.give_up_stream(),
            Came::Window if leaving.is_none() => _ = stay.on(Event::Tick),
            Came::Drain => leaving = Some(Instant::now() + PARK_WAIT),
            Came::Window | Came::Stop => {
                tracing::debug!(session = %stay.member.session, "requests of a session are cut, as its node stops");
                return handover::park(stay).await;
            }
        }
    }
    stay.leave_all();
}
