//! The first connection: what is said when there is none, and what keeps it private.

use std::{error::Error, net::TcpListener, path::PathBuf, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use trestle_bus::{BusError, Subject};
use trestle_bus_nats::{Nats, NatsConfig, NatsError, TlsFiles};
use trestle_testkit::NatsServer;

const PATIENCE: Duration = Duration::from_secs(30);

fn quick(url: &str) -> NatsConfig {
    NatsConfig { connect_timeout: Duration::from_secs(2), ..NatsConfig::new(url) }
}

async fn refused(config: NatsConfig) -> NatsError {
    match timeout(PATIENCE, Nats::connect(config)).await.expect("it ends") {
        Ok(_) => panic!("it must not connect"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_after_the_time_given() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let began = Instant::now();
    let error = refused(quick(&format!("nats://user:secret@{free}"))).await;
    assert!(began.elapsed() >= Duration::from_secs(1), "it was tried again");
    let said = error.to_string();
    assert!(said.contains(&format!("nats://{free}")) && !said.contains("secret"), "{said}");
    assert!(error.source().is_some(), "the cause is told");
}

#[tokio::test]
async fn a_url_that_is_none_is_named() {
    let error = refused(quick("nats://")).await;
    assert!(matches!(error, NatsError::Url { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_late_is_waited_for() {
    let mut server = NatsServer::start().await.expect("starts");
    server.stop().await.expect("stops");
    let config = NatsConfig { connect_timeout: PATIENCE, ..NatsConfig::new(server.url()) };
    let connecting = tokio::spawn(Nats::connect(config));
    server.restart().await.expect("starts again");
    let fabric = connecting.await.expect("no panic").expect("connects");
    fabric.bus.publish(&Subject::from_trusted("a"), Bytes::new()).await.expect("publishes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_refused_at_once_and_the_right_one_is_not() {
    let server =
        NatsServer::start_with("authorization { user: gateway, password: \"right@:\" }").await.expect("starts");
    let with = |password: &str| server.url().replace("nats://", &format!("nats://gateway:{password}@"));
    let config = NatsConfig { connect_timeout: 10 * PATIENCE, ..NatsConfig::new(with("wrong")) };
    let error = refused(config).await;
    assert!(matches!(error, NatsError::Refused { .. }), "{error:?}");
    let said = format!("{error} {:?}", error.source());
    assert!(!said.contains("wrong"), "{said}");
    let fabric = Nats::connect(quick(&with("right%40%3A"))).await.expect("connects");
    fabric.kv.put("key", "value".into(), None).await.expect("puts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_jetstream_live_messages_go_and_the_rest_says_why_not() {
    let server = NatsServer::start_with("jetstream: disabled").await.expect("starts");
    let fabric = Nats::connect(quick(&server.url())).await.expect("connects");
    let at = Subject::from_trusted("a");
    let mut subscription = fabric.bus.subscribe(&at, None).await.expect("subscribes");
    fabric.bus.publish(&at, "x".into()).await.expect("publishes");
    timeout(PATIENCE, subscription.next()).await.expect("it is heard").expect("the bus is open");
    let error = fabric.kv.get("key").await;
    assert!(matches!(&error, Err(BusError::Refused(said)) if said.contains("JetStream")), "{error:?}");
}

/// What NATS's tools make of an operator, an account and a user: the server's configuration and the user's file.
fn accounts() -> (String, String) {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use nkeys::KeyPair;
    let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
    let (account, user) = (KeyPair::new_account(), KeyPair::new_user());
    let token = |issuer: &KeyPair, subject: &KeyPair, nats: serde_json::Value| {
        let claims = serde_json::json!({
            "jti": subject.public_key(), "iat": 1_700_000_000, "name": "test",
            "iss": issuer.public_key(), "sub": subject.public_key(), "nats": nats,
        });
        let head = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
        let body = [head.to_owned(), claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = URL_SAFE_NO_PAD.encode(issuer.sign(body.as_bytes()).expect("signs"));
        format!("{body}.{signature}")
    };
    let limits = serde_json::json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let mut of_system = limits.clone();
    for storage in ["mem_storage", "disk_storage", "streams", "consumer"] {
        of_system[storage] = 0.into();
    }
    let account_token = |key: &KeyPair, limits| {
        token(&operator, key, serde_json::json!({ "type": "account", "version": 2, "limits": limits }))
    };
    let of_user = serde_json::json!({
        "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
    });
    let server = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
        token(&operator, &operator, serde_json::json!({ "type": "operator", "version": 2 })),
        system.public_key(),
        system.public_key(),
        account_token(&system, of_system),
        account.public_key(),
        account_token(&account, limits),
    );
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        token(&account, &user, of_user),
        user.seed().expect("a seed"),
    );
    (server, credentials)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_file_lets_in_and_without_it_nobody_is() {
    let (accounts, credentials) = accounts();
    let server = NatsServer::start_with(&accounts).await.expect("starts");
    let file = server.folder().join("user.creds");
    std::fs::write(&file, credentials).expect("writes");
    let with = |credentials| NatsConfig { credentials, ..quick(&server.url()) };
    let fabric = Nats::connect(with(Some(file))).await.expect("connects");
    fabric.kv.put("key", "value".into(), None).await.expect("puts");
    assert!(matches!(refused(with(None)).await, NatsError::Refused { .. }));
    let missing = server.folder().join("missing.creds");
    let error = refused(with(Some(missing.clone()))).await;
    assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
}

/// A certificate authority, and a server's and a client's certificate signed by it, as files in `folder`.
fn certificates(folder: &std::path::Path) -> impl Fn(&str) -> PathBuf + use<> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let folder = folder.to_owned();
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("signs itself");
    std::fs::write(folder.join("ca.pem"), authority.pem()).expect("writes");
    let issuer = Issuer::new(params, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("names");
        let certificate = params.signed_by(&key, &issuer).expect("signs");
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("writes");
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("writes");
    }
    move |name| folder.join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_asks_for_both_certificates_and_trusts_only_its_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = certificates(folder.path());
    let shown = |name: &str| file(name).display().to_string();
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        shown("server.pem"),
        shown("server.key"),
        shown("ca.pem")
    );
    let server = NatsServer::start_with(&tls).await.expect("starts");
    let with = |tls| NatsConfig { tls: Some(tls), ..quick(&server.url()) };
    let authorities = Some(file("ca.pem"));
    let identity = Some((file("client.pem"), file("client.key")));
    let trusted = TlsFiles { authorities: authorities.clone(), identity: identity.clone() };
    let fabric = Nats::connect(with(trusted)).await.expect("connects");
    fabric.kv.put("key", "value".into(), None).await.expect("puts");
    refused(with(TlsFiles { authorities, identity: None })).await;
    let other = tempfile::tempdir().expect("a folder");
    let stranger = certificates(other.path());
    refused(with(TlsFiles { authorities: Some(stranger("ca.pem")), identity })).await;
}
