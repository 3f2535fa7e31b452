//! A client that speaks HTTP/1.1, as plain as it comes.

use super::{Certificates, PATIENCE};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// TLS to `localhost`, which has to show the certificate `server` of `certificates`. Shows the certificate `client` of
/// `shown`. The handshake takes place when something is written.
pub fn tls_to(
    addr: SocketAddr,
    certificates: &Certificates,
    shown: Option<&Certificates>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.file("ca.crt")).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(shown) => {
            let certificate = CertificateDer::from_pem_file(shown.file("client.crt")).unwrap();
            let key = PrivateKeyDer::from_pem_file(shown.file("client.key")).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(session, stream)
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A connection, which stays open from one request to the next.
pub struct HttpClient(BufReader<Box<dyn Stream>>);

/// What was answered.
#[derive(Debug)]
pub struct HttpReply {
    pub status: u16,
    /// By names in small letters.
    headers: Vec<(String, String)>,
    pub body: String,
}

impl HttpReply {
    /// The header of this name, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }
}

impl HttpClient {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(Box::new(stream)))
    }

    pub fn connect_by_tls(addr: SocketAddr, certificates: &Certificates, shown: Option<&Certificates>) -> Self {
        Self(BufReader::new(Box::new(tls_to(addr, certificates, shown))))
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// A request with these lines of header besides `Host`.
    pub fn request(&mut self, method: &str, path: &str, headers: &[&str]) -> io::Result<HttpReply> {
        let host = if headers.iter().any(|line| line.starts_with("Host:")) { "" } else { "Host: localhost\r\n" };
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(format!("{method} {path} HTTP/1.1\r\n{host}{lines}\r\n").as_bytes())?;
        self.read(method == "HEAD")
    }

    #[track_caller]
    pub fn get(&mut self, path: &str, headers: &[&str]) -> HttpReply {
        self.request("GET", path, headers).unwrap()
    }

    /// The next answer. One to a HEAD has no body.
    pub fn read(&mut self, is_to_head: bool) -> io::Result<HttpReply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {line}")))?;
        let mut reply = HttpReply { status, headers: Vec::new(), body: String::new() };
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            reply.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let length = if is_to_head { 0 } else { reply.header("content-length").parse().unwrap_or_default() };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        reply.body = String::from_utf8(body).unwrap();
        Ok(reply)
    }

    /// Whether the other side has closed, and said nothing more.
    pub fn is_closed(&mut self) -> bool {
        !matches!(self.0.read(&mut [0; 1]), Ok(1..))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}
