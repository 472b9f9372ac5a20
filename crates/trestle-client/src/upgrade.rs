//! An address in, a WebSocket on the wanted subprotocol out.

use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Error as SocketError,
        client::IntoClientRequest,
        handshake::client::Request,
        http::{HeaderName, HeaderValue},
        protocol::WebSocketConfig,
    },
};

use crate::{Error, Options};

/// Longest part of a refused upgrade's body that is kept, in bytes: the gateway's refusals are one sentence.
const BODY_BYTES_MAX: usize = 1024;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects and upgrades; waits for as long as the network does, the caller limits it.
pub(crate) async fn upgrade(url: &str, subprotocol: &'static str, options: &Options) -> Result<Socket, Error> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| Error::Connect { url: url.to_owned(), cause };
    let request = request(url, subprotocol, options).map_err(failed)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(16 << 10)
        .max_message_size(Some(options.message_bytes_max))
        .max_frame_size(Some(options.message_bytes_max));
    match connect_async_with_config(request, Some(config), true).await {
        Ok((socket, _)) => Ok(socket),
        Err(SocketError::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(&body[..body.len().min(BODY_BYTES_MAX)]).into_owned();
            Err(Error::Upgrade { status: response.status().as_u16(), body })
        }
        Err(error) => Err(failed(error.into())),
    }
}

fn request(
    url: &str,
    subprotocol: &'static str,
    options: &Options,
) -> Result<Request, Box<dyn std::error::Error + Send + Sync>> {
    let mut request = url.into_client_request()?;
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(subprotocol));
    for (name, value) in &options.headers {
        headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    Ok(request)
}
