//! A TCP proxy that can be cut: between one client and the servers it may reach.
//!
//! Always: once [`Cut::cut`] has returned not one byte passes, in either direction, until [`Cut::mend`]; once that has
//! returned, new connections pass.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};

use crate::cluster::quiet_ports;

/// Bytes on their way in a passage, each direction.
const CHUNK_BYTES: usize = 16 << 10;

/// How a [`Cut`] is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutMode {
    /// As when cables are pulled: connections stand and nothing passes; who connects anew hears nothing. When mended, what
    /// was on its way arrives.
    Stall,
    /// As when a firewall says no: connections are reset, new ones are refused.
    Reset,
}

/// The way through: open, or how it is cut.
type Way = Option<CutMode>;

/// Doors on the loopback, one before each server. Closed when dropped.
pub struct Cut {
    way: Arc<RwLock<Way>>,
    told: watch::Sender<Way>,
    doors: Vec<Door>,
}

struct Door {
    address: SocketAddr,
    /// What the door does; ends if it cannot be opened any more.
    does: watch::Receiver<Way>,
}

impl Cut {
    /// Opens a door before each of `servers`.
    ///
    /// # Errors
    /// If no port is to be had.
    pub async fn before(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        let (way, told) = (Arc::new(RwLock::new(None)), watch::Sender::new(None));
        let mut doors = Vec::new();
        for (server, port) in servers.iter().zip(quiet_ports(servers.len())?) {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let listener = TcpListener::bind(address).await.with_context(|| format!("no door at {address}"))?;
            let (does, doing) = watch::channel(None);
            let door = Opened { address, server: *server, way: way.clone(), told: told.subscribe(), does };
            tokio::spawn(door.run(listener));
            doors.push(Door { address, does: doing });
        }
        Ok(Self { way, told, doors })
    }

    /// Where the doors are, in the order of the servers.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.doors.iter().map(|door| door.address).collect()
    }

    /// The doors as NATS URLs, separated by commas.
    #[must_use]
    pub fn nats_url(&self) -> String {
        self.doors.iter().map(|door| format!("nats://{}", door.address)).collect::<Vec<_>>().join(",")
    }

    /// Cuts all doors and returns when that is in force.
    ///
    /// # Errors
    /// If a door is lost.
    pub async fn cut(&self, mode: CutMode) -> anyhow::Result<()> {
        self.set(Some(mode)).await
    }

    /// Opens all doors again and returns when new connections pass.
    ///
    /// # Errors
    /// If a door cannot be opened again, as somebody else has taken its port.
    pub async fn mend(&self) -> anyhow::Result<()> {
        self.set(None).await
    }

    async fn set(&self, way: Way) -> anyhow::Result<()> {
        *self.way.write().unwrap_or_else(PoisonError::into_inner) = way;
        self.told.send_replace(way);
        for door in &self.doors {
            let done = door.does.clone().wait_for(|does| *does == way).await.is_ok();
            ensure!(done, "the door at {} cannot be opened again", door.address);
        }
        Ok(())
    }
}

/// A door with its task.
struct Opened {
    address: SocketAddr,
    server: SocketAddr,
    way: Arc<RwLock<Way>>,
    told: watch::Receiver<Way>,
    does: watch::Sender<Way>,
}

impl Opened {
    async fn run(mut self, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            let way = *self.told.borrow_and_update();
            if way == Some(CutMode::Reset) {
                listener = None;
            } else if listener.is_none() {
                match TcpListener::bind(self.address).await {
                    Ok(again) => listener = Some(again),
                    Err(_) => return,
                }
            }
            self.does.send_replace(way);
            let accepted = async {
                match &listener {
                    // While stalled the system takes connections for us, and nobody answers them.
                    Some(listener) if way.is_none() => listener.accept().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.told.changed() => if changed.is_err() { return },
                accepted = accepted => {
                    let Ok((client, _)) = accepted else { continue };
                    tokio::spawn(passage(client, self.server, self.way.clone(), self.told.clone()));
                }
            }
        }
    }
}

/// One connection from end to end: until both directions have ended, either breaks, it is reset, or the cut is dropped.
async fn passage(client: TcpStream, server: SocketAddr, way: Arc<RwLock<Way>>, mut told: watch::Receiver<Way>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Each chunk leaves at once, as on the direct way.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client, mut server) = (client, server);
    let broken = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let there = flow(from_client, to_server, &way, told.clone());
        let back = flow(from_server, to_client, &way, told.clone());
        tokio::select! {
            ended = async { tokio::try_join!(there, back) } => ended.is_err(),
            _ = told.wait_for(|way| *way == Some(CutMode::Reset)) => true,
        }
    };
    if broken {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Moves bytes one way for as long as the way is open, then the end of them.
async fn flow(
    from: tcp::ReadHalf<'_>,
    mut to: tcp::WriteHalf<'_>,
    way: &RwLock<Way>,
    mut told: watch::Receiver<Way>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        from.readable().await?;
        let read = match from.try_read(&mut chunk) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut written = 0;
        while written < read {
            open(&mut told).await?;
            to.ready(Interest::WRITABLE).await?;
            // Held while writing, so that nothing passes once the way has been cut.
            let way = way.read().unwrap_or_else(PoisonError::into_inner);
            if way.is_none() {
                match to.try_write(&chunk[written..read]) {
                    Ok(more) => written += more,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if read == 0 {
            open(&mut told).await?;
            return to.shutdown().await;
        }
    }
}

/// Waits until the way is open.
async fn open(told: &mut watch::Receiver<Way>) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
    told.wait_for(Option::is_none).await.map(|_| ()).map_err(gone)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncReadExt, time::timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// How long it is looked that nothing comes.
    const QUIET: Duration = Duration::from_millis(200);

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn round_trip(stream: &mut TcpStream, what: &[u8]) -> io::Result<()> {
        stream.write_all(what).await?;
        heard(stream, what).await
    }

    async fn heard(stream: &mut TcpStream, what: &[u8]) -> io::Result<()> {
        let mut back = vec![0; what.len()];
        timeout(PATIENCE, stream.read_exact(&mut back)).await.expect("it comes back")?;
        assert_eq!(back, what);
        Ok(())
    }

    #[tokio::test]
    async fn what_is_stalled_arrives_when_it_is_mended() {
        let cut = Cut::before(&[echo().await]).await.expect("opens");
        let mut old = TcpStream::connect(cut.addresses()[0]).await.expect("connects");
        round_trip(&mut old, b"before").await.expect("passes");
        cut.cut(CutMode::Stall).await.expect("is cut");
        old.write_all(b"meanwhile").await.expect("is taken");
        let mut new = TcpStream::connect(cut.addresses()[0]).await.expect("is taken");
        new.write_all(b"hello").await.expect("is taken");
        let mut byte = [0];
        for stream in [&mut old, &mut new] {
            assert!(timeout(QUIET, stream.read(&mut byte)).await.is_err(), "something passed");
        }
        cut.mend().await.expect("is mended");
        heard(&mut old, b"meanwhile").await.expect("arrives");
        heard(&mut new, b"hello").await.expect("arrives");
    }

    #[tokio::test]
    async fn a_reset_ends_connections_and_refuses_new_ones_until_it_is_mended() {
        let cut = Cut::before(&[echo().await, echo().await]).await.expect("opens");
        for _ in 0..3 {
            let mut streams = Vec::new();
            for address in cut.addresses() {
                streams.push(TcpStream::connect(address).await.expect("connects"));
            }
            for stream in &mut streams {
                round_trip(stream, b"before").await.expect("passes");
            }
            cut.cut(CutMode::Reset).await.expect("is cut");
            for (stream, address) in streams.iter_mut().zip(cut.addresses()) {
                let ended = timeout(PATIENCE, stream.read(&mut [0])).await.expect("it ends");
                assert_eq!(ended.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
                let refused = TcpStream::connect(address).await;
                assert_eq!(refused.expect_err("closed").kind(), io::ErrorKind::ConnectionRefused);
            }
            cut.mend().await.expect("is mended");
        }
    }

    #[tokio::test]
    async fn much_passes_whole_and_an_end_is_an_end() {
        let cut = Cut::before(&[echo().await]).await.expect("opens");
        let mut stream = TcpStream::connect(cut.addresses()[0]).await.expect("connects");
        let much: Vec<u8> = (0..3_000_000_u32).map(|at| at as u8).collect();
        let (mut read, mut write) = stream.split();
        let sent = async {
            write.write_all(&much).await?;
            write.shutdown().await
        };
        let mut back = Vec::new();
        let (sent, came) =
            timeout(PATIENCE, async { tokio::join!(sent, read.read_to_end(&mut back)) }).await.expect("ends");
        sent.expect("is sent");
        assert_eq!(came.expect("comes back"), much.len());
        assert!(back == much);
    }
}
