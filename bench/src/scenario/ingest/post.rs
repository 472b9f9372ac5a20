//! Publishing by HTTP, one request for each message, on one connection that is kept.

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// A connection that publishes.
pub(super) struct Post {
    stream: BufReader<TcpStream>,
    address: String,
    path: &'static str,
}

impl Post {
    /// Connects to `address`, to publish on `path`.
    pub(super) async fn connect(address: &str, path: &'static str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), address: address.to_owned(), path })
    }

    /// Publishes one message and waits until it is taken.
    pub(super) async fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        let (path, host, length) = (self.path, &self.address, payload.len());
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
        self.stream.get_mut().write_all(&[head.as_bytes(), payload].concat()).await?;
        let (mut line, mut length) = (String::new(), 0);
        self.stream.read_line(&mut line).await?;
        ensure!(line.starts_with("HTTP/1.1 200"), "not taken: {line}");
        while line != "\r\n" {
            line.clear();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the answer does not end");
            if let Some(("content-length", value)) = line.to_ascii_lowercase().split_once(':') {
                length = value.trim().parse().context("Content-Length")?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(())
    }
}
