//! What an operator can say about the connection to NATS.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trestle_bus_nats::{NatsConfig, TlsFiles};
use trestle_wire::NodeId;

/// The connection to NATS, where `bus` names one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NatsOptions {
    /// How long the first connection is tried for at the start. Later breaks are mended for as long as it takes.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) connect_timeout: Duration,
    /// How long one answer of NATS may take, such as the ack of an append.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) request_timeout: Duration,
    /// On how many servers each log is stored: 1, or 3 or 5 in a cluster of at least as many.
    pub(crate) replicas: usize,
    /// Credentials file (JWT and nkey seed, as `nats auth user credential` writes it), read once at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<PathBuf>,
    /// PEM file with the authorities that may have signed the servers' certificates. Not set: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_authorities: Option<PathBuf>,
    /// PEM file with the certificate that the gateway shows; needs `tls_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl Default for NatsOptions {
    fn default() -> Self {
        let defaults = NatsConfig::new("");
        Self {
            connect_timeout: defaults.connect_timeout,
            request_timeout: defaults.request_timeout,
            replicas: defaults.replicas,
            credentials: None,
            tls_authorities: None,
            tls_certificate: None,
            tls_key: None,
        }
    }
}

impl NatsOptions {
    /// The connection of `node` to the servers at `url`, under `prefix`.
    #[must_use]
    pub(crate) fn connection(&self, url: &str, node: &NodeId, prefix: &str) -> NatsConfig {
        let identity = self.tls_certificate.clone().zip(self.tls_key.clone());
        let authorities = self.tls_authorities.clone();
        let asked = identity.is_some() || authorities.is_some();
        NatsConfig {
            name: format!("trestle {node}"),
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            replicas: self.replicas,
            credentials: self.credentials.clone(),
            bucket: prefix.replace('.', "_").to_ascii_uppercase(),
            tls: asked.then_some(TlsFiles { authorities, identity }),
            ..NatsConfig::new(url)
        }
    }

    /// Everything that is wrong with it, a sentence per key.
    #[must_use]
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !matches!(self.replicas, 1 | 3 | 5) {
            faults.push(format!("nats.replicas ({}) must be 1, 3 or 5", self.replicas));
        }
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            faults.push("nats.tls_certificate and nats.tls_key are needed together".into());
        }
        for (key, value) in [("connect_timeout", self.connect_timeout), ("request_timeout", self.request_timeout)] {
            if value.is_zero() {
                faults.push(format!("nats.{key} must be more than 0"));
            }
        }
        faults
    }
}
