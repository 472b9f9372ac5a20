//! Accept: an address in, a socket that hands out connections at once.

use std::{io, net::SocketAddr};

use axum::serve::{ListenerExt as _, TapIo};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the kernel holds while they wait to be accepted: a storm of reconnects fits without SYN retries,
/// which cost the client a second each. The kernel's `net.core.somaxconn` (4096 by default) caps it.
const BACKLOG: u32 = 4096;

/// A listener whose sockets send at once.
pub type Sockets = TapIo<TcpListener, fn(&mut TcpStream)>;

/// Listens on `address`; port 0 takes a free one.
///
/// What is written goes out at once (`TCP_NODELAY`): the gateway batches by itself, and a small frame must not wait for
/// the client's delayed ack.
///
/// # Errors
/// What the system says, for instance that the address is in use.
pub fn bind(address: SocketAddr) -> io::Result<Sockets> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener: TcpListener = socket.listen(BACKLOG)?;
    Ok(listener.tap_io(send_at_once as fn(&mut TcpStream)))
}

fn send_at_once(stream: &mut TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
}
