//! What an idle subscribed connection holds, by part, so that growth is seen when it comes.

use std::{mem::size_of, sync::Arc};

use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::Sleep};
use trestle_hub::Member;
use trestle_session::Session;

use crate::{
    Edge, Hello,
    connection::{self, Connection},
    seats::Listening,
    stay::Stay,
    websocket::WebSocket,
};

/// The size of the future that `task` makes.
fn future<F>(_: impl FnOnce(Arc<Edge>, Box<WebSocket<TcpStream>>, Hello, OwnedSemaphorePermit) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn an_idle_connection_is_small() {
    let parts = [
        ("task", future(connection::run::<TcpStream>), 400),
        ("connection", size_of::<Connection>(), 400),
        ("timer", size_of::<Sleep>(), 128),
        ("socket", size_of::<WebSocket<TcpStream>>(), 320),
        ("stay", size_of::<Stay>(), 1000),
        ("of which session", size_of::<Session>(), 560),
        ("member", size_of::<Member>(), 420),
        ("a subscription", size_of::<Listening>(), 160),
    ];
    for (part, bytes, most) in parts {
        println!("{part:>16} {bytes:5} B");
        assert!(bytes <= most, "{part}: {bytes} bytes; at most {most}");
    }
}
