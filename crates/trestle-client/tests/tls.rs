//! `wss://`, against a gateway behind TLS.

mod common;

use std::sync::Arc;

use common::connected;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        http::HeaderValue,
    },
};
use trestle_client::{Client, Error, Options, Roots};
use trestle_wire::v1::{self, server_frame::Frame};

/// Serves one client after the other; those that do not believe the certificate hang up.
async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    use futures_util::{SinkExt as _, StreamExt as _};
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let Ok(stream) = acceptor.accept(stream).await else { continue };
        #[allow(clippy::result_large_err)] // the type is tungstenite's
        let upgrade = |_: &Request, mut response: Response| {
            let name = HeaderValue::from_static("trestle.v1.proto");
            response.headers_mut().insert("sec-websocket-protocol", name);
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, upgrade).await.expect("an upgrade");
        let connect = socket.next().await.expect("open").expect("whole").into_data();
        let reply_to = v1::ClientFrames::decode(connect).expect("ClientFrames").frames[0].id;
        let frames = vec![v1::ServerFrame { reply_to, frame: Some(Frame::Connected(connected())) }];
        let message = Message::binary(v1::ServerFrames { frames }.encode_to_vec());
        socket.send(message).await.expect("the client is there");
        while let Some(Ok(_)) = socket.next().await {}
    }
}

#[tokio::test]
async fn a_certificate_is_believed_only_if_its_root_is() {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .expect("a key that fits");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let server = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config))));

    let url = format!("wss://localhost:{port}/ws");
    let roots = Roots::Pem(issued.cert.pem());
    let client =
        Client::connect(&url, Options { roots: roots.clone(), ..Options::default() }).await.expect("a session");
    assert_eq!(client.close().await.code, Some(1000));

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    for (url, roots, fault) in [
        (url.clone(), Roots::Pem(other.cert.pem()), "certificate"),
        (format!("wss://127.0.0.1:{port}/ws"), roots, "certificate"), // issued for another name
        (url, Roots::Pem("no PEM".into()), "no certificate to believe"),
    ] {
        let error = Client::connect(&url, Options { roots, ..Options::default() }).await.expect_err("not believed");
        assert!(matches!(&error, Error::Connect { cause, .. } if cause.to_string().contains(fault)), "{error}");
    }
    server.abort();
}
