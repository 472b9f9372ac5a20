//! Accept: an address in, connections out, each with its place, its socket sending at once, and HTTP spoken on it.
//!
//! What always holds: there are never more sockets than places; whoever sends no complete request in time is closed;
//! a connection that stays HTTP lives for minutes at most. Only one that became a WebSocket stays, and it keeps its
//! place for as long.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

use crate::EdgeConfig;

/// Connections that the kernel holds while they wait to be accepted: a storm of reconnects fits without SYN retries,
/// which cost the client a second each. The kernel's `net.core.somaxconn` (4096 by default) caps it.
const BACKLOG: u32 = 4096;
/// Sockets beyond `connections_max`: a node that is full of clients still answers health checks, scrapes and pushes, and
/// tells further clients to go elsewhere. 1,024 x about 10 KiB are 10 MiB.
const HTTP_PLACES: usize = 1024;
/// How long a connection may stay plain HTTP, however often it is used: no slow body or reader holds a place for ever.
const HTTP_AGE_MAX: Duration = Duration::from_secs(60);
/// How long the request that is being answered then, or at a stop, may still take.
const HTTP_GRACE: Duration = Duration::from_secs(30);
/// Pause after the system could not give a socket, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The place of one socket among those that there may be; free again when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "held for its drop")] Arc<OwnedSemaphorePermit>);

/// A listening address.
pub struct Accept {
    listener: TcpListener,
    address: SocketAddr,
    places: Arc<Semaphore>,
    handshake_timeout: Duration,
    buffers: Buffers,
}

/// How much of what is written the kernel may hold for one socket.
#[derive(Clone, Copy)]
struct Buffers {
    /// `SO_SNDBUF`.
    send_bytes: usize,
    /// `TCP_NOTSENT_LOWAT`.
    unsent_bytes: usize,
}

impl Accept {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// What the system says, for instance that the address is in use.
    pub fn bind(address: SocketAddr, config: &EdgeConfig) -> io::Result<Self> {
        let places = config.connections_max.saturating_add(HTTP_PLACES).min(Semaphore::MAX_PERMITS);
        let buffers = Buffers { send_bytes: config.send_buffer_bytes, unsent_bytes: config.unsent_bytes_max };
        Self::with_places(address, places, config.handshake_timeout, buffers)
    }

    fn with_places(
        address: SocketAddr,
        places: usize,
        handshake_timeout: Duration,
        buffers: Buffers,
    ) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, places: Arc::new(Semaphore::new(places)), handshake_timeout, buffers })
    }

    /// Where it really listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` by HTTP/1.1 until `stop`, then lets the requests in flight end, for 30 s at most.
    ///
    /// Requests carry `ConnectInfo<SocketAddr>`. While there is no place, connections wait in the kernel's queue.
    /// WebSockets are not waited for: their tasks are the edge's.
    ///
    /// # Errors
    /// The listener is broken and will never give a socket again.
    pub async fn serve(self, router: Router, stop: CancellationToken) -> io::Result<()> {
        let connections = TaskTracker::new();
        let conversation = stop.child_token();
        let accepted = tokio::select! {
            never = self.accept(&router, &conversation, &connections) => never.map(|never| match never {}),
            () = stop.cancelled() => Ok(()),
        };
        drop(self.listener); // from here on a connection is refused at once
        conversation.cancel();
        connections.close();
        connections.wait().await;
        accepted
    }

    async fn accept(
        &self,
        router: &Router,
        stop: &CancellationToken,
        connections: &TaskTracker,
    ) -> io::Result<Infallible> {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return Err(io::Error::other("the places are gone"));
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.buffers.set(&stream);
                    let http = Http { peer, place: Place(Arc::new(place)), router: router.clone() };
                    connections.spawn(http.converse(stream, self.handshake_timeout, stop.clone()));
                }
                // accept(2): EINVAL, "socket is not listening".
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                // accept(2): the client went away first; the next one is waiting.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Buffers {
    fn set(self, stream: &TcpStream) {
        let socket = SockRef::from(stream);
        let unsent = u32::try_from(self.unsent_bytes).unwrap_or(u32::MAX);
        let set = socket.set_send_buffer_size(self.send_bytes).and_then(|()| socket.set_tcp_notsent_lowat(unsent));
        if let Err(error) = set {
            tracing::debug!(%error, "the buffers of a socket could not be bounded");
        }
    }
}

/// One connection, as long as it speaks HTTP.
struct Http {
    peer: SocketAddr,
    place: Place,
    router: Router,
}

impl Http {
    async fn converse(self, stream: TcpStream, handshake_timeout: Duration, stop: CancellationToken) {
        let peer = self.peer;
        // The gateway batches by itself, and a small frame must not wait for the client's delayed ack.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(self.peer));
            request.extensions_mut().insert(self.place.clone());
            self.router.clone().call(request)
        });
        // The time for a header also runs before its first byte and between two requests.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(handshake_timeout)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = stop.cancelled() => None,
            () = sleep(HTTP_AGE_MAX) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                match timeout(HTTP_GRACE, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return tracing::debug!(%peer, "an HTTP exchange took too long and is cut"),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "an HTTP connection ended early");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::Notify,
        task::JoinHandle,
    };

    use super::*;

    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: t\r\n\r\n";
    /// For what has to come.
    const PATIENCE: Duration = Duration::from_secs(20);
    const BUFFERS: Buffers = Buffers { send_bytes: 65_536, unsent_bytes: 16_384 };
    /// A handshake timeout that no test waits for.
    const LONG: Duration = Duration::from_secs(600);

    struct House {
        address: SocketAddr,
        stop: CancellationToken,
        places: Arc<Semaphore>,
        served: JoinHandle<io::Result<()>>,
    }

    fn house(places: usize, handshake_timeout: Duration, router: Router) -> House {
        let accept = Accept::with_places(([127, 0, 0, 1], 0).into(), places, handshake_timeout, BUFFERS).unwrap();
        let (address, stop, places) = (accept.local_addr(), CancellationToken::new(), Arc::clone(&accept.places));
        House { address, places, served: tokio::spawn(accept.serve(router, stop.clone())), stop }
    }

    fn hello() -> Router {
        Router::new().route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
    }

    /// All that comes on `stream` until the gateway closes it.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut said = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("closed in time").expect("read");
        String::from_utf8(said).unwrap()
    }

    #[tokio::test]
    async fn a_client_that_sends_no_whole_request_is_closed_in_time() {
        let house = house(4, Duration::from_millis(50), hello());
        for sent in ["", "GET / HTTP/1.1\r\nhost: t\r\n"] {
            let mut stream = TcpStream::connect(house.address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            assert_eq!(rest(&mut stream).await, "", "{sent:?}");
        }
        // Between two requests the same time counts.
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.ends_with(&stream.local_addr().unwrap().to_string()), "{answer}");
    }

    #[tokio::test]
    async fn a_socket_without_a_place_waits_until_one_is_free() {
        let house = house(1, LONG, hello());
        let mut first = TcpStream::connect(house.address).await.unwrap();
        first.write_all(REQUEST.as_bytes()).await.unwrap();
        first.read_u8().await.unwrap(); // it is served, so it has the place
        let mut second = TcpStream::connect(house.address).await.unwrap();
        second.write_all(REQUEST.as_bytes()).await.unwrap();
        assert_eq!(house.places.available_permits(), 0);
        timeout(Duration::from_millis(100), second.read_u8()).await.expect_err("no place, no answer");
        drop(first);
        timeout(PATIENCE, second.read_u8()).await.expect("a place is free").unwrap();
    }

    #[tokio::test]
    async fn a_stop_closes_what_is_idle_and_lets_a_request_end() {
        let (began, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begin, end) = (Arc::clone(&began), Arc::clone(&may_end));
        let slow = move || {
            let (begin, end) = (Arc::clone(&begin), Arc::clone(&end));
            async move {
                begin.notify_one();
                end.notified().await;
                "done"
            }
        };
        let house = house(4, LONG, Router::new().route("/", get(slow)));
        let mut silent = TcpStream::connect(house.address).await.unwrap();
        let mut busy = TcpStream::connect(house.address).await.unwrap();
        busy.write_all(REQUEST.as_bytes()).await.unwrap();
        began.notified().await;
        house.stop.cancel();
        assert_eq!(rest(&mut silent).await, "");
        may_end.notify_one();
        assert!(rest(&mut busy).await.ends_with("done"));
        timeout(PATIENCE, house.served).await.expect("it ends").unwrap().unwrap();
        TcpStream::connect(house.address).await.expect_err("nobody listens any more");
    }
}
