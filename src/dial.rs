//! Opens connections to the Redis behind, over TCP, TLS or a Unix socket.

use crate::config::{self, RedisAddr, Transport};
use crate::net::Stream;
use crate::resolve::Resolver;
use crate::tls::{read_certificates, read_key};
use rustls_pki_types::ServerName;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, TlsStream};

/// Where Redis is and how to get there.
pub struct Dialer {
    target: Target,
    addr: RedisAddr,
}

enum Target {
    Tcp(Resolver),
    Tls { host: Resolver, name: ServerName<'static>, connector: TlsConnector },
    Unix(PathBuf),
}

impl Dialer {
    /// Reads the certificates that `config` names, but reaches out to nothing.
    ///
    /// # Errors
    /// A certificate or key that cannot be read; the text names it.
    pub fn new(config: &config::Redis) -> Result<Self, String> {
        let target = match &config.addr.transport {
            Transport::Tcp(addr) => Target::Tcp(Resolver::new(addr.clone())),
            Transport::Tls(addr) => {
                let name = ServerName::try_from(addr.host.clone());
                Target::Tls {
                    host: Resolver::new(addr.clone()),
                    name: name.map_err(|error| format!("redis.addr: {}: {error}", addr.host))?,
                    connector: TlsConnector::from(Arc::new(tls_config(config)?)),
                }
            }
            Transport::Unix(path) => Target::Unix(path.clone()),
        };
        Ok(Self { target, addr: config.addr.clone() })
    }

    /// The AUTH command that a connection begins with, if any.
    pub fn auth(&self) -> Option<Vec<&[u8]>> {
        let password = self.addr.password.as_deref()?;
        let words = [Some("AUTH"), self.addr.user.as_deref(), Some(password)];
        Some(words.into_iter().flatten().map(str::as_bytes).collect())
    }

    /// The database that a connection begins with.
    pub fn db(&self) -> u32 {
        self.addr.db
    }

    /// Opens a connection, without a word of RESP spoken on it.
    ///
    /// # Errors
    /// Redis cannot be reached within `timeout`, or TLS cannot be agreed on.
    pub async fn dial(&self, timeout: Duration) -> io::Result<Stream> {
        let attempt = async {
            match &self.target {
                Target::Tcp(host) => dial_tcp(host).await.map(Stream::Tcp),
                Target::Tls { host, name, connector } => {
                    let stream = connector.connect(name.clone(), dial_tcp(host).await?).await?;
                    Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
                }
                Target::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
            }
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")),
        }
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match &self.target {
            Target::Tcp(host) => host.addr().to_string(),
            Target::Tls { host, .. } => format!("{} by TLS", host.addr()),
            Target::Unix(path) => path.display().to_string(),
        };
        f.write_str(&place)
    }
}

async fn dial_tcp(host: &Resolver) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(&*host.addresses().await?).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn tls_config(config: &config::Redis) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            for certificate in read_certificates("redis.ca_file", path)? {
                roots.add(certificate).map_err(|error| format!("redis.ca_file: {}: {error}", path.display()))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let Some(client) = &config.client_cert else { return Ok(builder.with_no_client_auth()) };
    let chain = read_certificates("redis.cert_file", &client.cert_file)?;
    let key = read_key("redis.key_file", &client.key_file)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| format!("redis.cert_file: {error}"))
}
