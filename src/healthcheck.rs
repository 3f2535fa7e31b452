//! `--health`: asks the Tollgate that runs by a configuration whether it answers, for HEALTHCHECK of a Dockerfile and its
//! like.

use crate::config::{Config, HostPort, Tls};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// Longest that the answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer that are looked at, and told.
const MAX_ANSWER: usize = 80;

/// Asks the first address that is listened on. Whether the answer is one that a healthy Tollgate gives, and a line that
/// says what it was.
pub async fn check(config: &Config) -> (bool, String) {
    let plain = config.server.listen.first().map(|address| (address, None));
    let secured = || config.tls.as_ref().and_then(|tls| Some((tls.listen.first()?, Some(tls))));
    let Some((address, tls)) = plain.or_else(secured) else { return (false, "it listens nowhere".to_owned()) };
    let outcome = match timeout(PATIENCE, ask(address, tls)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    match outcome {
        Ok(answer) => (true, format!("healthy: {address} answers {answer}")),
        Err(error) => (false, format!("unhealthy: {address}: {error}")),
    }
}

async fn ask(address: &HostPort, tls: Option<&Tls>) -> Result<String, String> {
    if address.port == 0 {
        return Err("a port that the system chooses is known to nobody else".to_owned());
    }
    // All interfaces can be listened on, and one of them is connected to.
    let host = match address.host.as_str() {
        "" | "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let text = |error: io::Error| error.to_string();
    let stream = TcpStream::connect((host, address.port)).await.map_err(text)?;
    let Some(tls) = tls else { return ping(stream).await };
    let config = client_config()?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(text)?;
    match &tls.client_certs {
        Some(client_certs) if client_certs.required => Ok("TLS, and wants a certificate to say more".to_owned()),
        _ => ping(stream).await,
    }
}

/// What a PING is answered. A Tollgate that wants a login is as healthy as one that does not.
async fn ping(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<String, String> {
    let text = |error: io::Error| error.to_string();
    stream.write_all(b"PING\r\n").await.map_err(text)?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < MAX_ANSWER {
        let mut bytes = [0; MAX_ANSWER];
        let length = stream.read(&mut bytes).await.map_err(text)?;
        if length == 0 {
            return Err("it closes the connection".to_owned());
        }
        answer.extend_from_slice(bytes.get(..length).unwrap_or_default());
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let shown = line.escape_ascii().to_string();
    if line == b"+PONG" || line.starts_with(b"-NOAUTH ") { Ok(shown) } else { Err(shown) }
}

/// Takes any certificate. Nothing is told to whoever shows it, and one that was exchanged on disk and not yet reloaded says
/// nothing about health.
fn client_config() -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("tls: {error}"))?;
    let verifier = Arc::new(Anyone { provider });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Whoever has the private key of the certificate that it shows.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
