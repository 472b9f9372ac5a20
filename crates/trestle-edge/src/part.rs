//! Part: a socket that ends in, what becomes of its client out.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use trestle_codec::{Encoding, encode};
use trestle_session::{Event, State, survives};
use trestle_wire::{
    CloseCode, Reason, Refusal,
    v1::{self, server_frame},
};

use crate::{
    Edge, pending,
    stay::Stay,
    websocket::{Stream, WebSocket},
};

/// Tells a client to come again after `wait`, since too many have come at once.
pub(crate) async fn turn_away<S: Stream>(
    edge: &Edge,
    mut socket: Box<WebSocket<S>>,
    encoding: Encoding,
    wait: Duration,
) {
    edge.metrics.turned_away.inc();
    edge.metrics.refused(Reason::TooBusy.row().word);
    let refusal = Refusal::new(Reason::TooBusy, "too many clients come at once").retry_after(wait);
    let error = v1::ServerFrame { reply_to: 0, frame: Some(server_frame::Frame::Error(refusal.into())) };
    let frame = encode(encoding, &error, &edge.schemas.current());
    socket.write(frame.into());
    edge.metrics.closed(CloseCode::Busy);
    socket.close(CloseCode::Busy, None, edge.config.close_timeout).await;
}

/// Takes the socket away from a stay. It goes on without one, or ends: then seats, presence, requests and waits go here,
/// before the client is given time to take the close frame.
pub(crate) async fn part(edge: &Arc<Edge>, mut stay: Box<Stay>, end: End) {
    let may_come_back = match end {
        End::Close(code) => survives(code),
        End::Gone => true,
        End::Goodbye => false,
    };
    if may_come_back {
        _ = stay.on(Event::Lost);
    }
    if stay.session.state() == State::Pending {
        stay.disappear();
        edge.tell(&stay, v1::SessionChange::SessionPending);
        edge.tasks.spawn(pending::keep(stay));
        return;
    }
    // First of all, so that nobody resumes what is about to end.
    _ = stay.on(Event::Goodbye);
    stay.leave_all();
    // What the client sent before it went is done; whoever waits longer than that waits for nobody.
    let _in_time = timeout(edge.config.close_timeout, stay.lane.finish()).await;
}

/// How a connection ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// The gateway parts from the client.
    Close(CloseCode),
    /// The client is gone.
    Gone,
    /// The client has closed its session.
    Goodbye,
}
