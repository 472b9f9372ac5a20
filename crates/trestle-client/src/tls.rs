//! Whom a client believes on `wss://`.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_tungstenite::Connector;

use crate::{Roots, error::Cause};

/// What makes TLS of a socket. Reads the system's certificates, which takes some milliseconds.
pub(crate) fn connector(roots: &Roots) -> Result<Connector, Cause> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            found.errors.iter().for_each(|fault| tracing::warn!(%fault, "a certificate of the system cannot be read"));
            store.add_parsable_certificates(found.certs);
        }
        Roots::Pem(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|fault| cause(format!("`roots` is no PEM: {fault:?}")))?;
                store.add(certificate).map_err(|fault| Arc::new(fault) as Cause)?;
            }
        }
    }
    if store.is_empty() {
        return Err(cause("there is no certificate to believe: name some in `roots`".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|fault| Arc::new(fault) as Cause)?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Connector::Rustls(Arc::new(config)))
}

fn cause(sentence: String) -> Cause {
    Cause::from(Box::<dyn std::error::Error + Send + Sync>::from(sentence))
}
