//! TLS for clients: certificates that can be exchanged while serving, and the handshake.

use crate::config;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::{Accept, TlsAcceptor};

/// Longest that a client may take for its handshake. It counts as a client meanwhile, and whoever does not get to the
/// end must not take the place of others for good.
pub const MAX_HANDSHAKE: Duration = Duration::from_secs(10);

/// Accepts clients that speak TLS 1.2 or 1.3.
pub struct Acceptor {
    files: config::Tls,
    current: RwLock<Arc<ServerConfig>>,
}

impl Acceptor {
    /// Reads the certificates that `config` names.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no certificate or key, or a key of another certificate. The text names the
    /// setting and the file.
    pub fn load(config: &config::Tls) -> Result<Self, String> {
        Ok(Self { files: config.clone(), current: RwLock::new(Arc::new(server_config(config)?)) })
    }

    /// Reads the same files again, for clients that come from now on. Sessions of before cannot be resumed: a client
    /// whose authority is no longer trusted does not come back by one.
    ///
    /// # Errors
    /// As [`Acceptor::load`]. What was read before then stays in force.
    pub fn reload(&self) -> Result<(), String> {
        let new = Arc::new(server_config(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Performs the TLS handshake with a client. The future may be dropped at any time, and should be after [`MAX_HANDSHAKE`]: it
    /// waits for the client as long as it is polled.
    pub fn accept(&self, stream: TcpStream) -> Accept<TcpStream> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        TlsAcceptor::from(current).accept(stream)
    }
}

fn server_config(config: &config::Tls) -> Result<ServerConfig, String> {
    let chain = read_certificates("tls.cert_file", &config.cert_file)?;
    let key = read_key("tls.key_file", &config.key_file)?;
    let provider = Arc::new(default_provider());
    let versions = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| format!("tls: {error}"))?;
    let builder = match &config.client_certs {
        Some(client_certs) => builder.with_client_cert_verifier(client_verifier(client_certs)?),
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(chain, key).map_err(|error| {
        let (certificate, key) = (config.cert_file.display(), config.key_file.display());
        format!("tls.cert_file: {certificate} with tls.key_file: {key}: {error}")
    })
}

fn client_verifier(config: &config::ClientCerts) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let text = |error: &dyn std::fmt::Display| format!("tls.ca_file: {}: {error}", config.ca_file.display());
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates("tls.ca_file", &config.ca_file)? {
        roots.add(certificate).map_err(|error| text(&error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let builder = if config.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| text(&error))
}

/// The certificates of a PEM file, at least one. `setting` is what names the file.
///
/// # Errors
/// The file cannot be read or holds none; the text names it and the setting.
pub fn read_certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = |error: &dyn std::fmt::Display| format!("{setting}: {}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| text(&error))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| text(&error))?;
    if certificates.is_empty() { Err(text(&"no certificate in it")) } else { Ok(certificates) }
}

/// The first private key of a PEM file. `setting` is what names the file.
///
/// # Errors
/// The file cannot be read or holds none; the text names it and the setting.
pub fn read_key(setting: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{setting}: {}: {error}", path.display()))
}
