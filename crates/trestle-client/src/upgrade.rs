//! An address in, a WebSocket on the wanted subprotocol out.

use std::{sync::OnceLock, time::Duration};

use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        Error as SocketError,
        client::IntoClientRequest,
        handshake::client::Request,
        http::{HeaderName, HeaderValue, Response, header},
        protocol::WebSocketConfig,
    },
};

use crate::{Error, Options, error::Cause, tls};

/// Longest part of a refused upgrade's body that is kept, in bytes: the gateway's refusals are one sentence.
const BODY_BYTES_MAX: usize = 1024;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Makes WebSockets for one client.
pub(crate) struct Upgrade {
    options: Options,
    subprotocol: &'static str,
    /// Made with the first `wss://`, kept for the sake of TLS's own resumption.
    connector: OnceLock<Connector>,
}

impl Upgrade {
    pub(crate) fn new(subprotocol: &'static str, options: Options) -> Self {
        Self { options, subprotocol, connector: OnceLock::new() }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Connects and upgrades; waits for as long as the network does, the caller limits it.
    pub(crate) async fn open(&self, url: &str) -> Result<Socket, Error> {
        let failed = |cause: Cause| Error::Connect { url: url.to_owned(), cause };
        let request = self.request(url).map_err(|cause| failed(cause.into()))?;
        let connector = match request.uri().scheme_str() {
            Some("wss") => Some(self.connector().map_err(failed)?),
            _ => None,
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(16 << 10)
            .write_buffer_size(16 << 10)
            .max_message_size(Some(self.options.message_bytes_max))
            .max_frame_size(Some(self.options.message_bytes_max));
        match connect_async_tls_with_config(request, Some(config), true, connector).await {
            Ok((socket, _)) => Ok(socket),
            Err(SocketError::Http(response)) => Err(refused(&response)),
            Err(error) => Err(failed(std::sync::Arc::new(error))),
        }
    }

    fn connector(&self) -> Result<Connector, Cause> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector.clone());
        }
        let connector = tls::connector(&self.options.roots)?;
        Ok(self.connector.get_or_init(|| connector).clone())
    }

    fn request(&self, url: &str) -> Result<Request, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = url.into_client_request()?;
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.subprotocol));
        for (name, value) in &self.options.headers {
            headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        Ok(request)
    }
}

/// An HTTP answer that is no upgrade. `Retry-After` is understood in seconds; a date is not, as clocks differ.
fn refused(response: &Response<Option<Vec<u8>>>) -> Error {
    let body = response.body().as_deref().unwrap_or_default();
    let body = String::from_utf8_lossy(&body[..body.len().min(BODY_BYTES_MAX)]).into_owned();
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()).and_then(|value| value.trim().parse().ok());
    Error::Upgrade { status: response.status().as_u16(), body, retry_after: retry_after.map(Duration::from_secs) }
}
