//! TLS: certificates and keys in PEM, the names in a certificate, the client's side, and the server's side, which requires client
//! certificates. It opens no connection: [`http`](crate::http) and [`api`](crate::api) do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, InconsistentKeys};

use crate::config::{ConfigError, TlsSettings};

mod client;
mod names;
pub mod pem;

pub use client::client_config;
pub use names::Names;

/// The keys of the configuration that name files.
pub const CERT: &str = "listen.cert";
const KEY: &str = "listen.key";
/// See [`CERT`].
pub const CLIENT_CA: &str = "listen.client_ca";

/// How long before its end a certificate is told of.
pub const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How clients are served over TLS: what the files held when they were read, and the names that are allowed.
#[derive(Debug)]
pub struct Tls {
    /// What a handshake needs.
    pub config: Arc<ServerConfig>,
    /// When the certificates end.
    pub certificates: Vec<Certificate>,
    allow: Vec<String>,
}

/// A certificate of the server's own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The key of the configuration that names its file: [`CERT`] or [`CLIENT_CA`].
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Its subject's name.
    pub name: String,
    /// When it ends.
    pub ends: Timestamp,
}

/// The cryptography that all of TLS uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Tls {
    /// Reads the files, and checks that they fit each other.
    ///
    /// # Errors
    /// A file cannot be read, or has no certificate or key that can be used; every user can read the key; or the key is of another certificate.
    pub fn read(settings: &TlsSettings) -> Result<Self, ConfigError> {
        let TlsSettings { cert, key, client_ca, allow, .. } = settings;
        let chain = pem::certificates(cert).map_err(|error| bad(CERT, cert, error.why))?;
        pem::is_private(key).map_err(|error| bad(KEY, key, error.why))?;
        let private = pem::key(key).map_err(|error| bad(KEY, key, error.why))?;
        let authorities = pem::certificates(client_ca).map_err(|error| bad(CLIENT_CA, client_ca, error.why))?;
        let mut certificates = ends(CERT, cert, &chain)?;
        certificates.extend(ends(CLIENT_CA, client_ca, &authorities)?);
        let roots = pem::roots_of(client_ca, authorities).map_err(|error| bad(CLIENT_CA, client_ca, error.why))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| bad(CLIENT_CA, client_ca, error))?;
        let versions = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(CERT, cert, error))?;
        let served = versions.with_client_cert_verifier(verifier).with_single_cert(chain, private);
        let mut config = served.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                bad(KEY, key, format!("it is not the key of the certificate in listen.cert ({})", cert.display()))
            }
            rustls::Error::InvalidCertificate(_) => bad(CERT, cert, error),
            error => bad(KEY, key, error),
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection's certificate is verified anew: a resumed session would skip that.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), certificates, allow: allow.clone() })
    }

    /// Whether a client with these names may do anything.
    pub fn allows(&self, names: &Names) -> bool {
        self.allow.iter().any(|allowed| names.have(allowed))
    }

    /// The certificates that have ended, or end soon.
    pub fn ending(&self, now: Timestamp) -> impl Iterator<Item = &Certificate> {
        self.certificates.iter().filter(move |certificate| certificate.ends.duration_since(now) <= SOON)
    }
}

fn ends(key: &'static str, path: &Path, found: &[CertificateDer<'_>]) -> Result<Vec<Certificate>, ConfigError> {
    let read = |certificate: &CertificateDer<'_>| {
        let (name, ends) = names::subject_and_end(certificate).map_err(|why| bad(key, path, why))?;
        Ok(Certificate { key, path: path.to_owned(), name, ends })
    };
    found.iter().map(read).collect()
}

fn bad(key: &'static str, path: &Path, why: impl ToString) -> ConfigError {
    ConfigError::Value { key, value: path.display().to_string(), expected: why.to_string() }
}
