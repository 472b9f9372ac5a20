//! Two nodes on one nats-server, and nodes with a configuration of their own.

use tempfile::NamedTempFile;
use trestle_testkit::{Gateway, NatsServer};

use crate::support::{EXAMPLES, file, gateway, until};

/// What tokens are signed with.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A node with `config`, the example schemas, and [`token`]s.
pub(crate) async fn configured(config: &str) -> Gateway {
    configured_with(config, &["--schemas", EXAMPLES]).await
}

/// As [`configured`], with `args` instead of the example schemas.
pub(crate) async fn configured_with(config: &str, args: &[&str]) -> Gateway {
    let (secret, config) = files(config);
    let gateway = gateway(&[&["--config", config.path().to_str().unwrap()], args].concat()).await;
    // Both were read at the start.
    drop(secret);
    gateway
}

fn files(config: &str) -> (NamedTempFile, NamedTempFile) {
    let secret = file(SECRET);
    let config = file(&format!("[auth]\nhs256_secret_file = {:?}\n{config}", secret.path()));
    (secret, config)
}

/// An HS256 token of `claims`.
pub(crate) fn token(claims: &serde_json::Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let mut claims = claims.clone();
    if claims["exp"].is_null() {
        claims["exp"] = serde_json::json!(4_000_000_000_u64);
    }
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("signed")
}

/// Two nodes that know of each other, `one` and `two`.
pub(crate) struct Two {
    pub(crate) one: Gateway,
    pub(crate) two: Gateway,
    pub(crate) nats: NatsServer,
}

impl Two {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// With this configuration and [`token`]s.
    pub(crate) async fn with(config: &str) -> Self {
        let nats = NatsServer::start().await.expect("nats-server starts");
        let url = nats.url();
        let (_secret, config) = files(config);
        let args = ["--bus", &url, "--schemas", EXAMPLES, "--config", config.path().to_str().unwrap(), "--node"];
        let node = |name: &'static str| gateway_named(&args, name);
        let (one, two) = tokio::join!(node("one"), node("two"));
        // A node that stops asks its clients to go to one that it knows.
        for gateway in [&one, &two] {
            until(gateway, "trestle_cluster_nodes", |nodes| nodes == 2.0).await;
        }
        Self { one, two, nats }
    }
}

async fn gateway_named(args: &[&str], name: &str) -> Gateway {
    gateway(&[args, &[name]].concat()).await
}
