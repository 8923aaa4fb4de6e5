//! Connections to a daemon.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::cli::Connection;

/// Messages of millions of rows, as the daemon takes them.
pub(super) const MAX_MESSAGE: usize = 64 << 20;

/// A runtime for one command.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
}

/// Connects, with TLS when a CA is given.
pub(super) async fn connect(address: &str, connection: &Connection) -> Result<Channel> {
    let scheme = if connection.tls_ca.is_some() {
        "https"
    } else {
        "http"
    };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .with_context(|| format!("`{address}` is not ADDR:PORT"))?
        .connect_timeout(Duration::from_secs(10));
    if let Some(ca) = &connection.tls_ca {
        endpoint = endpoint.tls_config(tls(ca, connection)?).context("TLS")?;
    }
    endpoint
        .connect()
        .await
        .with_context(|| format!("cannot connect to {address}"))
}

fn tls(ca: &Path, connection: &Connection) -> Result<ClientTlsConfig> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    if let (Some(cert), Some(key)) = (&connection.tls_cert, &connection.tls_key) {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    if let Some(name) = &connection.tls_name {
        tls = tls.domain_name(name);
    }
    Ok(tls)
}
